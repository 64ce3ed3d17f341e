"""Timing, without a clock: which calls are made in which order, which rounds count, and what is made of their times."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.timing import SAMPLE, Samples, Spread, interleave, kept, spread

SECONDS = st.floats(1e-6, 10.0)


class Machine:
    """A clock that a call moves on by what the call takes; it notes who was called."""

    def __init__(self) -> None:
        self.now = 0.0
        self.called: list[str] = []

    def clock(self) -> float:
        return self.now

    def call(self, name: str, *seconds: float) -> Callable[[], None]:
        """A call that takes these times in turn, over and over."""
        takes = itertools.cycle(seconds)

        def run() -> None:
            self.called.append(name)
            self.now += next(takes)

        return run


# --- Summaries ----------------------------------------------------------------------------------------------


@given(st.lists(SECONDS, min_size=1, max_size=30))
def test_a_spread_is_numpys_quantiles(values: list[float]) -> None:
    found = spread(values)
    expected = np.quantile(values, [0.5, 0.25, 0.75, 0])
    np.testing.assert_allclose([found.median, found.lower, found.upper, found.least], expected, rtol=1e-12)
    assert found.half == pytest.approx((found.upper - found.lower) / 2)


def test_nothing_has_no_spread() -> None:
    with pytest.raises(ValueError, match="at least one is needed"):
        spread([])


def test_the_ratio_is_of_the_medians_and_its_quartiles_of_the_rounds() -> None:
    samples = Samples({"a": (1.0, 2.0, 6.0), "b": (4.0, 1.0, 2.0)}, (1.0,) * 4)
    assert samples.ratio("a", "b") == Spread(1.0, lower=1.125, upper=2.5, least=0.25)


# --- The noise rule -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probes", "rounds"),
    [
        ([1.0, 1.0, 1.0, 1.0], [0, 1, 2]),
        ([1.0, 1.0, 1.3, 1.0, 1.0, 1.0], [0, 3, 4]),  # a slow probe drops the rounds on both sides of it
        ([1.0, 1.0, 1.19, 1.0, 1.0, 1.0], [0, 1, 2, 3, 4]),  # not slow enough
        ([2.0, 1.0, 1.0, 1.0, 2.0], [1, 2]),
        ([1.0, 9.0, 1.0, 9.0, 1.0], [0, 1, 2, 3]),  # nobody is slower than the median: the least one can ask for
        ([5.0, 5.0], [0]),
        ([5.0], []),
    ],
)
def test_rounds_beside_a_slow_probe_are_dropped(probes: list[float], rounds: list[int]) -> None:
    assert kept(probes) == rounds


def test_the_limit_can_be_set() -> None:
    assert kept([1.0, 1.0, 1.3, 1.0, 1.0, 1.0], limit=1.5) == [0, 1, 2, 3, 4]


@given(st.lists(SECONDS, min_size=2, max_size=40))
def test_at_least_half_of_the_rounds_count(probes: list[float]) -> None:
    assert 2 * len(kept(probes)) >= len(probes) - 1


def test_a_dropped_round_counts_for_nobody_and_is_counted() -> None:
    samples = Samples(
        {"a": (1.0, 50.0, 60.0, 3.0, 2.0), "b": (5.0, 6.0, 6.0, 5.0, 5.0)}, (1.0, 1.0, 4.0, 1.0, 1.0, 1.0)
    )
    assert (samples.rounds, samples.dropped) == (5, 2)
    assert samples.of("a").median == 2.0
    assert samples.of("b") == Spread(5.0, 5.0, 5.0, 5.0)
    assert samples.ratio("a", "b").upper < 1  # the rounds with 50 and 60 are nowhere


# --- Interleaving -------------------------------------------------------------------------------------------


def test_calls_are_taken_in_turn_each_first_once_between_probes() -> None:
    machine = Machine()
    calls = {name: machine.call(name, 1.0) for name in "abc"}
    samples = interleave(calls, rounds=3, probe=machine.call("-", 1.0), clock=machine.clock)
    timed = "".join(machine.called)
    assert timed.endswith("-abc-bca-cab-")
    assert samples.rounds == 3
    assert samples.dropped == 0


def test_a_rest_comes_before_every_sample_and_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine()
    sleep = machine.call("z", 7.0)
    monkeypatch.setattr("runtime.timing.time.sleep", lambda seconds: sleep())
    calls = {name: machine.call(name, 1.0) for name in "ab"}
    samples = interleave(calls, rounds=2, probe=machine.call("-", 1.0), rest=0.5, clock=machine.clock)
    assert "".join(machine.called).endswith("z-zazbz-zbzaz-")
    assert samples.seconds == {"a": (1.0, 1.0), "b": (1.0, 1.0)}
    machine.called.clear()
    interleave(calls, rounds=2, probe=machine.call("-", 1.0), clock=machine.clock)
    assert "z" not in machine.called


def test_times_are_those_of_the_calls() -> None:
    machine = Machine()
    # Three calls to warm up, then one a round.
    calls = {"a": machine.call("a", 9.0, 9.0, 9.0, 1.0, 2.0, 3.0), "b": machine.call("b", 0.5)}
    samples = interleave(calls, rounds=3, probe=machine.call("-", 1.0), clock=machine.clock)
    assert samples.seconds["a"] == (1.0, 2.0, 3.0)
    assert samples.seconds["b"] == (0.5, 0.5, 0.5)
    assert samples.of("a").median == 2.0


def test_a_short_call_is_repeated_within_a_sample() -> None:
    machine = Machine()
    samples = interleave({"a": machine.call("a", SAMPLE / 4)}, rounds=2, probe=lambda: None, clock=machine.clock)
    assert machine.called.count("a") == 3 + 2 * 4
    assert samples.seconds["a"] == pytest.approx((SAMPLE / 4,) * 2)


def test_a_probe_that_was_slow_drops_its_rounds() -> None:
    machine = Machine()
    probe = machine.call("-", *[1.0] * 3, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0)  # three to warm up
    samples = interleave({"a": machine.call("a", 1.0)}, rounds=5, probe=probe, clock=machine.clock)
    assert samples.probes == (1.0, 1.0, 3.0, 1.0, 1.0, 1.0)
    assert samples.dropped == 2


def test_no_round_is_refused() -> None:
    with pytest.raises(ValueError, match="rounds=0 is less than 1; nearest legal: 1"):
        interleave({}, rounds=0, probe=lambda: None)
