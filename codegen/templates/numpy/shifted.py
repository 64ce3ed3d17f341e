"""GEMMs on shifted views: ``C[m; n] = Sum_a Sum_k A[a; m; k] B[k; n + d a]``, or one ``C[a; m; n]`` for each a.

One factor is read at ``v + d a - p`` on an axis, where v is a variable of the product and a is a Python loop.  The axes
from that one on are one long axis of the array, rows one after the other, so a shift by whole rows is an offset: every
turn of the loop multiplies a slice of the same matrix, and nothing is copied.  Rows outside the box lie in a margin.
Where a is summed over, the products are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from codegen.plan import PlanError, Stage, extent, number
from codegen.templates.numpy.clipping import looped
from codegen.templates.numpy.grouped import Levels, reshaped
from codegen.templates.numpy.matmul import Product, products_of
from codegen.templates.numpy.scope import Scope, scope_of
from codegen.templates.numpy.text import Context, only_monomial
from derive.indices import Index, IndexLike, Interval, index, var
from derive.terms import Read, define, tensor, term


def shifted(ctx: Context, stage: Stage) -> list[str]:
    """The text of a stage that is a product for each value of its one loop."""
    turn = turn_of(stage)
    if stage.has_margin:
        raise PlanError(f"{stage.name}: a margin lies between its elements, it is no matrix")
    array, sizes = ctx.arrays[stage.name], [[v] for v in turn.product.batch]
    shape = [*sizes, turn.product.m, turn.product.n]
    if not turn.summed:
        target = reshaped(f"{array}[{stage.names[turn.level]}]", shape, turn.boxes)
        return looped(turn.scope, [turn.level], [_product(ctx, stage, turn, turn.scope, target)])
    low, high = (number(end) for end in turn.scope.intervals[turn.level])
    target = reshaped(array, shape, turn.boxes)
    first = _product(ctx, stage, turn, turn.scope.written_out({turn.level: low}), target)
    if high - low < 2:
        return [first]
    part = ctx.part(stage, stage.dims)
    each = _product(ctx, stage, turn, turn.scope, reshaped(part, shape, turn.boxes))
    letter = stage.names[turn.level]
    more = [f"for {letter} in range({low + 1}, {high}):", f"    {each}", f"    np.add({array}, {part}, out={array})"]
    return [first, *more]


@dataclass(frozen=True)
class Turn:
    """One turn of the loop: the stage without its variable, the product that is left, and the reads as they were."""

    level: int
    summed: bool
    scope: Scope
    split: Stage
    product: Product
    boxes: list[Interval]
    reads: dict[str, Read]


def turn_of(stage: Stage) -> Turn:
    """What is left of a stage once its loop has a value.  Raises PlanError where that is no matrix product."""
    m = only_monomial(stage)
    scope = scope_of(stage, m.binders)
    reads = {f.tensor.name: f for f in m.factors if isinstance(f, Read)}
    if len(scope.loops) != 1 or len(reads) != len(m.factors):
        raise PlanError(f"{stage.name}: the template shifted prints products of reads with one loop")
    (level,) = scope.loops
    rank, boxes = stage.tensor.rank, [*stage.tensor.box, *m.binders]
    if 0 < level < rank:
        raise PlanError(f"{stage.name}: an axis of the result that is a loop is its outermost one")
    rest = boxes[:level] + boxes[level + 1 :]
    axes = rank - int(level < rank)
    factors = [_turned(read, level, boxes) for read in reads.values()]
    body = term(axes, *factors, over=rest[axes:], coefficient=m.coefficient, guards=m.guards)
    split = Stage(define(stage.name, rest[:axes], body), "matmul")
    (product,) = products_of(split)
    return Turn(level, level >= rank, scope, split, product, rest, reads)


def _turned(read: Read, level: int, boxes: Sequence[Interval]) -> Read:
    """A read without the loop's variable: of one slice of the array, or of a shifted part of it."""
    box: list[IndexLike | Interval] = []
    at: list[Index] = []
    for axis, (e, bounds) in enumerate(zip(read.at, read.tensor.box, strict=True)):
        if e == var(level) and axis == 0:
            continue
        inner = _shifted_variable(e, level)
        box.append(bounds if inner is None else boxes[inner])
        at.append(_without(e if inner is None else var(inner), level))
    return Read(tensor(read.tensor.name, *box), tuple(at))


def _shifted_variable(e: Index, level: int) -> int | None:
    """The variable v of an index ``v + d a - p`` with the loop's variable a."""
    if level not in e.variables:
        return None
    others = sorted(e.variables - {level})
    if len(others) != 1 or e.slope(others[0]) != 1 or e.slope(level) is None:
        raise PlanError(f"{e.text}: an index with the loop in it is v + d a - p, a shift by whole cells")
    return others[0]


def _without(e: Index, gone: int) -> Index:
    """The index with the variables after the one that is gone counted anew."""
    if gone in e.variables:
        raise PlanError(f"{e.text} depends on the loop")
    levels = sorted(e.variables)
    if e != sum((var(v) for v in levels), index(0)):
        raise PlanError(f"{e.text}: a matrix is read at plain variables")
    return sum((var(v - int(v > gone)) for v in levels), index(0))


def _product(ctx: Context, stage: Stage, turn: Turn, here: Scope, target: str) -> str:
    p = turn.product
    left = _operand(ctx, stage, turn, here, p.left, (p.batch, p.m, p.k))
    right = _operand(ctx, stage, turn, here, p.right, (p.batch, p.k, p.n))
    return f"np.matmul({left}, {right}, out={target})"


def _operand(
    ctx: Context, stage: Stage, turn: Turn, here: Scope, read: Read, groups: tuple[Levels, Levels, Levels]
) -> str:
    """An array as matrices of one turn of the loop: a slice of it, shifted cells of it, or all of it."""
    batch, rows, columns = groups
    levels = tuple(level for e in read.at for level in e.variables)
    own = tuple(level for level in batch if level in levels)
    if levels not in (own + rows + columns, own + columns + rows):
        raise PlanError(f"{stage.name}: {read.text} does not store {batch}, {rows} and {columns} side by side")
    turned = levels != own + rows + columns
    outer, inner = (columns, rows) if turned else (rows, columns)
    whole = turn.reads[read.tensor.name]
    array, cells = ctx.arrays[read.tensor.name], ""
    sizes = [*([v] for v in own), outer, inner]
    if whole.at[0] == var(turn.level):
        text = reshaped(f"{array}[{here.text(var(turn.level))}]", sizes, turn.boxes)
    else:
        stored = ctx.plan.by_name.get(read.tensor.name)
        axis = next((k for k, e in enumerate(whole.at) if turn.level in e.variables), None)
        text = reshaped(array, sizes, turn.boxes)
        if axis is not None:
            if stored is None or len(levels) - len(inner) != axis:
                raise PlanError(f"{stage.name}: the axis that is shifted is not the first of its matrix's columns")
            long = (stored.stored(axis) or 0) * _tail(stored, axis)
            text = reshaped(array, [*([v] for v in own), outer], turn.boxes, long)
            cells = _cells(stored, turn, here, whole, axis)
        elif stored is not None and stored.has_margin:
            raise PlanError(f"{stored.name}: a margin lies between its elements, it is no matrix")
    return text + cells + (".swapaxes(-1, -2)" if turned else "")


def _cells(stored: Stage, turn: Turn, here: Scope, whole: Read, axis: int) -> str:
    """The part of the long axis that one turn of the loop reads, as a slice."""
    if any(number(e) for k, pair in enumerate(stored.margin) for e in pair if k != axis):
        raise PlanError(f"{stored.name}: a margin lies between its elements, it is no matrix")
    tail = _tail(stored, axis)
    (inner,) = whole.at[axis].variables - {turn.level}
    rows = extent(turn.scope.intervals[inner]) or 0
    shift = whole.at[axis] - var(inner) - stored.tensor.box[axis][0] + stored.margin[axis][0]
    if turn.scope.low(shift) < 0 or turn.scope.high(shift) + rows > (stored.stored(axis) or 0):
        raise PlanError(f"{stored.name}: rows outside those that are stored are read; it needs a margin")
    start = shift * tail
    return f"[..., {here.text(start)}:{here.text(start + rows * tail)}]"


def _tail(stored: Stage, axis: int) -> int:
    """How many cells one step along an axis passes."""
    return prod(extent(b) or 0 for b in stored.tensor.box[axis + 1 :])
