"""Times that can be compared: calls taken in turn, in rounds, with a probe that tells a busy moment.

In each round every call is timed once, beginning with another one each time, so that drift and a neighbour's cache hit
all alike.  Before each round and after the last one a *probe* is timed: one product of matrices that never changes.  If
the slower of the two probes round a round took more than ``LIMIT`` times the median of these, the machine was doing
something else, and the round is dropped for every call alike.  The rule never looks at the times of the calls
themselves, so it cannot favour one; at least half of the rounds are always kept, and the number dropped is reported.
Where calls use several threads, a rest before each sample lets the threads of the call before fall asleep: they spin
for some milliseconds after their work, on cores that somebody else is to be timed on.
What is left is summed up by the median and the quartiles.
"""

from __future__ import annotations

import gc
import itertools
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Call = Callable[[], object]
Clock = Callable[[], float]

LIMIT = 1.2
SAMPLE = 2e-3  # seconds: a shorter call is repeated within a sample, so that the clock's grain does not count
_MOST = 1000
_WARM_UP = 3


@dataclass(frozen=True)
class Spread:
    """The median, the quartiles and the least of some numbers, in their own unit."""

    median: float
    lower: float
    upper: float
    least: float

    @property
    def half(self) -> float:
        """Half the distance between the quartiles."""
        return (self.upper - self.lower) / 2


def spread(values: Sequence[float]) -> Spread:
    """The median and the quartiles, by linear interpolation between the values.

    Raises:
        ValueError: there is no value.

    >>> spread([4.0, 1.0, 3.0, 2.0, 5.0])
    Spread(median=3.0, lower=2.0, upper=4.0, least=1.0)
    """
    if not values:
        raise ValueError("values is empty; at least one is needed")
    if len(values) == 1:
        return Spread(*([values[0]] * 4))
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, lower, upper, min(values))


def kept(probes: Sequence[float], *, limit: float = LIMIT) -> list[int]:
    """The rounds that count, by the seconds of the probes before each of them and after the last.

    A round is dropped if the slower of its two probes took more than ``limit`` times the median of these.

    >>> kept([1.0, 1.0, 1.0, 2.0, 1.0, 1.0])  # the fourth probe was slow: rounds 2 and 3 are dropped
    [0, 1, 4]
    """
    worst = [max(pair) for pair in itertools.pairwise(probes)]
    if not worst:
        return []
    bound = limit * statistics.median(worst)
    return [k for k, probe in enumerate(worst) if probe <= bound]


@dataclass(frozen=True)
class Samples:
    """What was measured: seconds of each call by name, a number a round, and of the probes, one more than rounds."""

    seconds: Mapping[str, tuple[float, ...]]
    probes: tuple[float, ...]
    limit: float = LIMIT

    @property
    def rounds(self) -> int:
        """How many rounds there were."""
        return len(self.probes) - 1

    @property
    def dropped(self) -> int:
        """How many of them the noise rule dropped."""
        return self.rounds - len(kept(self.probes, limit=self.limit))

    def of(self, name: str) -> Spread:
        """The seconds of a call, over the rounds that count."""
        return spread(self._counted(name))

    def ratio(self, name: str, other: str) -> Spread:
        """The seconds of a call over those of another: of the medians; quartiles are of the ratios in each round."""
        pairs = [a / b for a, b in zip(self._counted(name), self._counted(other), strict=True)]
        found = spread(pairs)
        return Spread(self.of(name).median / self.of(other).median, found.lower, found.upper, found.least)

    def _counted(self, name: str) -> list[float]:
        return [self.seconds[name][k] for k in kept(self.probes, limit=self.limit)]


def interleave(
    calls: Mapping[str, Call], *, rounds: int, probe: Call, rest: float = 0.0, clock: Clock = time.perf_counter
) -> Samples:
    """Time some calls in turn.

    Args:
        calls: what is timed, by name; each is called three times first.
        rounds: how often each is sampled, at least 1.
        probe: what tells a busy moment.
        rest: seconds to wait before each sample.
        clock: gives seconds.

    Raises:
        ValueError: ``rounds`` is less than 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds={rounds} is less than 1; nearest legal: 1")
    names = list(calls)
    repeats = {name: _repeats(call, clock) for name, call in calls.items()}
    for _ in range(_WARM_UP):
        probe()
    seconds: dict[str, list[float]] = {name: [] for name in names}
    probes: list[float] = []
    collecting = gc.isenabled()
    gc.disable()  # a collection would fall on whoever happens to be timed
    try:
        for k in range(rounds):
            _wait(rest)
            probes.append(_sample(probe, 1, clock))
            for name in names[k % len(names) :] + names[: k % len(names)]:
                _wait(rest)
                seconds[name].append(_sample(calls[name], repeats[name], clock))
        _wait(rest)
        probes.append(_sample(probe, 1, clock))
    finally:
        if collecting:
            gc.enable()
    return Samples({name: tuple(values) for name, values in seconds.items()}, tuple(probes))


def _repeats(call: Call, clock: Clock) -> int:
    """Warm up, and say how many calls make a sample of at least ``SAMPLE`` seconds."""
    once = min(_sample(call, 1, clock) for _ in range(_WARM_UP))
    return min(_MOST, max(1, math.ceil(SAMPLE / once))) if once > 0 else _MOST


def _wait(rest: float) -> None:
    if rest > 0:
        time.sleep(rest)


def _sample(call: Call, repeats: int, clock: Clock) -> float:
    start = clock()
    for _ in range(repeats):
        call()
    return (clock() - start) / repeats
