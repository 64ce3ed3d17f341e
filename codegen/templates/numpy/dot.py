"""Inner products of slices: ``D[v] = Sum_k A[..] B[..]``, one number of the result at a time.

The axes of the result are Python loops; the bound variables are vectors, which both factors are read by.  No window is
copied: the gradient of a kernel is, for each of its cells, the inner product of the cotangent and a shifted image.
"""

from __future__ import annotations

from codegen.plan import PlanError, Stage
from codegen.templates.numpy.clipping import looped
from codegen.templates.numpy.scope import scope_of
from codegen.templates.numpy.text import Context, only_monomial
from codegen.templates.numpy.views import read_view, target_view
from derive.terms import Read


def dot(ctx: Context, stage: Stage, *, accumulate: bool) -> list[str]:
    """The text of a stage that is an inner product for each of its elements."""
    m = only_monomial(stage)
    rank = stage.tensor.rank
    scope = scope_of(stage, m.binders)
    bound = tuple(range(rank, rank + len(m.binders)))
    reads = [f for f in m.factors if isinstance(f, Read)]
    if len(reads) != 2 or len(m.factors) != 2 or m.guards or m.coefficient != 1:
        raise PlanError(f"{stage.name}: the template dot prints a sum of products of two reads")
    if scope.loops != set(range(rank)):
        raise PlanError(f"{stage.name}: the axes of the result have to be loops, what is summed over none")
    views = [read_view(ctx.plan, ctx.arrays, read, scope) for read in reads]
    if any(sorted(view.axes) != list(bound) for view in views):
        raise PlanError(
            f"{stage.name}: {reads[0].text} and {reads[1].text} do not both have every variable summed over"
        )
    letters = "abcdefgh"[: len(bound)]
    a, b = (view.aligned(bound) for view in views)
    target = target_view(ctx.plan, ctx.arrays, stage, scope).text
    sign = "+=" if accumulate else "="
    return looped(scope, sorted(scope.loops), [f'{target} {sign} np.einsum("{letters},{letters}->", {a}, {b})'])
