"""A convolution as its definition says it, a stage a result: the plan of a machine that forms windows on the way.

    forward          Z[b,n,i] = Sum_{c,a} W[n,c,a] X[b,c, i s + a d - p] + u[n]
    input gradient   dX[b,c,h] = Sum_{n,a} [s | h + p - a d] W[n,c,a] G[b,n, (h + p - a d) // s]
    weight gradient  dW[n,c,a] = Sum_{b,i} G[b,n,i] X[b,c, i s + a d - p]
    bias gradient    du[n] = Sum_{b,i} G[b,n,i]

The input gradient is gathered: each cell collects what reached it, so every cell is written once and nothing is added
to memory.  A CUDA kernel fetches elements by these very indices, a block at a time (``codegen.templates.cuda``), so no
stage comes before the result.  In groups of Og outputs and Cg inputs, output n reads the inputs (n // Og) Cg + c, and a
group is a product by itself.

Where most terms of that sum are zero, by strides or by groups, ``codegen.plans.residues`` has the same without them.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from codegen.contraction import contraction
from codegen.grouping import by_groups
from codegen.plan import Plan, Stage, is_batch
from codegen.plans import convolution as conv
from codegen.plans.convolution import Result
from codegen.plans.residues import fewer_terms, residue_products, residues
from derive.indices import Divides, Interval, index, var, variables
from derive.layers import Applied, Conv
from derive.terms import Expr, Tensor, constant, define, term

LEAN = 5  # a product with fewer rows than this, or terms, is left to a thread an element
SHORT = 8
FAR_FEWER = 4


def definition(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward, input_gradient, weight_gradient and, with a bias, bias_gradient.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Conv2d
    >>> from derive.terms import tensor
    >>> plans = definition(Conv2d(64, 64, 3, padding=1).on(tensor("X", BATCH, 64, 56, 56)))
    >>> {name: [(s.name, s.template) for s in plan.stages] for name, plan in plans.items()}  # doctest: +ELLIPSIS
    {'forward': [('Z', 'product')], 'input_gradient': [('dX', 'product')], 'weight_gradient': [('dW', 'product')], ...}
    >>> definition(Conv2d(64, 64, 3, groups=4).on(tensor("X", BATCH, 64, 56, 56)))["forward"].stages[0].template
    'product'
    """
    axes = len(applied.windows)
    output = define("Z", list(applied.y.box), _forward(applied))
    channel = () if _layer(applied).is_depthwise else ("c",)
    g = conv.cotangent_of(applied)
    results = {
        "forward": result_of(output, "b n", axis_letters("i", axes), *channel, axis_letters("a", axes)),
        "input_gradient": result_of(
            define("dX", list(applied.x.box), input_gradient(applied, g)),
            "b c", axis_letters("h", axes), *(("n",) if channel else ()), axis_letters("a", axes),
        ),
        "weight_gradient": result_of(
            define("dW", list(applied.parameters["weight"].box), weight_gradient(applied, g, applied.x)),
            "n c", axis_letters("a", axes), "b", axis_letters("i", axes),
        ),
    }  # fmt: skip
    plans = conv.planned("definition", applied, itemsize, results)
    return {**plans, **_without_zeros(applied, plans["input_gradient"], itemsize)}


def _without_zeros(applied: Applied, plan: Plan, itemsize: int) -> dict[str, Plan]:
    """The input gradient as a sum of fewer terms, where that gains something; else nothing.

    A thread an element fetches two numbers for each product, one of a tile of threads half a number.  So where there is
    no matrix product any more, but was one, there have to be far fewer terms.
    """
    counted = fewer_terms(applied)
    if counted is None or counted[1] >= counted[0]:
        return {}
    if not _layer(applied).is_depthwise:
        products = residue_products(applied, itemsize=itemsize)
        if is_product(products["input_gradient"].stages[0]):
            return products
    worth = FAR_FEWER if is_product(plan.stages[0]) else 1
    return residues(applied, itemsize=itemsize) if counted[1] * worth <= counted[0] else {}


def _forward(applied: Applied) -> Expr:
    """The layer's own definition; in groups with the sum over channels written out, if there is but one as well."""
    layer, weight, bias = _layer(applied), applied.parameters["weight"], applied.parameters.get("bias")
    if not layer.is_grouped or layer.is_depthwise:
        return applied.y.body or constant(applied.y.rank, 0)
    depth = applied.y.rank
    b, n, *positions = variables(0, depth)
    c, *a = variables(depth, 1 + len(applied.windows))
    inputs, outputs = layer.group_sizes()
    cells = [w.read(i, e) for w, i, e in zip(applied.windows, positions, a, strict=True)]
    read = applied.x[(b, n // outputs * inputs + c, *cells)]
    body = term(depth, weight[(n, c, *a)], read, over=weight.box[1:])
    return body if bias is None else body + term(depth, bias[n])


def result_of(tensor: Tensor, *letters: str) -> Result:
    """The one stage of a result: as a matrix product where that pays, else as a sum over the batch, if it is one."""
    stage = Stage(tensor, "product", " ".join(letters))
    if is_product(by_groups(stage)):
        return Result((stage,))
    summed = [b for m in stage.body.monomials for b in m.binders]
    return Result((replace(stage, template="reduce" if any(map(is_batch, summed)) else "cells"),))


def is_product(stage: Stage) -> bool:
    """Whether a stage is a matrix product with enough rows and terms; a size that is a symbol is enough."""
    c = contraction(stage)
    if c is None:
        return False
    box = (*stage.tensor.box, *c.monomial.binders)
    rows, depth = (_count([box[v] for v in group]) for group in (c.rows, c.depth))
    return (rows is None or rows >= LEAN) and (depth is None or depth >= SHORT)


def _count(box: list[Interval]) -> int | None:
    """The cells of some axes; None where a size is a symbol."""
    sizes = [(hi - lo).constant for lo, hi in box]
    known = [n for n in sizes if n is not None]
    return prod(known) if len(known) == len(sizes) else None


def axis_letters(letter: str, axes: int) -> str:
    """A letter for each axis.

    >>> axis_letters("i", 2)
    'i0 i1'
    """
    return " ".join(f"{letter}{axis}" for axis in range(axes))


def _layer(applied: Applied) -> Conv:
    if not isinstance(applied.layer, Conv):
        raise TypeError(f"layer={applied.layer!r}: a convolution is needed")
    return applied.layer


def input_gradient(applied: Applied, g: Tensor) -> Expr:
    """What reached a cell, from each output whose window it lies in, through the kernel cell it lies under.

    The cotangent of the output is ``g``.
    """
    weight, axes, layer = applied.parameters["weight"], len(applied.windows), _layer(applied)
    depth = 2 + axes
    (b, c), hs = variables(0, 2), variables(2, axes)
    a = variables(depth if layer.is_depthwise else depth + 1, axes)
    n, own = (c, index(0)) if layer.is_depthwise else (var(depth), c)
    over = [*(() if layer.is_depthwise else weight.box[:1]), *weight.box[2:]]
    if layer.is_grouped and not layer.is_depthwise:
        inputs, outputs = layer.group_sizes()
        own = c - n // outputs * inputs
    reached = [h + w.before - cell * w.dilation for h, cell, w in zip(hs, a, applied.windows, strict=True)]
    guards = [Divides(w.stride, e) for w, e in zip(applied.windows, reached, strict=True)]
    places = [e // w.stride for w, e in zip(applied.windows, reached, strict=True)]
    return term(depth, weight[(n, own, *a)], g[(b, n, *places)], over=over, guards=guards)


def weight_gradient(applied: Applied, g: Tensor, x: Tensor) -> Expr:
    """Over all images and positions, the cotangent ``g`` times what lies under the kernel cell in the input ``x``."""
    axes, layer = len(applied.windows), _layer(applied)
    depth = 2 + axes
    n, c, *a = variables(0, depth)
    b, *positions = variables(depth, 1 + axes)
    channel = c
    if layer.is_grouped:
        inputs, outputs = layer.group_sizes()
        channel = n if layer.is_depthwise else n // outputs * inputs + c
    cells = [w.read(i, e) for w, i, e in zip(applied.windows, positions, a, strict=True)]
    return term(depth, g[(b, n, *positions)], x[(b, channel, *cells)], over=[g.box[0], *g.box[2:]])
