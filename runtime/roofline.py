"""The roofline: how fast this machine could do a piece of work at most, from two rates that are measured.

Work that does so many operations for each byte it must move (its *arithmetic intensity*) cannot do them faster than the
machine multiplies matrices, nor faster than the bytes arrive: the roof is the lesser of the two (Williams, Waterman and
Patterson 2009, "Roofline: an insightful visual performance model").  Both rates are of float32, through NumPy: a matrix
product that fits the caches in blocks, and a copy between arrays that do not fit them, reads and writes both counted.
An average memory bus may give more than a copy does, and data that stays in a cache comes faster: the slanted part of
the roof is a guide, not a law.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

_SIDE = 1024
_PROBE_SIDE = 384
_COPIED = 64 * 2**20  # bytes of each array
_TRIES = 15


@dataclass(frozen=True)
class Cost:
    """Floating-point operations, and the bytes that must be moved at least."""

    operations: float
    bytes: float

    @property
    def intensity(self) -> float:
        """Operations a byte.

        >>> Cost(operations=200, bytes=50).intensity
        4.0
        """
        return self.operations / self.bytes


@dataclass(frozen=True)
class Roof:
    """Two rates of a machine: operations a second in a matrix product, bytes a second in a copy."""

    gemm: float
    copy: float

    @property
    def ridge(self) -> float:
        """The intensity from which on the matrix product's rate is the limit.

        >>> Roof(gemm=100e9, copy=20e9).ridge
        5.0
        """
        return self.gemm / self.copy

    def at(self, intensity: float) -> float:
        """The operations a second that work of this intensity can reach.

        >>> roof = Roof(gemm=100e9, copy=20e9)
        >>> roof.at(2.0), roof.at(50.0)
        (40000000000.0, 100000000000.0)
        """
        return min(self.gemm, intensity * self.copy)

    def or_better(self, other: Roof) -> Roof:
        """The better of two measurements, rate by rate: a busy moment makes a roof too low.

        >>> Roof(gemm=90e9, copy=20e9).or_better(Roof(gemm=100e9, copy=10e9))
        Roof(gemm=100000000000.0, copy=20000000000.0)
        """
        return Roof(max(self.gemm, other.gemm), max(self.copy, other.copy))

    def share(self, cost: Cost, seconds: float) -> float:
        """Which part of the roof was reached by work that took so long; more than 1 where an algorithm does less.

        >>> Roof(gemm=100e9, copy=20e9).share(Cost(operations=4e9, bytes=2e9), seconds=0.2)
        0.5
        """
        return cost.operations / seconds / self.at(cost.intensity)


def measure() -> Roof:
    """The two rates, each the best of several tries: what the machine can do, not what it did at a busy moment."""
    product, copied = _product(_SIDE), _copy(_COPIED)
    return Roof(gemm=2 * _SIDE**3 / least(product), copy=2 * _COPIED / least(copied))


def probe() -> Callable[[], object]:
    """The small matrix product whose time tells a busy moment."""
    return _product(_PROBE_SIDE)


def _product(side: int) -> Callable[[], object]:
    a, b, c = (np.full((side, side), value, np.float32) for value in (1, 2, 0))
    return lambda: np.matmul(a, b, out=c)


def _copy(size: int) -> Callable[[], object]:
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    return lambda: np.copyto(target, source)


def least(call: Callable[[], object], *, tries: int = _TRIES) -> float:
    """Seconds of the fastest of several calls, after one that does not count."""
    call()
    seconds = []
    for _ in range(tries):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
