"""An emitted module on several threads: the batch in contiguous parts, a thread and a workspace for each.

NumPy and BLAS let other threads run while they work, so parts run at once as long as a call of NumPy works longer than
it takes to hand over the interpreter.  BLAS is held at one thread meanwhile, since two threads that each wait for two
are slower than one (`runtime.threads.Hold`).

What comes out does not depend on timing.  How the batch is split follows from its size and from the shapes alone; a
result with a batch is formed in place, each part in its own rows; what is summed over the batch is summed part by part
and then over the parts in their order.  So sums may differ by rounding from those of one thread, and by nothing from
one run to the next.

Splitting does not pay for short calls: ``LEAST`` and ``LEAST_STEP`` say how long a part has to take.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from derive.layers import Layer, Sequential
from runtime.arrays import Array, laid_as
from runtime.compile import numbers, numeric_output_shape
from runtime.textbook import multiply_adds
from runtime.threads import Hold

T = TypeVar("T")
Part = tuple[int, int]

PRODUCT, CELL = 1 / 35e9, 2.4e-9
"""Seconds for a multiply-add and for a number that is read or written, by which the time of a part is foretold: the
rate of `codegen.cost.REFERENCE`, and what fits convolutions of `certiconv bench` on that machine."""
LEAST, LEAST_STEP = 5e-4, 8e-3
"""Seconds that a part has to be foretold to take, of a convolution and of a step of a network.

Two parts save half of a call at best.  Where nothing could be saved, on a machine whose cores were all busy, they added
0.2 ms to a convolution of few images, and 1 ms to a step of LeNet, which is many short calls of NumPy that hand the
interpreter over again and again.  A part has to take more than twice that.  A step of LeNet takes 0.1 ms an image where
0.26 ms is foretold, so that batches of 64 and more are split in two.
"""
_SIZES = 4  # sizes of a part whose workspaces are kept


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


def affordable(threads: int, total: float, least: float) -> int:
    """How many parts there may be of a call of so many seconds, if each has to take that long; at least 1.

    >>> affordable(2, 0.0009, LEAST), affordable(2, 0.0011, LEAST), affordable(8, 0.0021, LEAST)
    (1, 2, 4)
    """
    return max(1, min(threads, int(total / least)))


# --- Threads ------------------------------------------------------------------------------------------------


def together(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """What the tasks give, in their order; the first runs on the calling thread, each other one on a thread of its own.

    All have ended when this returns or raises, unless Ctrl-C ends the waiting.  If several fail, the error of the first
    of them is raised.

    >>> together([lambda: 1, lambda: 2])
    [1, 2]
    """
    first, *others = tasks
    if not others:
        return [first()]
    with _THREADS.hold:
        futures: list[Future[T]] = []
        try:
            pool = _THREADS.pool(len(others))
            # A context each, for what the caller has set there: np.errstate is one such thing in NumPy 2.
            futures.extend(pool.submit(contextvars.copy_context().run, task) for task in others)
            own = first()
        finally:
            wait(futures)
        return [own, *(future.result() for future in futures)]


class _Threads:
    """The threads of this process: started when they are first needed, and kept."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin with none."""
        self.hold = Hold()
        self._lock = threading.Lock()
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def pool(self, workers: int) -> ThreadPoolExecutor:
        """So many threads besides the calling one."""
        with self._lock:
            if workers not in self._pools:
                self._pools[workers] = ThreadPoolExecutor(workers, thread_name_prefix="certiconv")
            return self._pools[workers]


_THREADS = _Threads()
if hasattr(os, "register_at_fork"):
    # A forked process has none of the threads, and may have a lock that nobody will open.
    os.register_at_fork(after_in_child=_THREADS.renew)


class Workspaces:
    """Workspaces by kind and batch size, kept from call to call; one is used by one thread at a time."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._lock = threading.Lock()
        self._free: dict[tuple[type, int], list[Any]] = {}

    @contextmanager
    def lent(self, kind: type, batch: int) -> Iterator[Any]:
        """A workspace, for as long as the context is open; one that an error came out of is not used again."""
        with self._lock:
            free = self._free.pop((kind, batch), [])
            self._free[kind, batch] = free  # now the last
            work = free.pop() if free else None
        if work is None:
            work = kind(batch, self.dtype)
        yield work
        with self._lock:
            self._free.setdefault((kind, batch), []).append(work)
            sizes = [key for key in self._free if key[0] is kind]
            for key in sizes[:-_SIZES]:
                del self._free[key]


# --- Modules ------------------------------------------------------------------------------------------------


class _Parallel:
    """An emitted module whose calls are split between threads, and the workspaces that they use again.

    Args:
        module: the emitted module.
        dtype: of all arrays.
        threads: how many at most, at least 1.
        image: the seconds an image takes, see `seconds` and `step_seconds`.
    """

    def __init__(self, module: ModuleType, dtype: Any, *, threads: int, image: float) -> None:
        self.module = module
        self.threads = threads
        self.image = image
        self._work = Workspaces(dtype)

    def _split(self, batch: int, least: float) -> tuple[Part, ...]:
        return split(batch, affordable(self.threads, batch * self.image, least))


class Convolution(_Parallel):
    """The functions of a convolution's emitted module, on several threads.

    Arguments and errors are those of the module's functions.  Calls may come from several threads at once.
    """

    def parts(self, batch: int) -> tuple[Part, ...]:
        """How a batch is split."""
        return self._split(batch, LEAST)

    def forward(self, input: Array, weight: Array, bias: Array | None = None) -> Array:
        """See the module's."""
        m = self.module
        return self._joined(
            "forward", m.Forward, input, m.SHAPES["grad_output"],
            lambda low, high, work, out: m.forward(input[low:high], weight, bias, work, out),
        )  # fmt: skip

    def input_gradient(self, grad_output: Array, weight: Array) -> Array:
        """See the module's; the shape of the input follows from the batch."""
        m = self.module
        shape = m.SHAPES["input"]
        return self._joined(
            "input_gradient", m.InputGradient, grad_output, shape,
            lambda low, high, work, out: m.input_gradient(
                grad_output[low:high], weight, (high - low, *shape), work, out
            ),
        )  # fmt: skip

    def weight_gradient(self, grad_output: Array, input: Array) -> Array:
        """See the module's."""
        m = self.module
        return self._summed(
            m.WeightGradient, (grad_output, input), lambda work, g, x: m.weight_gradient(g, x, work)
        )  # fmt: skip

    def bias_gradient(self, grad_output: Array) -> Array:
        """See the module's."""
        m = self.module
        return self._summed(m.BiasGradient, (grad_output,), lambda work, g: m.bias_gradient(g, work))

    def backward(self, grad_output: Array, input: Array, weight: Array) -> tuple[Array, Array, Array | None]:
        """See the module's."""
        return (
            self.input_gradient(grad_output, weight),
            self.weight_gradient(grad_output, input),
            self.bias_gradient(grad_output) if "bias" in self.module.SHAPES else None,
        )

    def _joined(
        self, name: str, kind: type, leader: Array, shape: tuple[int, ...], run: Callable[[int, int, Any, Array], Array]
    ) -> Array:
        """A result with a batch: each part forms its own rows."""
        whole = (len(leader), *shape)
        follows = name in self.module.KEEPS_LAYOUT
        result = laid_as(leader, whole, self._work.dtype) if follows else np.empty(whole, self._work.dtype)

        def task(low: int, high: int) -> None:
            with self._work.lent(kind, high - low) as work:
                run(low, high, work, result[low:high])

        together([functools.partial(task, *part) for part in self.parts(len(leader))])
        return result

    def _summed(self, kind: type, batched: tuple[Array, ...], run: Callable[..., Array]) -> Array:
        """A result that is a sum over the batch: the sums of the parts, added in their order."""
        if len({len(array) for array in batched}) > 1:
            return run(None, *batched)  # the module refuses them in its own words

        def task(low: int, high: int) -> Array:
            with self._work.lent(kind, high - low) as work:
                return run(work, *(array[low:high] for array in batched))

        total, *others = together([functools.partial(task, *part) for part in self.parts(len(batched[0]))])
        for other in others:
            np.add(total, other, out=total)
        return total


class Steps(_Parallel):
    """Steps of gradient descent of a network's emitted module, on several threads.

    The loss of a batch is a mean, so the loss and the gradient of a batch are those of its parts, each weighted with
    its share of the images.
    """

    def parts(self, batch: int) -> tuple[Part, ...]:
        """How a batch is split."""
        return self._split(batch, LEAST_STEP)

    def step(self, x: Array, y: Array, params: Mapping[str, Array], lr: float) -> float:
        """One step, in place; the loss before it.  No parameter is written before every part has succeeded."""
        kind, parts = self.module.Workspace, self.parts(len(x))
        if len(parts) == 1:
            with self._work.lent(kind, len(x)) as work:
                return float(self.module.sgd_step(x, y, params, lr, work))

        def task(low: int, high: int) -> tuple[float, dict[str, Array]]:
            share = (high - low) / len(x)
            with self._work.lent(kind, high - low) as work:
                loss, gradients = self.module.loss_and_gradients(x[low:high], y[low:high], params, work)
            for gradient in gradients.values():
                np.multiply(gradient, lr * share, out=gradient)
            return share * float(loss), gradients

        done = together([functools.partial(task, *part) for part in parts])
        (_, change), *others = done
        for name, parameter in params.items():
            for _, other in others:
                np.add(change[name], other[name], out=change[name])
            np.subtract(parameter, change[name], out=parameter)
        return math.fsum(loss for loss, _ in done)
