"""What a plan costs on a machine: a prediction, stage by stage, from shapes alone.

Three things take time in NumPy text: matrix products, at the rate of the machine's BLAS but for thin matrices, which
packing makes slower; moving cells, at a rate that depends on how long the contiguous runs are; and the calls.  A
prediction is for choosing between plans, and is good for that if it ranks them as measurements do; it is no figure to
quote.  The rates are those of a machine, by default ``codegen.machine.REFERENCE``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from math import prod

from codegen.layout import FIRST, LAST, Layout
from codegen.machine import PENALTIES, REFERENCE, Machine
from codegen.plan import VIEWS, Plan, Stage, extent
from codegen.templates.numpy.grouped import product_of
from codegen.templates.numpy.matmul import Product, products_of
from codegen.templates.numpy.scatter import meeting
from codegen.templates.numpy.shifted import turn_of
from derive.indices import Interval
from derive.terms import Monomial, Read, Tensor

TYPICAL = 32  # images: what is emitted is for any batch, so a prediction is for a typical one


@dataclass(frozen=True)
class Cost:
    """Predicted milliseconds for ``TYPICAL`` images, by what they are spent on."""

    product: float = 0.0
    move: float = 0.0
    element: float = 0.0
    call: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.product + self.move + self.element + self.call

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def times(self, factor: float) -> Cost:
        """So many times as much."""
        return Cost(*(factor * getattr(self, f.name) for f in fields(self)))


def cost(
    plan: Plan, machine: Machine = REFERENCE, *, itemsize: int = 4, layout: Layout = FIRST, bands: int = 1
) -> Cost:
    """The predicted cost of a plan with one result, at ``TYPICAL`` images, for arrays that lie so in memory.

    ``bands``: how often it is run for a block of images, if it is the plan of a band of rows.  With several threads it
    is the cost of a thread's part, the time in which all are done.

    >>> from codegen.plan import BATCH
    >>> from codegen.plans.im2col import im2col
    >>> from derive.layers import Conv2d
    >>> from derive.terms import tensor
    >>> found = cost(im2col(Conv2d(64, 64, 3, padding=1).on(tensor("X", BATCH, 64, 56, 56)))["forward"])
    >>> found.product > found.move > found.call
    True
    """
    part = -(-TYPICAL // machine.threads)  # what depends on parameters alone, every thread does for itself
    images = min(plan.block, part)
    blocks = -(-part // images) * bands
    model = _Model(plan, machine, images, itemsize, layout == LAST)
    total = Cost()
    for stage in plan.stages:
        each = model.stage(stage)
        total = total + (each.times(blocks) if plan.phases[stage.name] in ("block", "accumulate") else each)
    return total + model.result().times(blocks)


@dataclass(frozen=True)
class _Model:
    """The costs of stages for one block of so many images."""

    plan: Plan
    machine: Machine
    images: int
    itemsize: int
    last: bool  # whether the arrays of a call lie channels last in memory

    def stage(self, stage: Stage) -> Cost:
        """One stage."""
        by_template: dict[str, Callable[[Stage], Cost]] = {
            "matmul": self._matmul,
            "grouped": self._grouped,
            "shifted": self._shifted,
            "strided": self._moved,
            "windows": self._laid_out,
            "scatter": self._moved,
            "overlaps": self._moved,
            "pointwise": self._pointwise,
            "reduce": self._reduced,
            "dot": self._contracted,
            "contract": self._contracted,
        }
        make = by_template.get(stage.template)
        return self._packed(stage) if make is None else make(stage) + self._packed(stage)

    def _packed(self, stage: Stage) -> Cost:
        """A copy of each argument that lies channels last where its axes have to be merged in their order."""
        if not self.last or stage.template in VIEWS:
            return Cost()
        arguments = {t for t in stage.body.tensors if t.name in self._batched and t.rank > 2}
        cells = sum(prod(map(self._size, t.box)) for t in arguments)
        return Cost(move=1e-6 * cells * self._ns(0) * PENALTIES.across)

    def result(self) -> Cost:
        """The batch of a result brought to the front where it is formed as the last axis."""
        (name,) = self.plan.outputs.values()
        if name in self.plan.placed or self.plan.phases[name] != "block":
            return Cost()
        cells = self._cells(self.plan.by_name[name])
        pace = 1.0 if self.images == 1 else PENALTIES.across
        return Cost(move=1e-6 * cells * self._ns(cells) * pace, call=1e-3 * self.machine.call)

    def _length(self, stage: Stage, level: int, m: Monomial | None = None) -> int:
        rank = stage.tensor.rank
        return self._size(stage.tensor.box[level] if level < rank or m is None else m.binders[level - rank])

    def _size(self, bounds: Interval) -> int:
        size = extent(bounds)
        return self.images if size is None else size

    def _cells(self, stage: Stage) -> int:
        return prod(self._length(stage, axis) for axis in range(stage.tensor.rank))

    def _ns(self, cells: int) -> float:
        """Nanoseconds a cell, from memory where the array does not fit the cache."""
        scale = self.itemsize / 4
        return self.machine.copy * scale * (PENALTIES.uncached if cells * self.itemsize > self.machine.cache else 1.0)

    # --- templates ------------------------------------------------------------------------------------------------

    def _matmul(self, stage: Stage) -> Cost:
        matrix = self.plan.part_of.get(stage.name)
        total = Cost(call=1e-3 * self.machine.call)
        for p in products_of(stage):
            if matrix is not None and matrix.parts[0] != stage.name:
                continue  # the other parts of one product are printed with the first
            total = total + Cost(product=self._product(stage, p))
        if self.plan.phases[stage.name] == "accumulate":
            total = total + Cost(element=1e-6 * self._cells(stage) * self._ns(self._cells(stage)))
        return total

    def _grouped(self, stage: Stage) -> Cost:
        split, product = product_of(stage)
        return Cost(product=self._product(split, product), call=1e-3 * self.machine.call)

    def _shifted(self, stage: Stage) -> Cost:
        """A product for each turn of the loop; where it is summed over, all but the first are added."""
        turn = turn_of(stage)
        (m,) = stage.body.monomials
        turns = self._length(stage, turn.level, m)
        product = turns * self._product(turn.split, turn.product)
        calls = (2 if turn.summed else 1) * turns
        cells = (turns - 1) * self._cells(stage) if turn.summed else 0
        move = 1e-6 * cells * self._ns(self._cells(stage)) * PENALTIES.whole
        return Cost(product=product, move=move, call=1e-3 * self.machine.call * calls)

    def _product(self, stage: Stage, p: Product) -> float:
        """Milliseconds of a batch of matrix products."""
        monomial = next(m for m in stage.body.monomials if p.left in m.factors and p.right in m.factors)
        batch, m, n, k = (prod(self._length(stage, v, monomial) for v in group) for group in (p.batch, p.m, p.n, p.k))
        if min(m, n, k) < 1:
            return 0.0
        thin = 1 + float((PENALTIES.side / m) ** 1.5 + (PENALTIES.side / n) ** 1.5) + PENALTIES.depth / k
        rate = self.machine.gemm * 4 / self.itemsize
        return 2e-6 * batch * m * n * k * thin / rate + 1e-3 * PENALTIES.product * (batch - 1)

    def _moved(self, stage: Stage) -> Cost:
        """Slices copied or added, one call for each value of the loops."""
        m = next(m for m in stage.body.monomials if m.factors)
        rank = stage.tensor.rank
        loops = [v for v in range(rank + len(m.binders)) if stage.names[v] in stage.loops]
        calls = prod(self._length(stage, v, m) for v in loops)
        reads = [f for f in m.factors if isinstance(f, Read)]
        moved = max(reads, key=lambda read: len({v for e in read.at for v in e.variables} - set(loops)))
        written = {v for e in moved.at for v in e.variables} | set(loops)
        cells = prod(self._length(stage, v, m) for v in written)
        adds = any(v >= rank for v in loops) and not (stage.template == "scatter" and meeting(stage) != "often")
        passes = PENALTIES.scaled if len(reads) > 1 else PENALTIES.added if adds else 1.0
        pace = self._pace(stage, m, moved, PENALTIES.run_added if adds else PENALTIES.run)
        hidden = pace * passes >= PENALTIES.across  # a slow walk hides the memory behind it
        ns = self._ns(0 if hidden else cells) * pace
        return Cost(move=1e-6 * cells * ns * passes, call=1e-3 * self.machine.call * calls)

    def _laid_out(self, stage: Stage) -> Cost:
        """Windows copied by one call, whose inner loops NumPy chooses."""
        (m,) = stage.body.monomials
        cells = self._cells(stage)
        read = next(f for f in m.factors if isinstance(f, Read))
        pace = min(PENALTIES.skipping, self._pace(stage, m, read, PENALTIES.run))
        return Cost(move=1e-6 * cells * self._ns(cells) * pace * PENALTIES.laid, call=1e-3 * self.machine.call)

    def _pace(self, stage: Stage, m: Monomial, read: Read, short: float) -> float:
        """How many times longer a cell takes than in one long copy: by how far both sides go on cell by cell."""
        *_, beyond, last = (-1, *self._order(stage.tensor))
        *_, around, innermost = (0, *self._order(read.tensor))
        inner, written = _driver(m, last)
        step = read.at[innermost].slope(inner)
        if not step:
            return PENALTIES.across * (1 + PENALTIES.turn / max(1, self._length(stage, inner, m)))
        if written > 1 or step > 1:
            return PENALTIES.skipping * (1 + short / max(1, self._length(stage, inner, m)))
        run = self._length(stage, inner, m)
        if beyond >= 0 and self._size(read.tensor.box[innermost]) == run:
            next_, _ = _driver(m, beyond)
            if read.at[around].slope(next_) == 1:
                run *= self._length(stage, next_, m)  # rows that follow each other are one run
        return 1 + short / max(1, run)

    def _order(self, t: Tensor) -> tuple[int, ...]:
        """The axes of an array that have several cells, outermost in memory first; at least one."""
        call = t.name in self._batched or (t.name in self.plan.placed and self.plan.follows)
        order = (0, *range(2, t.rank), 1) if self.last and call and t.rank > 2 else tuple(range(t.rank))
        return tuple(axis for axis in order if self._size(t.box[axis]) != 1) or order[:1]

    @cached_property
    def _batched(self) -> frozenset[str]:
        """The arguments of a call that have a batch."""
        return frozenset(t.name for t in self.plan.inputs if any(extent(bounds) is None for bounds in t.box))

    def _pointwise(self, stage: Stage) -> Cost:
        """Passes over the result, slow ones if an array of its rank is read across its rows."""
        last = self._order(stage.tensor)[-1]
        reads = [f for m in stage.body.monomials for f in m.factors if isinstance(f, Read)]
        across = any(
            read.tensor.rank == stage.tensor.rank and not read.at[self._order(read.tensor)[-1]].slope(last)
            for read in reads
        )
        passes = max(1, sum(len(m.factors) for m in stage.body.monomials) - 1)
        cells = self._cells(stage)
        ns = self._ns(0) * PENALTIES.across if across else self._ns(cells)
        return Cost(element=1e-6 * passes * cells * ns, call=1e-3 * passes * self.machine.call)

    def _reduced(self, stage: Stage) -> Cost:
        cells = self._terms(stage)
        return Cost(element=1e-6 * cells * self._ns(cells), call=1e-3 * self.machine.call)

    def _contracted(self, stage: Stage) -> Cost:
        """Products and sums without BLAS."""
        calls = prod(self._length(stage, v) for v in range(stage.tensor.rank) if stage.names[v] in stage.loops)
        return Cost(element=1e-6 * self._terms(stage) * 2 * self._ns(0), call=1e-3 * 2 * self.machine.call * calls)

    def _terms(self, stage: Stage) -> int:
        (m, *_) = stage.body.monomials
        return prod(self._length(stage, v, m) for v in range(stage.tensor.rank + len(m.binders)))


def _driver(m: Monomial, axis: int) -> tuple[int, int]:
    """The variable that an axis is written along, by the equation for it if there is one, and its step."""
    for guard in m.guards:
        e = guard.indices()[0]
        if axis in e.variables:
            steps = [(v, abs(step or 1)) for v in e.variables if v != axis and (step := e.slope(v)) is not None]
            return max(steps, default=(axis, 1))
    return axis, 1


__all__ = ["REFERENCE", "TYPICAL", "Cost", "Machine", "cost"]
