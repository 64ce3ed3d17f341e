"""The emitted network against the reference, which shares nothing with it: float64, the whole network.

Draws are specifications and seeds: layers and sizes, batches, blocks, and the seed of all numbers.

*Tolerance.*  Both sides round sums of at most K terms, each within K u of the sum of its absolute values, u = 1.1e-16
(MATHEMATICS section 4).  In LeNet the sums on the way to a gradient have 26, 151, 401, 121 and 85 terms forwards and
about as many backwards, some 1600 in all, and a sum over positions and images of at most 5 x 784 more: 5500 u = 6e-13
of the sums of absolute values, if no two errors cancel.  Almost all do, so 1e-12 of the largest value of an array
leaves room for values that are smaller than their sums of absolute values.
"""

from collections.abc import Mapping
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codegen.emit import emit
from codegen.loading import load
from derive.layers import AvgPool2d, Conv2d, Layer, Linear, Sequential, Sigmoid, lenet
from runtime import reference
from tests.codegen.small import numbers
from tests.codegen.specs import SPECS, Spec

Array = npt.NDArray[np.float64]
Params = dict[str, Array]
TOLERANCE = 1e-12
SEEDS = st.integers(0, 2**32 - 1)


@cache
def emitted_lenet() -> ModuleType:
    return load(emit(lenet(), input_shape=(1, 1, 28, 28), dtype="float64").source)


def agree(found: Any, expected: Any, what: str) -> None:
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape, what
    scale = float(np.abs(expected).max(initial=1e-300))
    assert float(np.abs(found - expected).max(initial=0.0)) <= TOLERANCE * scale, what


def data(module: ModuleType, batch: int, seed: int, gain: float = 2.0) -> tuple[Array, npt.NDArray[np.int64], Params]:
    """Images, labels and parameters: wide enough to move the sigmoids, too small to flatten them."""
    rng = np.random.default_rng(seed)
    params = {name: numbers(rng, shape, gain) for name, shape in module.PARAMETERS.items()}
    return rng.normal(size=(batch, *module.INPUT)), rng.integers(0, module.CLASSES, batch), params


# --- LeNet --------------------------------------------------------------------------------------------------------


@settings(max_examples=10)
@given(st.integers(0, 5), st.integers(1, 3), SEEDS)
@example(0, 1, 0)
@example(1, 64, 1)
def test_lenet(batch: int, block: int, seed: int) -> None:
    module = emitted_lenet()
    x, y, params = data(module, batch, seed)
    work = module.Workspace(batch, np.float64, block=block)
    agree(module.forward(x, params, work), reference.forward(x, params), "forward")
    agree(module.loss(x, y, params, work), reference.loss(x, y, params), "loss")
    found, expected = module.gradients(x, y, params, work), reference.gradients(x, y, params)
    assert list(found) == list(expected)
    for name, gradient in expected.items():
        agree(found[name], gradient, name)


@settings(max_examples=8)
@given(st.integers(1, 3), st.integers(1, 2), SEEDS)
def test_several_steps_of_sgd_on_one_workspace(batch: int, block: int, seed: int) -> None:
    module = emitted_lenet()
    _, _, params = data(module, 0, seed)
    mirror = {name: p.copy() for name, p in params.items()}
    work = module.Workspace(batch, np.float64, block=block)
    for step in range(3):
        x, y, _ = data(module, batch, seed + step)
        agree(module.sgd_step(x, y, params, 0.5, work), reference.loss(x, y, mirror), f"loss before step {step}")
        reference.sgd_step(x, y, mirror, 0.5)
        for name, parameter in mirror.items():
            agree(params[name], parameter, f"{name} after step {step}")


def test_a_workspace_changes_nothing() -> None:
    """The block size changes no more than the order of a sum."""
    module = emitted_lenet()
    x, y, params = data(module, 5, 11)
    alone = module.gradients(x, y, params)
    for block in (1, 2, 3, 5):
        found = module.gradients(x, y, params, module.Workspace(5, np.float64, block=block))
        for name, gradient in alone.items():
            agree(found[name], gradient, name)


# --- networks like LeNet, of drawn sizes --------------------------------------------------------------------------


def reference_values(net: Sequential, params: Mapping[str, Array], x: Array) -> list[Array]:
    """What flows between the layers, by the reference's own layers."""
    values = [x]
    for k, layer in enumerate(net.layers):
        weight, bias = params.get(f"{k}.weight"), params.get(f"{k}.bias")
        values.append(_forward(layer, values[-1], weight, bias))
    return values


def _forward(layer: Layer, x: Array, weight: Array | None, bias: Array | None) -> Array:
    match layer:
        case Conv2d():
            return reference.conv2d(x, weight, bias, **settings_of(layer))
        case Sigmoid():
            return reference.sigmoid(x)
        case AvgPool2d():
            return reference.avg_pool2d(x, layer.kernel_size)
        case Linear():
            return reference.linear(x, weight, bias)
    return x.reshape(len(x), int(np.prod(x.shape[1:])))


def settings_of(layer: Conv2d) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}


def reference_gradients(
    net: Sequential, params: Mapping[str, Array], values: list[Array], y: npt.NDArray[np.int64]
) -> Params:
    """The chain rule, by the reference's own layers."""
    found: Params = {}
    g = reference.cross_entropy_gradient(values[-1], y)
    for k, layer in reversed(list(enumerate(net.layers))):
        x, weight = values[k], params.get(f"{k}.weight")
        match layer:
            case Conv2d():
                grads = reference.conv2d_gradients(g, x, weight, **settings_of(layer))
                g, found[f"{k}.weight"], found[f"{k}.bias"] = grads
            case Linear():
                g, found[f"{k}.weight"], found[f"{k}.bias"] = reference.linear_gradients(g, x, weight)
            case Sigmoid():
                g = reference.sigmoid_gradient(g, x)
            case AvgPool2d():
                g = reference.avg_pool2d_gradient(g, x, layer.kernel_size)
            case _:
                g = g.reshape(x.shape)
    return found


@settings(max_examples=80)
@given(SPECS, st.integers(0, 5), st.integers(1, 3), SEEDS)
def test_networks_of_drawn_sizes(spec: Spec, batch: int, block: int, seed: int) -> None:
    net, shape = spec.network()
    module = load(emit(net, input_shape=shape, dtype="float64").source)
    work = module.Workspace(batch, np.float64, block=block)
    x, y, params = data(module, batch, seed)
    mirror = {name: p.copy() for name, p in params.items()}
    for step in range(2):
        values = reference_values(net, mirror, x)
        agree(module.forward(x, params, work), values[-1], "forward")
        loss = reference.cross_entropy(values[-1], y)
        assert module.loss(x, y, params, work) == pytest.approx(loss, rel=TOLERANCE, abs=TOLERANCE)
        gradients = reference_gradients(net, mirror, values, y)
        found = module.gradients(x, y, params, work)
        for name, gradient in gradients.items():
            agree(found[name], gradient, name)
        assert module.sgd_step(x, y, params, 0.5, work) == pytest.approx(loss, rel=TOLERANCE, abs=TOLERANCE)
        for name, gradient in gradients.items():
            mirror[name] -= 0.5 * gradient
            agree(params[name], mirror[name], f"{name} after step {step}")


# --- numbers that are too large for exp ---------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sigmoids_of_large_numbers_are_zero_and_one_in_silence(dtype: Any) -> None:
    """exp(-z) is infinite for a z far below zero, where the sigmoid is 0; warnings are errors here."""
    module = emitted_lenet()
    x, labels, params = data(module, 3, 5, gain=1e5)
    x, params = x.astype(dtype), {name: a.astype(dtype) for name, a in params.items()}
    work = module.Workspace(3, dtype)
    logits = module.forward(x, params, work)
    hidden = work.blocks[0][2].A7
    assert {0.0, 1.0} <= set(hidden.ravel().tolist())
    assert np.isfinite(logits).all()
    assert all(np.isfinite(g).all() for g in module.gradients(x, labels, params, work).values())
