"""A convolution with stride 1 by tiles of outputs and fewer multiplications: Toom-Cook, in this use called Winograd.

F(m, r) computes m outputs of a kernel of r cells with t = m + r - 1 multiplications in place of m r; the matrices and
their theorem are in ``derive.toomcook``.  On two axes it is nested: F(4 x 4, 3 x 3) has 36 multiplications for 144.

    forward          V = B D        tiles D of the input, t cells a side, m apart, transformed
                     U = G W        the kernel transformed
                     M[t] = V[t] U[t]            for each t a product over channels
                     Zt = A M       tiles of m outputs; the bias added, and put together
    input gradient   the same of the cotangent with the kernel flipped, channels changing places
    weight gradient  dU[t] = Sum V[t]' Q[t] with Q = A' dZ, tiles of the cotangent transformed; dW = G' dU

Each transform is one GEMM with a constant matrix, on two axes the product ``B[t0,e0] B[t1,e1]`` as one matrix of t^2
rows: that has more multiplications than one axis after the other, but runs at the speed of a GEMM.  Channels are
innermost, so that a tile is gathered by copies of contiguous rows of channels.

Letters as in ``convolution``; t point, i output within its tile j, e cell of a tile of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from codegen.plan import Plan, Stage
from codegen.plans import convolution as conv
from codegen.plans.blocks import by_tiles
from codegen.plans.convolution import Result
from derive.indices import Index, IndexLike, Interval, equal, index, var, variables
from derive.layers import Applied
from derive.terms import Tensor, define, term
from derive.toomcook import ToomCook, toom_cook


def planner(m: int) -> Callable[..., dict[str, Plan]]:
    """The algorithm for tiles of m outputs an axis."""

    def winograd(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
        """The plans of forward, input_gradient, weight_gradient and, with a bias, bias_gradient; as ``gemm``."""
        return _plans(applied, Tiling.of(applied, m), f"winograd{m}", itemsize)

    return winograd


@dataclass(frozen=True)
class Tiling:
    """F(m, r) for each axis of a convolution."""

    schemes: tuple[ToomCook, ...]

    @staticmethod
    def of(applied: Applied, m: int) -> Tiling:
        """For tiles of m outputs an axis; kernels have numbers for sizes."""
        return Tiling(tuple(toom_cook(m, w.kernel.constant or 1) for w in applied.windows))

    @property
    def axes(self) -> int:
        """The number of spatial axes."""
        return len(self.schemes)

    def box(self, sizes: Callable[[ToomCook], int]) -> list[Interval]:
        """An axis of this size for each scheme."""
        return [(index(0), index(sizes(f))) for f in self.schemes]

    @property
    def points(self) -> list[Interval]:
        """The axes t."""
        return self.box(lambda f: f.multiplications)

    def tiles(self, outputs: Sequence[Index]) -> list[Interval]:
        """How many tiles there are an axis: ``(o + m - 1) // m``."""
        return [(index(0), (o + f.m - 1) // f.m) for o, f in zip(outputs, self.schemes, strict=True)]

    def letters(self, name: str) -> str:
        """One letter an axis."""
        return " ".join(self.loops(name))

    def loops(self, name: str) -> tuple[str, ...]:
        """The same as a tuple."""
        return tuple(f"{name}{axis}" for axis in range(self.axes))


def _plans(applied: Applied, tiling: Tiling, algorithm: str, itemsize: int) -> dict[str, Plan]:
    weight, bias = applied.parameters["weight"], applied.parameters.get("bias")
    cotangent = conv.cotangent_of(applied)
    before = [w.before for w in applied.windows]
    back = [index(f.r - 1) - p for f, p in zip(tiling.schemes, before, strict=True)]
    results = {
        "forward": Result(_correlation(tiling, applied.x, before, _kernel(tiling, weight), applied.y.box, bias, "Z")),
        "input_gradient": Result(
            _correlation(tiling, cotangent, back, _flipped(tiling, weight), applied.x.box, None, "dX")
        ),
        "weight_gradient": Result(_weight_gradient(tiling, applied.x, cotangent, before, weight)),
    }
    return conv.planned(algorithm, applied, itemsize, results, block=by_tiles)


# --- the constant matrices ----------------------------------------------------------------------------------------


def _matrices(tiling: Tiling, name: str, of: Callable[[ToomCook], Tensor]) -> tuple[list[Stage], Stage]:
    """The matrix of each axis as a stage of numbers, and their product as one; of one axis, the matrix itself."""
    own = {of(f): Stage(of(f), "constant") for f in tiling.schemes}
    stages = list(own.values())
    if tiling.axes == 1:
        return stages, stages[0]
    rows, columns = ([of(f).box[side] for f in tiling.schemes] for side in (0, 1))
    at = variables(0, 2 * tiling.axes)
    factors = [of(f)[at[axis], at[tiling.axes + axis]] for axis, f in enumerate(tiling.schemes)]
    letters = f"{tiling.letters('t')} {tiling.letters('e')}"
    stages.append(Stage(define(name, [*rows, *columns], term(len(at), *factors)), "pointwise", letters))
    return stages, stages[-1]


def _kernel(tiling: Tiling, weight: Tensor) -> tuple[Stage, ...]:
    """``Wk[a,c,n] = W[n,c,a]`` and ``U[t,c,n] = Sum_a G[t,a] Wk[a,c,n]``."""
    at = variables(0, tiling.axes + 2)
    *a, c, n = at
    box: list[Interval] = [*weight.box[2:], weight.box[1], weight.box[0]]
    turned = Stage(define("Wk", box, term(len(at), weight[(n, c, *a)])), "strided", f"{tiling.letters('a')} c n")
    return _transformed_kernel(tiling, turned, "c n")


def _flipped(tiling: Tiling, weight: Tensor) -> tuple[Stage, ...]:
    """``Wk[a,n,c] = W[n,c,r-1-a]`` and ``U[t,n,c] = Sum_a G[t,a] Wk[a,n,c]``."""
    at = variables(0, tiling.axes + 2)
    *a, n, c = at
    turned = [f.r - 1 - cell for f, cell in zip(tiling.schemes, a, strict=True)]
    box: list[Interval] = [*weight.box[2:], weight.box[0], weight.box[1]]
    body = term(len(at), weight[(n, c, *turned)])
    stage = Stage(define("Wk", box, body), "strided", f"{tiling.letters('a')} n c", loops=tiling.loops("a"))
    return _transformed_kernel(tiling, stage, "n c")


def _transformed_kernel(tiling: Tiling, turned: Stage, letters: str) -> tuple[Stage, ...]:
    matrices, g = _matrices(tiling, "GG", lambda f: f.G)
    u = _times(g, turned, "U", f"{tiling.letters('t')} {letters} {tiling.letters('a')}")
    return (*matrices, turned, u)


def _times(matrix: Stage, tiles: Stage, name: str, letters: str) -> Stage:
    """``name[t,rest] = Sum_e matrix[t,e] tiles[e,rest]``."""
    axes = matrix.tensor.rank // 2
    box = [*matrix.tensor.box[:axes], *tiles.tensor.box[axes:]]
    at = variables(0, len(box))
    e = variables(len(at), axes)
    body = term(len(at), matrix.tensor[(*at[:axes], *e)], tiles.tensor[(*e, *at[axes:])], over=matrix.tensor.box[axes:])
    return Stage(define(name, box, body), "matmul", letters)


# --- forward, and the input gradient ------------------------------------------------------------------------------


def _correlation(
    tiling: Tiling,
    x: Tensor,
    before: Sequence[Index],
    kernel: tuple[Stage, ...],
    output: Sequence[Interval],
    bias: Tensor | None,
    name: str,
) -> tuple[Stage, ...]:
    """``name[b,n,h] = u[n] + Sum_{c,a} W[n,c,a] x[b,c,h+a-before]`` for the kernel transformed in the last stage."""
    *_, u = kernel
    inputs, v = _transformed_tiles(tiling, x, before, [hi for _, hi in output[2:]])
    box = [*v.tensor.box[:-1], u.tensor.box[-1]]
    at = variables(0, len(box))
    c, t = var(len(at)), at[: tiling.axes]
    body = term(len(at), v.tensor[(*at[:-1], c)], u.tensor[(*t, c, at[-1])], over=[v.tensor.box[-1]])
    letters = f"{tiling.letters('t')} b {tiling.letters('j')} n c"
    product = Stage(define("M", box, body), "matmul", letters)
    matrices, a = _matrices(tiling, "AA", lambda f: f.A)
    letters = f"{tiling.letters('i')} b {tiling.letters('j')} n {tiling.letters('t')}"
    y = _times(a, product, "Zt", letters)
    tiles = (y,) if bias is None else (y, _biased(tiling, y, bias))
    return (*kernel, *inputs, v, product, *matrices, *tiles, _together(tiling, tiles[-1], output, name))


def _transformed_tiles(
    tiling: Tiling, x: Tensor, before: Sequence[Index], outputs: Sequence[Index]
) -> tuple[tuple[Stage, ...], Stage]:
    """``In`` with channels innermost, ``D[e,b,j,c] = In[b, m j + e - before, c]`` and ``V = B D``."""
    inner = _channels_last(tiling, x, "In")
    tiles = tiling.tiles(outputs)
    box: list[Interval] = [*tiling.points, x.box[0], *tiles, x.box[1]]
    at = variables(0, len(box))
    e, b, j, c = at[: tiling.axes], at[tiling.axes], at[tiling.axes + 1 : -1], at[-1]
    cells = [f.m * j[k] + e[k] - before[k] for k, f in enumerate(tiling.schemes)]
    letters = f"{tiling.letters('e')} b {tiling.letters('j')} c"
    body = term(len(box), inner.tensor[(b, *cells, c)])
    gathered = Stage(define("D", box, body), "strided", letters, loops=tiling.loops("e"))
    matrices, b_matrix = _matrices(tiling, "BB", lambda f: f.B)
    letters = f"{tiling.letters('t')} b {tiling.letters('j')} c {tiling.letters('e')}"
    return (inner, gathered, *matrices), _times(b_matrix, gathered, "V", letters)


def _channels_last(tiling: Tiling, x: Tensor, name: str) -> Stage:
    """``In[b,h,c] = X[b,c,h]``."""
    at = variables(0, x.rank)
    b, *h, c = at
    box: list[Interval] = [x.box[0], *x.box[2:], x.box[1]]
    return Stage(define(name, box, term(x.rank, x[(b, c, *h)])), "strided", f"b {tiling.letters('h')} c")


def _biased(tiling: Tiling, y: Stage, bias: Tensor) -> Stage:
    """``Zu[i,b,j,n] = Zt[i,b,j,n] + u[n]``, in the place of Zt: added while channels are innermost."""
    at = variables(0, y.tensor.rank)
    body = term(len(at), y.tensor[at]) + term(len(at), bias[at[-1]])
    letters = f"{tiling.letters('i')} b {tiling.letters('j')} n"
    return Stage(define("Zu", list(y.tensor.box), body), "pointwise", letters, into=y.name)


def _together(tiling: Tiling, y: Stage, output: Sequence[Interval], name: str) -> Stage:
    """``Z[b,n,h] = Sum_{i,j} [h == m j + i] Zt[i,b,j,n]``, with Zu for Zt where a bias was added."""
    depth = 2 + tiling.axes
    b, n, *h = variables(0, depth)
    i, j = variables(depth, tiling.axes), variables(depth + tiling.axes, tiling.axes)
    guards = [equal(h[k], f.m * j[k] + i[k]) for k, f in enumerate(tiling.schemes)]
    over = [*y.tensor.box[: tiling.axes], *y.tensor.box[tiling.axes + 1 : -1]]
    body = term(depth, y.tensor[(*i, b, *j, n)], over=over, guards=guards)
    letters = f"b n {tiling.letters('h')} {tiling.letters('i')} {tiling.letters('j')}"
    return Stage(define(name, list(output), body), "scatter", letters, loops=tiling.loops("i"))


# --- the weight gradient ------------------------------------------------------------------------------------------


def _weight_gradient(
    tiling: Tiling, x: Tensor, cotangent: Tensor, before: Sequence[Index], weight: Tensor
) -> tuple[Stage, ...]:
    """``Q = A' dZ`` tile by tile, ``dU[t,c,n] = Sum_{b,j} V[t,b,j,c] Q[t,b,j,n]``, ``dW = G' dU``."""
    axes = tiling.axes
    inputs, v = _transformed_tiles(tiling, x, before, [hi for _, hi in cotangent.box[2:]])
    cotangents, q = _transformed_cotangent(tiling, cotangent, v)
    box = [*tiling.points, v.tensor.box[-1], q.tensor.box[-1]]
    at = variables(0, len(box))
    *t, c, n = at
    bj = variables(len(at), 1 + axes)
    summed = v.tensor.box[axes:-1]
    body = term(len(at), v.tensor[(*t, *bj, c)], q.tensor[(*t, *bj, n)], over=summed)
    letters = f"{tiling.letters('t')} c n b {tiling.letters('j')}"
    du = Stage(define("dU", box, body), "matmul", letters)
    matrices, g = _matrices(tiling, "GG", lambda f: f.G)
    dk = _transposed(g, du, "dWk", f"{tiling.letters('a')} c n {tiling.letters('t')}")
    at = variables(0, weight.rank)
    back = term(weight.rank, dk.tensor[(*at[2:], at[1], at[0])])
    last = Stage(define("dW", list(weight.box), back), "strided", f"n c {tiling.letters('a')}")
    return (*inputs, v, *cotangents, q, du, *matrices, dk, last)


def _transformed_cotangent(tiling: Tiling, cotangent: Tensor, v: Stage) -> tuple[tuple[Stage, ...], Stage]:
    """``Gt[i,b,j,n] = Go[b, m j + i, n]`` and ``Q[t,b,j,n] = Sum_i A[i,t] Gt[i,b,j,n]``."""
    axes = tiling.axes
    inner = _channels_last(tiling, cotangent, "Go")
    box: list[Interval] = [*tiling.box(lambda f: f.m), *v.tensor.box[axes:-1], cotangent.box[1]]
    at = variables(0, len(box))
    i, b, j, n = at[:axes], at[axes], at[axes + 1 : -1], at[-1]
    cells = [f.m * j[k] + i[k] for k, f in enumerate(tiling.schemes)]
    letters = f"{tiling.letters('i')} b {tiling.letters('j')} n"
    body = term(len(box), inner.tensor[(b, *cells, n)])
    gathered = Stage(define("Gt", box, body), "strided", letters, loops=tiling.loops("i"))
    matrices, a = _matrices(tiling, "AA", lambda f: f.A)
    letters = f"{tiling.letters('t')} b {tiling.letters('j')} n {tiling.letters('i')}"
    return (inner, gathered, *matrices), _transposed(a, gathered, "Q", letters)


def _transposed(matrix: Stage, tiles: Stage, name: str, letters: str) -> Stage:
    """``name[e,rest] = Sum_t matrix[t,e] tiles[t,rest]``."""
    axes = matrix.tensor.rank // 2
    box: list[IndexLike | Interval] = [*matrix.tensor.box[axes:], *tiles.tensor.box[axes:]]
    at = variables(0, len(box))
    t = variables(len(at), axes)
    body = term(len(at), matrix.tensor[(*t, *at[:axes])], tiles.tensor[(*t, *at[axes:])], over=matrix.tensor.box[:axes])
    return Stage(define(name, box, body), "matmul", letters)
