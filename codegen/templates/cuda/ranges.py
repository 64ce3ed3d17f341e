"""Bounds on indices by interval arithmetic over the ranges of their variables.

A test that always holds by these bounds is left out of a text, and a number that is sure to be small is an ``int``.
Sizes are numbers; the batch size is at least 0 and has no largest value.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from derive.indices import Atom, Index, Interval, Quotient, Sym

Range = tuple[float, float]


def range_of(e: Index, intervals: Sequence[Interval]) -> Range:
    """Bounds on an index, both included; a remainder is known to be one.

    >>> from derive.indices import interval, var
    >>> range_of(2 * var(0) - var(1), [interval(0, 5), interval(1, 3)])
    (-2.0, 7.0)
    >>> range_of(var(0) - 4 * (var(0) // 4), [interval(0, 100)])
    (0.0, 3.0)
    """
    low, high = _sum(e, intervals)
    for product, coefficient in e.terms:
        if len(product) == 1 and isinstance(product[0], Quotient):
            within = _with_remainder(e, product[0], coefficient, intervals)
            low, high = max(low, within[0]), min(high, within[1])
    return low, high


def _with_remainder(e: Index, atom: Quotient, coefficient: int, intervals: Sequence[Interval]) -> Range:
    """Bounds on ``e`` as a rest and a multiple of ``x - m (x // m)``, for a multiple of m before ``x // m``."""
    by = atom.denominator.constant
    if by is None or coefficient % by:
        return (-inf, inf)
    times = -coefficient // by
    low, high = _sum(e - (atom.numerator - by * Index((((atom,), 1),))) * times, intervals)
    return low + min(0, times * (by - 1)), high + max(0, times * (by - 1))


def _sum(e: Index, intervals: Sequence[Interval]) -> Range:
    low, high = 0.0, 0.0
    for product, coefficient in e.terms:
        part: Range = (coefficient, coefficient)
        for atom in product:
            part = _times(part, _atom(atom, intervals))
        low, high = low + part[0], high + part[1]
    return low, high


def _atom(atom: Atom, intervals: Sequence[Interval]) -> Range:
    if isinstance(atom, Sym):
        return (0.0, inf)
    if isinstance(atom, Quotient):
        low, high = range_of(atom.numerator, intervals)
        by = atom.denominator.constant
        return (low, high) if by is None else (_floor(low, by), _floor(high, by))
    first, end = intervals[atom.level]
    return range_of(first, intervals)[0], range_of(end, intervals)[1] - 1


def _times(a: Range, b: Range) -> Range:
    ends = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
    return min(ends), max(ends)


def _floor(value: float, by: int) -> float:
    return value if abs(value) == inf else float(int(value) // by)
