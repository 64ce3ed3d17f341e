"""A convolution with strides as one GEMM an image, as ``im2col``, its axes split by their index modulo the stride.

Windows that are a stride s apart read every s-th cell of the last axis.  Split into phases first,

    forward          Ph[..,r,q] = X[.., q s + r - p]             the last axis by its index modulo s
                     Col[..,a,i] = Ph[.., a mod s, i + a // s]   contiguous copies again

and the product is that of ``im2col``.  The input gradient adds a kernel cell a to the cells h with h + p = i s + a.
With a = s t + r that is one phase of the kernel for each phase r of the image, h + p = s q + r; no two of them meet:

    input gradient   Wp[r,c,n,t] = W[n,c, s t + r]               the kernel by phases, zeros at its end
                     Col[n,t,q] = G[n, q - t]
                     P[r,c,q] = Wp Col, dX[c, s q + r - p] = P[r,c,q]

so nothing is added up outside the product (a polyphase decomposition).  Without dilation, on one or two axes.
"""

from __future__ import annotations

from codegen.plan import Plan, Stage
from codegen.plans import convolution as conv
from codegen.plans.blocks import image_by_image
from codegen.plans.convolution import Result, Windows
from codegen.plans.im2col import letters_of, product, weight_gradient
from derive.indices import IndexLike, Interval, equal, index, variables
from derive.layers import Applied
from derive.terms import Tensor, define, term


def phases(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward, input_gradient, weight_gradient and, with a bias, bias_gradient; as ``gemm``.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Conv1d
    >>> from derive.terms import tensor
    >>> plans = phases(Conv1d(3, 8, 5, stride=2).on(tensor("X", BATCH, 3, 99)))
    >>> [[stage.name for stage in plan.stages] for plan in plans.values()][:3]
    [['Ph', 'Col', 'S', 'Z'], ['Wp', 'Col', 'P', 'dX'], ['Ph', 'Col', 'dV', 'dW']]
    """
    w = conv.single(applied)
    split = _split(applied, w)
    col = _columns(split.tensor, w)
    results = {
        "forward": Result((split, col, *product(applied, w, col))),
        "input_gradient": Result(_input_gradient(applied, w)),
        "weight_gradient": Result((split, col, *weight_gradient(applied, w, col))),
    }
    return conv.planned("phases", applied, itemsize, results, block=image_by_image)


# --- forward ------------------------------------------------------------------------------------------------------


def _split(applied: Applied, w: Windows) -> Stage:
    """``Ph[b,c,h,r,q] = X[b,c,h, q s + r - p]`` for the last axis; the others stay."""
    last = w.windows[-1]
    slots = (last.padded - 1) // last.stride + 1
    box: list[Interval] = [*applied.x.box[:-1], (index(0), last.stride), (index(0), slots)]
    *at, r, q = variables(0, len(box))
    body = term(len(box), applied.x[(*at, q * last.stride + r - last.before)])
    letters = f"b c {' '.join(w.loops('h')[:-1])} r q"
    return Stage(define("Ph", box, body), "strided", letters, loops=("r",))


def _columns(split: Tensor, w: Windows) -> Stage:
    """``Col[b,c,a,i] = Ph[b,c, .., a mod s, i + a // s]``."""
    last = w.windows[-1]
    box: list[Interval] = [*split.box[:2]]
    box += [(index(0), each.kernel) for each in w.windows] + [(index(0), tiles) for tiles in w.tiles]
    at = variables(0, len(box))
    (b, c), a, i = at[:2], at[2 : 2 + w.axes], at[2 + w.axes :]
    outer = [w.read(axis, i[axis], a[axis]) for axis in range(w.axes - 1)]
    turns = a[-1] // last.stride
    cells = [*outer, a[-1] - turns * last.stride, i[-1] + turns]
    return Stage(define("Col", box, term(len(box), split[(b, c, *cells)])), "strided", letters_of(w), w.loops("a"))


# --- the input gradient -------------------------------------------------------------------------------------------


def _input_gradient(applied: Applied, w: Windows) -> tuple[Stage, ...]:
    """See the head of this file."""
    g, weight = conv.cotangent_of(applied), applied.parameters["weight"]
    kernel = _kernel_by_phases(weight, w)
    col = _shifted(g, kernel.tensor, w)
    phases_box, cells = kernel.tensor.box[: w.axes], kernel.tensor.box[w.axes + 1 :]
    box = [g.box[0], *phases_box, weight.box[1], *col.tensor.box[2 + w.axes :]]
    at = variables(0, len(box))
    b, r, c, q = at[0], at[1 : 1 + w.axes], at[1 + w.axes], at[2 + w.axes :]
    nt = variables(len(box), 1 + w.axes)
    body = term(len(box), kernel.tensor[(*r, c, *nt)], col.tensor[(b, *nt, *q)], over=cells)
    letters = f"b {_names(w, 'r')} c {_names(w, 'q')} n {_names(w, 't')}"
    each = Stage(define("P", box, body), "matmul", letters)
    return kernel, col, each, _together(applied.x, each.tensor, w)


def _names(w: Windows, letter: str) -> str:
    return " ".join(f"{letter}{axis}" for axis in range(w.axes))


def _loops(w: Windows, letter: str) -> tuple[str, ...]:
    return tuple(f"{letter}{axis}" for axis in range(w.axes))


def _kernel_by_phases(weight: Tensor, w: Windows) -> Stage:
    """``Wp[r,c,n,t] = W[n,c, s t + r]``."""
    steps = [v.stride for v in w.windows]
    parts = [(v.kernel + s - 1) // s for v, s in zip(w.windows, steps, strict=True)]
    box: list[IndexLike | Interval] = [*steps, weight.box[1], weight.box[0], *parts]
    at = variables(0, len(box))
    r, c, n, t = at[: w.axes], at[w.axes], at[w.axes + 1], at[w.axes + 2 :]
    body = term(len(box), weight[(n, c, *(s * tk + rk for s, tk, rk in zip(steps, t, r, strict=True)))])
    letters = f"{_names(w, 'r')} c n {_names(w, 't')}"
    return Stage(define("Wp", box, body), "strided", letters, loops=_loops(w, "r"))


def _shifted(g: Tensor, kernel: Tensor, w: Windows) -> Stage:
    """``Col[b,n,t,q] = G[b,n, q - t]``."""
    places = [(v.size - 1 + v.before) // v.stride + 1 for v in w.windows]
    box: list[IndexLike | Interval] = [*g.box[:2], *kernel.box[w.axes + 2 :], *places]
    at = variables(0, len(box))
    b, n, t, q = at[0], at[1], at[2 : 2 + w.axes], at[2 + w.axes :]
    body = term(len(box), g[(b, n, *(qk - tk for qk, tk in zip(q, t, strict=True)))])
    letters = f"b n {_names(w, 't')} {_names(w, 'q')}"
    return Stage(define("Col", box, body), "strided", letters, loops=_loops(w, "t"))


def _together(x: Tensor, each: Tensor, w: Windows) -> Stage:
    """``dX[b,c,h] = Sum_{r,q} [h + p == s q + r] P[b,r,c,q]``."""
    depth = 2 + w.axes
    b, c, *h = variables(0, depth)
    r, q = variables(depth, w.axes), variables(depth + w.axes, w.axes)
    guards = [equal(h[k], v.stride * q[k] + r[k] - v.before) for k, v in enumerate(w.windows)]
    over = [*each.box[1 : 1 + w.axes], *each.box[2 + w.axes :]]
    body = term(depth, each[(b, *r, c, *q)], over=over, guards=guards)
    letters = f"b c {w.letters('h')} {_names(w, 'r')} {_names(w, 'q')}"
    return Stage(define("dX", list(x.box), body), "scatter", letters, loops=_loops(w, "r"))
