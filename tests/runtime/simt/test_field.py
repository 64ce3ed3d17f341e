"""The prime field in C++ is that of codegen.field: number for number, function for function."""

import shutil
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen.field import Element, P, keyed
from derive.evaluate import Undefined
from runtime import simt
from runtime.simt import LaunchError, Program, SimtError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SOURCE = r"""
#ifndef REAL
#define REAL float
#endif
#ifndef FIELD
__device__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }
#endif
extern "C" __global__ void operations(const REAL *a, const REAL *b, REAL *y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    const REAL p = a[i], q = b[i];
    REAL *out = y + 12 * (long long)i;
    out[0] = p + q;
    out[1] = p - q;
    out[2] = p * q;
    out[3] = -p;
    out[4] = p < q ? REAL(1) : REAL(0);
    out[5] = p == q ? 1 : p >= q ? 2 : 3;
    out[6] = max(p, q);
    out[7] = fmin(p, q);
    out[8] = 3 * p + REAL(-2) - q * 5;
    out[9] = fma(p, q, p);
    out[10] = out[0];
    out[10] += 7;
    out[11] = REAL(!(p != q));
}
extern "C" __global__ void functions(const REAL *a, REAL *y, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    y[5 * i + 4] = sigmoid(a[i]);
    y[5 * i] = exp(a[i]);
    y[5 * i + 1] = log(a[i]);
    y[5 * i + 2] = tanhf(a[i]);
    y[5 * i + 3] = expf(-a[i]);
}
extern "C" __global__ void quotient(const REAL *a, const REAL *b, REAL *y, REAL scale) {
    y[threadIdx.x] = REAL(1) / b[threadIdx.x] + scale * (a[threadIdx.x] / b[threadIdx.x]);
}
extern "C" __global__ void sums(const REAL *x, REAL *y) {
    __shared__ REAL s[32];
    s[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    REAL v = s[threadIdx.x ^ 1];
    for (int o = 16; o > 0; o /= 2) v += __shfl_xor_sync(0xffffffffu, v, o);
    if (threadIdx.x == 0) y[0] = v;
    atomicAdd(&y[1], x[threadIdx.x]);
}
"""
ELEMENTS = st.one_of(st.integers(0, P - 1), st.sampled_from([0, 1, 2, P - 1, P // 2, P // 2 + 1, P // 2 + 2]))


@cache
def program() -> Program:
    return simt.compile(SOURCE, defines={"REAL": "certiconv_field", "FIELD": None})


def numbers(values: list[int]) -> Any:
    return np.array(values, "u8")


@given(st.lists(st.tuples(ELEMENTS, ELEMENTS), min_size=1, max_size=40))
def test_arithmetic_and_order(pairs: list[tuple[int, int]]) -> None:
    a, b = (numbers([pair[k] for pair in pairs]) for k in (0, 1))
    y = simt.empty((len(pairs), 12), "u8")
    program().launch("operations", 2, 32, [a, b, y, len(pairs)])
    for (x, z), found in zip(pairs, y.tolist(), strict=True):
        p, q = Element(x), Element(z)
        expected = [
            p + q, p - q, p * q, -p, int(p < q), 1 if p == q else 2 if p >= q else 3, max(p, q), min(p, q),
            3 * p - 2 - q * 5, p * q + p, p + q + 7, int(p == q),
        ]  # fmt: skip
        assert found == [Element(0).__add__(e).value % P for e in expected]


@given(st.lists(ELEMENTS, min_size=1, max_size=40), st.integers(-(2**70), 2**70))
def test_functions_are_those_of_the_key(values: list[int], key: int) -> None:
    y = simt.empty((len(values), 5), "u8")
    program().launch("functions", 2, 32, [numbers(values), y, len(values)], field_key=key)
    kind = keyed(key)
    for value, found in zip(values, y.tolist(), strict=True):
        e = kind(value)
        sigmoid = kind.numbers.functions["sigmoid"](value)
        assert found == [*(f.value % P for f in (e.exp(), e.log(), e.tanh(), (-e).exp())), sigmoid]


@pytest.mark.parametrize("digits", [121, 122, 123, 249, 250, 251, 400])
def test_keys_that_fill_the_chunks_of_the_hash_and_more(digits: int) -> None:
    key, y = 10 ** (digits - 1) + 7, simt.empty((1, 5), "u8")
    program().launch("functions", 1, 1, [numbers([5]), y, 1], field_key=key)
    assert len(f"exp {key} 5") % 128 == (digits + 6) % 128
    assert y[0, 0] == keyed(key)(5).exp().value % P


@given(st.tuples(ELEMENTS, st.integers(1, P - 1), ELEMENTS))
def test_division(case: tuple[int, int, int]) -> None:
    a, b, scale = case
    y = simt.empty(1, "u8")
    program().launch("quotient", 1, 1, [numbers([a]), numbers([b]), y, Element(scale)])
    assert y[0] == (1 / Element(b) + Element(scale) * (Element(a) / Element(b))).value % P


def test_division_by_zero_is_undefined_as_it_is_in_python() -> None:
    with pytest.raises(Undefined, match=r"recip\(0\).*quotient|recip\(0\) \(kernel.cu:\d+: y\[threadIdx"):
        program().launch("quotient", 1, 2, [numbers([1, 1]), numbers([1, 0]), simt.empty(2, "u8"), 1])


def test_shuffles_shared_memory_and_atomics_carry_elements() -> None:
    x = np.random.default_rng(0).integers(0, P, 32).astype("u8")
    y = numbers([0, 0])
    program().launch("sums", 1, 32, [x, y])
    assert y.tolist() == [sum(x.tolist()) % P] * 2


def test_a_number_by_value_is_the_fraction_that_it_is() -> None:
    y = simt.empty(1, "u8")
    program().launch("quotient", 1, 1, [numbers([3]), numbers([1]), y, np.float32(0.75)])
    assert (Element(int(y[0])) - 1) * 4 == 9


def test_what_is_no_element_is_refused() -> None:
    with pytest.raises(LaunchError, match="argument a holds 2305843009213693951, which is no element of the field"):
        program().launch("functions", 1, 1, [numbers([P]), simt.empty(5, "u8"), 1])
    with pytest.raises(SimtError) as caught:
        program().launch("functions", 1, 1, [simt.empty(1, "u8"), simt.empty(5, "u8"), 1])
    assert caught.value.kind == "uninitialised"


def test_the_same_text_runs_on_floats() -> None:
    y = simt.empty((3, 12), "f")
    a, b = np.array([1, 2, 3], "f"), np.array([3, 2, 1], "f")
    simt.launch(SOURCE, "operations", 1, 32, [a, b, y, 3])
    np.testing.assert_array_equal(y[:, 2], a * b)


def test_a_constant_with_a_fraction_does_not_compile() -> None:
    with pytest.raises(simt.SimtCompileError, match="use of deleted function"):
        simt.compile('extern "C" __global__ void k(certiconv_field *y) { *y = certiconv_field(0.5f); }')


WIDE = r"""
extern "C" __global__ void wide(const REAL *x, REAL *y) {
    __shared__ REAL one[64], two[8192];
    extern __shared__ REAL three[];
    const int t = threadIdx.x;
    one[t] = two[t + 5000] = three[t + 60000] = x[t];
    __syncthreads();
    y[t] = one[63 - t] + two[5000 + (t ^ 1)] + three[60000 + (t ^ 2)];
}
"""


def test_elements_may_be_wider_than_the_limits_of_a_gpu() -> None:
    x, y = np.arange(64, dtype="u8"), simt.empty(64, "u8")
    simt.launch(WIDE, "wide", 1, 64, [x, y], shared_bytes=65000 * 8, defines={"REAL": "certiconv_field"})
    np.testing.assert_array_equal(y, x[::-1] + x[np.arange(64) ^ 1] + x[np.arange(64) ^ 2])
    with pytest.raises(LaunchError, match="shared_bytes=520000 with 0 bytes"):
        simt.launch(WIDE, "wide", 1, 64, [x, y], shared_bytes=65000 * 8, defines={"REAL": "unsigned long"})


def test_shared_arrays_of_structures_of_elements() -> None:
    text = """
    struct alignas(4 * sizeof(REAL)) four { REAL at[4]; };
    extern "C" __global__ void k(const four *x, REAL *y) {
        __shared__ four s[8];
        if (threadIdx.x < 8) s[threadIdx.x] = x[threadIdx.x];
        __syncwarp();
        y[threadIdx.x] = s[threadIdx.x / 4].at[3 - threadIdx.x % 4];
    }"""
    x, y = np.arange(32, dtype="u8"), simt.empty(32, "u8")
    simt.launch(text, "k", 1, 32, [x, y], defines={"REAL": "certiconv_field"})
    np.testing.assert_array_equal(y.reshape(8, 4), x.reshape(8, 4)[:, ::-1])
