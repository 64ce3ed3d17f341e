"""Identities that fast algorithms rest on, each a theorem of the kernel for all sizes.

``tiled_convolution``: Toom-Cook for tiles of a convolution with stride 1, for all batches, channels, numbers of tiles
and paddings p,

    Sum_t A[i,t] Sum_c (Sum_a G[t,a] W[n,c,a]) (Sum_e B[t,e] X[b,c,m j + e - p])
        = Sum_{c,a} W[n,c,a] X[b,c,m j + i + a - p]                                       for i < m

and the same on two axes, where the three matrices stand once for each.

A convolution in the sense of mathematics runs through its kernel backwards: it is the layer's cross-correlation with
the kernel flipped (``flipped_kernel``).  In that form, over the whole line, kernel and input may change places
(``commutativity``).  That the discrete Fourier transform turns it into products is ``derive.fourier``'s.
"""

from __future__ import annotations

from functools import lru_cache

from derive import kernel, tactics
from derive.folding import through_identity
from derive.indices import inside, interval, symbols, var, variables
from derive.kernel import Theorem
from derive.rules import Reguard, Reindex
from derive.terms import define, tensor, term
from derive.tiles import flipped
from derive.toomcook import ToomCook

# --- tiled convolution, for all sizes -----------------------------------------------------------------------------


@lru_cache(maxsize=32)
def tiled_convolution(f: ToomCook, *, axes: int = 1) -> Theorem:
    """Toom-Cook on tiles equals convolution with stride 1, on one axis or nested on two, for all sizes.

    The left side is the algorithm and the right side the definition; the free variables are the batch b, the output
    channel n, for each axis the tile j, and for each axis the position i in the tile.  Sizes are N, C, M (output
    channels), T0 and T1 (tiles), n0 and n1 (input), and the padding p0 and p1, all symbols, on which nothing is
    assumed.  ``f`` is what ``derive.winograd`` returns.  Raises ValueError for another number of axes.  The source is
    Lavin and Gray, Fast Algorithms for Convolutional Neural Networks (2016), section 4.

    >>> from derive.toomcook import toom_cook
    >>> tiled_convolution(toom_cook(2, 3, points=(0, 1, -1))).rhs
    Sum{0<=$4<C,0<=$5<3}*W[$1,$4,$5]*X[$0,$4,2*$2+$3+$5-p0]
    """
    _check_axes(axes, 2)
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
def flipped_kernel(*, axes: int = 1) -> Theorem:
    """Cross-correlation with the flipped kernel ``F[n,c,a] := W[n,c,r-1-a]`` is convolution, for all sizes.

    The free variables are the batch, the output channel, and the position h on each axis.
    Raises ValueError for a number of axes other than 1, 2 and 3.

    >>> flipped_kernel()
    |- Sum{0<=$3<C,0<=$4<r0}*F[$1,$3,$4]*X[$0,$3,$2+$4-r0+1] = Sum{0<=$3<C,0<=$4<r0}*W[$1,$3,$4]*X[$0,$3,$2-$4]
    """
    _check_axes(axes, 3)
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
def commutativity() -> Theorem:
    """Convolution of two rows is commutative, for all sizes and at every position h where it may be other than 0.

    >>> commutativity()
    |- Sum{0<=$1<r}*w[$1]*x[$0-$1] = Sum{0<=$1<n}*w[$0-$1]*x[$1]
    """
    r, n = symbols("r n")
    w, x = tensor("w", r), tensor("x", n)
    h, a = var(0), var(1)
    theorem = kernel.begin(term(1, w[a], x[h - a], over=w.box), over=[interval(0, r + n - 1)])
    theorem = kernel.rewrite(theorem, (0,), Reguard(w.box, inside(h - a, x.box[0])))
    theorem = kernel.rewrite(theorem, (0,), Reindex(x.box, (h - a,), (h - a,)))
    return kernel.rewrite(theorem, (0,), Reguard(x.box, ()))


def _check_axes(axes: int, most: int) -> None:
    if type(axes) is not int or not 1 <= axes <= most:
        near = min(max(axes, 1), most) if type(axes) is int else 1
        raise ValueError(f"axes={axes!r}: the identity is for 1 <= axes <= {most}; the nearest is {near}")


__all__ = ["commutativity", "flipped_kernel", "tiled_convolution"]
