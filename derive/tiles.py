"""Sums over tiles of an axis and the cells in a tile, turned into what they are on the whole axis.

With tiles of m cells every cell h of an axis is cell ``h mod m`` of tile ``h // m`` and of no other:

    gathered     Sum_{i<m, j<T} [h == m j + i] f(i, j)  =  f(h - m (h // m), h // m)        what puts tiles together
    joined       Sum_{j<T, i<m} f(m j + i)  =  Sum_{h<n} f(h)                               what sums over all of them
    flipped      Sum_{a<r} f(a)  =  Sum_{a<r} f(r - 1 - a)

A plan that works tile by tile is opened to such sums.  Nothing here is trusted: every step is made by the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from derive import kernel, tactics
from derive.indices import Guard, Index, IndexLike, Interval, Var, Zero, index, inside, var, variables
from derive.kernel import Theorem, Where
from derive.obligations import Refused
from derive.rules import Contract, Reguard, Reindex
from derive.terms import Monomial, Substitution, expression

# --- tiles put together -------------------------------------------------------------------------------------------


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
        slope = guard.e.slope(cell)
        if slope not in (1, -1) or low.constant != 0 or high.constant is None or high.constant < 2:
            continue
        for tile in own:
            if tile != cell and m.binders[tile - depth][0].constant == 0:
                size = high.constant
                if guard.e.slope(tile) == size * slope:
                    whole = var(cell) + size * var(tile) - guard.e * slope
                    return _Tiled(where, depth, guard, cell, tile, size, whole)
    return None


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


# --- sums taken in another order ----------------------------------------------------------------------------------


def joined(theorem: Theorem, where: Where, pair: tuple[int, int], size: IndexLike) -> Theorem:
    """``Sum_{j<T, i<m} F(m j + i) = Sum_{h<size} F(h)``: a sum over tiles and the cells in each as one over cells.

    ``pair`` numbers the monomial's variables j and i; h takes the place of j, and i goes.  The cells from ``size`` up
    to m T have to be zero by the box of something that is read directly.  Raises Refused where they are not, or where
    an interval does not start at 0 or m is no number.

    >>> from derive.indices import interval, symbol, var
    >>> from derive.terms import tensor, term
    >>> n = symbol("n")
    >>> X = tensor("X", n)
    >>> tiles = term(0, X[4 * var(0) + var(1)], over=[interval(0, (n + 3) // 4), interval(0, 4)])
    >>> joined(kernel.begin(tiles), (0,), (0, 1), n).rhs
    Sum{0<=$0<n}*X[$0]
    """
    at = kernel.place(theorem, where)
    binders = at.monomial.binders
    tile, cell = pair
    if not {tile, cell} <= set(range(len(binders))) or tile == cell:
        raise Refused(f"pair={pair}: the monomial binds {len(binders)} variables, and two of them are needed")
    (low, tiles), (start, m) = binders[tile], binders[cell]
    if (low.constant, start.constant) != (0, 0) or m.constant is None:
        raise Refused(f"pair={pair}: tiles and cells are counted from 0, and a tile has a number of cells")
    names = [k for k in range(len(binders)) if k != cell]
    level = {k: var(at.depth + p) for p, k in enumerate(names)}
    h = level[tile]
    forward = [level[k] if k in names else h - m * (h // m) for k in range(len(binders))]
    forward[tile] = h // m
    inverse = [var(at.depth + k) for k in names]
    inverse[names.index(tile)] = m * var(at.depth + tile) + var(at.depth + cell)
    whole = [(index(0), m * tiles) if k == tile else binders[k] for k in names]
    cut = [(index(0), index(size)) if k == tile else binders[k] for k in names]
    return _reindexed(theorem, where, Reindex(tuple(whole), tuple(forward), tuple(inverse)), cut)


def flipped(theorem: Theorem, where: Where, variable: int) -> Theorem:
    """``Sum_{lo <= a < hi} F(a) = Sum_{lo <= a < hi} F(lo + hi - 1 - a)``: a sum taken backwards.

    >>> from derive.indices import interval, symbol, var
    >>> from derive.terms import tensor, term
    >>> r = symbol("r")
    >>> flipped(kernel.begin(term(0, tensor("W", r)[r - 1 - var(0)], over=[interval(0, r)])), (0,), 0).rhs
    Sum{0<=$0<r}*W[$0]
    """
    at = kernel.place(theorem, where)
    binders = at.monomial.binders
    if variable not in range(len(binders)):
        raise Refused(f"variable={variable}: the monomial binds {len(binders)} variables")
    low, high = binders[variable]
    turned = list(variables(at.depth, len(binders)))
    turned[variable] = low + high - 1 - turned[variable]
    return _reindexed(theorem, where, Reindex(binders, tuple(turned), tuple(turned)), binders)


def _reindexed(theorem: Theorem, where: Where, step: Reindex, binders: Sequence[Interval]) -> Theorem:
    """Reindex one monomial; with these intervals, and without the guards that only repeat the old ones."""
    at = kernel.place(theorem, where)
    scope = at.depth + len(step.binders)
    put = Substitution(at.scope, (*variables(0, at.depth), *step.forward), scope)
    m = at.monomial
    kept = tuple(map(put.guard, m.guards))
    new = Monomial(m.coefficient, step.binders, kept, tuple(map(put.factor, m.factors)))
    moved = kernel.rewrite(theorem, where, step)
    for wanted in expression(at.depth, [new]).monomials:
        moved = kernel.rewrite(moved, tactics.locate(moved, at.depth, wanted), Reguard(tuple(binders), wanted.guards))
    return moved


__all__ = ["flipped", "gathered", "joined"]
