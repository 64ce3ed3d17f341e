"""Correct kernels are not blamed, under any schedule, and compute what NumPy computes."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import simt
from runtime.simt import Outcome, Program

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SOURCE = Path(__file__).with_name("correct.cu").read_text()


@cache
def program(*, check: bool = True) -> Program:
    return simt.compile(SOURCE, name="correct.cu", check=check)


def launch(kernel: str, grid: Any, block: Any, args: list[Any], shared_bytes: int = 0) -> Outcome:
    """Under the three orders and two more that are drawn; with checks, and then the same bits without."""
    fast = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    orders = ("forward", "reverse", "shuffled", 7, 8)
    outcome = program().launch(kernel, grid, block, args, shared_bytes=shared_bytes, schedules=orders)
    aliased = kernel == "in_place"
    if not aliased:
        program(check=False).launch(kernel, grid, block, fast, shared_bytes=shared_bytes)
        for one, other in zip(args, fast, strict=True):
            np.testing.assert_array_equal(one, other)
    return outcome


def integers(*shape: int, dtype: str = "f", seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(dtype)


@given(st.integers(1, 700), st.sampled_from([32, 64, 256]))
@settings(max_examples=8)
def test_reduction_by_shuffles(n: int, threads: int) -> None:
    x, y = integers(n), simt.empty(1, "f")
    launch("reduction", 1, threads, [x, y, n])
    assert y[0] == x.sum()


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 20), st.sampled_from(["float", "double"]))
@settings(max_examples=8)
def test_tiled_gemm(m: int, n: int, k: int, kind: str) -> None:
    dtype = {"float": "f", "double": "d"}[kind]
    a, b, c = integers(m, k, dtype=dtype), integers(k, n, dtype=dtype, seed=1), simt.empty((m, n), dtype)
    launch(f"gemm<{kind}, 8>", (-(-n // 8), -(-m // 8)), (8, 8), [a, b, c, m, n, k])
    np.testing.assert_array_equal(c, a @ b)


@given(st.integers(1, 200))
@settings(max_examples=8)
def test_stencil_with_a_halo_in_dynamic_shared_memory(n: int) -> None:
    x, y = integers(n), simt.empty(n, "f")
    launch("stencil", -(-n // 32), 32, [x, y, n], shared_bytes=34 * 4)
    np.testing.assert_array_equal(y, np.convolve(x, [1, 1, 1])[1:-1])


def test_histogram_with_atomics() -> None:
    x = np.random.default_rng(0).integers(0, 256, 5000).astype("u1")
    count = np.zeros(256, "u4")
    outcome = launch("histogram", 3, 64, [x, count, 5000])
    np.testing.assert_array_equal(count, np.bincount(x, minlength=256))
    assert outcome.floating_atomics == 0
    assert outcome.written == ("count",)


def test_double_buffering() -> None:
    x, y = integers(5 * 64), simt.empty(64, "f")
    launch("double_buffer", 1, 64, [x, y, 5])
    np.testing.assert_array_equal(y, x.reshape(5, 64).sum(0)[::-1])


@given(st.integers(1, 70), st.integers(1, 70))
@settings(max_examples=5)
def test_transposition_with_padding(rows: int, columns: int) -> None:
    x, y = integers(rows, columns), simt.empty((columns, rows), "f")
    launch("transposition", (-(-columns // 32), -(-rows // 32)), (32, 8), [x, y, rows, columns])
    np.testing.assert_array_equal(y, x.T)


def test_neighbours_of_one_word_do_not_race() -> None:
    a, c = integers(77, dtype="b"), integers(77, dtype="e")
    b, d = np.zeros(77, "b"), np.zeros(77, "e")
    launch("small_copies", 3, 32, [a, b, c, d, 77])
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(c, d)


def test_vectors_of_four() -> None:
    x, y = integers(40, 4), simt.empty((40, 4), "f")
    launch("vector_copy", 2, 32, [x, y, 40])
    np.testing.assert_array_equal(y, np.concatenate([x[:, :3], 2 * x[:, :1]], 1))


def test_exchange_within_warps() -> None:
    x, y = integers(128), simt.empty(128, "f")
    launch("warp_exchange", 1, 128, [x, y])
    np.testing.assert_array_equal(y, x[np.arange(128) ^ 30] + 1)


def test_two_halves_of_a_warp_that_shuffle_apart() -> None:
    x, y = integers(64, dtype="i"), np.zeros(64, "i")
    launch("half_warps", 1, 64, [x, y])
    parts = x.reshape(4, 16)
    np.testing.assert_array_equal(y, np.repeat(parts.sum(1) + 1000 * (parts & 1).sum(1), 16))


def test_what_an_absent_lane_would_give_is_no_number() -> None:
    x, y = integers(32), simt.empty(16, "f")
    launch("absent_lanes", 1, 32, [x, y])
    np.testing.assert_array_equal(y[:8], x[8:16])
    assert np.isnan(y[8:]).all()  # nothing was written there


def test_arrays_that_share_memory_share_a_buffer() -> None:
    x = np.arange(50, dtype="f")
    launch("in_place", 2, 32, [x, x, 50])
    np.testing.assert_array_equal(x, 2 * np.arange(50))


def test_pipeline_of_asynchronous_copies() -> None:
    x, y = integers(5 * 128), simt.empty(128, "f")
    launch("copy_pipeline", 1, 32, [x, y, 5])
    np.testing.assert_array_equal(y, x.reshape(5, 128).sum(0)[::-1])


def test_gemm_by_tensor_core_instructions() -> None:
    m, n, k = 32, 24, 48
    a, b, c = integers(m, k, dtype="e"), integers(k, n, dtype="e", seed=1), simt.empty((m, n), "f")
    launch("mma_gemm", (n // 8, m // 16), 32, [a, b, c, n, k])
    np.testing.assert_array_equal(c, a.astype("f") @ b.astype("f"))


def test_mma_with_bfloat16() -> None:
    a, b, c = integers(16, 16), integers(16, 8, seed=1), integers(16, 8, seed=2)
    d = simt.empty((16, 8), "f")
    halves = [(v.view("u4") >> 16).astype("u2") for v in (a, b)]  # small integers lose nothing
    launch("mma_bf16", 1, 32, [*halves, c, d])
    np.testing.assert_array_equal(d, a @ b + c)


def test_mma_with_tf32_reads_nineteen_bits() -> None:
    a, b, c = integers(16, 8) + np.float32(2**-12), integers(8, 8, seed=1), integers(16, 8, seed=2)
    d = simt.empty((16, 8), "f")
    launch("mma_tf32", 1, 32, [a, b, c, d])
    rounded = ((a.view("u4") + 0x1000) & 0xFFFFE000).astype("u4").view("f")
    assert (rounded != a).any()
    np.testing.assert_array_equal(d, (rounded.astype("d") @ b.astype("d") + c).astype("f"))


def test_constant_memory() -> None:
    x, y = integers(40), np.zeros(40, "f")
    launch("constants", 2, 32, [x, y, 40])
    np.testing.assert_array_equal(y[1:-1], np.convolve(x, [0.25, 0.5, 0.25])[2:-2])


def test_sums_by_floating_atomics_may_depend_on_the_order() -> None:
    x = np.random.default_rng(0).random(500, "f")
    total = np.zeros(1, "f")
    outcome = program().launch("float_atomics", 8, 64, [x, total, 500])
    assert outcome.floating_atomics == 3 * 500
    np.testing.assert_allclose(total[0], x.sum(), rtol=1e-5)
    with pytest.raises(simt.SimtError) as caught:
        program().launch("float_atomics", 8, 64, [x, np.zeros(1, "f"), 500], reproducible=True)
    assert caught.value.kind == "order-dependent"


def test_three_dimensions() -> None:
    y = np.full((2 * 3 * 2, 2 * 3 * 4), -1, "i")
    launch("whole_axes", (2, 3, 2), (2, 3, 4), [y])
    np.testing.assert_array_equal(y, 10000 * np.arange(12)[:, None] + np.arange(24))


@given(st.integers(0, 6))
@settings(max_examples=6)
def test_helpers_that_all_threads_call_from_one_place(rounds: int) -> None:
    x, y = integers(6 * 64), simt.empty(64, "f")
    launch("helpers", 1, 64, [x, y, rounds])
    rows, threads = x.reshape(6, 64)[:rounds], np.arange(64)
    v = x[:64][::-1] + sum(np.roll(rows, -n, axis=1).sum(0) for n in (1, 2, 3))
    for r in range(rounds):
        v = np.where(threads % 3 == r % 3, 2 * v, v + 1)
    sums = v.reshape(2, 32).sum(1)
    np.testing.assert_array_equal(y, v + np.repeat([sums[0], -sums[1]], 32))


@given(st.integers(0, 64))
@settings(max_examples=6)
def test_conditions_of_a_thread_on_both_sides_of_a_barrier(n: int) -> None:
    x, y, t = integers(64), simt.empty(64, "f"), np.arange(64)
    launch("conditions_around_barriers", 1, 64, [x, y, n])
    s = np.where(t % 2, 2 * x, 0)
    v = np.where(t < n, 2 * s + np.roll(s, -1) + 1, s)
    w = np.choose(t % 4, [3 + 1, 5 - 1, 7 + 2, 7 + 2])
    np.testing.assert_array_equal(y, v + w)
