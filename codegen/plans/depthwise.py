"""A depthwise convolution: one kernel a channel, images first and columns innermost, as they come in.

A matrix product would have one row a channel, and shifting and adding whole images passes over memory twice for every
kernel cell.  Here the columns are shifted once, one copy for each kernel cell of the last axis, and one contraction
does all the rest: its inner loop runs over the positions of an image, each kernel number times a shifted image.

    forward          Col[b,c,a,h,j] = X[b,c,h, j s + a d - p]             for the last axis; h are the other axes
                     S[b,n,i,j] = Sum_{a',a} W[n,0,a',a] Col[b,n,a, i s' + a' d' - p', j]      and Z = S + u
    input gradient   Col[b,c,a,q,x] = Sum_{j',j} [q == j' s'] [x == j s + a d - p] G[b,c,j',j]
                     dIn[b,c,h,x] = Sum_{a',a} W[c,0,a',a] Col[b,c,a, h + p' - a' d', x]
    weight gradient  dW[n,0,a',a] = Sum_{b,i,j} G[b,n,i,j] Col[b,n,a, i s' + a' d' - p', j]
    bias gradient    du[n] = Sum G

Columns that lie outside an image are left out of the copies, so their cells stay the zeros they were made as; rows
outside lie in a margin.
"""

from __future__ import annotations

from codegen.plan import Plan, PlanError, Stage
from codegen.plans import convolution as conv
from codegen.plans.convolution import Result, Windows
from derive.indices import Index, IndexLike, Interval, equal, index, variables
from derive.layers import Applied, Conv
from derive.terms import define, term

Margin = tuple[tuple[Index, Index], ...]
NONE = (index(0), index(0))


def depthwise(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward, input_gradient, weight_gradient and, with a bias, bias_gradient; as ``gemm``.

    Raises PlanError for a convolution that is not depthwise.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Conv2d
    >>> from derive.terms import tensor
    >>> plans = depthwise(Conv2d(4, 4, 3, groups=4).on(tensor("X", BATCH, 4, 9, 9)))
    >>> [stage.name for stage in plans["forward"].stages]
    ['Col', 'S', 'Z']
    """
    layer = applied.layer
    if not (isinstance(layer, Conv) and layer.is_depthwise):
        raise PlanError(f"{layer}: depthwise is for groups == in_channels == out_channels, more than one")
    w = conv.single(applied)
    results = {
        "forward": _forward(applied, w),
        "input_gradient": _input_gradient(applied, w),
        "weight_gradient": _weight_gradient(applied, w),
    }
    return conv.planned("depthwise", applied, itemsize, results)


def _columns(applied: Applied, w: Windows) -> Stage:
    """``Col[b,c,a,h,j] = X[b,c,h, j s + a d - p]``."""
    x, last = applied.x, w.axes - 1
    n, c, *spatial = x.box
    at = variables(0, 3 + w.axes)
    b, channel, a, *h, j = at
    box: list[IndexLike | Interval] = [n, c, w.windows[last].kernel, *spatial[:-1], w.windows[last].output]
    body = term(len(at), x[(b, channel, *h, w.read(last, j, a))])
    letters = " ".join(("b c", f"a{last}", *w.loops("h")[:-1], f"j{last}"))
    margin = (NONE, NONE, NONE, *w.margin()[1:-2], NONE)
    return Stage(define("Col", box, body), "strided", letters, (f"a{last}",), margin)


def _windows(w: Windows, lead: tuple[Index, Index], at: tuple[Index, ...], a: tuple[Index, ...]) -> tuple[Index, ...]:
    """Where ``Col`` is read for output position ``at`` and kernel cell ``a``."""
    return (*lead, a[-1], *(w.read(axis, at[axis], a[axis]) for axis in range(w.axes - 1)), at[-1])


def _forward(applied: Applied, w: Windows) -> Result:
    """The copies, the contraction, and the bias in its place."""
    weight, bias = applied.parameters["weight"], applied.parameters.get("bias")
    col, depth = _columns(applied, w), 2 + w.axes
    at, a = variables(0, depth), variables(depth, w.axes)
    b, n, *i = at
    cells = _windows(w, (b, n), tuple(i), a)
    body = term(depth, weight[(n, index(0), *a)], col.tensor[cells], over=weight.box[2:])
    letters = f"b n {w.letters('j')} {w.letters('a')}"
    summed = Stage(define("Z" if bias is None else "S", list(applied.y.box), body), "contract", letters)
    if bias is None:
        return Result((col, summed))
    body = term(depth, summed.tensor[at]) + term(depth, bias[n])
    z = Stage(define("Z", list(applied.y.box), body), "pointwise", f"b n {w.letters('j')}", into="S")
    return Result((col, summed, z))


def _weight_gradient(applied: Applied, w: Windows) -> Result:
    """Inner products of the cotangent and the shifted images."""
    weight, g = applied.parameters["weight"], conv.cotangent_of(applied)
    col, depth = _columns(applied, w), 2 + w.axes
    n, _, *a = variables(0, depth)
    b, *i = variables(depth, 1 + w.axes)
    cells = _windows(w, (b, n), tuple(i), tuple(a))
    body = term(depth, g[(b, n, *i)], col.tensor[cells], over=[g.box[0], *g.box[2:]])
    letters = f"n c {w.letters('a')} b {w.letters('j')}"
    return Result((col, Stage(define("dW", list(weight.box), body), "contract", letters)))


def _input_gradient(applied: Applied, w: Windows) -> Result:
    """The cotangent spread out by the strides and shifted, contracted with the kernel turned round."""
    weight = applied.parameters["weight"]
    col, depth = _spread(applied, w), 2 + w.axes
    b, c, *h = variables(0, depth)
    a = variables(depth, w.axes)
    lead = [h[k] + w.windows[k].before - a[k] * w.windows[k].dilation for k in range(w.axes - 1)]
    body = term(depth, weight[(c, index(0), *a)], col.tensor[(b, c, a[-1], *lead, h[-1])], over=weight.box[2:])
    letters = f"b c {w.letters('h')} {w.letters('a')}"
    return Result((col, Stage(define("dIn", list(applied.x.box), body), "contract", letters)))


def _spread(applied: Applied, w: Windows) -> Stage:
    """``Col[b,c,a,q,x] = Sum_{j',j} [q == j' s'] [x == j s + a d - p] G[b,c,j',j]``."""
    g, last = conv.cotangent_of(applied), w.axes - 1
    n, c, *outputs = g.box
    depth = 3 + w.axes
    b, channel, a, *q, x = variables(0, depth)
    js = variables(depth, w.axes)
    guards = [equal(q[k], js[k] * w.windows[k].stride) for k in range(last)]
    guards.append(equal(x, w.read(last, js[last], a)))
    rows = [(v.output - 1) * v.stride + 1 for v in w.windows[:last]]
    box: list[IndexLike | Interval] = [n, c, w.windows[last].kernel, *rows, applied.x.box[-1]]
    body = term(depth, g[(b, channel, *js)], over=outputs, guards=guards)
    letters = " ".join(("b c", f"a{last}", *w.loops("q")[:-1], f"h{last}", *w.loops("j")))
    margin: Margin = (NONE, NONE, NONE, *(_beyond(w, k) for k in range(last)), NONE)
    return Stage(define("Col", box, body), "scatter", letters, (f"a{last}",), margin)


def _beyond(w: Windows, axis: int) -> tuple[Index, Index]:
    """How far ``h + p - a d`` leaves 0 .. (o - 1) s, where that is a number."""
    v = w.windows[axis]
    before = v.extent - 1 - v.before
    after = v.size - 1 + v.before - (v.output - 1) * v.stride
    return index(max(0, before.constant or 0)), index(max(0, after.constant or 0))
