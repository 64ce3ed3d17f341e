"""A convolution by itself as its definition says it: shift the image, multiply by one number of the kernel, add.

    forward          Z[n] += W[n,c,a] * In[c, shifted by a]      for every n, c, a
    input gradient   dIn[c, shifted by a] += W[n,c,a] * dZ[n]    for every c, n, a
    weight gradient  dW[n,c,a] = <dZ[n], In[c, shifted by a]>    for every n, c, a
    bias gradient    du[n] = Sum dZ[n]

In groups of Og outputs and Cg inputs, output n reads the inputs (n // Og) Cg + c with c < Cg.  Each statement works on
all positions of a block of images.  No window is copied, so this needs the least memory; for more than a handful of
kernel numbers it is slow.
"""

from __future__ import annotations

from codegen.plan import Plan, Stage
from codegen.plans import convolution as conv
from codegen.plans import innermost as inner
from codegen.plans.convolution import Result, Windows
from derive.indices import equal, variables
from derive.layers import Applied
from derive.terms import define, term


def direct(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward, input_gradient, weight_gradient and, with a bias, bias_gradient; as ``gemm``.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Conv1d
    >>> from derive.terms import tensor
    >>> plans = direct(Conv1d(1, 2, 3).on(tensor("X", BATCH, 1, 100)))
    >>> [stage.name for stage in plans["input_gradient"].stages]
    ['Go', 'dIn']
    """
    w = conv.single(applied)
    results = {
        "forward": _forward(applied, w),
        "input_gradient": (_grouped_input_gradient if conv.is_grouped(applied) else _input_gradient)(applied, w),
        "weight_gradient": _weight_gradient(applied, w),
    }
    return conv.planned("direct", applied, itemsize, results)


def _forward(applied: Applied, w: Windows) -> Result:
    """``S[n,j,b] = Sum_{c,a} W[n,c,a] In[c, j s + a d - p, b]`` and ``Z = S + u``, in the place of S."""
    weight, bias = applied.parameters["weight"], applied.parameters.get("bias")
    image = inner.image(applied.x, w, w.margin())
    n_batch, *positions = applied.y.box
    box = [*positions, n_batch]
    at = variables(0, len(box))
    n, js, b = at[0], at[1:-1], at[-1]
    c, *a = variables(len(at), 1 + w.axes)
    cells = [w.read(axis, js[axis], a[axis]) for axis in range(w.axes)]
    body = term(
        len(at), weight[(n, c, *a)], image.tensor[(conv.channel(applied, n, c), *cells, b)], over=weight.box[1:]
    )
    letters = f"n {w.letters('j')} b c {w.letters('a')}"
    name = "Z" if bias is None else "S"
    summed = Stage(define(name, box, body), "strided", letters, ("n", "c", *w.loops("a")))
    if bias is None:
        return Result((image, summed))
    body = term(len(at), summed.tensor[at]) + term(len(at), bias[n])
    z = Stage(define("Z", box, body), "pointwise", f"n {w.letters('j')} b", into=summed.name)
    return Result((image, summed, z))


def _input_gradient(applied: Applied, w: Windows) -> Result:
    """``dIn[c,h,b] = Sum_{n,a,j} [h == j s + a d - p] W[n,c,a] Go[n,j,b]``."""
    weight = applied.parameters["weight"]
    dz = inner.batch_last(conv.cotangent_of(applied), w)
    image = inner.image(applied.x, w, w.margin())
    depth = 2 + w.axes
    at = variables(0, depth)
    n, *a = variables(depth, 1 + w.axes)
    js = variables(depth + 1 + w.axes, w.axes)
    guards = [equal(at[1 + axis], w.read(axis, js[axis], a[axis])) for axis in range(w.axes)]
    over = [weight.box[0], *weight.box[2:], *dz.tensor.box[1:-1]]
    body = term(depth, weight[(n, at[0], *a)], dz.tensor[(n, *js, at[-1])], over=over, guards=guards)
    letters = f"c {w.letters('h')} b n {w.letters('a')} {w.letters('j')}"
    loops = ("c", "n", *w.loops("a"))
    return Result((dz, Stage(define("dIn", list(image.tensor.box), body), "scatter", letters, loops, w.margin())))


def _weight_gradient(applied: Applied, w: Windows) -> Result:
    """``dW[n,c,a] = Sum_{j,b} Go[n,j,b] In[c, j s + a d - p, b]``."""
    weight = applied.parameters["weight"]
    image = inner.image(applied.x, w, w.margin())
    dz = inner.batch_last(conv.cotangent_of(applied), w)
    at = variables(0, weight.rank)
    *js, b = variables(weight.rank, w.axes + 1)
    cells = [w.read(axis, js[axis], at[2 + axis]) for axis in range(w.axes)]
    channel = conv.channel(applied, at[0], at[1])
    body = term(len(at), dz.tensor[(at[0], *js, b)], image.tensor[(channel, *cells, b)], over=dz.tensor.box[1:])
    letters = f"n c {w.letters('a')} {w.letters('j')} b"
    return Result((image, dz, Stage(define("dW", list(weight.box), body), "dot", letters, ("n", "c", *w.loops("a")))))


def _grouped_input_gradient(applied: Applied, w: Windows) -> Result:
    """``dIn[c,h,b] = Sum_{n,e,a,j} [c == (n // Og) Cg + e] [h == j s + a d - p] W[n,e,a] Go[n,j,b]``."""
    weight = applied.parameters["weight"]
    dz = inner.batch_last(conv.cotangent_of(applied), w)
    image = inner.image(applied.x, w, w.margin())
    depth = 2 + w.axes
    at = variables(0, depth)
    n, e, *a = variables(depth, 2 + w.axes)
    js = variables(depth + 2 + w.axes, w.axes)
    guards = [equal(at[1 + axis], w.read(axis, js[axis], a[axis])) for axis in range(w.axes)]
    guards.append(equal(at[0], conv.channel(applied, n, e)))
    over = [*weight.box, *dz.tensor.box[1:-1]]
    body = term(depth, weight[(n, e, *a)], dz.tensor[(n, *js, at[-1])], over=over, guards=guards)
    letters = f"c {w.letters('h')} b n e {w.letters('a')} {w.letters('j')}"
    loops = ("n", "e", *w.loops("a"))
    return Result((dz, Stage(define("dIn", list(image.tensor.box), body), "scatter", letters, loops, w.margin())))
