"""A convolution by itself by tiles of outputs, batch innermost: for few channels, where a plain product is too thin.

With a tile of t outputs an axis the kernel is written t times, shifted (``convolution``), so the product has t times as
many rows an axis and the windows of a whole tile are copied once, with fewer copies of each input cell.  For one or a
few channels that pays, although some zeros are multiplied.

    forward          Z'[r] = T [r] Col, tiles put together
    input gradient   dCol = T' Gt with Gt[r,n,j,b] = G[b,n, t j + r], and col2im
    weight gradient  dT = Gt Col' summed over blocks, dW = Sum_r dT[r], each r at its shift
    bias gradient    du = Sum G
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from codegen.plan import Plan, Stage
from codegen.plans import convolution as conv
from codegen.plans import innermost as inner
from codegen.plans.convolution import Result, Windows
from derive.indices import IndexLike, Interval, equal, variables
from derive.layers import Applied
from derive.terms import define, term


def planner(tile: int) -> Callable[..., dict[str, Plan]]:
    """The algorithm for tiles of so many outputs an axis."""

    def toeplitz(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
        """The plans of forward, input_gradient, weight_gradient and, with a bias, bias_gradient; as ``gemm``."""
        return _plans(applied, _windows(applied, tile), f"toeplitz{tile}", itemsize)

    return toeplitz


def _windows(applied: Applied, tile: int) -> Windows:
    return Windows(applied.windows, tile, tuple((w.output + tile - 1) // tile for w in applied.windows), "")


def _plans(applied: Applied, w: Windows, algorithm: str, itemsize: int) -> dict[str, Plan]:
    results = {
        "forward": _forward(applied, w),
        "input_gradient": _input_gradient(applied, w),
        "weight_gradient": _weight_gradient(applied, w),
    }
    return conv.planned(algorithm, applied, itemsize, results)


def _forward(applied: Applied, w: Windows) -> Result:
    t, *u = inner.kernel(applied.parameters["weight"], applied.parameters.get("bias"), w, Fraction(1))
    image = inner.image(applied.x, w, w.margin())
    col, one = inner.columns(image.tensor, w)
    product = inner.product(t, u[0] if u else None, col, one, w, "Zt")
    stages = (image, t, *u, col, *([one] if u else []), product, _together(applied, w, product))
    return Result(stages, inner.matrices(w, bias=True)[:2] if u else ())


def _together(applied: Applied, w: Windows, product: Stage) -> Stage:
    """``Z[b,n,h] = Sum_{r,j} [h == t j + r] Zt[r,n,j,b]``."""
    depth = 2 + w.axes
    b, n, *h = variables(0, depth)
    r, j = variables(depth, w.axes), variables(depth + w.axes, w.axes)
    guards = [equal(h[k], w.tile * j[k] + r[k]) for k in range(w.axes)]
    over = [*product.tensor.box[: w.axes], *product.tensor.box[w.axes + 1 : -1]]
    body = term(depth, product.tensor[(*r, n, *j, b)], over=over, guards=guards)
    letters = f"b n {w.letters('h')} {w.letters('r')} {w.letters('j')}"
    return Stage(define("Z", list(applied.y.box), body), "scatter", letters, loops=w.loops("r"))


def _cotangent(applied: Applied, w: Windows) -> Stage:
    """``Gt[r,n,j,b] = G[b,n, t j + r]``."""
    g = conv.cotangent_of(applied)
    box: list[IndexLike | Interval] = [*w.slots, g.box[1], *w.tiles, g.box[0]]
    at = variables(0, len(box))
    r, n, j, b = at[: w.axes], at[w.axes], at[w.axes + 1 : -1], at[-1]
    body = term(len(box), g[(b, n, *(w.tile * j[k] + r[k] for k in range(w.axes)))])
    letters = f"{w.letters('r')} n {w.letters('j')} b"
    return Stage(define("Gt", box, body), "strided", letters, loops=w.loops("r"))


def _input_gradient(applied: Applied, w: Windows) -> Result:
    t, *_ = inner.kernel(applied.parameters["weight"], None, w, Fraction(1))
    image = inner.image(applied.x, w, w.margin())
    dz = _cotangent(applied, w)
    return Result((t, dz, *inner.input_gradient(t, dz, image.tensor, w)))


def _weight_gradient(applied: Applied, w: Windows) -> Result:
    image = inner.image(applied.x, w, w.margin())
    col, one = inner.columns(image.tensor, w)
    dz = _cotangent(applied, w)
    gradients = inner.kernel_gradient(dz, col, one, w, bias=False)
    return Result((image, col, dz, *gradients, *inner.untile(gradients, applied.parameters["weight"], None, w)))
