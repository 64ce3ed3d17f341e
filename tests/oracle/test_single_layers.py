"""Emitted pools, activations and dense layers against PyTorch, forward and gradients, in float64."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import codegen
from derive.layers import AvgPool, Layer, Linear
from tests.codegen import single_layers as plain

pytestmark = pytest.mark.oracle


@settings(max_examples=25)
@given(case=plain.pools() | plain.activations(), seed=st.integers(0, 1 << 30))
def test_a_layer_without_parameters(torch: ModuleType, case: tuple[Layer, tuple[int, ...]], seed: int) -> None:
    layer, shape = case
    shape = (max(1, shape[0]), *shape[1:])
    rng = np.random.default_rng(seed)
    x = np.where(rng.integers(0, 4, shape) == 0, 0.0, 3 * rng.standard_normal(shape))
    leaf = torch.from_numpy(x).requires_grad_()
    if isinstance(layer, AvgPool):
        y = getattr(torch.nn.functional, f"avg_pool{layer.axes}d")(leaf, layer.kernel_size, layer.stride)
    else:
        y = getattr(torch, layer.function)(leaf)  # type: ignore[attr-defined]
    g = rng.standard_normal(tuple(y.shape))
    y.backward(torch.from_numpy(g))
    module = codegen.load(codegen.emit(layer, input_shape=shape, dtype="float64").source)
    assert np.allclose(module.forward(x), y.detach().numpy(), rtol=1e-12, atol=1e-12)
    assert np.allclose(module.input_gradient(g, x), leaf.grad.numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
def test_a_dense_layer(torch: ModuleType, bias: bool) -> None:
    rng = np.random.default_rng(1)
    drawn = [rng.standard_normal(shape) for shape in ((4, 7), (3, 7), *(((3,),) if bias else ()))]
    leaves = [torch.from_numpy(a).requires_grad_() for a in drawn]
    z = torch.nn.functional.linear(*leaves)
    g = rng.standard_normal((4, 3))
    z.backward(torch.from_numpy(g))
    module = codegen.load(codegen.emit(Linear(7, 3, bias=bias), input_shape=(4, 7), dtype="float64").source)
    assert np.allclose(module.forward(*drawn), z.detach().numpy(), atol=1e-12)
    found = [a for a in module.backward(g, drawn[0], drawn[1]) if a is not None]
    for ours, leaf in zip(found, leaves, strict=True):
        assert np.allclose(ours, leaf.grad.numpy(), atol=1e-12)
