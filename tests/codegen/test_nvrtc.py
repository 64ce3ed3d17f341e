"""Emitted CUDA text compiled by CUDA's own compiler, for GPUs that need not be here: it compiles, and nothing spills.

``python -m pytest -m nvrtc`` asks for these tests; NVRTC comes with the extra ``cuda13``, and its headers too, which
text in float16 and bfloat16 includes.
"""

import pytest

from codegen.emit import emit
from runtime.nvrtc import ARCHITECTURES, NvrtcError, include_folders, nvrtc
from tests.codegen.cuda_layers import LAYERS, NUMBERS

pytestmark = pytest.mark.nvrtc
# With 64-bit places a few kernels in halves need more than the 255 registers that a thread of this architecture has.
MAY_SPILL = {("long long", "float16", "sm_80"), ("long long", "bfloat16", "sm_80")}


@pytest.fixture(scope="module", autouse=True)
def compiler() -> None:
    try:
        nvrtc()
    except NvrtcError as error:
        pytest.fail(str(error))  # these tests were asked for: what is missing is no success


@pytest.mark.parametrize(("dtype", "algorithm"), NUMBERS)
@pytest.mark.parametrize("layer", LAYERS)
def test_every_kernel_keeps_its_numbers_in_registers(layer: str, dtype: str, algorithm: str) -> None:
    if dtype in ("float16", "bfloat16") and not include_folders():
        pytest.fail("CUDA's headers are not here; pip install 'cupy-cuda13x[ctk]' brings them")
    conv, shape = LAYERS[layer]
    emitted = emit(conv, backend="cupy", input_shape=shape, dtype=dtype, algorithm=algorithm)
    folders = [f"-I{folder}" for folder in include_folders()]
    for arch in ARCHITECTURES:
        for places in ("int", "long long"):
            usages = nvrtc().compile(emitted.cuda, arch=arch, options=(f"-DINDEX={places}", *folders))
            assert [u.kernel for u in usages] == sorted(kernel.name for kernel in emitted.kernels)
            if (places, dtype, arch) not in MAY_SPILL:
                assert not [u for u in usages if u.spilled], (arch, places)


def test_a_text_that_is_wrong_is_told_in_the_words_of_the_compiler() -> None:
    with pytest.raises(NvrtcError, match=r"does not compile for sm_90:\n.*emitted\.cu\(1\): error"):
        nvrtc().compile("__global__ void f() { x = 1; }")
