"""The LeNet step that was written by hand, which the emitted one is held against: it has to be right to count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import reference
from tests.benchmarks.by_hand import TOLERANCE, after_two_steps, distance, drawn, truth_after_two_steps
from tests.benchmarks.lenet_by_hand import Step


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4))
def test_two_steps_change_the_parameters_as_float64_does(batch: int, block: int) -> None:
    by_hand, truth = after_two_steps(Step(batch, block=block), batch), truth_after_two_steps(batch)
    assert distance(by_hand, truth) <= TOLERANCE
    for name, before in drawn(batch)[2].items():
        change = distance({name: before}, {name: truth[name]})
        assert distance({name: by_hand[name]}, {name: truth[name]}) <= 1e-7 + change / 100, name


def test_a_step_gives_the_loss_before_it() -> None:
    images, labels, parameters = drawn(3)
    expected = reference.loss(images, labels, parameters)
    assert Step(3, block=2)(images, labels, parameters, 0.1) == pytest.approx(expected, rel=1e-6)


def test_a_saturated_sigmoid_is_silent() -> None:
    images, labels, parameters = drawn(2)
    parameters["0.bias"][:] = -200  # exp(200) is beyond float32
    step = Step(2)
    assert np.isfinite(step(images, labels, parameters, 0.1))
    assert all(np.isfinite(value).all() for value in parameters.values())
