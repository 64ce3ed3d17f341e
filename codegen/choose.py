"""Which algorithm for which layer, shape and machine, and why: every candidate with its predicted cost and its error.

For each result of a convolution (its output, and each gradient) all algorithms that have a proved plan for it are
candidates.  The cheapest is taken whose error bound, derived from its stages (``codegen.growth``), is within the
tolerance: fast algorithms by Toom-Cook round more than a plain sum does.  One that forms a result in bands of rows is
priced as it does that: the plan of a band, as often as there are bands.  Without a machine of its own the prediction
is that for ``codegen.machine.REFERENCE``, so the same request is answered in the same way everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from codegen.cost import TYPICAL, Cost, cost
from codegen.growth import bounds, products
from codegen.layout import FIRST, Layout, named
from codegen.machine import REFERENCE, Machine
from codegen.plan import BATCH, Plan
from codegen.plans.algorithms import ALGORITHMS, kind_of
from codegen.plans.bands import Bands, fitting
from codegen.rounding import FLOAT32, FLOAT64
from derive.indices import index
from derive.layers import Applied, Conv
from derive.terms import tensor

PRECISIONS = {"float32": FLOAT32, "float64": FLOAT64}
ITEMSIZES = {"float32": 4, "float64": 8}
TOLERANCES = {"float32": 1e-3, "float64": 1e-11}
PLAIN = 4  # times what a plain sum can be off by is good enough too
IMAGES = 8  # the batch for which errors are bounded: a weight gradient sums over it


@dataclass(frozen=True)
class Candidate:
    """An algorithm for one result: what it would cost, what it can be off by, and whether it is taken, and why.

    ``error`` is None where it was not looked at; ``within`` says that it is known to be within the tolerance.
    ``bands`` are those that it forms the result in, None where it forms it whole.
    """

    algorithm: str
    cost: Cost
    error: float | None
    verdict: str
    within: bool
    bands: Bands | None = None

    @property
    def told(self) -> str:
        """The verdict, and how many bands there are."""
        cut = self.bands
        return self.verdict if cut is None else f"{self.verdict}; in {len(cut.starts)} bands of {cut.rows} rows"


@dataclass(frozen=True)
class Choice:
    """The candidates for one result, cheapest first, and the one that is taken."""

    result: str
    algorithm: str
    candidates: tuple[Candidate, ...]


def choose(
    layer: Conv,
    input_shape: tuple[int, ...],
    dtype: str,
    *,
    tolerance: float | None = None,
    machine: Machine = REFERENCE,
    thorough: bool = False,
    layout: str = FIRST,
) -> tuple[Choice, ...]:
    """The algorithm for each result of a convolution, with the others that were considered.

    Args:
        layer: a convolution with numbers for sizes.
        input_shape: (batch, channels, spatial axes...); the batch does not matter.
        dtype: "float32" or "float64".
        tolerance: the largest error that will do, for every input, relative to the largest value a result can have
            (the number of products in its sum, for inputs up to 1).  None: 1e-3 in float32 and 1e-11 in float64, or
            four times what a plain sum of those products can be off by, if that is more.
        machine: what costs are predicted for.
        thorough: also bound the error of candidates that cost more than the one that is taken.
        layout: how the images lie in memory, "channels_first" or "channels_last"; ValueError for another name.

    Errors are bounded for a batch of 8 images, over which a weight gradient sums; for a larger batch they are larger,
    those of a plain sum too.

    >>> from derive.layers import Conv2d
    >>> [c.algorithm for c in choose(Conv2d(64, 64, 3, padding=1), (8, 64, 56, 56), "float32")]
    ['winograd4', 'winograd4', 'winograd4', 'direct']
    >>> [c.algorithm for c in choose(Conv2d(64, 64, 3, padding=1), (8, 64, 56, 56), "float32", tolerance=1e-4)][0]
    'winograd2'
    """
    return _choose(layer, tuple(input_shape[1:]), dtype, tolerance, machine, thorough, named(layout))


@lru_cache(maxsize=256)
def _choose(
    layer: Conv,
    sizes: tuple[int, ...],
    dtype: str,
    tolerance: float | None,
    machine: Machine,
    thorough: bool,
    layout: Layout,
) -> tuple[Choice, ...]:
    applied = layer.on(tensor("X", BATCH, *map(index, sizes)), "Y")
    choices, size = [], ITEMSIZES[dtype]
    for result, plans in _plans(applied, size).items():
        plain = products(next(iter(plans.values())), IMAGES) * float(PRECISIONS[dtype].unit)
        limit = max(TOLERANCES[dtype], PLAIN * plain) if tolerance is None else tolerance
        cut = {name: fitting(applied, name, result, plan, itemsize=size) for name, plan in plans.items()}
        costs = {
            name: cost(plan, machine, itemsize=size, layout=layout)
            if (own := cut[name]) is None
            else cost(own.plan, machine, itemsize=size, layout=layout, bands=len(own.starts))
            for name, plan in plans.items()
        }
        choice = _of(result, plans, costs, dtype, limit, thorough=thorough)
        choices.append(replace(choice, candidates=tuple(replace(c, bands=cut[c.algorithm]) for c in choice.candidates)))
    return tuple(choices)


def _plans(applied: Applied, itemsize: int) -> dict[str, dict[str, Plan]]:
    """By result, the plan of every algorithm that has one whose theorem is committed."""
    found: dict[str, dict[str, Plan]] = {}
    for name, algorithm in ALGORITHMS.items():
        kind = kind_of(applied, name)
        if kind is None or not kind.committed:
            continue
        for result, plan in algorithm.plan(applied, itemsize=itemsize).items():
            if result != "bias_gradient" or result not in found:  # every algorithm sums it alike
                found.setdefault(result, {})[name] = plan
    return found


def _of(
    result: str, plans: Mapping[str, Plan], costs: Mapping[str, Cost], dtype: str, limit: float, *, thorough: bool
) -> Choice:
    """The cheapest plan within the limit.  Errors are bounded until one is found, or all of them."""
    order = sorted(plans, key=lambda name: (round(costs[name].total, 6), list(ALGORITHMS).index(name)))
    chosen, seen = "", []
    for name in order:
        error, verdict = None, "costs more"
        if thorough or not chosen:
            error = bounds(plans[name], PRECISIONS[dtype], batch=IMAGES).relative
            if error > limit:
                verdict = f"its error may exceed the tolerance {limit:.1e}"
            elif not chosen:
                chosen, verdict = name, "taken"
        seen.append(Candidate(name, costs[name], error, verdict, error is not None and error <= limit))
    if not chosen:
        chosen, seen = _most_exact(seen)
    return Choice(result, chosen, tuple(seen))


def _most_exact(seen: list[Candidate]) -> tuple[str, list[Candidate]]:
    """Where no plan is within the limit: the one with the smallest bound, and it says so."""
    best = min(seen, key=lambda c: (c.error or 0.0, c.cost.total))
    told = f"taken: none is sure to be within the tolerance, and its bound {best.error:.1e} is the smallest"
    return best.algorithm, [replace(c, verdict=told) if c is best else c for c in seen]


def explained(choices: tuple[Choice, ...], *, images: int = TYPICAL) -> str:
    """The candidates as text, a table for each result; times are given for so many images.

    What is predicted is the time of ``codegen.cost.TYPICAL`` images, since the choice does not depend on the batch.
    """
    share = max(images, 1) / TYPICAL
    head = f"{'':13}{'predicted':>11}{'products':>10}{'copies':>9}{'other':>8}   {'error up to':<13}"
    scaled = "" if share == 1 else f", their share of those predicted for {TYPICAL}"
    times = f"Milliseconds for {max(images, 1)} image{'s' if images > 1 else ''}{scaled}"
    lines = [f"{times}; the error relative to the largest value a result can have.", ""]
    for choice in choices:
        lines += [choice.result, head.rstrip()]
        for c in choice.candidates:
            parts = (c.cost.total, c.cost.product, c.cost.move, c.cost.element + c.cost.call)
            figures = "".join(
                f"{share * value:>{width}.2f}" for value, width in zip(parts, (11, 10, 9, 8), strict=True)
            )
            error = "" if c.error is None else f"{c.error:.1e}"
            lines.append(f"  {c.algorithm:<11}{figures}   {error:<13}{c.told}".rstrip())
        lines.append("")
    return "\n".join(lines)


__all__ = ["Candidate", "Choice", "choose", "explained"]
