"""Textbook NumPy, the judge of all others in `certiconv bench`: against loops and by adjointness, on integers.

The data are integers in float64, so equal means equal: a wrong cell cannot hide behind rounding.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import reference, textbook
from runtime.arrays import Array
from runtime.network import glorot
from runtime.textbook import Setting


@dataclass(frozen=True)
class Drawn:
    x: Array
    w: Array
    b: Array
    setting: Setting


@st.composite
def layers(draw: st.DrawFn) -> Drawn:
    """One to three axes; strides that leave a remainder, even kernels, padding, groups."""
    axes = draw(st.integers(1, 3))
    groups, channels, outputs, batch = (draw(st.integers(1, 2)) for _ in range(4))
    kernel = [draw(st.integers(1, 4 if axes < 3 else 2)) for _ in range(axes)]
    stride = tuple(draw(st.integers(1, 3)) for _ in range(axes))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(axes))
    image = [draw(st.integers(max(1, k - 2 * p), k + 4)) for k, p in zip(kernel, padding, strict=True)]
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    shapes = [(batch, groups * channels, *image), (groups * outputs, channels, *kernel), (groups * outputs,)]
    x, w, b = (rng.integers(-9, 10, shape).astype(float) for shape in shapes)
    return Drawn(x, w, b, Setting(stride, padding, groups))


def by_loops(d: Drawn) -> Array:
    s, axes = d.setting, d.x.ndim - 2
    sizes = zip(d.x.shape[2:], s.padding, d.w.shape[2:], s.stride, strict=True)
    outputs = tuple((n + 2 * p - k) // stride + 1 for n, p, k, stride in sizes)
    z = np.empty((len(d.x), len(d.w), *outputs))
    per_group = len(d.w) // s.groups
    for n, m, *i in np.ndindex(*z.shape):
        total = d.b[m]
        for c, *a in np.ndindex(*d.w.shape[1:]):
            at = [i[k] * s.stride[k] + a[k] - s.padding[k] for k in range(axes)]
            if all(0 <= e < size for e, size in zip(at, d.x.shape[2:], strict=True)):
                total += d.w[(m, c, *a)] * d.x[(n, m // per_group * d.w.shape[1] + c, *at)]
        z[(n, m, *i)] = total
    return z


@given(layers())
def test_forward_is_the_sum_in_loops(d: Drawn) -> None:
    found = textbook.forward(d.x, d.w, d.b, d.setting)
    np.testing.assert_array_equal(found, by_loops(d))
    assert found.flags.c_contiguous


@given(layers(), st.integers(0, 2**16))
def test_gradients_are_the_adjoints(d: Drawn, seed: int) -> None:
    """<g, forward(x, w)> = <weight_gradient(g, x), w> for every w, and so for x: on unit arrays this is equality."""
    rng = np.random.default_rng(seed)
    z = textbook.forward(d.x, d.w, None, d.setting)
    g = rng.integers(-9, 10, z.shape).astype(float)
    dw = textbook.weight_gradient(g, d.x, d.w.shape[2:], d.setting)
    dx = textbook.input_gradient(g, d.w, d.x.shape, d.setting)
    assert dw.shape == d.w.shape
    assert dx.shape == d.x.shape
    w, x = rng.integers(-9, 10, dw.shape).astype(float), rng.integers(-9, 10, dx.shape).astype(float)
    assert (g * textbook.forward(d.x, w, None, d.setting)).sum() == (dw * w).sum()
    assert (g * textbook.forward(x, d.w, None, d.setting)).sum() == (dx * x).sum()


def test_no_argument_is_changed() -> None:
    d = Drawn(np.ones((1, 2, 4, 4)), np.ones((3, 2, 2, 2)), np.ones(3), Setting((1, 1), (0, 0)))
    textbook.input_gradient(textbook.forward(d.x, d.w, d.b, d.setting), d.w, d.x.shape, d.setting)
    assert all((array == 1).all() for array in (d.x, d.w, d.b))


def test_a_step_of_lenet_is_the_references() -> None:
    from derive.layers import lenet

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 1, 28, 28)), rng.integers(0, 10, 2)
    params = glorot(lenet(), seed=1, dtype="float64")
    expected = {name: array.copy() for name, array in params.items()}
    loss = reference.loss(x, y, params)
    reference.sgd_step(x, y, expected, 0.5)
    assert textbook.lenet_step(x, y, params, 0.5) == pytest.approx(loss, rel=1e-12)
    for (name, found), value in zip(params.items(), expected.values(), strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-12, err_msg=name)


def test_multiply_adds_count_every_product() -> None:
    d = Drawn(np.ones((2, 4, 5, 5)), np.ones((6, 2, 3, 3)), np.zeros(6), Setting((1, 1), (0, 0), 2))
    z = textbook.forward(d.x, d.w, d.b, d.setting)  # of ones: each output counts its products
    assert textbook.multiply_adds(d.w.shape, (2, *z.shape[2:])) == z.sum()


def test_offsets_of_the_kernel_are_all_used() -> None:
    """One output cell, and a kernel that reads the cells of the input in order: nothing is flipped."""
    x = np.arange(12.0).reshape(1, 1, 3, 4)
    for at in itertools.product(range(3), range(4)):
        w = np.zeros((1, 1, 3, 4))
        w[(0, 0, *at)] = 1
        assert textbook.forward(x, w, None, Setting((1, 1), (0, 0))).item() == x[(0, 0, *at)]
