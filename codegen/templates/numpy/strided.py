"""Copies and accumulations by slices: a stage that reads one tensor at affine indices.

``strided`` prints ``D[v] = q Sum_{loops} S[affine(v, loops)]``: the windows of a convolution, a pooling as a sum of
slabs, a change of layout.  It moves whole slices; only the variables named as loops become Python loops.  Further
factors may depend on loops only: then a slice is moved times a number, as in a convolution that shifts and adds.  Where
the index leaves the box the tensor is zero: what is there is moved (``clipping``), and the rest stays the zero that the
buffer was made with, or is set to before a sum.  ``scatter`` (its own file) prints the other direction.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from math import prod

from codegen.plan import PlanError, Stage, extent, number
from codegen.templates.numpy.clipping import clips_of, looped, statements
from codegen.templates.numpy.scope import Scope, scope_of
from codegen.templates.numpy.text import Context, only_monomial, times
from codegen.templates.numpy.views import View, read_view, target_view
from derive.terms import Monomial, Read

UNROLLED = 4


def strided(ctx: Context, stage: Stage) -> list[str]:
    """The text of a stage that reads by slices."""
    m = only_monomial(stage)
    if m.guards:
        raise PlanError(f"{stage.name}: guards {[g.text for g in m.guards]} cannot be printed as slices")
    scope = scope_of(stage, m.binders)
    bound = [stage.tensor.rank + k for k in range(len(m.binders))]
    if any(level not in scope.loops for level in bound):
        raise PlanError(f"{stage.name}: a variable that is summed over has to be a loop")
    read, factors = parts(stage, m, scope)
    clips = clips_of(ctx.plan, read.tensor, read.at, scope)

    def target(here: Scope) -> View:
        return target_view(ctx.plan, ctx.arrays, stage, here, clips)

    def moved(here: Scope) -> Moved:
        source = read_view(ctx.plan, ctx.arrays, read, here, clips)
        return Moved(source.aligned(target(here).axes), numbers(ctx, factors, here))

    outer = [level for level in sorted(scope.loops) if level < stage.tensor.rank]
    if not bound:
        if clips:
            left_zero(ctx, stage)
        return statements(scope, outer, clips, lambda here: once(ctx, stage, m, moved(here), target(here).text))
    if m.coefficient != 1:
        raise PlanError(f"{stage.name}: a sum by slices has the coefficient 1, not {m.coefficient}")
    if clips:
        each = statements(
            scope, [*outer, *bound], clips, lambda here: added(ctx, stage, here, moved(here), target(here))
        )
        return [f"{ctx.arrays[stage.name]}.fill(0)", *each]
    if factors:
        add = added(ctx, stage, scope, moved(scope), target(scope))
        return looped(scope, outer, [f"{target(scope).text}.fill(0)", *looped(scope, bound, add)])
    return looped(scope, outer, _accumulated(scope, bound, moved(scope).source, target(scope).text))


def left_zero(ctx: Context, stage: Stage) -> None:
    """Note that some cells of a stage are never written: they are the zeros that its own buffer was made with."""
    users = [s.name for s in ctx.plan.stages if stage.name in (s.into, s.name) and s.into]
    if users or stage.name in ctx.plan.placed:
        raise PlanError(
            f"{stage.name}: cells that are never written have to stay zero, but its buffer is shared with "
            f"{', '.join(users) or 'the result'}"
        )
    ctx.sparse.add(stage.name)


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
        return [times(ctx, moved.source, m.coefficient, target)]
    if m.coefficient != 1:
        raise PlanError(f"{stage.name}: a slice times a number has the coefficient 1, not {m.coefficient}")
    return [f"np.multiply({moved.source}, {moved.number}, out={target})"]


def added(ctx: Context, stage: Stage, scope: Scope, moved: Moved, target: View) -> list[str]:
    """One slice added to its target."""
    if not moved.number:
        return [f"np.add({target.text}, {moved.source}, out={target.text})"]
    part = ctx.part(stage, tuple(extent(scope.intervals[level]) for level in target.axes))
    return [
        f"np.multiply({moved.source}, {moved.number}, out={part})",
        f"np.add({target.text}, {part}, out={target.text})",
    ]


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
