"""Convolutions for tests of emitted text: drawn layers, arrays with every kind of stride, and the definition as loops.

A convolution and its gradients are sums of products of integers here, so the definition is computed exactly, and where
an algorithm divides by nothing but powers of two so does float32.  Elsewhere, objects are exact: ``ratio`` is replaced
by fractions for them.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from codegen import load
from codegen.layer_module import layer_source
from codegen.plan import BATCH, Plan
from codegen.plans.algorithms import ALGORITHMS
from derive.layers import Conv, Conv1d, Conv2d, Conv3d
from derive.terms import tensor

Array = npt.NDArray[Any]
KINDS: dict[int, type[Conv]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
SPACES = {"forward": "Forward", "input_gradient": "InputGradient", "weight_gradient": "WeightGradient"}
RESULTS = (*SPACES, "bias_gradient")
LAYOUTS = ("contiguous", "channels last", "flipped", "sliced", "transposed", "fortran", "broadcast")
LARGEST = 4  # of the integers that are drawn


@dataclass(frozen=True)
class Case:
    """A layer, an input shape and how its text is made."""

    layer: Conv
    shape: tuple[int, ...]
    algorithm: str

    @property
    def batch(self) -> int:
        """How many images."""
        return self.shape[0]


@dataclass(frozen=True)
class Data:
    """Arrays for the arguments; ``grad`` is the cotangent of the output."""

    x: Array
    weight: Array
    bias: Array
    grad: Array


@lru_cache(maxsize=512)
def plans_of(case: Case) -> Mapping[str, Plan]:
    """The plans of every result, at numbers but for the batch."""
    applied = case.layer.on(tensor("X", BATCH, *case.shape[1:]), "Y")
    return ALGORITHMS[case.algorithm].plan(applied, itemsize=8)


@lru_cache(maxsize=512)
def module_of(case: Case) -> ModuleType:
    """The module that is printed from them, with exact fractions where its numbers are objects."""
    applied = case.layer.on(tensor("X", BATCH, *case.shape[1:]), "Y")
    module = load(layer_source(applied, plans_of(case), "A convolution", "For a test."))
    own = module.__dict__.get("ratio")
    if own is not None:
        module.__dict__["ratio"] = lambda p, q, dtype: Fraction(p, q) if np.dtype(dtype).hasobject else own(p, q, dtype)
    return module


# --- layers -------------------------------------------------------------------------------------------------------


@st.composite
def cases(draw: st.DrawFn, algorithm: str, axes: tuple[int, ...] = (1, 2, 3)) -> Case:
    """A layer that an algorithm is for, around the edges of its tiles; the padding may be larger than the image."""
    tile, square = ALGORITHMS[algorithm].tile, algorithm in ("winograd2", "winograd4")
    unit = square or algorithm == "nested"
    rank = draw(st.sampled_from([n for n in axes if n < 2 or (algorithm != "nested" and (n < 3 or not square))]))
    most = {1: 4, 2: 3, 3: 2}[rank]
    sides, spatial, side = [], [], draw(st.integers(2, 4))
    for _ in range(rank):
        k = side if square else draw(st.integers(1, 2 * most if unit else most))
        s, d = (1, 1) if unit else (draw(st.integers(1, most)), draw(st.integers(1, most)))
        s = 1 if algorithm == "shift" else s
        p, rest = draw(st.integers(0, most)), draw(st.integers(0, s - 1))
        outputs = draw(st.sampled_from(_edges(tile, most)))
        sides.append((k, s, p, d))
        spatial.append(max(1, (outputs - 1) * s + d * (k - 1) + 1 - 2 * p + rest))
    c, n, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3)), 1
    if algorithm == "depthwise":
        groups = c = n = c + 1
    elif algorithm in ("direct", "im2col") and draw(st.booleans()):
        groups = 2
        c, n = 2 * draw(st.integers(1, 2)), 2 * n
    kernel, stride, padding, dilation = zip(*sides, strict=True)
    layer = KINDS[rank](c, n, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    return Case(layer, (draw(st.sampled_from([0, 1, 2, 3, 5])), c, *spatial), algorithm)


def _edges(tile: int, most: int) -> list[int]:
    """Sizes of the output: with tiles, one less than whole tiles, whole tiles and one more."""
    return sorted({*range(1, most + 2)} if tile == 1 else {1, tile - 1, tile, tile + 1, 2 * tile + most - 3})


# --- arrays -------------------------------------------------------------------------------------------------------


def laid_out(a: Array, layout: str) -> Array:
    """The same numbers, differently in memory."""
    if layout == "flipped":
        everything = (slice(None, None, -1),) * a.ndim
        return np.ascontiguousarray(a[everything])[everything]
    if layout == "sliced":
        wide = np.full([2 * n for n in a.shape], 99, a.dtype)
        wide[(slice(None, None, 2),) * a.ndim] = a
        return wide[(slice(None, None, 2),) * a.ndim]
    if layout == "transposed":
        return np.ascontiguousarray(a.T).T
    if layout == "channels last" and a.ndim > 1:
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(a, 1, -1)), -1, 1)
    if layout == "fortran":
        return np.asfortranarray(a)
    if layout == "broadcast" and a.size:
        return np.broadcast_to(a[:1], a.shape)
    return a


def drawn(case: Case, seed: int, dtype: str, layouts: list[str] | None = None) -> Data:
    """Small integers for a case; what is laid out as "broadcast" repeats its first entry."""
    rng = np.random.default_rng(seed)
    outputs = tuple(n.constant or 0 for n in case.layer.output_shape(case.shape))
    weight = tuple(case.layer.parameter_shapes()["weight"])
    shapes = [case.shape, weight, (weight[0],), outputs]
    arrays = [
        laid_out(rng.integers(-LARGEST, LARGEST + 1, s).astype(dtype), how)
        for s, how in zip(shapes, layouts or ["contiguous"] * 4, strict=True)
    ]
    return Data(*arrays)


# --- results ------------------------------------------------------------------------------------------------------


def expected(case: Case, data: Data) -> dict[str, Array]:
    """Output and gradients by the definition, in integers: a loop over every position and every kernel cell."""
    layer = case.layer
    x, weight, grad = (a.astype(np.int64) for a in (data.x, data.weight, data.grad))
    y, gx, gw = np.zeros(grad.shape, np.int64), np.zeros(x.shape, np.int64), np.zeros(weight.shape, np.int64)
    channels, per_group = weight.shape[1], len(weight) // layer.groups
    for i in itertools.product(*map(range, grad.shape[2:])):
        for a in itertools.product(*map(range, weight.shape[2:])):
            steps = zip(i, a, layer.stride, layer.dilation, layer.padding, strict=True)
            h = tuple(j * s + e * d - p for j, e, s, d, p in steps)
            if not all(0 <= cell < n for cell, n in zip(h, x.shape[2:], strict=True)):
                continue
            for n in range(len(weight)):
                first = n // per_group * channels
                read = (slice(None), slice(first, first + channels), *h)
                w, g = weight[(n, slice(None), *a)], grad[(slice(None), n, *i)]
                y[(slice(None), n, *i)] += x[read] @ w
                gx[read] += g[:, None] * w
                gw[(n, slice(None), *a)] += g @ x[read]
    if layer.bias:
        y += data.bias.astype(np.int64).reshape(-1, *[1] * (x.ndim - 2))
    found = {"forward": y, "input_gradient": gx, "weight_gradient": gw}
    return found | ({"bias_gradient": grad.sum(axis=(0, *range(2, grad.ndim)))} if layer.bias else {})


def run(case: Case, data: Data, works: Mapping[str, Any]) -> dict[str, Array]:
    """Every function once, on the workspaces given."""
    m = module_of(case)
    found = {
        "forward": m.forward(data.x, data.weight, data.bias if case.layer.bias else None, works.get("forward")),
        "input_gradient": m.input_gradient(data.grad, data.weight, data.x.shape, works.get("input_gradient")),
        "weight_gradient": m.weight_gradient(data.grad, data.x, works.get("weight_gradient")),
    }
    return found | ({"bias_gradient": m.bias_gradient(data.grad)} if case.layer.bias else {})


def works_of(case: Case, dtype: str, block: int) -> dict[str, Any]:
    """A workspace for each function, for blocks of so many images."""
    m = module_of(case)
    return {name: getattr(m, kind)(case.batch, dtype, block) for name, kind in SPACES.items()}
