"""Grouped convolutions against PyTorch: their definition and gradients by theorem, and emitted ones.

PyTorch is asked in float64 on small integers, where sums of products are exact, so equality is asked for.
"""

import random
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import codegen
from derive.evaluate import RATIONALS, Evaluator, Table
from derive.gradients import gradient
from derive.layers import Conv, Conv1d, Conv2d, Conv3d
from derive.terms import tensor
from tests.derive.test_gradients import windows

pytestmark = pytest.mark.oracle

KINDS = {1: Conv1d, 2: Conv2d, 3: Conv3d}


@st.composite
def settings_of(draw: st.DrawFn, axes: int) -> tuple[dict[str, Any], tuple[int, ...]]:
    """Kernel, stride, padding and dilation of a layer, and a spatial shape."""
    sizes = draw(windows(axes))
    names = {"kernel_size": "k", "stride": "s", "padding": "p", "dilation": "d"}
    sides = {name: tuple(sizes[f"{letter}{axis}"] for axis in range(axes)) for name, letter in names.items()}
    return sides, tuple(sizes[f"n{axis}"] for axis in range(axes))


def asked(torch: ModuleType, layer: Conv, shape: tuple[int, ...], seed: int) -> dict[str, np.ndarray]:
    """Arguments, cotangent, output and gradients, as PyTorch has them."""
    rng = np.random.default_rng(seed)
    weight, *bias = layer.parameter_shapes().values()
    drawn = [rng.integers(-4, 5, size).astype(np.float64) for size in (shape, weight, *bias)]
    leaves = [torch.from_numpy(a).requires_grad_() for a in drawn]
    sides = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
    output = getattr(torch.nn.functional, f"conv{layer.axes}d")(*leaves, **sides)
    grad = rng.integers(-4, 5, tuple(output.shape)).astype(np.float64)
    output.backward(torch.from_numpy(grad))
    found = {"X": drawn[0], "W": drawn[1], "u": drawn[2] if bias else np.zeros(0), "G": grad}
    gradients = {f"d{name}": leaf.grad.numpy() for name, leaf in zip("XWu", leaves, strict=False)}
    return found | gradients | {"Z": output.detach().numpy()}


def tables(arrays: dict[str, np.ndarray]) -> dict[str, Table]:
    """The free tensors as tables of integers."""
    return {
        name: Table(tuple((0, n) for n in arrays[name].shape), [int(v) for v in arrays[name].ravel()])
        for name in ("X", "W", "u", "G")
    }


@settings(max_examples=25)
@given(settings_of(1), st.tuples(st.integers(2, 3), st.integers(1, 3), st.integers(1, 3)), st.integers(0, 2**32 - 1))
def test_the_definition_and_the_gradients_of_a_grouped_convolution(
    torch: ModuleType, given_: tuple[dict[str, Any], tuple[int, ...]], groups: tuple[int, int, int], seed: int
) -> None:
    sides, spatial = given_
    g, inputs, outputs = groups
    layer = Conv1d(g * inputs, g * outputs, groups=g, **sides)
    shape = (2, g * inputs, *spatial)
    arrays = asked(torch, layer, shape, seed)
    applied = layer.on(tensor("X", *shape))
    assert Evaluator({}, tables(arrays), RATIONALS).table(applied.y).values == arrays["Z"].ravel().tolist()
    sizes = {"N": 2, "C": g, "g": g, "Cg": inputs, "Og": outputs, "o0": arrays["Z"].shape[2], "n0": spatial[0]}
    sizes |= {f"{name[0]}0": value[0] for name, value in sides.items()}
    for wrt, name in (("input", "X"), ("weight", "W"), ("bias", "u")):
        theorem = gradient(layer, wrt).theorem
        evaluator = Evaluator(sizes, tables(arrays), RATIONALS)
        wanted = arrays[f"d{name}"]
        for at in random.Random(seed).sample(list(np.ndindex(*wanted.shape)), min(12, wanted.size)):
            assert evaluator.value(theorem.rhs, at) == wanted[at]


@pytest.mark.parametrize("axes", [1, 2, 3])
@settings(max_examples=40)
@given(data=st.data(), channels=st.integers(2, 4), batch=st.integers(0, 3), seed=st.integers(0, 2**32 - 1))
def test_emitted_grouped_convolutions(
    torch: ModuleType, axes: int, data: st.DataObject, channels: int, batch: int, seed: int
) -> None:
    sides, spatial = data.draw(settings_of(axes))
    inputs, outputs = data.draw(st.just((1, 1)) | st.tuples(st.integers(1, 2), st.integers(1, 2)))
    layer = KINDS[axes](channels * inputs, channels * outputs, groups=channels, **sides)
    shape = (batch, channels * inputs, *spatial)
    arrays = asked(torch, layer, shape, seed)
    module = codegen.load(codegen.emit(layer, input_shape=shape).source)
    assert np.array_equal(module.forward(arrays["X"], arrays["W"], arrays["u"]), arrays["Z"])
    for found, name in zip(module.backward(arrays["G"], arrays["X"], arrays["W"]), "XWu", strict=True):
        assert np.array_equal(found, arrays[f"d{name}"])
