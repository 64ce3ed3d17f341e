"""Layers, a network and numbers for tests of batches that are split."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

import derive
import runtime
from derive.layers import AvgPool2d, Conv, Conv1d, Conv2d, Flatten, Linear, Sequential, Sigmoid

LAYERS: tuple[tuple[Conv, tuple[int, ...]], ...] = (
    (Conv1d(2, 3, 3, stride=2, padding=1), (2, 11)),
    (Conv1d(1, 2, 4, bias=False), (1, 9)),
    (Conv1d(4, 4, 3, padding=1, groups=4), (4, 10)),
    (Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (2, 7, 8)),
    (Conv2d(8, 8, 3, padding=1), (8, 12, 12)),  # by Winograd's minimal filtering
)
LAYER, IMAGE = LAYERS[3]
NET = Sequential(Conv2d(1, 2, 3, padding=1), Sigmoid(), AvgPool2d(2), Flatten(), Linear(18, 4))
Made = tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]


def made(layer: Conv, image: tuple[int, ...], batch: int, dtype: str = "float64") -> Made:
    """Small integers, the input not contiguous."""
    rng = np.random.default_rng(batch)

    def drawn(*shape: int) -> np.ndarray:
        return rng.integers(-4, 5, shape).astype(dtype)

    _, *output = derive.output_shape(layer, (1, *image))
    shapes = {k: tuple(map(int, s)) for k, s in layer.parameter_shapes().items()}
    x = drawn(2 * batch, *image)[::2]
    bias = drawn(*shapes["bias"]) if layer.bias else None
    return x, drawn(*shapes["weight"]), bias, drawn(batch, *map(int, output))


def results(op: runtime.Operation, x: np.ndarray, w: np.ndarray, u: np.ndarray | None, g: np.ndarray) -> list[Any]:
    return [op.forward(x, w, u), *op.backward(g, x, w)]


def same(found: list[Any], wanted: list[Any], *, exact: bool = False) -> None:
    for one, other in zip(found, wanted, strict=True):
        if other is None:
            assert one is None
        elif exact:
            np.testing.assert_array_equal(one, other)
        else:
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-11)


def digits(batch: int, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(batch)
    return rng.normal(size=(batch, 1, 6, 6)).astype(dtype), rng.integers(0, 4, batch)


def check_two_callers(operation: runtime.Operation, arguments: Sequence[Sequence[Any]]) -> None:
    """Two threads that call an operation at once, each with arguments of its own, get what one gets."""
    wanted = [results(operation, *a) for a in arguments]
    found: list[list[list[Any]]] = [[], []]

    def call(k: int) -> None:
        found[k].extend(results(operation, *arguments[k]) for _ in range(15))

    callers = [threading.Thread(target=call, args=(k,)) for k in (0, 1)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    for k in (0, 1):
        assert len(found[k]) == 15
        for one in found[k]:
            same(one, wanted[k], exact=True)
