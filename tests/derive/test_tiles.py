"""Tiles put together: ``h == m j + i`` solved for the tile and the cell in it, by exact evaluation of both sides.

The kernel makes every step, so what is tested is that the steps arrive where they should: sums over tiles are gone,
and the value is the same at drawn sizes.  What is no equation of a tile and its cells is left as it is.
"""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derive import kernel
from derive.evaluate import RATIONALS, Evaluator, Table
from derive.indices import Guard, Index, IndexLike, Interval, at_least, equal, index, interval, symbol, var, variables
from derive.kernel import Theorem
from derive.obligations import Refused
from derive.terms import Expr, Tensor, define, tensor, term
from derive.tiles import flipped, gathered, joined

N, T = symbol("n"), symbol("T")
H, I, J = variables(0, 3)  # noqa: E741 - the letters of the plans


def tiles(m: int, count: IndexLike, *more: IndexLike) -> Tensor:
    """The cells of tiles, ``Y[i, j, ..]``."""
    return tensor("Y", m, count, *more)


def put(y: Tensor, guard: Guard, over: list[Interval] | None = None) -> Expr:
    """``Sum_{i,j} [guard] Y[i,j]``."""
    return term(1, y[I, J], over=y.box if over is None else over, guards=[guard])


def same(theorem: Theorem, y: Tensor, sizes: dict[str, int], seed: int) -> None:
    """Both sides of a theorem have one value everywhere."""
    rng = random.Random(seed)
    ends = [tuple(_value(e, sizes) for e in bounds) for bounds in y.box]
    count = 1
    for low, high in ends:
        count *= max(high - low, 0)
    table = Table(tuple((low, max(low, high)) for low, high in ends), [rng.randint(-99, 99) for _ in range(count)])
    values = Evaluator(sizes, {"Y": table}, RATIONALS)
    left, right = (values.table(define("S", list(theorem.binders), side)) for side in (theorem.lhs, theorem.rhs))
    assert left.values == right.values


def _value(e: Index, sizes: dict[str, int]) -> int:
    table = Evaluator(sizes, {}, RATIONALS).table(define("S", [e], term(1)))
    ((_, high),) = table.box
    return high


@settings(max_examples=60)
@given(
    m=st.integers(2, 4), n=st.integers(0, 13), missing=st.integers(-1, 2), turned=st.booleans(),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_tiles_are_put_together_on_one_axis(m: int, n: int, missing: int, turned: bool, seed: int) -> None:
    """As many tiles as the axis needs, one more, or too few: then cells beyond the last tile are zero."""
    y = tiles(m, T)
    guard = equal(m * J + I, H) if turned else equal(H, m * J + I)
    theorem = gathered(kernel.begin(put(y, guard), facts=[at_least(T, 0)], over=[interval(0, N)]))
    assert not any(monomial.binders for monomial in theorem.rhs.monomials)
    same(theorem, y, {"n": n, "T": max(0, -(-n // m) - missing)}, seed)


def test_the_cell_and_its_tile_are_read_off() -> None:
    y = tiles(3, (N + 2) // 3)
    theorem = gathered(kernel.begin(put(y, equal(H, 3 * J + I)), over=[interval(0, N)]))
    assert theorem.rhs.text == "Y[$0-3*(($0)//(3)),(($0)//(3))]"
    assert theorem.lhs == put(y, equal(H, 3 * J + I))


@settings(max_examples=25)
@given(
    sides=st.tuples(st.integers(2, 3), st.integers(2, 3)), sizes=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    first=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_tiles_are_put_together_on_two_axes(
    sides: tuple[int, int], sizes: tuple[int, int], first: bool, seed: int
) -> None:
    """Cells of both axes, then tiles of both, as plans have them, or axis by axis."""
    k = symbol("k")
    counts = [(size + m - 1) // m for size, m in zip((N, k), sides, strict=True)]
    y = tensor("Y", *sides, *counts) if first else tensor("Y", sides[0], counts[0], sides[1], counts[1])
    h, at = variables(0, 2), variables(2, 4)
    pairs = [(0, 2), (1, 3)] if first else [(0, 1), (2, 3)]
    guards = [equal(h[axis], sides[axis] * at[j] + at[i]) for axis, (i, j) in enumerate(pairs)]
    body = term(2, y[at], over=y.box, guards=guards)
    theorem = gathered(kernel.begin(body, over=[interval(0, N), interval(0, k)]))
    assert not any(monomial.binders for monomial in theorem.rhs.monomials)
    same(theorem, y, {"n": sizes[0], "k": sizes[1]}, seed)


@settings(max_examples=30)
@given(m=st.integers(2, 4), shift=st.integers(-4, 4), n=st.integers(0, 9), seed=st.integers(0, 99))
def test_an_offset_moves_the_tiles(m: int, shift: int, n: int, seed: int) -> None:
    """``h == m j + i + shift``: the tile of ``h - shift``, which may be none."""
    y = tiles(m, T)
    theorem = gathered(kernel.begin(put(y, equal(H, m * J + I + shift)), facts=[at_least(T, 0)], over=[interval(0, N)]))
    assert not any(monomial.binders for monomial in theorem.rhs.monomials)
    for count in range(4):
        same(theorem, y, {"n": n, "T": count}, seed)


def test_what_else_is_summed_stays() -> None:
    y, x = tiles(2, T), tensor("X", 3)
    body = term(1, y[I, J], x[var(3)], over=[*y.box, *x.box], guards=[equal(H, 2 * J + I)])
    theorem = gathered(kernel.begin(body, facts=[at_least(T, 0)], over=[interval(0, N)]))
    ((monomial,),) = (theorem.rhs.monomials,)
    assert [high.constant for _, high in monomial.binders] == [3]


S = symbol("s")
OTHERS: dict[str, Expr] = {
    "tiles overlap": put(tiles(4, T), equal(H, 3 * J + I)),
    "tiles leave gaps": put(tiles(3, T), equal(H, 4 * J + I)),
    "cells two apart": put(tiles(2, T), equal(H, 2 * J + 2 * I)),
    "tiles run backwards": put(tiles(2, T), equal(H, -2 * J + I)),
    "an inequality": put(tiles(2, T), at_least(H, 2 * J + I)),
    "cells from one on": put(tiles(2, T), equal(H, 2 * J + I), over=[interval(1, 3), interval(0, T)]),
    "tiles from one on": put(tiles(2, T), equal(H, 2 * J + I), over=[interval(0, 2), interval(1, T)]),
    "as many cells as a symbol says": term(
        1, tensor("Y", S, T)[I, J], over=[(index(0), S), (index(0), T)], guards=[equal(H, S * J + I)]
    ),
    "tiles of one cell": put(tiles(1, T), equal(H, J + I)),
    "no sum at all": term(1, tensor("Y", N)[H]),
}


@pytest.mark.parametrize("body", OTHERS.values(), ids=list(OTHERS))
def test_what_is_no_equation_of_a_tile_is_left_alone(body: Expr) -> None:
    theorem = kernel.begin(body, facts=[at_least(T, 0), at_least(S, 1)], over=[interval(0, N)])
    assert gathered(theorem) == theorem


# --- sums taken in another order ----------------------------------------------------------------------------------


def test_joined_refuses_cells_that_are_not_zero():
    n = symbol("n")
    x = tensor("X", 100)
    tiles = term(0, x[4 * var(0) + var(1)], over=[interval(0, (n + 3) // 4), interval(0, 4)])
    with pytest.raises(Refused, match="reguard"):
        joined(kernel.begin(tiles, facts=[]), (0,), (0, 1), n)


def test_joined_and_flipped_refuse_what_is_no_pair_of_tiles():
    n = symbol("n")
    sums = kernel.begin(term(0, tensor("X", n)[n * var(0) + var(1)], over=[interval(0, 2), interval(0, n)]))
    for pair in ((0, 0), (0, 2), (0, 1)):
        with pytest.raises(Refused, match="pair="):
            joined(sums, (0,), pair, n)
    with pytest.raises(Refused, match="variable=2"):
        flipped(sums, (0,), 2)


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(0, 14), st.integers(0, 9))
def test_joined_and_flipped_keep_the_value(m: int, n: int, shift: int):
    size, x = symbol("n"), tensor("X", symbol("n"))
    y = tensor("Z", 9)
    read = m * var(0) + var(1)
    tiles = term(0, x[read], y[read - shift], over=[interval(0, (size + m - 1) // m), interval(0, m)])
    theorem = flipped(joined(kernel.begin(tiles), (0,), (0, 1), size), (0,), 0)
    assert theorem.rhs.text == f"Sum{{0<=$0<n}}*X[-$0+n-1]*Z[-$0+n-{shift + 1}]"
    values = Evaluator({"n": n}, {t.name: drawn(t, n) for t in (x, y)}, RATIONALS)
    assert values.value(theorem.lhs, ()) == values.value(theorem.rhs, ())


def drawn(t: Tensor, n: int) -> Table:
    rng = random.Random(n)
    return Table.full(tuple((0, _value(high, {"n": n})) for _, high in t.box), lambda *_: rng.randint(-9, 9))
