"""From a dense layer on images to a convolution (d2l 7.1), every step a theorem for all sizes.

A fully connected layer from images to hidden images has a weight F for every pair of pixels (d2l calls it W, which is
kept for the layer's kernel here).  With one channel and two axes, and offsets up to D:

    H[i,j] = U[i,j] + Sum_{k,l} F[i,j,k,l] X[k,l]                  one weight for every pair of pixels
           = U[i,j] + Sum_{a,b} V[i,j,a,b] X[i+a,j+b]              k = i + a, V[i,j,a,b] := F[i,j,i+a,j+b]
           = u      + Sum_{a,b} v[a,b] X[i+a,j+b]                  translation invariance: F[i,j,k,l] := v[k-i,l-j]
           = u      + Sum_{|a|<=D,|b|<=D} w[a,b] X[i+a,j+b]        locality: v := w, which is zero outside that box

Re-indexing only renames.  Invariance and locality are *definitions* of the weights, not hypotheses about them: a dense
layer whose weights are defined so computes a convolution.  Offsets run over -(n-1)..n-1, so there are 2n - 1 of them.

The exact range of translation invariance: V[i,j,a,b] equals v[a,b] wherever (i,j) is a hidden pixel and (i+a,j+b) lies
in the image, and is zero elsewhere, since F is; ``stationarity`` proves both.  That V does not depend on (i,j) at *all*
offsets would be false: with F zero outside the image it forces v = 0 off the centre.  Nor does invariance mean to
commute with a shift that fills up with zeros: shifts in both directions leave only multiples of the identity.

``in_channels`` and ``out_channels`` are axes c and o that ride along, and so does the batch b, on which no weight
depends.  The layer itself is a restriction of a dense layer with m = n + pl + pr - d(k-1) hidden positions an axis, the
positions of stride 1.  Padding is the reach of w, offsets -pl..d(k-1)-pl; dilation is a kernel that is zero off the
multiples of d, w[a] := Sum_{a'} [a + pl == a' d] W[a']; the stride reads H at the positions i s.  The last line of the
derivation is, letter for letter, the defining equation in ``derive.layers``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from derive import kernel, tactics
from derive.dense import (
    DENSE,
    INVARIANT,
    LAYER,
    LOCAL,
    REINDEXED,
    Indices,
    Setting,
    dense_layer,
    dense_weight,
    minus,
    of_layer,
    offset_weight,
    one_channel,
    plus,
    with_channels,
)
from derive.derivation import Derivation, Note
from derive.indices import Guard, index, symbol, variables
from derive.kernel import Theorem, Where
from derive.layers import Conv
from derive.legality import LayerError
from derive.render.names import Names
from derive.rules import Reguard, Reindex, Unfold
from derive.shapes import as_index
from derive.terms import Tensor, tensor, term
from derive.weights import Milestone, ParameterCount, Pattern, pattern

NAMES = ("fully connected", "re-indexed", "translation invariant", "local", "the layer")
STATEMENTS = (
    "Every hidden pixel has a weight F for every pixel of the image, and a bias U of its own.",
    """A pixel is addressed by its offset from the hidden pixel. V is F under other indices: nothing is assumed, and
    there are as many parameters as before.""",
    """The weight for a pair of pixels is defined to depend on their offset only, F := v, and the bias not to depend on
    the position, U := u. So V is v wherever the offset leads from a hidden pixel into the image.""",
    """Only near pixels matter: v is defined to be w, which is zero outside a small box of offsets. The image counts as
    zero outside itself, so no offset has to be left out at the border.""",
    """Padding is the reach of w, dilation defines w from the kernel W, and the stride keeps the hidden pixels at its
    multiples only. What is left is the layer's defining equation.""",
)
RANGE = (
    "Translation invariance holds exactly where it has a meaning: V does not depend on the hidden pixel wherever the "
    "offset leads from a hidden pixel into the image, and V is zero elsewhere."
)

# --- the steps ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def prove(s: Setting, stage: int) -> tuple[Theorem, tuple[Note, ...]]:
    """H with the definitions up to a stage equals its form there; with a note where each stage begins."""
    h = dense_layer(s, stage)
    b, o, i = s.at()
    over = h.box if s.applied is None else s.applied.y.box
    theorem = kernel.begin(term(s.rank, h[(*b, *o, *i)]), facts=s.facts, over=over)
    notes = []
    for now in range(stage + 1):
        notes.append(Note(len(theorem.steps) if now else 0, NAMES[now].capitalize(), _statement(now)))
        theorem = _step(theorem, s, stage, now)
    return theorem, tuple(notes)


def _statement(stage: int) -> str:
    return " ".join(STATEMENTS[stage].split())


def _step(theorem: Theorem, s: Setting, stage: int, now: int) -> Theorem:
    """From the form before ``now`` to the one at it."""
    if now == DENSE:
        return kernel.rewrite(theorem, (0,), Unfold(0))
    if now == REINDEXED:
        return _reindex(theorem, s, stage)
    if now == INVARIANT:
        return tactics.tidy(tactics.unfold_all(theorem, ["V", "F", "U"]))
    if now == LOCAL:
        theorem = tactics.tidy(tactics.unfold_all(theorem, ["v"]))
        return kernel.rewrite(theorem, _the_sum(theorem), Reguard(s.over(s.reach), ()))
    return tactics.tidy(tactics.contract_all(tactics.unfold_all(theorem, ["w"])))


def _reindex(theorem: Theorem, s: Setting, stage: int) -> Theorem:
    """Sum over offsets a = k - i, and write V for the weight at an offset."""
    (_, o, i), (c, v) = s.at(), s.bound()
    by_offset = Reindex(s.over(s.offsets), (*c, *plus(i, v)), (*c, *minus(v, i)))
    theorem = tactics.tidy(kernel.rewrite(theorem, _the_sum(theorem), by_offset))
    fold = kernel.sym(_definition(offset_weight(s, stage), s.facts))
    return kernel.use(theorem, _the_sum(theorem), fold, (*o, *i, *c, *v))


def _definition(t: Tensor, facts: Iterable[Guard]) -> Theorem:
    """A defined tensor equals its body, in its box."""
    theorem = kernel.begin(term(t.rank, t[variables(0, t.rank)]), facts=facts, over=t.box)
    return kernel.rewrite(theorem, (0,), Unfold(0))


def _the_sum(theorem: Theorem) -> Where:
    (number,) = (k for k, m in enumerate(theorem.rhs.monomials) if m.binders)
    return (number,)


# --- theorems -----------------------------------------------------------------------------------------------------


def milestones(s: Setting) -> tuple[Milestone, ...]:
    """The forms of the dense layer, each proved to be equal to it for all sizes and all values of its parameters.

    >>> [str(m.count) for m in milestones(one_channel(2))]
    ['n*n+n*n*n*n', 'n*n+n*n*n*n', '-4*n+4*n*n+2', '4*D+4*D*D+2']
    """
    stages = range(LOCAL + 1 if s.layer is None else LAYER + 1)
    return tuple(Milestone(NAMES[k], _statement(k), prove(s, k)[0]) for k in stages)


def stationarity(s: Setting) -> Theorem:
    """V[o,i,c,a] = [i + a in the image] v[o,c,a] for hidden positions i: the exact range of translation invariance.

    >>> stationarity(one_channel(1))
    |- V[$0,$1] = [$0+$1>=0][-$0-$1+n-1>=0]*v[$1]
    """
    return tactics.tidy(tactics.unfold_all(_definition(offset_weight(s, INVARIANT), s.facts), ["F"]))


def layer_theorem(axes: int, bias: bool = True) -> Theorem:
    """A dense layer at the positions i s is the layer's defining equation, for every legal layer on any input size.

    Its facts are the layer's conditions and m = n + pl + pr - d (k - 1), the number of hidden positions on an axis.

    >>> layer_theorem(1)  # doctest: +NORMALIZE_WHITESPACE
    |- H[$0,$1,$2*s0] = Sum{0<=$3<C,0<=$4<k0}*W[$1,$3,$4]*X[$0,$3,$2*s0+$4*d0-p0] + u[$1]
    """
    return prove(of_layer(axes, bias), LAYER)[0]


def layer_equation(axes: int, bias: bool = True) -> Theorem:
    """The same with the layer's output Z on the right: H[b,o,i s] = Z[b,o,i].

    >>> layer_equation(2)
    |- H[$0,$1,$2*s0,$3*s1] = Z[$0,$1,$2,$3]
    """
    s = of_layer(axes, bias)
    assert s.applied is not None
    return tactics.agree(layer_theorem(axes, bias), _definition(s.applied.y, s.facts))


# --- for the reader -----------------------------------------------------------------------------------------------


def reduction(layer: Conv, input_shape: Sequence[Any] | None = None) -> Derivation:
    """The derivation of a convolution from a dense layer (d2l 7.1), for all sizes on the layer's number of axes.

    ``input_shape``, the shape (N, C, ...) of its input, only makes the introduction name numbers of parameters.
    LayerError for a shape that is not legal, and for a grouped convolution.

    >>> from derive.layers import Conv2d
    >>> len(reduction(Conv2d(6, 16, 5)).steps)
    15
    """
    _ungrouped(layer)
    theorem, notes = prove(of_layer(layer.axes, layer.bias), LAYER)
    return Derivation(
        title=f"A dense layer becomes {type(layer).__name__}",
        introduction=_introduction(layer, input_shape),
        proof=theorem,
        source="d2l 7.1",
        notes=notes,
        names=_names(layer.axes, "bo", "c", ("a", "e", "f")),
    )


def _ungrouped(layer: Conv) -> None:
    """LayerError for a grouped layer: invariance and locality alone make the groups' weights no zeros."""
    if layer.is_grouped:
        raise LayerError(
            f"{layer}: groups={layer.groups} has no reduction here: a dense layer becomes a convolution in which every "
            "output channel reads every input channel; the nearest legal value is 1"
        )


def book_reduction(axes: int = 2) -> Derivation:
    """d2l's first form of the same: one image, one channel, ending at sums over |a|, |b| <= D.

    >>> book_reduction(1).theorem
    |- H[$0] = Sum{-D<=$1<D+1}*X[$0+$1]*w[$1] + u[]
    """
    theorem, notes = prove(one_channel(axes), LOCAL)
    text = (
        "A fully connected layer on one image of n pixels an axis has a weight for every pair of pixels. Weights that "
        "depend on the offset only, and only on small offsets, make it a convolution. " + RANGE
    )
    return Derivation(
        title="A dense layer on one image becomes a convolution",
        introduction=text,
        proof=theorem,
        source="d2l 7.1.2",
        notes=notes,
        names=_names(axes, "", "", ("a", "b", "e")),
    )


def _names(axes: int, lead: str, channel: str, offsets: tuple[str, ...]) -> Names:
    """Batch b, output channel o, hidden pixel i, j, input channel c, pixel k, l, and the offsets."""
    i, k, a = (*"ijh"[:axes],), (*"klq"[:axes],), offsets[:axes]
    b, o, c = (*lead[:1],), (*lead[1:],), (*channel,)
    small = (*o, *c, *a)
    named = {"H": (*b, *o, *i), "X": (*b, *c, *k), "U": (*o, *i), "F": (*o, *i, *c, *k), "V": (*o, *i, *c, *a)}
    return Names(free=(*lead, *i), axes={**named, "v": small, "w": small, "W": small, "u": o}, bound=a)


def _introduction(layer: Conv, input_shape: Sequence[Any] | None) -> str:
    before, *_, shared, near, after = layer_counts(layer, input_shape)
    at = "" if input_shape is None else f" on an input of shape ({', '.join(map(str, input_shape))})"
    return (
        f"The layer is {layer}{at}. The theorem holds for all sizes, strides, paddings and dilations; in this layer "
        f"{_numbers(layer)}. The dense layer has m hidden pixels on an axis, the positions of a window of stride 1. "
        f"Parameters at these numbers: {before.value} in the dense layer, {shared.value} with translation invariance, "
        f"{near.value} with locality, {after.value} in the layer. {RANGE}"
    )


def _numbers(layer: Conv) -> str:
    applied = layer.on(tensor("X", *_input_shape(layer, None)))
    pairs = [("C", index(layer.in_channels)), ("M", index(layer.out_channels))]
    for k, w in enumerate(applied.windows):
        pairs += [(f"k{k}", w.kernel), (f"s{k}", w.stride), (f"p{k}", w.before), (f"d{k}", w.dilation)]
    return ", ".join(f"{name} = {value.text}" for name, value in pairs)


# --- counts and pictures ------------------------------------------------------------------------------------------


def book_counts(axes: int = 2, *, n: int = 1000, reach: int = 10) -> tuple[ParameterCount, ...]:
    """Parameters for one pair of channels on an image of n pixels an axis, beside what d2l 7.1 prints (for two axes).

    The last one counts the box of offsets; for ``reach`` <= n - 1 each of them leads to some pixel.

    >>> for c in book_counts():
    ...     print(c.expression, c.value, c.rounded, sep="   ")
    n**4 + n**2   1000001000000   1000000000000
    n**4 + n**2   1000001000000   1000000000000
    (2*n - 1)**2 + 1   3996002   4000000
    (2*D + 1)**2 + 1   442   400
    """
    sizes = {"n": index(n), "D": index(reach)}
    rounded = (n ** (2 * axes), n ** (2 * axes), (2 * n) ** axes, (2 * reach) ** axes)
    steps = zip(milestones(one_channel(axes)), rounded, strict=True)
    return tuple(ParameterCount.of(m, sizes, book) for m, book in steps)


def layer_counts(layer: Conv, input_shape: Sequence[Any] | None = None) -> tuple[ParameterCount, ...]:
    """Parameters at each milestone for a layer's own numbers, channels included.

    ``input_shape`` is the shape of its input; without it the image is n0, n1, ... pixels an axis.  The dense layer has
    m = n + pl + pr - d (k - 1) hidden pixels an axis and offsets from -l to r: l = pl, r = d (k - 1) - pl.  LayerError
    for a shape that is not legal, and for a grouped convolution.

    >>> from derive.layers import Conv2d
    >>> [c.value for c in layer_counts(Conv2d(6, 16, 5), (8, 6, 14, 14))]
    [1883200, 1883200, 50800, 2416, 2416]
    """
    _ungrouped(layer)
    windows = layer.on(tensor("X", *_input_shape(layer, input_shape))).windows
    sizes = {"C": index(layer.in_channels), "M": index(layer.out_channels)}
    for k, w in enumerate(windows):
        sizes |= {f"m{k}": w.last + 1, f"n{k}": w.size, f"k{k}": w.kernel}
        sizes |= {f"l{k}": w.before, f"r{k}": w.extent - 1 - w.before}
    last = milestones(of_layer(layer.axes, layer.bias))[LAYER]
    steps = (*milestones(with_channels(layer.axes, layer.bias)), last)
    return tuple(ParameterCount.of(m, sizes) for m in steps)


def _input_shape(layer: Conv, given: Sequence[Any] | None) -> Indices:
    if given is not None:
        return tuple(as_index("input_shape", e, {}) for e in given)
    return (symbol("N"), index(layer.in_channels), *(symbol(f"n{k}") for k in range(layer.axes)))


def weight_patterns(size: int = 4, reach: int = 1, axes: int = 2) -> dict[str, Pattern]:
    """The weight matrix F before and after invariance and locality, as numbers: equal numbers are one parameter.

    Rows are hidden pixels and columns pixels, both row-major.  Dense: all different.  Invariant: two-level Toeplitz,
    equal blocks along the diagonals of blocks and equal numbers along theirs.  Local: a band, None where F is zero.

    >>> weight_patterns(3, 1, axes=1)["local"]
    [[1, 2, None], [0, 1, 2], [None, 0, 1]]
    """
    stages = {"dense": DENSE, "invariant": INVARIANT, "local": LOCAL}
    sizes = {"n": size, "D": reach}
    return {name: pattern(dense_weight(one_channel(axes), k), axes, sizes) for name, k in stages.items()}
