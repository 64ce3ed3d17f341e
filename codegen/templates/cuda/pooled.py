"""The mean over tiles in the kernel of the product that it is the mean of.

Four neighbouring columns of a product belong to one thread.  If columns are counted tile by tile, a tile of 2 x 2 cells
(or of 2, or of 4 on one axis) is among them, and the thread that has its sums in registers forms its mean:

    column = ((b T0 + j0) T1 + j1) 4 + 2 r0 + r1        for the cell i = 2 j + r of image b, with T = ceil(o / 2) tiles

A tile that reaches beyond the product's end has cells that are not stored, and no mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from codegen.contraction import Contraction
from codegen.plan import ADJACENT, PlanError, Stage
from codegen.templates.cuda.declarations import Declaration, unflattened
from codegen.templates.cuda.text import Scope, cells, kind_of
from codegen.templates.cuda.value import scaled
from derive.indices import Index, Interval, index, var, variables
from derive.terms import Read


@dataclass(frozen=True)
class Pool:
    """A stage that averages tiles of a product: their sides, and 1 over their cells, or another coefficient."""

    stage: Stage
    sides: tuple[int, ...]
    share: Fraction

    @property
    def cells(self) -> int:
        """The cells of a tile."""
        return prod(self.sides)


def mean_over_tiles(stage: Stage, product: Stage) -> Pool | None:
    """A stage as the mean over tiles of a product; None where it is none, or no thread has its tiles.

    ``P[b,n,j..] = c Sum_{r < t} A[b, n, t j + r, ..]``
    """
    rank = stage.tensor.rank
    if len(stage.body.monomials) != 1 or rank < 3 or product.tensor.rank != rank:
        return None
    (m,) = stage.body.monomials
    sides = tuple(high.constant or 0 for low, high in m.binders if low == index(0))
    if len(sides) != rank - 2 or 0 in sides or m.guards or len(m.factors) != 1:
        return None
    at = variables(0, rank)
    tiles = (t * v + r for t, v, r in zip(sides, at[2:], variables(rank, rank - 2), strict=True))
    same = m.factors[0] == Read(product.tensor, (*at[:2], *tiles)) and stage.tensor.box[:2] == product.tensor.box[:2]
    return Pool(stage, sides, m.coefficient) if same and ADJACENT % prod(sides) == 0 else None


@dataclass(frozen=True)
class Tiled:
    """The columns of a product tile by tile: how many, what is declared of one, and whether it is a cell."""

    total: Index
    places: list[Declaration]
    conditions: list[str]


def tiled(c: Contraction, pool: Pool, scope: Scope) -> Tiled:
    """The columns of a product whose columns are the batch and the axes of a pool."""
    rank = c.stage.tensor.rank
    if c.rows != (1,) or c.columns != (0, *range(2, rank)) or c.batch:
        raise PlanError(f"{pool.stage.name}: {c.stage.name} has no columns that lie in tiles")
    axes = len(pool.sides)
    box: list[Interval] = [c.stage.tensor.box[0]]
    counts = [(high + t - 1) // t for (_, high), t in zip(c.stage.tensor.box[2:], pool.sides, strict=True)]
    box += [(index(0), index(n.constant or 0)) for n in counts]
    box += [(index(0), index(t)) for t in pool.sides]
    names = pool.stage.names
    own = Scope((names[0], *names[2 : len(box) + 1]), tuple(box))
    places, conditions = unflattened(own, range(len(box)), "column"), []
    for axis, t in enumerate(pool.sides):
        high, name = c.stage.tensor.box[2 + axis][1], scope.letters[2 + axis]
        cell = var(1 + axis) * t + var(1 + axes + axis)
        places.append(Declaration(kind_of(high), name, own.text(cell)))
        if (high.constant or 0) % t:
            conditions.append(f"{name} < {scope.text(high)}")
    return Tiled(cells(box), places, conditions)


def lines(c: Contraction, pool: Pool, columns: Tiled, value: str, place: str) -> tuple[list[str], list[str]]:
    """What a thread does with an element, which it gives back, and with the sum of a tile."""
    stage, rank = pool.stage, pool.stage.tensor.rank
    names = stage.names[:rank]
    own = Scope(names, stage.tensor.box)
    there = own.offset(stage.tensor, [var(v) for v in range(rank)])
    whole = _inside(stage, names, pool.sides, c.stage.tensor.box)
    mean = f"{stage.name}[{there}] = REAL({scaled('total', pool.share)});"
    stored = f"{c.stage.name}[{place}] = REAL(value);"
    return [
        f"const ACC value = {value};",
        f"if ({' && '.join(columns.conditions)}) {stored}" if columns.conditions else stored,
        "return value;",
    ], [f"if ({' && '.join(whole)}) {mean}" if whole else mean]


def _inside(stage: Stage, names: Sequence[str], sides: Sequence[int], box: Sequence[Interval]) -> list[str]:
    """That a tile is one of the pool's, where there are others."""
    found = []
    for axis, t in enumerate(sides, 2):
        count, high = stage.tensor.box[axis][1].constant or 0, box[axis][1].constant or 0
        if -(-high // t) > count:
            found.append(f"{names[axis]} < {count}")
    return found
