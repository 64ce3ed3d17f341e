"""Copies and accumulations by slices: a stage that reads one tensor at affine indices, or writes at them.

``strided`` prints ``D[v] = q Sum_{loops} S[affine(v, loops)]``: the windows of a convolution, a pooling as a sum of
slabs, a change of layout.  ``scatter`` prints the other direction, ``D[h] = q Sum [h == affine(v, loops)] S[v]``: the
Toeplitz form of a kernel, and the way back from windows to an image.  Both move whole slices; only the variables
named as loops become Python loops.
"""

from __future__ import annotations

import re
from itertools import product

from codegen.plan import PlanError, Stage, number
from codegen.templates.numpy.text import Context, looped, only_monomial, times
from codegen.templates.numpy.views import Scope, read_view, scope_of, stored_view, target_view
from derive.indices import Guard, Index, Zero, var
from derive.terms import Monomial, Read

UNROLLED = 4


def strided(ctx: Context, stage: Stage) -> list[str]:
    """The text of a stage that reads by slices; further factors may depend on loops only."""
    m = only_monomial(stage)
    if m.guards:
        raise PlanError(f"{stage.name}: guards {[g.text for g in m.guards]} cannot be printed as slices")
    scope = scope_of(stage, m.binders)
    bound = [stage.tensor.rank + k for k in range(len(m.binders))]
    if any(level not in scope.loops for level in bound):
        raise PlanError(f"{stage.name}: a variable that is summed over has to be a loop")
    target = target_view(ctx.plan, ctx.arrays, stage, scope)
    source = _source(ctx, stage, m, scope, target.axes)
    outer = [level for level in sorted(scope.loops) if level < stage.tensor.rank]
    if not bound:
        return looped(scope, outer, [times(ctx, source, m.coefficient, target.text)])
    if m.coefficient != 1:
        raise PlanError(f"{stage.name}: a sum by slices has the coefficient 1, not {m.coefficient}")
    return looped(scope, outer, _accumulated(scope, bound, source, target.text))


def _source(ctx: Context, stage: Stage, m: Monomial, scope: Scope, axes: tuple[int, ...]) -> str:
    reads = [f for f in m.factors if isinstance(f, Read)]
    if len(reads) != len(m.factors) or not reads:
        raise PlanError(f"{stage.name}: the template strided prints reads only")
    views = [read_view(ctx.plan, ctx.arrays, read, scope) for read in reads]
    return " * ".join(view.aligned(axes) for view in views)


def _accumulated(scope: Scope, bound: list[int], source: str, target: str) -> list[str]:
    """The sum over loops: a few terms are written out, the first two at once; many become loops from zero."""
    ranges = [range(number(scope.intervals[k][0]), number(scope.intervals[k][1])) for k in bound]
    choices = list(product(*ranges))
    if len(choices) > UNROLLED or " * " in source:
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
    return source


def scatter(ctx: Context, stage: Stage) -> list[str]:
    """The text of a stage that writes at affine indices, one equation ``h == ...`` for each axis written so."""
    m = only_monomial(stage)
    scope = scope_of(stage, m.binders)
    at: list[Index] = [var(axis) for axis in range(stage.tensor.rank)]
    for guard in m.guards:
        axis, value = _solved(stage, guard, scope)
        at[axis] = value
    free = {level for e in at for level in e.variables}
    reads = [f for f in m.factors if isinstance(f, Read)]
    if len(reads) != 1 or len(m.factors) != 1 or any(set(e.variables) - free for e in reads[0].at):
        raise PlanError(f"{stage.name}: the template scatter prints one read, at variables that are written")
    target = stored_view(ctx.plan, ctx.arrays[stage.name], stage.tensor, at, scope, writes=True)
    source = read_view(ctx.plan, ctx.arrays, reads[0], scope).aligned(target.axes)
    loops = sorted(scope.loops & free)
    summed = [level for level in loops if level >= stage.tensor.rank]
    if not summed:
        return looped(scope, loops, [times(ctx, source, m.coefficient, target.text)])
    if m.coefficient != 1:
        raise PlanError(f"{stage.name}: an accumulation has the coefficient 1, not {m.coefficient}")
    add = f"np.add({target.text}, {source}, out={target.text})"
    return [f"{ctx.arrays[stage.name]}.fill(0)", *looped(scope, loops, [add])]


def _solved(stage: Stage, guard: Guard, scope: Scope) -> tuple[int, Index]:
    """The axis an equation is about, and what it says its index is."""
    if isinstance(guard, Zero):
        for axis in range(stage.tensor.rank):
            parts = guard.e.linear_in(axis) if axis not in scope.loops else None
            if parts is not None and parts[0].constant in (1, -1):
                return axis, parts[1] * -(parts[0].constant or 1)
    raise PlanError(f"{stage.name}: {guard.text} is not an equation for the index of an axis")
