"""A convolution by itself as a matrix product: the windows laid out (im2col), and every result one GEMM.

    forward          Z = [T|u] [Col; 1]        the windows of the input, side by side, times the kernel
    input gradient   dCol = T' dZ              and every window added back to where it was cut out (col2im)
    weight gradient  dW = dZ Col'              summed over blocks of the batch
    bias gradient    du = Sum dZ

Where a kernel has one cell and nothing is padded, the windows are the input itself, so they are cut from it directly
without a copy that would only add zeros around it.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from codegen.plan import Plan, Stage
from codegen.plans import convolution as conv
from codegen.plans import innermost as inner
from codegen.plans.convolution import Result, Windows
from derive.indices import IndexLike, Interval, variables
from derive.layers import Applied
from derive.terms import Tensor, define, term


def gemm(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward, input_gradient, weight_gradient and, with a bias, bias_gradient.

    ``applied`` is a convolution on an input of any sizes; with sizes that are numbers and the batch N the plans can
    be printed.  ``itemsize`` is the number of bytes of an element, for the size of a block.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Conv2d
    >>> from derive.terms import tensor
    >>> plans = gemm(Conv2d(6, 16, 5).on(tensor("X", BATCH, 6, 14, 14)))
    >>> [stage.name for stage in plans["forward"].stages], plans["forward"].block
    (['In', 'T', 'ut', 'Col', 'One', 'Z'], 16)
    """
    w = conv.single(applied)
    results = {
        "forward": _forward(applied, w),
        "input_gradient": _input_gradient(applied, w),
        "weight_gradient": _weight_gradient(applied, w),
    }
    return conv.planned("gemm", applied, itemsize, results)


def _forward(applied: Applied, w: Windows) -> Result:
    t, *u = inner.kernel(applied.parameters["weight"], applied.parameters.get("bias"), w, Fraction(1))
    *image, col, one = _columns(applied, w)
    z = inner.product(t, u[0] if u else None, col, one, w, "Z")
    stages = (*image, t, *u, col, *([one] if u else []), z)
    return Result(stages, inner.matrices(w, bias=True)[:2] if u else ())


def _input_gradient(applied: Applied, w: Windows) -> Result:
    t, *_ = inner.kernel(applied.parameters["weight"], None, w, Fraction(1))
    dz = inner.batch_last(conv.cotangent_of(applied), w)
    image = inner.image(applied.x, w, w.margin())
    dcol, added = inner.input_gradient(t, dz, image.tensor, w)
    if conv.is_product(applied):
        added = replace(added, template="view", loops=(), into=dcol.name)
    return Result((t, dz, dcol, added))


def _weight_gradient(applied: Applied, w: Windows) -> Result:
    *image, col, one = _columns(applied, w)
    dz = inner.batch_last(conv.cotangent_of(applied), w)
    (gradient,) = inner.kernel_gradient(dz, col, one, w, bias=False)
    return Result((*image, col, dz, replace(gradient, tensor=replace(gradient.tensor, name="dW"))))


def _columns(applied: Applied, w: Windows) -> tuple[Stage, ...]:
    """The image unless it is not needed, its windows, and the row of ones."""
    image = inner.image(applied.x, w, w.margin())
    col, one = inner.columns(image.tensor, w)
    if is_pointwise(applied):
        return replace(col, tensor=_cut_out(applied, w), template="strided", loops=w.loops("e")), one
    return image, col, one


def is_pointwise(applied: Applied) -> bool:
    """Whether every kernel has one cell and nothing is padded."""
    return all(w.kernel.constant == 1 and w.before.constant == w.after.constant == 0 for w in applied.windows)


def _cut_out(applied: Applied, w: Windows) -> Tensor:
    """``Col[c,e,j,b] = X[b,c,j s + e d]``: windows of one cell, straight from the input."""
    x = applied.x
    at = variables(0, 2 * w.axes + 2)
    cells = [w.read(axis, at[1 + w.axes + axis], at[1 + axis]) for axis in range(w.axes)]
    box: list[IndexLike | Interval] = [x.box[1], *w.cells, *w.tiles, x.box[0]]
    return define("Col", box, term(len(at), x[(at[-1], at[0], *cells)]))
