"""Bringing the right side of a theorem into the form of another expression, where the two differ in order only.

Sums may bind their variables in any order.  ``match`` looks for the order in which the two sides are the same
expression, and lets the kernel reorder; it guesses freely, since a wrong guess is refused.  Where no order fits it says
which term has no counterpart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from derive import kernel, tactics
from derive.indices import Interval, var
from derive.kernel import Theorem, Where
from derive.obligations import Refused
from derive.terms import Apply, Expr, Factor, Monomial, Substitution, expression


def match(theorem: Theorem, target: Expr) -> Theorem:
    """The theorem with ``target`` as its right side, reached by reordering sums.  Raises Refused where none fits."""
    for _ in range(200):
        if theorem.rhs == target:
            return theorem
        step = _next(theorem.rhs, target, ())
        if step is None:
            break
        theorem = tactics.reorder(theorem, *step)
    raise Refused(_difference(theorem.rhs, target))


def _next(e: Expr, target: Expr, prefix: Where) -> tuple[Where, tuple[int, ...]] | None:
    """The first reordering that makes one more monomial (or a sum inside one) agree with the target."""
    there = set(target.monomials)
    missing = [m for m in target.monomials if m not in set(e.monomials)]
    for k, m in enumerate(e.monomials):
        if m in there:
            continue
        for wanted in missing:
            found = _reordering(e.depth, m, wanted, (*prefix, k))
            if found is not None:
                return found
    return None


def _reordering(depth: int, m: Monomial, wanted: Monomial, where: Where) -> tuple[Where, tuple[int, ...]] | None:
    if m.coefficient != wanted.coefficient or len(m.factors) != len(wanted.factors):
        return None
    identity = tuple(range(len(m.binders)))
    for order in _orders(m.binders, wanted.binders):
        moved = _reordered(depth, m, order)
        if order != identity and _shape(depth, moved) == _shape(depth, wanted):
            return where, order
        if order == identity and _shape(depth, m) == _shape(depth, wanted):
            return _inside(m, wanted, where)
    return None


def _inside(m: Monomial, wanted: Monomial, where: Where) -> tuple[Where, tuple[int, ...]] | None:
    """A reordering inside a function, in factors of one kind that stand in the same place."""
    for j, f in enumerate(m.factors):
        if not isinstance(f, Apply) or f in wanted.factors:
            continue
        for other in wanted.factors:
            if isinstance(other, Apply) and other.function == f.function:
                found = _next(f.argument, other.argument, (*where, j))
                if found is not None:
                    return found
    return None


def _orders(binders: tuple[Interval, ...], wanted: tuple[Interval, ...]) -> Iterator[tuple[int, ...]]:
    """Every order of the binders that has the wanted intervals; the one that changes least first."""

    def extend(chosen: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(chosen) == len(wanted):
            yield chosen
            return
        for k in range(len(binders)):
            if k not in chosen and binders[k] == wanted[len(chosen)]:
                yield from extend((*chosen, k))

    if len(binders) == len(wanted):
        yield from extend(())


def _reordered(depth: int, m: Monomial, order: tuple[int, ...]) -> Monomial:
    scope = depth + len(order)
    values = (*(var(v) for v in range(depth)), *(var(depth + order.index(k)) for k in range(len(order))))
    put = Substitution(scope, values, scope)
    binders = tuple(m.binders[k] for k in order)
    guards = tuple(put.guard(g) for g in m.guards)
    return Monomial(m.coefficient, binders, guards, tuple(put.factor(f) for f in m.factors))


def _shape(depth: int, m: Monomial) -> Expr:
    """The monomial with the arguments of functions blanked: what has to agree before one looks inside."""
    factors: list[Factor] = []
    for f in m.factors:
        factors.append(replace(f, argument=_blank(f.argument)) if isinstance(f, Apply) else f)
    return expression(depth, [replace(m, factors=tuple(factors), coefficient=Fraction(1))])


def _blank(e: Expr) -> Expr:
    """As many monomials as there are, without what they sum."""
    return expression(e.depth, [Monomial(Fraction(len(e.monomials) + 1))])


def _difference(e: Expr, target: Expr) -> str:
    here = [m for m in e.monomials if m not in set(target.monomials)]
    there = [m for m in target.monomials if m not in set(e.monomials)]
    left = expression(e.depth, here[:1]).text
    right = expression(target.depth, there[:1]).text
    return f"the two sides do not agree: {left} has no counterpart; the other side still has {right}"
