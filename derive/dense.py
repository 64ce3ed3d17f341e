"""The dense layer on images that ``derive.reduction`` starts from, and the definitions that make it a convolution.

A ``Setting`` says which sizes are meant: d2l's one image with one channel, images with channels and any reach, or a
layer at symbolic sizes.  The functions below it give the tensors.  Each takes the *stage* up to which weights are
defined: F, U, v and w are free, and thus arbitrary, before theirs.

A kernel that is the same everywhere has an axis of offsets a, from a hidden position i to the pixel i + a.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from derive.indices import Guard, Index, Interval, at_least, equal, index, interval, symbol, symbols, variables
from derive.layers import Applied, Conv, Conv1d, Conv2d, Conv3d, symbolic
from derive.legality import Window
from derive.terms import Tensor, define, tensor, term

Indices = tuple[Index, ...]
Offsets = tuple[Interval, ...]
KINDS: dict[int, type[Conv]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}

DENSE, REINDEXED, INVARIANT, LOCAL, LAYER = range(5)


@dataclass(frozen=True)
class Setting:
    """The sizes: batch, output and input channels (no such axes in the book's first form), then the spatial axes.

    ``hidden`` and ``image`` count positions, ``reach`` is the interval of offsets of the local kernel.  With a layer,
    H is read at multiples of its strides, and its kernel defines the local one.
    """

    batch: Indices
    outputs: Indices
    inputs: Indices
    hidden: Indices
    image: Indices
    reach: Offsets
    facts: tuple[Guard, ...]
    bias: bool = True
    layer: Conv | None = None

    @property
    def rank(self) -> int:
        """How many variables H has."""
        return len(self.batch) + len(self.outputs) + len(self.hidden)

    @property
    def offsets(self) -> Offsets:
        """All offsets from a hidden position to a pixel: -(m - 1) .. n - 1."""
        return tuple(interval(1 - m, n) for m, n in zip(self.hidden, self.image, strict=True))

    @property
    def image_tensor(self) -> Tensor:
        """The images X."""
        return tensor("X", *self.batch, *self.inputs, *self.image)

    @property
    def applied(self) -> Applied | None:
        """The layer on the images."""
        return None if self.layer is None else self.layer.on(self.image_tensor)

    def at(self) -> tuple[Indices, Indices, Indices]:
        """Batch, output channel and position at which H is read."""
        b, o, i = _groups(0, self.batch, self.outputs, self.hidden)
        windows = self.applied.windows if self.applied else ()
        return b, o, tuple(e * w.stride for e, w in zip(i, windows, strict=True)) if windows else i

    def bound(self) -> tuple[Indices, Indices]:
        """The variables of the sums in it: input channel, pixel or offset."""
        c, k = _groups(self.rank, self.inputs, self.image)
        return c, k

    def kernel_box(self, offsets: Offsets) -> list[Index | Interval]:
        """The box of a kernel that is the same at every position."""
        return [*self.outputs, *self.inputs, *offsets]

    def over(self, last: Offsets) -> Offsets:
        """The intervals of a sum over input channels and these."""
        return (*(interval(0, c) for c in self.inputs), *last)


def _groups(start: int, *like: Sequence[object]) -> list[Indices]:
    """Consecutive variables, as many in each group as its model is long."""
    groups = []
    for model in like:
        groups.append(variables(start, len(model)))
        start += len(model)
    return groups


def plus(left: Indices, right: Indices) -> Indices:
    """Axis by axis."""
    return tuple(a + b for a, b in zip(left, right, strict=True))


def minus(left: Indices, right: Indices) -> Indices:
    """Axis by axis."""
    return tuple(a - b for a, b in zip(left, right, strict=True))


def one_channel(axes: int) -> Setting:
    """d2l 7.1.2: one image, one channel, as many hidden pixels as pixels (n an axis), offsets up to D."""
    n, reach = symbols("n D")
    facts = (at_least(n, 1), at_least(reach, 0))
    return Setting((), (), (), (n,) * axes, (n,) * axes, (interval(-reach, reach + 1),) * axes, facts)


def with_channels(axes: int, bias: bool = True) -> Setting:
    """N images with C channels and n pixels an axis to M channels with m hidden pixels; offsets -l..r."""
    batch, outputs, inputs = symbols("N M C")
    n, m, left, right = (tuple(symbol(f"{letter}{axis}") for axis in range(axes)) for letter in "nmlr")
    positive = (at_least(e, 1) for e in (outputs, inputs, *n, *m))
    facts = (at_least(batch, 0), *positive, *(at_least(a + b, 0) for a, b in zip(left, right, strict=True)))
    reach = tuple(interval(-a, b + 1) for a, b in zip(left, right, strict=True))
    return Setting((batch,), (outputs,), (inputs,), m, n, reach, facts, bias)


def of_layer(axes: int, bias: bool = True) -> Setting:
    """Every legal convolution on every input: all sizes, strides, paddings and dilations are symbols.

    The dense layer has as many hidden positions, m = L + 1 an axis, as a window of stride 1 has.
    """
    layer, (batch, inputs, *image) = symbolic(KINDS[axes])
    layer = replace(layer, bias=bias)
    applied = layer.on(tensor("X", batch, inputs, *image))
    hidden = tuple(symbol(f"m{axis}") for axis in range(axes))
    facts = applied.facts + tuple(equal(m, w.last + 1) for m, w in zip(hidden, applied.windows, strict=True))
    reach = tuple(_reach(w) for w in applied.windows)
    outputs = index(layer.out_channels)
    return Setting((batch,), (outputs,), (inputs,), hidden, tuple(image), reach, facts, bias, layer)


def _reach(w: Window) -> Interval:
    """The offsets under a window: -pl .. d (k - 1) - pl."""
    return interval(-w.before, w.extent - w.before)


# --- the definitions ----------------------------------------------------------------------------------------------


def local_kernel(s: Setting) -> Tensor:
    """``w``: free, or with a layer w[o,c,a] := Sum_{a'} [a + pl == a' d] W[o,c,a']."""
    box = s.kernel_box(s.reach)
    if s.applied is None:
        return tensor("w", *box)
    windows, weight = s.applied.windows, s.applied.parameters["weight"]
    channels, a, tap = _groups(0, "oc", windows, windows)
    meets = [equal(e + w.before, t * w.dilation) for w, e, t in zip(windows, a, tap, strict=True)]
    body = term(len(box), weight[(*channels, *tap)], over=[(index(0), w.kernel) for w in windows], guards=meets)
    return define("w", box, body)


def shared_kernel(s: Setting, stage: int) -> Tensor:
    """``v``, over all offsets; from LOCAL on v[o,c,a] := w[o,c,a]."""
    box = s.kernel_box(s.offsets)
    if stage < LOCAL:
        return tensor("v", *box)
    return define("v", box, term(len(box), local_kernel(s)[variables(0, len(box))]))


def dense_weight(s: Setting, stage: int) -> Tensor:
    """``F``, for every pair of pixels; from INVARIANT on F[o,i,c,k] := v[o,c,k-i]."""
    box: list[Index | Interval] = [*s.outputs, *s.hidden, *s.inputs, *s.image]
    if stage < INVARIANT:
        return tensor("F", *box)
    o, i, c, k = _groups(0, s.outputs, s.hidden, s.inputs, s.image)
    return define("F", box, term(len(box), shared_kernel(s, stage)[(*o, *c, *minus(k, i))]))


def dense_bias(s: Setting, stage: int) -> Tensor:
    """``U``, for every hidden pixel; from INVARIANT on U[o,i] := u[o]."""
    box = [*s.outputs, *s.hidden]
    if stage < INVARIANT:
        return tensor("U", *box)
    return define("U", box, term(len(box), tensor("u", *s.outputs)[variables(0, len(s.outputs))]))


def offset_weight(s: Setting, stage: int) -> Tensor:
    """``V[o,i,c,a] := F[o,i,c,i+a]``: the same weights by offset."""
    o, i, c, a = _groups(0, s.outputs, s.hidden, s.inputs, s.image)
    box: list[Index | Interval] = [*s.outputs, *s.hidden, *s.inputs, *s.offsets]
    return define("V", box, term(len(box), dense_weight(s, stage)[(*o, *i, *c, *plus(i, a))]))


def dense_layer(s: Setting, stage: int) -> Tensor:
    """``H[b,o,i] := U[o,i] + Sum_{c,k} F[o,i,c,k] X[b,c,k]``: a weight for every pair of pixels and channels."""
    (b, o, i), (c, k) = _groups(0, s.batch, s.outputs, s.hidden), s.bound()
    over = s.over(tuple(interval(0, n) for n in s.image))
    body = term(s.rank, dense_weight(s, stage)[(*o, *i, *c, *k)], s.image_tensor[(*b, *c, *k)], over=over)
    if s.bias:
        body = body + term(s.rank, dense_bias(s, stage)[(*o, *i)])
    return define("H", [*s.batch, *s.outputs, *s.hidden], body)
