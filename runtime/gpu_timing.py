"""Time on a GPU: events of CuPy around the calls of each contestant, in turns, on one stream.

PyTorch and CuPy both put work on the default stream, so an event of CuPy's times either.  Before each sample a large
array is overwritten: it drives everything else out of the cache, and while it is written the host gets ahead of the
GPU, so that a sample holds the work and not the time that Python takes to ask for it.  (A sample of many calls may
still be bound by the host; that is then what a loop over such calls takes.)  Calls rotate through sets of arrays that
together exceed the cache.  The contestants take turns, and each round starts with another, so that a change of the
GPU's clock meets all alike.

Under the stand-in nothing is measured: its events count launches.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

WARM_UP = 3
MOST_SETS = 16
Call = Callable[[int], object]  # given the number of a set of arrays


@dataclass(frozen=True)
class Samples:
    """Milliseconds of one call, sample by sample."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Between which half of the samples lie."""
        if len(self.values) < 2:
            return self.values[0], self.values[0]
        low, _, high = statistics.quantiles(self.values, n=4, method="inclusive")
        return low, high


@dataclass(frozen=True)
class Clock:
    """Times calls on the device of this ``cupy``; ``scratch`` is the array that is overwritten."""

    cupy: Any
    scratch: Any

    @staticmethod
    def of(cupy: Any, lead: int) -> Clock:
        """A clock that overwrites so many bytes."""
        return Clock(cupy, cupy.zeros(lead, cupy.uint8))

    def sets(self, size: int) -> int:
        """How many sets of arrays of so many bytes exceed the cache twice."""
        cache = int(self.cupy.cuda.Device().attributes.get("L2CacheSize", 0))
        return max(2, min(MOST_SETS, ceil(2 * cache / max(size, 1))))

    def interleave(self, calls: Mapping[str, Call], *, rounds: int, repeats: int = 1) -> dict[str, Samples]:
        """Samples of every contestant, each over ``repeats`` calls."""
        names = list(calls)
        for call in calls.values():
            for k in range(WARM_UP):
                call(k)
        found: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds):
            first = turn % len(names)
            for name in (*names[first:], *names[:first]):
                found[name].append(self._sample(calls[name], turn * repeats, repeats))
        return {name: Samples(tuple(values)) for name, values in found.items()}

    def _sample(self, call: Call, first: int, repeats: int) -> float:
        start, stop = self.cupy.cuda.Event(), self.cupy.cuda.Event()
        self.scratch.fill(first % 251)
        start.record()
        for k in range(first, first + repeats):
            call(k)
        stop.record()
        stop.synchronize()
        return float(self.cupy.cuda.get_elapsed_time(start, stop)) / repeats
