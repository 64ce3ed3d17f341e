"""Splitting a sum by the value of a variable: one term for each number the variable can be.

Identities between matrices of numbers are proved like this: at numbers in place of variables, definitions by cases
become numbers, and equal terms are collected.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from derive import kernel, tactics
from derive.indices import Guard, NonNegative, equal, var
from derive.kernel import Theorem
from derive.rules import Case, Reguard
from derive.terms import Monomial, expression


def split(theorem: Theorem, wanted: Monomial, level: int, numbers: range) -> tuple[Theorem, list[Monomial]]:
    """A monomial of the right side as the sum of its terms with ``variable == number``, and those, last number first.

    The variable, free or the monomial's own, has to be one of the numbers there.  Raises Refused where it need not be.

    >>> from derive.indices import interval
    >>> from derive.terms import tensor, term
    >>> x = kernel.begin(term(1, tensor("X", 2)[var(0)]), over=[interval(0, 2)])
    >>> split(x, x.rhs.monomials[0], 0, range(2))[0].rhs
    [$0-1==0]*X[$0] + [$0==0]*X[$0]
    """
    parts, rest = [], wanted
    for number in reversed(numbers):
        upper = rest
        if number > numbers[0]:
            # What was split off before leaves variable <= number here, so the upper part says variable == number.
            above, below = NonNegative(var(level) - number), NonNegative(number - 1 - var(level))
            theorem = kernel.rewrite(theorem, tactics.locate(theorem, theorem.rhs.depth, rest), Case(above))
            upper, rest = guarded(theorem, rest, above), guarded(theorem, rest, below)
        exact = guarded(theorem, wanted, equal(var(level), number))
        theorem = reguard(theorem, upper, exact.guards)
        parts.append(exact)
    return theorem, parts


def guarded(theorem: Theorem, m: Monomial, *guards: Guard) -> Monomial:
    """The monomial with these guards besides its own."""
    (new,) = expression(theorem.rhs.depth, [replace(m, guards=(*m.guards, *guards))]).monomials
    return new


def reguard(theorem: Theorem, wanted: Monomial, guards: Iterable[Guard]) -> Theorem:
    """The theorem with other guards on a monomial of its right side."""
    where = tactics.locate(theorem, theorem.rhs.depth, wanted)
    return kernel.rewrite(theorem, where, Reguard(wanted.binders, tuple(guards)))


__all__ = ["guarded", "reguard", "split"]
