"""Accumulations by slices that are written at affine indices: ``D[h] = q Sum [h == affine(v, loops)] S[v]``.

The Toeplitz form of a kernel, the way back from windows to an image (col2im), tiles of outputs put together.  Each
equation is solved for an axis of the result; what would be written outside the box is left out (``clipping``).  Where
no two slices meet, they are copied and not added; where they cover every cell too, a term that is added to all of
them, such as a bias, is added on the way.
"""

from __future__ import annotations

from itertools import pairwise, product
from typing import Literal

from codegen.plan import PlanError, Stage, extent, number
from codegen.templates.numpy.clipping import clips_of, statements
from codegen.templates.numpy.scope import Scope, scope_of
from codegen.templates.numpy.strided import Moved, added, left_zero, numbers, once, parts
from codegen.templates.numpy.text import Context, only_monomial
from codegen.templates.numpy.views import View, read_view, stored_view
from derive.indices import Guard, Index, Zero, index, var
from derive.terms import Monomial, Read


def scatter(ctx: Context, stage: Stage) -> list[str]:
    """The text of a stage that writes at affine indices, one equation ``h == ...`` for each axis written so."""
    m, plus = _terms(stage)
    scope = scope_of(stage, m.binders)
    at = _written_at(stage, m, scope)
    read, factors = parts(stage, m, scope)
    clips = clips_of(ctx.plan, stage.tensor, at, scope, margins=stage.accumulates)

    def target(here: Scope) -> View:
        return stored_view(ctx.plan, ctx.arrays[stage.name], stage.tensor, at, here, writes=True, clips=clips)

    def moved(here: Scope) -> Moved:
        source = read_view(ctx.plan, ctx.arrays, read, here, clips)
        return Moved(source.aligned(target(here).axes), numbers(ctx, factors, here))

    _check_variables(stage, read, scope, set(target(scope).axes))
    loops = sorted(scope.loops)
    met = _met(stage, at, scope)
    if plus is not None:
        if met != "once" or factors or m.coefficient != 1:
            raise PlanError(f"{stage.name}: {plus.text} is added where slices cover every cell once, as they are")
        return statements(scope, loops, clips, lambda here: [_plus(ctx, plus, at, moved(here), target(here), here)])
    # Loops that run once meet every cell at most once; a cell that is never met stays the zero it was made.
    if met != "often" or not stage.accumulates:
        once_each = statements(scope, loops, clips, lambda here: once(ctx, stage, m, moved(here), target(here).text))
        if met == "once":
            return once_each
        if stage.name in ctx.plan.placed:
            return [f"{ctx.arrays[stage.name]}.fill(0)", *once_each]
        left_zero(ctx, stage)
        return once_each
    if m.coefficient != 1:
        raise PlanError(f"{stage.name}: an accumulation has the coefficient 1, not {m.coefficient}")
    if clips and factors:
        raise PlanError(f"{stage.name}: a slice times a number is moved whole; it leaves its box and needs a margin")
    add = statements(scope, loops, clips, lambda here: added(ctx, stage, here, moved(here), target(here)))
    return [f"{ctx.arrays[stage.name]}.fill(0)", *add]


def scattered(ctx: Context, stage: Stage) -> tuple[Monomial, Scope, View, Moved]:
    """The one monomial of a stage, its scope, the slice that each turn of the loops writes, and what is moved there."""
    m = only_monomial(stage)
    scope = scope_of(stage, m.binders)
    at = _written_at(stage, m, scope)
    read, factors = parts(stage, m, scope)
    target = stored_view(ctx.plan, ctx.arrays[stage.name], stage.tensor, at, scope, writes=True)
    _check_variables(stage, read, scope, set(target.axes))
    source = read_view(ctx.plan, ctx.arrays, read, scope).aligned(target.axes)
    return m, scope, target, Moved(source, numbers(ctx, factors, scope))


def _written_at(stage: Stage, m: Monomial, scope: Scope) -> list[Index]:
    """Where each axis is written: at its own variable, or where an equation says."""
    at: list[Index] = [var(axis) for axis in range(stage.tensor.rank)]
    for guard in m.guards:
        axis, value = _solved(stage, guard, scope)
        at[axis] = value
    return at


def _terms(stage: Stage) -> tuple[Monomial, Read | None]:
    """The monomial that is scattered, and what is added to every cell."""
    scattered = [m for m in stage.body.monomials if m.guards or m.binders]
    others = [m for m in stage.body.monomials if m not in scattered]
    if len(scattered) != 1 or len(others) > 1:
        raise PlanError(f"{stage.name}: the template scatter prints one sum, not {stage.body.text}")
    if not others:
        return scattered[0], None
    (plain,) = others
    if plain.coefficient != 1 or len(plain.factors) != 1 or not isinstance(plain.factors[0], Read):
        raise PlanError(f"{stage.name}: the template scatter adds one read to a sum, not {stage.body.text}")
    return scattered[0], plain.factors[0]


def _check_variables(stage: Stage, read: Read, scope: Scope, written: set[int]) -> None:
    here = scope.loops | written
    bound = range(stage.tensor.rank, len(scope.letters))
    if any(set(e.variables) - here for e in read.at) or any(level not in here for level in bound):
        raise PlanError(f"{stage.name}: the template scatter reads and sums over variables that are written, or loops")


def _plus(ctx: Context, plus: Read, at: list[Index], moved: Moved, target: View, scope: Scope) -> str:
    """One slice to its target, plus what is read at the axes that are written as they are."""
    if any(at[level] != var(level) for e in plus.at for level in e.variables):
        raise PlanError(f"{plus.text} is read at an axis that is written at {', '.join(e.text for e in at)}")
    other = read_view(ctx.plan, ctx.arrays, plus, scope).aligned(target.axes)
    return f"np.add({moved.source}, {other}, out={target.text})"


Meeting = Literal["once", "at most once", "often"]


def meeting(stage: Stage) -> Meeting:
    """How often the slices of a stage meet a cell of its box: every cell once, or some of them never, or often."""
    m, _ = _terms(stage)
    scope = scope_of(stage, m.binders)
    return _met(stage, _written_at(stage, m, scope), scope)


def _met(stage: Stage, at: list[Index], scope: Scope) -> Meeting:
    """The same, axis by axis, for cells that are written at these indices."""
    used: list[int] = []
    everywhere = True
    for axis, e in enumerate(at):
        if e == var(axis):
            continue
        size, levels = extent(stage.tensor.box[axis]), sorted(e.variables)
        slopes = [slope for level in levels if (slope := e.slope(level)) is not None]
        if size is None or len(slopes) < len(levels) or len(scope.vectors(e)) != 1 or set(levels) & set(used):
            return "often"
        used += levels
        start = number(e - sum((slope * var(level) for slope, level in zip(slopes, levels, strict=True)), index(0)))
        (vector,), low = scope.vectors(e), number(stage.tensor.box[axis][0])
        steps = dict(zip(levels, slopes, strict=True))
        ranges = {level: range(*(number(end) for end in scope.intervals[level])) for level in levels}
        along, step = ranges.pop(vector), steps.pop(vector)
        others = [[steps[level] * v for v in values] for level, values in ranges.items()]
        runs = [_within(start + sum(at_loops), step, along, low, low + size) for at_loops in product(*others)]
        runs = sorted((r for r in runs if r), key=lambda r: (r[0] % abs(step), r[0]))
        if any(a[0] % a.step == b[0] % a.step and a[-1] >= b[0] for a, b in pairwise(runs)):
            return "often"
        inside = sum(map(len, runs))
        everywhere = everywhere and inside == size
    if set(used) != set(range(stage.tensor.rank, len(scope.letters))):
        return "often"
    return "once" if everywhere else "at most once"


def _within(start: int, step: int, along: range, low: int, high: int) -> range:
    """The cells ``start + step v`` for v in a range, from ``low`` to below ``high``, upwards."""
    cells = range(start + step * along.start, start + step * along.stop, step)
    cells = cells if step > 0 else cells[::-1]
    first = max(0, -((cells.start - low) // cells.step))
    return cells[first : max(first, -((cells.start - high) // cells.step))]


def _solved(stage: Stage, guard: Guard, scope: Scope) -> tuple[int, Index]:
    """The axis an equation is about, and what it says its index is."""
    if isinstance(guard, Zero):
        for axis in range(stage.tensor.rank):
            parts = guard.e.linear_in(axis) if axis not in scope.loops else None
            if parts is not None and parts[0].constant in (1, -1):
                return axis, parts[1] * -(parts[0].constant or 1)
    raise PlanError(f"{stage.name}: {guard.text} is not an equation for the index of an axis")
