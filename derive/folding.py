"""From the form of a fast algorithm back to the definition: the matrices of Toom-Cook folded into their identity.

A plan that is opened down to its inputs is a sum S over products ``A[i,t] G[t,a] B[t,e]`` and whatever else stands
there.  It is equal to S0, the same with ``K[i,a,e]`` for the three reads and without the variable t, since to unfold K
in S0 gives S.  And S0 is equal to the definition: the theorem ``K[i,a,e] = [e == i + a]`` is used, and the equation
solved for e.  (To use a theorem needs a product on its left side, and S is a sum: hence the way by S0.)

One product is folded at a time, so that two axes, several terms and sums inside functions are no cases of their own.
Nothing here is trusted: what is found or built wrongly is refused by the kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from derive import kernel, tactics
from derive.indices import Index, Zero, var, variables
from derive.kernel import Theorem, Where
from derive.obligations import Refused
from derive.rules import Contract, Reguard, Reindex, Unfold
from derive.terms import Apply, Expr, Factor, Maximum, Monomial, Read, Substitution, expression
from derive.toomcook import ToomCook


def through_identity(theorem: Theorem, *identities: ToomCook) -> Theorem:
    """The theorem with ``Sum_t A[i,t] G[t,a] B[t,e]`` on its right side replaced by ``[e == i + a]``, and that solved.

    Every sum over t of such products is found, one for each axis, also inside functions; what else stands in a sum
    stays.  The equation is solved for a bound variable of the index e, else of a, else of i; where none of them is
    bound it stays a guard.  Raises Refused where there is no such product.
    """
    found = 0
    for f in identities:
        while (spot := _find(theorem, f)) is not None:
            theorem = _fold(theorem, f, *spot)
            found += 1
    if not found:
        names = ", ".join(f.label for f in identities)
        raise Refused(f"through_identity: no sum over t of A[i,t] G[t,a] B[t,e] is there for {names}")
    return tactics.tidy(theorem)


# --- finding a product of the three matrices ----------------------------------------------------------------------


def _find(theorem: Theorem, f: ToomCook) -> tuple[Where, int] | None:
    """The address of a monomial, and which of its variables is the t of A[i,t] G[t,a] B[t,e] and of nothing else."""
    for where, m, depth in tactics.scopes(theorem.rhs):
        for k in range(len(m.binders)):
            if m.binders[k] == f.A.box[1] and _matrices(m, f, depth + k) is not None:
                return where, k
    return None


def _matrices(m: Monomial, f: ToomCook, level: int) -> tuple[Read, Read, Read] | None:
    """The reads A[i,t], G[t,a] and B[t,e] for the variable t at this level, where it occurs in nothing else."""
    t = var(level)
    speaking = [g for g in m.factors if _speaks_of(g, level)]
    others = [e for bounds in m.binders for e in bounds] + [e for g in m.guards for e in g.indices()]
    if len(speaking) != 3 or any(level in e.variables for e in others):
        return None
    reads = [g for g in speaking if isinstance(g, Read)]
    a = next((g for g in reads if g.tensor == f.A and g.at[1] == t and level not in g.at[0].variables), None)
    g = next((g for g in reads if g.tensor == f.G and g.at[0] == t and level not in g.at[1].variables), None)
    b = next((g for g in reads if g.tensor == f.B and g.at[0] == t and level not in g.at[1].variables), None)
    return None if a is None or g is None or b is None else (a, g, b)


def _speaks_of(f: Factor, level: int) -> bool:
    """Whether the variable at this level occurs in a factor."""
    values = tuple(var(v) + int(v == level) for v in range(level + 1))
    return Substitution(level + 1, values, level + 1).factor(f) != f


# --- one product replaced -----------------------------------------------------------------------------------------


def _fold(theorem: Theorem, f: ToomCook, where: Where, variable: int) -> Theorem:
    """The theorem with one such product gone: from S0, see the head of this file, both ways."""
    at = kernel.place(theorem, where)
    reads = _matrices(at.monomial, f, at.depth + variable)
    if reads is None:
        raise Refused(f"{expression(at.depth, [at.monomial]).text}: not a sum over t of A[i,t] G[t,a] B[t,e]")
    folded = _with_k(at.depth, at.monomial, variable, f, reads)
    start = kernel.begin(_put(theorem.rhs, where, folded), facts=theorem.facts, over=theorem.binders)
    algorithm = _unfolded(start, f, at.depth, at.monomial, variable)
    return kernel.trans(theorem, kernel.trans(kernel.sym(algorithm), _solved(start, f)))


def _with_k(depth: int, m: Monomial, variable: int, f: ToomCook, reads: tuple[Read, Read, Read]) -> Monomial:
    """The monomial with K[i,a,e] for the three reads, and without the variable t."""
    a, g, b = reads
    whole = Read(f.K, (a.at[0], g.at[1], b.at[1]))
    rest = list(m.factors)
    for read in reads:
        rest.remove(read)
    scope, level = depth + len(m.binders), depth + variable
    gone = Substitution(scope, tuple(var(v - int(v > level)) for v in range(scope)), scope - 1)
    binders = m.binders[:variable] + m.binders[variable + 1 :]
    return gone.monomial(replace(m, binders=binders, factors=(*rest, whole)))


def _put(e: Expr, where: Where, new: Monomial) -> Expr:
    """The expression with another monomial at that address."""
    m = e.monomials[where[0]]
    others = e.monomials[: where[0]] + e.monomials[where[0] + 1 :]
    if len(where) > 1:
        f = m.factors[where[1]]
        if isinstance(f, Apply):
            inner: Factor = replace(f, argument=_put(f.argument, where[2:], new))
        elif isinstance(f, Maximum):
            inner = replace(f, body=_put(f.body, where[2:], new))
        else:
            raise Refused(f"{f.text}: a sum inside a derivative is worked out first")
        new = replace(m, factors=m.factors[: where[1]] + (inner,) + m.factors[where[1] + 1 :])
    return expression(e.depth, (*others, new))


def _unfolded(start: Theorem, f: ToomCook, depth: int, wanted: Monomial, variable: int) -> Theorem:
    """S0 with K unfolded, and t brought to the place it has in the monomial that is wanted."""
    where, factor, _ = _read_of_k(start, f)
    opened = kernel.rewrite(start, where, Unfold(factor))
    count = len(wanted.binders)
    # Variable number p of the wanted monomial stands at order[p] while t is the last one.
    order = [count - 1 if p == variable else p - int(p > variable) for p in range(count)]
    values = (*variables(0, depth), *(var(depth + k) for k in order))
    last = Substitution(depth + count, values, depth + count).monomial(wanted)
    binders = tuple(last.binders[order.index(k)] for k in range(count))
    (last,) = expression(depth, [replace(last, binders=binders)]).monomials
    there = tactics.locate(opened, depth, last)
    back = tuple(var(depth + order.index(k)) for k in range(count))
    forth = tuple(var(depth + k) for k in order)
    moved = kernel.rewrite(opened, there, Reindex(wanted.binders, back, forth))
    return kernel.rewrite(moved, tactics.locate(moved, depth, wanted), Reguard(wanted.binders, wanted.guards))


def _solved(start: Theorem, f: ToomCook) -> Theorem:
    """S0 by the identity, and the equation it brings solved for a variable that is bound."""
    where, factor, (i, a, e) = _read_of_k(start, f)
    at = kernel.place(start, where)
    theorem = kernel.use(start, where, f.theorem(), (i, a, e))
    equation = Zero(i + a - e)
    rest = at.without(factor)
    for left in expression(at.depth, [replace(rest, guards=(*rest.guards, equation))]).monomials:
        for level in _choices(equation, (e, a, i), range(at.depth, at.scope)):
            there = tactics.locate(theorem, at.depth, left)
            return kernel.rewrite(theorem, there, Contract(level - at.depth, equation))
    return theorem


def _choices(equation: Zero, indices: Iterable[Index], bound: range) -> Iterator[int]:
    """Bound variables that the equation can be solved for without a division, those of the first index first."""
    for chosen in indices:
        for level in sorted(chosen.variables & set(bound)):
            if equation.e.slope(level) in (1, -1):
                yield level


def _read_of_k(theorem: Theorem, f: ToomCook) -> tuple[Where, int, tuple[Index, ...]]:
    """The address of the read of K, its number there, and its indices."""
    where, factor = tactics.find(theorem.rhs, lambda g: isinstance(g, Read) and g.tensor == f.K) or ((), 0)
    read = kernel.place(theorem, where).factor(factor)
    if not isinstance(read, Read):
        raise Refused(f"{read.text} is no read of {f.K.name}")
    return where, factor, read.at


__all__ = ["through_identity"]
