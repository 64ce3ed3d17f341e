"""The CUDA text of LeNet compiled by CUDA's own compiler: nothing spills (``python -m pytest -m nvrtc``)."""

import pytest

from codegen.emit import emit
from derive.layers import lenet
from runtime.nvrtc import ARCHITECTURES, NvrtcError, nvrtc

pytestmark = pytest.mark.nvrtc


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_kernel_of_lenet_keeps_its_numbers_in_registers(dtype: str) -> None:
    try:
        compiler = nvrtc()
    except NvrtcError as error:
        pytest.fail(str(error))
    emitted = emit(lenet(), backend="cupy", input_shape=(64, 1, 28, 28), dtype=dtype)
    for arch in ARCHITECTURES:
        for places in ("int", "long long"):
            usages = compiler.compile(emitted.cuda, arch=arch, options=(f"-DINDEX={places}",))
            assert [u.kernel for u in usages] == sorted(kernel.name for kernel in emitted.kernels)
            assert not [u for u in usages if u.spilled], (arch, places)
