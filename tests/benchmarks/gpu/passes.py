"""Layers that memory bounds: average pools and activations, whose share of the copy's rate is what counts.

A result is one pass over memory.  Its bytes are those of the arrays that it has to read and write once: of a pool the
input and the output, or for the gradient the cotangent and the result; of an activation's gradient three arrays, since
the slope is formed from the input.  PyTorch's sigmoid forms it from the output, which it is given, so it moves as many.
Every cell of a result is compared with the definition in float64 before it is timed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import numpy as np

import codegen
from derive.layers import AvgPool2d, Layer, ReLU, Sigmoid
from tests.benchmarks.gpu.cases import ITEMSIZES
from tests.benchmarks.gpu.contestants import OURS, Array, Contestant, Load, everybody, numpy_dtype
from tests.benchmarks.gpu.truth import Disagreement
from tests.gpu.formats import STORING

NUMBERS = ("float32", "float16", "bfloat16")
NEAR = 2.0**-19  # of a result in float32, relative to the largest input; a format in which it is stored adds its own
LAYERS: Mapping[str, Layer] = {"avgpool": AvgPool2d(2), "sigmoid": Sigmoid(), "relu": ReLU()}


@dataclass(frozen=True)
class Pass:
    """One result of a pool or an activation at a shape, in these numbers; ``part`` is "forward" or "input"."""

    name: str
    layer: Layer
    shape: tuple[int, ...]
    part: str
    numbers: str

    @property
    def output_shape(self) -> tuple[int, ...]:
        """With the batch first."""
        return tuple(int(n.constant or 0) for n in self.layer.output_shape(self.shape))

    @property
    def bytes(self) -> int:
        """Each array that has to be read or written, once."""
        arrays = [self.shape, self.output_shape]
        if self.part == "input" and not isinstance(self.layer, AvgPool2d):
            arrays.append(self.shape)
        return ITEMSIZES[self.numbers] * sum(map(prod, arrays))


def passes(shape: tuple[int, ...], prefix: str = "") -> Iterator[Pass]:
    """Every layer in both parts and every format whose name ``LAYER-PART-NUMBERS`` begins so."""
    for key, layer in LAYERS.items():
        for part in ("forward", "input"):
            for numbers in NUMBERS:
                if (name := f"{key}-{part}-{numbers}").startswith(prefix):
                    yield Pass(name, layer, shape, part, numbers)


@dataclass(frozen=True)
class Given:
    """Input and cotangent on the host in float32, already rounded to the format of a case."""

    x: Array
    g: Array

    @staticmethod
    def of(case: Pass) -> Given:
        """Normal numbers."""
        rng, dtype = np.random.default_rng(0), numpy_dtype(case.numbers)
        made = (rng.standard_normal(shape, dtype=np.float32) for shape in (case.shape, case.output_shape))
        return Given(*(a.astype(dtype).astype(np.float32) for a in made))


def builders(
    case: Pass, given: Given, cupy: Any, load: Load, torch: Any, device: str, sets: int
) -> Iterator[tuple[str, Callable[[], Contestant]]]:
    """Everybody's name, and what makes the contestant."""
    us = partial(ours, case, given, cupy, load, sets)
    return everybody(us, partial(torchs, case, given, torch, device, sets), torch)


def ours(case: Pass, given: Given, cupy: Any, load: Load, sets: int) -> Contestant:
    """The emitted module; results go into arrays that are there."""
    emitted = codegen.emit(case.layer, backend="cupy", input_shape=case.shape, dtype=case.numbers)
    module, kind = load(emitted.source), numpy_dtype(case.numbers)
    x, g = ([cupy.asarray(a.astype(kind)) for _ in range(sets)] for a in (given.x, given.g))
    out = [cupy.zeros(case.output_shape if case.part == "forward" else case.shape, module.DTYPE) for _ in range(sets)]

    def call(k: int) -> Array:
        k %= sets
        if case.part == "forward":
            return module.forward(x[k], out=out[k])
        return module.input_gradient(g[k], x[k], out=out[k])

    return Contestant(OURS, call, lambda: cupy.asnumpy(call(0)).astype(np.float64))


def torchs(case: Pass, given: Given, torch: Any, device: str, sets: int, name: str, layout: Any) -> Contestant:
    """PyTorch in one of its layouts."""
    kind = getattr(torch, case.numbers)

    def placed(a: Array) -> list[Array]:
        tensor = torch.from_numpy(a).to(device=device, dtype=kind)
        return [tensor.clone(memory_format=layout) for _ in range(sets)]

    x, g = placed(given.x), placed(given.g)
    y = [torch.sigmoid(a) for a in x] if isinstance(case.layer, Sigmoid) and case.part == "input" else x
    forward, gradient = _torch_functions(case.layer, torch)

    def call(k: int) -> Array:
        k %= sets
        with torch.no_grad():
            return forward(x[k]) if case.part == "forward" else gradient(g[k], y[k])

    return Contestant(name, call, lambda: call(0).to(torch.float64).cpu().contiguous().numpy())


def _torch_functions(layer: Layer, torch: Any) -> tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]:
    aten = torch.ops.aten
    if isinstance(layer, Sigmoid):
        return torch.sigmoid, aten.sigmoid_backward
    if isinstance(layer, ReLU):
        return torch.relu, lambda g, x: aten.threshold_backward(g, x, 0)
    return (
        lambda x: torch.nn.functional.avg_pool2d(x, 2),
        lambda g, x: aten.avg_pool2d_backward(g, x, [2, 2], [2, 2], [0, 0], False, True, None),
    )


def right(case: Pass, given: Given) -> Array:
    """The result by the definition, in float64."""
    x, g = given.x.astype(np.float64), given.g.astype(np.float64)
    if isinstance(case.layer, AvgPool2d):
        rows, columns = case.output_shape[2:]
        if case.part == "forward":
            whole = x[:, :, : 2 * rows, : 2 * columns]
            return whole.reshape(*x.shape[:2], rows, 2, columns, 2).mean(axis=(3, 5))
        found = np.zeros(case.shape)
        found[:, :, : 2 * rows, : 2 * columns] = np.repeat(np.repeat(g / 4, 2, axis=2), 2, axis=3)
        return found
    if isinstance(case.layer, ReLU):
        return np.maximum(x, 0) if case.part == "forward" else g * (x > 0)
    value = 1 / (1 + np.exp(-x))
    return value if case.part == "forward" else g * value * (1 - value)


def check(case: Pass, name: str, result: Array, given: Given) -> None:
    """Raise Disagreement where a cell of a result is further from the definition than rounding explains."""
    wanted = right(case, given)
    if result.shape != wanted.shape:
        raise Disagreement(f"{name} gives the shape {result.shape}, not {wanted.shape}")
    unit, smallest = STORING.get(case.numbers, (2.0**-24, 2.0**-150))
    largest = max(float(np.abs(a).max()) for a in (given.x, given.g))
    # A peer may round the output before its slope is formed, so the format's unit counts of the largest number too.
    allowed = (NEAR + (0.0 if name == OURS else 2 * unit)) * largest + unit * np.abs(wanted) + smallest
    bad = np.argwhere(~(np.abs(result - wanted) <= allowed))
    if len(bad):
        cell = tuple(int(k) for k in bad[0])
        raise Disagreement(f"{name} gives {float(result[cell])!r} at {cell}, the definition {float(wanted[cell])!r}")
