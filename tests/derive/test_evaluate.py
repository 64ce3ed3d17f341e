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
    tensor("X", (-3, n + 3)),
    tensor("W", (-1, s + 2), (-2, m)),
    tensor("U", m + 1, (-1, s), 2),
    tensor("b"),
    tensor("E", (1, 1), n),
)
SIZES = st.fixed_dictionaries(
    {
        "n": st.sampled_from([3, 2, 4, 0]),
        "m": st.sampled_from([2, 3, 1, 0]),
        "s": st.integers(1, 3),
        "d": st.integers(1, 3),
        "p": st.integers(-2, 2),
    }
)
FIELDS = (prime_field(101), prime_field(2**61 - 1, key=3))


@st.composite
def indices(draw: st.DrawFn, scope: int, quotients: bool = True) -> Index:
    total = index(draw(st.sampled_from([0, 1, -1, 2])))
    for _ in range(draw(st.sampled_from([1, 1, 2, 0, 3]))):
        total += draw(atoms(scope, quotients)) * draw(st.sampled_from([1, 1, 1, -1, -1, 2, -3]))
    return total


@st.composite
def atoms(draw: st.DrawFn, scope: int, quotients: bool) -> Index:
    plain = [*variables(0, scope)[::-1], *variables(0, scope)[::-1], s, d, p]
    kind = draw(st.integers(0, 9))
    if quotients and kind == 9:
        return draw(indices(scope, False)) // draw(divisors(scope))
    if kind >= 7:
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
    low = index(draw(st.sampled_from([0, 0, -1, 1, -2])))
    if scope and draw(st.integers(0, 3)) == 0:
        low = draw(st.sampled_from(variables(0, scope)))
    return low, low + draw(st.sampled_from([index(2), index(3), index(0), s, n, m]))


@st.composite
def reads(draw: st.DrawFn, scope: int, tensors: tuple[Tensor, ...]) -> Read:
    t = draw(st.sampled_from(tensors))
    return Read(t, tuple(draw(indices(scope)) for _ in t.box))


@st.composite
def factors(draw: st.DrawFn, scope: int, tensors: tuple[Tensor, ...], functions: tuple[str, ...], nest: int) -> Factor:
    kind = draw(st.sampled_from([5, 0, 1, 2])) if nest else 5
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
    for _ in range(draw(st.sampled_from([1, 2, 0] if nest else [1, 2]))):
        binders: tuple[Interval, ...] = ()
        for _ in range(draw(st.integers(0, 2 if nest else 1))):
            binders += (draw(intervals(depth + len(binders))),)
        scope = depth + len(binders)
        tests = [draw(guards(scope)) for _ in range(draw(st.sampled_from([0, 0, 1, 2])))]
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
    e = draw(expressions(draw(st.integers(0, 2)), tensors, functions, 2))
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
    for at in {point[: e.depth] for point in ((0, 0), (1, -2), (-1, 3))}:
        assert outcome(fast.value, e, at) == outcome(slow.value, e, at)
    for t in e.tensors:
        expected = outcome(slow.table, t)
        table = outcome(fast.table, t)
        assert getattr(table, "values", table) == (list(expected.values()) if isinstance(expected, dict) else expected)


@given(cases(RATIONALS, ("recip", "relu", "step")))
@settings(max_examples=150)
def test_rationals_agree_with_the_literal_meaning(case: tuple[Expr, Evaluator, Literal]) -> None:
    agree(case)


@pytest.mark.parametrize("numbers", FIELDS, ids=["101", "2**61-1"])
@given(data=st.data())
@settings(max_examples=100)
def test_prime_fields_agree_with_the_literal_meaning(numbers: Numbers, data: st.DataObject) -> None:
    agree(data.draw(cases(numbers, FUNCTIONS)))


# --- derivatives --------------------------------------------------------------------------------------------------

FP = prime_field()
x, y, V = tensor("x"), tensor("y"), tensor("V", (-1, n))


def at_two(e: Expr, numbers: Numbers = FP) -> Any:
    return Evaluator({}, {"x": Table.scalar(2), "y": Table.scalar(5)}, numbers).value(e)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_slope_of_each_scalar_function(function: str) -> None:
    f = FP.functions
    v = f[function](10)
    expected = {
        "exp": v,
        "log": f["recip"](10),
        "recip": -v * v,
        "tanh": 1 - v * v,
        "sigmoid": v - v * v,
        "relu": 1,
        "step": 0,
    }
    # d f(x y) / d x = f'(x y) y
    d_dx = term(0, Derivative(term(0, Apply(function, term(0, x[()], y[()]))), x, ()))
    assert at_two(d_dx) == FP.finish(expected[function] * 5)


@given(data=st.data())
@settings(max_examples=100)
def test_dual_numbers_agree_with_the_rule_differentiate(data: st.DataObject) -> None:
    """Both know the chain rule; the evaluator also through definitions, which the rule wants unfolded."""
    sizes = data.draw(SIZES)
    given = {t.name: random_table(t, sizes, random.Random(0), FP) for t in FREE}
    e = data.draw(expressions(1, FREE[:4], ("exp", "tanh", "sigmoid", "log"), 1))
    target = data.draw(st.sampled_from(FREE[:4]))
    at = tuple(data.draw(indices(1)) for _ in target.box)
    nested = any(isinstance(f, (Derivative, Maximum)) for mono in e.monomials for f in mono.factors)
    if nested:
        return
    evaluator = Evaluator(sizes, given, FP)
    for v in (-1, 0, 2):
        slope = outcome(evaluator.value, term(1, Derivative(e, target, at)), (v,))
        assert slope == outcome(evaluator.value, calculus.differentiate(e, target, at), (v,))


def test_a_second_derivative_of_a_sum_of_squares_is_two() -> None:
    square = term(2, V[var(2)], V[var(2)], over=[(index(-1), n)])
    second = term(2, Derivative(term(2, Derivative(square, V, (var(0),))), V, (var(1),)))
    evaluator = Evaluator({"n": 3}, {"V": Table(((-1, 3),), [3, 4, 5, 6])}, RATIONALS)
    assert [evaluator.value(second, at) for at in [(0, 0), (0, 1), (-1, -1), (3, 3)]] == [2, 0, 2, 0]


def test_nested_derivatives_by_different_entries_are_not_confused() -> None:
    # d/dx (x * d(x + y)/dy) = 1: the inner slope must not see the outer one
    inner = term(0, x[()], Derivative(term(0, x[()]) + term(0, y[()]), y, ()))
    assert at_two(term(0, Derivative(inner, x, ()))) == 1
    # d/dx d(x y^2)/dy = 2 y
    mixed = Derivative(term(0, Derivative(term(0, x[()], y[()], y[()]), y, ())), x, ())
    assert at_two(term(0, mixed)) == 10


def test_a_derivative_takes_a_defined_tensor_as_free_and_moves_what_is_defined_by_it() -> None:
    v = var(0)
    square = define("square", [n], term(1, V[v], V[v]))
    cube = define("cube", [n], term(1, square[v], V[v]))
    total = term(1, cube[var(1)], over=[(index(0), n)])
    evaluator = Evaluator({"n": 2}, {"V": Table(((-1, 2),), [7, 3, 5])}, RATIONALS)
    assert evaluator.value(term(1, Derivative(total, V, (v,))), (1,)) == 3 * 5**2
    assert evaluator.value(term(1, Derivative(total, square, (v,))), (1,)) == 5
    given = {"V": Table(((-1, 2),), [7, 3, 5]), "square": Table(((0, 2),), [1, 10])}
    assert Evaluator({"n": 2}, given, RATIONALS).value(term(1, Derivative(total, V, (v,))), (1,)) == 2 * 5 * 5 + 10


def test_outside_its_box_a_tensor_cannot_vary() -> None:
    e = term(1, Derivative(term(1, V[var(0)]), V, (var(0),)))
    evaluator = Evaluator({"n": 1}, {"V": Table(((-1, 1),), [2, 3])}, RATIONALS)
    assert [evaluator.value(e, (h,)) for h in (-2, -1, 0, 1)] == [0, 1, 1, 0]


def test_a_maximum_has_the_slope_of_its_first_maximiser() -> None:
    largest = term(1, Maximum(((index(0), n),), (), term(2, V[var(1)])))
    e = term(1, Derivative(largest, V, (var(0),)))
    evaluator = Evaluator({"n": 3}, {"V": Table(((-1, 3),), [9, 1, 4, 4])}, RATIONALS)
    assert [evaluator.value(e, (h,)) for h in (-1, 0, 1, 2)] == [0, 0, 1, 0]


# --- particular expressions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("stride", "dilation", "padding"), [(1, 1, 0), (2, 1, 1), (2, 3, 4), (3, 2, 1)])
def test_forward_and_gathered_gradient_of_a_convolution(stride: int, dilation: int, padding: int) -> None:
    """Slices, narrowed loops and steps, on the two sums for which they are made."""
    o, k = symbols("o k")
    W, X, G = tensor("W", k), tensor("X", n), tensor("G", o)
    i, a = variables(0, 2)
    forward = define("Y", [o], term(1, W[a], X[i * s + a * d - p], over=[(index(0), k)]))
    over = i + p - a * d
    guard = Divides(s, over)
    gather = define("dX", [n], term(1, W[a], G[over // s], over=[(index(0), k)], guards=[guard]))
    scatter = define("S", [n], term(1, Derivative(term(1, G[a], forward[a], over=[(index(0), o)]), X, (i,))))
    size = 11
    outputs = (size + 2 * padding - 2 * dilation - 1) // stride + 1
    sizes = {"n": size, "k": 3, "o": outputs, "s": stride, "d": dilation, "p": padding}
    given = {t.name: random_table(t, sizes, random.Random(1), RATIONALS) for t in (W, X, G)}
    evaluator, literal = Evaluator(sizes, given, RATIONALS), Literal(sizes, RATIONALS, given)
    assert evaluator.table(forward).values == list(literal.table(forward).values())
    assert evaluator.table(gather).values == list(literal.table(gather).values()) == evaluator.table(scatter).values


def test_a_true_convolution_reads_backwards() -> None:
    i, a = variables(0, 2)
    X, W = tensor("X", n), tensor("W", 3)
    Y = define("Y", [n], term(1, W[a], X[i - a], over=[(index(0), index(3))]))
    given = {"X": Table(((0, 4),), [1, 2, 3, 4]), "W": Table(((0, 3),), [1, 10, 100])}
    assert Evaluator({"n": 4}, given, RATIONALS).table(Y).values == [1, 12, 123, 234]


@pytest.mark.parametrize("count", [15, 16, 17, 21, 40])
def test_more_sums_than_a_function_can_nest(count: int) -> None:
    last = term(count + 1, V[var(0)], guards=[NonNegative(var(count - 1))], over=[(index(0), index(2))])
    one = (index(0), index(1))
    summed = term(1, Apply("relu", last), over=[one] * count, guards=[NonNegative(var(count) - var(1))])
    largest = term(1, Maximum((one,) * 12, (), term(13, Maximum((one,) * 12, (), term(25, V[var(0)])))))
    evaluator = Evaluator({"n": 3}, {"V": Table(((-1, 3),), [3, 4, 5, 6])}, RATIONALS)
    assert evaluator.value(summed, (1,)) == 10
    assert evaluator.value(largest, (2,)) == 6


def test_a_chain_of_definitions_is_evaluated_in_linear_time() -> None:
    """Forty stages that each read the one before twice: 2^40 reads if one were unfolded."""
    stage = V
    for k in range(40):
        stage = define(f"A{k}", [n], term(1, stage[var(0)]) + term(1, stage[var(0) - 1]))
    values = Evaluator({"n": 2}, {"V": Table(((-1, 2),), [0, 1, 0])}, RATIONALS).table(stage).values
    assert values == [1, 40]


def test_a_guard_on_sizes_alone() -> None:
    e = term(0, guards=[NonNegative(n - 3)]) + term(0, guards=[Divides(index(2), n)], coefficient=10)
    assert [Evaluator({"n": size}, {}, RATIONALS).value(e) for size in (2, 3, 4)] == [10, 1, 11]


def test_a_factor_behind_a_failing_guard_need_not_be_defined() -> None:
    v = var(0)
    inverse = Apply("recip", term(1, V[v]))
    divided = V[v // (v - 1)]
    guarded = term(1, inverse, guards=[NonNegative(v - 2)]) + term(1, divided, guards=[NonNegative(v - 2)])
    evaluator = Evaluator({"n": 3}, {"V": Table(((-1, 3),), [0, 0, 0, 4])}, RATIONALS)
    assert evaluator.value(guarded, (0,)) == 0
    assert evaluator.value(guarded, (2,)) == Fraction(1, 4) + 4
    with pytest.raises(ValueError, match=r"\(1\) // \(0\): the divisor has to be at least 1"):
        evaluator.value(term(1, divided), (1,))
    with pytest.raises(Undefined, match=r"recip\(0\)"):
        evaluator.value(term(1, inverse), (1,))
    with pytest.raises(Undefined):
        Evaluator({"n": 0}, {"V": Table(((-1, 0),), [0])}, FP).value(term(1, inverse), (-1,))


def test_a_given_table_is_taken_instead_of_a_definition() -> None:
    Y = define("Y", [n], term(1, V[var(0)]))
    evaluator = Evaluator({"n": 2}, {"Y": Table(((0, 2),), [8, 9])}, RATIONALS)
    assert evaluator.value(term(1, Y[var(0)]), (1,)) == 9


# --- errors -------------------------------------------------------------------------------------------------------


def test_errors_say_what_is_missing_or_wrong() -> None:
    e = term(1, V[var(0)])
    with pytest.raises(ValueError, match="tables: V is not defined and has no table"):
        Evaluator({"n": 2}, {}, RATIONALS).value(e, (0,))
    with pytest.raises(ValueError, match=r"V has the box \(\(-1, 2\),\) at these sizes, and its table the box"):
        Evaluator({"n": 2}, {"V": Table(((-1, 3),), [0] * 4)}, RATIONALS).value(e, (0,))
    with pytest.raises(ValueError, match="sizes: n has no value; known are m"):
        Evaluator({"m": 2}, {"V": Table(((-1, 3),), [0] * 4)}, RATIONALS).value(e, (0,))
    with pytest.raises(ValueError, match="3 were given for the 4 cells"):
        Table(((-1, 3),), [0] * 3)
    with pytest.raises(ValueError, match="the expression has 1 free variables"):
        Evaluator({"n": 2}, {"V": Table(((-1, 2),), [0] * 3)}, RATIONALS).value(e)
    with pytest.raises(ValueError, match="a maximum over nothing"):
        Evaluator({"n": 0}, {}, RATIONALS).value(term(0, Maximum(((index(0), n),), (), constant(1, 1))))
    with pytest.raises(ValueError, match=r"exp\(1\) is no rational number .* prime_field"):
        Evaluator({}, {}, RATIONALS).value(term(0, Apply("exp", constant(0, 1))))
    with pytest.raises(ValueError, match="the divisor is not at least 1"):
        Evaluator({"n": 0}, {}, RATIONALS).table(define("T", [3 // n], constant(1, 1)))


# --- numbers ------------------------------------------------------------------------------------------------------


def test_the_functions_of_a_prime_field_are_fixed_by_their_key() -> None:
    again, other = prime_field(), prime_field(key=1)
    for name in ("exp", "log", "tanh", "sigmoid"):
        assert FP.functions[name](5) == again.functions[name](5) != other.functions[name](5)
    assert len({FP.functions[name](5) for name in ("exp", "log", "tanh", "sigmoid")}) == 4
    assert FP.functions["exp"](7) == 2176371408778244016  # the same on every machine and run


def test_rationals_and_order_in_a_prime_field() -> None:
    F7 = prime_field(7)
    assert F7.rational(Fraction(1, 3)) == 5
    assert [F7.functions["relu"](v) for v in range(7)] == [0, 1, 2, 3, 0, 0, 0]
    assert [F7.functions["step"](v) for v in range(7)] == [0, 1, 1, 1, 0, 0, 0]
    assert sorted(range(7), key=F7.key) == [4, 5, 6, 0, 1, 2, 3]


def test_speed(capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the time a term takes in a convolution with channels; a machine's speed is no property of the code."""
    b, c, o, k = symbols("B C O K")
    X, W = tensor("X", b, c, o + k - 1, o + k - 1), tensor("W", c, c, k, k)
    at = variables(0, 7)
    inner = W[at[1], at[4], at[5], at[6]], X[at[0], at[4], at[2] + at[5] - 1, at[3] + at[6] - 1]
    Y = define("Y", [b, c, o, o], term(4, *inner, over=[(index(0), c), (index(0), k), (index(0), k)]))
    sizes = {"B": 2, "C": 6, "O": 10, "K": 5}
    rng = random.Random(0)
    given = {t.name: random_table(t, sizes, rng, FP) for t in (X, W)}
    start = time.perf_counter()
    Evaluator(sizes, given, FP).table(Y)
    seconds = time.perf_counter() - start
    terms = 2 * 6 * 10 * 10 * 6 * 5 * 5
    with capsys.disabled():
        print(f" {seconds / terms * 1e6:.2f} us a term", end="")  # noqa: T201
