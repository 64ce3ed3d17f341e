"""Indices against plain arithmetic: what is built is what is meant, and equal polynomials are equal objects.

A polynomial is compared with numbers at random points; canonical form is compared with another order of the same
operations; substitution is compared with evaluation at the substituted values.
"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from derive.indices import (
    Divides,
    Index,
    NonNegative,
    Quotient,
    Sym,
    Var,
    Zero,
    at_least,
    constant_truth,
    equal,
    index,
    inside,
    interval,
    symbol,
    var,
    variables,
)
from tests.derive.drawing import SIZES, divisors, guards, indices, m, n, points, s

SCOPE = 2


@given(indices(SCOPE), indices(SCOPE), divisors(SCOPE), SIZES, points(SCOPE))
def test_arithmetic_is_that_of_the_values(a, b, c, sizes, at):
    x, y, z = (e.evaluate(sizes, at) for e in (a, b, c))
    assert (a + b).evaluate(sizes, at) == x + y
    assert (a - b).evaluate(sizes, at) == x - y
    assert (a * b).evaluate(sizes, at) == x * y
    assert (-a).evaluate(sizes, at) == -x
    assert (a // c).evaluate(sizes, at) == x // z
    assert (3 - a).evaluate(sizes, at) == 3 - x
    assert (7 // c).evaluate(sizes, at) == 7 // z


@given(st.lists(indices(SCOPE), min_size=3, max_size=3))
def test_equal_polynomials_are_equal_objects(drawn):
    a, b, c = drawn
    for left, right in ((a + b + c, c + (b + a)), (a * b, b * a), (a * (b + c), c * a + b * a), (a - a, index(0))):
        assert left == right
        assert hash(left) == hash(right)
        assert left.text == right.text


@given(indices(SCOPE), indices(SCOPE))
def test_the_text_tells_polynomials_apart(a, b):
    assert (a.text == b.text) == (a == b)


@given(indices(SCOPE))
def test_terms_are_sorted_and_none_is_zero(a):
    assert all(coefficient != 0 for _, coefficient in a.terms)
    shuffled = list(a.terms)
    random.Random(0).shuffle(shuffled)
    assert sum((Index((t,)) for t in shuffled), index(0)) == a


@given(indices(SCOPE), st.lists(indices(3), min_size=3, max_size=3), SIZES, points(3))
def test_substitution_is_evaluation_at_the_values(a, put, sizes, at):
    by = {Var(0): put[0], Var(1): put[1], Sym("n"): put[2]}
    values = [e.evaluate(sizes, at) for e in put]
    try:
        expected = a.evaluate({**sizes, "n": values[2]}, tuple(values[:2]))
    except ValueError:  # a divisor is no longer positive there
        return
    try:
        assert a.substitute(by.get).evaluate(sizes, at) == expected
    except ValueError as error:
        pytest.fail(f"{error}: but the value is {expected}")


def test_substitution_is_simultaneous():
    a = var(0) - 2 * var(1)
    assert a.substitute({Var(0): var(1), Var(1): var(0)}.get) == var(1) - 2 * var(0)


@given(indices(SCOPE), SIZES, points(SCOPE))
def test_linear_in_splits_off_the_slope(a, sizes, at):
    parts = a.linear_in(0)
    if parts is None:
        assert 0 in a.variables
        return
    slope, rest = parts
    assert not {0} & (slope.variables | rest.variables)
    assert slope * var(0) + rest == a
    assert a.evaluate(sizes, at) == slope.evaluate(sizes, at) * at[0] + rest.evaluate(sizes, at)


@pytest.mark.parametrize("e", [var(0) * var(0), var(0) // 2, var(0) + (var(0) + 1) // s, var(0) * (var(0) // s)])
def test_what_is_not_linear_is_not_split(e):
    assert e.linear_in(0) is None
    assert e.slope(0) is None


@given(indices(SCOPE), SIZES, points(SCOPE))
def test_a_slope_is_the_difference_of_one_step(a, sizes, at):
    slope = a.slope(0)
    if slope is None:
        assert a.linear_in(0) is None or a.linear_in(0)[0].symbols or a.linear_in(0)[0].variables
    else:
        assert a.evaluate(sizes, (at[0] + 1, *at[1:])) - a.evaluate(sizes, at) == slope


def test_names_of_what_occurs_are_found_inside_floors():
    e = (n + var(3)) // (s * s + 1) + m * var(1)
    assert e.symbols == {"n", "s", "m"}
    assert e.variables == {1, 3}


@pytest.mark.parametrize(("numerator", "divisor", "value"), [(7, 2, 3), (-7, 2, -4), (-1, 5, -1), (6, 3, 2), (0, 4, 0)])
def test_floor_rounds_down(numerator, divisor, value):
    assert index(numerator) // divisor == index(value)
    assert (n // divisor).evaluate({"n": numerator}) == value


@pytest.mark.parametrize("divisor", [0, -1, -2])
def test_a_divisor_below_one_is_refused(divisor):
    for make in (lambda: n // divisor, lambda: index(7) // divisor, lambda: Quotient(n, index(divisor))):
        with pytest.raises(ValueError, match="divisors >= 1"):
            make()
    with pytest.raises(ValueError, match="divisors >= 1"):
        Divides(index(divisor), n)
    with pytest.raises(ValueError, match="divisors >= 1"):
        (7 // m).substitute({Sym("m"): index(divisor)}.get)
    with pytest.raises(ValueError, match="at least 1"):
        (n // m).evaluate({"n": 7, "m": divisor})
    with pytest.raises(ValueError, match="at least 1"):
        Divides(m, n).holds({"n": 7, "m": divisor})


@pytest.mark.parametrize("value", [True, 1.0, "n", None])
def test_an_index_is_made_from_integers_only(value):
    with pytest.raises(TypeError, match="an index is an integer"):
        index(value)
    with pytest.raises(TypeError, match="an index is an integer"):
        n + value


@pytest.mark.parametrize("name", ["$0", "quotient!0", "", "a b", "0n", "n*m"])
def test_a_size_is_named_by_an_identifier(name):
    with pytest.raises(ValueError, match="identifier"):
        symbol(name)


@pytest.mark.parametrize("level", [-1, True, 0.5, "0"])
def test_variables_are_counted_from_zero(level):
    with pytest.raises(ValueError, match="counted from 0"):
        var(level)


def test_a_variable_is_no_symbol_whatever_its_name():
    assert symbol("v0") != var(0)
    assert {symbol(name).text for name in ("_0", "v0", "x0", "quotient0")} & {var(0).text} == set()


@given(guards(SCOPE), SIZES, points(SCOPE))
def test_guards_hold_where_their_numbers_say_so(g, sizes, at):
    values = [e.evaluate(sizes, at) for e in g.indices()]
    match g:
        case NonNegative():
            expected = values[0] >= 0
        case Zero():
            expected = values[0] == 0
        case Divides():
            expected = values[1] % values[0] == 0
    assert g.holds(sizes, at) == expected
    assert constant_truth(g) in (None, expected)
    assert g.rebuild(lambda e: e) == g


@given(indices(SCOPE))
def test_an_equation_has_one_form(e):
    assert Zero(e) == Zero(-e)
    assert equal(e, 0) == equal(0, e)


@given(indices(0), indices(0), st.integers(-9, 9), SIZES)
def test_inside_is_a_half_open_interval(low, high, value, sizes):
    both = all(g.holds(sizes) for g in inside(value, interval(low, high)))
    assert both == (low.evaluate(sizes) <= value < high.evaluate(sizes))
    assert at_least(value, low).holds(sizes) == (value >= low.evaluate(sizes))


def test_a_subclass_of_a_guard_has_no_opinion_of_its_own():
    class Always(NonNegative):
        def holds(self, sizes, variables=()):
            return True

    with pytest.raises(TypeError, match="Always"):
        constant_truth(Always(index(-1)))


def test_variables_in_a_row():
    assert variables(2, 3) == (var(2), var(3), var(4))
