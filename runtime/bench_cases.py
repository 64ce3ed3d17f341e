"""The cases of `certiconv bench`: what is timed, on which shapes, and what it costs at least.

A case is a *work* (one convolution, or a training step of LeNet), a *part* of it (forward, weight gradient, input
gradient, step), and where there is one the *goal*: the ratio to PyTorch's time that its plan is meant to reach, one
thread each.  Names are short and share prefixes, so that a prefix selects a family.

The cost of a case is that of the layer, not of an algorithm: two operations for each multiply-add of the defining sum,
products with padding included, and each array read or written once.  A faster algorithm does fewer operations than are
counted here, so its rate may pass the rate of a matrix product.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from derive import layers
from derive.layers import Layer
from runtime.roofline import Cost
from runtime.sizes import numbers, numeric_output_shape
from runtime.textbook import Setting, multiply_adds

Part = Literal["forward", "weight", "input", "step"]
PARTS: tuple[Part, ...] = ("forward", "weight", "input")
_BYTES = 4  # of a float32


class CaseError(ValueError):
    """A name that no case has; the text says which come near."""


class Work(Protocol):
    """What a case is about."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """With the batch first."""

    def layer(self) -> Layer:
        """The layer; LayerError where `derive` does not have it."""

    def cost(self) -> Cost:
        """Operations, and bytes that must be moved."""


@dataclass(frozen=True)
class Convolution:
    """One convolution with bias at one shape; every spatial axis has the same kernel size, stride and padding."""

    batch: int
    channels: int
    outputs: int
    image: tuple[int, ...]
    kernel_size: int
    stride: int = 1
    padding: int = 0
    groups: int = 1

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(batch, channels, spatial axes...)."""
        return (self.batch, self.channels, *self.image)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """(outputs, channels / groups, kernel axes...)."""
        return (self.outputs, self.channels // self.groups, *([self.kernel_size] * len(self.image)))

    @property
    def output_shape(self) -> tuple[int, ...]:
        """(batch, outputs, spatial axes...)."""
        return numeric_output_shape(self.layer(), self.input_shape)

    @property
    def setting(self) -> Setting:
        """Stride, padding and groups, as `runtime.textbook` takes them."""
        axes = len(self.image)
        return Setting((self.stride,) * axes, (self.padding,) * axes, self.groups)

    def layer(self) -> Layer:
        """The layer; LayerError where `derive` does not have it."""
        kind: type[layers.Conv] = {1: layers.Conv1d, 2: layers.Conv2d, 3: layers.Conv3d}[len(self.image)]
        return kind(
            self.channels,
            self.outputs,
            self.kernel_size,
            stride=self.stride,
            padding=self.padding,
            groups=self.groups,
        )

    def cost(self) -> Cost:
        """The same for the three parts: each reads two of input, weight and output, and writes the third."""
        output = self.output_shape
        products = multiply_adds(self.weight_shape, (output[0], *output[2:]))
        cells = sum(math.prod(shape) for shape in (self.input_shape, self.weight_shape, output))
        return Cost(2 * products, _BYTES * cells)


@dataclass(frozen=True)
class LeNetStep:
    """A training step of LeNet, from images (batch, 1, 28, 28) and labels to new parameters."""

    batch: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(batch, 1, 28, 28)."""
        return (self.batch, 1, 28, 28)

    def layer(self) -> Layer:
        """The network."""
        return layers.lenet()

    def cost(self) -> Cost:
        """The products of all layers, forward and backward, but for the first layer's input gradient: nobody needs it.

        Bytes are those of the images, and of the parameters read and written: what lies between may stay in a cache.
        """
        products, parameters, shape = 0, 0, self.input_shape
        for k, layer in enumerate(layers.lenet().layers):
            after = numeric_output_shape(layer, shape)
            own = {name: numbers(layer, dims) for name, dims in layer.parameter_shapes().items()}
            parameters += sum(math.prod(dims) for dims in own.values())
            if own:
                products += (2 if k == 0 else 3) * multiply_adds(own["weight"], (after[0], *after[2:]))
            shape = after
        return Cost(2 * products, _BYTES * (math.prod(self.input_shape) + 2 * parameters))


@dataclass(frozen=True)
class Case:
    """What is timed."""

    name: str
    work: Convolution | LeNetStep
    part: Part
    goal: float | None = field(default=None, kw_only=True)

    @property
    def family(self) -> str:
        """The name without its part.

        >>> [case.family for case in find(["lenet1", "lenet-step-128"])]
        ['lenet-step', 'lenet1', 'lenet1', 'lenet1']
        """
        return self.name.rpartition("-")[0]


def _three(name: str, work: Convolution, *goals: float) -> list[Case]:
    """The parts of a convolution; one goal is the forward pass's, three are those of the parts in order."""
    each = (*goals, *([None] * (len(PARTS) - len(goals))))
    return [Case(f"{name}-{part}", work, part, goal=goal) for part, goal in zip(PARTS, each, strict=True)]


CASES: tuple[Case, ...] = (
    Case("lenet-step-256", LeNetStep(256), "step", goal=0.55),
    Case("lenet-step-128", LeNetStep(128), "step", goal=0.7),
    *_three("lenet1", Convolution(256, 1, 6, (28, 28), 5, padding=2), 0.6, 0.3, 0.3),
    *_three("lenet2", Convolution(256, 6, 16, (14, 14), 5), 1.3, 1.2, 0.9),
    *_three("conv3-128", Convolution(8, 128, 128, (28, 28), 3, padding=1), 0.7, 0.75, 1.0),
    *_three("conv3-64", Convolution(8, 64, 64, (56, 56), 3, padding=1), 1.0, 0.8, 1.0),
    *_three("strided", Convolution(8, 64, 128, (56, 56), 3, stride=2, padding=1), 1.1),
    *_three("alexnet1", Convolution(8, 3, 64, (224, 224), 11, stride=4, padding=2), 1.1),
    *_three("pointwise", Convolution(8, 256, 64, (28, 28), 1), 1.1),
    *_three("audio", Convolution(16, 64, 64, (4096,), 9, padding=4), 1.1),
    *_three("depthwise", Convolution(8, 64, 64, (56, 56), 3, padding=1, groups=64), 4.0),
)
QUICK = ("lenet-step-128", "lenet1", "lenet2-forward")
"""The small set, as `find` takes it."""


def find(wanted: Sequence[str], cases: Sequence[Case] = CASES) -> tuple[Case, ...]:
    """The cases with a name, or with a prefix of one, in the order of the table; all of them where nothing is wanted.

    Raises:
        CaseError: a name is no prefix of any.

    >>> [case.name for case in find(["conv3-64", "lenet1-forward"])]
    ['lenet1-forward', 'conv3-64-forward', 'conv3-64-weight', 'conv3-64-input']
    >>> find(["lenet1-foward"])  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    runtime.bench_cases.CaseError: case 'lenet1-foward' is unknown;
        nearest: lenet1-forward, alexnet1-forward, lenet2-forward
    """
    chosen: set[str] = set()
    for name in wanted:
        matching = [case.name for case in cases if name and case.name.startswith(name)]
        if not matching:
            raise CaseError(f"case {name!r} is unknown; {_nearest(name, cases)}")
        chosen.update([name] if name in matching else matching)
    return tuple(case for case in cases if not wanted or case.name in chosen)


def _nearest(name: str, cases: Sequence[Case]) -> str:
    known = [case.name for case in cases]
    families = dict.fromkeys(case.family for case in cases)
    close = difflib.get_close_matches(name, [*known, *families], n=3)
    return f"nearest: {', '.join(close)}" if close else f"legal: {', '.join(families)}, or a whole name of --list"


# --- Growth -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sweep:
    """One size of a convolution grows, and the others stay.

    Attributes:
        axis: what grows.
        sizes: its values.
        cases: one for each of them.
        expected: the exponent with which the multiply-adds grow; padding keeps the output as large as the input.
    """

    axis: str
    sizes: tuple[int, ...]
    cases: tuple[Case, ...]
    expected: int


def sweeps(*, doublings: int) -> tuple[Sweep, ...]:
    """How batch, channels (in and out alike) and image side of a 3x3 convolution grow, each from a small start.

    >>> [(sweep.axis, sweep.sizes) for sweep in sweeps(doublings=2)]
    [('batch', (1, 2, 4)), ('channels', (4, 8, 16)), ('image', (7, 14, 28))]
    """
    starts = {"batch": (1, 1), "channels": (4, 2), "image": (7, 2)}
    found = []
    for axis, (start, expected) in starts.items():
        grown = tuple(start * 2**k for k in range(doublings + 1))
        found.append(Sweep(axis, grown, tuple(_grown(axis, size) for size in grown), expected))
    return tuple(found)


def _grown(axis: str, size: int) -> Case:
    sizes = {"batch": 8, "channels": 32, "image": 28, axis: size}
    channels, side = sizes["channels"], sizes["image"]
    work = Convolution(sizes["batch"], channels, channels, (side, side), 3, padding=1)
    return Case(f"{axis}-{size}", work, "forward")
