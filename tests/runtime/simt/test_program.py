"""Launches: what is refused before anything runs, what comes back, and what a text may look like."""

import re
import shutil
from functools import cache
from typing import Any

import numpy as np
import pytest

from runtime import simt
from runtime.simt import LaunchError, Program, SimtCompileError, SimtError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SOURCE = r"""
#include <assert.h>
#include <stdio.h>
struct Shape { int rows, columns; };
// a comment with __global__ void ghost(int x) in it
#if 0
__global__ void absent(int *y) {}
#endif
#define MAKE(name, value) extern "C" __global__ void made_##name(int *y) { y[threadIdx.x] = value; }
MAKE(five, 5)
namespace inner { __global__ void hidden(int *y) { y[threadIdx.x] = 6; } }
__device__ int counter = 10;
extern "C" {
__global__ void __launch_bounds__(64, (2)) fill(float *__restrict__ y, const int n, float value) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = value;
}
__global__ void values(double *y, signed char a, unsigned long long b, bool c, __half d, double e, Shape f,
                       __nv_bfloat16 g) {
    y[0] = a; y[1] = b; y[2] = c; y[3] = (float)d; y[4] = e; y[5] = f.rows; y[6] = f.columns; y[7] = (float)g;
}
__global__ void prints(int *y) {
    if (threadIdx.x == 0) printf("block %d\n", blockIdx.x);
    atomicAdd(y, 1);
}
__global__ void counts(int *y) { *y = counter++; }
__global__ void copies(const float *x, float *y) { y[threadIdx.x] = x[threadIdx.x]; }
__global__ void big() { __shared__ float s[12289]; s[threadIdx.x] = 0; }
__global__ void ghost_of_a_write(const float *x) { const_cast<float *>(x)[threadIdx.x] = 1; }
__global__ void inherits(float *y) {
    __shared__ float s[32];
    if (blockIdx.x == 0) s[threadIdx.x] = 1;
    __syncthreads();
    y[blockIdx.x * 32 + threadIdx.x] = s[threadIdx.x];
}
__global__ void asserts(int *y) { assert(threadIdx.x < 3); y[threadIdx.x] = 1; }
__global__ void recursive(int *y) { volatile char frame[300000]; frame[y[0]] = 1; y[0] = frame[0]; }
}
"""


@cache
def program() -> Program:
    return simt.compile(SOURCE)


def test_the_kernels_of_a_text_and_their_parameters() -> None:
    kernels = program().kernels
    assert [p.declaration() for p in kernels["fill"]] == ["float *y", "int n", "float value"]
    assert "absent" not in kernels
    assert "ghost" not in kernels


def test_kernels_behind_macros_and_in_namespaces_are_found_by_name() -> None:
    y = np.zeros(4, "i")
    program().launch("made_five", 1, 4, [y])
    np.testing.assert_array_equal(y, 5)
    program().launch("inner::hidden", 1, 4, [y])
    np.testing.assert_array_equal(y, 6)


def test_numbers_take_the_types_of_their_parameters() -> None:
    y = np.zeros(8)
    shape = np.array([3, 4], "i").tobytes()
    program().launch("values", 1, 1, [y, -7, 2**63, True, 0.5, np.float64(0.1), shape, 1.5])
    np.testing.assert_array_equal(y, [-7, 2**63, 1, 0.5, 0.1, 3, 4, 1.5])


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ([np.zeros(4, "f"), 4], r"args: 2 were given, but fill\(float \*y, int n, float value\) has 3"),
        ([np.zeros(4), 4, 1], r"argument y has dtype float64.*float \*y; nearest legal: float32"),
        ([[1.0], 4, 1], r"argument y=\[1.0\] is list; float \*y takes a NumPy array or None"),
        ([np.zeros((4, 4), "f")[:, 1], 4, 1], "argument y has strides .* nearest legal: numpy.ascontiguousarray"),
        ([np.zeros(4, "f"), 2**31, 1], "argument n=2147483648 does not fit int n"),
        ([np.zeros(4, "f"), 4.0, 1], "argument n=4.0 is float; int n takes a number"),
        ([np.zeros(4, "f"), 4, "1"], "argument value='1' is str; float value takes a number"),
    ],
)
def test_what_does_not_fit_is_refused(args: list[Any], told: str) -> None:
    with pytest.raises(LaunchError, match=told):
        program().launch("fill", 1, 32, args)


def test_a_read_only_array_is_refused() -> None:
    y = np.zeros(4, "f")
    y.flags.writeable = False
    with pytest.raises(LaunchError, match=r"argument y is read-only, but it is declared float \*y"):
        program().launch("fill", 1, 32, [y, 4, 1])
    program().launch("copies", 1, 4, [y, np.zeros(4, "f")])
    with pytest.raises(LaunchError, match="the kernel wrote to x, which is read-only"):
        program().launch("ghost_of_a_write", 1, 4, [y])


@pytest.mark.parametrize(
    ("grid", "block", "shared", "told"),
    [
        (0, 32, 0, "grid=0: x=0 is not between 1 and 2147483647; nearest legal: 1"),
        ((1, 1, 1, 1), 32, 0, "has 4 sizes"),
        (1, (32, 64), 0, "has 2048 threads; a block has at most 1024"),
        (1, 32, 232449, "shared_bytes=232449 with 0 bytes"),
    ],
)
def test_a_launch_that_no_gpu_takes_is_refused(grid: Any, block: Any, shared: int, told: str) -> None:
    with pytest.raises(LaunchError, match=told):
        simt.launch('extern "C" __global__ void nothing() {}', "nothing", grid, block, [], shared_bytes=shared)


BOUNDS = r"""
#define WARPS 2
#define WARP (32)
#ifndef GIVEN
#define GIVEN 64
#endif
#ifdef NEVER
#define TWO 64
#else
#define TWO 256
#endif
constexpr int THREADS = WARP * WARPS;
extern "C" {
__global__ void __launch_bounds__(64) number(int *y) { y[threadIdx.x] = 1; }
__launch_bounds__(WARPS * WARP, 2) __global__ void product(int *y) { y[threadIdx.x] = 1; }
__global__ void __launch_bounds__(THREADS) /* not (32) */ constant(int *y) { y[threadIdx.x] = 1; }
__global__ __launch_bounds__(GIVEN) void given(int *y) { y[threadIdx.x] = 1; }
__global__ void __launch_bounds__(TWO) two(int *y) { y[threadIdx.x] = 1; }
__global__ void
#ifdef NEVER
__launch_bounds__(64)
#else
__launch_bounds__(256)
#endif
either(int *y) { y[threadIdx.x] = 1; }
#define SMALL __global__ void \
    __launch_bounds__(64)
__global__ void plain(int *y) { y[threadIdx.x] = 1; }
}
template <int THREADS> __global__ void __launch_bounds__(THREADS) sized(int *y) { y[threadIdx.x] = 1; }
template <int N> __global__ void __launch_bounds__(64) bounded(int *y) { y[threadIdx.x] = N; }
namespace a { __global__ void __launch_bounds__(64) both(int *y) { y[threadIdx.x] = 1; } }
namespace b { __global__ void __launch_bounds__(256) both(int *y) { y[threadIdx.x] = 1; } }
"""


@pytest.mark.parametrize("kernel", ["number", "product", "constant", "given", "bounded<3>"])
def test_more_threads_than_the_launch_bounds_of_a_kernel_are_refused(kernel: str) -> None:
    y = np.zeros(65, "i")
    simt.launch(BOUNDS, kernel, 1, 64, [y], schedules=["forward"])
    told = re.escape(f"block=(65, 1, 1) has 65 threads, and {kernel} has __launch_bounds__(64); nearest legal: 64")
    with pytest.raises(LaunchError, match=told):
        simt.launch(BOUNDS, kernel, 1, 65, [y])


@pytest.mark.parametrize("kernel", ["two", "either", "plain", "sized<256>", "b::both"])
def test_launch_bounds_that_the_text_does_not_tell_refuse_nothing(kernel: str) -> None:
    y = np.zeros(256, "i")
    simt.launch(BOUNDS, kernel, 1, 256, [y], schedules=["forward"])
    assert y.all()


def test_launch_bounds_take_the_macros_of_the_launch() -> None:
    y = np.zeros(128, "i")
    simt.launch(BOUNDS, "given", 1, 128, [y], defines={"GIVEN": 128}, schedules=["forward"])
    with pytest.raises(LaunchError, match=r"has 129 threads, and given has __launch_bounds__\(128\)"):
        simt.launch(BOUNDS, "given", 1, 129, [y], defines={"GIVEN": 128})


def test_too_much_static_shared_memory_is_refused() -> None:
    with pytest.raises(LaunchError, match="static shared memory: 49156 bytes are more than 49152"):
        program().launch("big", 1, 32, [])


def test_unknown_names_are_refused() -> None:
    with pytest.raises(LaunchError, match="schedules: 'sideways' is none of 'forward', 'reverse', 'shuffled'"):
        program().launch("big", 1, 32, [], schedules=["sideways"])
    with pytest.raises(LaunchError, match=r"kernel='missing' is not in k.cu; its kernels: k"):
        simt.compile("__global__ void k() {}", name="k.cu").launch("missing", 1, 1, [])


def test_errors_of_the_text_have_its_lines() -> None:
    with pytest.raises(SimtCompileError, match=r"mine.cu:2:\d+: error: 'undeclared'"):
        simt.compile("__global__ void k(int *y) {\n  *y = undeclared;\n}", name="mine.cu")


@pytest.mark.parametrize(
    ("head", "body", "told"),
    [
        ("#include <cooperative_groups.h>", "", "CUDA's cooperative_groups.h is not here"),
        ("#include <mma.h>", "", "CUDA's mma.h is not here"),
        ("", 'asm volatile("bar.sync 0;");', "inline PTX does not run on a CPU"),
        ("", 'asm("mov.u32 %0, %1;" : "=r"(*y) : "l"(y));', "inline PTX does not run on a CPU"),
        (
            "",
            'float f = *y; asm("sin.approx.f32 %0, %1;" : "=f"(f) : "f"(f)); *y = f;',
            "inline PTX does not run on a CPU",
        ),
    ],
)
def test_what_only_nvcc_takes_comes_with_a_hint(head: str, body: str, told: str) -> None:
    with pytest.raises(SimtCompileError) as caught:
        simt.compile(f"{head}\n__global__ void k(int *y) {{ {body} }}")
    hint = str(caught.value).splitlines()[-1]
    assert told in hint
    assert "runtime/simt/include/certiconv_ptx.cuh" in hint
    path = next(word for word in hint.replace(",", "").split() if word.endswith("certiconv_ptx.cuh"))
    simt.compile(f'#include "{path}"\n__global__ void k(int *y) {{ certiconv_cp_async_commit(); }}')


def test_other_errors_have_no_hint() -> None:
    with pytest.raises(SimtCompileError) as caught:
        simt.compile('#include "missing.h"\n__global__ void k(int *y) {}')
    assert "ptx" not in str(caught.value)


def test_what_a_kernel_prints_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    program().launch("prints", 2, 32, [np.zeros(1, "i")])
    assert sorted(capsys.readouterr().out.splitlines()) == ["block 0", "block 1"]


def test_variables_of_the_program_start_anew() -> None:
    y = np.zeros(1, "i")
    program().launch("counts", 1, 1, [y], schedules=["forward"])
    program().launch("counts", 1, 1, [y], schedules=["forward"])
    assert y[0] == 10


VARIABLES = r"""
__device__ int zero, ten = 10;
__constant__ float halves[2] = {0.5f, 1.5f};
__managed__ int many[3000];
template <class T> __device__ T shared_by_all = 3;
struct Pair { int a, b; constexpr Pair() : a(7), b(8) {} };
__device__ Pair made;
__global__ void changes(int *y) {
    static int own = 4;
    *y = zero++ + 10 * ten++ + 100 * own++ + 1000 * many[2999]++ + 10000 * shared_by_all<int>++ + 100000 * made.a++;
    *y += (int)(2e6f * halves[1]++);
}
"""


@pytest.mark.parametrize("check", [True, False])
def test_variables_of_the_program_start_each_order_anew(check: bool) -> None:
    y = np.zeros(1, "i")
    for schedules in (["forward"], ["forward", "reverse", "shuffled", 7]):
        simt.launch(VARIABLES, "changes", 1, 1, [y], schedules=schedules, check=check)
        assert y[0] == 0 + 100 + 400 + 0 + 30000 + 700000 + 3000000


@pytest.mark.parametrize("threads", [1, 40])
def test_a_full_stack_is_told(threads: int) -> None:
    for schedule in ("forward", "reverse"):
        with pytest.raises(SimtError, match="crash: the stack of a thread is full"):
            program().launch("recursive", 1, threads, [np.zeros(1, "i")], schedules=[schedule])


def test_a_failed_assertion_is_told() -> None:
    with pytest.raises(SimtError, match=r"crash: .*kernel.cu:\d+: void asserts.*Assertion `.*' failed"):
        program().launch("asserts", 1, 32, [np.zeros(32, "i")])


def test_empty_arrays_and_null_pointers() -> None:
    program().launch("fill", 1, 32, [np.zeros(0, "f"), 0, 1])
    program().launch("fill", 1, 32, [None, 0, 1])
    with pytest.raises(SimtError, match=r"out-of-bounds: y\[0\], 4 bytes: the array has 0 bytes"):
        program().launch("fill", 1, 32, [np.zeros(0, "f"), 1, 1])


def test_arrays_that_overlap_share_a_buffer() -> None:
    x = np.arange(40, dtype="f")
    program().launch("copies", 1, 4, [x[8:12], x[30:34]])
    np.testing.assert_array_equal(x[30:34], [8, 9, 10, 11])
    with pytest.raises(SimtError) as caught:
        program().launch("copies", 1, 32, [x[0:32], x[1:33]])
    assert caught.value.kind == "race"
    assert caught.value.array == "x/y"


def test_arrays_that_are_not_contiguous_are_taken_where_asked() -> None:
    x, y = np.arange(80, dtype="f"), np.zeros(40, "f")
    program().launch("copies", 1, 40, [x[::-2][::-1], y], strided=True)
    np.testing.assert_array_equal(y, x[1:41])


def test_a_checked_and_an_unchecked_run_agree() -> None:
    y = [np.zeros(100, "f"), np.zeros(100, "f")]
    for array, check in zip(y, (True, False), strict=True):
        outcome = simt.launch(SOURCE, "fill", 1, 32, [array, 100, 2.5], check=check)
        assert (outcome.accesses > 0) is check
    np.testing.assert_array_equal(*y)


def test_a_block_inherits_nothing_from_another() -> None:
    y = np.zeros(64, "f")
    with pytest.raises(SimtError, match="uninitialised: s at byte 0"):
        program().launch("inherits", 2, 32, [y])
    simt.launch(SOURCE, "inherits", 2, 32, [y], check=False)
    assert (y[:32] == 1).all()
    assert np.isnan(y[32:]).all()


@pytest.mark.parametrize(
    ("read", "races"),
    [("*bits", True), ("*(volatile unsigned long long *)bits", True), ("atomicCAS(bits, 0ull, 0ull)", False)],
)
def test_a_sum_of_doubles_by_compare_and_swap(read: str, races: bool) -> None:
    text = f"""__global__ void sum(double *y) {{
    unsigned long long *bits = (unsigned long long *)y, old = {read}, seen;
    do {{
        seen = old;
        old = atomicCAS(bits, seen, __double_as_longlong(__longlong_as_double(seen) + threadIdx.x));
    }} while (seen != old);
}}"""
    y = np.zeros(1)
    if races:
        with pytest.raises(SimtError, match=r"race: y\[0\], 8 bytes"):
            simt.launch(text, "sum", 1, 32, [y])
    else:
        simt.launch(text, "sum", 1, 32, [y])
        assert y[0] == 31 * 16
    assert simt.__doc__ is not None
    assert "``atomicCAS(address, 0, 0)`` reads without one" in simt.__doc__


def test_help_lists_each_limit_that_can_be_seen() -> None:
    """Each of these runs without a word, so `help(runtime.simt)` has to say so, in an item of its own."""
    assert simt.__doc__ is not None
    items = [" ".join(item.split()) for item in simt.__doc__.split("\n- ")[1:]]
    unseen = {
        "shifts by a negative number or by the width": "y[0] = 1 << (y[0] + 33);",
        "registers and local arrays that nothing was written to": "int local[4]; y[0] = local[y[0] & 3] & 0;",
        "the bounds of variables of the program": "y[0] = variable[y[0] + 4] & 0;",
    }
    for words, statement in unseen.items():
        assert sum(item.startswith(words) for item in items) == 1, items
        text = f"__device__ int variable[4], other[64]; __global__ void k(int *y) {{ {statement} }}"
        simt.launch(text, "k", 1, 1, [np.zeros(1, "i")])
    assert any(item.startswith("what depends on an undefined result of a shuffle") for item in items)
