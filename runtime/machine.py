"""This machine as `codegen.cost` sees it: rates that are measured, and the size of the cache.

What is emitted without asking is chosen for a reference machine, so that the same request gives the same bytes
everywhere.  ``certiconv emit --machine here`` chooses for the rates measured here instead; ``--tune`` measures the
algorithms themselves.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from codegen.machine import REFERENCE, Machine
from runtime.roofline import least, measure
from runtime.threads import blas_threads

SECOND_LEVEL = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")  # where Linux tells it, such as "512K"
UNITS = {"K": 1 << 10, "M": 1 << 20}
GEMM, COPY, CALL = 82.0, 0.10, 1.6
"""What `measured` finds on the machine that `codegen.machine.REFERENCE` was fitted on: GFLOP/s, ns a float32, us.

The model counts with slower rates, since its products are thinner and its copies shorter; in that proportion here too.
"""
_least = partial(least, tries=200)


def measured(*, threads: int = 1) -> Machine:
    """The rates to count with on this machine, BLAS at one thread where that can be set; takes about a second.

    Args:
        threads: how many a call will be split between, see `runtime.parallel`.
    """
    with blas_threads(1):
        gemm = measure().gemm / 1e9
        cells = np.ones(1 << 15, np.float32)  # with its copy half of a cache of 512 KB
        copied, one, few = np.empty_like(cells), np.empty(1, np.float32), np.empty((1, 1), np.float32)
        longer = _least(lambda: np.copyto(copied, cells)) - _least(lambda: np.copyto(one, cells[:1]))
        copy = 1e9 * longer / len(cells)
        call = 1e6 * _least(lambda: np.matmul(few, few, out=few))
    return Machine(
        gemm=REFERENCE.gemm * gemm / GEMM,
        copy=REFERENCE.copy * max(copy, 0.01) / COPY,
        call=REFERENCE.call * call / CALL,
        cache=second_level(),
        threads=threads,
    )


def second_level() -> int:
    """Bytes of the second-level cache of a core; those of the reference where the system does not tell.

    >>> second_level() >= 1 << 17
    True
    """
    try:
        text = SECOND_LEVEL.read_text(encoding="ascii").strip()
        return int(text[:-1]) * UNITS[text[-1]]
    except (OSError, ValueError, KeyError, IndexError):
        return REFERENCE.cache


def told(machine: Machine) -> str:
    """The machine for a reader.

    >>> told(REFERENCE)
    '70 GFLOP/s in matrix products, 0.22 ns to copy a float32, 1.8 us a call, 512 KB of second-level cache, 1 thread'
    """
    threads = "1 thread" if machine.threads == 1 else f"{machine.threads} threads"
    return (
        f"{machine.gemm:.3g} GFLOP/s in matrix products, {machine.copy:.2g} ns to copy a float32, "
        f"{machine.call:.2g} us a call, {machine.cache >> 10} KB of second-level cache, {threads}"
    )
