"""Long kernels on one axis, stride 1: cut into pieces of three cells, each by Toom-Cook, F(3, 3) nested in a plain sum.

Toom-Cook for many cells at once rounds too much.  A kernel of k cells is a sum of pieces of r = 3, and with tiles of
m = 3 outputs a piece that begins 3 q cells later meets the tile that comes q tiles later, which is transformed already:

    forward          V = B D,  U[q] = G W[3 q ..],  M[t,j] = Sum_q V[t, j + q] U[t,q],  Z = A M
    input gradient   the same of the cotangent with the kernel flipped
    weight gradient  dU[t,q] = Sum_j V[t, j + q]' Q[t,j] with Q = A' dZ, and dW[3 q + a] = Sum_t G[t,a] dU[t,q]

so 5 multiplications do the work of 9, for any k.  A kernel that is no multiple of three ends in zeros.  Positions
are innermost, as they come: signals are long.

Letters as in ``winograd``; q piece.
"""

from __future__ import annotations

from codegen.plan import Plan, Stage
from codegen.plans import convolution as conv
from codegen.plans.blocks import image_by_image
from codegen.plans.convolution import Result
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
    return conv.planned("nested", applied, itemsize, results, block=image_by_image)


def _parts(size: Index) -> Index:
    return (size + SIDE - 1) // SIDE


def _numbers(t: Tensor) -> Stage:
    return Stage(t, "constant")


# --- the kernel ---------------------------------------------------------------------------------------------------


def _kernel(weight: Tensor) -> tuple[Stage, ...]:
    """``Wk[a,n,q,c] = W[n,c,3 q + a]`` and ``U[t,n,q,c] = Sum_a G[t,a] Wk[a,n,q,c]``."""
    a, n, q, c = variables(0, 4)
    return _transformed(weight, term(4, weight[(n, c, SIDE * q + a)]), weight.box[0], weight.box[1], "n q c")


def _flipped(weight: Tensor) -> tuple[Stage, ...]:
    """The same of the kernel from its end, channels changing places: ``Wk[a,c,q,n] = W[n,c,k-1-(3 q + a)]``.

    The kernel is turned round in a stage of its own, which is read forwards.
    """
    n, c, a = variables(0, 3)
    turned = define("Wf", list(weight.box), term(3, weight[(n, c, weight.box[2][1] - 1 - a)]))
    first = Stage(turned, "strided", "n c a", loops=("a",))
    a, c, q, n = variables(0, 4)
    body = term(4, turned[(n, c, SIDE * q + a)])
    return (first, *_transformed(turned, body, weight.box[1], weight.box[0], "c q n"))


def _transformed(weight: Tensor, body: Expr, kept: Interval, summed: Interval, letters: str) -> tuple[Stage, ...]:
    f = scheme()
    box: list[IndexLike | Interval] = [SIDE, kept, _parts(weight.box[2][1]), summed]
    cut = Stage(define("Wk", box, body), "strided", f"a {letters}", loops=("a",))
    t, *rest, a = variables(0, 5)
    product = term(4, f.G[t, a], cut.tensor[(a, *rest)], over=f.G.box[1:])
    return cut, _numbers(f.G), Stage(define("U", [f.multiplications, *box[1:]], product), "matmul", f"t {letters} a")


# --- forward, and the input gradient ------------------------------------------------------------------------------


def _tiles(x: Tensor, before: Index, tiles: Index, pieces: Index) -> tuple[Stage, ...]:
    """Tiles of the input, transformed, and side by side those that the pieces of a kernel meet.

    ``D[e,c,b,j] = x[b,c, 3 j + e - before]``, ``V = B D`` and ``Vq[t,q,c,b,j] = V[t,c,b,j + q]``.
    """
    f = scheme()
    n_box, c_box, _ = x.box
    e, c, b, j = variables(0, 4)
    box: list[IndexLike | Interval] = [f.multiplications, c_box, n_box, tiles + pieces - 1]
    body = term(4, x[(b, c, SIDE * j + e - before)])
    gathered = Stage(define("D", box, body), "strided", "e c b j", loops=("e",))
    t, c, b, j, e = variables(0, 5)
    body = term(4, f.B[t, e], gathered.tensor[(e, c, b, j)], over=f.B.box[1:])
    v = Stage(define("V", box, body), "matmul", "t c b j e")
    t, q, c, b, j = variables(0, 5)
    box = [f.multiplications, pieces, c_box, n_box, tiles]
    side = Stage(define("Vq", box, term(5, v.tensor[(t, c, b, j + q)])), "strided", "t q c b j", loops=("q",))
    return gathered, _numbers(f.B), v, side


def _correlation(
    x: Tensor, before: Index, kernel: tuple[Stage, ...], output: tuple[Interval, ...], bias: Tensor | None, name: str
) -> tuple[Stage, ...]:
    """``name[b,n,h] = u[n] + Sum_{c,a} W[n,c,a] x[b,c,h+a-before]`` for the kernel transformed in the last stage."""
    f, u = scheme(), kernel[-1]
    tiles, pieces = _parts(output[2][1]), u.tensor.box[2][1]
    cut = _tiles(x, before, tiles, pieces)
    t, n, b, j, q, c = variables(0, 6)
    body = term(4, u.tensor[(t, n, q, c)], cut[-1].tensor[(t, q, c, b, j)], over=u.tensor.box[2:])
    box: list[IndexLike | Interval] = [f.multiplications, output[1], output[0], tiles]
    product = Stage(define("M", box, body), "matmul", "t n b j q c")
    i, n, b, j, t = variables(0, 5)
    body = term(4, f.A[i, t], product.tensor[(t, n, b, j)], over=f.A.box[1:])
    y = Stage(define("Zt", [SIDE, *box[1:]], body), "matmul", "i n b j t")
    return (*kernel, *cut, product, _numbers(f.A), y, _together(y, output, bias, name))


def _together(y: Stage, output: tuple[Interval, ...], bias: Tensor | None, name: str) -> Stage:
    """``Z[b,n,h] = Sum_{i,j} [h == 3 j + i] Zt[i,n,b,j] + u[n]``."""
    b, n, h, i, j = variables(0, 5)
    over = [y.tensor.box[0], y.tensor.box[3]]
    body = term(3, y.tensor[(i, n, b, j)], over=over, guards=[equal(h, SIDE * j + i)])
    if bias is not None:
        body = body + term(3, bias[n])
    return Stage(define(name, list(output), body), "scatter", "b n h i j", loops=("i",))


# --- the weight gradient ------------------------------------------------------------------------------------------


def _weight_gradient(x: Tensor, g: Tensor, before: Index, weight: Tensor) -> tuple[Stage, ...]:
    """``dU[t,n,q,c] = Sum_{b,j} Q[t,n,b,j] Vq[t,q,c,b,j]``, ``dWk = G' dU``, ``dW[n,c,3 q + a] = dWk[a,n,q,c]``."""
    f = scheme()
    tiles, pieces = _parts(g.box[2][1]), _parts(weight.box[2][1])
    cut = _tiles(x, before, tiles, pieces)
    cotangent = _cotangent(g, tiles)
    t, n, q, c, b, j = variables(0, 6)
    box: list[IndexLike | Interval] = [f.multiplications, weight.box[0], pieces, weight.box[1]]
    over = cotangent[-1].tensor.box[2:]
    body = term(4, cotangent[-1].tensor[(t, n, b, j)], cut[-1].tensor[(t, q, c, b, j)], over=over)
    du = Stage(define("dU", box, body), "matmul", "t n q c b j")
    a, n, q, c, t = variables(0, 5)
    body = term(4, f.G[t, a], du.tensor[(t, n, q, c)], over=f.G.box[:1])
    dk = Stage(define("dWk", [SIDE, *box[1:]], body), "matmul", "a n q c t")
    return (*cut, *cotangent, du, _numbers(f.G), dk, _put_back(dk, weight))


def _cotangent(g: Tensor, tiles: Index) -> tuple[Stage, ...]:
    """``Gt[i,n,b,j] = G[b,n,3 j + i]`` and ``Q[t,n,b,j] = Sum_i A[i,t] Gt[i,n,b,j]``."""
    f = scheme()
    i, n, b, j = variables(0, 4)
    box: list[IndexLike | Interval] = [SIDE, g.box[1], g.box[0], tiles]
    gathered = Stage(define("Gt", box, term(4, g[(b, n, SIDE * j + i)])), "strided", "i n b j", loops=("i",))
    t, n, b, j, i = variables(0, 5)
    body = term(4, f.A[i, t], gathered.tensor[(i, n, b, j)], over=f.A.box[:1])
    return gathered, _numbers(f.A), Stage(define("Q", [f.multiplications, *box[1:]], body), "matmul", "t n b j i")


def _put_back(dk: Stage, weight: Tensor) -> Stage:
    """``dW[n,c,h] = Sum_{a,q} [h == 3 q + a] dWk[a,n,q,c]``."""
    n, c, h, a, q = variables(0, 5)
    over = [dk.tensor.box[0], dk.tensor.box[2]]
    body = term(3, dk.tensor[(a, n, q, c)], over=over, guards=[equal(h, SIDE * q + a)])
    return Stage(define("dW", list(weight.box), body), "scatter", "n c h a q", loops=("a",))
