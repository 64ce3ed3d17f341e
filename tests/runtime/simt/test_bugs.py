"""Every planted bug of bugs.cu is found, as what it is, at the lines that the text marks."""

import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import simt
from runtime.simt import Program, SimtError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SOURCE = Path(__file__).with_name("bugs.cu").read_text()
X = np.arange(1, 1025, dtype="f")
BITS = np.zeros(64, "u4")
I32 = np.int32


@cache
def program() -> Program:
    return simt.compile(SOURCE, name="bugs.cu")


def marked(kernel: str, side: str) -> int:
    """The line that carries this mark; 0 where none does."""
    mark = f"{kernel}: {side}"
    return next((k for k, line in enumerate(SOURCE.splitlines(), 1) if mark in line), 0)


def out(n: int, dtype: str = "f") -> Any:
    return np.zeros(n, dtype)


CASES: dict[str, tuple[str, Any, int, list[Any], str]] = {
    # kernel: kind, grid, block, arguments, array
    "missing_syncthreads": ("race", 1, 128, [X, out(128)], "s"),
    "missing_second_barrier": ("race", 1, 64, [X, out(64), 3], "s"),
    "missing_syncwarp": ("race", 1, 32, [X, out(32)], "s"),
    "half_a_syncwarp": ("race", 1, 32, [X, out(32)], "s"),
    "blocks_write_one_cell": ("race", 2, 32, [out(32)], "y"),
    "block_reads_another": ("race", 2, 32, [X, out(64)], "y"),
    "reads_one_too_far": ("out-of-bounds", 2, 64, [X[:100], out(100), 100], "x"),
    "writes_one_too_far": ("out-of-bounds", 2, 64, [out(100), 100], "y"),
    "reads_before_the_start": ("out-of-bounds", 1, 32, [X, out(32)], "x"),
    "static_shared_overflow": ("out-of-bounds", 1, 32, [out(32)], "tile"),
    "static_shared_underflow": ("out-of-bounds", 1, 32, [out(32)], "tile"),
    "dynamic_shared_overflow": ("out-of-bounds", 1, 32, [out(32)], "scratch"),
    "row_overflow": ("out-of-bounds", 1, 17, [out(17), 16], "tile"),
    "local_overflow": ("out-of-bounds", 1, 32, [X, out(32), 5], ""),
    "uninitialised_shared": ("uninitialised", 1, 64, [X, out(64), 63], "s"),
    "accumulates_into_nothing": ("uninitialised", 1, 32, [X, simt.empty(32, "f")], "y"),
    "misaligned_float4": ("misaligned", 1, 32, [X, out(128), 1], "x"),
    "misaligned_half2": ("misaligned", 1, 32, [X.astype("e"), out(32)], "x"),
    "divergent_barrier": ("divergent-barrier", 1, 64, [X, out(64)], ""),
    "barriers_on_one_line": ("divergent-barrier", 1, 64, [X, out(64)], ""),
    "barrier_in_a_helper": ("divergent-barrier", 1, 64, [X, out(64)], ""),
    "barrier_in_an_inlined_helper": ("divergent-barrier", 1, 64, [X, out(64)], ""),
    "barrier_two_calls_deep": ("divergent-barrier", 1, 64, [X, out(64)], ""),
    "barrier_in_a_template": ("divergent-barrier", 1, 64, [X, out(64)], ""),
    "shuffle_in_a_helper": ("shuffle-mask", 1, 32, [X, out(32)], ""),
    "votes_on_one_line": ("shuffle-mask", 1, 32, [out(32, "i")], ""),
    "barrier_after_return": ("divergent-barrier", 1, 64, [X, out(64), 60], ""),
    "mask_names_absent_lanes": ("shuffle-mask", 1, 32, [out(32)], ""),
    "mask_lacks_the_caller": ("shuffle-mask", 1, 32, [out(32)], ""),
    "masks_disagree": ("shuffle-mask", 1, 32, [out(32, "i")], ""),
    "product_without_ended_lanes": ("shuffle-mask", 1, 32, [BITS, out(32)], ""),
    "product_of_half_a_warp": ("shuffle-mask", 1, 48, [BITS, out(48)], ""),
    "product_in_a_branch": ("shuffle-mask", 1, 32, [BITS, out(32)], ""),
    "tiles_loaded_by_some_lanes": ("shuffle-mask", 1, 32, [BITS, out(32, "u4")], ""),
    "missing_copy_wait": ("race", 1, 64, [X, out(64)], "s"),
    "copy_waits_for_too_few": ("race", 1, 32, [X, out(32), 3], "s"),
    "copy_without_a_barrier": ("race", 1, 64, [X, out(64)], "s"),
    "double_buffer_reads_ahead": ("race", 1, 64, [X, out(64), 4], "s"),
    "histogram_without_atomics": ("race", 2, 32, [np.arange(64, dtype="i") % 7, out(7, "i")], "count"),
    "reads_beside_an_atomic": ("race", 1, 32, [out(1, "i"), out(32, "i")], "count"),
    "halves_of_one_cell": ("race", 1, 32, [out(16, "e")], "y"),
    "bytes_of_one_cell": ("race", 1, 8, [out(8, "b")], "y"),
    "copies_a_range_too_far": ("out-of-bounds", 1, 1, [X.astype("i"), out(8, "i"), 9], "y"),
    "index_overflow": ("overflow", 1, 32, [X, out(32), 2**30], ""),
    "depends_on_the_order": ("order-dependent", 1, 32, [out(1, "i"), out(32, "i")], "y"),
    "divides_by_zero": ("crash", 1, 32, [out(32, "i"), 0], ""),
    "follows_null": ("out-of-bounds", 1, 32, [None, out(32)], ""),
    "reads_another_stack": ("out-of-bounds", 1, 32, [out(32)], ""),
    "traps": ("trap", 1, 32, [out(32, "i")], ""),
}


@pytest.mark.parametrize("kernel", CASES)
def test_the_bug_is_found_at_its_lines(kernel: str) -> None:
    kind, grid, block, args, array = CASES[kernel]
    before = [a.copy() if isinstance(a, np.ndarray) else a for a in args]
    with pytest.raises(SimtError) as caught:
        program().launch(kernel, grid, block, args, shared_bytes=128)
    error = caught.value
    assert error.kind == kind, str(error)
    assert error.array == array, str(error)
    sides = [side for side in (error.here, error.there) if side is not None and side.line]
    expected = [line for line in (marked(kernel, "here"), marked(kernel, "there")) if line]
    assert sorted(side.line for side in sides) == sorted(expected), str(error)
    assert len({(side.block, side.thread) for side in sides}) == len(sides)
    for side in sides:
        assert f"bugs.cu:{side.line}: {SOURCE.splitlines()[side.line - 1].strip()}" in str(error)
    for old, now in zip(before, args, strict=True):  # a failed launch changes nothing
        np.testing.assert_array_equal(old, now)


@pytest.mark.parametrize("kernel", [name for name in CASES if marked(name, "other")])
def test_a_helper_that_was_called_twice_is_told_with_both_calls(kernel: str) -> None:
    _, grid, block, args, _ = CASES[kernel]
    with pytest.raises(SimtError) as caught:
        program().launch(kernel, grid, block, args)
    one, other = (f"bugs.cu:{marked(kernel, side)}" for side in ("one", "other"))
    told = {f": one came by the call at {a}, the other by that at {b}" for a, b in ((one, other), (other, one))}
    assert any(caught.value.what.endswith(end) for end in told), str(caught.value)


def test_two_calls_on_one_line_are_told() -> None:
    with pytest.raises(SimtError) as caught:
        program().launch("barriers_on_one_line", 1, 64, [X, out(64)])
    line = marked("barriers_on_one_line", "here")
    told = f"the other thread is elsewhere: bugs.cu:{line} has two calls, and each thread came by one"
    assert caught.value.what == told


ALL = "with mask 0xffffffff: all 32 lanes have to take part"
MISSING = {
    "product_without_ended_lanes": f"mma.sync {ALL}; ended: lanes 30 to 31",
    "product_of_half_a_warp": f"mma.sync {ALL}; not in this block of 48 threads: lanes 16 to 31",
    "product_in_a_branch": "mma.sync with mask 0xffffffff names lane 3, which waits at __syncthreads",
    "tiles_loaded_by_some_lanes": f"ldmatrix {ALL}; ended: 16 lanes (0xff00ff00)",
}


@pytest.mark.parametrize("schedule", ["forward", "reverse"])
@pytest.mark.parametrize("kernel", MISSING)
def test_a_matrix_instruction_says_which_lanes_it_lacks(kernel: str, schedule: str) -> None:
    _, grid, block, args, _ = CASES[kernel]
    with pytest.raises(SimtError) as caught:
        program().launch(kernel, grid, block, args, schedules=[schedule])
    assert caught.value.what == MISSING[kernel]


def test_every_kernel_with_a_bug_is_tried() -> None:
    assert set(program().kernels) == {*CASES, "waits_forever"}


def test_a_thread_that_waits_forever_is_stopped() -> None:
    with pytest.raises(SimtError) as caught:
        program().launch("waits_forever", 1, 1, [out(1, "i")], timeout=0.2)
    assert caught.value.kind == "timeout"
    assert caught.value.line == marked("waits_forever", "here")


def test_both_sides_of_a_race_say_who_they_are() -> None:
    with pytest.raises(SimtError) as caught:
        program().launch("block_reads_another", (2, 1, 1), (32, 1), [X, out(64)])
    error = caught.value
    assert error.here is not None
    assert error.there is not None
    assert (error.here.access, error.here.block, error.here.thread) == ("read", (1, 0, 0), (0, 0, 0))
    assert (error.there.access, error.there.block, error.there.thread) == ("write", (0, 0, 0), (0, 0, 0))
    assert error.what == "y[0], 4 bytes: nothing orders two blocks"
    assert error.schedule == "forward"


def test_a_bug_of_every_kind_is_planted() -> None:
    assert {kind for kind, *_ in CASES.values()} | {"timeout"} == set(simt.KINDS)
