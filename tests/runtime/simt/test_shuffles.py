"""Shuffles from lanes that are not there: what they give may be computed with, but nothing may depend on it."""

import shutil
from functools import cache
from typing import Any

import numpy as np
import pytest

from runtime import simt
from runtime.simt import Program, SimtError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SOURCE = r"""
#ifndef VALUE
#define VALUE int
#endif
__global__ void sum(const VALUE *x, VALUE *y) {
    const int t = threadIdx.x;
    if (t < 16) {
        VALUE v = x[t];
        for (int d = 8; d > 0; d /= 2) v += __shfl_down_sync(0x0000ffffu, v, d);
        if (t == 0) y[0] = v;
    }
}
__global__ void product(const VALUE *x, VALUE *y) {
    const int t = threadIdx.x;
    VALUE v = x[t];
    for (int d = 8; d > 0; d /= 2) v = v * __shfl_down_sync(0xffffffffu, v, d);
    if (t == 0) y[0] = v;
}
__global__ void stores(VALUE *x) {
    VALUE v = x[threadIdx.x];
    if (threadIdx.x < 16) {
        x[threadIdx.x] =
            __shfl_xor_sync(0x0000ffffu, v, 16);
    }
}
__global__ void adds(VALUE *x) {
    VALUE v = x[threadIdx.x];
    if (threadIdx.x < 16) v += __shfl_down_sync(0xffffffffu, v, 8);
    x[threadIdx.x] = v;
}
__global__ void largest(VALUE *x) {
    const VALUE v = x[threadIdx.x], w = __shfl_down_sync(0xffffffffu, v, 8);
    x[threadIdx.x] = v < w ? w : v;
}
__global__ void smallest(VALUE *x) {
    const VALUE v = x[threadIdx.x], w = __shfl_down_sync(0xffffffffu, v, 8);
    x[threadIdx.x] = v < w ? v : w;
}
__global__ void overflows(VALUE *x) {
    const VALUE v = __shfl_down_sync(0xffffffffu, x[threadIdx.x], 8);
    if (threadIdx.x < 8) x[threadIdx.x] = v + 2147483647;
}
"""
DTYPES = {"int": "i", "long long": "q", "short": "h", "unsigned": "I", "float": "f", "double": "d", "__half": "e"}


@cache
def program(kind: str = "int", *, check: bool = True) -> Program:
    return simt.compile(SOURCE, defines={"VALUE": kind}, check=check)


@pytest.mark.parametrize("kind", ["int", "long long", "unsigned", "float", "certiconv_field"])
@pytest.mark.parametrize("check", [True, False])
def test_lanes_whose_results_nobody_reads_may_compute_with_what_is_undefined(kind: str, check: bool) -> None:
    dtype = DTYPES.get(kind, "Q")
    x, y = np.arange(1, 33, dtype=dtype), np.zeros(1, dtype)
    outcome = program(kind, check=check).launch("sum", 1, 32, [x, y])
    assert y[0] == 136
    assert outcome.undefined_shuffles == 3 * (8 + 4 + 2 + 1)
    x[:] = 1 + (x == 3)
    outcome = program(kind, check=check).launch("product", 1, 16, [x, y])
    assert y[0] == 2
    assert outcome.undefined_shuffles == 3 * (8 + 4 + 2 + 1)


@pytest.mark.parametrize("kind", ["int", "long long", "unsigned", "float", "double"])
def test_an_undefined_value_that_is_stored_is_told_with_both_lines(kind: str) -> None:
    x = np.ones(32, DTYPES[kind])
    with pytest.raises(SimtError) as caught:
        program(kind).launch("stores", 1, 32, [x], schedules=["forward"])
    error = caught.value
    assert (error.kind, error.array, error.offset) == ("shuffle-mask", "x", 15 * x.itemsize)
    assert error.what.startswith(f"x[15], {x.itemsize} bytes: the value is what a shuffle gave that read a lane")
    assert error.here is not None
    assert error.there is not None
    lines = [site.line for site in (error.here, error.there)]
    assert [SOURCE.splitlines()[line - 1].strip() for line in lines] == [
        "x[threadIdx.x] =",
        "__shfl_xor_sync(0x0000ffffu, v, 16);",
    ]
    assert (x == 1).all()


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(("kernel", "threads"), [("adds", 32), ("largest", 16), ("smallest", 16)])
@pytest.mark.parametrize("kind", ["int", "long long", "short"])
def test_a_result_that_depends_on_an_undefined_value_is_told(kind: str, kernel: str, threads: int, check: bool) -> None:
    x: Any = np.ones(32, DTYPES[kind])
    with pytest.raises(SimtError, match=r"shuffle.* read a lane that ended or is not in the mask") as caught:
        program(kind, check=check).launch(kernel, 1, threads, [x])
    at_once = check and kernel != "adds" and kind != "short"  # the very value is stored, in four bytes or more
    assert caught.value.kind == ("shuffle-mask" if at_once else "order-dependent")
    assert caught.value.offset == (15 if at_once else 8) * x.itemsize


def test_a_sum_that_overflows_is_told_beside_undefined_shuffles() -> None:
    with pytest.raises(SimtError, match=r"1 \+ 2147483647 in type 'int'") as caught:
        program().launch("overflows", 1, 16, [np.ones(32, "i")])
    assert caught.value.kind == "overflow"


def test_shuffles_within_the_mask_count_for_nothing() -> None:
    outcome = program().launch("adds", 1, 8, [np.ones(8, "i")], schedules=["forward"])
    assert outcome.undefined_shuffles == 8
    text = "__global__ void k(int *x) { x[threadIdx.x] = __shfl_up_sync(0xffffffffu, x[threadIdx.x], 1); }"
    assert simt.launch(text, "k", 1, 32, [np.arange(32, dtype="i")]).undefined_shuffles == 0


# --- sums of a warp -----------------------------------------------------------------------------------------------

REDUCED = r"""
__device__ void spoil() {
    volatile int s[64];
    for (int k = 0; k < 64; ++k) s[k] = 1000 + k;
}
__global__ void k(int *x, int ended) {
    const int t = threadIdx.x;
    spoil();
    if (t < ended) return;
    const int v = x[t];
    x[t] = OP(0xffffffffu, v);
}
"""


@pytest.mark.parametrize("threads", [32, 20])
@pytest.mark.parametrize("ended", [0, 1, 9])
@pytest.mark.parametrize(
    ("operation", "right"),
    [
        ("__reduce_add_sync", np.sum),
        ("__reduce_min_sync", np.min),
        ("__reduce_max_sync", np.max),
        ("__reduce_and_sync", np.bitwise_and.reduce),
        ("__reduce_or_sync", np.bitwise_or.reduce),
        ("__reduce_xor_sync", np.bitwise_xor.reduce),
    ],
)
def test_a_sum_of_a_warp_is_over_the_lanes_that_have_not_ended(
    operation: str, right: Any, ended: int, threads: int
) -> None:
    x = np.random.default_rng(ended).integers(1, 1 << 20, threads, dtype="i")
    wanted = np.concatenate([x[:ended], np.full(threads - ended, right(x[ended:]))])
    reduced(operation).launch("k", 1, threads, [x, ended])
    np.testing.assert_array_equal(x, wanted)


@cache
def reduced(operation: str) -> Program:
    return simt.compile(REDUCED, defines={"OP": operation})


def test_a_lane_that_has_not_ended_has_to_come() -> None:
    text = "__global__ void k(int *x) { if (threadIdx.x) *x = __reduce_add_sync(0xffffffffu, 1); __syncthreads(); }"
    with pytest.raises(SimtError) as caught:
        simt.launch(text, "k", 1, 32, [np.zeros(32, "i")])
    assert caught.value.kind == "shuffle-mask"


def test_a_lane_may_add_what_a_sum_of_a_warp_made_of_undefined_values() -> None:
    text = """
    __global__ void k(int *x) {
        const int v = __shfl_down_sync(0xffffffffu, x[threadIdx.x], 8), w = __reduce_max_sync(0xffffffffu, v);
        if (threadIdx.x == 0) {
            volatile int z = w + 2147483647;
            x[0] = z == z;
        }
    }
    """
    x = np.zeros(16, "i")
    simt.launch(text, "k", 1, 16, [x])
    assert x[0] == 1
