"""Plans and text: how a machine computes a layer, and the standalone module that does it.

A plan is a list of stages, each a new tensor with a layout and a role for every group of axes; that it
computes its layer is one theorem of `derive`, for all sizes. Templates turn each stage into NumPy or CUDA
text, which imports nothing of this project, is the same on every machine, and is executed exactly against
the stages before it is trusted.

    >>> import codegen, derive
    >>> kernel = codegen.emit(derive.Conv2d(6, 16, 5), input_shape=(8, 6, 14, 14))
    >>> module = codegen.load(kernel.source)
    >>> module.SHAPES["weight"]
    (16, 6, 5, 5)

Importing this package is quick: what prints text is loaded by the first call that needs it.
"""

from typing import TYPE_CHECKING, Any

from codegen.emit import Emitted, emit  # the function: `codegen.emit` is never the module of that name
from codegen.legal import EmitError

if TYPE_CHECKING:
    from codegen.loading import load

__all__ = ["EmitError", "Emitted", "emit", "load"]


def __getattr__(name: str) -> Any:
    if name != "load":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from codegen.loading import load

    return load
