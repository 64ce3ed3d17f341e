"""A convolution with stride 1 by GEMMs on shifted views: no window is copied along the first axis.

    forward          S[b] = Sum_a W_a Col[b] shifted by a rows, and Z = S + u
    input gradient   dCol[b] = Sum_a W_a' G[b] shifted back, and windows on the other axes added back (col2im)
    weight gradient  dW_a = Sum_b G[b] (Col[b] shifted by a rows)'

``Col`` holds the windows of the axes after the first (of one axis: the input), with rows of zeros around the first
axis.  Its rows lie one after the other, so the windows of kernel row a are an offset into it.  In place of one product
with all kernel cells there is one for each kernel row, and the input is copied k times less.  A weight gradient has
nothing to add up then; forward and input gradient add k products.
"""

from __future__ import annotations

from codegen.plan import Plan, Stage
from codegen.plans import convolution as conv
from codegen.plans.blocks import image_by_image
from codegen.plans.convolution import Result, Windows
from derive.indices import Index, IndexLike, Interval, equal, index, var, variables
from derive.layers import Applied
from derive.terms import define, term

NONE = (index(0), index(0))


def shift(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward, input_gradient, weight_gradient and, with a bias, bias_gradient; as ``gemm``.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Conv2d
    >>> from derive.terms import tensor
    >>> plans = shift(Conv2d(16, 16, 5, padding=2).on(tensor("X", BATCH, 16, 56, 56)))
    >>> [stage.name for stage in plans["weight_gradient"].stages]
    ['Col', 'dV', 'dT', 'dW']
    """
    w = conv.single(applied)
    results = {
        "forward": Result(_forward(applied, w)),
        "input_gradient": Result(_input_gradient(applied, w)),
        "weight_gradient": Result(_weight_gradient(applied, w)),
    }
    return conv.planned("shift", applied, itemsize, results, block=image_by_image)


def _columns(applied: Applied, w: Windows) -> Stage:
    """``Col[b,c,a',h,i'] = X[b,c,h, i' s' + a' d' - p']``: windows of the axes after the first."""
    x, more = applied.x, w.axes - 1
    at = variables(0, 3 + 2 * more)
    (b, c), a, h, i = at[:2], at[2 : 2 + more], at[2 + more], at[3 + more :]
    cells = [w.read(1 + k, i[k], a[k]) for k in range(more)]
    outputs: list[Interval] = [(index(0), tiles) for tiles in w.tiles[1:]]
    box: list[IndexLike | Interval] = [*x.box[:2], *_kernel(applied)[1:], x.box[2], *outputs]
    col = define("Col", box, term(len(at), x[(b, c, h, *cells)]))
    letters = " ".join(("b c", *w.loops("a")[1:], "h0", *w.loops("i")[1:]))
    margin = (*[NONE] * (2 + more), w.margin()[1], *[NONE] * more)
    return Stage(col, "strided", letters, w.loops("a")[1:], margin)


def _kernel(applied: Applied) -> tuple[Interval, ...]:
    """The axes of a kernel."""
    return applied.parameters["weight"].box[2:]


def _row(w: Windows, i: Index, a: Index) -> Index:
    return w.read(0, i, a)


def _rows_of_kernel(applied: Applied, w: Windows) -> Stage:
    """``T[a0,n,c,a'] = W[n,c,a0,a']``: a matrix for each row of the kernel."""
    weight = applied.parameters["weight"]
    a, n, c, *more = variables(0, weight.rank)
    n_box, c_box, first, *others = weight.box
    tensor = define("T", [first, n_box, c_box, *others], term(weight.rank, weight[(n, c, a, *more)]))
    return Stage(tensor, "strided", " ".join(("a0 n c", *w.loops("a")[1:])))


def _forward(applied: Applied, w: Windows) -> tuple[Stage, ...]:
    """``S[b,n,i] = Sum_{a0,c,a'} T[a0,n,c,a'] Col[b,c,a', i0 + a0 d0 - p0, i']`` and ``Z = S + u``, in its place."""
    bias, depth = applied.parameters.get("bias"), 2 + w.axes
    t, col = _rows_of_kernel(applied, w), _columns(applied, w)
    at = variables(0, depth)
    b, n, first, *i = at
    a, c, *more = variables(depth, 1 + w.axes)
    read = col.tensor[(b, c, *more, _row(w, first, a), *i)]
    over = [_kernel(applied)[0], applied.parameters["weight"].box[1], *_kernel(applied)[1:]]
    body = term(depth, t.tensor[(a, n, c, *more)], read, over=over)
    letters = " ".join(("b n", *w.loops("i"), "a0 c", *w.loops("a")[1:]))
    s = Stage(define("Z" if bias is None else "S", list(applied.y.box), body), "shifted", letters, ("a0",))
    if bias is None:
        return t, col, s
    body = term(depth, s.tensor[at]) + term(depth, bias[n])
    return t, col, s, Stage(define("Z", list(applied.y.box), body), "pointwise", letters, into=s.name)


def _weight_gradient(applied: Applied, w: Windows) -> tuple[Stage, ...]:
    """``dV[a0,b,n,c,a'] = Sum_i G[b,n,i] Col[b,c,a', i0 + a0 d0 - p0, i']``, ``dT = Sum_b dV``, and dT turned."""
    weight, g = applied.parameters["weight"], conv.cotangent_of(applied)
    col = _columns(applied, w)
    n_box, c_box, first_box, *others = weight.box
    box: list[IndexLike | Interval] = [first_box, g.box[0], n_box, c_box, *others]
    a, b, n, c, *more = variables(0, len(box))
    first, *i = variables(len(box), w.axes)
    read = col.tensor[(b, c, *more, _row(w, first, a), *i)]
    body = term(len(box), g[(b, n, first, *i)], read, over=g.box[2:])
    letters = " ".join(("a0 b n c", *w.loops("a")[1:], *w.loops("i")))
    each = Stage(define("dV", box, body), "shifted", letters, ("a0",))
    (a, *rest), b = variables(0, weight.rank), var(weight.rank)
    body = term(weight.rank, each.tensor[(a, b, *rest)], over=[g.box[0]])
    total = Stage(define("dT", [box[0], *box[2:]], body), "reduce", " ".join(("a0 n c", *w.loops("a")[1:], "b")))
    n, c, a, *more = variables(0, weight.rank)
    turned = define("dW", list(weight.box), term(weight.rank, total.tensor[(a, n, c, *more)]))
    return col, each, total, Stage(turned, "strided", f"n c {w.letters('a')}")


def _input_gradient(applied: Applied, w: Windows) -> tuple[Stage, ...]:
    """``dCol[b,c,a',h,i'] = Sum_{a0,n} T[a0,n,c,a'] Go[b,n, h + p0 - a0 d0, i']``, and ``dX`` as its windows added.

    ``Go`` is the cotangent with rows of zeros around it.  For one axis ``dCol`` is ``dX``.
    """
    g, t, more = conv.cotangent_of(applied), _rows_of_kernel(applied, w), w.axes - 1
    go = _cotangent(applied, w)
    outputs: list[Interval] = list(g.box[3:])
    box: list[IndexLike | Interval] = [*applied.x.box[:2], *_kernel(applied)[1:], applied.x.box[2], *outputs]
    at = variables(0, len(box))
    (b, c), others, h, i = at[:2], at[2 : 2 + more], at[2 + more], at[3 + more :]
    a, n = variables(len(box), 2)
    there = h + w.windows[0].before - a * w.windows[0].dilation
    over = [_kernel(applied)[0], g.box[1]]
    body = term(len(box), t.tensor[(a, n, c, *others)], go.tensor[(b, n, there, *i)], over=over)
    letters = " ".join(("b c", *w.loops("a")[1:], "h0", *w.loops("i")[1:], "a0 n"))
    dcol = Stage(define("dCol" if more else "dX", box, body), "shifted", letters, ("a0",))
    return (t, go, dcol, _added_back(applied, w, dcol)) if more else (t, go, dcol)


def _cotangent(applied: Applied, w: Windows) -> Stage:
    """``Go = G`` with as many rows of zeros as the kernel reaches beyond it."""
    g, v = conv.cotangent_of(applied), w.windows[0]
    body = term(g.rank, g[variables(0, g.rank)])
    before, after = v.extent - 1 - v.before, v.size + v.before - v.output
    sides = (index(max(0, before.constant or 0)), index(max(0, after.constant or 0)))
    margin = (NONE, NONE, sides, *[NONE] * (w.axes - 1))
    return Stage(define("Go", list(g.box), body), "strided", f"b n {w.letters('i')}", margin=margin)


def _added_back(applied: Applied, w: Windows, dcol: Stage) -> Stage:
    """``dX[b,c,h] = Sum_{a',i'} [h' == i' s' + a' d' - p'] dCol[b,c,a',h0,i']``."""
    more, depth = w.axes - 1, 2 + w.axes
    b, c, h, *others = variables(0, depth)
    a, i = variables(depth, more), variables(depth + more, more)
    guards = [equal(others[k], w.read(1 + k, i[k], a[k])) for k in range(more)]
    over = [*dcol.tensor.box[2 : 2 + more], *dcol.tensor.box[3 + more :]]
    body = term(depth, dcol.tensor[(b, c, *a, h, *i)], over=over, guards=guards)
    letters = " ".join(("b c", *w.loops("h"), *w.loops("a")[1:], *w.loops("i")[1:]))
    return Stage(define("dX", list(applied.x.box), body), "scatter", letters, w.loops("a")[1:])
