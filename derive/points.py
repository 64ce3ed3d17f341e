"""The points of a Toom-Cook convolution: polynomials at them, and which of them amplify errors least.

A polynomial of degree below j is evaluated at the finite points and at infinity, where its value is the coefficient of
x^(j-1).  ``lagrange`` is the way back: row t holds the coefficients of the polynomial that is 1 at point t and 0 at the
others; for infinity that is the product of all x - p.

Small points are not enough for small errors.  What matters is by how much the three transforms together can blow up
values of size 1, and that number is minimised here over sets of small rational numbers.  Turning every point p into -p
or into 1/p (then 0 and infinity change places) does not change it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import combinations

Matrix = tuple[tuple[Fraction, ...], ...]

# In the order in which they are preferred where they do equally well.
_SMALL = "1 -1 1/2 -2 2 -1/2 3/2 -2/3 2/3 -3/2 1/3 -3 3 -1/3 1/4 -4"
SMALL_POINTS = tuple(map(Fraction, _SMALL.split()))


def powers(points: Sequence[Fraction], count: int) -> Matrix:
    """``p^0 .. p^(count-1)`` for each point, and for infinity ``0, .., 0, 1``.

    >>> [[int(x) for x in row] for row in powers([Fraction(2), Fraction(-1)], 3)]
    [[1, 2, 4], [1, -1, 1], [0, 0, 1]]
    """
    finite = tuple(tuple(p**k for k in range(count)) for p in points)
    return (*finite, tuple(Fraction(k == count - 1) for k in range(count)))


def lagrange(points: Sequence[Fraction]) -> Matrix:
    """The inverse of ``powers(points, len(points) + 1)``, transposed.

    >>> [[str(x) for x in row] for row in lagrange([Fraction(1), Fraction(-1)])]
    [['1/2', '1/2', '0'], ['1/2', '-1/2', '0'], ['-1', '0', '1']]
    """
    whole = _product(points)
    rows = []
    for k, p in enumerate(points):
        others = [*points[:k], *points[k + 1 :]]
        value = Fraction(1)
        for q in others:
            value *= p - q
        rows.append(tuple(c / value for c in (*_product(others), Fraction(0))))
    return (*rows, whole)


def _product(points: Iterable[Fraction]) -> tuple[Fraction, ...]:
    """The coefficients of the product of all x - p, lowest first."""
    found = [Fraction(1)]
    for p in points:
        found = [high - p * low for high, low in zip([Fraction(0), *found], [*found, Fraction(0)], strict=True)]
    return tuple(found)


def amplification(output: Matrix, kernel: Matrix, input: Matrix) -> Fraction:
    """The largest of ``Sum_t |A[i,t]| (Sum_a |G[t,a]|) (Sum_e |B[t,e]|)`` over i."""
    weights = [_size(g) * _size(b) for g, b in zip(kernel, input, strict=True)]
    return max(sum((abs(x) * w for x, w in zip(row, weights, strict=True)), Fraction(0)) for row in output)


def _size(row: Iterable[Fraction]) -> Fraction:
    return sum(map(abs, row), Fraction(0))


@lru_cache(maxsize=64)
def best_points(m: int, r: int) -> tuple[Fraction, ...]:
    """0 and the small rational numbers with which F(m, r) amplifies least, by size; of several sets the first one.

    Raises ValueError where it needs more points than there are small ones.

    >>> [str(p) for p in best_points(4, 3)]
    ['0', '1/2', '-1/2', '2', '-2']
    """
    count = m + r - 2
    if count > len(SMALL_POINTS) + 1:
        most = len(SMALL_POINTS) + 3
        raise ValueError(f"m={m}, r={r}: points are chosen for m + r <= {most}; the nearest m is {max(1, most - r)}")
    if count == 0:
        return ()
    sets = list(combinations(SMALL_POINTS, count - 1))
    rough = [_rough([0.0, *map(float, chosen)], m, r) for chosen in sets]
    least = min(rough)
    # Floating point only says which sets are worth an exact answer.
    close = [(Fraction(0), *s) for s, value in zip(sets, rough, strict=True) if value <= least * (1 + 1e-9)]
    best = min(close, key=lambda s: amplification(tuple(zip(*powers(s, m), strict=True)), powers(s, r), lagrange(s)))
    return tuple(sorted(best, key=lambda p: (abs(p), p < 0)))


def _rough(points: Sequence[float], m: int, r: int) -> float:
    """The amplification at these points in floating point."""
    weights = [sum(abs(p) ** a for a in range(r)) * _lagrange_size(points, k) for k, p in enumerate(points)]
    rows = [sum(abs(p) ** i * w for p, w in zip(points, weights, strict=True)) for i in range(m)]
    rows[-1] += sum(map(abs, _rough_product(points)))
    return max(rows)


def _lagrange_size(points: Sequence[float], k: int) -> float:
    others = [*points[:k], *points[k + 1 :]]
    value = 1.0
    for q in others:
        value *= abs(points[k] - q)
    return sum(map(abs, _rough_product(others))) / value


def _rough_product(points: Iterable[float]) -> list[float]:
    found = [1.0]
    for p in points:
        found = [high - p * low for high, low in zip([0.0, *found], [*found, 0.0], strict=True)]
    return found


__all__ = ["Matrix", "amplification", "best_points", "lagrange", "powers"]
