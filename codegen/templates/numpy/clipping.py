"""What is moved of an axis where an index leaves the cells that are stored.

A tensor is zero outside its box, so a copy of a shifted image moves the cells that exist and leaves zeros where there
are none: ``Col[:, a, max(0, 2 - a):min(28, 30 - a)] = X[:, max(0, a - 2):min(28, a + 26)]`` needs no padded image.  For
an index ``step * v + rest`` into an axis of n cells, v runs over the part of its range in which ``0 <= step * v + rest
< n``.  ``rest`` may depend on Python loops; where no cell is left for some of their values, the loops are written out
(``statements``) and nothing is printed for those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codegen.plan import Plan, PlanError, extent, number
from codegen.templates.numpy.scope import Scope
from derive.indices import Index, index, var
from derive.terms import Tensor

Clips = dict[int, "Clip"]


@dataclass(frozen=True)
class Clip:
    """The part of a vector variable's range with ``step * v + rest`` among ``cells`` cells from ``first`` on."""

    level: int
    step: int
    rest: Index
    length: int
    first: int
    cells: int

    @property
    def index(self) -> Index:
        """The index that is clipped."""
        return var(self.level) * self.step + self.rest

    def span(self, rest: int) -> tuple[int, int]:
        """The values of the variable for a value of ``rest``."""
        beyond = rest - self.first
        return max(0, -(beyond // self.step)), min(self.length, -((beyond - self.cells) // self.step))

    def spans(self, scope: Scope) -> list[tuple[int, int]]:
        """The same for every value of the loops."""
        return [self.span(rest) for rest in scope.values(self.rest)]

    def of_variable(self, scope: Scope) -> str:
        """The slice of an axis that is read at the variable itself."""
        from_first = self.rest - self.first
        low = _extreme("max", 0, self._ceiling(scope, from_first), [low for low, _ in self.spans(scope)])
        beyond = self._ceiling(scope, from_first - self.cells)
        return f"{low}:{_extreme('min', self.length, beyond, [high for _, high in self.spans(scope)])}"

    def of_index(self, scope: Scope) -> str:
        """The slice of the axis that is read at the clipped index."""
        rests, rest = scope.values(self.rest), scope.text(self.rest)
        last = self.rest + self.step * (self.length - 1) + 1
        start = f"{self.first} + " if self.first else ""
        least = self.first if self.step == 1 else f"{start}({scope.text(self.rest - self.first)}) % {self.step}"
        low = _extreme("max", least, rest, [self.step * self.span(r)[0] + r for r in rests])
        ends = [min(self.first + self.cells, r + self.step * (self.length - 1) + 1) for r in rests]
        high = _extreme("min", self.first + self.cells, scope.text(last), ends)
        return f"{low}:{high}" + (f":{self.step}" if self.step > 1 else "")

    def _ceiling(self, scope: Scope, e: Index) -> str:
        """``-e / step`` rounded up."""
        return scope.text(-e) if self.step == 1 else f"-(({scope.text(e)}) // {self.step})"


def _extreme(name: str, bound: int | str, text: str, values: Sequence[int]) -> str:
    """The text of a minimum or maximum, or the number that it is for all values of the loops."""
    return str(values[0]) if len(set(values)) == 1 else f"{name}({bound}, {text})"


def clips_of(plan: Plan, t: Tensor, at: Sequence[Index], scope: Scope, *, margins: bool = True) -> Clips:
    """The variables that have to be clipped for ``t`` to be accessed at these indices in the cells that are stored.

    Without ``margins``: in those of its box.
    """
    stage = plan.by_name.get(t.name)
    found: Clips = {}
    for axis, e in enumerate(at):
        size, vectors = extent(t.box[axis]), scope.vectors(e)
        if size is None or len(vectors) != 1:
            continue
        margin = stage.margin[axis] if stage else (index(0), index(0))
        shifted = scope.put(e - t.box[axis][0] + margin[0])
        before, after = map(number, margin)
        cells = (0, size + before + after) if margins else (before, size)
        clip = _clip(shifted, vectors[0], cells, scope)
        if clip is None:
            continue
        if clip.level in found:
            raise PlanError(f"{t.name}: {scope.letters[clip.level]} would be clipped by two axes; make it a loop")
        found[clip.level] = clip
    return found


def _clip(e: Index, level: int, cells: tuple[int, int], scope: Scope) -> Clip | None:
    parts = e.linear_in(level)
    length = extent(scope.intervals[level])
    if parts is None or parts[0].constant is None or parts[0].constant < 1 or length is None:
        return None
    step, first = number(parts[0]), scope.intervals[level][0]
    if number(first) != 0 or not parts[1].variables <= scope.loops:
        return None
    clip = Clip(level, step, parts[1], length, *cells)
    return clip if any(span != (0, length) for span in clip.spans(scope)) else None


def statements(scope: Scope, levels: Sequence[int], clips: Clips, write: Callable[[Scope], list[str]]) -> list[str]:
    """What ``write`` prints inside a loop for each of these variables, written out where a clip leaves nothing."""
    if all(low < high for clip in clips.values() for low, high in clip.spans(scope)):
        return looped(scope, levels, write(scope))
    lines = []
    for values in scope.choices(levels):
        here = scope.written_out(values)
        if all(low < high for clip in clips.values() for low, high in clip.spans(here)):
            lines += write(here)
    return lines


def looped(scope: Scope, levels: Sequence[int], lines: Sequence[str]) -> list[str]:
    """The statements inside one ``for`` for each of these variables."""
    heads = []
    for depth, level in enumerate(levels):
        lo, hi = (number(e) for e in scope.intervals[level])
        bounds = f"{lo}, {hi}" if lo else f"{hi}"
        heads.append(f"{'    ' * depth}for {scope.letters[level]} in range({bounds}):")
    return heads + [f"{'    ' * len(levels)}{s}" for s in lines]
