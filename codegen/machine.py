"""The machine that plans are made and priced for: its rates, and what other accesses cost than plain ones.

``REFERENCE`` is one core of a Zen 3 processor (AVX2, 512 KB of second-level cache, NumPy 2.4 with OpenBLAS), so that
what is chosen without measuring, and how many images a block has, are the same everywhere.  ``Penalties`` were fitted
on it to times of stages, taken one by one as ``python -m tests.benchmarks.stages`` takes them; ``runtime.machine``
measures the rates of another machine, in proportion to which everything else is taken to change.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """What predictions rest on.

    Attributes:
        gemm: rate of large float32 matrix products on one thread, in 10^9 operations a second.
        copy: nanoseconds to copy one float32 in contiguous runs that fit the cache.
        call: microseconds a NumPy call takes.
        cache: bytes of the second-level cache of a core.
        threads: how many a batch is split between, each with a workspace of its own.
    """

    gemm: float = 70.0
    copy: float = 0.22
    call: float = 1.8
    cache: int = 1 << 19
    threads: int = 1


@dataclass(frozen=True)
class Penalties:
    """By how much what is not a long contiguous copy, or a large product, differs from one.

    Attributes:
        across: times as long a cell takes that is read across the rows of an array.
        skipping: the same of every other cell of a row.
        uncached: the same of a contiguous cell, where the array does not fit the cache.
        added: passes of a slice that is added.
        scaled: passes of a slice that is multiplied by a number and added.
        whole: passes of a whole array that is added to another.
        laid: part of a pass that is left where one call copies all windows.
        run: cells that every run of a copy costs besides.
        run_added: the same where runs are added.
        turn: the same of a run that is read across rows, in cells of that kind.
        side: rows, or columns, for which a product is half as fast; to the power 3/2 as it grows thinner.
        depth: terms of the sums for which it is half as fast.
        product: microseconds that each product of a batch takes besides.
    """

    across: float = 3.2
    skipping: float = 2.5
    uncached: float = 1.8
    added: float = 3.0
    scaled: float = 8.0
    whole: float = 1.5
    laid: float = 0.6
    run: float = 30.0
    run_added: float = 80.0
    turn: float = 2.5
    side: float = 8.0
    depth: float = 6.0
    product: float = 1.3


REFERENCE = Machine()
PENALTIES = Penalties()

__all__ = ["PENALTIES", "REFERENCE", "Machine", "Penalties"]
