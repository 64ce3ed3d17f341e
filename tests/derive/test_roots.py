"""The convolution theorem with remainders: exact values for any numbers at all, and what remains of a root's powers."""

import random
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derive import roots
from derive.evaluate import RATIONALS, Evaluator, Table
from derive.indices import interval, variables
from derive.obligations import Refused
from derive.terms import Expr, expression, term

PRIME, ORDER = 13, 12
GENERATORS = {1: 1, 2: 12, 3: 3, 4: 5, 6: 4}  # of the n-th roots of 1 modulo 13


def test_what_the_theorem_says() -> None:
    theorem = roots.convolution_with_remainders()
    assert [g.text for g in theorem.facts] == ["n-1>=0"]
    assert (theorem.theory, theorem.conditions) == ("commutative ring", ())
    assert theorem.lhs == roots.transformed()
    assert theorem.rhs == roots.circular() + roots.remainders()
    assert theorem.binders == (interval(0, roots.IMAGES), interval(0, roots.OUTPUTS), roots.CELLS)


def drawn(n: int, batch: int, channels: int, seed: int, root: int | None) -> Evaluator:
    """Numbers for W, X and R: any integers, or the powers of a root modulo 13."""
    numbers = random.Random(seed)
    sizes = {"N": batch, "C": channels, "M": 2, "n": n}

    def power(m: int) -> int:
        return numbers.randint(-9, 9) if root is None else pow(root, m % ORDER, PRIME)

    given = {name: Table.full(((0, a), (0, channels), (0, n)), lambda *_: numbers.randint(-9, 9))
             for name, a in (("W", 2), ("X", batch))}  # fmt: skip
    return Evaluator(sizes, given | {"R": Table.full(((-n * n, 3 * n * n),), power)}, RATIONALS)


@settings(max_examples=20)
@given(st.integers(1, 5), st.integers(1, 2), st.integers(0, 2), st.integers(0, 99))
def test_both_sides_agree_for_any_numbers(n: int, batch: int, channels: int, seed: int) -> None:
    theorem, evaluator = roots.convolution_with_remainders(), drawn(n, batch, channels, seed, None)
    for at in product(range(batch), range(2), range(n)):
        assert evaluator.value(theorem.lhs, at) == evaluator.value(theorem.rhs, at)


@pytest.mark.parametrize("n", GENERATORS)
def test_nothing_remains_of_the_powers_of_a_root(n: int) -> None:
    evaluator = drawn(n, 1, 2, n, GENERATORS[n])
    for at in product(range(1), range(2), range(n)):
        circular = evaluator.value(roots.circular(), at)
        assert (evaluator.value(roots.transformed(), at) - circular) % PRIME == 0
        assert evaluator.value(roots.remainders(), at) % PRIME == 0
    for t in (roots.product(), roots.mean()):
        box = [range(int(lo.evaluate({"n": n})), int(hi.evaluate({"n": n}))) for lo, hi in t.box]
        read = term(t.rank, t[variables(0, t.rank)])
        assert all(evaluator.value(read, at) % PRIME == 0 for at in product(*box)), t.name


def without(e: Expr, k: int) -> Expr:
    """The sum without one of its terms."""
    return expression(e.depth, [m for i, m in enumerate(e.monomials) if i != k])


@pytest.mark.parametrize("k", range(4))
def test_no_term_can_be_left_out(k: int) -> None:
    whole = roots.circular() + roots.remainders()
    with pytest.raises(Refused):
        roots.proved(roots.transformed(), without(whole, k))


def test_the_correlation_is_not_what_is_left() -> None:
    b, o, k, _, c, a = variables(0, 6)
    over = [roots.CELLS, roots.DEPTH, roots.CELLS]
    wrong = term(3, roots.WEIGHT[o, c, a], roots.INPUT[b, c, roots._mod(k + a)], over=over)
    with pytest.raises(Refused):
        roots.proved(roots.transformed(), wrong + roots.remainders())
