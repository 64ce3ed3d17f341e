"""The reference LeNet against what it must be, stated another way.

Convolution, pooling and dense layers are bilinear or linear, so on small integers float64 is exact: forward
is compared with the textbook sum over every index of the image, read as zero outside its box, and a gradient
is right exactly when the adjoint identity <G, layer(v)> = <gradient(G), v> holds for directions v drawn apart
from everything else. What is not linear (sigmoid, cross-entropy, the whole network) is compared with central
differences along drawn directions. Every cotangent is drawn: all-ones cotangents hide mistakes.
"""

import ast
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from runtime import reference, reference_layers
from runtime.reference import Array, Labels

SEEDS = st.integers(0, 2**32 - 1)


def integers(rng: np.random.Generator, *shape: int) -> Array:
    """Small integers: every sum and product of them below is exact in float64."""
    return rng.integers(-9, 10, size=shape).astype(np.float64)


def inner(a: Array, b: Array) -> float:
    assert a.shape == b.shape
    return float(np.sum(a * b))


# --- Convolution and pooling --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Window:
    """One axis: n cells, k taps, stride s, padding p, dilation d."""

    n: int
    k: int
    s: int
    p: int
    d: int

    @property
    def outputs(self) -> int:
        """How many windows lie inside the padded axis, by trying every position that could be one."""
        last = [i * self.s + self.d * (self.k - 1) for i in range(self.n + 2 * self.p)]
        return sum(cell < self.n + 2 * self.p for cell in last)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    k = draw(st.sampled_from([2, 3, 4, 1]))
    s = draw(st.sampled_from([2, 3, 1]))
    d = draw(st.sampled_from([other for other in (1, 2, 3) if other != s]))  # equal ones would hide a swap
    p = draw(st.sampled_from([1, 2, 0]))
    positions = draw(st.sampled_from([2, 3, 4, 1] * 3 + [0]))  # none at all, but rarely
    remainder = draw(st.integers(0, s - 1))
    return Window(max(0, (positions - 1) * s + remainder + d * (k - 1) + 1 - 2 * p), k, s, p, d)


@dataclass(frozen=True)
class Case:
    """A convolution of a batch of images; rows and columns differ in everything."""

    batch: int
    inputs: int
    outputs: int
    rows: Window
    columns: Window
    seed: int

    def arrays(self) -> tuple[Array, Array, Array, Array]:
        """x, w, b and a cotangent of the output."""
        rng = np.random.default_rng(self.seed)
        return (
            integers(rng, self.batch, self.inputs, self.rows.n, self.columns.n),
            integers(rng, self.outputs, self.inputs, self.rows.k, self.columns.k),
            integers(rng, self.outputs),
            integers(rng, self.batch, self.outputs, self.rows.outputs, self.columns.outputs),
        )

    @property
    def options(self) -> dict[str, tuple[int, int]]:
        return {
            "stride": (self.rows.s, self.columns.s),
            "padding": (self.rows.p, self.columns.p),
            "dilation": (self.rows.d, self.columns.d),
        }


CASES = st.builds(
    Case,
    st.sampled_from([1, 2] * 4 + [0]),
    st.integers(1, 3),
    st.integers(1, 3),
    windows(),
    windows(),
    seed=SEEDS,
)


def textbook_convolution(case: Case, x: Array, w: Array, b: Array) -> list[int]:
    """The definition, index by index, over Python integers: x is zero outside its box, no array is padded."""
    cells = {index: int(value) for index, value in np.ndenumerate(x)}
    r, c = case.rows, case.columns
    outputs = itertools.product(range(len(x)), range(len(w)), range(r.outputs), range(c.outputs))
    return [
        int(b[o])
        + sum(
            int(weight) * cells.get((n, channel, i * r.s + u * r.d - r.p, j * c.s + v * c.d - c.p), 0)
            for (channel, u, v), weight in np.ndenumerate(w[o])
        )
        for n, o, i, j in outputs
    ]


@given(CASES)
def test_convolution_is_the_textbook_sum(case: Case) -> None:
    x, w, b, _ = case.arrays()
    y = reference.conv2d(x, w, b, **case.options)
    assert y.shape == (case.batch, case.outputs, case.rows.outputs, case.columns.outputs)
    assert y.ravel().tolist() == textbook_convolution(case, x, w, b)


@given(CASES, SEEDS)
def test_convolution_gradients_are_its_adjoints(case: Case, direction: int) -> None:
    x, w, b, g = case.arrays()
    gx, gw, gb = reference.conv2d_gradients(g, x, w, **case.options)
    rng = np.random.default_rng(direction)
    dx, dw, db = integers(rng, *x.shape), integers(rng, *w.shape), integers(rng, *b.shape)
    assert inner(g, reference.conv2d(dx, w, **case.options)) == inner(gx, dx)
    assert inner(g, reference.conv2d(x, dw, **case.options)) == inner(gw, dw)
    assert inner(g, reference.conv2d(0 * x, w, db, **case.options)) == inner(gb, db)


def test_the_cases_hold_remainders_even_kernels_and_strides_unlike_dilations() -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=500, derandomize=True)
    @given(CASES)
    def look(case: Case) -> None:
        axis = case.rows
        several = axis.outputs > 1 and case.columns.outputs > 0 and case.batch > 0
        seen["remainder"] += several and (axis.n + 2 * axis.p - axis.d * (axis.k - 1) - 1) % axis.s > 0
        seen["even kernel, dilated"] += several and axis.k % 2 == 0 and 1 < axis.d != axis.s
        seen["no output"] += case.batch > 0 and axis.outputs == 0
        seen["empty batch"] += case.batch == 0

    look()
    assert min(seen.values()) >= 5, seen


def test_convolution_is_cross_correlation() -> None:
    impulse = np.zeros((1, 1, 3, 3))
    impulse[0, 0, 1, 1] = 1
    kernel = np.arange(9.0).reshape(1, 1, 3, 3)
    assert reference.conv2d(impulse, kernel, padding=1)[0, 0].tolist() == kernel[0, 0, ::-1, ::-1].tolist()


def test_one_integer_stands_for_both_axes() -> None:
    rng = np.random.default_rng(0)
    x, w = integers(rng, 1, 2, 9, 8), integers(rng, 2, 2, 2, 3)
    one = reference.conv2d(x, w, stride=3, padding=1, dilation=2)
    assert np.array_equal(one, reference.conv2d(x, w, stride=(3, 3), padding=(1, 1), dilation=(2, 2)))


POOLS = st.tuples(st.integers(1, 3), st.integers(0, 7), st.integers(0, 7))  # kernel, height, width


@given(st.tuples(POOLS, POOLS), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2), SEEDS)
def test_pooling_is_convolution_with_equal_weights(
    sizes: tuple[tuple[int, int, int], tuple[int, int, int]], stride: int, other: int, batch: int, seed: int
) -> None:
    (height_k, height, width), (width_k, channels, _) = sizes
    rng = np.random.default_rng(seed)
    cells = height_k * width_k
    x = cells * integers(rng, batch, channels, height, width)  # multiples, so that the mean is exact
    pooled = reference.avg_pool2d(x, (height_k, width_k), stride=(stride, other))
    weight = np.ones((1, 1, height_k, width_k))
    for c in range(channels):
        summed = reference.conv2d(x[:, c : c + 1], weight, stride=(stride, other))
        assert np.array_equal(pooled[:, c : c + 1] * cells, summed)


@given(POOLS, st.integers(1, 3), st.one_of(st.none(), st.integers(1, 4)), SEEDS)
def test_pooling_gradient_is_its_adjoint(
    sizes: tuple[int, int, int], width_k: int, stride: int | None, seed: int
) -> None:
    height_k, height, width = sizes
    rng = np.random.default_rng(seed)
    x = integers(rng, 2, 2, height, width)
    direction = height_k * width_k * integers(rng, *x.shape)
    pooled = reference.avg_pool2d(direction, (height_k, width_k), stride=stride)
    g = height_k * width_k * integers(rng, *pooled.shape)
    found = reference.avg_pool2d_gradient(g, x, (height_k, width_k), stride=stride)
    assert inner(found, direction) == inner(g, pooled)


def test_pooling_steps_by_its_kernel_and_drops_the_remainder() -> None:
    x = np.arange(35.0).reshape(1, 1, 5, 7)
    assert reference.avg_pool2d(x, (2, 3))[0, 0].tolist() == [[4.5, 7.5], [18.5, 21.5]]


# --- Dense layer, sigmoid, cross-entropy --------------------------------------------------------------------


@given(st.integers(0, 3), st.integers(0, 4), st.integers(1, 4), SEEDS)
def test_dense_layer_is_a_matrix_product_and_its_gradients_adjoints(
    batch: int, inputs: int, outputs: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x, w, b = integers(rng, batch, inputs), integers(rng, outputs, inputs), integers(rng, outputs)
    y = reference.linear(x, w, b)
    assert np.array_equal(y, x @ w.T + b)
    g = integers(rng, *y.shape)
    gx, gw, gb = reference.linear_gradients(g, x, w)
    dx, dw, db = integers(rng, *x.shape), integers(rng, *w.shape), integers(rng, *b.shape)
    assert inner(g, reference.linear(dx, w, 0 * b)) == inner(gx, dx)
    assert inner(g, reference.linear(x, dw, 0 * b)) == inner(gw, dw)
    assert inner(g, reference.linear(0 * x, w, db)) == inner(gb, db)


@given(st.floats(-700, 700))
def test_sigmoid_inverts_the_logarithm_of_the_odds(x: float) -> None:
    (s,), (opposite,) = reference.sigmoid([x]), reference.sigmoid([-x])
    assert math.isclose(math.log(s) - math.log(opposite), x, rel_tol=1e-12, abs_tol=1e-15)
    assert math.isclose(s + opposite, 1.0, rel_tol=1e-15)


@given(st.floats(-30, 30), st.floats(-5, 5))
def test_sigmoid_gradient_is_the_slope(x: float, g: float) -> None:
    step = 1e-4
    above, below = reference.sigmoid([x + step, x - step])
    found = reference.sigmoid_gradient([g], [x])[0]
    assert math.isclose(found, g * (above - below) / (2 * step), rel_tol=1e-6, abs_tol=1e-11)


def test_sigmoid_is_quiet_and_exact_at_the_ends() -> None:
    ends = [-math.inf, -1e308, -745.0, 0.0, 745.0, 1e308, math.inf]
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert reference.sigmoid(ends).tolist() == [0.0, 0.0, math.exp(-745.0), 0.5, 1.0, 1.0, 1.0]
        assert reference.sigmoid_gradient(np.ones(2), [40.0, -40.0]).tolist() == pytest.approx(
            [math.exp(-40.0)] * 2, rel=1e-15
        )


@st.composite
def logits_and_labels(draw: st.DrawFn) -> tuple[Array, list[int]]:
    batch, classes = draw(st.integers(1, 3)), draw(st.integers(1, 5))
    scale = draw(st.sampled_from([1.0, 10.0, 100.0]))
    z = scale * np.random.default_rng(draw(SEEDS)).normal(size=(batch, classes))
    return z, draw(st.lists(st.integers(0, classes - 1), min_size=batch, max_size=batch))


@given(logits_and_labels())
def test_cross_entropy_is_minus_the_mean_logarithm_of_the_probability(case: tuple[Array, list[int]]) -> None:
    z, y = case
    surprise = [
        -math.log(math.exp(row[label]) / math.fsum(map(math.exp, row)))
        for row, label in zip(z.tolist(), y, strict=True)
        if max(row) - row[label] < 600 and max(map(abs, row)) < 600
    ]
    assume(len(surprise) == len(y))
    found = reference.cross_entropy(z, y)
    assert math.isclose(found, math.fsum(surprise) / len(y), rel_tol=1e-10, abs_tol=1e-12)


@given(logits_and_labels(), st.floats(-1e6, 1e6))
def test_cross_entropy_does_not_see_a_shift_of_the_logits(case: tuple[Array, list[int]], shift: float) -> None:
    z, y = case
    # The shift itself rounds, by at most half a unit in the last place of |shift| + |z|.
    rounding = 4e-16 * (abs(shift) + float(np.abs(z).max()))
    assert abs(reference.cross_entropy(z + shift, y) - reference.cross_entropy(z, y)) <= 4 * rounding + 1e-12
    found, shifted = (reference.cross_entropy_gradient(v, y) for v in (z, z + shift))
    assert np.allclose(found, shifted, rtol=0, atol=4 * rounding + 1e-12)


@given(logits_and_labels(), SEEDS)
def test_cross_entropy_gradient_is_the_slope(case: tuple[Array, list[int]], direction: int) -> None:
    z, y = case
    found = reference.cross_entropy_gradient(z, y)
    assert np.allclose(found.sum(axis=1), 0, atol=1e-15)
    v = np.random.default_rng(direction).normal(size=z.shape)
    slope = central_difference(lambda t: reference.cross_entropy(z + t * v, y), 1e-4)
    assert math.isclose(inner(found, v), slope, rel_tol=1e-6, abs_tol=1e-6)


def test_cross_entropy_of_huge_logits_is_finite() -> None:
    with np.errstate(all="raise", under="ignore"):
        assert reference.cross_entropy([[1e300, 0.0], [0.0, 1e300]], [0, 1]) == 0.0
        assert reference.cross_entropy([[1e300, 0.0]], [1]) == 1e300
        assert reference.cross_entropy_gradient([[1e300, 0.0]], [1]).tolist() == [[1.0, -1.0]]


# --- The network --------------------------------------------------------------------------------------------


def central_difference(f: Callable[[float], float], step: float) -> float:
    """The slope of f at 0, wrong by O(step**4)."""
    near, far = f(step) - f(-step), f(2 * step) - f(-2 * step)
    return (8 * near - far) / (12 * step)


@dataclass(frozen=True)
class Net:
    """A small LeNet and a batch for it."""

    x: Array
    y: Labels
    params: dict[str, Array]
    rng: np.random.Generator


@st.composite
def nets(draw: st.DrawFn, batches: tuple[int, int] = (0, 2)) -> Net:
    """Odd sizes too, so that both poolings may leave a remainder; kernels need not be square."""
    channels, first, second = (draw(st.integers(1, 2)) for _ in range(3))
    kernels = [(draw(st.integers(1, 5)), draw(st.integers(1, 3))) for _ in range(2)]
    pooled = [draw(st.integers(1, 2)) for _ in range(2)]
    before = [2 * cells + draw(st.integers(0, 1)) for cells in pooled]  # what the second pooling reads
    image = [
        2 * (cells + kernels[1][axis] - 1) + draw(st.integers(0, 1)) + kernels[0][axis] - 1 - 4
        for axis, cells in enumerate(before)
    ]
    assume(min(image) >= 1)
    dense = [draw(st.integers(1, 3)) for _ in range(3)]
    rng = np.random.default_rng(draw(SEEDS))
    shapes = [
        ("0", (first, channels, *kernels[0])),
        ("3", (second, first, *kernels[1])),
        ("7", (dense[0], second * pooled[0] * pooled[1])),
        ("9", (dense[1], dense[0])),
        ("11", (dense[2], dense[1])),
    ]
    params = {f"{i}.weight": rng.normal(size=shape) for i, shape in shapes}
    params |= {f"{i}.bias": rng.normal(size=shape[0]) for i, shape in shapes}
    batch = draw(st.integers(*batches))
    return Net(rng.normal(size=(batch, channels, *image)), rng.integers(0, dense[2], batch), params, rng)


def along(net: Net, direction: dict[str, Array], t: float) -> dict[str, Array]:
    return {name: p + t * direction[name] for name, p in net.params.items()}


def by_matrices(net: Net) -> Array:
    """The layers of d2l 7.6 once more, by NumPy's array operations instead of loops over positions."""

    def convolved(layer: str, x: Array, padding: int) -> Array:
        w = net.params[f"{layer}.weight"]
        edge = (padding, padding)
        seen = np.lib.stride_tricks.sliding_window_view(
            np.pad(x, ((0, 0), (0, 0), edge, edge)), w.shape[2:], axis=(2, 3)
        )
        z: Array = np.einsum("ncijab,ocab->noij", seen, w) + net.params[f"{layer}.bias"][:, None, None]
        return 1 / (1 + np.exp(-z))

    def pooled(x: Array) -> Array:
        n, c, height, width = x.shape
        even = x[:, :, : height // 2 * 2, : width // 2 * 2]
        mean: Array = even.reshape(n, c, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
        return mean

    def dense(layer: str, x: Array) -> Array:
        return x @ net.params[f"{layer}.weight"].T + net.params[f"{layer}.bias"]

    a = pooled(convolved("3", pooled(convolved("0", net.x, 2)), 0))
    a = 1 / (1 + np.exp(-dense("7", a.reshape(len(a), int(np.prod(a.shape[1:]))))))
    a = 1 / (1 + np.exp(-dense("9", a)))
    return dense("11", a)


@settings(max_examples=40)
@given(nets())
def test_network_is_the_chain_of_its_layers(net: Net) -> None:
    assert np.allclose(reference.forward(net.x, net.params), by_matrices(net), rtol=1e-12, atol=1e-13)


@settings(max_examples=40)
@given(nets())
def test_network_gradients_are_the_slopes_of_the_loss(net: Net) -> None:
    found = reference.gradients(net.x, net.y, net.params)
    assert tuple(found) == reference.PARAMETER_NAMES
    for name, p in net.params.items():
        assert found[name].shape == p.shape
        v = {other: np.zeros_like(q) for other, q in net.params.items()} | {name: net.rng.normal(size=p.shape)}
        slope = central_difference(
            lambda t, v=v: reference.loss(net.x, net.y, along(net, v, t)),  # type: ignore[misc]
            1e-3,
        )
        assert math.isclose(inner(found[name], v[name]), slope, rel_tol=1e-6, abs_tol=1e-9), name


@settings(max_examples=40)
@given(nets())
def test_network_backward_is_the_slope_of_the_logits_along_a_cotangent(net: Net) -> None:
    g = net.rng.normal(size=reference.forward(net.x, net.params).shape)
    found = reference.backward(g, net.x, net.params)
    v = {name: net.rng.normal(size=p.shape) for name, p in net.params.items()}
    slope = central_difference(
        lambda t: inner(g, reference.forward(net.x, along(net, v, t))),
        1e-3,
    )
    total = math.fsum(inner(found[name], v[name]) for name in found)
    assert math.isclose(total, slope, rel_tol=1e-6, abs_tol=1e-8)


@settings(max_examples=40)
@given(nets(batches=(1, 3)))
def test_a_batch_is_the_mean_of_its_images(net: Net) -> None:
    images = [(net.x[n : n + 1], net.y[n : n + 1]) for n in range(len(net.x))]
    alone = [reference.gradients(x, y, net.params) for x, y in images]
    losses = [reference.loss(x, y, net.params) for x, y in images]
    assert math.isclose(reference.loss(net.x, net.y, net.params), sum(losses) / len(images), abs_tol=1e-14)
    for name, gradient in reference.gradients(net.x, net.y, net.params).items():
        mean = sum(part[name] for part in alone) / len(images)
        assert np.allclose(gradient, mean, rtol=1e-13, atol=1e-14)


@given(nets(batches=(0, 0)))
def test_an_empty_batch_has_no_loss_and_moves_nothing(net: Net) -> None:
    assert reference.forward(net.x, net.params).shape == (0, len(net.params["11.bias"]))
    assert reference.loss(net.x, [], net.params) == 0.0
    before = {name: p.copy() for name, p in net.params.items()}
    reference.sgd_step(net.x, [], net.params, lr=1.0)
    assert all(np.array_equal(p, before[name]) for name, p in net.params.items())


@settings(max_examples=40)
@given(nets(batches=(1, 2)), st.floats(-2, 2))
def test_a_step_subtracts_the_gradient_in_place(net: Net, lr: float) -> None:
    before = {name: p.copy() for name, p in net.params.items()}
    held = dict(net.params)
    x = net.x.copy()
    moves = reference.gradients(net.x, net.y, net.params)
    reference.sgd_step(net.x, net.y, net.params, lr)
    for name, p in net.params.items():
        assert p is held[name]
        assert np.array_equal(p, before[name] - lr * moves[name])
    assert np.array_equal(net.x, x)


def lenet(seed: int = 0) -> dict[str, Array]:
    """The parameters of d2l's LeNet, of a size that keeps the sigmoids off their flat ends."""
    rng = np.random.default_rng(seed)
    shapes = {"0": (6, 1, 5, 5), "3": (16, 6, 5, 5), "7": (120, 400), "9": (84, 120), "11": (10, 84)}
    params = {f"{i}.weight": rng.normal(size=s) / np.sqrt(np.prod(s[1:])) for i, s in shapes.items()}
    return params | {f"{i}.bias": rng.normal(size=s[0]) for i, s in shapes.items()}


def test_steps_on_lenet_bring_the_loss_down() -> None:
    params = lenet()
    x, y = np.random.default_rng(1).normal(size=(2, 1, 28, 28)), [3, 8]
    losses = []
    for _ in range(4):
        losses.append(reference.loss(x, y, params))
        reference.sgd_step(x, y, params, lr=0.1)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.5 * losses[0]


def test_arguments_of_other_exact_types_mean_the_same() -> None:
    params = lenet()
    x = np.random.default_rng(1).normal(size=(1, 1, 28, 28)).astype(np.float32)
    narrow = {name: p.astype(np.float32) for name, p in params.items()}
    wide = {name: p.astype(np.float64) for name, p in narrow.items()}
    expected = reference.forward(x.astype(np.float64), wide)
    found = reference.forward(np.asfortranarray(x)[..., ::-1][..., ::-1], narrow)
    assert found.dtype == np.float64
    assert np.array_equal(found, expected)


def test_the_reference_shares_nothing_with_what_it_checks() -> None:
    modules: set[str] = set()
    for file in (reference, reference_layers):
        tree = ast.parse(Path(str(file.__file__)).read_text(encoding="utf-8"))
        modules |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        modules |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"__future__", "collections.abc", "numpy", "numpy.typing", "runtime.reference_layers"}


# --- Errors -------------------------------------------------------------------------------------------------

IMAGE, KERNEL = np.zeros((1, 2, 5, 5)), np.zeros((3, 2, 2, 2))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: reference.conv2d(IMAGE[:, :1], KERNEL),
            "x has shape (1, 1, 5, 5), expected (any, 2, any, any)",
        ),
        (lambda: reference.conv2d(IMAGE[0], KERNEL), "x has shape (2, 5, 5), expected (any, 2, any, any)"),
        (lambda: reference.conv2d(IMAGE, KERNEL, [1.0]), "b has shape (1,), expected (3,)"),
        (
            lambda: reference.conv2d(IMAGE, KERNEL[:, :, :0]),
            "w has shape (3, 2, 0, 2): a kernel needs at least one row and one column",
        ),
        (
            lambda: reference.conv2d(IMAGE, KERNEL, stride=(2, 0)),
            "stride=(2, 0), but 0 < 1; nearest legal value: (2, 1)",
        ),
        (
            lambda: reference.conv2d(IMAGE, KERNEL, padding=-1),
            "padding=-1, but -1 < 0; nearest legal value: (0, 0)",
        ),
        (
            lambda: reference.conv2d(IMAGE, KERNEL, dilation=0),
            "dilation=0, but 0 < 1; nearest legal value: (1, 1)",
        ),
        (
            lambda: reference.conv2d(IMAGE, KERNEL, stride=(1, 1, 1)),  # type: ignore[arg-type]
            "stride=(1, 1, 1), expected an integer or a pair of integers, all >= 1",
        ),
        (
            lambda: reference.conv2d(IMAGE, KERNEL, stride=1.5),  # type: ignore[arg-type]
            "stride=1.5, expected an integer or a pair of integers, all >= 1",
        ),
        (
            lambda: reference.conv2d_gradients(np.zeros((1, 3, 5, 5)), IMAGE, KERNEL),
            "grad_output has shape (1, 3, 5, 5), expected (1, 3, 4, 4)",
        ),
        (
            lambda: reference.conv2d(IMAGE.astype(complex), KERNEL),
            "x has dtype complex128, which float64 cannot hold; nearest legal: float64",
        ),
        (lambda: reference.avg_pool2d(IMAGE, 0), "kernel_size=0, but 0 < 1; nearest legal value: (1, 1)"),
        (
            lambda: reference.avg_pool2d_gradient(IMAGE, IMAGE, 2),
            "grad_output has shape (1, 2, 5, 5), expected (1, 2, 2, 2)",
        ),
        (
            lambda: reference.sigmoid_gradient([1.0], [1.0, 2.0]),
            "grad_output has shape (1,), expected (2,)",
        ),
        (lambda: reference.linear([[1.0]], [[1.0, 2.0]], [0.0]), "x has shape (1, 1), expected (any, 2)"),
        (
            lambda: reference.cross_entropy([[0.0, 0.0]], [2]),
            "y[0] = 2 is not in 0..1; nearest legal label: 1",
        ),
        (
            lambda: reference.cross_entropy([[0.0, 0.0]] * 2, [1, -1]),
            "y[1] = -1 is not in 0..1; nearest legal label: 0",
        ),
        (
            lambda: reference.cross_entropy_gradient([[0.0, 0.0]], [1.0]),
            "y has dtype float64; labels are integers in 0..1",
        ),
        (
            lambda: reference.cross_entropy([[0.0, 0.0]], [0, 1]),
            "y has shape (2,), expected (1,): one label for each row of logits",
        ),
    ],
)
def test_errors_of_layers_name_the_argument_and_its_numbers(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call()


def replaced(name: str, value: object) -> dict[str, Array]:
    return lenet() | {name: value}  # type: ignore[return-value]


X = np.zeros((1, 1, 28, 28))


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: reference.forward(np.zeros((1, 1, 32, 28)), lenet()),
            (
                "params['7.weight'] has shape (120, 400), but an image of 32x28 gives 16 channels of 6x5 = "
                "480 features after the second pooling; for this image size it must have shape (120, 480)"
            ),
        ),
        (
            lambda: reference.forward(np.zeros((1, 3, 28, 28)), lenet()),
            "x has shape (1, 3, 28, 28), expected (any, 1, any, any)",
        ),
        (
            lambda: reference.forward(X, replaced("3.weight", np.zeros((16, 5, 5, 5)))),
            "params['3.weight'] has shape (16, 5, 5, 5), expected (any, 6, any, any)",
        ),
        (
            lambda: reference.forward(X, replaced("9.weight", np.zeros((84, 100)))),
            "params['9.weight'] has shape (84, 100), expected (any, 120)",
        ),
        (
            lambda: reference.forward(X, replaced("11.bias", np.zeros(11))),
            "params['11.bias'] has shape (11,), expected (10,)",
        ),
        (
            lambda: reference.forward(X, {name: p for name, p in lenet().items() if name[0] != "3"} | {"4": X}),
            (f"params lacks ['3.weight', '3.bias'] and has unknown ['4']; LeNet has {list(reference.PARAMETER_NAMES)}"),
        ),
        (
            lambda: reference.backward(np.zeros((1, 9)), X, lenet()),
            "grad_logits has shape (1, 9), expected (1, 10)",
        ),
        (
            lambda: reference.sgd_step(X, [0], replaced("0.bias", np.zeros(6, np.float32)), 0.1),
            "params['0.bias'] is float32; a step in place needs a NumPy array of float64",
        ),
        (
            lambda: reference.sgd_step(X, [0], replaced("0.bias", [0.0] * 6), 0.1),
            "params['0.bias'] is list; a step in place needs a NumPy array of float64",
        ),
        (
            lambda: reference.sgd_step(X, [0], replaced("0.bias", np.broadcast_to(0.0, 6)), 0.1),
            "params['0.bias'] is read-only; a step in place needs an array it may overwrite",
        ),
    ],
)
def test_errors_of_the_network_name_the_parameter_and_its_numbers(call: Callable[[], object], text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        call()
