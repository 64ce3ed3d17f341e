"""What a layer is: its dimensions, when they are legal, how large its output is, and its defining equation.

A layer is a frozen description with ``torch.nn``'s signature.  Each dimension is an integer or a size symbol, so the
same description states a layer at a shape and the theorem about all shapes.  ``layer.on(x, ...)`` puts it on an input
tensor and gives an ``Applied``: the output as a *defined* tensor, and the facts under which the definition makes sense.

Legality is written once, as the ``Condition`` list of a layer (``derive.legality``): at numbers it gives the errors a
user reads, left symbolic it is the facts that theorems assume.

What deep learning calls convolution is cross-correlation: ``Z[i] = Sum_a W[a] X[i s + a d - p]``, the kernel not
flipped (d2l 7.2.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from derive.applied import Applied, Layer
from derive.indices import Index, IndexLike, equal, index, symbol, var, variables
from derive.legality import (
    Condition,
    Dim,
    Dims,
    LayerError,
    Window,
    batch_size,
    check,
    dimension,
    dimensions,
    grouped,
    in_a_group,
    lower_bound,
    positive,
    same,
    window,
)
from derive.terms import Apply, Expr, Tensor, define, shift_factors, tensor, term


@dataclass(frozen=True)
class Conv(Layer):
    """Cross-correlation over any number of spatial axes, with stride, padding and dilation (d2l 7.2 to 7.4).

    With ``groups`` = g, input and output channels are cut into g groups of C/g and O/g, and each group of outputs reads
    its own group of inputs.  A symbolic g has to be a factor of both numbers of channels: g*Cg and g*Og.
    """

    axes: ClassVar[int] = 0
    in_channels: Dim
    out_channels: Dim
    kernel_size: Dims
    stride: Dims = 1
    padding: Dims = 0
    dilation: Dims = 1
    groups: Dim = 1
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("kernel_size", "stride", "padding", "dilation"):
            object.__setattr__(self, name, dimensions(getattr(self, name), self.axes, name))
        for name in ("in_channels", "out_channels", "groups"):
            object.__setattr__(self, name, dimension(name, getattr(self, name)))
        check(self, self._own_conditions())

    def _own_conditions(self) -> tuple[Condition, ...]:
        per_axis = [w.settings() for w in self.windows([1] * self.axes)]  # whatever the input size
        return (*self._channels(), *(c for conditions in per_axis for c in conditions))

    def _channels(self) -> tuple[Condition, ...]:
        channels = (("in_channels", self.in_channels), ("out_channels", self.out_channels))
        conditions = tuple(positive(name, value) for name, value in channels)
        return (*(grouped(channels, self.groups) if self.is_grouped else ()), *conditions)

    @property
    def is_grouped(self) -> bool:
        """Whether the channels are cut into more than one group, or into a symbolic number of them."""
        return index(self.groups).constant != 1

    @property
    def is_depthwise(self) -> bool:
        """Whether it is grouped and every group has one input and one output channel."""
        return self.is_grouped and index(self.in_channels) == index(self.out_channels) == index(self.groups)

    def group_sizes(self) -> tuple[Index, Index]:
        """How many input and how many output channels a group has."""
        return in_a_group(self.in_channels, self.groups), in_a_group(self.out_channels, self.groups)

    def _settings(self) -> list[tuple[tuple[Dim, Dim, Dim], Dim]]:
        """Kernel, stride and dilation of each axis, with its padding."""
        parts = [getattr(self, name) for name in ("kernel_size", "stride", "dilation", "padding")]
        return [((k, s, d), p) for k, s, d, p in zip(*parts, strict=True)]

    def parameter_shapes(self) -> dict[str, tuple[Dim, ...]]:
        """weight (O, C/groups, k...), bias (O,)."""
        kernel = tuple(w[0] for w, _ in self._settings())
        read = self.in_channels
        if self.is_grouped:
            share = self.group_sizes()[0]
            read = share if share.constant is None else share.constant
        shapes: dict[str, tuple[Dim, ...]] = {"weight": (self.out_channels, read, *kernel)}
        return {**shapes, "bias": (self.out_channels,)} if self.bias else shapes

    def windows(self, spatial: Sequence[Dim], taken: Iterable[str] = ()) -> tuple[Window, ...]:
        """One window an axis; the symbols of unknown output sizes are not in ``taken``."""
        pairs = zip(spatial, self._settings(), strict=True)
        return tuple(window(n, *w, p, p, axis, taken) for axis, (n, (w, p)) in enumerate(pairs))

    def on(self, x: Tensor, name: str = "Z", parameters: Mapping[str, Tensor] | None = None) -> Applied:
        """``Z[b,n,i...] = u[n] + Sum_{c,a...} W[n,c,a...] X[b,c, i s + a d - p, ...]``.

        In groups: X is read in channel ``(n // (O/g)) (C/g) + c``, c < C/g, as in torch.nn; no sum where C/g is 1.
        """
        n, c, *spatial = self._shape(x, 2 + self.axes)
        given = self.parameters() if parameters is None else parameters
        windows = self.windows(spatial, _names((x, *given.values()), self))
        channels = same("in_channels", self.in_channels, c, "the number of channels of the input")
        conditions = (batch_size(n), *self._channels(), *channels)
        conditions += tuple(k for w in windows for k in w.conditions())
        check(self, conditions)
        outputs = [w.output for w in windows]
        y = define(name, [n, self.out_channels, *outputs], self._equation(x, windows, given))
        return Applied(self, x, y, given, conditions, windows)

    def _equation(self, x: Tensor, windows: Sequence[Window], given: Mapping[str, Tensor]) -> Expr:
        depth = 2 + self.axes
        batch, channel, *at = variables(0, depth)
        first, summed = index(0), variables(depth, 1)
        if self.is_grouped:
            inputs, outputs = self.group_sizes()
            first, summed = channel // outputs * inputs, summed if inputs.constant != 1 else ()
        c = summed[0] if summed else index(0)
        offsets = variables(depth + len(summed), self.axes)
        cells = [w.read(i, a) for w, i, a in zip(windows, at, offsets, strict=True)]
        weight = given["weight"]
        over = weight.box[2 - len(summed) :]
        body = term(depth, weight[(channel, c, *offsets)], x[(batch, first + c, *cells)], over=over)
        return body + term(depth, given["bias"][channel]) if self.bias else body


def _names(tensors: Iterable[Tensor], layer: object) -> set[str]:
    """Every name in these tensors, through all definitions, and in the layer: a new symbol is none of them."""
    made_from = {t for given in tensors for t in given.reads_of_body}
    texts = [repr(layer)] + [f"{t.name} {t.box} {'' if t.body is None else t.body.text}" for t in made_from]
    return {name for text in texts for name in re.findall(r"[^\W\d]\w*", text)}


@dataclass(frozen=True)
class Conv1d(Conv):
    """A convolution over one spatial axis."""

    axes: ClassVar[int] = 1


@dataclass(frozen=True)
class Conv2d(Conv):
    """A convolution over two spatial axes.

    >>> Conv2d(1, 6, 5, padding=2).output_shape((8, 1, 28, 28))
    (8, 6, 28, 28)
    >>> Conv2d(1, 6, 5).output_shape((8, 1, 4, 28))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    derive.legality.LayerError: ...the nearest legal value is 5
    """

    axes: ClassVar[int] = 2


@dataclass(frozen=True)
class Conv3d(Conv):
    """A convolution over three spatial axes."""

    axes: ClassVar[int] = 3


@dataclass(frozen=True)
class AvgPool(Layer):
    """The mean over windows without padding (d2l 7.5); ``stride`` is the kernel size unless given."""

    axes: ClassVar[int] = 0
    kernel_size: Dims
    stride: Dims | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel_size", dimensions(self.kernel_size, self.axes, "kernel_size"))
        stride = self.kernel_size if self.stride is None else dimensions(self.stride, self.axes, "stride")
        object.__setattr__(self, "stride", stride)
        for k in self.kernel_size if isinstance(self.kernel_size, tuple) else ():
            if not isinstance(k, int):
                raise LayerError(f"kernel_size={k}: the mean divides by k, and a coefficient is a number: so k is one")
        check(self, [c for w in self.windows([1] * self.axes) for c in w.settings()])

    def windows(self, spatial: Sequence[Dim], taken: Iterable[str] = ()) -> tuple[Window, ...]:
        """One window an axis; the symbols of unknown output sizes are not in ``taken``."""
        settings = (dimensions(v, self.axes, "kernel_size, stride") for v in (self.kernel_size, self.stride))
        triples = enumerate(zip(spatial, *settings, strict=True))
        return tuple(window(n, k, s, 1, 0, 0, axis, taken) for axis, (n, k, s) in triples)

    def on(self, x: Tensor, name: str = "P", parameters: Mapping[str, Tensor] | None = None) -> Applied:
        """``P[b,n,i...] = 1/(k...) Sum_{a...} X[b,n, i s + a, ...]``."""
        n, c, *spatial = self._shape(x, 2 + self.axes)
        windows = self.windows(spatial, _names([x], self))
        conditions = (batch_size(n), positive("channels", c), *(k for w in windows for k in w.conditions()))
        check(self, conditions)
        depth = 2 + self.axes
        batch, channel, *at = variables(0, depth)
        offsets = variables(depth, self.axes)
        cells = [w.read(i, a) for w, i, a in zip(windows, at, offsets, strict=True)]
        share = Fraction(1)
        for w in windows:
            share /= w.kernel.constant or 1
        over = [(index(0), w.kernel) for w in windows]
        body = term(depth, x[(batch, channel, *cells)], over=over, coefficient=share)
        return Applied(self, x, define(name, [n, c, *(w.output for w in windows)], body), {}, conditions, windows)


@dataclass(frozen=True)
class AvgPool1d(AvgPool):
    """Average pooling over one spatial axis."""

    axes: ClassVar[int] = 1


@dataclass(frozen=True)
class AvgPool2d(AvgPool):
    """Average pooling over two spatial axes.

    >>> AvgPool2d(2).output_shape((8, 6, 28, 28))
    (8, 6, 14, 14)
    """

    axes: ClassVar[int] = 2


@dataclass(frozen=True)
class AvgPool3d(AvgPool):
    """Average pooling over three spatial axes."""

    axes: ClassVar[int] = 3


@dataclass(frozen=True)
class Activation(Layer):
    """A scalar function of every element, for any shape that begins with the batch."""

    function: ClassVar[str] = ""

    def on(self, x: Tensor, name: str = "A", parameters: Mapping[str, Tensor] | None = None) -> Applied:
        """``A[...] = f(X[...])``."""
        if x.rank < 1:
            raise LayerError(f"{self}: the input has 0 axes, at least 1 is needed: (N, ...)")
        at, batch = variables(0, x.rank), batch_size(x.box[0][1])
        words = "axis {} has at least one element"
        sizes = (lower_bound("input size", hi, 1, words.format(k)) for k, (_, hi) in enumerate(x.box[1:], 1))
        check(self, (batch, *sizes))
        body = term(x.rank, Apply(self.function, term(x.rank, x[at])))
        return Applied(self, x, define(name, x.box, body), {}, (batch,))


@dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + exp(-x))."""

    function: ClassVar[str] = "sigmoid"


@dataclass(frozen=True)
class Tanh(Activation):
    """The hyperbolic tangent."""

    function: ClassVar[str] = "tanh"


@dataclass(frozen=True)
class ReLU(Activation):
    """max(x, 0); its derivative at 0 is 0 by convention, as in the frameworks."""

    function: ClassVar[str] = "relu"


@dataclass(frozen=True)
class Flatten(Layer):
    """(batch, C, H, ...) to (batch, C*H*...), in row-major order: ``F[b, (c H + i) W + j] = X[b, c, i, j]``."""

    def on(self, x: Tensor, name: str = "F", parameters: Mapping[str, Tensor] | None = None) -> Applied:
        """Defined affinely: ``F[b,k] = Sum_{c,i,j} [k == (c H + i) W + j] X[b,c,i,j]``."""
        if x.rank < 2:
            raise LayerError(f"{self}: the input has {x.rank} axes, at least 2 are needed")
        batch, k = variables(0, 2)
        inner = variables(2, x.rank - 1)
        total, flat = index(1), index(0)
        for v, (_, hi) in zip(inner, x.box[1:], strict=True):
            flat, total = flat * hi + v, total * hi
        body = term(2, x[(batch, *inner)], over=x.box[1:], guards=[equal(k, flat)])
        sizes = tuple(positive("input", hi) for _, hi in x.box[1:])
        return Applied(self, x, define(name, [x.box[0][1], total], body), {}, (batch_size(x.box[0][1]), *sizes))


@dataclass(frozen=True)
class Linear(Layer):
    """``Z[b,n] = u[n] + Sum_k W[n,k] X[b,k]``.

    >>> Linear(400, 120).output_shape((8, 400))
    (8, 120)
    """

    in_features: Dim
    out_features: Dim
    bias: bool = True

    def __post_init__(self) -> None:
        for name in ("in_features", "out_features"):
            object.__setattr__(self, name, dimension(name, getattr(self, name)))
        check(self, self._own_conditions())

    def _own_conditions(self) -> tuple[Condition, Condition]:
        return positive("in_features", self.in_features), positive("out_features", self.out_features)

    def parameter_shapes(self) -> dict[str, tuple[Dim, ...]]:
        """weight (out, in), bias (out,)."""
        shapes: dict[str, tuple[Dim, ...]] = {"weight": (self.out_features, self.in_features)}
        return {**shapes, "bias": (self.out_features,)} if self.bias else shapes

    def on(self, x: Tensor, name: str = "Z", parameters: Mapping[str, Tensor] | None = None) -> Applied:
        """See the class."""
        n, k = self._shape(x, 2)
        inputs = same("in_features", self.in_features, k, "the last size of the input")
        conditions = (batch_size(n), *self._own_conditions(), *inputs)
        check(self, conditions)
        given = self.parameters() if parameters is None else parameters
        body = term(2, given["weight"][var(1), var(2)], x[var(0), var(2)], over=[(index(0), k)])
        if self.bias:
            body = body + term(2, given["bias"][var(1)])
        return Applied(self, x, define(name, [n, self.out_features], body), given, conditions)


@dataclass(frozen=True)
class CrossEntropyLoss(Layer):
    """Mean over the batch of ``log Sum_n exp z[b,n] - Sum_n T[b,n] z[b,n]``, for targets T whose rows sum to one."""

    def on(self, x: Tensor, name: str = "L", parameters: Mapping[str, Tensor] | None = None) -> Applied:
        """The loss as a defined number; ``parameters["target"]`` is T, a free tensor of the shape of x by default."""
        n, k = self._shape(x, 2)
        conditions = (batch_size(n), positive("classes", k))
        check(self, conditions)
        given = {"target": tensor("T", n, k)} if parameters is None else dict(parameters)
        batch, cls = (index(0), n), (index(0), k)
        share = Apply("recip", term(0, over=[batch]))
        total = Apply("log", term(1, Apply("exp", term(2, x[var(0), var(1)])), over=[cls]))
        body = term(0, total, _under(share, 1), over=[batch])
        hit = term(0, given["target"][var(0), var(1)], x[var(0), var(1)], _under(share, 2), over=[batch, cls])
        return Applied(self, x, define(name, [], body - hit), given, conditions)


def _under(f: Apply, depth: int) -> Apply:
    """A factor of scope 0 in the scope of ``depth`` variables."""
    (moved,) = shift_factors([f], 0, depth)
    assert isinstance(moved, Apply)
    return moved


@dataclass(frozen=True, init=False)
class Sequential(Layer):
    """Layers one after another."""

    layers: tuple[Layer, ...]

    def __init__(self, *layers: Layer) -> None:
        object.__setattr__(self, "layers", tuple(layers))

    def chain(self, x: Tensor) -> tuple[Applied, ...]:
        """Every layer on the output of the one before; names carry the layer's number, as ``torch`` numbers them."""
        applied: list[Applied] = []
        for k, layer in enumerate(self.layers):
            try:
                step = layer.on(x, f"Y{k}", layer.parameters(str(k)))
            except LayerError as error:
                raise at_layer(k, self, error) from None
            applied.append(step)
            x = step.y
        return tuple(applied)

    def on(self, x: Tensor, name: str = "Y", parameters: Mapping[str, Tensor] | None = None) -> Applied:
        """The composition, by definitions one inside the other."""
        steps = self.chain(x)
        if not steps:
            raise LayerError("Sequential(): at least one layer is needed")
        given = {f"{k}.{key}": t for k, step in enumerate(steps) for key, t in step.parameters.items()}
        return Applied(self, x, steps[-1].y, given, tuple(c for step in steps for c in step.conditions))

    def parameter_shapes(self) -> dict[str, tuple[Dim, ...]]:
        """Named ``0.weight`` and so on, as in torch's ``state_dict``."""
        return {
            f"{k}.{key}": shape
            for k, layer in enumerate(self.layers)
            for key, shape in layer.parameter_shapes().items()
        }


def at_layer(k: int, network: Sequential, error: LayerError) -> LayerError:
    """The same error, naming the layer of the network."""
    return LayerError(f"layer {k} of {len(network.layers)}, {error}")


def lenet() -> Sequential:
    """The LeNet of d2l 7.6: sigmoids, average pooling, 28x28 images of one channel, ten classes.

    >>> lenet().output_shape((1, 1, 28, 28))
    (1, 10)
    """
    return Sequential(
        Conv2d(1, 6, 5, padding=2), Sigmoid(), AvgPool2d(2),
        Conv2d(6, 16, 5), Sigmoid(), AvgPool2d(2),
        Flatten(),
        Linear(400, 120), Sigmoid(),
        Linear(120, 84), Sigmoid(),
        Linear(84, 10),
    )  # fmt: skip


def symbolic(kind: type[Conv], suffix: str = "", *, like: Conv | None = None) -> tuple[Conv, tuple[Index, ...]]:
    """A convolution with every dimension a symbol, each axis with its own, and its input shape.

    Channels are C to M; where ``like`` is depthwise C to C in C groups, where it is grouped g*Cg to g*Og in g groups.
    """

    def names(letter: str) -> tuple[Dim, ...]:
        return tuple(symbol(f"{letter}{axis}{suffix}") for axis in range(kind.axes))

    inputs, outputs, groups = symbol("C"), symbol("M"), index(1)
    if like is not None and like.is_depthwise:
        outputs = groups = inputs
    elif like is not None and like.is_grouped:
        groups = symbol("g")
        inputs, outputs = groups * symbol("Cg"), groups * symbol("Og")
    split: Dim = 1 if groups.constant == 1 else groups
    layer = kind(inputs, outputs, names("k"), names("s"), names("p"), names("d"), groups=split)
    shape: list[IndexLike] = [symbol("N"), inputs, *names("n")]
    return layer, tuple(index(e) for e in shape)


__all__ = [
    "Applied", "AvgPool1d", "AvgPool2d", "AvgPool3d", "Condition", "Conv1d", "Conv2d", "Conv3d", "CrossEntropyLoss",
    "Flatten", "Layer", "LayerError", "Linear", "ReLU", "Sequential", "Sigmoid", "Tanh", "Window", "lenet", "symbolic",
]  # fmt: skip
