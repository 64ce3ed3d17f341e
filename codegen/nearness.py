"""Results in their own dtype that are rounded: on normal numbers no further from the stages than that explains.

For results that no integers make exact: those with functions, and means whose share is no power of two.  The stages are
evaluated in float64 on the very numbers that the text was given, with a bound on what their formats may do to them
(``codegen.bounds``); a result that is stored in a narrower format is rounded once more.  Some inputs are 0, where a
function may have a kink, and some are so large that it is flat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from random import Random
from typing import Any

import numpy as np
import numpy.typing as npt

from codegen.bounds import through
from codegen.certificate import Row, cases
from codegen.execution import Finding, Refuted, shape
from codegen.layer_data import PRECISIONS, Plans, inputs
from codegen.plan import Plan
from derive.terms import Apply

RUNS, BATCH = 2, 3
BOUNDS = (
    "codegen.bounds and codegen.rounding, with exp and tanh within the units in the last place that the latter lists"
)
SPREAD, LARGE = 2.0, 16.0  # of most numbers, and of those that are large; exp of none of them overflows
STORED = {"float16": (2.0**-11, 2.0**-24), "bfloat16": (2.0**-8, 2.0**-133)}  # unit roundoff, smallest number


def has_functions(plan: Plan) -> bool:
    """Whether a stage applies a function, so that a result is no polynomial of its inputs."""
    return any(isinstance(f, Apply) for stage in plan.stages for m in stage.body.monomials for f in m.factors)


def draw(plans: Plans, dtype: npt.DTypeLike, seed: str) -> dict[str, npt.NDArray[Any]]:
    """An array for each argument: normal numbers, an eighth of them 0 and as many large."""
    rng = np.random.default_rng(Random(seed).getrandbits(64))
    found = {}
    for key, t in inputs(plans).items():
        size = shape(t, BATCH)
        kind = rng.integers(0, 8, size)
        numbers = rng.standard_normal(size) * np.where(kind == 1, LARGE, SPREAD)
        found[key] = np.where(kind == 0, 0.0, numbers).astype(dtype)
    return found


def compare(
    found: Mapping[str, Any], plan: Plan, arrays: Mapping[str, npt.NDArray[Any]], dtype: str, sums: str, where: str
) -> None:
    """Raise Refuted unless every element of a result is as near to the stages as rounding explains."""
    ((name, stage),) = plan.outputs.items()
    ((output, result),) = found.items()
    public = {"X": "input", "G": "grad_output"}
    given = {t.name: arrays[public[t.name]].astype(np.float64) for t in plan.inputs}
    wanted = through(plan, given, PRECISIONS[sums], sizes={"N": BATCH})[stage]
    unit, least = STORED.get(dtype, (0.0, 0.0)) if dtype != sums else (0.0, 0.0)
    error = wanted.error + unit * (np.abs(wanted.value) + wanted.error) + least
    values = np.asarray(result).astype(np.float64)
    if values.shape != wanted.value.shape:
        raise Refuted(
            Finding(f"{where}: {output} has the shape {values.shape}, not {wanted.value.shape}", name, output)
        )
    bad = np.argwhere(~(np.abs(values - wanted.value) <= error))
    if len(bad):
        at = tuple(int(k) for k in bad[0])
        text = (
            f"{where}: {output}{list(at)} is {values[at]:.9g}, by the stages {wanted.value[at]:.9g}, and rounding "
            f"explains {error[at]:.3g}"
        )
        raise Refuted(Finding(text, name, output, at))


def row(dtype: str, names: Iterable[str], trusted: tuple[str, ...]) -> Row:
    """What a certificate says of such runs."""
    told = list(names)
    return Row(
        f"In {dtype} the results of {', '.join(told)} lie no further from what the stages give than rounding explains.",
        cases(RUNS * len(told)),
        f"Normal numbers, some of them 0 and some of a size of {LARGE:.0f}; batch {BATCH}; every element compared with "
        "the float64 value of its stages, within the bound of codegen.bounds. Other numbers were not run.",
        None,
        (BOUNDS, *trusted),
    )
