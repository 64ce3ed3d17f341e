"""Long kernels on one axis, stride 1: cut into pieces of three cells, each by Toom-Cook, F(3, 3) nested in a plain sum.

Toom-Cook for many cells at once rounds too much.  A kernel of k cells is a sum of pieces of r = 3, and with tiles of
m = 3 outputs a piece that begins 3 q cells later meets the tile that comes q tiles later, which is transformed already:

    forward          V = B D,  U[q] = G W[3 q ..],  M[t,j] = Sum_q V[t, j + q] U[t,q],  Z = A M
    input gradient   the same of the cotangent with the kernel flipped
    weight gradient  dU[t,q] = Sum_j V[t, j + q]' Q[t,j] with Q = A' dZ, and dW[3 q + a] = Sum_t G[t,a] dU[t,q]

so 5 multiplications do the work of 9, for any k.  A kernel that is no multiple of three ends in zeros.

Letters as in ``winograd``; q piece.
"""

from __future__ import annotations

from codegen.plan import Plan, Stage
from codegen.plans import convolution as conv
from codegen.plans.convolution import Result
from codegen.plans.winograd import with_block
from derive.indices import Index, IndexLike, Interval, equal, variables
from derive.layers import Applied
from derive.terms import Expr, Tensor, define, term
from derive.toomcook import ToomCook, toom_cook

SIDE = 3


def scheme() -> ToomCook:
    """F(3, 3) at the points of least amplification."""
    return toom_cook(SIDE, SIDE)


def nested(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward, input_gradient, weight_gradient and, with a bias, bias_gradient; as ``gemm``.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Conv1d
    >>> from derive.terms import tensor
    >>> plans = nested(Conv1d(64, 64, 9, padding=4).on(tensor("X", BATCH, 64, 4096)))
    >>> [stage.name for stage in plans["forward"].stages][-4:]
    ['M', 'A_3_3_0_m1d2_1_m2', 'Zt', 'Z']
    """
    weight, bias = applied.parameters["weight"], applied.parameters.get("bias")
    (w,) = applied.windows
    g = conv.cotangent_of(applied)
    back = w.kernel - 1 - w.before
    results = {
        "forward": Result(_correlation(applied.x, w.before, _kernel(weight), applied.y.box, bias, "Z")),
        "input_gradient": Result(_correlation(g, back, _flipped(weight), applied.x.box, None, "dX")),
        "weight_gradient": Result(_weight_gradient(applied.x, g, w.before, weight)),
    }
    if bias is not None:
        results["bias_gradient"] = Result((conv.bias_gradient(applied, conv.single(applied)),))
    plans = conv.planned("nested", applied, itemsize, results)
    return {name: with_block(plan, itemsize) for name, plan in plans.items()}


def _parts(size: Index) -> Index:
    return (size + SIDE - 1) // SIDE


def _numbers(t: Tensor) -> Stage:
    return Stage(t, "constant")


# --- the kernel ---------------------------------------------------------------------------------------------------


def _kernel(weight: Tensor) -> tuple[Stage, ...]:
    """``Wk[a,q,c,n] = W[n,c,3 q + a]`` and ``U[t,q,c,n] = Sum_a G[t,a] Wk[a,q,c,n]``."""
    a, q, c, n = variables(0, 4)
    return _transformed(weight, term(4, weight[(n, c, SIDE * q + a)]), weight.box[1], weight.box[0], "c n")


def _flipped(weight: Tensor) -> tuple[Stage, ...]:
    """The same of the kernel from its end, channels changing places: ``Wk[a,q,n,c] = W[n,c,k-1-(3 q + a)]``.

    The kernel is turned round in a stage of its own, which is read forwards.
    """
    c_box, n_box = weight.box[1], weight.box[0]
    size = weight.box[2][1]
    n, c, a = variables(0, 3)
    turned = define("Wf", list(weight.box), term(3, weight[(n, c, size - 1 - a)]))
    first = Stage(turned, "strided", "n c a", loops=("a",))
    a, q, n, c = variables(0, 4)
    return (first, *_transformed(turned, term(4, turned[(n, c, SIDE * q + a)]), n_box, c_box, "n c"))


def _transformed(weight: Tensor, body: Expr, summed: Interval, kept: Interval, letters: str) -> tuple[Stage, ...]:
    f = scheme()
    box: list[IndexLike | Interval] = [SIDE, _parts(weight.box[2][1]), summed, kept]
    cut = Stage(define("Wk", box, body), "strided", f"a q {letters}", loops=("a",))
    t, q, x, y, a = variables(0, 5)
    product = term(4, f.G[t, a], cut.tensor[(a, q, x, y)], over=f.G.box[1:])
    box = [f.multiplications, *box[1:]]
    return cut, _numbers(f.G), Stage(define("U", box, product), "matmul", f"t q {letters} a")


# --- forward, and the input gradient ------------------------------------------------------------------------------


def _tiles(x: Tensor, before: Index, tiles: Index) -> tuple[Stage, ...]:
    """``In[b,h,c] = x[b,c,h]``, ``D[e,b,j,c] = In[b, 3 j + e - before, c]``, ``V = B D``, for so many tiles."""
    f = scheme()
    n_box, c_box, h_box = x.box
    b, h, c = variables(0, 3)
    inner = Stage(define("In", [n_box, h_box, c_box], term(3, x[(b, c, h)])), "strided", "b h c")
    e, b, j, c = variables(0, 4)
    body = term(4, inner.tensor[(b, SIDE * j + e - before, c)])
    box: list[IndexLike | Interval] = [f.multiplications, n_box, tiles, c_box]
    gathered = Stage(define("D", box, body), "strided", "e b j c", loops=("e",))
    t, b, j, c, e = variables(0, 5)
    body = term(4, f.B[t, e], gathered.tensor[(e, b, j, c)], over=f.B.box[1:])
    return inner, gathered, _numbers(f.B), Stage(define("V", box, body), "matmul", "t b j c e")


def _pieces(v: Stage, tiles: Index, pieces: Index) -> Stage:
    """``Vq[t,b,j,q,c] = V[t,b,j + q,c]``: the tiles that the pieces of a kernel meet, side by side."""
    t_box, n_box, _, c_box = v.tensor.box
    t, b, j, q, c = variables(0, 5)
    box: list[IndexLike | Interval] = [t_box, n_box, tiles, pieces, c_box]
    return Stage(define("Vq", box, term(5, v.tensor[(t, b, j + q, c)])), "strided", "t b j q c", loops=("q",))


def _correlation(
    x: Tensor, before: Index, kernel: tuple[Stage, ...], output: tuple[Interval, ...], bias: Tensor | None, name: str
) -> tuple[Stage, ...]:
    """``name[b,n,h] = u[n] + Sum_{c,a} W[n,c,a] x[b,c,h+a-before]`` for the kernel transformed in the last stage."""
    f, u = scheme(), kernel[-1]
    tiles, pieces = _parts(output[2][1]), u.tensor.box[1][1]
    cut = _tiles(x, before, tiles + pieces - 1)
    side = _pieces(cut[-1], tiles, pieces)
    t, b, j, n, q, c = variables(0, 6)
    body = term(4, side.tensor[(t, b, j, q, c)], u.tensor[(t, q, c, n)], over=u.tensor.box[1:3])
    box: list[IndexLike | Interval] = [f.multiplications, output[0], tiles, output[1]]
    product = Stage(define("M", box, body), "matmul", "t b j n q c")
    i, b, j, n, t = variables(0, 5)
    body = term(4, f.A[i, t], product.tensor[(t, b, j, n)], over=f.A.box[1:])
    y = Stage(define("Zt", [SIDE, *box[1:]], body), "matmul", "i b j n t")
    return (*kernel, *cut, side, product, _numbers(f.A), y, _together(y, output, bias, name))


def _together(y: Stage, output: tuple[Interval, ...], bias: Tensor | None, name: str) -> Stage:
    """``Z[b,n,h] = Sum_{i,j} [h == 3 j + i] Zt[i,b,j,n] + u[n]``."""
    b, n, h, i, j = variables(0, 5)
    over = [y.tensor.box[0], y.tensor.box[2]]
    body = term(3, y.tensor[(i, b, j, n)], over=over, guards=[equal(h, SIDE * j + i)])
    if bias is not None:
        body = body + term(3, bias[n])
    return Stage(define(name, list(output), body), "scatter", "b n h i j", loops=("i",))


# --- the weight gradient ------------------------------------------------------------------------------------------


def _weight_gradient(x: Tensor, g: Tensor, before: Index, weight: Tensor) -> tuple[Stage, ...]:
    """``dU[t,q,c,n] = Sum_{b,j} Vq[t,b,j,q,c] Q[t,b,j,n]``, ``dWk = G' dU``, ``dW[n,c,3 q + a] = dWk[a,q,c,n]``."""
    f = scheme()
    tiles, pieces = _parts(g.box[2][1]), _parts(weight.box[2][1])
    cut = _tiles(x, before, tiles + pieces - 1)
    side = _pieces(cut[-1], tiles, pieces)
    cotangent = _cotangent(g, tiles)
    t, q, c, n, b, j = variables(0, 6)
    box: list[IndexLike | Interval] = [f.multiplications, pieces, weight.box[1], weight.box[0]]
    body = term(4, side.tensor[(t, b, j, q, c)], cotangent[-1].tensor[(t, b, j, n)], over=side.tensor.box[1:3])
    du = Stage(define("dU", box, body), "matmul", "t q c n b j")
    a, q, c, n, t = variables(0, 5)
    body = term(4, f.G[t, a], du.tensor[(t, q, c, n)], over=f.G.box[:1])
    dk = Stage(define("dWk", [SIDE, *box[1:]], body), "matmul", "a q c n t")
    return (*cut, side, *cotangent, du, _numbers(f.G), dk, _put_back(dk, weight))


def _cotangent(g: Tensor, tiles: Index) -> tuple[Stage, ...]:
    """``Go[b,h,n] = G[b,n,h]``, ``Gt[i,b,j,n] = Go[b, 3 j + i, n]`` and ``Q[t,b,j,n] = Sum_i A[i,t] Gt[i,b,j,n]``."""
    f = scheme()
    b, h, n = variables(0, 3)
    inner = Stage(define("Go", [g.box[0], g.box[2], g.box[1]], term(3, g[(b, n, h)])), "strided", "b h n")
    i, b, j, n = variables(0, 4)
    box: list[IndexLike | Interval] = [SIDE, g.box[0], tiles, g.box[1]]
    body = term(4, inner.tensor[(b, SIDE * j + i, n)])
    gathered = Stage(define("Gt", box, body), "strided", "i b j n", loops=("i",))
    t, b, j, n, i = variables(0, 5)
    body = term(4, f.A[i, t], gathered.tensor[(i, b, j, n)], over=f.A.box[:1])
    return (
        inner,
        gathered,
        _numbers(f.A),
        Stage(define("Q", [f.multiplications, *box[1:]], body), "matmul", "t b j n i"),
    )


def _put_back(dk: Stage, weight: Tensor) -> Stage:
    """``dW[n,c,h] = Sum_{a,q} [h == 3 q + a] dWk[a,q,c,n]``."""
    n, c, h, a, q = variables(0, 5)
    body = term(3, dk.tensor[(a, q, c, n)], over=dk.tensor.box[:2], guards=[equal(h, SIDE * q + a)])
    return Stage(define("dW", list(weight.box), body), "scatter", "n c h a q", loops=("a",))
