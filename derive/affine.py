"""Indices and guards once sizes are numbers: linear combinations of variables and of what stays nonlinear in them.

An index such as ``i*s + a - p`` is then ``2*i + a - 1``: a constant plus multiples of *atoms*.  An atom is a variable,
a product of atoms, the floor of a quotient, or the larger of two bounds of a loop.  The *level* of such a form is the
innermost variable in it, which tells how far out it can be computed.  It is *safe* to compute early if no divisor
in it can fail: a divisor below one is an error, but only where the guards around it hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Union

from derive.indices import Divides, Guard, Index, Quotient, Var, Zero


@dataclass(frozen=True)
class Times:
    """A product of variables and floors."""

    factors: tuple[Position, ...]

    @cached_property
    def level(self) -> int:
        """The innermost variable that occurs."""
        return max(f.level for f in self.factors)

    @cached_property
    def safe(self) -> bool:
        """Whether it may be computed before the guards are tested."""
        return all(isinstance(f, Var) or f.safe for f in self.factors)


@dataclass(frozen=True)
class Floor:
    """The floor of a quotient."""

    numerator: Linear
    divisor: Linear

    @cached_property
    def level(self) -> int:
        """The innermost variable that occurs."""
        return max(self.numerator.level, self.divisor.level)

    @cached_property
    def safe(self) -> bool:
        """Whether it may be computed before the guards are tested: its divisor is a number, at least one."""
        return self.numerator.safe and not self.divisor.terms and self.divisor.constant >= 1


@dataclass(frozen=True)
class Extreme:
    """The largest or smallest of several bounds of a loop; ``name`` is ``max`` or ``min``."""

    name: str
    bounds: tuple[Linear, ...]

    @cached_property
    def level(self) -> int:
        """The innermost variable that occurs."""
        return max(b.level for b in self.bounds)

    @cached_property
    def safe(self) -> bool:
        """Whether it may be computed before the guards are tested."""
        return all(b.safe for b in self.bounds)


Position = Union[Var, Times, Floor, Extreme]


@dataclass(frozen=True)
class Linear:
    """``constant`` plus the sum of ``coefficient * atom``; each atom occurs once."""

    constant: int
    terms: tuple[tuple[Position, int], ...] = ()

    @cached_property
    def level(self) -> int:
        """The innermost variable that occurs, -1 for a number."""
        return max((atom.level for atom, _ in self.terms), default=-1)

    @cached_property
    def safe(self) -> bool:
        """Whether it may be computed before the guards are tested."""
        return all(isinstance(atom, Var) or atom.safe for atom, _ in self.terms)

    def __add__(self, other: Linear | int) -> Linear:
        if isinstance(other, int):
            return Linear(self.constant + other, self.terms)
        total = dict(self.terms)
        for atom, coefficient in other.terms:
            total[atom] = total.get(atom, 0) + coefficient
        kept = tuple((atom, coefficient) for atom, coefficient in total.items() if coefficient)
        return Linear(self.constant + other.constant, kept)

    def __mul__(self, times: int) -> Linear:
        kept = tuple((atom, times * coefficient) for atom, coefficient in self.terms if times)
        return Linear(times * self.constant, kept)

    def __neg__(self) -> Linear:
        return self * -1

    def __sub__(self, other: Linear | int) -> Linear:
        return self + -other

    def split(self, level: int) -> tuple[int, Linear] | None:
        """``(slope, rest)`` with ``self == slope * Var(level) + rest``, ``rest`` known before the variable; or None."""
        slope = dict(self.terms).get(Var(level), 0)
        rest = Linear(self.constant, tuple(t for t in self.terms if t[0] != Var(level)))
        return (slope, rest) if rest.level < level else None


@dataclass(frozen=True)
class Multiple:
    """The test that ``divisor`` divides ``e``; a bare ``Linear`` is the test that it is at least zero."""

    divisor: Linear
    e: Linear

    @cached_property
    def level(self) -> int:
        """The innermost variable that occurs."""
        return max(self.divisor.level, self.e.level)

    @cached_property
    def safe(self) -> bool:
        """Whether it may be tested before the other guards."""
        return self.e.safe and not self.divisor.terms and self.divisor.constant >= 1


Test = Union[Linear, Multiple]


def numeric(e: Index, sizes: Mapping[str, int], values: Sequence[int] | None = None) -> Linear:
    """An index with numbers for its sizes, and for its variables too when ``values`` are given."""
    total = Linear(0)
    for product, coefficient in e.terms:
        value = Linear(coefficient)
        for atom in product:
            if isinstance(atom, Quotient):
                factor = floor(numeric(atom.numerator, sizes, values), numeric(atom.denominator, sizes, values))
            elif isinstance(atom, Var):
                factor = Linear(0, ((atom, 1),)) if values is None else Linear(values[atom.level])
            elif atom.name in sizes:
                factor = Linear(sizes[atom.name])
            else:
                raise ValueError(f"sizes: {atom.name} has no value; known are {', '.join(sizes) or 'none'}")
            value = _multiplied(value, factor)
        total += value
    return total


def number(e: Index, sizes: Mapping[str, int], values: Sequence[int] = ()) -> int:
    """An index as a number."""
    value = numeric(e, sizes, values)
    if value.terms:
        raise ValueError(f"{e.text}: the divisor is not at least 1")
    return value.constant


def floor(numerator: Linear, divisor: Linear) -> Linear:
    """The floor of the quotient; one whose divisor is below one stays, and is an error when it is computed."""
    if divisor.terms or divisor.constant < 1:
        return Linear(0, ((Floor(numerator, divisor), 1),))
    if divisor.constant == 1:
        return numerator
    if not numerator.terms:
        return Linear(numerator.constant // divisor.constant)
    return Linear(0, ((Floor(numerator, divisor), 1),))


def _multiplied(a: Linear, b: Linear) -> Linear:
    total = Linear(a.constant * b.constant)
    total += Linear(0, a.terms) * b.constant + Linear(0, b.terms) * a.constant
    for p, m in a.terms:
        for q, n in b.terms:
            factors = tuple(f for atom in (p, q) for f in (atom.factors if isinstance(atom, Times) else (atom,)))
            total += Linear(0, ((Times(factors), m * n),))
    return total


def extreme(name: str, bounds: Sequence[Linear]) -> Linear:
    """The ``max`` or ``min`` of these bounds."""
    moving = dict.fromkeys(b for b in bounds if b.terms)
    numbers = [b.constant for b in bounds if not b.terms]
    fixed = [Linear(max(numbers) if name == "max" else min(numbers))] if numbers else []
    kept = (*fixed, *moving)
    return kept[0] if len(kept) == 1 else Linear(0, ((Extreme(name, kept), 1),))


def guard_tests(guard: Guard, sizes: Mapping[str, int]) -> list[Test]:
    """The tests that say a guard; an equation is two of them."""
    e = numeric(guard.e, sizes)
    if isinstance(guard, Divides):
        return [Multiple(numeric(guard.m, sizes), e)]
    return [without_floor(e), without_floor(-e)] if isinstance(guard, Zero) else [without_floor(e)]


def without_floor(e: Linear) -> Linear:
    """The test ``e >= 0`` without a floor, if there is only one that is not multiplied.

    ``n // d + k >= 0`` is ``n + k d >= 0``, and ``k - n // d >= 0`` is ``k d + d - 1 - n >= 0``.
    """
    floors = [(atom, sign) for atom, sign in e.terms if isinstance(atom, Floor) and atom.safe]
    if len(floors) != 1 or abs(floors[0][1]) != 1:
        return e
    atom, sign = floors[0]
    d = atom.divisor.constant
    rest = Linear(e.constant, tuple(t for t in e.terms if t != (atom, sign)))
    return without_floor(rest * d + atom.numerator * sign + (d - 1 if sign < 0 else 0))
