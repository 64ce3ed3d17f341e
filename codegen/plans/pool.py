"""Average pooling by itself: a mean over windows, and the cotangent spread over them again, one axis after another.

With the stride s, the kernel size k of each axis and q = 1 / (k0 k1 ...) for NumPy (``slabs``)

    forward         S0[b,c,i0,h1] = Sum_{a<k0} X[b,c,i0 s0 + a,h1];  S1[b,c,i0,i1] = Sum_{a<k1} S0[b,c,i0,i1 s1 + a]
                    P = q S1
    input gradient  D = q G;  E1[b,c,i0,h1] = Sum_{a,i1} [h1 == i1 s1 + a] D[b,c,i0,i1]
                    dX[b,c,h0,h1] = Sum_{a,i0} [h0 == i0 s0 + a] E1[b,c,i0,h1]

A sum over rows comes first, of whole rows, and leaves less for what steps along a row.  Where windows overlap, slices
are added, else copied.  A CUDA kernel (``definition``) forms the mean of a window in a thread.  There a cell gathers:
with h = s r + m, m < s, it lies at place s t + m in the windows r - t,

    dX[b,c,h] = q Sum_{t < ceil(k / s)} [s t + m < k] G[b,c,r - t]

so where windows do not overlap a thread reads one element.  Where k is a symbol, q is ``recip(Sum_{a<k} 1)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod

from codegen.plan import Plan, Stage
from codegen.plans import convolution as conv
from codegen.plans.blocks import in_cache
from codegen.plans.convolution import Result
from derive.indices import Index, Interval, at_least, equal, index, variables
from derive.layers import Applied
from derive.terms import Apply, Expr, Factor, Tensor, define, shift_factors, term


@dataclass(frozen=True)
class Share:
    """The part q that each cell of a window has in its mean: a number, or a reciprocal where a size is a symbol."""

    number: Fraction
    factors: tuple[Factor, ...] = ()


def share_of(applied: Applied) -> Share:
    """One over the cells of a window.

    >>> from derive.layers import AvgPool1d
    >>> from derive.terms import tensor
    >>> share_of(AvgPool1d(3).on(tensor("X", 1, 1, 9))).number
    Fraction(1, 3)
    """
    sizes = [w.kernel.constant for w in applied.windows]
    known = [size for size in sizes if size is not None]
    if len(known) == len(sizes):
        return Share(Fraction(1, prod(known)))
    return Share(Fraction(1), (Apply("recip", term(applied.y.rank, over=kernel_box(applied))),))


def kernel_box(applied: Applied) -> list[Interval]:
    """The cells of a window."""
    return [(index(0), w.kernel) for w in applied.windows]


def letters(letter: str, axes: int) -> list[str]:
    """A letter for each axis."""
    return [f"{letter}{axis}" for axis in range(axes)]


# --- NumPy ----------------------------------------------------------------------------------------------------------


def slabs(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward and input_gradient for NumPy.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import AvgPool2d
    >>> from derive.terms import tensor
    >>> plans = slabs(AvgPool2d(2).on(tensor("X", BATCH, 6, 28, 28)))
    >>> {name: [stage.name for stage in plan.stages] for name, plan in plans.items()}
    {'forward': ['S0', 'S1', 'P'], 'input_gradient': ['D', 'E1', 'dX']}
    """
    results = {"forward": Result(tuple(_forward(applied))), "input_gradient": Result(tuple(_backward(applied)))}
    return conv.planned("slabs", applied, itemsize, results, block=in_cache)


def _forward(applied: Applied) -> list[Stage]:
    """The sums along each axis in turn, then their multiples."""
    axes, rank, share = len(applied.windows), applied.x.rank, share_of(applied)
    stages: list[Stage] = []
    source, box = applied.x, list(applied.x.box)
    at = variables(0, rank)
    (a,) = variables(rank, 1)
    for axis, w in enumerate(applied.windows):
        place = 2 + axis
        box[place] = (index(0), w.output)
        cells = (*at[:place], w.read(at[place], a), *at[place + 1 :])
        body = term(rank, source[cells], over=[(index(0), w.kernel)])
        names = ["b", "c", *letters("i", axis + 1), *(f"h{k}" for k in range(axis + 1, axes)), "a"]
        stages.append(Stage(define(f"S{axis}", list(box), body), "strided", " ".join(names), ("a",)))
        source = stages[-1].tensor
    mean = term(rank, *share.factors, source[at], coefficient=share.number)
    names = ["b", "c", *letters("i", axes)]
    return [*stages, Stage(define("P", list(box), mean), "pointwise", " ".join(names), into=source.name)]


def _backward(applied: Applied) -> list[Stage]:
    """A multiple of the cotangent, spread along each axis in turn, the last axis first."""
    g, axes, rank, share = conv.cotangent_of(applied), len(applied.windows), applied.x.rank, share_of(applied)
    at = variables(0, rank)
    shared = term(rank, *share.factors, g[at], coefficient=share.number)
    small = Stage(define("D", list(g.box), shared), "pointwise", " ".join(["b", "c", *letters("i", axes)]))
    stages, box = [small], list(g.box)
    a, i = variables(rank, 2)
    for axis in reversed(range(axes)):
        w, place, source = applied.windows[axis], 2 + axis, stages[-1].tensor
        box[place] = applied.x.box[place]
        cells = (*at[:place], i, *at[place + 1 :])
        over = [(index(0), w.kernel), (index(0), w.output)]
        body = term(rank, source[cells], over=over, guards=[equal(at[place], w.read(i, a))])
        names = ["b", "c", *letters("i", axis), *(f"h{k}" for k in range(axis, axes)), "a", f"i{axis}"]
        stage = Stage(define(f"E{axis}" if axis else "dX", list(box), body), "scatter", " ".join(names), ("a",))
        stages.append(stage)
    return stages


# --- CUDA -----------------------------------------------------------------------------------------------------------


def definition(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward and input_gradient for CUDA text, one stage each.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import AvgPool1d
    >>> from derive.terms import tensor
    >>> plans = definition(AvgPool1d(2).on(tensor("X", BATCH, 6, 28)))
    >>> plans["forward"].stages[0].body
    1/2*Sum{0<=$3<2}*X[$0,$1,2*$2+$3]
    """
    axes = len(applied.windows)
    mean = define("P", list(applied.y.box), _mean(applied))
    spread = define("dX", list(applied.x.box), _gathered(applied, conv.cotangent_of(applied)))
    results = {
        "forward": Result((Stage(mean, "cells", " ".join(["b", "c", *letters("i", axes), *letters("a", axes)])),)),
        "input_gradient": Result(
            (Stage(spread, "cells", " ".join(["b", "c", *letters("h", axes), *letters("t", axes)])),)
        ),
    }
    return conv.planned("definition", applied, itemsize, results)


def _mean(applied: Applied) -> Expr:
    """``q Sum_a X[b,c,i s + a]``."""
    axes, rank, share = len(applied.windows), applied.y.rank, share_of(applied)
    b, c, *i = variables(0, rank)
    cells = [w.read(ik, ak) for w, ik, ak in zip(applied.windows, i, variables(rank, axes), strict=True)]
    inner = term(rank, applied.x[(b, c, *cells)], over=kernel_box(applied), coefficient=share.number)
    return _times(rank, inner, share)


def _gathered(applied: Applied, g: Tensor) -> Expr:
    """``q Sum_t [s t + m < k] G[b,c,r - t]`` for h = s r + m."""
    axes, rank, share = len(applied.windows), applied.x.rank, share_of(applied)
    b, c, *h = variables(0, rank)
    t = variables(rank, axes)
    turns = [hk // w.stride for w, hk in zip(applied.windows, h, strict=True)]
    over = [(index(0), (w.kernel + w.stride - 1) // w.stride) for w in applied.windows]
    places: list[Index] = []
    guards = []
    for w, hk, r, tk in zip(applied.windows, h, turns, t, strict=True):
        places.append(r - tk)
        guards.append(at_least(w.kernel - 1, w.stride * tk + hk - r * w.stride))
    inner = term(rank, g[(b, c, *places)], over=over, guards=guards, coefficient=share.number)
    return _times(rank, inner, share)


def _times(depth: int, e: Expr, share: Share) -> Expr:
    """A sum of one monomial times the factors of a share."""
    if not share.factors:
        return e
    (m,) = e.monomials
    bound = depth + len(m.binders)
    moved = shift_factors(share.factors, depth, bound)
    return term(depth, *moved, *m.factors, over=m.binders, guards=m.guards, coefficient=m.coefficient)
