"""The 16-bit types round as NumPy does, over all their values and wherever a rounding is hard."""

import shutil
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime import simt
from runtime.simt import Program

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SOURCE = r"""
#include <cuda_fp16.h>
#include <cuda_bf16.h>
extern "C" {
__global__ void widen(const __half *h, const __nv_bfloat16 *b, float *x, float *y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) x[i] = __half2float(h[i]), y[i] = __bfloat162float(b[i]);
}
__global__ void narrow(const float *x, const double *d, __half *h, __nv_bfloat16 *b, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    h[2 * i] = __float2half(x[i]);
    h[2 * i + 1] = __double2half(d[i]);
    b[2 * i] = __float2bfloat16(x[i]);
    b[2 * i + 1] = __double2bfloat16(d[i]);
}
__global__ void compute(const __half *p, const __half *q, __half *y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const __half a = p[i], b = q[i];
    y[6 * i] = a + b;
    y[6 * i + 1] = a - b;
    y[6 * i + 2] = a * b;
    y[6 * i + 3] = __hdiv(a, b);
    y[6 * i + 4] = -a;
    const __half2 pair = __hmul2(__halves2half2(a, b), __float2half2_rn(0.5f));
    y[6 * i + 5] = __high2half(pair);
}
}
"""


@cache
def program() -> Program:
    return simt.compile(SOURCE)


def bfloat16(values: Any) -> Any:
    """To nearest, ties to even, by comparing the two neighbours in float64."""
    with np.errstate(all="ignore"):
        exact = np.asarray(values, "d")
        toward_zero = exact.astype("f")
        over = np.abs(toward_zero.astype("d")) > np.abs(exact)
        bits = toward_zero.view("u4") - over.astype("u4")  # truncated to a float, then to 16 bits
        low = bits >> 16
        neighbours = [(k << 16).astype("u4").view("f").astype("d") for k in (low, low + 1)]
        largest = 2.0**128  # what an overflow stands for when distances are compared
        down, up = (np.where(np.isinf(v), np.copysign(largest, v), v) for v in neighbours)
        nearer = np.abs(up - exact) < np.abs(exact - down)
        tie = np.abs(up - exact) == np.abs(exact - down)
        rounded = low + (nearer | (tie & (low & 1 == 1)))
    return np.where(np.isinf(exact), toward_zero.view("u4") >> 16, rounded).astype("u2")


def test_every_value_widens() -> None:
    bits = np.arange(2**16, dtype="u2")
    x, y = simt.empty(2**16, "f"), simt.empty(2**16, "f")
    program().launch("widen", 64, 1024, [bits.view("e"), bits, x, y, 2**16], schedules=["forward"])
    np.testing.assert_array_equal(x, bits.view("e").astype("f"))
    np.testing.assert_array_equal(y, (bits.astype("u4") << 16).view("f"))


def narrowed(doubles: Any) -> None:
    with np.errstate(over="ignore"):
        d = np.asarray(doubles, "d")
        x = d.astype("f")
        halves = np.stack([x.astype("e"), d.astype("e")], 1)
    h, b, n = simt.empty((len(d), 2), "e"), simt.empty((len(d), 2), "u2"), len(d)
    program().launch("narrow", -(-n // 256), 256, [x, d, h, b, n], schedules=["forward"])
    np.testing.assert_array_equal(h.view("u2"), halves.view("u2"))
    np.testing.assert_array_equal(b, np.stack([bfloat16(x), bfloat16(d)], 1))


def test_every_half_and_every_tie_between_two_narrows() -> None:
    finite = np.arange(0x7C00, dtype="u2").view("e").astype("d")
    ties = (finite[1:] + finite[:-1]) / 2
    both = np.concatenate([finite, ties, np.nextafter(ties, 0), np.nextafter(ties, 1e9), [65519.99, 65520, np.inf]])
    narrowed(np.concatenate([both, -both]))


def test_ties_between_bfloat16s() -> None:
    values = (np.arange(0, 0x7F80, 7, dtype="u4") << 16).view("f").astype("d")
    ties = (values + ((np.arange(0, 0x7F80, 7, dtype="u4") + 1) << 16).view("f").astype("d")) / 2
    ties = ties[np.isfinite(ties)]
    narrowed(np.concatenate([values, ties, np.nextafter(ties, 0), np.nextafter(-ties, -np.inf)]))


@given(st.lists(st.one_of(st.floats(allow_nan=False), st.floats(-70000, 70000), st.floats(-1e-4, 1e-4)), min_size=1))
def test_drawn_numbers_narrow(values: list[float]) -> None:
    narrowed(values)


@given(st.lists(st.tuples(*2 * [st.floats(width=16, allow_nan=False, allow_infinity=False)]), min_size=1))
def test_each_operation_rounds_once(pairs: list[tuple[float, float]]) -> None:
    a, b = (np.array([pair[k] for pair in pairs], "e") for k in (0, 1))
    y = simt.empty((len(pairs), 6), "e")
    program().launch("compute", -(-len(pairs) // 32), 32, [a, b, y, len(pairs)], schedules=["forward"])
    with np.errstate(all="ignore"):
        expected = np.stack([a + b, a - b, a * b, a / b, -a, b * np.float16(0.5)], 1)
    np.testing.assert_array_equal(y, expected)
