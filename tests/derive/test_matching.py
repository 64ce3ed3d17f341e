"""Reordering sums until two sides agree: any order of nested sums is found, and what differs otherwise is refused."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from derive import kernel
from derive.indices import Index, Interval, at_least, equal, index, symbol, var, variables
from derive.kernel import Theorem
from derive.matching import match
from derive.obligations import Refused
from derive.terms import Apply, Expr, Tensor, tensor, term

n, k = symbol("n"), symbol("k")
FACTS = (at_least(n, 1), at_least(k, 1))
ROWS: Interval = (index(0), n)
WINDOW: Interval = (index(0), k)
A, B, C = tensor("A", n, n, n), tensor("B", n, n), tensor("C", n, n, n)
INTERVALS = st.sampled_from([ROWS, WINDOW])


def begun(e: Expr, over: tuple[Interval, ...] = ()) -> Theorem:
    return kernel.begin(e, facts=FACTS, over=over)


def placed(start: int, order: tuple[int, ...]) -> list[Index]:
    """Where each variable went that is bound in this order."""
    return [var(start + order.index(v)) for v in range(len(order))]


def nested(outer: tuple[int, ...], inner: tuple[int, ...], kinds: tuple[Interval, ...], guarded: bool) -> Expr:
    """Two sums, the first of a product with a function of another sum, whose variables are bound in these orders."""
    i, j, h = placed(1, outer)
    a, b = placed(4, inner)
    x = var(0)
    outside, inside = kinds[:3], kinds[3:]
    argument = term(4, C[i, a, b], B[j, a], over=[inside[v] for v in inner]) + term(4, B[h, x])
    first = term(
        1, A[x, i, j], B[h, i], Apply("exp", argument),
        over=[outside[v] for v in outer], guards=[at_least(i + j, h)] if guarded else [], coefficient=Fraction(2, 3),
    )  # fmt: skip
    i, j, h = placed(1, outer)
    return first + term(1, A[h, i, j], over=[outside[v] for v in outer])


ORDERS = [st.sampled_from(list(itertools.permutations(range(size)))) for size in (3, 2)]


@given(st.tuples(*[INTERVALS] * 5), *ORDERS, *ORDERS, st.booleans())
def test_any_order_of_nested_sums_is_found(
    kinds: tuple[Interval, ...],
    outer: tuple[int, ...],
    inner: tuple[int, ...],
    wanted_outer: tuple[int, ...],
    wanted_inner: tuple[int, ...],
    guarded: bool,
) -> None:
    target = nested(wanted_outer, wanted_inner, kinds, guarded)
    found = match(begun(nested(outer, inner, kinds, guarded), (ROWS,)), target)
    assert found.rhs == target
    assert found.lhs == nested(outer, inner, kinds, guarded)
    assert found.facts == FACTS


@given(st.tuples(*[INTERVALS] * 3), *[st.permutations(range(3))] * 2)
def test_variables_that_only_functions_speak_of_are_told_apart(
    kinds: tuple[Interval, ...], here: list[int], there: list[int]
) -> None:
    def summed(order: list[int]) -> Expr:
        at = placed(0, tuple(order))
        return term(0, Apply("tanh", term(3, A[at[0], at[1], at[2]])), over=[kinds[v] for v in order])

    assert match(begun(summed(here)), summed(there)).rhs == summed(there)


def test_two_functions_bind_one_order() -> None:
    def summed(i: Index, j: Index) -> Expr:
        functions = Apply("tanh", term(2, B[i, j])), Apply("tanh", term(2, A[i, i, j]))
        return term(0, *functions, over=[ROWS, ROWS])

    i, j = variables(0, 2)
    assert match(begun(summed(i, j)), summed(j, i)).rhs == summed(j, i)


def test_a_function_in_a_function_is_reached() -> None:
    def deep(i: Index, j: Index) -> Expr:
        inner = term(0, Apply("exp", term(2, B[i, j])), over=[ROWS, ROWS])
        return term(0, Apply("log", inner))

    i, j = variables(0, 2)
    assert match(begun(deep(i, j)), deep(j, i)).rhs == deep(j, i)


def differing() -> dict[str, tuple[Expr, Expr]]:
    i, j, h = variables(0, 3)
    both = term(0, B[i, j], A[i, i, j], over=[ROWS, WINDOW])
    return {
        "one index transposed": (both, term(0, B[j, i], A[i, i, j], over=[ROWS, WINDOW])),
        "another coefficient": (both, both.scaled(2)),
        "another tensor": (term(0, B[i, j], over=[ROWS, ROWS]), term(0, _other(B)[i, j], over=[ROWS, ROWS])),
        "another interval": (term(0, B[i, j], over=[ROWS, WINDOW]), term(0, B[i, j], over=[ROWS, ROWS])),
        "a guard more": (term(0, B[i, j], over=[ROWS, ROWS]),
                         term(0, B[i, j], over=[ROWS, ROWS], guards=[equal(i, j)])),
        "a monomial more": (both, both + term(0, B[i, i], over=[ROWS])),
        "a monomial less": (both + term(0, B[i, i], over=[ROWS]), both),
        "another function": (term(0, Apply("exp", both)), term(0, Apply("tanh", both))),
        "another argument": (term(0, Apply("exp", both)), term(0, Apply("exp", both.scaled(2)))),
        "swapped in one function only": (
            term(0, Apply("exp", term(2, B[i, j])), Apply("log", term(2, B[i, j])), over=[ROWS, ROWS]),
            term(0, Apply("exp", term(2, B[i, j])), Apply("log", term(2, B[j, i])), over=[ROWS, ROWS]),
        ),
        "a sum less": (term(0, A[i, j, h], over=[ROWS, ROWS, ROWS]), term(0, A[i, j, j], over=[ROWS, ROWS])),
    }  # fmt: skip


def _other(t: Tensor) -> Tensor:
    return Tensor("D", t.box)


@pytest.mark.parametrize("what", differing())
def test_sides_that_differ_are_refused(what: str) -> None:
    here, there = differing()[what]
    with pytest.raises(Refused, match=r"the two sides do not agree: .* has no counterpart; the other side still has"):
        match(begun(here), there)


def test_the_message_shows_what_has_no_counterpart() -> None:
    i, j = variables(0, 2)
    here = term(0, B[i, j], over=[ROWS, ROWS]) + term(0, A[i, i, j], over=[ROWS, ROWS])
    there = term(0, B[j, i], over=[ROWS, ROWS]) + term(0, A[i, j, j], over=[ROWS, ROWS]).scaled(3)
    with pytest.raises(Refused) as refusal:
        match(begun(here), there)
    assert "Sum{0<=$0<n,0<=$1<n}*A[$0,$0,$1] has no counterpart" in str(refusal.value)
    assert "the other side still has 3*Sum{0<=$0<n,0<=$1<n}*A[$0,$1,$1]" in str(refusal.value)


@given(st.permutations(range(3)), st.permutations(range(3)), st.integers(0, 2), st.integers(0, 2))
def test_a_wrong_index_is_never_matched(here: list[int], there: list[int], place: int, instead: int) -> None:
    """One index of a read replaced by another of the three variables: never the same sum."""
    assume(place != instead)

    def summed(order: list[int], wrong: bool) -> Expr:
        at = placed(0, tuple(order))
        read = [*at]
        if wrong:
            read[place] = at[instead]
        return term(0, A[tuple(read)], C[tuple(at)], over=[ROWS] * 3)

    assert match(begun(summed(here, False)), summed(there, False)).rhs == summed(there, False)
    with pytest.raises(Refused):
        match(begun(summed(here, False)), summed(there, True))
