"""A network's module for CuPy in its own dtype: what a GPU compiles, run once and held against its stages.

Over the integers modulo p a text takes exp, log and sigmoid from the checker, and a number for NaN.  What a GPU
compiles has its own, and this run is of that: of one batch every array that the module keeps, the loss, the gradients
and the parameters after a step are compared with the float64 values of the stages, no further off than rounding
explains (``codegen.bounds``).  Each kernel is judged by the numbers that it read, so bounds do not grow from one to the
next.  A label that is no class has to make the loss NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import sqrt
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from codegen.bounds import Bounded, bound
from codegen.certificate import Row, cases
from codegen.cupy_check import EXECUTOR
from codegen.execution import Finding, Refuted, shape
from codegen.layer_data import PRECISIONS
from codegen.plan import Plan
from codegen.rounding import Precision

Array = npt.NDArray[Any]
RATE = 0.5
GAIN = 2.0  # parameters as large as let no sigmoid be flat, nor a straight line
TELLING = 0.01  # a bound below this part of the largest value
BOUNDS = (
    "codegen.bounds and codegen.rounding, with exp, log and sigmoid within the units in the last place that the latter "
    "lists, on a GPU too"
)


@dataclass(frozen=True)
class Compared:
    """How many arrays were compared, of how many the bound is telling, and the labels of no class."""

    dtype: str
    batch: int
    arrays: int
    telling: int
    labels: tuple[int, ...]


def compare(module: ModuleType, plan: Plan, batch: int, seed: int) -> Compared:
    """Run a module in its dtype; raises Refuted where an array is further off than rounding explains."""
    dtype = str(module.DTYPE)
    precision = PRECISIONS[dtype]
    inputs = draw(plan, dtype, batch, np.random.default_rng(seed))
    x, labels, params = inputs["X"], np.argmax(inputs[plan.labels[0]], axis=1), parameters(plan, inputs)
    where = f"one batch of {batch} in {dtype}"
    work = _ran(where, lambda: module.Workspace(batch))
    loss, gradients = _ran(where, lambda: module.loss_and_gradients(x, labels, params, work))
    results = {plan.outputs["loss"]: loss, **{plan.outputs[f"gradient {key}"]: a for key, a in gradients.items()}}
    kept = {name: np.array(a) for name, a in {**vars(work), **results}.items() if name in plan.by_name}
    known = {name: a.astype(np.float64) for name, a in inputs.items()}
    found: dict[str, Bounded] = {}
    telling = 0
    for name, wanted in stagewise(plan, known, kept, precision, batch):
        found[name] = wanted
        if name in kept:
            _near(kept[name], wanted, where, name)
            telling += bool(wanted.error.max(initial=0.0) <= TELLING * np.abs(wanted.value).max(initial=0.0))
    _ran(where, lambda: module._step(work, params, module.DTYPE.type(RATE)))  # noqa: SLF001 - as the exact check does
    for key, name in plan.parameters.items():
        after = stepped(known[name], found[plan.outputs[f"gradient {key}"]], precision)
        _near(params[key], after, where, f"{key} after a step")
    strange = (-1, module.CLASSES, 1 << 40)
    for label in strange if batch else ():
        labels[-1] = label
        lost = _ran(where, lambda: module.loss(x, labels, params, work))
        if not np.isnan(lost):
            raise Refuted(Finding(f"{where}: with the label {label}, no class, the loss is {lost}, not NaN", "loss"))
    return Compared(dtype, batch, len(kept) + len(params), telling + len(params), strange)


def draw(plan: Plan, dtype: str, batch: int, rng: np.random.Generator) -> dict[str, Array]:
    """Every input of a plan, normal numbers in the dtype, parameters with a deviation by their fan in; labels as T."""
    found = {}
    for t in plan.inputs:
        size = shape(t, batch)
        if t.name in plan.labels:
            found[t.name] = np.eye(size[1])[rng.integers(0, size[1], batch)]
            continue
        deviation = GAIN / sqrt(max(1, int(np.prod(size[1:])))) if t.name in plan.parameters.values() else 1.0
        found[t.name] = (rng.standard_normal(size) * deviation).astype(dtype)
    return found


def parameters(plan: Plan, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Those of the network by their public names, as arrays that a step may change."""
    return {key: inputs[name].copy() for key, name in plan.parameters.items()}


def stagewise(
    plan: Plan, inputs: Mapping[str, Array], kept: Mapping[str, Array], precision: Precision, batch: int
) -> Iterator[tuple[str, Bounded]]:
    """The stages with bounds on what they compute from what was kept; from what was not, its error is carried on."""
    values, errors = dict(inputs), dict[str, Array]()
    for stage in plan.stages:
        own = bound(stage, values, precision, sizes={"N": batch}, errors=errors)
        yield stage.name, own
        if stage.name in kept:
            values[stage.name] = kept[stage.name].astype(np.float64)
        else:
            values[stage.name], errors[stage.name] = own


def stepped(before: Array, gradient: Bounded, precision: Precision) -> Bounded:
    """A parameter after the step: its product with the rate is rounded, and the difference, each by u at most."""
    size = np.abs(before) + RATE * (np.abs(gradient.value) + gradient.error)
    return Bounded(before - RATE * gradient.value, RATE * gradient.error + 3 * float(precision.unit) * size)


def _near(found: Array, wanted: Bounded, where: str, name: str) -> None:
    """No element further off than its bound; NaN is further off than any."""
    if found.shape != wanted.value.shape:
        raise Refuted(Finding(f"{where}: {name} has the shape {found.shape}, not {wanted.value.shape}", "", name))
    off = np.abs(found.astype(np.float64) - wanted.value)
    bad = np.argwhere(~(off <= wanted.error))
    if len(bad):
        at = tuple(int(k) for k in bad[0])
        text = (
            f"{where}: {name}{list(at) if at else ''} is {found[at]:.9g}, by the stages {wanted.value[at]:.9g}, "
            f"and rounding explains {wanted.error[at]:.3g}"
        )
        raise Refuted(Finding(text, "loss_and_gradients", name, at))


def _ran(where: str, call: Callable[[], Any]) -> Any:
    """What a call gives; whatever a wrong text may do is a finding."""
    try:
        return call()
    except Exception as error:
        raise Refuted(Finding(f"{where}: {type(error).__name__}: {error}", "")) from error


def row(done: Compared) -> Row:
    """What the certificate says of such a run."""
    others = "" if done.telling == done.arrays else f", and says little of the other {done.arrays - done.telling}"
    return Row(
        f"In {done.dtype}, with exp, log and sigmoid as a GPU compiles them, every array that the text keeps, the "
        "loss, the gradients and the parameters after a step lie no further from what their stages give than rounding "
        "explains; for a label that is no class the loss is NaN.",
        cases(1 + len(done.labels)),
        f"One batch of {done.batch} with normal numbers, 32-bit places, every element of {done.arrays} arrays compared "
        "with the float64 value of its stage on the numbers that its kernel read, within the bound of codegen.bounds, "
        f"for any order of sums. It is below a hundredth of the largest value for {done.telling} arrays{others}. "
        f"Then the loss with each of the labels {', '.join(map(str, done.labels))}. Other numbers were not run.",
        None,
        (BOUNDS, "NumPy in float64", EXECUTOR, "that a GPU's exp and log are as near as those of the C library here"),
    )
