"""An emitted module for CuPy on a CPU: what ``codegen.check`` asks of an executor.

The module's own text is executed, host part and kernels, with `CupyStandIn` in the place of CuPy.  Over the prime field
its numbers are ``certiconv_field``, which lie in uint64: a floating-point dtype that the module asks for becomes that.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np

from runtime.simt.cupy_standin import CupyStandIn

FIELD = "certiconv_field"
TURNS = ("shuffled", "reverse", "forward")


def on_cpu(
    source: str,
    *,
    key: int | None = None,
    turn: int = 0,
    turns: Sequence[str | int] = TURNS,
    timeout: float = 600.0,
) -> ModuleType:
    """The module of a text that imports CuPy; ``module.cupy.launches`` has every launch.

    Args:
        source: the text.
        key: that of the field, if its numbers are to be exact.
        turn: the number of the order that the first launch of a kernel takes.
        turns: the orders of threads and blocks, one a launch, that the launches of each kernel take in turn.  A race is
            found under any of them; a result that depends on the order for another reason is wrong under some, so
            whoever compares the results of several calls finds it without a further run.
        timeout: as for `Program.launch`.

    Raises:
        SimtUnavailable: there is no g++ here, or the machine is no x86-64 with Linux; raised by the first launch.
    """
    from codegen.loading import load

    exact: dict[str, Any] = {}
    if key is not None:
        exact = {"defines": {"REAL": FIELD, "ACC": FIELD}, "names": {"dtype": _as_field}, "field_key": key}
    first = turn % max(1, len(turns))
    with CupyStandIn(turns=(*turns[first:], *turns[:first]), timeout=timeout, **exact).installed():
        return load(source)


def _as_field(name: Any) -> np.dtype[Any]:
    """Elements of the field lie in uint64."""
    dtype = np.dtype(name)
    return np.dtype(np.uint64) if dtype.kind in "fV" else dtype
