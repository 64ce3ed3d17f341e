"""Shared arrays and variables of a program: what is counted, how they are aligned, what they start with."""

import shutil

import numpy as np
import pytest

from runtime.simt import LaunchError, SimtCompileError, SimtError, compile  # noqa: A004 - as runtime.compile

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

KERNEL = """
extern "C" __global__ void NAME(float *y) {
    __shared__ float s[SIZE];
    s[threadIdx.x] = threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = s[31 - threadIdx.x];
}
"""


def kernel(name: str, size: int) -> str:
    return KERNEL.replace("NAME", name).replace("SIZE", str(size))


def test_two_kernels_may_have_more_together_than_one_may_have() -> None:
    program = compile(kernel("first", 9000) + kernel("second", 8000))
    for name in ("first", "second"):
        y = np.zeros(32, np.float32)
        program.launch(name, 1, 32, [y])
        np.testing.assert_array_equal(y, np.arange(32)[::-1])


def test_one_kernel_may_not() -> None:
    program = compile(kernel("first", 13000) + kernel("second", 32))
    with pytest.raises(LaunchError, match="static shared memory: 52000 bytes are more than 49152"):
        program.launch("first", 1, 32, [np.zeros(32, np.float32)])
    program.launch("second", 1, 32, [np.zeros(32, np.float32)])


# --- alignment and initialisation ---------------------------------------------------------------------------------

ALIGNED = """
struct alignas(float4) Quad { float a; };
__global__ void by_type(float *y) {
    __shared__ alignas(float4) float s[32];
    s[threadIdx.x] = sizeof(Quad);
    __syncthreads();
    y[threadIdx.x] = ((const float4 *)s)[threadIdx.x / 4].x;
}
__global__ void by_number(float *y) {
    alignas(2 * sizeof(double)) __shared__ float s[32];
    s[threadIdx.x] = alignof(Quad);
    __syncthreads();
    y[threadIdx.x] = ((const float4 *)(s OFFSET))[threadIdx.x / 8].x;
}
"""


@pytest.mark.parametrize("kernel", ["by_type", "by_number"])
def test_an_alignment_is_a_type_or_a_number(kernel: str) -> None:
    y = np.zeros(32, np.float32)
    compile(ALIGNED, defines={"OFFSET": ""}).launch(kernel, 1, 32, [y])
    assert (y == 16).all()


def test_what_is_less_aligned_is_told() -> None:
    with pytest.raises(SimtError) as caught:
        compile(ALIGNED, defines={"OFFSET": "+ 2"}).launch("by_number", 1, 32, [np.zeros(32, np.float32)])
    assert caught.value.kind == "misaligned"


CONSTRUCTED = """
struct Number {
    float x;
    Number() = default;
    __device__ CONSTEXPR Number(float v) : x(v) {}
};
__device__ VARIABLE
__global__ void reads(float *y) { y[threadIdx.x] = n.x; }
"""


def test_a_variable_of_the_program_may_have_a_constant_constructor() -> None:
    y = np.zeros(32, np.float32)
    compile(CONSTRUCTED, defines={"CONSTEXPR": "constexpr", "VARIABLE": "Number n(3);"}).launch("reads", 1, 32, [y])
    assert (y == 3).all()
    compile(CONSTRUCTED, defines={"CONSTEXPR": "", "VARIABLE": "Number n;"}).launch("reads", 1, 32, [y])
    assert (y == 0).all()


@pytest.mark.parametrize(
    "text",
    [
        CONSTRUCTED.replace("CONSTEXPR", "").replace("VARIABLE", "Number n(3);"),
        "__device__ float f(float x) { return x; } __device__ float v = f(3); __global__ void k(float *y) { *y = v; }",
        "__global__ void k(float *y) { static float v = y[0]; *y = v; }",
    ],
    ids=["constructor", "call", "static in a function"],
)
def test_one_that_is_initialised_at_run_time_is_refused_in_words(text: str) -> None:
    with pytest.raises(SimtCompileError, match="initialised at run time, by a constructor or a call, and CUDA has"):
        _ = compile(text).kernels
