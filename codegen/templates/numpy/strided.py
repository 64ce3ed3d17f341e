"""Copies and accumulations by slices: a stage that reads one tensor at affine indices, or writes at them.

``strided`` prints ``D[v] = q Sum_{loops} S[affine(v, loops)]``: the windows of a convolution, a pooling as a sum of
slabs, a change of layout.  ``scatter`` prints the other direction, ``D[h] = q Sum [h == affine(v, loops)] S[v]``: the
Toeplitz form of a kernel, and the way back from windows to an image.  Both move whole slices; only the variables
named as loops become Python loops.  Further factors may depend on loops only: then a slice is moved times a number, as
in a convolution that shifts and adds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from math import prod

from codegen.plan import PlanError, Stage, extent, number
from codegen.templates.numpy.text import Context, looped, only_monomial, times
from codegen.templates.numpy.views import Scope, View, read_view, scope_of, stored_view, target_view
from derive.indices import Guard, Index, Zero, var
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
    target = target_view(ctx.plan, ctx.arrays, stage, scope)
    read, factors = _factors(stage, m, scope)
    moved = Moved(read_view(ctx.plan, ctx.arrays, read, scope).aligned(target.axes), _numbers(ctx, factors, scope))
    outer = [level for level in sorted(scope.loops) if level < stage.tensor.rank]
    if not bound:
        return looped(scope, outer, _once(ctx, stage, m, moved, target.text))
    if m.coefficient != 1:
        raise PlanError(f"{stage.name}: a sum by slices has the coefficient 1, not {m.coefficient}")
    if moved.number:
        add = _added(ctx, stage, scope, moved, target)
        return looped(scope, outer, [f"{target.text}.fill(0)", *looped(scope, bound, add)])
    return looped(scope, outer, _accumulated(scope, bound, moved.source, target.text))


@dataclass(frozen=True)
class Moved:
    """What is moved: the text of a slice, and that of the number it is multiplied by, if there is one."""

    source: str
    number: str


def _factors(stage: Stage, m: Monomial, scope: Scope) -> tuple[Read, list[Read]]:
    """The read that is moved by slices, and those that are numbers once the loops are fixed."""
    reads = [f for f in m.factors if isinstance(f, Read)]
    slices = [read for read in reads if any(scope.vectors(e) for e in read.at)]
    if len(reads) != len(m.factors) or not reads or len(slices) > 1:
        raise PlanError(
            f"{stage.name}: the template {stage.template} prints one read by slices, further reads at loops only"
        )
    moved = reads.index(slices[0]) if slices else 0
    return reads[moved], reads[:moved] + reads[moved + 1 :]


def _numbers(ctx: Context, reads: list[Read], scope: Scope) -> str:
    return " * ".join(read_view(ctx.plan, ctx.arrays, read, scope).text for read in reads)


def _once(ctx: Context, stage: Stage, m: Monomial, moved: Moved, target: str) -> list[str]:
    """One slice to its target."""
    if not moved.number:
        return [times(ctx, moved.source, m.coefficient, target)]
    if m.coefficient != 1:
        raise PlanError(f"{stage.name}: a slice times a number has the coefficient 1, not {m.coefficient}")
    return [f"np.multiply({moved.source}, {moved.number}, out={target})"]


def _added(ctx: Context, stage: Stage, scope: Scope, moved: Moved, target: View) -> list[str]:
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


def scatter(ctx: Context, stage: Stage) -> list[str]:
    """The text of a stage that writes at affine indices, one equation ``h == ...`` for each axis written so."""
    m, scope, target, moved = scattered(ctx, stage)
    loops = sorted(scope.loops)
    # Loops that run once meet every cell at most once; a cell that is never met stays the zero it was made.
    if not any(level >= stage.tensor.rank and _length(scope, level) > 1 for level in loops):
        return looped(scope, loops, _once(ctx, stage, m, moved, target.text))
    if m.coefficient != 1:
        raise PlanError(f"{stage.name}: an accumulation has the coefficient 1, not {m.coefficient}")
    add = _added(ctx, stage, scope, moved, target)
    return [f"{ctx.arrays[stage.name]}.fill(0)", *looped(scope, loops, add)]


def scattered(ctx: Context, stage: Stage) -> tuple[Monomial, Scope, View, Moved]:
    """The one monomial of a stage, its scope, the slice that each turn of the loops writes, and what is moved there."""
    m = only_monomial(stage)
    scope = scope_of(stage, m.binders)
    at: list[Index] = [var(axis) for axis in range(stage.tensor.rank)]
    for guard in m.guards:
        axis, value = _solved(stage, guard, scope)
        at[axis] = value
    read, factors = _factors(stage, m, scope)
    target = stored_view(ctx.plan, ctx.arrays[stage.name], stage.tensor, at, scope, writes=True)
    here = scope.loops | set(target.axes)
    bound = range(stage.tensor.rank, len(scope.letters))
    if any(set(e.variables) - here for e in read.at) or any(level not in here for level in bound):
        raise PlanError(f"{stage.name}: the template scatter reads and sums over variables that are written, or loops")
    source = read_view(ctx.plan, ctx.arrays, read, scope).aligned(target.axes)
    return m, scope, target, Moved(source, _numbers(ctx, factors, scope))


def _length(scope: Scope, level: int) -> int:
    lo, hi = scope.intervals[level]
    return number(hi - lo)


def _solved(stage: Stage, guard: Guard, scope: Scope) -> tuple[int, Index]:
    """The axis an equation is about, and what it says its index is."""
    if isinstance(guard, Zero):
        for axis in range(stage.tensor.rank):
            parts = guard.e.linear_in(axis) if axis not in scope.loops else None
            if parts is not None and parts[0].constant in (1, -1):
                return axis, parts[1] * -(parts[0].constant or 1)
    raise PlanError(f"{stage.name}: {guard.text} is not an equation for the index of an axis")
