"""Where an element lies: a read with its loops fixed, as a NumPy index expression.

For every axis of what is read the index is ``constant + loop variables + step * one vector variable``; it becomes a
scalar index or a slice.  The axes that are left are then put into the order of what is written: transposed, and with
``None`` where a vector variable does not occur, so that NumPy broadcasts.  An index that leaves the stored cells is
refused here, with the numbers: text relies on margins and on nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codegen.plan import Plan, PlanError, Stage, extent, number
from codegen.templates.numpy.clipping import Clip
from codegen.templates.numpy.scope import Scope
from derive.indices import Index, index, var
from derive.terms import Read, Tensor


@dataclass(frozen=True)
class View:
    """A NumPy expression and the vector variables that number its axes."""

    text: str
    axes: tuple[int, ...]

    def aligned(self, wanted: Sequence[int]) -> str:
        """The same with its axes in the wanted order, broadcast where one is missing."""
        kept = [level for level in wanted if level in self.axes]
        text = self.text
        if kept != list(self.axes):
            order = ", ".join(str(self.axes.index(level)) for level in kept)
            text = f"{text}.transpose({order})"
        if len(kept) == len(wanted) or not kept:
            return text
        first = wanted.index(kept[0])
        picks = [":" if level in kept else "None" for level in wanted[first:]]
        while picks and picks[-1] == ":":
            picks.pop()
        return f"{text}[{', '.join(picks)}]" if picks else text


def stored_view(
    plan: Plan,
    array: str,
    t: Tensor,
    at: Sequence[Index],
    scope: Scope,
    *,
    writes: bool = False,
    clips: Mapping[int, Clip] | None = None,
) -> View:
    """The cells of ``t`` at these indices, in the array that stores it, for the part of a variable that is not clipped.

    What is read outside its box has to be a margin of zeros; an accumulation leaves other numbers in its own.
    """
    stage = plan.by_name.get(t.name)
    if stage and stage.has_margin and not writes and plan.by_name[plan.owner(t.name)].accumulates:
        inside_box(t, at, scope)
    tokens: list[str] = []
    axes: list[int] = []
    for axis, e in enumerate(at):
        margin = stage.margin[axis] if stage else (index(0), index(0))
        shifted = scope.put(e - t.box[axis][0] + margin[0])
        size = extent(t.box[axis])
        stored = None if size is None else size + number(margin[0]) + number(margin[1])
        token, level = _token(t.name, shifted, stored, scope, clips or {})
        tokens.append(token)
        if level in axes:
            raise PlanError(f"{t.name}: a diagonal, {scope.letters[level]} in two axes, is no slice; make it a loop")
        if level is not None:
            axes.append(level)
    while tokens and tokens[-1] == ":":
        tokens.pop()
    return View(f"{array}[{', '.join(tokens)}]" if tokens else array, tuple(axes))


def _token(name: str, e: Index, stored: int | None, scope: Scope, clips: Mapping[int, Clip]) -> tuple[str, int | None]:
    vectors = scope.vectors(e)
    if not vectors:
        inside(name, e, stored, scope)
        return scope.text(e), None
    if len(vectors) > 1:
        raise PlanError(f"{name}: the index {e.text} has two vector variables; make one of them a loop")
    level = vectors[0]
    if level in clips:
        return _clipped(name, e, clips[level], scope), level
    step = e.slope(level)
    if step is None or step < 1:
        raise PlanError(f"{name}: the index {e.text} is not a slice with a positive step")
    lo, hi = scope.intervals[level]
    length = extent((lo, hi))
    if length is None or stored is None:
        if e != var(level) or length is not None or stored is not None:
            raise PlanError(f"{name}: the batch is read at {e.text}, not at its own variable")
        return ":", level
    inside(name, e, stored, scope)
    start = e + step * (number(lo) - var(level))
    if start == index(0) and step == 1 and length == stored:
        return ":", level
    stop = start + step * (length - 1) + 1
    return f"{scope.text(start)}:{scope.text(stop)}" + (f":{step}" if step > 1 else ""), level


def _clipped(name: str, e: Index, clip: Clip, scope: Scope) -> str:
    """The slice of an axis whose variable is clipped: at the index that made it so, or at the variable itself."""
    if e == scope.put(clip.index):
        return clip.of_index(scope)
    if e != var(clip.level):
        raise PlanError(f"{name}: {e.text} is read where only a part of {scope.letters[clip.level]} is left")
    return clip.of_variable(scope)


def inside_box(t: Tensor, at: Sequence[Index], scope: Scope) -> None:
    """Raise PlanError where an index leaves the box, margins apart."""
    for bounds, e in zip(t.box, at, strict=True):
        size = extent(bounds)
        if size is not None:
            inside(t.name, e - bounds[0], size, scope)


def inside(name: str, e: Index, stored: int | None, scope: Scope) -> None:
    """Raises PlanError unless an index stays within that many stored cells."""
    if stored is None:
        raise PlanError(f"{name}: the batch is read at {e.text}")
    low, high = scope.low(e), scope.high(e)
    if low < 0 or high >= stored:
        raise PlanError(f"{name}: cells {low}..{high} are read and 0..{stored - 1} are stored; it needs a margin")


def read_view(
    plan: Plan, arrays: dict[str, str], read: Read, scope: Scope, clips: Mapping[int, Clip] | None = None
) -> View:
    """The cells of a read."""
    return stored_view(plan, arrays[read.tensor.name], read.tensor, read.at, scope, clips=clips)


def target_view(
    plan: Plan, arrays: dict[str, str], stage: Stage, scope: Scope, clips: Mapping[int, Clip] | None = None
) -> View:
    """The cells that a stage writes, inside its margins."""
    at = [var(axis) for axis in range(stage.tensor.rank)]
    return stored_view(plan, arrays[stage.name], stage.tensor, at, scope, writes=True, clips=clips)
