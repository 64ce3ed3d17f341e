"""Output sizes: the formula is the number of windows, as a theorem and counted one by one."""

import pytest
import sympy
from hypothesis import assume, given
from hypothesis import strategies as st

import derive
from derive import kernel, shapes
from derive.indices import NonNegative, at_least, equal, interval, symbols
from derive.legality import LayerError, window
from derive.rules import Reguard
from derive.terms import constant, term
from tests.derive.brute import value


@st.composite
def rows(draw: st.DrawFn) -> tuple[int, int, int, int, int, int]:
    """n, k, s, d, pl, pr; strides that leave a remainder, s != d and even kernels are the rule, not the exception."""
    k, d = draw(st.sampled_from([1, 2, 2, 3, 4])), draw(st.integers(1, 4))
    s = draw(st.integers(1, 5).filter(lambda s: s != d) | st.integers(1, 5))
    pl, pr = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    positions, remainder = draw(st.integers(-2, 4)), draw(st.sampled_from([s - 1, s // 2, 0]))
    n = positions * s + remainder - pl - pr + d * (k - 1) + 1
    assume(n >= 1)
    return n, k, s, d, pl, pr


def counted(n: int, k: int, s: int, d: int, pl: int, pr: int) -> int:
    """Slide the window over the padded row and count where it fits."""
    count, start = 0, 0
    while start + d * (k - 1) < n + pl + pr:
        count, start = count + 1, start + s
    return count


@given(rows())
def test_the_formula_counts_windows(row: tuple[int, int, int, int, int, int]) -> None:
    assert shapes.window_positions(*row) == counted(*row)


@given(rows())
def test_the_theorem_means_what_it_says(row: tuple[int, int, int, int, int, int]) -> None:
    theorem = shapes.window_count()
    sizes = dict(zip(("n", "k", "s", "d", "pl", "pr"), row, strict=True))
    assert all(f.holds(sizes) for f in theorem.facts)
    assert value(theorem.lhs, sizes) == value(theorem.rhs, sizes) == counted(*row)


@given(rows(), st.integers(-3, 9))
def test_a_layer_admits_one_output_size(row: tuple[int, int, int, int, int, int], o: int) -> None:
    n, k, _, d, pl, pr = row
    w = window(*symbols("n k s d pl pr"))
    sizes = dict(zip(("n", "k", "s", "d", "pl", "pr", "o0"), (*row, o), strict=True))
    admitted = all(c.guard.holds(sizes) for c in w.conditions())
    assert admitted == (o == counted(*row) and o >= 1)
    if admitted:
        assert all(f.holds(sizes) for f in shapes.output_count().facts)
        assert value(shapes.output_unique().rhs, sizes) == 1
    assert w.last.evaluate(sizes) == n + pl + pr - d * (k - 1) - 1


def test_every_size_theorem_is_for_all_sizes() -> None:
    count, output = shapes.window_count(), shapes.output_count()
    assert [f.text for f in count.facts] == ["n-1>=0", "k-1>=0", "s-1>=0", "d-1>=0", "pl>=0", "pr>=0"]
    assert output.lhs == count.lhs
    assert output.rhs == term(0, over=[interval(0, symbols("o0")[0])])
    assert shapes.output_exists().lhs == constant(0, 1)
    assert [len(m.guards) for m in shapes.output_exists().rhs.monomials] == [3]


def test_wrong_size_formulas_are_refused() -> None:
    w = window(*symbols("n k s d pl pr"))
    start = kernel.begin(constant(0, 1), facts=[c.guard for c in w.conditions()])
    wrong = [w.last // w.stride, (w.last - 1) // w.stride + 1, (w.padded - w.dilation * w.kernel - 1) // w.stride + 1]
    for formula in wrong:
        with pytest.raises(kernel.Refused):
            kernel.rewrite(start, (0,), Reguard((), (equal(w.output, formula),)))


def test_division_that_truncates_is_wrong_for_negative_last_positions() -> None:
    n, k, s = 3, 5, 4  # L = -2, and -s < L < 0
    assert int((n - k) / s) + 1 == 1
    assert (n - k) // s + 1 == 0 == shapes.window_positions(n, k, s) == counted(n, k, s, 1, 0, 0)
    assert (1 - k) // 1 + 1 == -3  # and without the maximum a size is negative
    assert shapes.window_positions(1, k) == 0


@given(rows())
def test_symbols_and_numbers_agree(row: tuple[int, int, int, int, int, int]) -> None:
    names = ("n", "k", "s", "d", "pl", "pr")
    formula = shapes.window_positions(*names)
    numbers = {sympy.Symbol(name, integer=True): size for name, size in zip(names, row, strict=True)}
    assert formula.subs(numbers) == counted(*row)
    n, k, s, d, p, _ = row
    assume(counted(n, k, s, d, p, p) >= 1)
    layer = derive.Conv1d(1, 2, k, stride=s, padding=p, dilation=d)
    (_, _, symbolic) = derive.output_shape(layer, (4, 1, "n"))
    assert derive.output_shape(layer, (4, 1, n)) == (4, 2, symbolic.subs(sympy.Symbol("n", integer=True), n))


def test_shapes_of_a_network() -> None:
    net = derive.lenet()
    assert derive.output_shape(net, (8, 1, 28, 28)) == (8, 10)
    batch = sympy.Symbol("batch")
    assert derive.output_shape(net, (batch, 1, 28, 28)) == (batch, 10)
    h = sympy.Symbol("h", positive=True)
    _, _, rows_, columns = derive.output_shape(derive.Sequential(*net.layers[:6]), ("N", 1, 2 * h + 4, 4 * h**2))
    assert rows_.free_symbols == {h}
    assert (rows_.subs(h, 12), columns.subs(h, 3)) == (5, 7)
    for size in (28, 33):
        last = derive.output_shape(derive.Sequential(*net.layers[:6]), (1, 1, 2 * 14 + 4, size))[3]
        assert last == ((size // 2) - 4) // 2


def test_an_output_shape_is_an_input_shape() -> None:
    """Layer by layer and all at once are the same."""
    first, second = derive.Conv1d(1, 1, 2, stride=3), derive.Conv1d(1, 1, 4, stride=2, padding=1)
    once = derive.output_shape(derive.Sequential(first, second), ("N", 1, "n"))
    assert derive.output_shape(second, derive.output_shape(first, ("N", 1, "n"))) == once


def test_an_integer_of_sympy_is_a_number() -> None:
    assert derive.output_shape(derive.Conv1d(1, 2, 3), (1, 1, sympy.Integer(7))) == (1, 2, 5)


BAD = [
    ((1, 1, 1.5), "input_shape=1.5: a dimension is an integer or a size symbol, not float"),
    ((1, 1, "2n"), "input_shape='2n': a size symbol is named by an identifier"),
    ((1, 1, sympy.Symbol("n") / 2), "input_shape=n/2: a size is a polynomial in symbols with integer coefficients"),
    (
        (sympy.Symbol("n"), 1, sympy.Symbol("n", positive=True)),
        "two different SymPy symbols have one name",
    ),
    ((1, 1, 2), "input size=2 is not legal: no window fits on spatial axis 0"),
]


@pytest.mark.parametrize(("shape", "text"), BAD)
def test_a_bad_shape_is_explained(shape: tuple[object, ...], text: str) -> None:
    with pytest.raises(LayerError) as error:
        derive.output_shape(derive.Conv1d(1, 2, 3), shape)
    assert text in str(error.value)


def test_an_error_in_a_network_names_the_layer() -> None:
    with pytest.raises(LayerError, match=r"layer 3 of 12, Conv2d\(.*the nearest legal value is 5"):
        derive.output_shape(derive.lenet(), ("N", 1, 6, 28))
    with pytest.raises(LayerError, match=r"window_positions: stride=0 is not legal"):
        shapes.window_positions(5, 3, s=0)


def test_a_stride_has_to_be_positive() -> None:
    """Without that fact the formula divides by what may be zero, and no theorem is made."""
    w = window(*symbols("n k s d pl pr"))
    facts = [NonNegative(g.e) for g in (at_least(w.size, 1), at_least(w.kernel, 1), at_least(w.dilation, 1))]
    with pytest.raises(kernel.Refused, match="divisor"):
        kernel.begin(term(0, over=[interval(0, w.positions)]), facts=facts)
