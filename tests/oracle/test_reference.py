"""The reference LeNet against PyTorch, in float64: layers with drawn settings, then the network of d2l 7.6.

PyTorch is asked through its layers and its automatic differentiation, never through a formula of ours. Sizes
are drawn as what lies beyond the smallest legal image, so that strides often leave a remainder.
"""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import reference
from runtime.reference import Array

pytestmark = pytest.mark.oracle

SEEDS = st.integers(0, 2**32 - 1)
PAIRS = st.tuples(st.integers(1, 3), st.integers(1, 3))


def agree(found: Array, expected: Any, tolerance: float = 1e-12) -> None:
    """Equal to `tolerance` relative to the largest value: both sum in float64, in another order."""
    values = expected.detach().numpy()
    assert found.shape == values.shape
    scale = float(np.abs(values).max(initial=1e-300))
    assert np.abs(found - values).max(initial=0.0) <= tolerance * scale


def leaf(torch: ModuleType, array: Array) -> Any:
    return torch.from_numpy(array.copy()).requires_grad_()


@settings(max_examples=60)
@given(
    st.integers(0, 2),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    PAIRS,
    st.tuples(st.integers(0, 2), st.integers(0, 2)),
    PAIRS,
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    SEEDS,
)
def test_convolution_and_its_gradients(
    torch: ModuleType,
    batch: int,
    channels: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    beyond: tuple[int, int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    image = [max(1, dilation[axis] * (kernel[axis] - 1) + 1 - 2 * padding[axis]) + beyond[axis] for axis in (0, 1)]
    x, w = rng.normal(size=(batch, channels[0], *image)), rng.normal(size=(channels[1], channels[0], *kernel))
    b = rng.normal(size=channels[1])
    leaves = [leaf(torch, array) for array in (x, w, b)]
    expected = torch.nn.functional.conv2d(*leaves, stride=stride, padding=padding, dilation=dilation)
    agree(reference.conv2d(x, w, b, stride=stride, padding=padding, dilation=dilation), expected)
    g = rng.normal(size=tuple(expected.shape))
    expected.backward(torch.from_numpy(g))
    found = reference.conv2d_gradients(g, x, w, stride=stride, padding=padding, dilation=dilation)
    for gradient, tensor in zip(found, leaves, strict=True):
        agree(gradient, tensor.grad)


@settings(max_examples=40)
@given(st.integers(0, 2), PAIRS, st.none() | PAIRS, st.tuples(st.integers(0, 5), st.integers(0, 5)), SEEDS)
def test_pooling_and_its_gradient(
    torch: ModuleType,
    batch: int,
    kernel: tuple[int, int],
    stride: tuple[int, int] | None,
    beyond: tuple[int, int],
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, 2, kernel[0] + beyond[0], kernel[1] + beyond[1]))
    tensor = leaf(torch, x)
    expected = torch.nn.functional.avg_pool2d(tensor, kernel, stride)
    agree(reference.avg_pool2d(x, kernel, stride=stride), expected)
    g = rng.normal(size=tuple(expected.shape))
    expected.backward(torch.from_numpy(g))
    agree(reference.avg_pool2d_gradient(g, x, kernel, stride=stride), tensor.grad)


@settings(max_examples=40)
@given(st.integers(1, 4), st.integers(1, 6), st.sampled_from([1.0, 30.0, 1000.0]), SEEDS)
def test_cross_entropy_and_its_gradient(torch: ModuleType, batch: int, classes: int, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    z, y = scale * rng.normal(size=(batch, classes)), rng.integers(0, classes, batch)
    tensor = leaf(torch, z)
    expected = torch.nn.functional.cross_entropy(tensor, torch.from_numpy(y))
    assert reference.cross_entropy(z, y) == pytest.approx(expected.item(), rel=1e-12, abs=1e-12)
    expected.backward()
    assert np.allclose(reference.cross_entropy_gradient(z, y), tensor.grad.numpy(), rtol=1e-12, atol=1e-15)


def lenet(torch: ModuleType) -> Any:
    nn = torch.nn
    layers = (
        *(nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2, 2)),
        *(nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2, 2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10)),
    )
    return nn.Sequential(*layers).double()


def parameters(net: Any, seed: int) -> dict[str, Array]:
    """Fresh parameters, put into the net: wide enough to move the sigmoids, too small to flatten them."""
    rng = np.random.default_rng(seed)
    params = {}
    for name, tensor in net.state_dict().items():
        fan_in = max(1, int(np.prod(tensor.shape[1:])))
        params[name] = rng.normal(size=tuple(tensor.shape)) * 2 / np.sqrt(fan_in)
        tensor.copy_(tensor.new_tensor(params[name]))
    return params


def test_the_names_are_those_of_a_state_dict(torch: ModuleType) -> None:
    assert tuple(lenet(torch).state_dict()) == reference.PARAMETER_NAMES


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_forward_and_gradients_along_a_drawn_cotangent(torch: ModuleType, batch: int) -> None:
    net = lenet(torch)
    params = parameters(net, seed=batch)
    rng = np.random.default_rng(10 + batch)
    x, g = rng.normal(size=(batch, 1, 28, 28)), rng.normal(size=(batch, 10))
    expected = net(torch.from_numpy(x))
    agree(reference.forward(x, params), expected)
    expected.backward(torch.from_numpy(g))
    found = reference.backward(g, x, params)
    for name, tensor in net.named_parameters():
        agree(found[name], tensor.grad, 1e-11)


def test_loss_gradients_and_steps_of_descent(torch: ModuleType) -> None:
    net = lenet(torch)
    params = parameters(net, seed=5)
    rng = np.random.default_rng(6)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(5):
        x, y = rng.normal(size=(3, 1, 28, 28)), rng.integers(0, 10, 3)
        optimiser.zero_grad()
        expected = torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(y))
        expected.backward()
        assert reference.loss(x, y, params) == pytest.approx(expected.item(), rel=1e-12)
        found = reference.gradients(x, y, params)
        for name, tensor in net.named_parameters():
            agree(found[name], tensor.grad, 1e-11)
        optimiser.step()
        reference.sgd_step(x, y, params, lr=0.5)
        for name, tensor in net.named_parameters():
            agree(params[name], tensor)
