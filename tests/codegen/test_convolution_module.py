"""Emitted convolutions against the definition, written out as loops over every index.

A convolution and its gradients are sums of products, so on small integers float32 and float64 are exact in any order,
and equality is asked for, not nearness.  Shapes are drawn with remainders, unequal stride and dilation, even kernels
and padding; arrays with every kind of stride; and each workspace is used for other data first, so that what a call
leaves behind would show.
"""

import itertools
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import codegen
from derive.layers import Conv, Conv1d, Conv2d, Conv3d
from runtime import reference

Array = npt.NDArray[Any]
KINDS = {1: Conv1d, 2: Conv2d, 3: Conv3d}
SPACES = {"forward": "Forward", "input_gradient": "InputGradient", "weight_gradient": "WeightGradient"}
LAYOUTS = ("contiguous", "flipped", "sliced", "transposed", "fortran", "broadcast")


@dataclass(frozen=True)
class Case:
    """A layer, an input shape and how its text is made."""

    layer: Conv
    shape: tuple[int, ...]
    algorithm: str


@dataclass(frozen=True)
class Data:
    """Arrays for the arguments; ``grad`` is the cotangent of the output."""

    x: Array
    weight: Array
    bias: Array
    grad: Array


@lru_cache(maxsize=512)
def module_of(case: Case) -> ModuleType:
    emitted = codegen.emit(case.layer, input_shape=case.shape, algorithm=case.algorithm)
    return codegen.load(emitted.source)


@st.composite
def cases(draw: st.DrawFn, axes: tuple[int, ...] = (1, 2, 3), algorithms: tuple[str, ...] = ("gemm", "direct")) -> Case:
    rank = draw(st.sampled_from(axes))
    most = {1: 4, 2: 3, 3: 2}[rank]
    sides, spatial = [], []
    for _ in range(rank):
        k, s, d, p = (draw(st.integers(least, most)) for least in (1, 1, 1, 0))
        sides.append((k, s, p, d))
        spatial.append(max(1, d * (k - 1) + 1 - 2 * p) + draw(st.integers(0, most)))
    c, n, algorithm = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.sampled_from(algorithms))
    groups = 1
    if algorithm == "depthwise":
        groups = c = n = c + 1
    kernel, stride, padding, dilation = zip(*sides, strict=True)
    layer = KINDS[rank](c, n, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    return Case(layer, (draw(st.sampled_from([0, 1, 2, 3, 5])), c, *spatial), algorithm)


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
    if layout == "fortran":
        return np.asfortranarray(a)
    if layout == "broadcast" and a.size:
        return np.broadcast_to(a[:1], a.shape)
    return a


def drawn(case: Case, seed: int, dtype: str, layouts: list[str]) -> Data:
    """Small integers for a case; what is laid out as "broadcast" repeats its first entry."""
    rng = np.random.default_rng(seed)
    outputs = tuple(n.constant or 0 for n in case.layer.output_shape(case.shape))
    weight = tuple(case.layer.parameter_shapes()["weight"])
    shapes = [case.shape, weight, (weight[0],), outputs]
    arrays = [laid_out(rng.integers(-4, 5, s).astype(dtype), how) for s, how in zip(shapes, layouts, strict=True)]
    return Data(*arrays)


def expected(case: Case, data: Data) -> tuple[Array, Array, Array, Array]:
    """Output and gradients: every product of the definition once, in integers."""
    layer = case.layer
    y = np.zeros(data.grad.shape, object)
    gx, gw = np.zeros(data.x.shape, object), np.zeros(data.weight.shape, object)
    spatial = case.shape[2:]
    for i in itertools.product(*map(range, data.grad.shape[2:])):
        for a in itertools.product(*map(range, data.weight.shape[2:])):
            steps = zip(i, a, layer.stride, layer.dilation, layer.padding, strict=True)
            h = tuple(j * s + e * d - p for j, e, s, d, p in steps)
            if not all(0 <= cell < n for cell, n in zip(h, spatial, strict=True)):
                continue
            for b, n, e in itertools.product(range(len(data.x)), range(len(data.weight)), range(data.weight.shape[1])):
                c = n // (len(data.weight) // layer.groups) * data.weight.shape[1] + e
                w, x, g = (int(v) for v in (data.weight[(n, e, *a)], data.x[(b, c, *h)], data.grad[(b, n, *i)]))
                y[(b, n, *i)] += w * x
                gx[(b, c, *h)] += g * w
                gw[(n, e, *a)] += g * x
    if layer.bias:
        y += np.array([int(v) for v in data.bias], object).reshape(-1, *[1] * len(spatial))
    over = (0, *range(2, data.grad.ndim))
    return y, gx, gw, data.grad.astype(int).astype(object).sum(axis=over)


def run(case: Case, data: Data, works: dict[str, Any]) -> dict[str, Array]:
    """Every function once, on the workspaces given."""
    m = module_of(case)
    found = {
        "forward": m.forward(data.x, data.weight, data.bias if case.layer.bias else None, works.get("forward")),
        "input_gradient": m.input_gradient(data.grad, data.weight, data.x.shape, works.get("input_gradient")),
        "weight_gradient": m.weight_gradient(data.grad, data.x, works.get("weight_gradient")),
    }
    return found | ({"bias_gradient": m.bias_gradient(data.grad)} if case.layer.bias else {})


def works_of(case: Case, dtype: str, block: int) -> dict[str, Any]:
    m = module_of(case)
    return {name: getattr(m, kind)(case.shape[0], dtype, block) for name, kind in SPACES.items()}


@settings(max_examples=200)
@given(
    case=cases() | cases(algorithms=("depthwise",)), seed=st.integers(0, 2**32 - 1),
    dtype=st.sampled_from(["float32", "float64", "object"]),
    layouts=st.lists(st.sampled_from(LAYOUTS), min_size=4, max_size=4), block=st.integers(1, 4),
)  # fmt: skip
def test_every_result_is_what_the_definition_says(
    case: Case, seed: int, dtype: str, layouts: list[str], block: int
) -> None:
    data = drawn(case, seed, dtype, layouts)
    wanted = dict(zip((*SPACES, "bias_gradient"), expected(case, data), strict=True))
    works = works_of(case, dtype, block)
    run(case, drawn(case, seed + 1, dtype, layouts), works)
    for used in (works, {}):
        for name, result in run(case, data, used).items():
            assert result.dtype == dtype
            assert result.shape == wanted[name].shape
            assert result.flags.c_contiguous
            assert result.flags.owndata
            assert (result == wanted[name]).all(), name


@given(case=cases(axes=(2,)), seed=st.integers(0, 2**32 - 1))
def test_results_are_those_of_the_reference(case: Case, seed: int) -> None:
    data = drawn(case, seed, "float64", ["contiguous"] * 4)
    sides = {name: getattr(case.layer, name) for name in ("stride", "padding", "dilation")}
    bias = data.bias if case.layer.bias else None
    output = reference.conv2d(data.x, data.weight, bias, **sides)
    wanted = dict(
        zip(
            (*SPACES, "bias_gradient"),
            (output, *reference.conv2d_gradients(data.grad, data.x, data.weight, **sides)),
            strict=True,
        )
    )
    for name, result in run(case, data, {}).items():
        assert np.array_equal(result, wanted[name]), name


@pytest.mark.parametrize("algorithm", ["gemm", "direct", "depthwise"])
def test_results_do_not_share_memory_with_a_workspace(algorithm: str) -> None:
    layer = Conv2d(2, 2, 2, groups=2) if algorithm == "depthwise" else Conv2d(2, 3, 2)
    case = Case(layer, (3, 2, 4, 4), algorithm)
    works = works_of(case, "float64", 2)
    first = run(case, drawn(case, 1, "float64", ["contiguous"] * 4), works)
    kept = {name: result.copy() for name, result in first.items()}
    run(case, drawn(case, 2, "float64", ["contiguous"] * 4), works)
    assert all(np.array_equal(first[name], kept[name]) for name in first)


def test_a_result_is_put_where_it_is_asked_for() -> None:
    case = Case(Conv2d(2, 3, 2, padding=1), (5, 2, 4, 4), "gemm")
    m, data = module_of(case), drawn(case, 0, "float64", ["contiguous"] * 4)
    forward, gradient, *_ = expected(case, data)
    both = np.full((10, *forward.shape[1:]), np.nan)
    assert np.shares_memory(m.forward(data.x, data.weight, data.bias, out=both[5:]), both)
    assert (both[5:] == forward).all()
    assert np.isnan(both[:5]).all()
    into = np.full(gradient.shape, np.nan)
    assert m.input_gradient(data.grad, data.weight, data.x.shape, out=into) is into
    assert (into == gradient).all()


@pytest.mark.parametrize("bias", [True, False])
def test_backward_gives_all_gradients(bias: bool) -> None:
    case = Case(Conv1d(2, 3, 3, stride=2, padding=1, bias=bias), (4, 2, 9), "gemm")
    m, data = module_of(case), drawn(case, 0, "float64", ["contiguous"] * 4)
    works = (
        m.InputGradient(4, "float64"),
        m.WeightGradient(4, "float64"),
        m.BiasGradient(4, "float64") if bias else None,
    )
    _, *wanted = expected(case, data)
    for found in (m.backward(data.grad, data.x, data.weight), m.backward(data.grad, data.x, data.weight, works)):
        assert all((f == w).all() for f, w in zip(found[:2], wanted[:2], strict=True))
        assert (found[2] == wanted[2]).all() if bias else found[2] is None


@pytest.mark.parametrize("algorithm", ["gemm", "direct"])
def test_fractions_stay_exact(algorithm: str) -> None:
    m = module_of(Case(Conv1d(1, 1, 2), (1, 1, 3), algorithm))
    third, half = Fraction(1, 3), Fraction(1, 2)
    x = np.array([[[third, half, Fraction(1)]]], object)
    weight, bias = np.array([[[half, third]]], object), np.array([Fraction(1, 7)], object)
    assert m.forward(x, weight, bias).tolist() == [[[third + Fraction(1, 7), Fraction(7, 12) + Fraction(1, 7)]]]


X, W, U, G = np.zeros((2, 3, 4, 5)), np.zeros((6, 3, 3, 3)), np.zeros(6), np.zeros((2, 6, 2, 3))
BOTH = np.zeros(240)
REFUSED = [
    (lambda m: m.forward(X[0], W, U), ValueError, "input has the shape (3, 4, 5); (batch, 3, 4, 5) is needed"),
    (lambda m: m.forward(X[:, :2], W, U), ValueError, "input has the shape (2, 2, 4, 5); (batch, 3, 4, 5) is needed"),
    (lambda m: m.forward(X.tolist(), W, U), TypeError, "input is list; a NumPy array of shape (batch, 3, 4, 5)"),
    (lambda m: m.forward(X, W, U[:5]), ValueError, "bias has the shape (5,); (6,) is needed"),
    (lambda m: m.forward(X, W), TypeError, "bias is NoneType; a NumPy array of shape (6,) is needed"),
    (lambda m: m.forward(X, W.astype("f4"), U), ValueError, "weight is float32 and input float64; one dtype is needed"),
    (lambda m: m.forward(X.astype(int), W, U), ValueError, "input is int64; float32, float64, object are"),
    (lambda m: m.weight_gradient(G, X[:1]), ValueError, "input holds 1 images and grad_output 2; as many are needed"),
    (lambda m: m.input_gradient(G, W, (1, 3, 4, 5)), ValueError, "input_shape is (1, 3, 4, 5); (2, 3, 4, 5) is needed"),
    (lambda m: m.bias_gradient(G, m.Forward(2, "f8")), TypeError, "work is a Forward; a BiasGradient is needed"),
    (lambda m: m.forward(X, W, U, m.Forward(3, "f8")), ValueError, "work is for 3 images of float64; input holds 2 of"),
    (
        lambda m: m.forward(X, W, U, m.Forward(2)),
        ValueError,
        "work is for 2 images of float32; input holds 2 of float64",
    ),
    (lambda m: m.forward(X, W, U, out=[]), TypeError, "out is list; a NumPy array of shape (2, 6, 2, 3) is needed"),
    (lambda m: m.forward(X, W, U, out=G[:1]), ValueError, "out is (1, 6, 2, 3) float64; (2, 6, 2, 3) float64 is"),
    (lambda m: m.forward(X, W, U, out=G.astype("f4")), ValueError, "out is (2, 6, 2, 3) float32; (2, 6, 2, 3) float64"),
    (lambda m: m.input_gradient(G, W, X.shape, out=np.zeros((4, 3, 4, 5))[::2]), ValueError, "not C-contiguous"),
    (
        lambda m: m.forward(BOTH[:120].reshape(X.shape), W, U, out=BOTH[100:172].reshape(G.shape)),
        ValueError,
        "share memory with",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSED, ids=[str(k) for k in range(len(REFUSED))])
def test_what_does_not_fit_is_refused_in_words(call: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        call(module_of(Case(Conv2d(3, 6, 3), (2, 3, 4, 5), "gemm")))


def test_a_bias_that_the_layer_does_not_have_is_refused() -> None:
    m = module_of(Case(Conv2d(3, 6, 3, bias=False), (2, 3, 4, 5), "gemm"))
    with pytest.raises(ValueError, match="bias is given; it has to be None, since this layer has none"):
        m.forward(X, W, U)
    assert not hasattr(m, "bias_gradient")


def test_the_text_reads_as_its_stages() -> None:
    source = codegen.emit(Conv2d(1, 2, 2, stride=2, padding=1), input_shape=(1, 1, 4, 4), algorithm="gemm").source
    for line in (
        "        # In[c, h0, h1, b] = X[b,c,h0,h1]\n        np.copyto(v.In[:, 1:5, 1:5], X.transpose(1, 2, 3, 0))\n",
        "        # Col[c, e0, e1, j0, j1, b] = In[c,e0+2*j0-1,e1+2*j1-1,b]\n",
        "        np.matmul(w.Kernel, v.Windows, out=v.Z_m1)\n        result[low:high] = v.Z.transpose(3, 0, 1, 2)\n",
    ):
        assert line in source
    assert "ratio" not in source
