"""A convolution by itself as one GEMM an image, arrays in the order in which they come: batch, channels, positions.

    forward          Z[b] = W Col[b] + u       the windows of an image side by side, times the kernel
    input gradient   dCol[b] = W' G[b]         and every window added back to where it was cut out (col2im)
    weight gradient  dW = Sum_b G[b] Col[b]'
    bias gradient    du = Sum G

The product of an image is formed where the result of the call lies, so nothing is transposed or copied but the windows,
and those straight from the input: where a window reaches beyond the image ``Col`` keeps the zeros it was made with.
With many channels this is what is fastest unless fewer multiplications will do (``winograd``).  A kernel of one cell
with stride 1 needs no windows: ``Col`` is another name for the input.

In groups of Og outputs and Cg inputs there is one product for each image and group, of the rows of the kernel and the
channels of the windows that belong to the group: output n reads the channels (n // Og) Cg + c with c < Cg, and input
channel c is read by the outputs (c // Cg) Og + m with m < Og.
"""

from __future__ import annotations

from codegen.plan import Plan, PlanError, Stage, Template
from codegen.plans import convolution as conv
from codegen.plans.blocks import image_by_image
from codegen.plans.convolution import Result, Windows
from derive.indices import Index, Interval, equal, index, var, variables
from derive.layers import Applied, Conv
from derive.terms import define, term


def im2col(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward, input_gradient, weight_gradient and, with a bias, bias_gradient; as ``gemm``.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Conv2d
    >>> from derive.terms import tensor
    >>> plans = im2col(Conv2d(64, 64, 3, padding=1).on(tensor("X", BATCH, 64, 56, 56)))
    >>> [stage.name for stage in plans["forward"].stages], plans["forward"].block
    (['Col', 'S', 'Z'], 1)
    """
    w = conv.single(applied)
    col = _columns(applied, w)
    results = {
        "forward": Result((col, *product(applied, w, col))),
        "input_gradient": Result(_input_gradient(applied, w)),
        "weight_gradient": Result((col, *weight_gradient(applied, w, col))),
    }
    return conv.planned("im2col", applied, itemsize, results, block=image_by_image)


def _windows_box(applied: Applied, w: Windows) -> list[Interval]:
    """The axes of ``Col``: batch, channel, kernel cell, position."""
    positions: list[Interval] = [(index(0), tiles) for tiles in w.tiles]
    return [*applied.x.box[:2], *applied.parameters["weight"].box[2:], *positions]


def letters_of(w: Windows) -> str:
    """The letters of ``Col``."""
    return f"b c {w.letters('a')} {w.letters('i')}"


def _columns(applied: Applied, w: Windows) -> Stage:
    """``Col[b,c,a,i] = X[b,c, i s + a d - p]``."""
    box = _windows_box(applied, w)
    (b, c), a, i = _split(variables(0, len(box)), w)
    col = define("Col", box, term(len(box), applied.x[(b, c, *_cells(w, a, i))]))
    template: Template = "alias" if is_input(applied) else "strided"
    return Stage(col, template, letters_of(w), loops=w.loops("a"))


def is_input(applied: Applied) -> bool:
    """Whether the windows are the input itself: kernels of one cell, stride 1, nothing padded."""
    return all(
        (w.kernel.constant, w.stride.constant, w.before.constant, w.after.constant) == (1, 1, 0, 0)
        for w in applied.windows
    )


def _split(at: tuple[Index, ...], w: Windows) -> tuple[tuple[Index, ...], tuple[Index, ...], tuple[Index, ...]]:
    return at[:2], at[2 : 2 + w.axes], at[2 + w.axes : 2 + 2 * w.axes]


def _cells(w: Windows, a: tuple[Index, ...], i: tuple[Index, ...]) -> list[Index]:
    return [w.read(axis, i[axis], a[axis]) for axis in range(w.axes)]


def product(applied: Applied, w: Windows, col: Stage) -> tuple[Stage, ...]:
    """``S[b,n,i] = Sum_{c,a} W[n,c,a] Col[b,c,a,i]`` and ``Z = S + u``, in the place of S."""
    weight, bias = applied.parameters["weight"], applied.parameters.get("bias")
    depth = 2 + w.axes
    at = variables(0, depth)
    b, n, *i = at
    c, *a = variables(depth, 1 + w.axes)
    channel = conv.channel(applied, n, c)
    body = term(depth, weight[(n, c, *a)], col.tensor[(b, channel, *a, *i)], over=weight.box[1:])
    letters = f"b n {w.letters('i')} c {w.letters('a')}"
    product = Stage(define("Z" if bias is None else "S", list(applied.y.box), body), _template(applied), letters)
    if bias is None:
        return (product,)
    body = term(depth, product.tensor[at]) + term(depth, bias[n])
    return product, Stage(define("Z", list(applied.y.box), body), "pointwise", letters, into=product.name)


def _input_gradient(applied: Applied, w: Windows) -> tuple[Stage, Stage]:
    """``dCol[b,c,a,i] = Sum_n W[n,c,a] G[b,n,i]``; ``dX[b,c,h] = Sum_{a,i} [h == i s + a d - p] dCol[b,c,a,i]``.

    In groups: ``dCol[b,c,a,i] = Sum_{m<Og} W[q Og + m, c - q Cg, a] G[b, q Og + m, i]`` with ``q = c // Cg``.
    """
    weight, g = applied.parameters["weight"], conv.cotangent_of(applied)
    box = _windows_box(applied, w)
    (b, c), a, i = _split(variables(0, len(box)), w)
    n, own, over = _readers(applied, c, var(len(box)))
    body = term(len(box), weight[(n, own, *a)], g[(b, n, *i)], over=[over])
    reader = "m" if conv.is_grouped(applied) else "n"
    dcol = Stage(define("dCol", box, body), _template(applied), f"{letters_of(w)} {reader}")
    depth = 2 + w.axes
    at = variables(0, depth)
    ai = variables(depth, 2 * w.axes)
    guards = [equal(at[2 + k], w.read(k, ai[w.axes + k], ai[k])) for k in range(w.axes)]
    body = term(depth, dcol.tensor[(*at[:2], *ai)], over=box[2:], guards=guards)
    letters = f"b c {w.letters('h')} {w.letters('a')} {w.letters('i')}"
    return dcol, Stage(define("dX", list(applied.x.box), body), "scatter", letters, loops=w.loops("a"))


def _readers(applied: Applied, c: Index, m: Index) -> tuple[Index, Index, Interval]:
    """The output that is number ``m`` of those that read channel ``c``, what c is there, and how many there are."""
    layer = applied.layer
    if not isinstance(layer, Conv):
        raise PlanError(f"{layer}: im2col is for convolutions")
    if not layer.is_grouped:
        return m, c, applied.parameters["weight"].box[0]
    inputs, outputs = layer.group_sizes()
    group = c // inputs
    return group * outputs + m, c - group * inputs, (index(0), outputs)


def _template(applied: Applied) -> Template:
    return "grouped" if conv.is_grouped(applied) else "matmul"


def weight_gradient(applied: Applied, w: Windows, col: Stage) -> tuple[Stage, Stage]:
    """``dV[b,n,c,a] = Sum_i G[b,n,i] Col[b,c,a,i]`` and ``dW = Sum_b dV[b]``."""
    weight, g = applied.parameters["weight"], conv.cotangent_of(applied)
    box: list[Interval] = [g.box[0], *weight.box]
    b, n, c, *a = variables(0, len(box))
    i = variables(len(box), w.axes)
    channel = conv.channel(applied, n, c)
    body = term(len(box), g[(b, n, *i)], col.tensor[(b, channel, *a, *i)], over=g.box[2:])
    each = Stage(define("dV", box, body), _template(applied), f"b n c {w.letters('a')} {w.letters('i')}")
    at, b = variables(0, weight.rank), var(weight.rank)
    body = term(weight.rank, each.tensor[(b, *at)], over=[g.box[0]])
    return each, Stage(define("dW", list(weight.box), body), "reduce", f"n c {w.letters('a')} b")
