"""What the text of a layer is executed on: elements of a prime field, or small integers in a real dtype.

Forward, input_gradient, weight_gradient and bias_gradient have a plan each; what ``backward`` gives are the three
gradients.  Every result of a layer with a weight is bilinear, so integers of at most B with K B^2 below the dtype's
precision, K what the stages make of ones, are multiplied and added without rounding, in any order: BLAS has to give
the very integers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt, prod
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from codegen.execution import Arrays, Data, Expected, Trial, batch_first, shape, stage_values
from codegen.field import Element, array, drawn
from codegen.functions import ARGUMENTS, GIVES, GRADIENTS, passed, workspace
from codegen.growth import Bounds
from codegen.plan import Plan
from codegen.rounding import FLOAT32, FLOAT64
from derive.evaluate import RATIONALS, Evaluator, Numbers, Table
from derive.terms import Tensor

Plans = Mapping[str, Plan]
BATCHED = {"X": "input", "G": "grad_output"}
BATCHED_RESULTS = ("forward", "input_gradient")
INTO = " into out"  # after a function's name: it is given the array for its result
DIGITS = {"float32": 24, "float64": 53}
PRECISIONS = {"float32": FLOAT32, "float64": FLOAT64}


@dataclass
class LayerData(Data):
    """One set of data; ``values`` has, for each plan, those of its stages."""

    plans: Plans
    arrays: dict[str, npt.NDArray[Any]]
    values: Mapping[str, Evaluator]
    dtype: str = "object"

    @property
    def arguments(self) -> Arrays:
        """Every array that is passed in, by name."""
        return self.arrays

    def expected(self, function: str) -> dict[str, Expected]:
        """A result, with its batch first; of ``backward`` all that there are."""
        if function == "backward":
            return {name: e for part in GRADIENTS if part in self.plans for name, e in self.expected(part).items()}
        function = function.removesuffix(INTO)
        plan = self.plans[function]
        found = stage_values(plan, plan.outputs[function], self.values[function])
        turned = plan.by_name[plan.outputs[function]].dims[-1] is None
        return {GIVES[function]: batch_first(found) if turned else found}

    def call(self, module: ModuleType, function: str, work: Any) -> dict[str, Any]:
        """See ``Data``."""
        a = self.arrays
        if function.endswith(INTO):
            return self._into(module, function.removesuffix(INTO), work)
        found = getattr(module, function)(*passed(function, a), work)
        if function == "backward":
            return dict(zip(map(GIVES.__getitem__, GRADIENTS), found, strict=True))
        return {GIVES[function]: found}

    def _into(self, module: ModuleType, function: str, work: Any) -> dict[str, Any]:
        """The array that was given for a result; nothing where another one came back.

        Where the module promises to keep that layout, the first argument and the array lie channels last in memory.
        """
        a = dict(self.arrays)
        ((name, wanted),) = self.expected(function).items()
        out = np.zeros(wanted.shape, self.dtype)
        if function in module.KEEPS_LAYOUT:
            leader = ARGUMENTS[function][0]
            out, a[leader] = _channels_last(out), _channels_last(a[leader])
        found = getattr(module, function)(*passed(function, a), work, out)
        return {name: out} if found is out else {}

    def workspace(self, module: ModuleType, function: str, trial: Trial) -> Any:
        """See ``Data``; ``backward`` has one for each of its functions."""
        if trial.block is None:
            return None
        function = function.removesuffix(INTO)
        if function == "backward":
            return tuple(self.workspace(module, part, trial) for part in GRADIENTS if part in self.plans)
        kind = getattr(module, workspace(function))
        return kind(trial.batch, self.dtype, block=trial.block)

    def origin(self, function: str) -> tuple[Plan, Evaluator] | None:
        """See ``Data``; ``backward`` has no plan of its own."""
        function = function.removesuffix(INTO)
        return (self.plans[function], self.values[function]) if function in self.plans else None


def _channels_last(a: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy with the channels innermost in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)


def inputs(plans: Plans) -> dict[str, Tensor]:
    """The arrays that the functions take, by public name, and the tensors that stand for them in plans."""
    found: dict[str, Tensor] = {}
    for plan in plans.values():
        public = {**BATCHED, **{name: key for key, name in plan.parameters.items()}}
        found.update({public[t.name]: t for t in plan.inputs})
    return {key: found[key] for key in ("input", "weight", "bias", "grad_output") if key in found}


def draw(plans: Plans, kind: type[Element], batch: int, rng: Random) -> LayerData:
    """Elements of a field, uniform and independent."""
    tensors = inputs(plans)
    numbers = {key: drawn(rng, prod(shape(t, batch))) for key, t in tensors.items()}
    arrays = {key: array(kind, numbers[key], shape(t, batch)) for key, t in tensors.items()}
    return LayerData(plans, dict(arrays), _values(plans, numbers, batch, kind.numbers))


def draw_integers(plans: Plans, dtype: str, bound: int, batch: int, rng: Random) -> LayerData:
    """Integers from -bound to bound, in a floating-point dtype."""
    tensors = inputs(plans)
    numbers = {key: [rng.randint(-bound, bound) for _ in range(prod(shape(t, batch)))] for key, t in tensors.items()}
    arrays = {key: np.array(numbers[key], dtype).reshape(shape(t, batch)) for key, t in tensors.items()}
    return LayerData(plans, arrays, _values(plans, numbers, batch, RATIONALS), dtype)


def _values(plans: Plans, numbers: Mapping[str, list[int]], batch: int, kind: Numbers) -> dict[str, Evaluator]:
    tensors = inputs(plans)
    spans = {key: tuple((0, n) for n in shape(t, batch)) for key, t in tensors.items()}
    tables = {t.name: Table(spans[key], list(numbers[key])) for key, t in tensors.items()}
    return {
        name: Evaluator({"N": batch}, {t.name: tables[t.name] for t in plan.inputs}, kind)
        for name, plan in plans.items()
    }


def largest(known: Bounds, dtype: str) -> int:
    """The largest B so that with integers up to B no number of a plan is rounded in this dtype; 0 where there is none.

    Results are bilinear, so with B the numbers grow as B^2 at most.
    """
    return min(1 << 20, isqrt(int(((1 << DIGITS[dtype]) - 1) / max(known.largest, 1)))) if known.dyadic else 0
