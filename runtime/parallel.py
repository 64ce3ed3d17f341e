"""A batch in contiguous parts that are computed at once: how it is split, and what comes of the parts.

Threads share memory and an interpreter: parts run at once as long as a call of NumPy works longer than it takes to hand
over the interpreter (`runtime.thread_crew`).  Processes have interpreters of their own, for calls that are short
(`runtime.process_crew`).  BLAS is held at one thread meanwhile, since two threads that each wait for two are slower
than one (`runtime.threads.Hold`).

What comes out does not depend on timing, nor on which of the two computed it.  How the batch is split follows from its
size and from the shapes alone; a result with a batch is formed in place, each part in its own rows; what is summed over
the batch is summed part by part and then over the parts in their order.  So sums may differ by rounding from those of
one thread, and by nothing from one run to the next.

Splitting does not pay for short calls: ``least`` and ``least_step`` of a crew say how long a part has to take.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

from codegen.functions import workspace
from derive.layers import Layer, Sequential
from runtime.arrays import Array
from runtime.crew import Batched, BatchOf, Call, Crew, Part
from runtime.sizes import numbers, numeric_output_shape
from runtime.textbook import multiply_adds

PRODUCT, CELL = 1 / 35e9, 2.4e-9
"""Seconds for a multiply-add and for a number that is read or written, by which the time of a part is foretold: the
rate of `codegen.machine.REFERENCE`, and what fits convolutions of `certiconv bench` on that machine."""


def seconds(layer: Layer, input_shape: Sequence[int]) -> float:
    """A forecast of what one image takes, forward, to decide by.

    Five convolutions of `certiconv bench` were timed, each forward and both gradients: of the fifteen, fourteen were
    within a factor of 2.3, and the input gradient of a single channel took seven times as long as foretold.

    >>> from derive.layers import Conv2d
    >>> round(1e6 * seconds(Conv2d(64, 64, 3, padding=1), (8, 64, 56, 56)))
    4266
    """
    total, shape = 0.0, (1, *input_shape[1:])
    for each in layer.layers if isinstance(layer, Sequential) else (layer,):
        after = numeric_output_shape(each, shape)
        total += CELL * (math.prod(shape) + math.prod(after))
        if "weight" in (parameters := each.parameter_shapes()):
            total += PRODUCT * multiply_adds(numbers(each, parameters["weight"]), (1, *after[2:]))
        shape = after
    return total


def step_seconds(network: Sequential, input_shape: Sequence[int]) -> float:
    """The same for a step of gradient descent: each layer's output, and its gradients by input and parameters."""
    return 3 * seconds(network, input_shape)


def split(batch: int, parts: int) -> tuple[Part, ...]:
    """The batch in that many contiguous parts, whose sizes differ by one at most; none is empty but of an empty batch.

    >>> split(7, 3), split(2, 4), split(0, 2)
    (((0, 3), (3, 5), (5, 7)), ((0, 1), (1, 2)), ((0, 0),))
    """
    count = max(1, min(parts, batch))
    size, larger = divmod(batch, count)
    return tuple(itertools.pairwise(size * k + min(k, larger) for k in range(count + 1)))


def affordable(most: int, total: float, least: float) -> int:
    """How many parts there may be of a call of so many seconds, if each has to take that long; at least 1.

    >>> affordable(2, 0.9, 0.5), affordable(2, 1.1, 0.5), affordable(8, 2.1, 0.5)
    (1, 2, 4)
    """
    return max(1, min(most, int(total / least)))


# --- Modules ------------------------------------------------------------------------------------------------


class Convolution:
    """The functions of a convolution's emitted module, on parts of a batch.

    Arguments and errors are those of the module's functions.  Calls may come from several threads at once.

    Args:
        crew: who runs the parts.
        image: the seconds an image takes, see `seconds`.
    """

    def __init__(self, crew: Crew, *, image: float) -> None:
        self.crew = crew
        self.image = image

    def parts(self, batch: int) -> tuple[Part, ...]:
        """How a batch is split."""
        return split(batch, affordable(self.crew.count, batch * self.image, self.crew.least))

    def forward(self, input: Array, weight: Array, bias: Array | None = None) -> Array:
        """See the module's."""
        call = Call("forward", workspace("forward"), (Batched(input), weight, bias))
        return self._joined(call, input, self.crew.module.SHAPES["grad_output"])

    def input_gradient(self, grad_output: Array, weight: Array) -> Array:
        """See the module's; the shape of the input follows from the batch."""
        image = self.crew.module.SHAPES["input"]
        call = Call("input_gradient", workspace("input_gradient"), (Batched(grad_output), weight, BatchOf(image)))
        return self._joined(call, grad_output, image)

    def weight_gradient(self, grad_output: Array, input: Array) -> Array:
        """See the module's."""
        if len(grad_output) != len(input):
            total: Array = self.crew.module.weight_gradient(grad_output, input)  # refuses them in its own words
            return total
        call = Call("weight_gradient", workspace("weight_gradient"), (Batched(grad_output), Batched(input)))
        return self._summed(call, len(input))

    def bias_gradient(self, grad_output: Array) -> Array:
        """See the module's."""
        return self._summed(
            Call("bias_gradient", workspace("bias_gradient"), (Batched(grad_output),)), len(grad_output)
        )

    def backward(self, grad_output: Array, input: Array, weight: Array) -> tuple[Array, Array, Array | None]:
        """See the module's."""
        return (
            self.input_gradient(grad_output, weight),
            self.weight_gradient(grad_output, input),
            self.bias_gradient(grad_output) if "bias" in self.crew.module.SHAPES else None,
        )

    def _joined(self, call: Call, leader: Array, image: tuple[int, ...]) -> Array:
        """A result with a batch: each part forms its own rows."""
        follows = call.function in self.crew.module.KEEPS_LAYOUT
        return self.crew.joined(call, self.parts(len(leader)), leader, image, follows=follows)

    def _summed(self, call: Call, batch: int) -> Array:
        """A result that is a sum over the batch: the sums of the parts, added in their order."""
        total, *others = self.crew.sums(call, self.parts(batch))
        for other in others:
            np.add(total, other, out=total)
        return total


class Steps:
    """Steps of gradient descent of a network's emitted module, on parts of a batch.

    The loss of a batch is a mean, so the loss and the gradient of a batch are those of its parts, each weighted with
    its share of the images.

    Args:
        crew: who runs the parts.
        image: the seconds an image takes, see `step_seconds`.
    """

    def __init__(self, crew: Crew, *, image: float) -> None:
        self.crew = crew
        self.image = image

    def parts(self, batch: int) -> tuple[Part, ...]:
        """How a batch is split."""
        return split(batch, affordable(self.crew.count, batch * self.image, self.crew.least_step))

    def step(self, x: Array, y: Array, params: Mapping[str, Array], lr: float) -> float:
        """One step, in place; the loss before it.  No parameter is written before every part has succeeded."""
        parts = self.parts(len(x))
        if len(parts) == 1:
            step = Call("sgd_step", "Workspace", (x, y, params, lr))
            return float(self.crew.part(step, 0, len(x)))
        done = self.crew.steps(Call("loss_and_gradients", "Workspace", (Batched(x), Batched(y), params)), parts)
        shares = [(high - low) / len(x) for low, high in parts]
        for share, (_, gradients) in zip(shares, done, strict=True):
            for gradient in gradients.values():
                np.multiply(gradient, lr * share, out=gradient)
        (_, change), *others = done
        for name, parameter in params.items():
            for _, other in others:
                np.add(change[name], other[name], out=change[name])
            np.subtract(parameter, change[name], out=parameter)
        return math.fsum(share * loss for share, (loss, _) in zip(shares, done, strict=True))
