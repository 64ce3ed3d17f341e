"""Copies and accumulations by slices: a stage that reads one tensor at affine indices.

``strided`` prints ``D[v] = q Sum_{loops} S[affine(v, loops)]``: the windows of a convolution, a pooling as a sum of
slabs, a change of layout.  It moves whole slices; only the variables named as loops become Python loops.  Further
factors may depend on loops only: then a slice is moved times a number, as in a convolution that shifts and adds.  Where
the index leaves the box the tensor is zero: what is there is moved (``clipping``), and the rest stays the zero that the
buffer was made with, or is set to before a sum.  ``scatter`` (its own file) prints the other direction.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import prod

from codegen.plan import PlanError, Stage, extent, number
from codegen.templates.numpy.clipping import Clip, clips_of, looped, statements
from codegen.templates.numpy.scope import Scope, scope_of
from codegen.templates.numpy.text import Context, only_monomial, times
from codegen.templates.numpy.views import View, read_view, target_view
from derive.indices import var
from derive.terms import Monomial, Read

UNROLLED = 4
LONG = 90  # characters
CHUNK, CONFLICT = 16, 512  # cells; 512 cells are 2 KB in float32


def strided(ctx: Context, stage: Stage) -> list[str]:
    """The text of a stage that reads by slices."""
    slices = _slices(ctx, stage)
    if not slices.bound:
        return slices.moved_once()
    if slices.m.coefficient != 1:
        raise PlanError(f"{stage.name}: a sum by slices has the coefficient 1, not {slices.m.coefficient}")
    if slices.clips:
        return slices.sum_of_clipped()
    return slices.sum_of_multiples() if slices.factors else slices.sum_of_slices()


def _slices(ctx: Context, stage: Stage) -> _Slices:
    """What the stage moves; raises PlanError where that is not by slices."""
    m = only_monomial(stage)
    if m.guards:
        raise PlanError(f"{stage.name}: guards {[g.text for g in m.guards]} cannot be printed as slices")
    scope = scope_of(stage, m.binders)
    bound = [stage.tensor.rank + k for k in range(len(m.binders))]
    if any(level not in scope.loops for level in bound):
        raise PlanError(f"{stage.name}: a variable that is summed over has to be a loop")
    outer = [level for level in sorted(scope.loops) if level < stage.tensor.rank]
    read, factors = parts(stage, m, scope)
    return _Slices(ctx, stage, m, scope, outer, bound, read, factors, clips_of(ctx.plan, read.tensor, read.at, scope))


@dataclass(frozen=True)
class _Slices:
    """The slices of one tensor that a stage moves: loops over its axes and over what is summed, factors, clippings."""

    ctx: Context
    stage: Stage
    m: Monomial
    scope: Scope
    outer: list[int]
    bound: list[int]
    read: Read
    factors: list[Read]
    clips: dict[int, Clip]

    def target(self, here: Scope) -> View:
        """Where a slice goes."""
        return target_view(self.ctx.plan, self.ctx.arrays, self.stage, here, self.clips)

    def moved(self, here: Scope) -> Moved:
        """The slice, with its axes in the order of the target."""
        source = read_view(self.ctx.plan, self.ctx.arrays, self.read, here, self.clips)
        return Moved(source.aligned(self.target(here).axes), numbers(self.ctx, self.factors, here))

    def once(self, here: Scope) -> list[str]:
        """One slice to its target."""
        return once(self.ctx, self.stage, self.m, self.moved(here), self.target(here).text)

    def added(self, here: Scope) -> list[str]:
        """One slice added to its target."""
        return added(self.ctx, self.stage, here, self.moved(here), self.target(here))

    def moved_once(self) -> list[str]:
        """No sum: every cell is written once, or stays the zero it was made with."""
        if self.clips:
            left_zero(self.ctx, self.stage)
        elif not self.outer and not self.factors:
            level = _conflicting(self.read, self.target(self.scope), self.scope)
            if level is not None:
                source, target = self.moved(self.scope), self.target(self.scope).text
                return _in_chunks(self.ctx, self.stage, self.m, source, target, self.scope.letters[level])
        return statements(self.scope, self.outer, self.clips, self.once)

    def sum_of_clipped(self) -> list[str]:
        """Slices that leave the box in part, added to zeros."""
        if self.factors:
            raise PlanError(
                f"{self.stage.name}: a slice times a number is moved whole; {self.read.text} leaves its box and needs "
                "a margin"
            )
        each = statements(self.scope, [*self.outer, *self.bound], self.clips, self.added)
        return [f"{self.ctx.arrays[self.stage.name]}.fill(0)", *each]

    def sum_of_multiples(self) -> list[str]:
        """Slices times numbers, added to zeros."""
        zeros = f"{self.target(self.scope).text}.fill(0)"
        return looped(self.scope, self.outer, [zeros, *looped(self.scope, self.bound, self.added(self.scope))])

    def sum_of_slices(self) -> list[str]:
        """Whole slices added up."""
        source, target = self.moved(self.scope).source, self.target(self.scope).text
        return looped(self.scope, self.outer, _accumulated(self.scope, self.bound, source, target))


def left_zero(ctx: Context, stage: Stage) -> None:
    """Note that some cells of a stage are never written: they are the zeros that its own buffer was made with."""
    users = [s.name for s in ctx.plan.stages if stage.name in (s.into, s.name) and s.into]
    if users or stage.name in ctx.plan.placed:
        raise PlanError(
            f"{stage.name}: cells that are never written have to stay zero, but its buffer is shared with "
            f"{', '.join(users) or 'the result'}"
        )
    ctx.sparse.add(stage.name)


def _conflicting(read: Read, target: View, scope: Scope) -> int | None:
    """The innermost variable of what is written, where steps of it through the source would hit one set of a cache.

    A cache finds a line by the low bits of its address, so that lines a large power of two apart push each other out.
    """
    level = target.axes[-1] if target.axes else -1
    places = [axis for axis, e in enumerate(read.at) if e == var(level)]
    if len(places) != 1:
        return None
    sizes = [extent(bounds) for bounds in read.tensor.box[places[0] + 1 :]]
    stride = prod(size or 0 for size in sizes)
    wide = (extent(scope.intervals[level]) or 0) > CHUNK
    return level if wide and sizes and stride and stride % CONFLICT == 0 else None


def _in_chunks(ctx: Context, stage: Stage, m: Monomial, moved: Moved, target: str, letter: str) -> list[str]:
    """A copy in chunks of its innermost axis, few enough lines at a time to stay in a set of the cache."""
    size = stage.dims[-1]
    part = f"[..., {letter}:{letter} + {CHUNK}]"
    copied = once(ctx, stage, m, Moved(f"{moved.source}{part}", ""), f"{target}{part}")
    return [f"for {letter} in range(0, {size}, {CHUNK}):", *(f"    {line}" for line in copied)]


@dataclass(frozen=True)
class Moved:
    """What is moved: the text of a slice, and that of the number it is multiplied by, if there is one."""

    source: str
    number: str


def parts(stage: Stage, m: Monomial, scope: Scope) -> tuple[Read, list[Read]]:
    """The read that is moved by slices, and those that are numbers once the loops are fixed."""
    reads = [f for f in m.factors if isinstance(f, Read)]
    slices = [read for read in reads if any(scope.vectors(e) for e in read.at)]
    if len(reads) != len(m.factors) or not reads or len(slices) > 1:
        raise PlanError(
            f"{stage.name}: the template {stage.template} prints one read by slices, further reads at loops only"
        )
    moved = reads.index(slices[0]) if slices else 0
    return reads[moved], reads[:moved] + reads[moved + 1 :]


def numbers(ctx: Context, reads: list[Read], scope: Scope) -> str:
    """The product of what is a number once the loops are fixed."""
    return " * ".join(read_view(ctx.plan, ctx.arrays, read, scope).text for read in reads)


def once(ctx: Context, stage: Stage, m: Monomial, moved: Moved, target: str) -> list[str]:
    """One slice to its target."""
    if not moved.number:
        return _named(target, moved.source, lambda text: times(ctx, moved.source, m.coefficient, text))
    if m.coefficient != 1:
        raise PlanError(f"{stage.name}: a slice times a number has the coefficient 1, not {m.coefficient}")
    return [f"np.multiply({moved.source}, {moved.number}, out={target})"]


def added(ctx: Context, stage: Stage, scope: Scope, moved: Moved, target: View) -> list[str]:
    """One slice added to its target."""
    if not moved.number:
        return _named(target.text, moved.source, lambda text: f"np.add({text}, {moved.source}, out={text})")
    part = ctx.part(stage, tuple(extent(scope.intervals[level]) for level in target.axes))
    return [
        f"np.multiply({moved.source}, {moved.number}, out={part})",
        f"np.add({target.text}, {part}, out={target.text})",
    ]


def _named(target: str, source: str, statement: Callable[[str], str]) -> list[str]:
    """A statement about a target, which gets a line and a name of its own where the statement would be long."""
    if len(target) + len(source) <= LONG:
        return [statement(target)]
    return [f"part = {target}", statement("part")]


def _accumulated(scope: Scope, bound: list[int], source: str, target: str) -> list[str]:
    """The sum over loops: a few terms are written out, the first two at once; many become loops from zero."""
    ranges = [range(number(scope.intervals[k][0]), number(scope.intervals[k][1])) for k in bound]
    choices = list(product(*ranges))
    if len(choices) > UNROLLED:
        return [f"{target}.fill(0)", *looped(scope, bound, [f"np.add({target}, {source}, out={target})"])]
    terms = [_fixed(scope, bound, choice, source) for choice in choices]
    if len(terms) == 1:
        return [f"np.copyto({target}, {terms[0]})"]
    first = f"np.add({terms[0]}, {terms[1]}, out={target})"
    return [first, *(f"np.add({target}, {t}, out={target})" for t in terms[2:])]


def _fixed(scope: Scope, bound: list[int], choice: tuple[int, ...], source: str) -> str:
    """The text of a source with numbers for loop letters."""
    for level, value in zip(bound, choice, strict=True):
        source = re.sub(rf"(?<![\w.]){scope.letters[level]}(?!\w)", str(value), source)
    return re.sub(r"([\[:]|, )([\d+*\- ]*\d)(?=[:,\]])", lambda m: m.group(1) + str(_sum(m.group(2))), source)


def _sum(text: str) -> int:
    """The value of a sum of products of integers, such as ``2*1 + 3``."""
    terms = re.findall(r"([+-]?) ?([\d*]+)", text)
    return sum((-1 if sign == "-" else 1) * prod(map(int, factors.split("*"))) for sign, factors in terms)
