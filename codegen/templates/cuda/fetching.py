"""How a factor of a product is fetched: along which of its axes, and how many neighbours in memory at a time.

Neighbouring threads fetch neighbours in memory, terms of the sum or rows (columns), whichever lie there side by side.
Several of them can be one access of up to 16 bytes, where the index arithmetic says that this is always right.  A place
in the array of W[n,c,a] is ``n * 576 + c * 9 + a``, and terms are counted ``k = c * 9 + a``: the innermost variables
move the place as they move the count, so a *run* of 576 terms lies side by side.  A group of V of them, from a multiple
of V on, is one access if V divides

    the length of a run                      so a group lies in one run, and inside the product or outside it as a whole
    what every other variable moves it by,   so the place of a group is a multiple of V numbers, as its address has to
    and the place where all are least        be; that of the array is looked after by the host (``Part.aligned``)

and no condition on the element speaks of a variable of the run.  Tiles begin at a multiple of V, and so does a share of
a split sum, which is whole fetches.  Sizes are numbers; the batch size, which is not, only has to be multiplied by one
that V divides.  Nothing is searched for: a V that cannot be shown right this way is not taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd

from codegen.templates.cuda.text import Scope, cells
from derive.indices import Guard, Index, Var, index
from derive.terms import Read

ACCESS = 16  # bytes of the widest access
EXPECTED = 64  # images of a batch, where that decides


@dataclass(frozen=True)
class Fetch:
    """Whether a factor is fetched along the terms of the sum, and how many of its elements are one access."""

    deep: bool
    width: int = 1


def fetching(
    read: Read, guards: Sequence[Guard], scope: Scope, group: Sequence[int], depth: Sequence[int], *, size: int,
    ordered: bool = True,
) -> Fetch:  # fmt: skip
    """How a factor is fetched that depends on the rows or columns ``group`` and the terms ``depth``.

    ``ordered`` where rows or columns are counted in row-major order; for the rest see ``widest``.
    """
    along_terms = widest(read, guards, scope, depth, size=size)
    along_group = widest(read, guards, scope, group, size=size) if ordered else 1
    if (along_terms > 1) != (along_group > 1):
        return Fetch(along_terms > 1, max(along_terms, along_group))
    deep = _reach(read, scope, depth) > _reach(read, scope, group)
    return Fetch(deep, along_terms if deep else along_group)


def _reach(read: Read, scope: Scope, levels: Sequence[int]) -> int:
    """How many neighbours in memory, at most, differ in one of these variables."""
    last = read.at[-1]
    near = [v for v in levels if (parts := last.linear_in(v)) and parts[0].constant not in (0, None)]
    return max((cells([scope.intervals[v]]).evaluate({"N": EXPECTED}) for v in near), default=0)


def widest(read: Read, guards: Sequence[Guard], scope: Scope, levels: Sequence[int], *, size: int) -> int:
    """How many neighbours along these variables, counted in row-major order, are one access; see the head of this file.

    Args:
        read: the element that is fetched, where the guards hold.
        guards: conditions beside that of lying in the array.
        scope: the variables.
        levels: those of the count, outermost first.
        size: the bytes of an element.

    >>> from derive.indices import interval, var
    >>> from derive.terms import tensor
    >>> W, scope = tensor("W", 64, 64, 9), Scope(("n", "c", "a"), (interval(0, 64), interval(0, 64), interval(0, 9)))
    >>> read = W[var(0), var(1), var(2)]
    >>> [widest(read, (), scope, levels, size=2) for levels in [(1, 2), (2,), (0,)]]
    [8, 1, 1]
    """
    place = _place(scope, read)
    run, length = _run(scope, place, levels)
    speaking = [*(e for g in guards if scope.guard(g) for e in g.indices()), *scope.leaving(read)]
    if not run or any(run & e.substitute(scope.only_value).variables for e in speaking):
        return 1
    first = place.substitute(lambda a: scope.intervals[a.level][0] if isinstance(a, Var) and a.level in run else None)
    return gcd(length, *(coefficient for _, coefficient in first.terms), ACCESS // size)


def _place(scope: Scope, read: Read) -> Index:
    """The place of an element in the row-major array of its tensor."""
    place = index(0)
    for e, (low, high) in zip(read.at, read.tensor.box, strict=True):
        if (high - low).constant != 1:
            place = place * (high - low) + (e - low)
    return place.substitute(scope.only_value)


def _run(scope: Scope, place: Index, levels: Sequence[int]) -> tuple[frozenset[int], int]:
    """The innermost variables that move a place as they move the count, and how far the count goes by them."""
    run: set[int] = set()
    length = 1
    for level in reversed([v for v in levels if not scope.is_settled(v)]):
        low, high = scope.intervals[level]
        size = (high - low).constant
        if size is None or low.constant is None or place.slope(level) != length:
            break
        run.add(level)
        length *= size
    return frozenset(run), length
