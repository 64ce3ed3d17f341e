"""Elements of a prime field in NumPy's object arrays: a field, and the same functions that evaluate the stages."""

from fractions import Fraction
from operator import add, mul, sub, truediv
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen.field import Element, P, array, keyed
from derive.evaluate import Undefined, prime_field

NUMBERS = st.integers(-(2**70), 2**70)
K = keyed(7)


@given(NUMBERS, NUMBERS, NUMBERS)
def test_the_operations_are_those_of_the_integers_modulo_p(a: int, b: int, c: int) -> None:
    x, y, z = K(a), K(b), K(c)
    assert (x + y) * z == (a + b) * c
    assert x - y == a - b
    assert -x == -a
    assert x * (y + z) == x * y + x * z
    assert (x == y) == ((a - b) % P == 0)
    assert hash(K(a)) == hash(K(a + P))
    assert bool(x) == (a % P != 0)


@given(NUMBERS, NUMBERS)
def test_integers_mix_from_either_side(a: int, b: int) -> None:
    for other in (b, np.int64(b % 1000)):
        n = int(other)
        assert K(a) + other == other + K(a) == a + n
        assert K(a) * other == other * K(a) == a * n
        assert K(a) - other == a - n
        assert other - K(a) == n - a


@given(NUMBERS.filter(lambda a: a % P != 0), NUMBERS)
def test_division_is_the_true_inverse(a: int, b: int) -> None:
    assert K(b) / K(a) * K(a) == b
    assert 1 / K(a) * a == 1
    assert np.reciprocal(array(K, [a], (1,)))[0] * a == 1


def test_the_reciprocal_of_zero_is_undefined() -> None:
    with pytest.raises(Undefined, match="recip"):
        1 / K(P)


@given(st.lists(NUMBERS, min_size=2, max_size=5))
def test_order_is_that_of_the_representatives_nearest_zero(values: list[int]) -> None:
    key = prime_field(P).key
    largest = max(values, key=key)
    assert np.max(array(K, values, (len(values),))) == largest
    assert np.maximum(K(values[0]), K(values[1])) == max(values[:2], key=key)
    assert (K(values[0]) < K(values[1])) == (K(values[1]) > K(values[0])) == (key(values[0]) < key(values[1]))
    assert (K(values[0]) <= values[1]) == (values[1] >= K(values[0])) == (key(values[0]) <= key(values[1]))


@given(NUMBERS, st.sampled_from(["exp", "log", "tanh"]))
def test_functions_are_those_that_evaluate_the_stages(a: int, name: str) -> None:
    expected = prime_field(P, 7).functions[name](a)
    assert getattr(np, name)(array(K, [a], (1,)))[0] == expected
    assert getattr(K(a + P), name)() == expected
    assert getattr(keyed(8)(a), name)() != expected


@given(st.integers(-50, 50), st.integers(1, 50))
def test_rational_constants(p: int, q: int) -> None:
    assert K.ratio(p, q, "float32") * q == p
    assert K.ratio(p, q, None) == prime_field(P).rational(Fraction(p, q))


def test_matrix_products_and_reductions_of_object_arrays() -> None:
    a, b = array(K, range(-6, 6), (3, 4)), array(K, range(P - 4, P + 4), (4, 2))
    out = np.empty((3, 2), dtype=object)
    assert np.matmul(a, b, out=out) is out
    integers = np.arange(-6, 6).reshape(3, 4) @ np.arange(-4, 4).reshape(4, 2)
    assert np.array_equal(out, integers)
    assert np.array_equal(np.sum(a, axis=0), np.arange(-6, 6).reshape(3, 4).sum(axis=0))
    assert np.einsum("ab,ab->", a, a) == sum(n * n for n in range(-6, 6))
    assert np.array_equal(np.square(a), np.arange(-6, 6).reshape(3, 4) ** 2)


@pytest.mark.parametrize("other", [0.5, np.float64(0.5), np.float32(0.5), None, "1"])
def test_nothing_but_integers_mixes_with_elements(other: Any) -> None:
    for operation in (mul, add, sub, truediv):
        with pytest.raises(TypeError):
            operation(K(3), other)
        with pytest.raises(TypeError):
            operation(other, K(3))
    assert K(3) != "3"


def test_an_array_that_was_never_written_cannot_be_computed_with() -> None:
    with pytest.raises(TypeError):
        np.multiply(np.empty((2,), dtype=object), array(K, [1, 2], (2,)))
    assert Element(3) in np.zeros(1, dtype=object) + Element(3)
