"""Static shared memory is counted for the kernel that is launched, not for the whole text."""

import shutil

import numpy as np
import pytest

from runtime.simt import LaunchError, compile  # noqa: A004 - as runtime.compile

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
