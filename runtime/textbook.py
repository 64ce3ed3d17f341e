"""Convolution as a NumPy textbook prints it: sliding windows and `tensordot`, an array of every window at once.

Nothing here is derived or generated, and nothing is tuned: it is what `certiconv bench` compares with where a user has
NumPy alone, and, on float64 arrays of small integers, the exact result that every implementation must agree with.
Arrays are (batch, channels, spatial axes...); any number of spatial axes.  Kernels are not flipped.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from runtime.arrays import Array


@dataclass(frozen=True)
class Setting:
    """Stride and padding, a number for each spatial axis, and the groups."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int = 1


def forward(x: Array, w: Array, b: Array | None, setting: Setting) -> Array:
    """The cross-correlation of x (N, C, n...) with w (M, C/groups, k...), plus b (M,): shape (N, M, o...)."""
    axes = range(2, w.ndim)
    inner = [1, *(k + w.ndim - 2 for k in axes)]  # channels and offsets of the windows
    parts = [
        np.tensordot(_windows(part, w.shape[2:], setting), kernels, axes=(inner, [1, *axes]))
        for part, kernels in zip(_split(x, 1, setting), _split(w, 0, setting), strict=True)
    ]
    z = np.concatenate(parts, axis=-1) if len(parts) > 1 else parts[0]
    if b is not None:
        z += b
    return np.ascontiguousarray(np.moveaxis(z, -1, 1))


def weight_gradient(g: Array, x: Array, kernel: Sequence[int], setting: Setting) -> Array:
    """The gradient of ``Sum g * forward(x, w, b)`` by w: shape (M, C/groups, k...)."""
    cells = [0, *range(2, x.ndim)]
    parts = [
        np.tensordot(part, _windows(image, kernel, setting), axes=(cells, cells))
        for part, image in zip(_split(g, 1, setting), _split(x, 1, setting), strict=True)
    ]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def input_gradient(g: Array, w: Array, input_shape: Sequence[int], setting: Setting) -> Array:
    """The gradient of ``Sum g * forward(x, w, b)`` by x, of the shape of x: the columns' gradient, added up."""
    batch, channels, *image = input_shape
    kernel, outputs = w.shape[2:], g.shape[2:]
    dx = np.zeros((batch, channels, *(n + 2 * p for n, p in zip(image, setting.padding, strict=True))), g.dtype)
    for part, kernels, into in zip(_split(g, 1, setting), _split(w, 0, setting), _split(dx, 1, setting), strict=True):
        columns: Array = np.tensordot(kernels, part, axes=([0], [1]))  # (C/groups, k..., N, o...)
        for offset in itertools.product(*(range(k) for k in kernel)):
            met: Any = (slice(None), slice(None), *_cells(offset, outputs, setting))
            at: Any = (slice(None), *offset)
            into[met] += columns[at].swapaxes(0, 1)
    inside = (slice(p, p + n) for n, p in zip(image, setting.padding, strict=True))
    return np.ascontiguousarray(dx[(slice(None), slice(None), *inside)])


def _split(array: Array, axis: int, setting: Setting) -> list[Array]:
    return np.split(array, setting.groups, axis=axis)


def _cells(offset: Sequence[int], outputs: Sequence[int], setting: Setting) -> list[slice]:
    """Where an offset of the kernel meets the padded input."""
    return [slice(a, a + (o - 1) * s + 1, s) for a, o, s in zip(offset, outputs, setting.stride, strict=True)]


def _windows(x: Array, kernel: Sequence[int], setting: Setting) -> Array:
    """Every window of the padded input, a view of shape (N, C, o..., k...)."""
    if any(setting.padding):
        x = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in setting.padding)])
    view: Array = np.lib.stride_tricks.sliding_window_view(x, tuple(kernel), axis=tuple(range(2, x.ndim)))
    return view[(slice(None), slice(None), *(slice(None, None, s) for s in setting.stride))]


# --- A training step of LeNet -------------------------------------------------------------------------------

_FIRST, _SECOND = Setting((1, 1), (2, 2)), Setting((1, 1), (0, 0))


def lenet_step(x: Array, y: Array, params: Mapping[str, Array], lr: float) -> float:
    """One step of gradient descent on d2l's LeNet (7.6), in place; the mean cross-entropy before it.

    Args:
        x: images (N, 1, 28, 28).
        y: labels (N,).
        params: named as in torch's ``state_dict``.
        lr: the learning rate.
    """
    loss, gradients = lenet_gradients(x, y, params)
    for name, gradient in gradients.items():
        params[name][...] -= lr * gradient
    return loss


def lenet_gradients(x: Array, y: Array, params: Mapping[str, Array]) -> tuple[float, dict[str, Array]]:
    """The loss and the gradient of every parameter."""
    p = params
    a1 = _sigmoid(forward(x, p["0.weight"], p["0.bias"], _FIRST))
    s1 = _pool(a1)
    a2 = _sigmoid(forward(s1, p["3.weight"], p["3.bias"], _SECOND))
    s2 = _pool(a2)
    flat = s2.reshape(len(x), -1)
    h1 = _sigmoid(flat @ p["7.weight"].T + p["7.bias"])
    h2 = _sigmoid(h1 @ p["9.weight"].T + p["9.bias"])
    loss, dlogits = _cross_entropy(h2 @ p["11.weight"].T + p["11.bias"], y)
    g: dict[str, Array] = {}
    d2 = _dense_backward(dlogits, h2, p["11.weight"], g, "11") * h2 * (1 - h2)
    d1 = _dense_backward(d2, h1, p["9.weight"], g, "9") * h1 * (1 - h1)
    dflat = _dense_backward(d1, flat, p["7.weight"], g, "7")
    dz2 = _unpool(dflat.reshape(s2.shape)) * a2 * (1 - a2)
    g["3.weight"] = weight_gradient(dz2, s1, p["3.weight"].shape[2:], _SECOND)
    g["3.bias"] = dz2.sum(axis=(0, 2, 3))
    dz1 = _unpool(input_gradient(dz2, p["3.weight"], s1.shape, _SECOND)) * a1 * (1 - a1)
    g["0.weight"] = weight_gradient(dz1, x, p["0.weight"].shape[2:], _FIRST)
    g["0.bias"] = dz1.sum(axis=(0, 2, 3))
    return loss, g


def _dense_backward(d: Array, x: Array, w: Array, gradients: dict[str, Array], layer: str) -> Array:
    gradients[f"{layer}.weight"] = d.T @ x
    gradients[f"{layer}.bias"] = d.sum(axis=0)
    back: Array = d @ w
    return back


def _sigmoid(z: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-z))
    return result


def _pool(a: Array) -> Array:
    n, c, h, w = a.shape
    mean: Array = a.reshape(n, c, h // 2, 2, w // 2, 2).mean(axis=(3, 5))
    return mean


def _unpool(g: Array) -> Array:
    spread: Array = np.repeat(np.repeat(g, 2, axis=2), 2, axis=3) / g.dtype.type(4)
    return spread


def _cross_entropy(logits: Array, y: Array) -> tuple[float, Array]:
    shifted = logits - logits.max(axis=1, keepdims=True)
    exps = np.exp(shifted)
    total = exps.sum(axis=1, keepdims=True)
    rows = np.arange(len(y))
    loss = float(np.mean(np.log(total[:, 0]) - shifted[rows, y]))
    d: Any = exps / total
    d[rows, y] -= 1
    return loss, d / d.dtype.type(len(y))


def multiply_adds(weight_shape: Sequence[int], cells: Sequence[int]) -> int:
    """The products that each of the three functions above adds up, those with padding included.

    Args:
        weight_shape: (M, C/groups, k...).
        cells: the batch size and the output's spatial sizes.

    >>> multiply_adds((6, 1, 5, 5), (256, 28, 28))
    30105600
    """
    return math.prod(weight_shape) * math.prod(cells)
