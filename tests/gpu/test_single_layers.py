"""Emitted pools, activations and dense layers on a device: near to plain loops, with the same bits twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derive.layers import Layer, Linear, Sigmoid
from runtime import reference_layers as reference
from tests.codegen import single_layers as plain
from tests.gpu.machines import Machine, emitted

UNITS = {"float32": 2.0**-20, "float64": 2.0**-49, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def check(machine: Machine, layer: Layer, shape: tuple[int, ...], numbers: str, seed: int) -> None:
    """Forward and gradient on normal numbers, an eighth of them 0."""
    module = machine.module(emitted(layer, (4, *shape[1:]), numbers))
    rng = np.random.default_rng(seed)
    x = np.where(rng.integers(0, 8, shape) == 0, 0.0, rng.standard_normal(shape)).astype(module.DTYPE)
    wanted = plain.forward(layer, x.astype(np.float64))
    g = rng.standard_normal(wanted.shape).astype(module.DTYPE)
    there_x, there_g = (module.cupy.asarray(a) for a in (x, g))
    results = [(module.forward(there_x), module.input_gradient(there_g, there_x)) for _ in range(2)]
    (y, dx), again = ([module.cupy.asnumpy(a) for a in pair] for pair in results)
    assert [a.tobytes() for a in (y, dx)] == [a.tobytes() for a in again]
    right = plain.input_gradient(layer, g.astype(np.float64), x.astype(np.float64))
    for found, exact in ((y, wanted), (dx, right)):
        assert found.dtype == module.DTYPE
        assert found.shape == exact.shape
        near = UNITS[numbers]
        np.testing.assert_allclose(found.astype(np.float64), exact, rtol=near, atol=4 * near)


@pytest.mark.parametrize("numbers", UNITS)
def test_drawn_layers_without_parameters(machine: Machine, numbers: str) -> None:
    @settings(max_examples=machine.examples)
    @given(plain.pools() | plain.activations(), st.integers(0, 99))
    def near(case: tuple[Layer, tuple[int, ...]], seed: int) -> None:
        check(machine, *case, numbers, seed)

    near()


def test_an_activation_of_more_elements_than_a_block_takes(machine: Machine) -> None:
    check(machine, Sigmoid(), (3, 1025), "float32", 1)


def test_a_dense_layer(machine: Machine) -> None:
    module = machine.module(emitted(Linear(19, 11), (4, 19), "float32"))
    rng = np.random.default_rng(2)
    x, w, b, g = (rng.integers(-8, 9, shape).astype(np.float32) for shape in ((5, 19), (11, 19), (11,), (5, 11)))
    there = {key: module.cupy.asarray(a) for key, a in {"x": x, "w": w, "b": b, "g": g}.items()}
    z = module.cupy.asnumpy(module.forward(there["x"], there["w"], there["b"]))
    np.testing.assert_array_equal(z, reference.linear(x, w, b))
    found = module.backward(there["g"], there["x"], there["w"])
    for ours, theirs in zip(found, reference.linear_gradients(g, x, w), strict=True):
        np.testing.assert_array_equal(module.cupy.asnumpy(ours), theirs)
