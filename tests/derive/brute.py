"""The meaning of an expression, by brute force: loops over every sum, with nothing taken from the rules.

Free tensors hold numbers that depend on their name and index only; outside its box every tensor is zero.
"""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from zlib import crc32

from derive.indices import Interval
from derive.terms import Expr, Read, Tensor

Sizes = Mapping[str, int]
Point = tuple[int, ...]


def datum(name: str, at: Point) -> int:
    """A small integer that depends on name and index, the same on every run."""
    return crc32(f"{name}{at}".encode()) % 19 - 9


def points(box: tuple[Interval, ...], sizes: Sizes, start: Point = ()) -> Iterator[Point]:
    """Every choice of the variables, whose intervals may depend on those before."""
    if not box:
        yield start
        return
    low, high = (e.evaluate(sizes, start) for e in box[0])
    for value in range(low, high):
        yield from points(box[1:], sizes, (*start, value))


def element(t: Tensor, at: Point, sizes: Sizes) -> Fraction:
    """What a tensor holds there."""
    inside = all(lo.evaluate(sizes) <= e < hi.evaluate(sizes) for e, (lo, hi) in zip(at, t.box, strict=True))
    if not inside:
        return Fraction(0)
    return Fraction(datum(t.name, at)) if t.body is None else value(t.body, sizes, at)


def value(e: Expr, sizes: Sizes, at: Point = ()) -> Fraction:
    """What an expression of sums and products of reads is worth."""
    total = Fraction(0)
    for m in e.monomials:
        for point in points(m.binders, sizes, at):
            if all(g.holds(sizes, point) for g in m.guards):
                product = m.coefficient
                for f in m.factors:
                    assert isinstance(f, Read)
                    product *= element(f.tensor, tuple(i.evaluate(sizes, point) for i in f.at), sizes)
                total += product
    return total
