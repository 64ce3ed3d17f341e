"""Bands of rows: a result for large images, formed a few rows at a time, each band as a convolution by itself.

The buffers of one large image are far beyond a cache, and a block of images cannot be less than one.  But rows r to
r + R of an output are the output of the same convolution, without padding on the first spatial axis, on the rows of the
image that they read, with zeros for those outside of it; and with stride 1 rows of an input gradient are likewise an
input gradient:

    forward         R rows from (R-1) s + d (k-1) + 1 of X, from r s - p on; padding 0
    input gradient  R rows from R + d (k-1) of G, from r + p - d (k-1) on; padding d (k-1)

That is a theorem for all sizes (``codegen.plans.band_claims``).  The plan of a band is a plan like any other, with a
theorem of its own, and printed by the same templates; ``Bands`` says beside it which rows it is run on.  All bands have
the same number of rows: the last one ends where the result does and may overlap the one before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from codegen import lifetimes
from codegen.plan import Phase, Plan, PlanError, cells_per_image, number
from codegen.plans.algorithms import ALGORITHMS
from codegen.plans.blocks import FILLED, ROWS
from codegen.plans.convolution import cotangent_of
from derive.indices import Index, IndexLike, Interval, index, variables
from derive.layers import Applied, Conv
from derive.terms import Tensor, define, term

LEAST = 10 * FILLED  # bytes of an image's buffers from which on it is cut; less is as fast whole, by measurement
AGAIN = 4 * FILLED  # bytes of kernels that bands may read again and again
RESULTS = ("forward", "input_gradient")


@dataclass(frozen=True)
class Reading:
    """The rows of an argument that a band reads: ``span`` of them, from ``row * step - before`` on."""

    tensor: Tensor
    step: Index
    before: Index
    span: Index

    def box(self) -> list[Interval]:
        """The box of so many rows."""
        return [*self.tensor.box[:2], (index(0), self.span), *self.tensor.box[3:]]

    def rows(self, name: str, row: IndexLike) -> Tensor:
        """``name[b,c,h,...] = tensor[b,c,h + row step - before,...]``, zero where the tensor has no such row."""
        b, c, h, *others = variables(0, self.tensor.rank)
        body = term(self.tensor.rank, self.tensor[(b, c, h + index(row) * self.step - self.before, *others)])
        return define(name, self.box(), body)

    @property
    def is_inside(self) -> bool:
        """Whether every band reads rows that there are; for numbers only."""
        return number(self.before) <= 0


@dataclass(frozen=True)
class Band:
    """Rows of a result as the same result of a convolution by itself: its layer, its input X, and what is read."""

    layer: Conv
    x: Tensor
    reading: Reading


def band(applied: Applied, result: str, rows: IndexLike) -> Band:
    """The convolution for so many rows; for an input gradient the stride on that axis has to be 1."""
    layer = applied.layer
    if not isinstance(layer, Conv):
        raise PlanError(f"{layer}: only results of a convolution are formed in bands")
    rows, (w, *others) = index(rows), applied.windows
    reach = w.extent - 1
    reading = Reading(applied.x, w.stride, w.before, (rows - 1) * w.stride + w.extent)
    padding, height = index(0), reading.span
    if result == "input_gradient":
        reading = Reading(cotangent_of(applied), index(1), reach - w.before, rows + reach)
        padding, height = reach, rows
    x = Tensor("X", (*applied.x.box[:2], (index(0), height), *applied.x.box[3:]))
    return Band(replace(layer, padding=(padding, *(v.before for v in others))), x, reading)


@dataclass(frozen=True)
class Bands:
    """A result in bands of ``rows`` of its ``total`` rows, each by this plan, which has the batch a single image."""

    plan: Plan
    band: Band
    rows: int
    total: int

    @property
    def starts(self) -> tuple[int, ...]:
        """The first row of each band.

        >>> from codegen.plan import BATCH
        >>> from derive.layers import Conv1d
        >>> from derive.terms import tensor
        >>> applied = Conv1d(1, 1, 3).on(tensor("X", BATCH, 1, 12))
        >>> in_bands(applied, "nhwc", "forward", 4).starts
        (0, 4, 6)
        """
        last = self.total - self.rows
        return (*range(0, last, self.rows), last)


def theorem(result: str) -> str:
    """What the theorem is called by which bands of a result have its rows.

    >>> theorem("forward")
    'forward in bands'
    """
    return f"{result} in bands"


def in_bands(applied: Applied, algorithm: str, result: str, rows: int, *, itemsize: int = 4) -> Bands:
    """A result by an algorithm in bands of so many rows.

    Raises PlanError where the rows are more than there are, or the algorithm does not write its result through views.
    """
    total = rows_of(applied, result)
    if not 1 <= rows <= total:
        raise PlanError(f"rows={rows}: {result} has {total}; the nearest legal value is {max(1, min(rows, total))}")
    own = band(applied, result, rows)
    plan = ALGORITHMS[algorithm].plan(own.layer.on(own.x, "Y"), itemsize=itemsize)[result]
    if not plan.follows:
        raise PlanError(
            f"algorithm={algorithm!r}: bands are for those that form a result through views, as 'nhwc' does"
        )
    return Bands(replace(plan, block=1), own, rows, total)


def fitting(applied: Applied, algorithm: str, result: str, plan: Plan, *, itemsize: int = 4) -> Bands | None:
    """The bands that an algorithm forms a result in; None where images are small, kernels large, or it forms it whole.

    They have as many rows as keep the largest tensor within ``FILLED`` bytes, but enough for products of ``ROWS`` rows,
    and whole tiles; of such numbers the one with the fewest rows that are formed twice.
    """
    if result not in RESULTS or not plan.follows or itemsize * lifetimes.cells(plan) < LEAST:
        return None
    if largest(plan, itemsize, phase="prologue") > AGAIN:
        return None
    if result == "input_gradient" and (applied.windows[0].stride.constant != 1 or _adds_back(plan)):
        return None
    total, fewest, tile = rows_of(applied, result), least_rows(applied, algorithm, result), ALGORITHMS[algorithm].tile
    each = largest(plan, itemsize) / -(-total // tile)
    rows = max(fewest, tile * int(FILLED / each))
    while rows < total:
        found = in_bands(applied, algorithm, result, rows, itemsize=itemsize)
        if rows <= fewest or largest(found.plan, itemsize) <= FILLED:
            even = tile * -(-total // (tile * len(found.starts)))
            return found if even == rows else in_bands(applied, algorithm, result, even, itemsize=itemsize)
        rows -= tile
    return None


def least_rows(applied: Applied, algorithm: str, result: str) -> int:
    """The fewest rows, in whole tiles, that give products of ``blocks.ROWS`` rows."""
    tile = ALGORITHMS[algorithm].tile
    box = applied.y.box if result == "forward" else applied.x.box
    beside = prod(-(-number(hi) // tile) for _, hi in box[3:])
    return tile * -(-ROWS // beside)


def largest(plan: Plan, itemsize: int, *, phase: Phase = "block") -> int:
    """The bytes of the largest tensor, for one image, that is formed in this phase and is not the result."""
    own = [s.tensor for s in plan.stages if s.name not in plan.placed and plan.phases[s.name] == phase]
    return itemsize * max(map(cells_per_image, own), default=0)


def _adds_back(plan: Plan) -> bool:
    """Whether windows are added back where they were cut out: those at the edges of bands would be formed twice."""
    return any(s.template == "overlaps" for s in plan.stages)


def rows_of(applied: Applied, result: str) -> int:
    """The rows of a result."""
    return number((applied.y if result == "forward" else applied.x).box[2][1])


__all__ = [
    "FILLED",
    "LEAST",
    "RESULTS",
    "Band",
    "Bands",
    "Reading",
    "band",
    "fitting",
    "in_bands",
    "largest",
    "least_rows",
    "rows_of",
]
