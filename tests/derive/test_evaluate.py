"""The evaluator against a second interpreter that is as literal and as slow as can be.

``Literal`` walks an expression recursively: every variable over its whole interval, every guard asked for every point,
every tensor a dictionary.  A derivative is found there without dual numbers: a polynomial is evaluated at as many steps
along the entry as its degree asks for, and the linear coefficient is interpolated exactly.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derive import calculus
from derive.evaluate import RATIONALS, Evaluator, Numbers, Table, Undefined, prime_field
from derive.indices import (
    Divides,
    Guard,
    Index,
    Interval,
    NonNegative,
    Quotient,
    Sym,
    Var,
    Zero,
    index,
    symbol,
    symbols,
    var,
    variables,
)
from derive.terms import (
    FUNCTIONS,
    Apply,
    Derivative,
    Expr,
    Factor,
    Maximum,
    Monomial,
    Read,
    Tensor,
    constant,
    define,
    expression,
    tensor,
    term,
)

# --- the literal interpreter --------------------------------------------------------------------------------------


@dataclass
class Literal:
    """The meaning of expressions, point by point."""

    sizes: Mapping[str, int]
    numbers: Numbers
    given: Mapping[str, Table]
    known: dict[Tensor, dict[tuple[int, ...], Any]] = field(default_factory=dict)

    def index(self, e: Index, at: tuple[int, ...]) -> int:
        total = 0
        for product, coefficient in e.terms:
            for atom in product:
                match atom:
                    case Sym(name):
                        coefficient *= self.sizes[name]
                    case Var(level):
                        coefficient *= at[level]
                    case Quotient(numerator, denominator):
                        divisor = self.index(denominator, at)
                        if divisor < 1:
                            raise ValueError("divisor")
                        coefficient *= self.index(numerator, at) // divisor
            total += coefficient
        return total

    def holds(self, g: Guard, at: tuple[int, ...]) -> bool:
        match g:
            case NonNegative(e):
                return self.index(e, at) >= 0
            case Zero(e):
                return self.index(e, at) == 0
            case Divides(m, e):
                divisor = self.index(m, at)
                if divisor < 1:
                    raise ValueError("divisor")
                return self.index(e, at) % divisor == 0

    def points(self, binders: tuple[Interval, ...], at: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if not binders:
            yield at
            return
        low, high = (self.index(e, at) for e in binders[0])
        for v in range(low, high):
            yield from self.points(binders[1:], (*at, v))

    def table(self, t: Tensor) -> dict[tuple[int, ...], Any]:
        if t not in self.known:
            box = [range(self.index(low, ()), self.index(high, ())) for low, high in t.box]
            points = list(itertools.product(*box))
            if t.name in self.given:
                self.known[t] = dict(zip(points, self.given[t.name].values, strict=True))
            else:
                assert t.body is not None
                self.known[t] = {at: self.value(t.body, at) for at in points}
        return self.known[t]

    def value(self, e: Expr, at: tuple[int, ...]) -> Any:
        for t in e.tensors:
            self.table(t)
        total = self.numbers.rational(Fraction(0))
        for m in e.monomials:
            for point in self.points(m.binders, at):
                if all(self.holds(g, point) for g in m.guards):
                    total += self.product(m, point)
        return self.numbers.finish(total)

    def product(self, m: Monomial, at: tuple[int, ...]) -> Any:
        reads = [f for f in m.factors if isinstance(f, Read)]
        entries = [self.table(f.tensor).get(tuple(self.index(e, at) for e in f.at)) for f in reads]
        if None in entries:
            return 0
        total = self.numbers.rational(m.coefficient)
        for x in (*entries, *(self.factor(f, at) for f in m.factors if not isinstance(f, Read))):
            total = total * x
        return total

    def factor(self, f: Factor, at: tuple[int, ...]) -> Any:
        if isinstance(f, Apply):
            return self.numbers.functions[f.function](self.value(f.argument, at))
        if isinstance(f, Maximum):
            points = [p for p in self.points(f.binders, at) if all(self.holds(g, p) for g in f.guards)]
            return max((self.value(f.body, p) for p in points), key=self.numbers.key)
        assert isinstance(f, Derivative)
        return self.slope(f, at)

    def slope(self, d: Derivative, at: tuple[int, ...]) -> Any:
        """The linear coefficient of the polynomial ``t -> expr with t added to the entry``, by interpolation."""
        entry = tuple(self.index(e, at) for e in d.at)
        if entry not in self.table(d.tensor):
            return 0
        steps = range(degree(d.expr, d.tensor) + 1)
        total = self.numbers.rational(Fraction(0))
        for t in steps:
            moved = {**self.table(d.tensor), entry: self.table(d.tensor)[entry] + t}
            kept = {other: values for other, values in self.known.items() if d.tensor not in other.reads_of_body}
            there = Literal(self.sizes, self.numbers, self.given, {**kept, d.tensor: moved})
            weight = self.numbers.rational(linear_coefficient(t, steps))
            total += weight * there.value(d.expr, at)
        return self.numbers.finish(total)


def degree(e: Expr, target: Tensor) -> int:
    """A bound of the degree in the entries of ``target``."""

    def of(f: Factor) -> int:
        if isinstance(f, Derivative):
            return degree(f.expr, target)
        assert isinstance(f, Read)
        if f.tensor == target:
            return 1
        return degree(f.tensor.body, target) if f.tensor.body is not None else 0

    return max((sum(map(of, m.factors)) for m in e.monomials), default=0)


def linear_coefficient(node: int, nodes: range) -> Fraction:
    """The coefficient of t in the Lagrange polynomial that is 1 at ``node`` and 0 at the other nodes."""
    coefficients = [Fraction(1)]
    for other in nodes:
        if other != node:
            shifted = [Fraction(0), *coefficients]
            for k, c in enumerate(coefficients):
                shifted[k] -= other * c
            coefficients = [c / (node - other) for c in shifted]
    return coefficients[1] if len(coefficients) > 1 else Fraction(0)


# --- random expressions -------------------------------------------------------------------------------------------

n, m, s, d, p = symbols("n m s d p")
FREE = (
    tensor("X", (-1, n)),
    tensor("W", s, (-2, m - 2)),
    tensor("U", m, (index(-1), s), 2),
    tensor("b"),
    tensor("E", (1, 1), n),
)
SIZES = st.fixed_dictionaries(
    {
        "n": st.integers(0, 4),
        "m": st.integers(0, 3),
        "s": st.integers(1, 3),
        "d": st.integers(1, 3),
        "p": st.integers(-2, 2),
    }
)
FIELDS = (prime_field(101), prime_field(2**61 - 1, key=3))


@st.composite
def indices(draw: st.DrawFn, scope: int, quotients: bool = True) -> Index:
    total = index(draw(st.integers(-2, 2)))
    for _ in range(draw(st.integers(0, 3))):
        total += draw(atoms(scope, quotients)) * draw(st.sampled_from([1, 1, -1, 2, -3]))
    return total


@st.composite
def atoms(draw: st.DrawFn, scope: int, quotients: bool) -> Index:
    plain = [*variables(0, scope), *variables(0, scope), s, d, p, n]
    kind = draw(st.integers(0, 9))
    if quotients and kind == 0:
        return draw(indices(scope, False)) // draw(divisors(scope))
    if kind <= 3:
        return draw(st.sampled_from(plain)) * draw(st.sampled_from(plain))
    return draw(st.sampled_from(plain))


@st.composite
def divisors(draw: st.DrawFn, scope: int) -> Index:
    squares = [v * v + 1 for v in variables(0, scope)]
    return draw(st.sampled_from([index(1), index(2), index(3), s, d, s * d, *squares]))


@st.composite
def guards(draw: st.DrawFn, scope: int) -> Guard:
    e = draw(indices(scope))
    kind = draw(st.integers(0, 4))
    return Zero(e) if kind == 0 else Divides(draw(divisors(scope)), e) if kind == 1 else NonNegative(e)


@st.composite
def intervals(draw: st.DrawFn, scope: int) -> Interval:
    low = index(draw(st.integers(-2, 1)))
    if scope and draw(st.integers(0, 3)) == 0:
        low = draw(st.sampled_from(variables(0, scope)))
    return low, low + draw(st.sampled_from([index(2), index(3), index(0), s, n, m]))


@st.composite
def reads(draw: st.DrawFn, scope: int, tensors: tuple[Tensor, ...]) -> Read:
    t = draw(st.sampled_from(tensors))
    return Read(t, tuple(draw(indices(scope)) for _ in t.box))


@st.composite
def factors(draw: st.DrawFn, scope: int, tensors: tuple[Tensor, ...], functions: tuple[str, ...], nest: int) -> Factor:
    kind = draw(st.integers(0, 5)) if nest else 5
    if kind == 0 and functions:
        return Apply(draw(st.sampled_from(functions)), draw(expressions(scope, tensors, functions, nest - 1)))
    if kind == 1 and functions:
        binders: tuple[Interval, ...] = ()
        for _ in range(draw(st.integers(0, 2))):
            binders += (draw(intervals(scope + len(binders))),)
        inner = scope + len(binders)
        tests = tuple(draw(st.lists(guards(inner), max_size=1)))
        return Maximum(binders, tests, draw(expressions(inner, tensors, functions, nest - 1)))
    if kind == 2:
        polynomial = tuple(t for t in tensors if t.body is None or t.name == "P")
        target = draw(st.sampled_from(polynomial))
        inside = draw(expressions(scope, polynomial, (), nest - 1))
        return Derivative(inside, target, tuple(draw(indices(scope)) for _ in target.box))
    return draw(reads(scope, tensors))


@st.composite
def expressions(
    draw: st.DrawFn, depth: int, tensors: tuple[Tensor, ...], functions: tuple[str, ...], nest: int
) -> Expr:
    monomials = []
    for _ in range(draw(st.integers(0 if nest else 1, 2))):
        binders: tuple[Interval, ...] = ()
        for _ in range(draw(st.integers(0, 2 if nest else 1))):
            binders += (draw(intervals(depth + len(binders))),)
        scope = depth + len(binders)
        tests = draw(st.lists(guards(scope), max_size=2))
        inside = draw(st.lists(factors(scope, tensors, functions, nest), max_size=3 if nest else 2))
        coefficient = draw(st.sampled_from([Fraction(1), Fraction(-1), Fraction(2), Fraction(-3, 2), Fraction(1, 6)]))
        monomials.append(Monomial(coefficient, binders, tuple(tests), tuple(inside)))
    return expression(depth, monomials)


@st.composite
def definitions(draw: st.DrawFn, functions: tuple[str, ...]) -> tuple[Tensor, ...]:
    """The free tensors, a polynomial in them, and a stage on top of both."""
    P = define("P", [(0, n), (-1, s)], draw(expressions(2, FREE, (), 1)))
    Q = define("Q", [(-1, m)], draw(expressions(1, (*FREE, P), functions, 1)))
    return (*FREE, P, Q)


@st.composite
def cases(draw: st.DrawFn, numbers: Numbers, functions: tuple[str, ...]) -> tuple[Expr, Evaluator, Literal]:
    sizes = draw(SIZES)
    tensors = draw(definitions(functions))
    e = draw(expressions(2, tensors, functions, 2))
    rng = random.Random(draw(st.integers(0, 3)))
    given = {t.name: random_table(t, sizes, rng, numbers) for t in FREE}
    return e, Evaluator(sizes, given, numbers), Literal(sizes, numbers, given)


def random_table(t: Tensor, sizes: Mapping[str, int], rng: random.Random, numbers: Numbers) -> Table:
    box = tuple((low.evaluate(sizes), high.evaluate(sizes)) for low, high in t.box)
    return Table.full(box, lambda *at: numbers.rational(Fraction(rng.randint(-9, 9), rng.choice([1, 1, 2]))))


def outcome(f: Any, *arguments: object) -> object:
    """The value, or that there is none: an empty maximum, the reciprocal of 0."""
    try:
        return f(*arguments)
    except (ValueError, Undefined):
        return "undefined"


def agree(case: tuple[Expr, Evaluator, Literal]) -> None:
    e, fast, slow = case
    for at in ((0, 0), (1, -2), (-1, 3)):
        assert outcome(fast.value, e, at) == outcome(slow.value, e, at)
    for t in e.tensors:
        expected = outcome(slow.table, t)
        table = outcome(fast.table, t)
        assert getattr(table, "values", table) == (list(expected.values()) if isinstance(expected, dict) else expected)


@given(cases(RATIONALS, ("recip", "relu", "step")))
@settings(max_examples=400)
def test_rationals_agree_with_the_literal_meaning(case: tuple[Expr, Evaluator, Literal]) -> None:
    agree(case)


@pytest.mark.parametrize("numbers", FIELDS, ids=["101", "2**61-1"])
@given(data=st.data())
@settings(max_examples=200)
def test_prime_fields_agree_with_the_literal_meaning(numbers: Numbers, data: st.DataObject) -> None:
    agree(data.draw(cases(numbers, FUNCTIONS)))
