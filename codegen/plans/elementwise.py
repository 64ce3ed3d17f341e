"""Stages that many plans share: sigmoids, pooling as a sum of slabs, dense layers, the softmax loss.

A sigmoid is recip(1 + exp(-z)), a law of the plan's theorem, and the product before it already gives -z: NumPy's exp
takes half the time of its tanh.  Where a pool follows, what is stored is s = sigmoid(z) - 1/2, whose slope 1/4 - s^2 is
formed where s lies, while sigmoid(z) - sigmoid(z)^2 would need a second buffer.  A cotangent comes with a rational
``scale`` that its consumer applies, so that constants meet in one multiplication.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from codegen.plan import BATCH, Matrix, Stage
from derive.indices import Index, equal, index, variables
from derive.terms import Apply, Expr, Maximum, Tensor, constant, define, term

HALF, QUARTER, MINUS = Fraction(1, 2), Fraction(1, 4), Fraction(-1)


@dataclass(frozen=True)
class Cotangent:
    """The derivative of the loss by some tensor, as ``scale`` times what a stage holds."""

    stage: Stage
    scale: Fraction = Fraction(1)


def pointwise(name: str, like: Stage, body: Expr, into: str = "") -> Stage:
    """A stage with the box and margin of another one."""
    tensor = define(name, like.tensor.box, body)
    return Stage(tensor, "pointwise", like.letters, margin=like.margin, into=into)


def sigmoid_of(negated: Stage, name: str, *, shift: Fraction = Fraction(0)) -> Stage:
    """``shift + recip(1 + exp(-Z))`` in the place of -Z."""
    at = variables(0, negated.tensor.rank)
    power = term(len(at), Apply("exp", term(len(at), negated.tensor[at])))
    body = constant(len(at), shift) + term(len(at), Apply("recip", constant(len(at), 1) + power))
    return pointwise(name, negated, body, into=negated.name)


def pooled(s: Stage, suffix: str, tile: int, axes: int, margin: tuple[tuple[Index, Index], ...]) -> tuple[Stage, ...]:
    """``S = Sum_r s[r]`` and ``P = 1/2 + S / tile^axes``: the mean of sigmoids from s = sigmoid - 1/2.

    A tile of one output has no axes r, and its mean needs no sum: ``P = 1/2 + s``.
    """
    if tile == 1:
        return (_mean(s, suffix, Fraction(1), margin),)
    box = s.tensor.box[axes:]
    at = variables(0, len(box))
    rs = variables(len(box), axes)
    tile_axes = [(index(0), index(tile))] * axes
    letters = s.letters.split()[axes : axes + len(box)] + [f"r{k}" for k in range(axes)]
    loops = tuple(f"r{k}" for k in range(axes))
    body = term(len(box), s.tensor[(*rs, *at)], over=tile_axes)
    slabs = Stage(define(f"S{suffix}", list(box), body), "strided", " ".join(letters), loops, margin)
    return slabs, _mean(slabs, suffix, Fraction(1, tile**axes), margin, into=slabs.name)


def _mean(s: Stage, suffix: str, share: Fraction, margin: tuple[tuple[Index, Index], ...], into: str = "") -> Stage:
    """``P = 1/2 + share S``."""
    at = variables(0, s.tensor.rank)
    body = constant(len(at), HALF) + term(len(at), s.tensor[at], coefficient=share)
    return Stage(define(f"P{suffix}", list(s.tensor.box), body), "pointwise", s.letters, margin=margin, into=into)


def sigmoid_backward(s: Stage, down: Cotangent, suffix: str, axes: int, share: Fraction) -> tuple[Stage, ...]:
    """``dZ[r,..] = (1/4 - s[r,..]^2) share G[..]``: from the cotangent of the pooled mean to that of z."""
    g = down.stage
    at = variables(0, g.tensor.rank)
    scaled = term(len(at), g.tensor[at], coefficient=share * down.scale)
    small = pointwise(f"D{suffix}", g, scaled, into=g.name)
    full = variables(0, s.tensor.rank)
    square = term(len(full), s.tensor[full], s.tensor[full])
    slope = pointwise(f"Q{suffix}", s, constant(len(full), QUARTER) - square, into=s.name)
    both = term(len(full), slope.tensor[full], small.tensor[full[axes:]])
    return small, slope, pointwise(f"dZ{suffix}", slope, both, into=slope.name)


# --- dense layers -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dense:
    """A dense layer as one GEMM: the weights beside the bias, [Wq|uq] = q [W|u], times the input above ones, [H; 1]."""

    kernel: tuple[Stage, Stage]
    h: Stage
    one: Stage
    product: Stage


def dense(h: Stage, weight: Tensor, bias: Tensor, suffix: str, *, scale: Fraction) -> Dense:
    """``Z[n,b] = Sum_k Wq[n,k] H[k,b] + uq[n] One[b]``: ``scale`` times what the layer gives."""
    n, b, k = variables(0, 3)
    copied = define(f"Wq{suffix}", list(weight.box), term(2, weight[n, b], coefficient=scale))
    short = define(f"uq{suffix}", list(bias.box), term(1, bias[n], coefficient=scale))
    one = define(f"One{suffix}", [h.tensor.box[1]], constant(1, 1))
    body = term(2, copied[n, k], h.tensor[k, b], over=[h.tensor.box[0]]) + term(2, short[n], one[b])
    z = define(f"{'Z' if scale == 1 else 'Zm'}{suffix}", [weight.box[0], h.tensor.box[1]], body)
    kernel = Stage(copied, "strided", "n k"), Stage(short, "strided", "n")
    return Dense(kernel, h, Stage(one, "constant", "b"), Stage(z, "matmul", "n b k"))


def dense_matrices(layer: Dense, owner: Stage, suffix: str) -> tuple[Matrix, ...]:
    """[Wq|uq], [H; One] and, for the gradients, [dW|du]; ``owner`` is the stage whose buffer H lies in."""
    return (
        Matrix(f"Kernel{suffix}", (layer.kernel[0].name, layer.kernel[1].name), (1, 1), "columns"),
        Matrix(f"Input{suffix}", (owner.name, layer.one.name), (owner.tensor.rank - 1, 0), "rows"),
        Matrix(f"dKernel{suffix}", (f"dW{suffix}", f"du{suffix}"), (1, 1), "columns"),
    )


def dense_sigmoid_backward(a: Stage, down: Cotangent, suffix: str) -> tuple[Stage, Stage]:
    """``dZ = (A - A^2) G`` for a cotangent G of the sigmoid A."""
    at = variables(0, 2)
    slope = pointwise(f"Q{suffix}", a, term(2, a.tensor[at]) - term(2, a.tensor[at], a.tensor[at]))
    both = term(2, slope.tensor[at], down.stage.tensor[at], coefficient=down.scale)
    return slope, pointwise(f"dZ{suffix}", slope, both, into=slope.name)


def dense_backward(dz: Stage, layer: Dense, weight: Tensor, bias: Tensor, suffix: str) -> tuple[Stage, Stage]:
    """``dW[n,k] = Sum_b dZ[n,b] H[k,b]`` and ``du[n] = Sum_b dZ[n,b] One[b]``: one GEMM."""
    n, k, b = variables(0, 3)
    over = [dz.tensor.box[1]]
    dw = define(f"dW{suffix}", list(weight.box), term(2, dz.tensor[n, b], layer.h.tensor[k, b], over=over))
    summed = term(1, dz.tensor[n, k], layer.one.tensor[(k,)], over=over)
    du = define(f"du{suffix}", list(bias.box), summed)
    return Stage(dw, "matmul", "n k b"), Stage(du, "matmul", "n b")


def dense_input_gradient(dz: Stage, weight: Tensor, suffix: str) -> Stage:
    """``dH[k,b] = Sum_n W[n,k] dZ[n,b]``."""
    k, b, n = variables(0, 3)
    body = term(2, weight[n, k], dz.tensor[n, b], over=[weight.box[0]])
    return Stage(define(f"dH{suffix}", [weight.box[1], dz.tensor.box[1]], body), "matmul", "k b n")


def flattened(p: Stage, suffix: str) -> Stage:
    """``F[k,b] = Sum_{c,i,j} [k == (c H + i) W + j] P[c,i,j,b]``: the same cells with fewer axes."""
    *axes, batch = p.tensor.box
    total, flat = index(1), index(0)
    inner = variables(2, len(axes))
    for v, (_, hi) in zip(inner, axes, strict=True):
        flat, total = flat * hi + v, total * hi
    k, b = variables(0, 2)
    body = term(2, p.tensor[(*inner, b)], over=axes, guards=[equal(k, flat)])
    return Stage(define(f"F{suffix}", [total, batch], body), "view", "k b", into=p.name)


def unflattened(df: Stage, p: Stage, suffix: str) -> Stage:
    """``dP[c,i,j,b] = dF[(c H + i) W + j, b]``."""
    *axes, _ = p.tensor.box
    at = variables(0, p.tensor.rank)
    flat = index(0)
    for v, (_, hi) in zip(at, axes, strict=False):
        flat = flat * hi + v
    body = term(len(at), df.tensor[flat, at[-1]])
    return Stage(define(f"dP{suffix}", list(p.tensor.box), body), "view", p.letters, into=df.name)


# --- softmax and cross-entropy ------------------------------------------------------------------------------------


def cross_entropy(z: Stage, target: Tensor) -> tuple[Stage, ...]:
    """The loss and its cotangent of the logits, in the stable form: everything relative to the row's maximum.

    ``dZ = (exp(z - M) / Sum exp(z - M) - T) / N`` and ``L = (Sum_b log Sum_n exp(z - M) + M - Sum_n T z) / N``.
    The last stage but one is dZ, the last one L.
    """
    n, b = variables(0, 2)
    classes, batch = z.tensor.box
    over_n, over_b = [classes], [batch]
    box = [classes, batch]
    hit = Stage(define("Tn", box, term(2, target[b, n])), "strided", "n b")
    at = variables(1, 1)
    top = Maximum((classes,), (), term(2, z.tensor[at[0], n]))
    m = Stage(define("M", [batch], term(1, top)), "reduce", "b n")
    rel = pointwise("R", z, term(2, z.tensor[n, b]) - term(2, m.tensor[b]))
    e = pointwise("E", rel, term(2, Apply("exp", term(2, rel.tensor[n, b]))), into=rel.name)
    s = Stage(define("Se", [batch], term(1, e.tensor[at[0], n], over=over_n)), "reduce", "b n")
    log = pointwise("Ls", s, term(1, Apply("log", term(1, s.tensor[n]))))
    lse = pointwise("Lm", log, term(1, log.tensor[n]) + term(1, m.tensor[n]), into=log.name)
    tz = pointwise("Tz", hit, term(2, hit.tensor[n, b], z.tensor[n, b]))
    h = Stage(define("Hz", [batch], term(1, tz.tensor[at[0], n], over=over_n)), "reduce", "b n")
    each = pointwise("Le", lse, term(1, lse.tensor[n]) - term(1, h.tensor[n]), into=lse.name)
    total = Stage(define("Lt", [], term(0, each.tensor[n], over=over_b)), "reduce", "b")
    share = Stage(define("share", [], term(0, Apply("recip", term(0, over=[(index(0), BATCH)])))), "share")
    loss = pointwise("L", total, term(0, share.tensor[()], total.tensor[()]))
    r = pointwise("Rs", s, term(1, Apply("recip", term(1, s.tensor[n]))), into=s.name)
    p = pointwise("Pr", e, term(2, e.tensor[n, b], r.tensor[b]), into=e.name)
    miss = pointwise("Pd", p, term(2, p.tensor[n, b]) - term(2, hit.tensor[n, b]), into=p.name)
    dz = pointwise("dL", miss, term(2, miss.tensor[n, b], share.tensor[()]), into=miss.name)
    return hit, m, rel, e, s, log, lse, tz, h, each, total, share, loss, r, p, miss, dz
