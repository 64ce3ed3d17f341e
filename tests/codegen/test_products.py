"""Matrix products by 64-bit integers: number for number those of elements, and what elements refuse is refused."""

from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from codegen.execution import Text
from codegen.field import Element, Objects, P, array, keyed
from codegen.loading import load
from codegen.products import BITS, LONGEST, NUMPY, matmul, multiplied

K = keyed(7)
ENTRIES = st.one_of(
    st.integers(-2, 2),
    st.integers(-(2**130), 2**130),
    st.sampled_from([P - 1, P, P + 1, 2**61, 2**BITS - 1, 2**BITS, 2 ** (2 * BITS) - 1, 2 ** (2 * BITS)]),
)


def _integer(x: Any) -> int:
    return int(x.value if isinstance(x, Element) else x)


def by_elements(a: Objects, b: Objects) -> list[int]:
    """The entries of a product of two matrices, one multiplication and one addition of elements after the other."""
    cells = []
    for i, j in product(range(a.shape[0]), range(b.shape[1])):
        total: Any = K(0)
        for k in range(a.shape[1]):
            total = total + K(_integer(a[i, k])) * K(_integer(b[k, j]))
        cells.append(total.value % P)
    return cells


def _small(n: int) -> np.int64:
    return np.int64(n % 1000)


@st.composite
def matrices(draw: st.DrawFn, rows: int, columns: int) -> Objects:
    """Elements, unreduced and negative ones too, with integers of Python and NumPy between them, in some layout."""
    count = rows * columns
    numbers = draw(st.lists(ENTRIES, min_size=count, max_size=count))
    kinds = draw(st.lists(st.sampled_from([K, K, int, _small]), min_size=count, max_size=count))
    made = np.empty((rows, columns), dtype=object)
    for at, n, kind in zip(np.ndindex(rows, columns), numbers, [K, *kinds[1:]], strict=False):
        made[at] = kind(n)
    layout = draw(st.sampled_from(["plain", "transposed", "reversed", "every other"]))
    if layout == "transposed":
        return np.ascontiguousarray(made.T).T
    if layout == "reversed":
        return np.ascontiguousarray(made[::-1, ::-1])[::-1, ::-1]
    if layout == "every other":
        wide = np.full((rows, 2 * columns), None, dtype=object)
        wide[:, ::2] = made
        return wide[:, ::2]
    return made


@given(st.data(), st.integers(0, 4), st.integers(0, 5), st.integers(0, 4))
def test_a_product_is_that_of_the_elements(data: st.DataObject, m: int, k: int, n: int) -> None:
    a, b = data.draw(matrices(m, k)), data.draw(matrices(k, n))
    held = np.full((n, m), None, dtype=object)
    assert matmul(a, b, out=held.T).base is held
    assert [_integer(x) for x in held.T.ravel()] == by_elements(a, b)
    assert np.array_equal(matmul(a, b), held.T)


@given(st.integers(1, 6000), st.sampled_from([P - 1, P - 2, 2**61 - 2 ** (2 * BITS) - 2, 2 ** (2 * BITS) - 1]))
@example(LONGEST, P - 1)
@example(LONGEST, 2**61 - 2)
def test_the_longest_sums_of_the_largest_limbs(count: int, number: int) -> None:
    row = np.full((1, count), number, dtype=np.int64)
    assert multiplied(row, row.T).tolist() == [[count * number**2 % P]]


def test_what_could_reach_two_to_the_63_is_refused() -> None:
    most = 3 * LONGEST * (2**BITS - 1) ** 2
    assert most < 2**63 <= most + 3 * (2**BITS - 1) ** 2
    row = np.ones((1, LONGEST + 1), dtype=np.int64)
    with pytest.raises(ValueError, match=f"{LONGEST + 1} terms in a sum; at most {LONGEST}"):
        multiplied(row, row.T)


@given(st.lists(st.integers(0, P - 1), min_size=12, max_size=12))
def test_stacks_and_vectors_are_multiplied_as_numpy_does(values: list[int]) -> None:
    stack, one = array(K, values, (2, 2, 3)), array(K, values[:6], (3, 2))
    for a, b in ((stack, one), (one, stack), (stack[0, 0], one), (one.T[0], one[:, 0]), (stack[:, :1], one)):
        expected = np.matmul(a, b)
        found = matmul(a, b)
        assert np.shape(found) == np.shape(expected)
        assert np.array_equal(found, expected)


def test_the_product_may_be_put_where_a_factor_lies() -> None:
    a = array(K, range(4), (2, 2))
    matmul(a, a, out=a)
    assert np.array_equal(a, [[2, 3], [6, 11]])


@pytest.mark.parametrize("entry", [None, 0.5, np.float64(1), np.float32(1), Fraction(1, 2), "1", 1j])
def test_what_is_neither_an_element_nor_an_integer_is_refused(entry: Any) -> None:
    a = array(K, range(4), (2, 2))
    b = a.copy()
    b[1, 0] = entry
    for pair in ((a, b), (b, a)):
        with pytest.raises(TypeError, match=r"matmul: .*not (NoneType|float|float64|float32|Fraction|str|complex)"):
            matmul(*pair)


def test_numbers_of_two_fields_are_refused() -> None:
    with pytest.raises(TypeError, match="2 fields"):
        matmul(array(K, [1], (1, 1)), array(keyed(8), [1], (1, 1)))


@pytest.mark.parametrize("shape", [(2, 1), (1, 2), (2, 2, 2), (1, 2, 2), ()])
def test_a_product_fits_where_it_is_put(shape: tuple[int, ...]) -> None:
    a = array(K, range(4), (2, 2))
    with pytest.raises(ValueError, match="matmul: out has the shape"):
        matmul(a, a, out=np.zeros(shape, dtype=object))


def test_elements_are_put_in_no_array_of_numbers() -> None:
    a = array(K, range(4), (2, 2))
    for dtype in ("float32", "int64"):
        with pytest.raises(TypeError):
            matmul(a, a, out=np.zeros((2, 2), dtype))


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="mismatch"):
        matmul(array(K, range(4), (2, 2)), array(K, range(3), (3, 1)))


def test_arrays_without_elements_are_left_to_numpy() -> None:
    halves = np.array([[Fraction(1, 2), 2]], dtype=object)
    assert matmul(halves, halves.T).tolist() == [[Fraction(17, 4)]]
    floats = np.full((2, 2), 0.5, np.float32)
    assert matmul(floats, floats, out=floats) is floats
    with pytest.raises(TypeError):
        matmul(np.empty((1, 1), dtype=object), np.ones((1, 1), dtype=object))


def test_a_text_gets_them_only_where_its_constants_are_replaced() -> None:
    source = "import numpy as np\n"
    plain, exact = Text(source, load).module(), Text(source, load, K.ratio).module()
    assert plain.np is np
    assert exact.np is NUMPY
    assert exact.np.lib is np.lib
    assert "np" not in vars(Text("", load, K.ratio).module())
