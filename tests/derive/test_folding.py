"""Plans opened to their inputs, and folded back through Toom-Cook's identity to the layers they compute.

Forward, both gradients and a long kernel in pieces, for all sizes.  What is wrong in a plan, a tile or an identity,
leaves another sum or is refused.
"""

from collections.abc import Sequence

import pytest

from derive import kernel, tactics
from derive.folding import through_identity
from derive.indices import Index, interval, symbol, symbols, var, variables
from derive.kernel import Theorem
from derive.layers import Applied, Conv1d, Conv2d
from derive.matching import match
from derive.obligations import Refused
from derive.terms import Apply, Expr, Tensor, define, instantiate, tensor, term
from derive.tiles import flipped, joined
from derive.toomcook import ToomCook, toom_cook

F23 = toom_cook(2, 3)
F43 = toom_cook(4, 3)


def layer(axes: int, r: int, bias: bool = True) -> Applied:
    """A convolution with stride 1 and a kernel of r cells an axis, every other size a symbol."""
    pads = symbols(" ".join(f"p{k}" for k in range(axes)))
    kind = Conv1d if axes == 1 else Conv2d
    conv = kind(symbol("C"), symbol("M"), (r,) * axes, 1, pads, bias=bias)
    return conv.on(tensor("X", symbol("N"), symbol("C"), *(symbol(f"n{k}") for k in range(axes))))


def correlate(f: ToomCook, x: Tensor, w: Expr, box: Sequence[Index], pads: Sequence[Index], shift: int = 0) -> Tensor:
    """Stages that correlate x with a kernel, an expression in (out, in, cells..), to an output of these sizes."""
    axes, t = len(pads), f.multiplications
    (batch, out, *sizes), inner = box, x.box[1][1]
    tiles = [(s + f.m - 1) // f.m for s in sizes]

    at, (n, c), a = variables(0, axes), variables(axes, 2), variables(axes + 2, axes)
    gs = term(2 * axes + 2, *[f.G[at[k], a[k]] for k in range(axes)])
    read = instantiate(w, (n, c, *a), 2 * axes + 2)
    u = define("U", [*[t] * axes, out, inner], summed(gs * read, axes + 2, [interval(0, f.r)] * axes))

    (c, b), j, e = variables(axes, 2), variables(axes + 2, axes), variables(2 * axes + 2, axes)
    bs = [f.B[at[k], e[k]] for k in range(axes)]
    reads = x[(b, c, *(f.m * j[k] + e[k] - pads[k] + shift for k in range(axes)))]
    over = [interval(0, t)] * axes
    v = define("V", [*[t] * axes, inner, batch, *tiles], term(2 * axes + 2, *bs, reads, over=over))

    (n, b), j, c = variables(axes, 2), variables(axes + 2, axes), var(2 * axes + 2)
    whole = term(2 * axes + 2, u[(*at, n, c)], v[(*at, c, b, *j)], over=[interval(0, inner)])
    p = define("P", [*[t] * axes, out, batch, *tiles], whole)

    b, n, *h = variables(0, 2 + axes)
    at = variables(2 + axes, axes)
    outs = [f.A[h[k] - f.m * (h[k] // f.m), at[k]] for k in range(axes)]
    y = term(2 + axes, *outs, p[(*at, n, b, *(e // f.m for e in h))], over=over)
    return define("R", box, y)


def summed(e: Expr, depth: int, over: Sequence[tuple[Index, Index]]) -> Expr:
    (m,) = e.monomials
    return term(depth, *m.factors, over=over, coefficient=m.coefficient)


def opened(y: Tensor, facts: Sequence, names: Sequence[str] = ("R", "P", "U", "V")) -> Theorem:
    start = term(y.rank, y[variables(0, y.rank)])
    return tactics.tidy(tactics.open_and_solve(kernel.begin(start, facts=facts, over=y.box), [y.name, *names]))


def defined(e: Expr, facts: Sequence, over: Sequence, names: Sequence[str]) -> Theorem:
    """An expression with definitions unfolded and derivatives worked out."""
    theorem = tactics.open_and_solve(kernel.begin(e, facts=facts, over=over), names)
    return tactics.tidy(tactics.contract_simple(tactics.differentiate_all(theorem)))


def meet(below: Theorem, above: Theorem) -> Theorem:
    return kernel.trans(match(below, above.rhs), kernel.sym(above))


# --- layers -------------------------------------------------------------------------------------------------------


def forward(axes: int, f: ToomCook, *, shift: int = 0) -> tuple[Applied, Theorem]:
    applied = layer(axes, f.r)
    w = term(2 + axes, applied.parameters["weight"][variables(0, 2 + axes)])
    pads = [symbol(f"p{k}") for k in range(axes)]
    plain = correlate(f, applied.x, w, [hi for _, hi in applied.y.box], pads, shift)
    at = variables(0, 2 + axes)
    body = term(2 + axes, plain[at]) + term(2 + axes, applied.parameters["bias"][var(1)])
    return applied, opened(define("Out", applied.y.box, body), applied.facts)


@pytest.mark.parametrize(
    ("axes", "f"), [(1, F23), (1, F43), (2, F23), (2, F43), (1, toom_cook(2, 5)), (1, toom_cook(1, 1))]
)
def test_a_layer_is_computed_by_tiles(axes: int, f: ToomCook):
    applied, theorem = forward(axes, f)
    above = opened(applied.y, applied.facts, [])
    proved = meet(through_identity(theorem, f), above)
    assert proved.rhs == term(2 + axes, applied.y[variables(0, 2 + axes)])
    assert proved.facts == applied.facts


def test_a_tile_read_one_cell_off_is_another_layer():
    applied, theorem = forward(1, F23, shift=1)
    above = opened(applied.y, applied.facts, [])
    folded = through_identity(theorem, F23)
    assert folded.rhs != above.rhs
    with pytest.raises(Refused, match="do not agree"):
        meet(folded, above)


def test_the_identity_of_other_points_does_not_fit():
    _, theorem = forward(1, F23)
    with pytest.raises(Refused, match="no sum over t"):
        through_identity(theorem, toom_cook(2, 3, points=(0, 1, 2)))


def test_wrong_matrices_fold_nothing():
    rows = [list(row) for row in F23.kernel]
    rows[1][1] += 1
    wrong = ToomCook(2, 3, F23.points, F23.output, tuple(map(tuple, rows)), F23.input)
    _, theorem = forward(1, wrong)
    with pytest.raises(Refused, match="trans"):
        through_identity(theorem, wrong)


def test_inside_a_function():
    applied, theorem = forward(1, F23)
    (y,) = {f.tensor for f in theorem.lhs.monomials[0].factors}
    active = define("S", y.box, term(3, Apply("sigmoid", term(3, y[variables(0, 3)]))))
    above = define("S2", y.box, term(3, Apply("sigmoid", term(3, applied.y[variables(0, 3)]))))
    folded = through_identity(opened(active, applied.facts, ["Out", "R", "P", "U", "V"]), F23)
    assert meet(folded, opened(above, applied.facts, ["Z"])).lhs == term(3, active[variables(0, 3)])


def test_different_tiles_on_two_axes():
    f, g = F23, F43
    w, x = tensor("W", 3, 3), tensor("X", *symbols("h w"))
    i, k, a, b, e, c, s, t = variables(2, 8)
    j, k2 = variables(0, 2)
    over = [interval(0, n) for n in (2, 4, 3, 3, 4, 6, 4, 6)]
    reads = [f.A[i, s], g.A[k, t], f.G[s, a], g.G[t, b], f.B[s, e], g.B[t, c], w[a, b], x[2 * j + e, 4 * k2 + c]]
    start = term(2, *reads, over=over)
    theorem = through_identity(kernel.begin(start, over=[interval(0, symbol("T"))] * 2), g, f)
    assert theorem.rhs == term(
        2, w[var(4), var(5)], x[2 * j + var(2) + var(4), 4 * k2 + var(3) + var(5)], over=over[:4]
    )


# --- gradients ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [1, 2])
def test_input_gradient_with_the_kernel_flipped(axes: int):
    applied = layer(axes, 3, bias=False)
    cotangent = Tensor("G", applied.y.box)
    n, c, *a = variables(0, 2 + axes)
    turned = term(2 + axes, applied.parameters["weight"][(c, n, *(2 - e for e in a))])
    pads = [2 - symbol(f"p{k}") for k in range(axes)]
    stages = correlate(F23, cotangent, turned, [hi for _, hi in applied.x.box], pads)
    below = through_identity(opened(stages, applied.facts), F23)
    for k in range(axes):
        below = flipped(below, (0,), 1 + k)
    wanted = kernel.vector_jacobian(cotangent, applied.y, applied.x)
    above = defined(wanted, applied.facts, applied.x.box, ["Z"])
    proved = meet(below, tactics.tidy(tactics.contract_all(above)))
    assert proved.rhs == wanted


def test_weight_gradient_by_the_transposed_algorithm():
    f, applied = F23, layer(1, 3, bias=False)
    t, m, o = f.multiplications, f.m, applied.windows[0].output
    tiles = (o + m - 1) // m
    batch, inner, out, pad = symbols("N C M p0")
    cotangent, w, x = Tensor("G", applied.y.box), applied.parameters["weight"], applied.x
    q, k, b, j, e = variables(0, 5)
    s = define("S", [t, out, batch, tiles], term(4, f.A[e, q], cotangent[b, k, m * j + e], over=[interval(0, m)]))
    v = define("V", [t, inner, batch, tiles], term(4, f.B[q, e], x[b, k, m * j + e - pad], over=[interval(0, t)]))
    over = [interval(0, batch), interval(0, tiles)]
    p = define("P", [t, out, inner], term(3, s[q, k, j, e], v[q, b, j, e], over=over))
    y = define("D", w.box, term(3, f.G[var(3), b], p[var(3), q, k], over=[interval(0, t)]))
    below = through_identity(opened(y, applied.facts, ["P", "S", "V"]), f)
    below = joined(below, (0,), (1, 2), o)
    wanted = kernel.vector_jacobian(cotangent, applied.y, w)
    assert meet(below, defined(wanted, applied.facts, w.box, ["Z"])).rhs == wanted


# --- long kernels -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("r", [7, 8, 9])
def test_a_long_kernel_in_pieces(r: int):
    """Pieces of 3 cells, each by F(4, 3), the pieces summed before the output is transformed."""
    f, (n, batch, tiles) = F43, symbols("n N T")
    w, x = tensor("W", r), tensor("X", batch, n)
    q, s, a = variables(0, 3)
    u = define("U", [6, 3], term(2, f.G[q, a], w[3 * s + a], over=[interval(0, 3)]))
    q, b, j, s, e = variables(0, 5)
    v = define("V", [6, batch, tiles, 3], term(4, f.B[q, e], x[b, 4 * j + 3 * s + e], over=[interval(0, 6)]))
    p = define("P", [6, batch, tiles], term(3, u[q, s], v[q, b, j, s], over=[interval(0, 3)]))
    b, j, i, q = variables(0, 4)
    y = define("R", [batch, tiles, 4], term(3, f.A[i, q], p[q, b, j], over=[interval(0, 6)]))
    theorem = joined(through_identity(opened(y, []), f), (0,), (0, 1), r)
    assert theorem.rhs == term(3, w[var(3)], x[b, 4 * j + i + var(3)], over=[interval(0, r)])
