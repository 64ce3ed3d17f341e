"""The arrays that a case is run on, and the result that every implementation must give.

Convolutions get small integers, so the right result is known exactly: an implementation in float32 rounds at most where
its algorithm has fractions, and one that reads a wrong cell is wrong by 1 or more.  What is timed is what was checked.
A training step cannot be exact; its new parameters are compared with a step in float64, relative to how far they moved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from derive import layers
from runtime import textbook
from runtime.arrays import Array
from runtime.bench_cases import Case, Convolution, LeNetStep
from runtime.network import glorot

ROUNDING = 0.25  # of a result that is an integer
STEP_ROUNDING = 1e-4  # of the largest change of a parameter
_LR = 0.5


class Disagreement(RuntimeError):
    """An implementation whose result is not right: it is not timed."""


@dataclass(frozen=True)
class Truth:
    """Results by name, in float64, and how far an implementation may be from each."""

    values: Mapping[str, Array]
    tolerances: Mapping[str, float]

    def check(self, who: str, found: Mapping[str, Array]) -> None:
        """Refuse a result that is not this one.

        Raises:
            Disagreement: a result is missing, has another shape, or is too far away somewhere.
        """
        for name, value in self.values.items():
            if name not in found:
                raise Disagreement(f"{who} gives no {name}; it is not timed")
            self._check(f"{who}: {name}", np.asarray(found[name], np.float64), value, self.tolerances[name])

    @staticmethod
    def _check(what: str, found: Array, value: Array, tolerance: float) -> None:
        if found.shape != value.shape:
            raise Disagreement(f"{what} has the shape {found.shape} instead of {value.shape}; it is not timed")
        distance = np.abs(found - value)
        if not (distance <= tolerance).all():  # a NaN is not <= anything
            at = np.unravel_index(int(np.argmax(np.where(np.isnan(distance), np.inf, distance))), value.shape)
            place = tuple(int(k) for k in at)
            raise Disagreement(
                f"{what} at {place} is {found[at]:.6g} instead of {value[at]:.6g}, "
                f"and only {tolerance:.2g} is rounding; it is not timed"
            )


@dataclass(frozen=True)
class LayerData:
    """Small integers in float32: input, weight, bias and cotangent."""

    x: Array
    w: Array
    b: Array
    g: Array


@dataclass(frozen=True)
class StepData:
    """Images, labels, the parameters to start from (an implementation steps on a copy), and the learning rate."""

    x: Array
    y: Array
    params: Mapping[str, Array]
    lr: float

    def copies(self) -> dict[str, Array]:
        """Parameters that may be changed."""
        return {name: array.copy() for name, array in self.params.items()}


Data = LayerData | StepData


def arrays(case: Case, *, seed: int = 0) -> Data:
    """The arrays of a case: the same seed, the same numbers."""
    rng = np.random.default_rng(seed)
    if isinstance(case.work, LeNetStep):
        x = rng.random(case.work.input_shape, dtype=np.float32)
        return StepData(x, rng.integers(0, 10, case.work.batch), glorot(layers.lenet(), seed=seed), _LR)
    work = case.work
    shapes = (work.input_shape, work.weight_shape, (work.outputs,), work.output_shape)
    return LayerData(*(rng.integers(-2, 3, shape).astype(np.float32) for shape in shapes))


def truth(case: Case, data: Data) -> Truth:
    """The right result, computed in float64 by `runtime.textbook`."""
    if isinstance(data, StepData):
        return _step_truth(data)
    assert isinstance(case.work, Convolution)
    x, w, b, g = (array.astype(np.float64) for array in (data.x, data.w, data.b, data.g))
    setting = case.work.setting
    if case.part == "forward":
        value = textbook.forward(x, w, b, setting)
    elif case.part == "weight":
        value = textbook.weight_gradient(g, x, w.shape[2:], setting)
    else:
        value = textbook.input_gradient(g, w, x.shape, setting)
    return Truth({case.part: value}, {case.part: ROUNDING})


def _step_truth(data: StepData) -> Truth:
    start = {name: array.astype(np.float64) for name, array in data.params.items()}
    after = {name: array.copy() for name, array in start.items()}
    textbook.lenet_step(data.x.astype(np.float64), data.y, after, data.lr)
    moved = {name: float(np.abs(after[name] - start[name]).max()) for name in start}
    return Truth(after, {name: STEP_ROUNDING * most for name, most in moved.items()})
