"""Identities that fast algorithms rest on, each a theorem for all sizes, and the tactics that put them to use.

Toom-Cook for tiles of a convolution with stride 1, for all batches, channels, numbers of tiles and paddings p:

    Sum_t A[i,t] Sum_c (Sum_a G[t,a] W[n,c,a]) (Sum_e B[t,e] X[b,c,m j + e - p])
        = Sum_{c,a} W[n,c,a] X[b,c,m j + i + a - p]                                       for i < m

and the same on two axes, where the three matrices stand once for each (``tiled``).  ``derive.folding`` has the tactic
that proves it, and ``joined`` turns a sum over tiles and positions in them into a sum over positions.

A convolution in the sense of mathematics runs through its kernel backwards: it is the layer's cross-correlation with
the kernel flipped (``flip``).  In that form, over the whole line, kernel and input may change places (``commute``).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from derive import kernel, tactics
from derive.folding import through_identity
from derive.indices import IndexLike, Interval, index, inside, interval, symbols, var, variables
from derive.kernel import Theorem, Where
from derive.obligations import Refused
from derive.rules import Reguard, Reindex
from derive.terms import Monomial, Substitution, define, expression, tensor, term
from derive.toomcook import ToomCook

# --- tactics ------------------------------------------------------------------------------------------------------


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


# --- tiled convolution, for all sizes -----------------------------------------------------------------------------


@lru_cache(maxsize=32)
def tiled(f: ToomCook, axes: int = 1) -> Theorem:
    """Toom-Cook on tiles equals convolution with stride 1, on one axis or nested on two, for all sizes.

    The left side is the algorithm and the right side the definition; the free variables are the batch b, the output
    channel n, for each axis the tile j, and for each axis the position i in the tile.  Sizes are N, C, M (output
    channels), T0 and T1 (tiles), n0 and n1 (input), and the padding p0 and p1, all symbols, on which nothing is
    assumed.  Raises ValueError for another number of axes.

    >>> from derive.toomcook import toom_cook
    >>> tiled(toom_cook(2, 3, points=(0, 1, -1))).rhs
    Sum{0<=$4<C,0<=$5<3}*W[$1,$4,$5]*X[$0,$4,2*$2+$3+$5-p0]
    """
    if axes not in (1, 2):
        raise ValueError(f"axes={axes}: the identity is nested on 1 or 2 axes")
    return through_identity(_algorithm(f, axes), f)


def _algorithm(f: ToomCook, axes: int) -> Theorem:
    """The output transformed from products of transformed tiles and kernels, down to the inputs."""
    batch, channels, out = symbols("N C M")
    tiles, sizes, pads = (symbols(" ".join(f"{letter}{k}" for k in range(axes))) for letter in ("T", "n", "p"))
    w = tensor("W", out, channels, *[f.r] * axes)
    x = tensor("X", batch, channels, *sizes)
    t = f.multiplications

    # U[t..,n,c] := Sum_a G[t,a] .. W[n,c,a..], the kernel transformed
    at_t, (n, c), a = variables(0, axes), variables(axes, 2), variables(axes + 2, axes)
    gs = [f.G[at_t[k], a[k]] for k in range(axes)]
    u = define("U", [*[t] * axes, out, channels], term(axes + 2, *gs, w[(n, c, *a)], over=w.box[2:]))

    # V[t..,c,b,j..] := Sum_e B[t,e] .. X[b,c,m j + e - p..], the input transformed tile by tile
    (c, b), j, e = variables(axes, 2), variables(axes + 2, axes), variables(2 * axes + 2, axes)
    bs = [f.B[at_t[k], e[k]] for k in range(axes)]
    read = x[(b, c, *(f.m * j[k] + e[k] - pads[k] for k in range(axes)))]
    v = define("V", [*[t] * axes, channels, batch, *tiles], term(2 * axes + 2, *bs, read, over=[interval(0, t)] * axes))

    # P[t..,n,b,j..] := Sum_c U V, one multiplication of matrices for each t
    (n, b), j, c = variables(axes, 2), variables(axes + 2, axes), var(2 * axes + 2)
    product = term(2 * axes + 2, u[(*at_t, n, c)], v[(*at_t, c, b, *j)], over=[interval(0, channels)])
    p = define("P", [*[t] * axes, out, batch, *tiles], product)

    # Y[b,n,j..,i..] := Sum_t A[i,t] .. P[t..,n,b,j..]
    (b, n), j, i, at_t = variables(0, 2), variables(2, axes), variables(2 + axes, axes), variables(2 + 2 * axes, axes)
    outs = [f.A[i[k], at_t[k]] for k in range(axes)]
    y = term(2 + 2 * axes, *outs, p[(*at_t, n, b, *j)], over=[interval(0, t)] * axes)
    over = [interval(0, s) for s in (batch, out, *tiles)] + [interval(0, f.m)] * axes
    return tactics.unfold_all(kernel.begin(y, over=over), ["P", "U", "V"])


# --- convolution and cross-correlation ----------------------------------------------------------------------------


@lru_cache(maxsize=4)
def flip(axes: int = 1) -> Theorem:
    """Cross-correlation with the flipped kernel ``F[n,c,a] := W[n,c,r-1-a]`` is convolution, for all sizes.

    The free variables are the batch, the output channel, and the position h on each axis.

    >>> flip()
    |- Sum{0<=$3<C,0<=$4<r0}*F[$1,$3,$4]*X[$0,$3,$2+$4-r0+1] = Sum{0<=$3<C,0<=$4<r0}*W[$1,$3,$4]*X[$0,$3,$2-$4]
    """
    batch, channels, out = symbols("N C M")
    r, sizes, outs = (symbols(" ".join(f"{letter}{k}" for k in range(axes))) for letter in "rno")
    w, x = tensor("W", out, channels, *r), tensor("X", batch, channels, *sizes)
    n, c, *a = variables(0, 2 + axes)
    turned = define(
        "F", [out, channels, *r], term(2 + axes, w[(n, c, *(e - 1 - v for e, v in zip(r, a, strict=True)))])
    )
    b, n, *h = variables(0, 2 + axes)
    c, *a = variables(2 + axes, 1 + axes)
    reads = x[(b, c, *(h[k] + a[k] - (r[k] - 1) for k in range(axes)))]
    over = [interval(0, e) for e in (batch, out, *outs)]
    start = term(2 + axes, turned[(n, c, *a)], reads, over=turned.box[1:])
    theorem = tactics.unfold_all(kernel.begin(start, over=over), ["F"])
    for k in range(axes):
        theorem = flipped(theorem, (0,), 1 + k)
    return theorem


@lru_cache(maxsize=1)
def commute() -> Theorem:
    """Convolution of two rows is commutative, for all sizes and at every position h where it may be other than 0.

    >>> commute()
    |- Sum{0<=$1<r}*w[$1]*x[$0-$1] = Sum{0<=$1<n}*w[$0-$1]*x[$1]
    """
    r, n = symbols("r n")
    w, x = tensor("w", r), tensor("x", n)
    h, a = var(0), var(1)
    theorem = kernel.begin(term(1, w[a], x[h - a], over=w.box), over=[interval(0, r + n - 1)])
    theorem = kernel.rewrite(theorem, (0,), Reguard(w.box, inside(h - a, x.box[0])))
    theorem = kernel.rewrite(theorem, (0,), Reindex(x.box, (h - a,), (h - a,)))
    return kernel.rewrite(theorem, (0,), Reguard(x.box, ()))


__all__ = ["commute", "flip", "flipped", "joined", "through_identity", "tiled"]
