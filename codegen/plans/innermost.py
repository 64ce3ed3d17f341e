"""The stages of a convolution as one GEMM over windows with the batch innermost: ``gemm``, ``toeplitz``, networks.

The input is copied to channels, rows, columns, batch with a margin of zeros; a window matrix ``Col`` lays the cells
under every window one below the other, a row of ones below them takes the bias along, and one GEMM does the rest.
With a tile of several outputs (``convolution.Windows``) the kernel is written once for each of them, shifted:
``T[r,n,c,e] = Sum_a [e == a d + r s] W[n,c,a]``.  A tile of one output is im2col: the kernel is copied as it is, and
there are no axes r.
"""

from __future__ import annotations

from fractions import Fraction

from codegen.plan import Matrix, Stage
from codegen.plans.convolution import Windows
from derive.indices import Index, equal, index, variables
from derive.terms import Tensor, constant, define, term


def image(x: Tensor, w: Windows, margin: tuple[tuple[Index, Index], ...]) -> Stage:
    """``In[c,h,b] = X[b,c,h]``: the batch becomes the innermost axis."""
    n, c, *spatial = x.box
    at = variables(0, 2 + w.axes)
    tensor = define(f"In{w.suffix}", [c, *spatial, n], term(len(at), x[(at[-1], *at[:-1])]))
    return Stage(tensor, "strided", f"c {w.letters('h')} b", margin=margin)


def columns(x: Tensor, w: Windows) -> tuple[Stage, Stage]:
    """``Col[c,e,j,b] = In[c, j t s + e - p, b]`` and the row of ones that takes the bias along."""
    at = variables(0, 2 * w.axes + 2)
    c, es, js, b = at[0], at[1 : 1 + w.axes], at[1 + w.axes : -1], at[-1]
    cells = [w.read(axis, js[axis], es[axis]) for axis in range(w.axes)]
    batch = x.box[-1]
    col = define(f"Col{w.suffix}", [x.box[0], *w.cells, *w.tiles, batch], term(len(at), x[(c, *cells, b)]))
    one = define(f"One{w.suffix}", [*w.tiles, batch], constant(w.axes + 1, 1))
    letters = f"c {w.letters('e')} {w.letters('j')} b"
    return (
        Stage(col, "windows", letters),
        Stage(one, "constant", f"{w.letters('j')} b"),
    )


def kernel(weight: Tensor, bias: Tensor | None, w: Windows, scale: Fraction) -> tuple[Stage, ...]:
    """``T[r,n,c,e] = Sum_a [e == place(r, a)] scale W[n,c,a]`` and ``ut[r,n] = scale u[n]``."""
    stages = [_toeplitz(weight, w, scale) if w.slots else _copied(weight, w, scale)]
    if bias is not None:
        at = variables(0, len(w.slots) + 1)
        body = term(len(at), bias[at[-1]], coefficient=scale)
        short = define(f"ut{w.suffix}", [*w.slots, bias.box[0]], body)
        stages.append(Stage(short, "strided", f"{w.letters('r')} n", loops=w.loops("r")))
    return tuple(stages)


def _toeplitz(weight: Tensor, w: Windows, scale: Fraction) -> Stage:
    """The kernel written once for each output of the tile, shifted."""
    n_box, c_box = weight.box[0], weight.box[1]
    depth = 2 * w.axes + 2
    at = variables(0, depth)
    rs, n, c, es = at[: w.axes], at[w.axes], at[w.axes + 1], at[w.axes + 2 :]
    a = variables(depth, w.axes)
    guards = [equal(es[k], w.place(k, rs[k], a[k])) for k in range(w.axes)]
    body = term(depth, weight[(n, c, *a)], over=weight.box[2:], guards=guards, coefficient=scale)
    shifted = define(f"T{w.suffix}", [*w.slots, n_box, c_box, *w.cells], body)
    letters = f"{w.letters('r')} n c {w.letters('e')} {w.letters('a')}"
    return Stage(shifted, "scatter", letters, loops=w.loops("r"))


def _copied(weight: Tensor, w: Windows, scale: Fraction) -> Stage:
    """The kernel as it is: ``T[n,c,e] = scale W[n,c,e]``."""
    at = variables(0, weight.rank)
    copy = define(f"T{w.suffix}", list(weight.box), term(len(at), weight[at], coefficient=scale))
    return Stage(copy, "strided", f"n c {w.letters('e')}")


def product(t: Stage, u: Stage | None, col: Stage, one: Stage | None, w: Windows, name: str) -> Stage:
    """``Z[r,n,j,b] = Sum_{c,e} T[r,n,c,e] Col[c,e,j,b] + ut[r,n] One[j,b]``: the GEMM."""
    rows = len(w.slots) + 1
    box = [*t.tensor.box[:rows], *col.tensor.box[w.axes + 1 :]]
    at = variables(0, len(box))
    rn, jb = at[:rows], at[rows:]
    k = variables(len(at), w.axes + 1)
    body = term(len(at), t.tensor[(*rn, *k)], col.tensor[(*k, *jb)], over=t.tensor.box[rows:])
    if u is not None and one is not None:
        body = body + term(len(at), u.tensor[rn], one.tensor[jb])
    letters = f"{w.letters('r')} n {w.letters('j')} b c {w.letters('e')}"
    return Stage(define(name, box, body), "matmul", letters)


def matrices(w: Windows, bias: bool) -> tuple[Matrix, ...]:
    """[T|ut], [Col; One] and, for the gradients, [dT|dut]."""
    rows = len(w.slots) + 1
    if not bias:
        return ()
    return (
        Matrix(f"Kernel{w.suffix}", (f"T{w.suffix}", f"ut{w.suffix}"), (rows, rows), "columns"),
        Matrix(f"Windows{w.suffix}", (f"Col{w.suffix}", f"One{w.suffix}"), (w.axes + 1, 0), "rows"),
        Matrix(f"dKernel{w.suffix}", (f"dT{w.suffix}", f"dut{w.suffix}"), (rows, rows), "columns"),
    )


def kernel_gradient(dz: Stage, col: Stage, one: Stage, w: Windows, bias: bool) -> tuple[Stage, ...]:
    """``dT[r,n,c,e] = Sum_{j,b} dZ[r,n,j,b] Col[c,e,j,b]`` and ``dut[r,n] = Sum_{j,b} dZ[r,n,j,b] One[j,b]``."""
    rows = len(w.slots) + 1
    head, summed = dz.tensor.box[:rows], dz.tensor.box[rows:]
    tail = col.tensor.box[: w.axes + 1]
    at = variables(0, len(head) + len(tail))
    rn, ce = at[: len(head)], at[len(head) :]
    jb = variables(len(at), len(summed))
    body = term(len(at), dz.tensor[(*rn, *jb)], col.tensor[(*ce, *jb)], over=summed)
    letters = f"{w.letters('r')} n c {w.letters('e')} {w.letters('j')} b"
    stages = [Stage(define(f"dT{w.suffix}", [*head, *tail], body), "matmul", letters)]
    if bias:
        rn, jb = variables(0, len(head)), variables(len(head), len(summed))
        body = term(len(head), dz.tensor[(*rn, *jb)], one.tensor[jb], over=summed)
        letters = f"{w.letters('r')} n {w.letters('j')} b"
        stages.append(Stage(define(f"dut{w.suffix}", list(head), body), "matmul", letters))
    return tuple(stages)


def untile(gradients: tuple[Stage, ...], weight: Tensor, bias: Tensor | None, w: Windows) -> tuple[Stage, ...]:
    """``dW[n,c,a] = Sum_r dT[r,n,c, place(r, a)]`` and ``du[n] = Sum_r dut[r,n]``."""
    at = variables(0, weight.rank)
    rs = variables(weight.rank, len(w.slots))
    within = rs or (index(0),) * w.axes
    cells = [w.place(k, within[k], at[2 + k]) for k in range(w.axes)]
    body = term(weight.rank, gradients[0].tensor[(*rs, at[0], at[1], *cells)], over=w.slots)
    letters = f"n c {w.letters('a')} {w.letters('r')}"
    stages = [Stage(define(f"dW{w.suffix}", list(weight.box), body), "strided", letters, loops=w.loops("r"))]
    if bias is not None:
        (n,), rs = variables(0, 1), variables(1, len(w.slots))
        body = term(1, gradients[1].tensor[(*rs, n)], over=w.slots)
        letters = f"n {w.letters('r')}"
        stages.append(Stage(define(f"du{w.suffix}", list(bias.box), body), "strided", letters, loops=w.loops("r")))
    return tuple(stages)


def input_gradient(t: Stage, dz: Stage, x: Tensor, w: Windows) -> tuple[Stage, Stage]:
    """``dCol[c,e,j,b] = Sum_{r,n} T dZ``, then ``dIn[c,h,b] = Sum_{e,j} [h == read(j, e)] dCol[c,e,j,b]``."""
    rows = len(w.slots) + 1
    summed = t.tensor.box[:rows]
    head, tail = t.tensor.box[rows:], dz.tensor.box[rows:]
    at = variables(0, len(head) + len(tail))
    rn = variables(len(at), len(summed))
    ce, jb = at[: len(head)], at[len(head) :]
    body = term(len(at), t.tensor[(*rn, *ce)], dz.tensor[(*rn, *jb)], over=summed)
    letters = f"c {w.letters('e')} {w.letters('j')} b {w.letters('r')} n"
    dcol = Stage(define(f"dCol{w.suffix}", [*head, *tail], body), "matmul", letters)
    depth = w.axes + 2
    at = variables(0, depth)
    es, js = variables(depth, w.axes), variables(depth + w.axes, w.axes)
    guards = [equal(at[1 + k], w.read(k, js[k], es[k])) for k in range(w.axes)]
    over = [*dcol.tensor.box[1 : 1 + w.axes], *dcol.tensor.box[1 + w.axes : -1]]
    body = term(depth, dcol.tensor[(at[0], *es, *js, at[-1])], over=over, guards=guards)
    letters = f"c {w.letters('h')} b {w.letters('e')} {w.letters('j')}"
    margin = w.margin()
    return dcol, Stage(define(f"dIn{w.suffix}", list(x.box), body), "overlaps", letters, w.loops("e"), margin)


def batch_last(g: Tensor, w: Windows) -> Stage:
    """``Go[n,j,b] = G[b,n,j]``: the cotangent with the batch innermost."""
    n, *rest = g.box
    at = variables(0, g.rank)
    body = term(g.rank, g[(at[-1], *at[:-1])])
    return Stage(define("Go", [*rest, n], body), "strided", f"n {w.letters('j')} b")
