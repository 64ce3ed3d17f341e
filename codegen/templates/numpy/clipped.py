"""Copies of slices cut off at the edge of what they read: ``D[v] = S[affine(v)]``, zero where S is.

A read outside the box of a tensor is zero.  Where other templates need a margin of stored zeros for that, this one
leaves the cells out of the copy: the buffer is made of zeros, the same cells are written every time, and so the others
stay zero.  Variables named as loops are written out, one statement for each of their values, with the slices that are
left.  An equation ``[h == affine]`` writes at affine indices instead: cells that no equation meets stay zero too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from codegen.plan import BATCH, PlanError, Stage, extent, number
from codegen.templates.numpy.strided import solved
from codegen.templates.numpy.text import Context, only_monomial
from codegen.templates.numpy.views import Scope, View, scope_of
from derive.indices import Index, Interval, var
from derive.terms import Read


def clipped(ctx: Context, stage: Stage) -> list[str]:
    """The text of a stage that copies one tensor by slices, cut off where it ends."""
    m = only_monomial(stage)
    scope = scope_of(stage, m.binders)
    rank = stage.tensor.rank
    at: list[Index] = [var(axis) for axis in range(rank)]
    for guard in m.guards:
        axis, value = solved(stage, guard, scope)
        at[axis] = value
    (read,) = m.factors if len(m.factors) == 1 else (None,)
    if not isinstance(read, Read) or m.coefficient != 1 or stage.into:
        raise PlanError(f"{stage.name}: the template clipped copies one read into a buffer of its own")
    if any(level >= rank for level in scope.loops):
        raise PlanError(f"{stage.name}: a loop of the template clipped is an axis of the result")
    levels = sorted(scope.loops)
    ranges = [range(number(scope.intervals[k][0]), number(scope.intervals[k][1])) for k in levels]
    pieces = (_piece(ctx, stage, read, at, scope, dict(zip(levels, v, strict=True))) for v in product(*ranges))
    return [text for text in pieces if text]


@dataclass(frozen=True)
class _Side:
    """One side of a copy: for each axis its index with the loops fixed, its box and how many cells lie before it."""

    name: str
    indices: tuple[Index, ...]
    box: tuple[Interval, ...]
    before: tuple[int, ...]

    def parts(self, axis: int) -> tuple[int, int, int] | None:
        """``(step, variable, start)`` of an index; None for the batch; step 0 where it is a number."""
        e = self.indices[axis]
        if extent(self.box[axis]) is None:
            return None
        if not e.variables:
            return 0, -1, number(e)
        (level,) = e.variables if len(e.variables) == 1 else (-1,)
        parts = e.linear_in(level)
        step = 0 if parts is None else number(parts[0])
        if parts is None or step < 1:
            raise PlanError(f"{self.name}: the index {e.text} is not a slice with a positive step")
        return step, level, number(parts[1])


def _piece(ctx: Context, stage: Stage, read: Read, at: Sequence[Index], scope: Scope, values: Mapping[int, int]) -> str:
    """The copy for these values of the loops; empty where nothing is left of it."""
    source = ctx.plan.by_name.get(read.tensor.name)
    margins = [[number(low) for low, _ in s.margin] if s else [0] * read.tensor.rank for s in (stage, source)]
    sides = (
        _Side(stage.name, tuple(_fixed(e, values) for e in at), stage.tensor.box, tuple(margins[0])),
        _Side(read.tensor.name, tuple(_fixed(e, values) for e in read.at), read.tensor.box, tuple(margins[1])),
    )
    spans = _spans(sides, scope)
    if spans is None:
        return ""
    arrays = (ctx.arrays[stage.name], ctx.arrays[read.tensor.name])
    target, moved = (_view(side, array, spans) for side, array in zip(sides, arrays, strict=True))
    if set(target.axes) != set(moved.axes) or len(set(moved.axes)) != len(moved.axes):
        raise PlanError(f"{stage.name}: {read.text} and the result do not have the same variables, each in one axis")
    return f"np.copyto({target.text}, {moved.aligned(target.axes)})"


def _fixed(e: Index, values: Mapping[int, int]) -> Index:
    """An index with numbers for the loops."""
    for level, value in values.items():
        parts = e.linear_in(level)
        if parts is None:
            raise PlanError(f"{e.text} is not affine")
        e = parts[0] * value + parts[1]
    return e


def _spans(sides: Sequence[_Side], scope: Scope) -> dict[int, tuple[int, int]] | None:
    """For each variable but the batch the values for which both sides lie in their boxes; None where there are none."""
    spans: dict[int, tuple[int, int]] = {}
    for side in sides:
        for axis, bounds in enumerate(side.box):
            parts = side.parts(axis)
            if parts is None:
                continue
            step, level, start = parts
            low, high = number(bounds[0]) - start, number(bounds[1]) - 1 - start
            if step == 0:
                if low > 0 or high < 0:
                    return None
                continue
            own = scope.intervals[level]
            first, last = spans.get(level, (number(own[0]), number(own[1]) - 1))
            spans[level] = max(first, -(-low // step)), min(last, high // step)
    return None if any(first > last for first, last in spans.values()) else spans


def _view(side: _Side, array: str, spans: Mapping[int, tuple[int, int]]) -> View:
    """The slices of one side."""
    tokens, axes = [], []
    for axis, e in enumerate(side.indices):
        parts = side.parts(axis)
        if parts is None:
            (level,) = e.variables if len(e.variables) == 1 else (-1,)
            if e != var(level):
                raise PlanError(f"{side.name}: the batch {BATCH.text} is read at {e.text}, not at its own variable")
            tokens.append(":")
            axes.append(level)
            continue
        step, level, start = parts
        offset = side.before[axis] - number(side.box[axis][0]) + start
        if step == 0:
            tokens.append(str(offset))
            continue
        first, last = (step * v + offset for v in spans[level])
        tokens.append(f"{first}:{last + 1}" + (f":{step}" if step > 1 else ""))
        axes.append(level)
    return View(f"{array}[{', '.join(tokens)}]", tuple(axes))
