"""The module that is emitted for a convolution: exact fractions, what it refuses and how it reads.

That its results are what the definition says is tested for every algorithm in ``test_algorithms``.
"""

import math
import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import codegen
from derive.layers import Conv1d, Conv2d
from tests.codegen.convolutions import Case, drawn, expected, module_of


@pytest.mark.parametrize("algorithm", ["gemm", "direct"])
def test_fractions_stay_exact(algorithm: str) -> None:
    m = module_of(Case(Conv1d(1, 1, 2), (1, 1, 3), algorithm))
    third, half = Fraction(1, 3), Fraction(1, 2)
    x = np.array([[[third, half, Fraction(1)]]], object)
    weight, bias = np.array([[[half, third]]], object), np.array([Fraction(1, 7)], object)
    assert m.forward(x, weight, bias).tolist() == [[[third + Fraction(1, 7), Fraction(7, 12) + Fraction(1, 7)]]]


def test_a_result_is_put_where_it_is_asked_for() -> None:
    case = Case(Conv2d(2, 3, 2, padding=1), (5, 2, 4, 4), "gemm")
    m, data = module_of(case), drawn(case, 0, "float64")
    wanted = expected(case, data)
    forward, gradient = wanted["forward"], wanted["input_gradient"]
    both = np.full((10, *forward.shape[1:]), np.nan)
    assert np.shares_memory(m.forward(data.x, data.weight, data.bias, out=both[5:]), both)
    assert (both[5:] == forward).all()
    assert np.isnan(both[:5]).all()
    into = np.full(gradient.shape, np.nan)
    assert m.input_gradient(data.grad, data.weight, data.x.shape, out=into) is into
    assert (into == gradient).all()


@given(batch=st.integers(0, 200), block=st.integers(1, 80))
def test_blocks_are_few_even_and_of_whole_lines(batch: int, block: int) -> None:
    m = module_of(Case(Conv1d(1, 1, 1), (1, 1, 1), "gemm"))
    work = m.Forward(batch, "float32", block)
    lows, highs = [low for low, _, _ in work.blocks], [high for _, high, _ in work.blocks]
    assert [*lows, batch] == [0, *highs]
    sizes, line = [high - low for low, high in zip(lows, highs, strict=True)], math.gcd(block, 16)
    assert len(sizes) == -(-batch // block)
    assert all(0 < size <= block for size in sizes)
    assert all(size % line == 0 for size in sizes[:-1])
    assert not sizes or max(sizes) - min(sizes[:-1], default=max(sizes)) <= line
    assert all(buffers.Z.shape[-1] == high - low for low, high, buffers in work.blocks)


X, W, U, G = np.zeros((2, 3, 4, 5)), np.zeros((6, 3, 3, 3)), np.zeros(6), np.zeros((2, 6, 2, 3))
BOTH = np.zeros(240)
LOCKED = np.zeros_like(G)
LOCKED.flags.writeable = False
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
    (
        lambda m: m.bias_gradient(G, m.Forward(2, "f8")),
        TypeError,
        "work=Forward(2, 'float64'): BiasGradient(2, 'fl",
    ),
    (lambda m: m.forward(X, W, U, 5), TypeError, "work=5: Forward(2, 'float64') or None is needed"),
    (
        lambda m: m.backward(G, X, W, m.Forward(2)),
        TypeError,
        "(InputGradient, WeightGradient, BiasGradient) or None",
    ),
    (lambda m: m.backward(G, X, W, (None, None)), TypeError, "work=(None, None): (InputGradient, WeightGradient, Bias"),
    (lambda m: m.Forward(2, block=0), ValueError, "block=0: an integer of at least 1 is needed; the nearest is 1"),
    (lambda m: m.Forward(2, block=2.7), ValueError, "block=2.7: an integer of at least 1 is needed; the nearest is 3"),
    (lambda m: m.Forward(2, block="2"), ValueError, "block='2': an integer of at least 1 is needed; the nearest is 1"),
    (lambda m: m.Forward(-1), ValueError, "batch=-1: an integer of at least 0 is needed; the nearest is 0"),
    (lambda m: m.Forward(True), ValueError, "batch=True: an integer of at least 0 is needed; the nearest is 0"),
    (lambda m: m.Forward(2, "int8"), ValueError, "dtype=int8: float32, float64, object are what is computed with"),
    (lambda m: m.forward(X, W, U, m.Forward(3, "f8")), ValueError, "work is for 3 images of float64; input holds 2 of"),
    (
        lambda m: m.forward(X, W, U, m.Forward(2)),
        ValueError,
        "work is for 2 images of float32; input holds 2 of float64",
    ),
    (lambda m: m.forward(X, W, U, out=[]), TypeError, "out is list; a NumPy array of shape (2, 6, 2, 3) is needed"),
    (lambda m: m.forward(X, W, U, out=G[:1]), ValueError, "out is (1, 6, 2, 3) float64; (2, 6, 2, 3) float64 is"),
    (lambda m: m.forward(X, W, U, out=G.astype("f4")), ValueError, "out is (2, 6, 2, 3) float32; (2, 6, 2, 3) float64"),
    (lambda m: m.input_gradient(G, W, X.shape, out=np.zeros((4, 3, 4, 5))[::2]), ValueError, "the strides (960,"),
    (
        lambda m: m.forward(X, W, U, out=LOCKED),
        ValueError,
        "out is read-only (out.flags.writeable is False); np.empty(",
    ),
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
