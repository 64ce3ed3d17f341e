"""Sums over tiles of an axis and the cells in a tile, turned into what they are on the whole axis.

With tiles of m cells every cell h of an axis is cell ``h mod m`` of tile ``h // m`` and of no other:

    gathered     Sum_{i<m, j<T} [h == m j + i] f(i, j)  =  f(h - m (h // m), h // m)        what puts tiles together
    joined       Sum_{j<T, i<m} f(m j + i)  =  Sum_{h<n} f(h)                               what sums over all of them
    flipped      Sum_{a<r} f(a)  =  Sum_{a<r} f(r - 1 - a)

A plan that works tile by tile is opened to such sums.  Nothing here is trusted: every step is made by the kernel.
"""

from __future__ import annotations

from dataclasses import dataclass

from derive import kernel, tactics
from derive.identities import flipped, joined
from derive.indices import Guard, Index, Var, Zero, index, inside, var
from derive.kernel import Theorem, Where
from derive.rules import Contract, Reguard
from derive.terms import Monomial


@dataclass(frozen=True)
class _Tiled:
    """An equation ``h == m j + i`` in a monomial: its address and depth, and the levels of i and j."""

    where: Where
    depth: int
    guard: Guard
    cell: int
    tile: int
    size: int
    whole: Index


def gathered(theorem: Theorem) -> Theorem:
    """Every equation ``h == m j + i`` over the cells i < m of tiles j solved for both.

    >>> from derive.indices import equal, interval, symbol
    >>> from derive.terms import tensor, term
    >>> n = symbol("n")
    >>> Y = tensor("Y", 4, (n + 3) // 4)
    >>> put = term(1, Y[var(1), var(2)], over=Y.box, guards=[equal(var(0), 4 * var(2) + var(1))])
    >>> gathered(kernel.begin(put, over=[interval(0, n)])).rhs
    Y[$0-4*(($0)//(4)),(($0)//(4))]
    """
    while (found := _next(theorem)) is not None:
        theorem = _solved(theorem, found)
    return theorem


def _next(theorem: Theorem) -> _Tiled | None:
    for where, m, depth in tactics.scopes(theorem.rhs):
        for guard in m.guards:
            found = _tiled(where, m, depth, guard)
            if found is not None:
                return found
    return None


def _tiled(where: Where, m: Monomial, depth: int, guard: Guard) -> _Tiled | None:
    """The equation as one about a tile and a cell in it, if it is one."""
    if not isinstance(guard, Zero):
        return None
    own = [depth + k for k in range(len(m.binders))]
    for cell in own:
        low, high = m.binders[cell - depth]
        slope = _slope(guard.e, cell)
        if slope not in (1, -1) or low.constant != 0 or high.constant is None or high.constant < 2:
            continue
        for tile in own:
            if tile != cell and m.binders[tile - depth][0].constant == 0:
                size = high.constant
                if _slope(guard.e, tile) == size * slope:
                    whole = var(cell) + size * var(tile) - guard.e * slope
                    return _Tiled(where, depth, guard, cell, tile, size, whole)
    return None


def _slope(e: Index, level: int) -> int | None:
    parts = e.linear_in(level)
    return None if parts is None else parts[0].constant


def _solved(theorem: Theorem, t: _Tiled) -> Theorem:
    """The equation solved for the cell, then for the tile, which is the only one that has the cell."""
    theorem = kernel.rewrite(theorem, t.where, Contract(t.cell - t.depth, t.guard))
    h, j = (_without(e, t.cell) for e in (t.whole, var(t.tile)))
    bounds = inside(h - t.size * j, (index(0), index(t.size)))
    here = ((w, m) for w, m, own in tactics.scopes(theorem.rhs) if own == t.depth)
    where, m = next((w, m) for w, m in here if set(bounds) <= set(m.guards))
    equation = Zero(h // t.size - j)
    others = tuple(g for g in m.guards if g not in bounds)
    theorem = kernel.rewrite(theorem, where, Reguard(m.binders, (*others, equation)))
    where = next(w for w, m, own in tactics.scopes(theorem.rhs) if own == t.depth and equation in m.guards)
    (level,) = j.variables
    return tactics.tidy(kernel.rewrite(theorem, where, Contract(level - t.depth, equation)))


def _without(e: Index, gone: int) -> Index:
    """The index once the variable at this level is gone."""
    return e.substitute(lambda atom: var(atom.level - 1) if isinstance(atom, Var) and atom.level > gone else None)


__all__ = ["flipped", "gathered", "joined"]
