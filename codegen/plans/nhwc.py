"""A convolution by itself as GEMMs over windows with the channels innermost, as image files have them.

    forward          S = Col Wk, Z = S' + u      a row of Col for each position: all channels of each cell under it
    input gradient   dCol = Go Wr, dIn           the rows of dCol added back where they were cut out; dX = dIn'
    weight gradient  dV = Go' Col                summed over blocks of the batch; dW = dV'
    bias gradient    du = Sum G

A cell of a window is a run of all its channels, so windows are copied in long runs at any stride, where ``im2col`` and
``gemm`` skip along a row of the image.  Nothing is transposed if the arrays of the call lie channels last in memory;
if they do not, the image and the result are, once each.
"""

from __future__ import annotations

from codegen.plan import Plan, Stage, Template
from codegen.plans import convolution as conv
from codegen.plans.blocks import image_by_image
from codegen.plans.convolution import Result, Windows
from derive.indices import Interval, equal, index, variables
from derive.layers import Applied
from derive.terms import Tensor, define, term


def nhwc(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward, input_gradient, weight_gradient and, with a bias, bias_gradient; as ``gemm``.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Conv2d
    >>> from derive.terms import tensor
    >>> plans = nhwc(Conv2d(64, 128, 3, stride=2, padding=1).on(tensor("X", BATCH, 64, 56, 56)))
    >>> [stage.name for stage in plans["forward"].stages]
    ['In', 'Wk', 'Col', 'S', 'Z']
    """
    w = conv.single(applied)
    image = _innermost(applied.x, "In", w, margin=True)
    col = _windows(image.tensor, applied, w)
    results = {
        "forward": Result((image, *_forward(applied, w, col))),
        "input_gradient": Result(_input_gradient(applied, w, image)),
        "weight_gradient": Result((image, col, *_weight_gradient(applied, w, col))),
    }
    return conv.planned("nhwc", applied, itemsize, results, block=image_by_image)


def _innermost(x: Tensor, name: str, w: Windows, *, margin: bool = False) -> Stage:
    """``In[b,h,c] = X[b,c,h]``, with the zeros around it that windows reach."""
    b, c, *spatial = x.box
    at = variables(0, x.rank)
    body = term(x.rank, x[(at[0], at[-1], *at[1:-1])])
    _, *sides, none = w.margin()
    letters = f"b {w.letters('h')} c" if margin else f"b {w.letters('i')} n"
    return Stage(
        define(name, [b, *spatial, c], body), "strided", letters, margin=(none, *sides, none) if margin else ()
    )


def _windows_box(applied: Applied, w: Windows) -> list[Interval]:
    """The axes of ``Col``: batch, position, kernel cell, channel."""
    positions: list[Interval] = [(index(0), tiles) for tiles in w.tiles]
    return [applied.x.box[0], *positions, *applied.parameters["weight"].box[2:], applied.x.box[1]]


def _letters(w: Windows) -> str:
    return f"b {w.letters('i')} {w.letters('a')} c"


def _windows(image: Tensor, applied: Applied, w: Windows) -> Stage:
    """``Col[b,i,a,c] = In[b, i s + a d - p, c]``."""
    box = _windows_box(applied, w)
    b, *between, c = variables(0, len(box))
    i, a = between[: w.axes], between[w.axes :]
    body = term(len(box), image[(b, *(w.read(axis, i[axis], a[axis]) for axis in range(w.axes)), c)])
    return Stage(define("Col", box, body), "windows", _letters(w))


def _kernel(weight: Tensor, w: Windows, name: str, *, outputs_first: bool) -> Stage:
    """``Wk[a,c,n] = W[n,c,a]``, or ``Wr[n,a,c] = W[n,c,a]``."""
    outputs, channels, *cells = weight.box
    at = variables(0, weight.rank)
    n, *rest = at if outputs_first else (at[-1], *at[:-1])
    *a, c = rest
    box = [outputs, *cells, channels] if outputs_first else [*cells, channels, outputs]
    letters = f"n {w.letters('a')} c" if outputs_first else f"{w.letters('a')} c n"
    return Stage(define(name, box, term(weight.rank, weight[(n, c, *a)])), "strided", letters)


def _forward(applied: Applied, w: Windows, col: Stage) -> tuple[Stage, ...]:
    """``S[b,i,n] = Sum_{a,c} Col[b,i,a,c] Wk[a,c,n]`` and ``Z[b,n,i] = S[b,i,n] + u[n]``."""
    weight, bias = applied.parameters["weight"], applied.parameters.get("bias")
    kernel = _kernel(weight, w, "Wk", outputs_first=False)
    depth = 2 + w.axes
    *bi, n = variables(0, depth)
    ac = variables(depth, 1 + w.axes)
    body = term(depth, col.tensor[(*bi, *ac)], kernel.tensor[(*ac, n)], over=kernel.tensor.box[:-1])
    box = [*col.tensor.box[: 1 + w.axes], weight.box[0]]
    letters = f"b {w.letters('i')} n {w.letters('a')} c"
    summed = Stage(define("S", box, body), "matmul", letters)
    b, n, *i = variables(0, depth)
    body = term(depth, summed.tensor[(b, *i, n)])
    if bias is not None:
        body = body + term(depth, bias[n])
    template: Template = "strided" if bias is None else "pointwise"
    return kernel, col, summed, Stage(define("Z", list(applied.y.box), body), template, f"b n {w.letters('i')}")


def _input_gradient(applied: Applied, w: Windows, image: Stage) -> tuple[Stage, ...]:
    """``dCol[b,i,a,c] = Sum_n Go[b,i,n] Wr[n,a,c]``; ``dIn[b,h,c] = Sum_{a,i} [h == i s + a d - p] dCol[b,i,a,c]``."""
    kernel = _kernel(applied.parameters["weight"], w, "Wr", outputs_first=True)
    go = _innermost(conv.cotangent_of(applied), "Go", w)
    box = _windows_box(applied, w)
    at = variables(0, len(box))
    (n,) = variables(len(box), 1)
    bi, ac = at[: 1 + w.axes], at[1 + w.axes :]
    body = term(len(box), go.tensor[(*bi, n)], kernel.tensor[(n, *ac)], over=kernel.tensor.box[:1])
    dcol = Stage(define("dCol", box, body), "matmul", f"{_letters(w)} n")
    added = _added(dcol.tensor, w, image)
    b, c, *h = variables(0, applied.x.rank)
    body = term(applied.x.rank, added.tensor[(b, *h, c)])
    return kernel, go, dcol, added, Stage(define("dX", list(applied.x.box), body), "strided", f"b c {w.letters('h')}")


def _added(dcol: Tensor, w: Windows, image: Stage) -> Stage:
    """The windows added back, in an array with the image's margin."""
    depth = 2 + w.axes
    b, *h, c = variables(0, depth)
    a, i = variables(depth, w.axes), variables(depth + w.axes, w.axes)
    guards = [equal(h[k], w.read(k, i[k], a[k])) for k in range(w.axes)]
    positions, cells = dcol.box[1 : 1 + w.axes], dcol.box[1 + w.axes : -1]
    body = term(depth, dcol[(b, *i, *a, c)], over=[*cells, *positions], guards=guards)
    letters = f"b {w.letters('h')} c {w.letters('a')} {w.letters('i')}"
    return Stage(define("dIn", list(image.tensor.box), body), "overlaps", letters, w.loops("a"), image.margin)


def _weight_gradient(applied: Applied, w: Windows, col: Stage) -> tuple[Stage, ...]:
    """``dV[n,a,c] = Sum_{b,i} Go[b,i,n] Col[b,i,a,c]`` and ``dW[n,c,a] = dV[n,a,c]``."""
    weight = applied.parameters["weight"]
    go = _innermost(conv.cotangent_of(applied), "Go", w)
    rank = weight.rank
    n, *ac = variables(0, rank)
    bi = variables(rank, 1 + w.axes)
    body = term(rank, go.tensor[(*bi, n)], col.tensor[(*bi, *ac)], over=go.tensor.box[:-1])
    box = [weight.box[0], *weight.box[2:], weight.box[1]]
    each = Stage(define("dV", box, body), "matmul", f"n {w.letters('a')} c b {w.letters('i')}")
    n, c, *a = variables(0, rank)
    return (
        go,
        each,
        Stage(define("dW", list(weight.box), term(rank, each.tensor[(n, *a, c)])), "strided", f"n c {w.letters('a')}"),
    )
