"""Running and checking: compiled layers, networks, data, and the search for mistakes in any implementation.

What `codegen` emits becomes a callable here, on NumPy or CuPy arrays whose dtype, shape, strides and device
are checked at the border. A reference written without derivations or generated code stands beside it, and
Hypothesis compares the two.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime.compile import compile  # noqa: A004 - the public name, as in torch.compile
    from runtime.data import load_digits, load_idx_folder, standardise
    from runtime.device import backends
    from runtime.network import Network
    from runtime.operation import Gradients, Operation
    from runtime.train import Settings, train

__all__ = [
    "Gradients",
    "Network",
    "Operation",
    "Settings",
    "backends",
    "certificate_of",
    "compile",
    "load_digits",
    "load_idx_folder",
    "standardise",
    "train",
]

_HOME = {
    "Gradients": "operation",
    "Operation": "operation",
    "certificate_of": "compile",
    "compile": "compile",
    "load_digits": "data",
    "load_idx_folder": "data",
    "standardise": "data",
    "backends": "device",
    "Network": "network",
    "Settings": "train",
    "train": "train",
}


def __getattr__(name: str) -> Any:
    """A public name, imported when it is first asked for: the command's help does without NumPy."""
    if name not in _HOME:
        raise AttributeError(f"module 'runtime' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"runtime.{_HOME[name]}"), name)
    setattr(sys.modules[__name__], name, value)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Face(ModuleType):
    """Keeps ``runtime.compile`` and ``runtime.train`` the functions, whoever imports the files of these names.

    Importing a submodule makes it an attribute of its package; where a function of the same name is public, the
    function takes that place.  ``from runtime.compile import ...`` finds the file as ever.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _HOME.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
