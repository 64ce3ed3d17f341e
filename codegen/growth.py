"""How large the numbers of a plan can get, and how far off: bounds for every stage, for inputs of absolute value one.

A stage sums products.  With every input at most 1 in absolute value its values are at most the sum of |coefficient|
times the bounds of the factors; what was wrong in the factors, and every rounding of its own (``codegen.rounding``),
adds up the same way.  Carried from stage to stage that bounds the result, whatever the algorithm: the tolerance of a
plan is derived from its stages and constants, and never looked up.  For a plain sum of K products it is the textbook's
K u; for Toom-Cook it shows the amplification of its points.

What makes a difference between the cells of a stage are the matrices of numbers it meets: a bound is kept for each
index along the axes they act on (``Growth.axes``), and one for all indices along the others.

``denominator`` says of what fraction all values are multiples when the inputs are integers: as long as it is a power
of two and size times denominator stays below 1/u, floating point computes them exactly, in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import lcm, prod

from codegen.plan import Plan, PlanError, Stage, is_batch, number
from codegen.rounding import Precision, Term, is_representable
from derive.evaluate import RATIONALS, Evaluator
from derive.indices import Interval, Zero, var
from derive.terms import Monomial, Read

Cell = tuple[int, ...]


@dataclass(frozen=True)
class Growth:
    """Bounds on the values of a stage and on their errors, for each index along ``axes``; and the denominator."""

    axes: tuple[int, ...]
    sizes: Mapping[Cell, float]
    errors: Mapping[Cell, float]
    denominator: int = 1

    @cached_property
    def size(self) -> float:
        """The largest bound on a value."""
        return max(self.sizes.values(), default=0.0)

    @cached_property
    def error(self) -> float:
        """The largest bound on an error."""
        return max(self.errors.values(), default=0.0)


def growth(plan: Plan, precision: Precision, *, batch: int = 1) -> dict[str, Growth]:
    """The bounds of every stage of sums and products, for inputs of absolute value at most 1 and so many images.

    Raises PlanError for a stage with functions: their bounds depend on their arguments (``codegen.bounds``).
    """
    found = {t.name: Growth((), {(): 1.0}, {(): 0.0}) for t in plan.inputs}
    numbers = Evaluator({}, {}, RATIONALS)
    for stage in plan.stages:
        if stage.name in plan.numbers and None not in stage.dims:
            found[stage.name] = _numbers(stage, numbers, precision)
        else:
            found[stage.name] = _Stage(stage, found, precision, batch).growth()
    return found


@dataclass(frozen=True)
class Bounds:
    """What the stages of a plan make of inputs of absolute value at most 1.

    Attributes:
        largest: the most that any stage, or a sum on the way to it, can be, counted in its denominators.
        dyadic: whether all of those fractions are powers of two.
        error: the most that the result can be off by.
        relative: the same relative to the largest value that the result can have, the number of products in its sum.
    """

    largest: float
    dyadic: bool
    error: float
    relative: float


def bounds(plan: Plan, precision: Precision, *, batch: int = 1) -> Bounds:
    """The bounds of a plan with one result; for inputs of absolute values up to w and x they are w x times these.

    >>> from codegen.plan import BATCH
    >>> from codegen.plans.direct import direct
    >>> from codegen.rounding import FLOAT32
    >>> from derive.layers import Conv1d
    >>> from derive.terms import tensor
    >>> plan = direct(Conv1d(4, 2, 3, bias=False).on(tensor("X", BATCH, 4, 9)))["forward"]
    >>> round(bounds(plan, FLOAT32).relative * 2**24, 3)  # K = 12: eleven additions, one multiplication
    12.0
    """
    (output,) = plan.outputs.values()
    stages = growth(plan, precision, batch=batch)
    return Bounds(
        largest=max(g.size * g.denominator for g in stages.values()),
        dyadic=not any(g.denominator & (g.denominator - 1) for g in stages.values()),
        error=stages[output].error,
        relative=stages[output].error / products(plan, batch),
    )


def products(plan: Plan, batch: int) -> int:
    """How many products, and terms, there are in a sum of the result by its definition; 1 without a weight."""
    sizes = {t.name: [_length(b, batch) for b in t.box] for t in plan.inputs}
    match list(plan.outputs):
        case ["forward" | "input_gradient"] if "W" not in sizes:
            return 1  # a mean, or parts of means: no more than the largest input
        case ["forward"]:
            return prod(sizes["W"][1:]) + ("u" in sizes)
        case ["input_gradient"]:
            return sizes["W"][0] * prod(sizes["W"][2:])
    return sizes["G"][0] * prod(sizes["G"][2:])


def _length(bounds: Interval, batch: int) -> int:
    return batch if is_batch(bounds) else number(bounds[1] - bounds[0])


def _numbers(stage: Stage, numbers: Evaluator, precision: Precision) -> Growth:
    """A matrix of numbers: each entry for itself.  One that is no small fraction of two is rounded, and may be the
    product of two that are."""
    table = numbers.table(stage.tensor)
    cells = list(product(*(range(low, high) for low, high in table.box)))
    values = dict(zip(cells, map(abs, table.values), strict=True))
    unit = float(precision.unit)
    errors = {cell: 0.0 if is_representable(v) else 4 * unit * float(v) for cell, v in values.items()}
    sizes = {cell: float(v) for cell, v in values.items()}
    return Growth(tuple(range(len(table.box))), sizes, errors, lcm(*(v.denominator for v in values.values())))


@dataclass(frozen=True)
class _Stage:
    """A stage whose factors' bounds are known."""

    stage: Stage
    found: Mapping[str, Growth]
    precision: Precision
    batch: int

    def growth(self) -> Growth:
        """Its bounds: terms added up, then the rounding of products and sums."""
        monomials = self.stage.body.monomials
        axes = tuple(sorted({v for m in monomials for v in self._kept(m) if v < self.stage.tensor.rank}))
        unit = float(self.precision.unit)
        rounded = max((Term.of(m).roundings for m in monomials), default=0)
        sizes, errors = {}, {}
        for cell in product(*(range(self._of(axis)) for axis in axes)):
            at = dict(zip(axes, cell, strict=True))
            parts = [part for m in monomials for part in self._terms(m, at)]
            size, inherited = sum(p[0] for p in parts), sum(p[1] for p in parts)
            depth = (sum(p[2] for p in parts) - 1 + rounded) * unit
            sizes[cell] = size
            errors[cell] = inherited + (depth / (1 - depth) if depth < 1 else float("inf")) * (size + inherited)
        return Growth(axes, sizes, errors, lcm(*(self._denominator(m) for m in monomials)))

    def _reads(self, m: Monomial) -> list[Read]:
        reads = [f for f in m.factors if isinstance(f, Read)]
        if len(reads) != len(m.factors):
            raise PlanError(f"{self.stage.name}: {m.factors} has functions, whose bounds depend on their arguments")
        return reads

    def _kept(self, m: Monomial) -> list[int]:
        """The variables that factors with axes of their own are read at."""
        return sorted(
            {v for r in self._reads(m) for axis in self.found[r.tensor.name].axes for v in r.at[axis].variables}
        )

    def _of(self, level: int, m: Monomial | None = None) -> int:
        rank = self.stage.tensor.rank
        return _length(
            self.stage.tensor.box[level] if m is None or level < rank else m.binders[level - rank], self.batch
        )

    def _terms(self, m: Monomial, at: Mapping[int, int]) -> Iterator[tuple[float, float, int]]:
        """For each index of the summed axes of matrices: a bound, what its factors are off by, how many terms."""
        rank = self.stage.tensor.rank
        kept = [v for v in self._kept(m) if v >= rank]
        fixed = _fixed(m, rank, self.batch)
        count = prod(self._of(rank + k, m) for k in range(len(m.binders)) if rank + k not in {*kept, *fixed})
        summed = [v for v in kept if v not in fixed]
        scale = abs(float(m.coefficient)) * count
        factors = [self._factor(r, {*at, *summed}) for r in self._reads(m)]
        for values in product(*(range(self._of(v, m)) for v in summed)):
            place = {**at, **dict(zip(summed, values, strict=True))}
            size, off = scale, 0.0  # the product of (size + error) less that of the sizes, without a difference
            for known, levels in factors:
                cell = None if levels is None else tuple(place[v] for v in levels)
                own, error = (known.size, known.error) if cell is None else (known.sizes[cell], known.errors[cell])
                size, off = size * own, off * (own + error) + size * error
            if size:
                yield size, off, count

    def _factor(self, read: Read, known: set[int]) -> tuple[Growth, tuple[int, ...] | None]:
        """The bounds of a factor, and the variables that say which of them; None where only the largest is known."""
        own = self.found[read.tensor.name]
        levels = [next(iter(read.at[axis].variables), -1) for axis in own.axes]
        plain = all(read.at[axis] == var(v) for axis, v in zip(own.axes, levels, strict=True) if v >= 0)
        return own, tuple(levels) if plain and set(levels) <= known else None

    def _denominator(self, m: Monomial) -> int:
        return m.coefficient.denominator * prod(self.found[r.tensor.name].denominator for r in self._reads(m))


def _fixed(m: Monomial, rank: int, batch: int) -> set[int]:
    """The bound variables that equations leave no choice for: one an equation, or the digits of a number."""
    fixed: set[int] = set()
    for guard in m.guards:
        if not isinstance(guard, Zero):
            continue
        slopes = []
        for k in range(rank, rank + len(m.binders)):
            step = guard.e.slope(k)
            if k not in fixed and step:
                slopes.append((abs(step), _length(m.binders[k - rank], batch), k))
        reach = 0
        for slope, length, _ in sorted(slopes):
            if reach >= slope:
                break
            reach += slope * (length - 1)
        else:
            fixed |= {k for _, _, k in slopes}
            continue
        fixed.add(max(slopes, key=lambda s: s[1])[2])
    return fixed


__all__ = ["Bounds", "Growth", "bounds", "growth", "products"]
