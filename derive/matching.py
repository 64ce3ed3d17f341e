"""Bringing the right side of a theorem into the form of another expression, where the two differ in order only.

Sums may bind their variables in any order.  ``match`` looks for the order in which the two sides are the same
expression, and lets the kernel reorder; it guesses freely, since a wrong guess is refused.  Where no order fits it says
which term has no counterpart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from derive import tactics
from derive.indices import Interval, var
from derive.kernel import Theorem, Where
from derive.obligations import Refused
from derive.terms import Apply, Expr, Monomial, Substitution, expression

Step = tuple[Where, tuple[int, ...]]


def match(theorem: Theorem, target: Expr) -> Theorem:
    """The theorem with ``target`` as its right side, reached by reordering sums.  Raises Refused where none fits."""
    for _ in range(200):
        if theorem.rhs == target:
            return theorem
        steps, _ = _steps(theorem.rhs, target, ())
        if not steps:
            break
        # One step moves what the others speak of, so they are looked for again.
        theorem = tactics.reorder(theorem, *steps[0])
    raise Refused(_difference(theorem.rhs, target))


def _steps(e: Expr, target: Expr, prefix: Where) -> tuple[list[Step], bool]:
    """Reorderings that make monomials agree with some of the target, and whether then all of them do."""
    there = set(target.monomials)
    missing = [m for m in target.monomials if m not in set(e.monomials)]
    steps: list[Step] = []
    complete = True
    for k, m in enumerate(e.monomials):
        if m in there:
            continue
        plans = ((wanted, _arrangement(e.depth, m, wanted, (*prefix, k))) for wanted in missing)
        wanted, found = next(((w, plan) for w, plan in plans if plan is not None), (None, None))
        if wanted is None or found is None:
            complete = False
            continue
        missing.remove(wanted)
        steps += found
    return steps, complete and not missing


def _arrangement(depth: int, m: Monomial, wanted: Monomial, where: Where) -> list[Step] | None:
    """The reorderings, outermost first, that turn one monomial into another; None where there are none.

    An order of the outer sum counts only if the functions in it can be brought to agree too.
    """
    if m.coefficient != wanted.coefficient or len(m.factors) != len(wanted.factors):
        return None
    shape = _shape(depth, wanted)
    for order in _orders(m.binders, wanted.binders):
        same = order == tuple(range(len(order)))
        moved = m if same else _reordered(depth, m, order)
        if _shape(depth, moved) == shape:
            inner = _inside(moved, wanted, where)
            if inner is not None:
                return inner if same else [(where, order), *inner]
    return None


def _inside(m: Monomial, wanted: Monomial, where: Where) -> list[Step] | None:
    """Reorderings inside functions that turn each into another one of the wanted; None where one has no partner."""
    left = list(wanted.factors)
    open_: list[tuple[int, Apply]] = []
    for j, f in enumerate(m.factors):
        if f in left:
            left.remove(f)
        elif isinstance(f, Apply):
            open_.append((j, f))
    steps: list[Step] = []
    for j, f in open_:
        for other in left:
            if isinstance(other, Apply) and other.function == f.function:
                found, complete = _steps(f.argument, other.argument, (*where, j))
                if complete:
                    left.remove(other)
                    steps += found
                    break
        else:
            return None
    return steps


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
    factors = tuple(replace(f, argument=_blank(f.argument)) if isinstance(f, Apply) else f for f in m.factors)
    return expression(depth, [replace(m, factors=factors, coefficient=Fraction(1))])


def _blank(e: Expr) -> Expr:
    """As many monomials as there are, without what they sum."""
    return expression(e.depth, [Monomial(Fraction(len(e.monomials) + 1))])


def _difference(e: Expr, target: Expr) -> str:
    here = [m for m in e.monomials if m not in set(target.monomials)]
    there = [m for m in target.monomials if m not in set(e.monomials)]
    left = expression(e.depth, here[:1]).text
    right = expression(target.depth, there[:1]).text
    return f"the two sides do not agree: {left} has no counterpart; the other side still has {right}"
