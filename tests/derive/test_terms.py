"""Terms against their meaning: canonical form, sums, products, and the replacing of variables, sizes and tensors.

What a term means is computed by ``tests.derive.meaning``, which shares nothing with the operations tested here.
"""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derive.indices import Divides, NonNegative, Zero, index, inside, interval, var
from derive.terms import (
    Apply,
    Derivative,
    Expr,
    Maximum,
    Monomial,
    Read,
    Substitution,
    constant,
    define,
    expression,
    instantiate,
    ranges,
    resized,
    shift,
    tensor,
    term,
    within,
    zero,
)
from derive.wellformed import check_scope
from tests.derive.drawing import SIZES, TENSORS, A, B, C, D, datum, expressions, indices, m, monomials, n, points, s
from tests.derive.meaning import Meaning, Undefined, add, times

SCOPE = 2
WORLDS = st.builds(lambda sizes, salt: Meaning(sizes, datum(salt)), SIZES, st.integers(0, 99))


def worth(world, e, at):
    """The value, or None where there is none."""
    try:
        return world.value(e, at)
    except (Undefined, ValueError):
        return None


# --- canonical form -----------------------------------------------------------------------------------------------


@given(st.lists(monomials(SCOPE, 2), max_size=4), st.randoms(use_true_random=False))
def test_order_does_not_matter(drawn, rng):
    """Monomials, guards and factors in any order, a guard twice, a monomial in two halves: one and the same object."""
    mixed = []
    for one in drawn:
        guards, factors = list(one.guards * 2), list(one.factors)
        rng.shuffle(guards)
        rng.shuffle(factors)
        half = replace(one, coefficient=one.coefficient / 2, guards=tuple(guards), factors=tuple(factors))
        mixed += [half, half]
    rng.shuffle(mixed)
    e, other = expression(SCOPE, drawn), expression(SCOPE, mixed)
    assert e == other
    assert hash(e) == hash(other)
    assert e.text == other.text


@given(expressions(SCOPE))
def test_canonical_form_is_stable(e):
    assert expression(e.depth, e.monomials) == e
    assert (e - e) == zero(SCOPE)
    assert shift(e, SCOPE) is e


@given(st.lists(monomials(SCOPE, 1), max_size=3), WORLDS, points(SCOPE))
@settings(max_examples=60)
def test_canonical_form_keeps_the_value(drawn, world, at):
    raw = Expr(SCOPE, tuple(drawn))
    before = worth(world, raw, at)
    if before is not None:
        assert worth(world, expression(SCOPE, drawn), at) == before


def test_plain_guards_are_decided():
    X = A[var(0)]
    assert term(1, X, guards=[NonNegative(index(-1))]) == zero(1)
    assert term(1, X, guards=[NonNegative(index(0)), Zero(n - n), Divides(index(3), index(-6))]) == term(1, X)
    assert term(1, X, coefficient=0) == zero(1)
    assert constant(2, 0) == zero(2)


def test_one_text_is_the_same_in_every_process():
    e = term(1, B[var(1), n - var(0)], Apply("exp", term(2, A[var(1)])), over=[interval(0, s)], guards=[Zero(var(0))])
    assert e.text == "Sum{0<=$1<s}[$0==0]*B[$1,-$0+n]*exp(A[$1])"


# --- sums and products --------------------------------------------------------------------------------------------


@given(expressions(SCOPE), expressions(SCOPE), WORLDS, points(SCOPE))
def test_sums_and_products_are_those_of_the_values(a, b, world, at):
    x, y = worth(world, a, at), worth(world, b, at)
    if x is None or y is None:
        return
    assert world.value(a + b, at) == add(x, y)
    assert world.value(a - b, at) == add(x, times(Fraction(-1), y))
    assert world.value(a * b, at) == times(x, y)
    assert world.value(a.scaled(Fraction(-2, 3)), at) == times(Fraction(-2, 3), x)


@given(monomials(1, 1), st.data(), WORLDS, points(1))
def test_within_multiplies_under_the_sum(outer, data, world, at):
    """``Sum f * inner`` for an inner expression that uses the sum's variables."""
    scope = 1 + len(outer.binders)
    inner = data.draw(expressions(scope, 1))
    product = expression(1, within(1, outer, inner))
    check_scope(product)
    try:
        total = Fraction(0)
        for point in world.points(outer.binders, at):
            if all(g.holds(world.sizes, point) for g in outer.guards):
                total = add(total, times(world.product(outer, point), world.value(inner, point)))
        assert world.value(product, at) == total
    except (Undefined, ValueError):
        return


@pytest.mark.parametrize("make", [lambda a, b: a + b, lambda a, b: a * b, lambda a, b: a - b])
def test_expressions_in_different_scopes_do_not_mix(make):
    with pytest.raises(ValueError, match="scopes of 1 and 2"):
        make(term(1, A[var(0)]), term(2, A[var(1)]))


# --- replacing ----------------------------------------------------------------------------------------------------


@given(expressions(SCOPE), st.lists(indices(3, 1), min_size=2, max_size=2), WORLDS, points(3))
def test_substituted_is_evaluated_there(e, put, world, at):
    """Free variables by indices in a larger scope: nothing bound inside is captured."""
    there = tuple(world.index(i, at) for i in put)
    before = worth(world, e, there)
    if before is None:
        return
    after = instantiate(e, put, 3)
    check_scope(after)
    assert world.value(after, at) == before


@given(expressions(SCOPE), WORLDS, points(4))
def test_a_larger_scope_changes_no_value(e, world, at):
    before = worth(world, e, at[:SCOPE])
    if before is not None:
        assert world.value(shift(e, 4), at) == before


@given(expressions(1), indices(0, 1), indices(0, 0), SIZES, points(1), st.integers(0, 99))
def test_sizes_are_replaced_everywhere(e, for_n, for_m, sizes, at, salt):
    """Also in boxes and bodies: as if the sizes had been those numbers all along."""
    put = {"n": for_n, "m": for_m}
    values = {**sizes, **{name: i.evaluate(sizes) for name, i in put.items()}}
    if not all(abs(v) < 9 for v in values.values()):
        return
    before = worth(Meaning(values, datum(salt)), e, at)
    if before is None:
        return
    after = Substitution(0, (), 0, put, lambda t: resized(t, put)).expr(e)
    assert Meaning(sizes, datum(salt)).value(after, at) == before


def test_substitution_does_not_capture():
    """Sum_k A[v - k] with v := w in a scope of one variable: the bound variable moves out of the way."""
    e = term(1, A[var(0) - var(1)], over=[interval(0, 3)])
    assert instantiate(e, [var(1) + 1], 2) == term(2, A[var(1) + 1 - var(2)], over=[interval(0, 3)])
    inner = term(1, Apply("relu", term(1, A[var(1) + var(0)], over=[interval(0, var(0))])))
    moved = term(3, Apply("relu", term(3, A[var(3) + var(2)], over=[interval(0, var(2))])))
    assert instantiate(inner, [var(2)], 3) == moved


def test_substitution_reaches_every_part():
    body = term(2, B[var(0), var(1)])
    parts = term(
        1,
        A[var(0)],
        Maximum((interval(0, var(0)),), (NonNegative(var(1)),), body),
        Derivative(term(1, A[var(0)]), A, (var(0),)),
        guards=[Divides(s, var(0))],
    )
    done = instantiate(parts, [n + 1], 0)
    assert not any(f"${0}" in f.text for f in done.monomials[0].factors if isinstance(f, (Read, Derivative)))
    expected = Maximum((interval(0, n + 1),), (NonNegative(var(0)),), term(1, B[n + 1, var(0)]))
    assert expected in done.monomials[0].factors
    assert done.monomials[0].guards == (Divides(s, n + 1),)


# --- tensors ------------------------------------------------------------------------------------------------------


def test_a_definition_is_part_of_the_identity():
    one, two = (define("W", [n], term(1, A[var(0) + k])) for k in (0, 1))
    assert one != two
    assert one != tensor("W", n)
    assert one == define("W", [n], term(1, A[var(0)]))
    assert {A, B} < D.reads_of_body
    assert term(0, D[0]).depends_on(A)
    assert not term(0, D[0]).depends_on(C)
    assert term(0, Derivative(constant(0, 1), D, (index(0),))).depends_on(B)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: tensor("X 1", 3), "identifier"),
        (lambda: tensor("X", (0, var(0))), "depends on a variable"),
        (lambda: define("X", [3], constant(0, 1)), "0 free variables and the box 1 axes"),
        (lambda: A[0, 1], "1 axes and was read with 2"),
        (lambda: Derivative(constant(0, 1), A, ()), "has 1 axes"),
        (lambda: Apply("sin", constant(0, 1)), "sin"),
        (lambda: instantiate(term(1, A[var(0)]), [], 0), "1 variables and was given 0"),
    ],
)
def test_malformed_terms_say_what_is_wrong(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize(
    "e",
    [
        Expr(0, (Monomial(Fraction(1), (), (), (A[var(0)],)),)),
        Expr(0, (Monomial(Fraction(1), (interval(0, var(0)),), (), ()),)),
        Expr(1, (Monomial(Fraction(1), (interval(0, 3),), (NonNegative(var(2)),), ()),)),
        term(0, Apply("exp", term(1, A[var(0)]))),
        term(0, Maximum((interval(0, 3),), (), constant(0, 1))),
        term(0, Derivative(term(1, A[var(0)]), C, ())),
        Expr(0, (Monomial(Fraction(1), (), (), (Maximum((interval(0, var(0)),), (), constant(1, 1)),)),)),
    ],
)
def test_an_unbound_variable_is_noticed(e):
    with pytest.raises(ValueError, match=r"not bound|stands in a scope"):
        check_scope(e)


@given(expressions(SCOPE))
def test_random_expressions_are_in_scope(e):
    check_scope(e)
    assert e.tensors <= set(TENSORS)


def test_boxes_are_guards():
    assert B[var(0), 2].in_box() == (*inside(var(0), interval(0, s)), *inside(2, interval(-1, n)))
    assert ranges([interval(0, n), interval(var(3), m)], 3) == (
        *inside(var(3), interval(0, n)),
        *inside(var(4), interval(var(3), m)),
    )


def test_resizing_goes_through_definitions():
    small = resized(D, {"m": index(2), "s": n})
    assert small.box == (interval(0, 2),)
    assert small.body == term(1, A[var(0) - var(1)], resized(B, {"s": n})[var(1), var(0)], over=[interval(0, n)])
