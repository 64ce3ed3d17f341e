"""What a stage multiplies: the one sum of products of two tensors in it, its variables in four groups.

A GEMM is ``C[m; n] = Sum_k A[m; k] B[k; n]``, and so is every convolution, without a window ever being copied:

    Z[b,n,i]  = Sum_{c,a} W[n,c,a] X[b,c, i s + a d - p] + u[n]     rows n, columns (b,i), depth (c,a)
    dX[b,c,h] = Sum_{n,a} W[n,c,a] [s | h + p - a d] G[b,n, ..]     rows c, columns (b,h), depth (n,a)
    dW[n,c,a] = Sum_{b,i} G[b,n,i] X[b,c, i s + a d - p]            rows n, columns (c,a), depth (b,i)

*Rows* are the axes of the result that only the left factor is read at, *columns* those of the right factor alone,
*depth* the variables of the sum; axes at which both are read are a *batch* of products, as groups are once they have
an axis of their own (``codegen.grouping``).  What else there is in the
stage, a bias or a function of the sum, is its *epilogue*, an expression in the number ``TOTAL`` that the product gives.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from codegen.plan import Stage, is_batch
from derive.indices import Guard, Index
from derive.terms import Apply, Expr, Factor, Monomial, Read, Tensor, expression

TOTAL = Tensor("total", ())


@dataclass(frozen=True)
class Side:
    """One factor of the product, and the guards that speak of its variables alone."""

    read: Read
    guards: tuple[Guard, ...]

    @property
    def levels(self) -> frozenset[int]:
        """The variables it depends on."""
        indices: list[Index] = [*self.read.at, *(e for g in self.guards for e in g.indices())]
        return frozenset(v for e in indices for v in e.variables)


@dataclass(frozen=True)
class Contraction:
    """A stage as a GEMM; see the head of this file.  Groups hold levels of variables, outermost first."""

    stage: Stage
    monomial: Monomial
    left: Side
    right: Side
    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    depth: tuple[int, ...]
    epilogue: Expr


def contraction(stage: Stage) -> Contraction | None:
    """A stage as a GEMM; None where it is none: no sum of a product of two tensors, or more than one, or no rows."""
    found = [m for m in _monomials(stage.body) if m.binders]
    if len(found) != 1:
        return None
    (m,) = found
    reads = [f for f in m.factors if isinstance(f, Read)]
    if len(reads) != 2 or len(m.factors) != 2:
        return None
    rank = stage.tensor.rank
    sides = _sides(stage, reads, m.guards)
    if sides is None:
        return None
    left, right = sides
    free = frozenset(range(rank))
    both = left.levels & right.levels & free
    rows, columns = sorted(left.levels & free - both), sorted(right.levels & free - both)
    if not rows or not columns or set(rows) | set(columns) | both != free:
        return None
    depth = tuple(range(rank, rank + len(m.binders)))
    return Contraction(
        stage, m, left, right, tuple(sorted(both)), tuple(rows), tuple(columns), depth, _without(stage.body, m)
    )


def _monomials(e: Expr) -> list[Monomial]:
    """The monomials of an expression and of the arguments of functions in it."""
    found = list(e.monomials)
    for m in e.monomials:
        for f in m.factors:
            if isinstance(f, Apply):
                found += _monomials(f.argument)
    return found


def _sides(stage: Stage, reads: list[Read], guards: tuple[Guard, ...]) -> tuple[Side, Side] | None:
    """The two factors with their guards; None for a guard that speaks of both.

    First the one without the batch; where the result has no batch, the one with the first axis that only one has.
    """
    first, second = (Side(read, ()) for read in reads)
    for guard in guards:
        speaks_of = {v for e in guard.indices() for v in e.variables}
        if speaks_of <= first.levels:
            first = replace(first, guards=(*first.guards, guard))
        elif speaks_of <= second.levels:
            second = replace(second, guards=(*second.guards, guard))
        else:
            return None
    batch = {axis for axis, bounds in enumerate(stage.tensor.box) if is_batch(bounds)}
    alone = (first.levels ^ second.levels) & frozenset(range(stage.tensor.rank))
    turned = batch & first.levels if batch else bool(alone) and min(alone) in second.levels
    return (second, first) if turned else (first, second)


def _without(e: Expr, found: Monomial) -> Expr:
    """The expression with the number ``TOTAL`` in the place of a sum."""
    monomials = []
    for m in e.monomials:
        if m == found:
            monomials.append(Monomial(m.coefficient, (), (), (TOTAL[()],)))
        else:
            monomials.append(replace(m, factors=tuple(_inside(f, found) for f in m.factors)))
    return expression(e.depth, monomials)


def _inside(f: Factor, found: Monomial) -> Factor:
    return Apply(f.function, _without(f.argument, found)) if isinstance(f, Apply) else f
