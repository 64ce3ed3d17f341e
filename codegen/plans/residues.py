"""An input gradient with strides, or with groups, whose sum runs over what reaches a cell and over nothing else.

Gathered by its definition (``codegen.plans.definition``) a cell h asks every kernel cell a whether the stride s divides
h + p - a d, and every output whether it is of the cell's group.  Both are known beforehand: without dilation the kernel
cells are those with the residue of h + p, a = s t + r, and the outputs are the Og of the group of the channel,

    q = (h + p) // s,  r = (h + p) mod s,  g = c // Cg
    dX[b,c,h] = Sum_{n < Og, t < ceil(k / s)} W[g Og + n, c mod Cg, s t + r] G[b, g Og + n, q - t]

which a thread an element sums (``residues``).  As a matrix product the residue and the group are axes of their own, of
rows and of products side by side, and the image is put together from the phases (``residue_products``):

    P[b,r,g,c,q] = Sum_{n,t} W[g Og + n, c, s t + r] G[b, g Og + n, q - t]
    dX[b,c,h] = P[b, (h + p) mod s, c // Cg, c mod Cg, (h + p) // s]

Weight and cotangent are zero outside their boxes, so kernels that the stride does not divide need nothing else.  Where
the stride is 1 there may be a dilation d: G is read at q - t d.  With both, the residues of a d are no plain function
of those of h, and the definition's form stays.
"""

from __future__ import annotations

from math import prod

from codegen.plan import Plan, Stage
from codegen.plans import convolution as conv
from codegen.plans.convolution import Result
from derive.indices import Index, Interval, index, variables
from derive.layers import Applied, Conv, Window
from derive.terms import Expr, Tensor, define, term


def residues(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plan of input_gradient, one stage; without dilation, or without strides.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Conv1d
    >>> from derive.terms import tensor
    >>> plan = residues(Conv1d(1, 2, 5, stride=2).on(tensor("X", BATCH, 1, 99)))["input_gradient"]
    >>> plan.stages[0].body
    Sum{0<=$3<2,0<=$4<3}*G[$0,$3,-$4+(($2)//(2))]*W[$3,$1,$2+2*$4-2*(($2)//(2))]
    """
    stage = Stage(define("dX", list(applied.x.box), _gathered(applied)), "cells", _letters(applied))
    return _planned("residues", applied, itemsize, (stage,))


def residue_products(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The same as two stages: a product for all residues at once, and the image put together."""
    phases = _phases(applied)
    whole = define("dX", list(applied.x.box), _together(applied, phases.tensor))
    letters = f"b c {_named('h', applied)}"
    return _planned("residue_products", applied, itemsize, (phases, Stage(whole, "cells", letters)))


def fewer_terms(applied: Applied) -> tuple[int, int] | None:
    """How many terms the sum of an element has by its definition and here; None where there is no plan for numbers.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Conv2d
    >>> from derive.terms import tensor
    >>> fewer_terms(Conv2d(64, 128, 3, stride=2, padding=1).on(tensor("X", BATCH, 64, 56, 56)))
    (1152, 512)
    """
    layer = _layer(applied)
    windows = [(w.kernel.constant, w.stride.constant, w.dilation.constant) for w in applied.windows]
    numbers = [(k, s, d) for k, s, d in windows if k is not None and s is not None and d is not None]
    outputs = index(1 if layer.is_depthwise else layer.out_channels).constant
    fits = all(d == 1 for _, _, d in numbers) or all(s == 1 for _, s, _ in numbers)
    if len(numbers) < len(windows) or outputs is None or not fits:
        return None
    groups = 1 if layer.is_depthwise else index(layer.groups).constant or 1
    return outputs * prod(k for k, _, _ in numbers), outputs // groups * prod(-(-k // s) for k, s, _ in numbers)


# --- one stage ----------------------------------------------------------------------------------------------------


def _gathered(applied: Applied) -> Expr:
    weight, g, layer = applied.parameters["weight"], conv.cotangent_of(applied), _layer(applied)
    axes = len(applied.windows)
    depth = 2 + axes
    (b, c), hs = variables(0, 2), variables(2, axes)
    turns, within = _split(applied, hs)
    if layer.is_depthwise:
        t = variables(depth, axes)
        n, own, over = c, index(0), _parts(applied)
    else:
        e, t = variables(depth, 1)[0], variables(depth + 1, axes)
        inputs, outputs = layer.group_sizes()
        group = c // inputs if layer.is_grouped else index(0)
        n, own, over = group * outputs + e, c - group * inputs, [(index(0), outputs), *_parts(applied)]
    cells = [w.stride * tk + rk for w, tk, rk in zip(applied.windows, t, within, strict=True)]
    places = [q - tk * w.dilation for w, q, tk in zip(applied.windows, turns, t, strict=True)]
    return term(depth, weight[(n, own, *cells)], g[(b, n, *places)], over=over)


def _letters(applied: Applied) -> str:
    own = "" if _layer(applied).is_depthwise else "n "
    return f"b c {_named('h', applied)} {own}{_named('t', applied)}"


# --- two stages ---------------------------------------------------------------------------------------------------


def _phases(applied: Applied) -> Stage:
    """``P[b,r,g,c,q]``; without groups there is no axis g."""
    weight, cotangent, layer = applied.parameters["weight"], conv.cotangent_of(applied), _layer(applied)
    axes, (inputs, outputs) = len(applied.windows), layer.group_sizes()
    groups: list[Interval] = [(index(0), index(layer.groups))] if layer.is_grouped else []
    steps: list[Interval] = [(index(0), w.stride) for w in applied.windows]
    turns: list[Interval] = [(index(0), (w.size - 1 + w.before) // w.stride + 1) for w in applied.windows]
    box = [applied.x.box[0], *steps, *groups, (index(0), inputs), *turns]
    at = variables(0, len(box))
    b, r, c, q = at[0], at[1 : 1 + axes], at[-1 - axes], at[-axes:]
    e, *t = variables(len(box), 1 + axes)
    n = at[1 + axes] * outputs + e if groups else e
    cells = [w.stride * tk + rk for w, tk, rk in zip(applied.windows, t, r, strict=True)]
    places = [qk - tk * w.dilation for w, qk, tk in zip(applied.windows, q, t, strict=True)]
    over = [(index(0), outputs), *_parts(applied)]
    body = term(len(box), weight[(n, c, *cells)], cotangent[(b, n, *places)], over=over)
    letters = f"b {_named('r', applied)} {'g ' if groups else ''}c {_named('q', applied)} n {_named('t', applied)}"
    return Stage(define("P", box, body), "product", letters)


def _together(applied: Applied, phases: Tensor) -> Expr:
    layer, axes = _layer(applied), len(applied.windows)
    (b, c), hs = variables(0, 2), variables(2, axes)
    turns, within = _split(applied, hs)
    channel: tuple[Index, ...] = (c,)
    if layer.is_grouped:
        inputs, _ = layer.group_sizes()
        channel = (c // inputs, c - c // inputs * inputs)
    return term(2 + axes, phases[(b, *within, *channel, *turns)])


# --- both ---------------------------------------------------------------------------------------------------------


def _split(applied: Applied, hs: tuple[Index, ...]) -> tuple[list[Index], list[Index]]:
    """``h + p`` on every axis as a multiple of the stride and a residue."""
    reached = [h + w.before for h, w in zip(hs, applied.windows, strict=True)]
    turns = [e // w.stride for e, w in zip(reached, applied.windows, strict=True)]
    return turns, [e - q * w.stride for e, q, w in zip(reached, turns, applied.windows, strict=True)]


def _parts(applied: Applied) -> list[Interval]:
    """For every axis the numbers t of kernel cells with one residue."""
    return [(index(0), _rounded_up(w)) for w in applied.windows]


def _rounded_up(w: Window) -> Index:
    return (w.kernel + w.stride - 1) // w.stride


def _named(letter: str, applied: Applied) -> str:
    return " ".join(f"{letter}{axis}" for axis in range(len(applied.windows)))


def _planned(algorithm: str, applied: Applied, itemsize: int, stages: tuple[Stage, ...]) -> dict[str, Plan]:
    return {
        name: plan
        for name, plan in conv.planned(algorithm, applied, itemsize, {"input_gradient": Result(stages)}).items()
        if name == "input_gradient"
    }


def _layer(applied: Applied) -> Conv:
    if not isinstance(applied.layer, Conv):
        raise TypeError(f"layer={applied.layer!r}: a convolution is needed")
    return applied.layer
