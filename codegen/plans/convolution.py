"""A convolution as one GEMM over windows, batch innermost: ``gemm`` (im2col) and ``toeplitz`` (tiles of outputs).

The input is copied to channels, rows, columns, batch with a margin of zeros; a window matrix ``Col`` lays the cells
under every window one below the other, a row of ones below them takes the bias along, and one GEMM does the rest.

With a tile of t outputs an axis (for a pool of t that follows) the window of a whole tile is laid out once,
``e < (t-1) s + d (k-1) + 1`` cells, and the kernel is written t times, shifted: ``T[r,n,c,e] = Sum_a [e == a d + r s]
W[n,c,a]``.  That multiplies some zeros and copies each input cell fewer times.  The tile index r is an axis of the
result, so that pooling is a sum of slabs.  A tile of one output is im2col: the window has the k cells that count, the
kernel is copied as it is, and there are no axes r.

Letters: b image, n output channel, c input channel, i output position (j tile, r within it), a kernel cell,
e window cell, h input cell.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import prod

from codegen.plan import BATCH, Matrix, Plan, Stage
from derive.indices import Index, Interval, equal, index, variables
from derive.layers import Applied, Window
from derive.terms import Tensor, constant, define, term

CACHE = 1 << 20  # bytes; about what a core's second-level cache holds, and a little more
FEW, MOST = 8, 64  # images


@dataclass(frozen=True)
class Windows:
    """One convolution in a plan: its windows, the tile and how many tiles there are an axis, and names' suffix."""

    windows: tuple[Window, ...]
    tile: int
    tiles: tuple[Index, ...]
    suffix: str

    @property
    def axes(self) -> int:
        """The number of spatial axes."""
        return len(self.windows)

    @property
    def slots(self) -> tuple[Interval, ...]:
        """The axes r of the outputs within a tile; none for a tile of one."""
        return ((index(0), index(self.tile)),) * (self.axes if self.tile > 1 else 0)

    @property
    def cells(self) -> tuple[Index, ...]:
        """How many cells of a window are laid out, an axis."""
        if self.tile == 1:
            return tuple(w.kernel for w in self.windows)
        return tuple(w.stride * (self.tile - 1) + w.extent for w in self.windows)

    @property
    def step(self) -> tuple[Index, ...]:
        """The distance of two laid-out cells in the input: the dilation for a single output, else one."""
        return tuple(w.dilation if self.tile == 1 else index(1) for w in self.windows)

    def read(self, axis: int, j: Index, e: Index) -> Index:
        """The input cell that is cell ``e`` of the window of tile ``j``."""
        w = self.windows[axis]
        return j * (w.stride * self.tile) + e * self.step[axis] - w.before

    def place(self, axis: int, r: Index, a: Index) -> Index:
        """The window cell under kernel cell ``a`` for output ``r`` of the tile."""
        w = self.windows[axis]
        return a if self.tile == 1 else a * w.dilation + r * w.stride

    def margin(self) -> tuple[tuple[Index, Index], ...]:
        """Zeros around channels, spatial axes and batch of the input that the windows reach."""
        none = (index(0), index(0))
        sides = []
        for axis, w in enumerate(self.windows):
            last = self.read(axis, self.tiles[axis] - 1, self.cells[axis] - 1)
            beyond = (last - (w.size - 1)).constant
            sides.append((w.before, index(max(0, beyond or 0))))
        return (none, *sides, none)

    def letters(self, name: str) -> str:
        """One letter an axis: ``j0 j1``; for r, one an axis of the tile."""
        return " ".join(self.loops(name))

    def loops(self, name: str) -> tuple[str, ...]:
        """The same as a tuple."""
        return tuple(f"{name}{axis}" for axis in range(len(self.slots) if name == "r" else self.axes))


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


def windows_of(applied: Applied, tile: int, tiles: tuple[Index, ...], suffix: str) -> Windows:
    """The windows of a convolution, for tiles of ``tile`` outputs an axis."""
    return Windows(applied.windows, tile, tiles, suffix)


# --- a convolution by itself --------------------------------------------------------------------------------------


def single(applied: Applied) -> Windows:
    """The windows of a convolution that nothing follows: a tile is one output."""
    return Windows(applied.windows, 1, tuple(w.output for w in applied.windows), "")


def cotangent_of(applied: Applied) -> Tensor:
    """A free tensor G of the shape of the output: the gradients are those of ``Sum G Z``."""
    return Tensor("G", applied.y.box)


def batch_last(g: Tensor, w: Windows) -> Stage:
    """``Go[n,j,b] = G[b,n,j]``: the cotangent with the batch innermost."""
    n, *rest = g.box
    at = variables(0, g.rank)
    body = term(g.rank, g[(at[-1], *at[:-1])])
    return Stage(define("Go", [*rest, n], body), "strided", f"n {w.letters('j')} b")


def bias_gradient(applied: Applied, w: Windows) -> Stage:
    """``du[n] = Sum_{b,j} G[b,n,j]``, read where the cotangent lies."""
    g = cotangent_of(applied)
    n, b, js = variables(0, 1)[0], variables(1, 1)[0], variables(2, w.axes)
    body = term(1, g[(b, n, *js)], over=[g.box[0], *g.box[2:]])
    return Stage(define("du", [g.box[1]], body), "reduce", f"n b {w.letters('j')}")


def planned(
    algorithm: str, applied: Applied, itemsize: int, results: Mapping[str, Result], *, few: int = FEW
) -> dict[str, Plan]:
    """A plan for each result, and for the bias gradient, which every algorithm sums alike.

    A plan reads the inputs it needs and works on a fitting block of the batch at a time.

    ``few``: how many images a block has at least, unless they need far more than the cache.
    """
    if "bias" in applied.parameters:
        results = {**results, "bias_gradient": Result((bias_gradient(applied, single(applied)),))}
    everything = (applied.x, *applied.parameters.values(), cotangent_of(applied))
    plans = {}
    for name, result in results.items():
        read = {t.name for s in result.stages for t in s.body.tensors}
        inputs = tuple(t for t in everything if t.name in read)
        parameters = {key: t.name for key, t in applied.parameters.items() if t.name in read}
        block = block_size((*inputs, *(s.tensor for s in result.stages)), itemsize, few=few)
        output = {name: result.stages[-1].name}
        plans[name] = Plan(algorithm, inputs, result.stages, output, result.matrices, parameters, block)
    return plans


@dataclass(frozen=True)
class Result:
    """The stages of one result, the last of which is the result, and the matrices they lie in."""

    stages: tuple[Stage, ...]
    matrices: tuple[Matrix, ...] = ()


def block_size(tensors: Iterable[Tensor], itemsize: int, *, few: int = FEW) -> int:
    """How many images to work on at a time: as many as keep the largest tensor within ``CACHE`` bytes.

    With the batch innermost, rows of a few images are slower to copy than one image after the other.  So it is at least
    ``few``, or a single one where ``few`` would need more than twice the cache.
    """
    image = itemsize * max(prod(_cells(t)) for t in tensors if _has_batch(t))
    block = min(MOST, CACHE // max(1, image))
    if block >= few:
        return block
    return few if few * image <= 2 * CACHE else 1


def _has_batch(t: Tensor) -> bool:
    return any(hi - lo == BATCH for lo, hi in t.box)


def _cells(t: Tensor) -> list[int]:
    """The sizes of a tensor that are numbers, for one image."""
    sizes = [(hi - lo).constant for lo, hi in t.box]
    return [n for n in sizes if n is not None]
