"""Layers by themselves as tests draw them, and what they are by plain loops over the definition, in float64."""

from itertools import product
from math import prod
from typing import Any

import numpy as np
from hypothesis import strategies as st

from derive.layers import Activation, AvgPool, AvgPool1d, AvgPool2d, AvgPool3d, Layer, ReLU, Sigmoid, Tanh

POOLS = {1: AvgPool1d, 2: AvgPool2d, 3: AvgPool3d}
ACTIVATIONS = (Sigmoid(), Tanh(), ReLU())
Array = Any


@st.composite
def pools(draw: st.DrawFn) -> tuple[AvgPool, tuple[int, ...]]:
    """A pool and the shape of its input: windows that overlap, lie apart, or leave a remainder; perhaps no images."""
    axes = draw(st.integers(1, 3))
    kernel, stride, beyond = (
        tuple(draw(st.integers(low, high)) for _ in range(axes)) for low, high in ((1, 3), (1, 4), (0, 4))
    )
    shape = (draw(st.integers(0, 3)), draw(st.integers(1, 2)), *(k + n for k, n in zip(kernel, beyond, strict=True)))
    return POOLS[axes](kernel, stride), shape


@st.composite
def activations(draw: st.DrawFn) -> tuple[Activation, tuple[int, ...]]:
    """An activation and the shape of its input, of any rank."""
    inner = draw(st.lists(st.integers(1, 4), max_size=4))
    return draw(st.sampled_from(ACTIVATIONS)), (draw(st.integers(0, 5)), *inner)


def laid_out(rng: np.random.Generator, a: Array) -> Array:
    """The same numbers, in an array with other strides: transposed in memory, flipped, or every second element."""
    turned = rng.permutation(a.ndim)
    stored = np.ascontiguousarray(a.transpose(turned)).transpose(np.argsort(turned))
    if not a.size or rng.integers(2):
        return stored
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    return wide[..., ::2] if rng.integers(2) else stored[::-1].copy()[::-1]


def forward(layer: Layer, x: Array) -> Array:
    """What the layer gives."""
    if isinstance(layer, AvgPool):
        out = np.zeros((*x.shape[:2], *(int(n.constant or 0) for n in layer.output_shape((1, *x.shape[1:]))[2:])))
        for at, window in windows(layer, x.shape):
            out[(slice(None), slice(None), *at)] = x[window].mean(axis=tuple(range(2, x.ndim)))
        return out
    with np.errstate(over="ignore"):
        return {"sigmoid": lambda: 1 / (1 + np.exp(-x)), "tanh": lambda: np.tanh(x), "relu": lambda: np.maximum(x, 0)}[
            layer.function  # type: ignore[attr-defined]
        ]()


def input_gradient(layer: Layer, g: Array, x: Array) -> Array:
    """The gradient of ``Sum g * forward(x)``: what each output gives to the cells of its window."""
    if isinstance(layer, AvgPool):
        found = np.zeros(x.shape)
        cells = prod(k for k in layer.kernel_size if isinstance(k, int))  # type: ignore[union-attr]
        for at, window in windows(layer, x.shape):
            share = g[(slice(None), slice(None), *at)] / cells
            found[window] += share.reshape(*share.shape, *(1,) * (x.ndim - 2))
        return found
    value = forward(layer, x)
    slopes = {"sigmoid": value * (1 - value), "tanh": 1 - value**2, "relu": x > 0}
    return g * slopes[layer.function]  # type: ignore[attr-defined]


def windows(layer: AvgPool, shape: tuple[int, ...]) -> Any:
    """Every output position and the cells of its window."""
    sides = list(zip(layer.kernel_size, layer.stride, layer.output_shape((1, *shape[1:]))[2:], strict=True))  # type: ignore[arg-type]
    for at in product(*(range(int(o.constant or 0)) for _, _, o in sides)):
        cells = [slice(i * s, i * s + k) for i, (k, s, _) in zip(at, sides, strict=True)]
        yield at, (slice(None), slice(None), *cells)
