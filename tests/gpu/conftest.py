"""Every test of this folder runs twice: on a CPU by `runtime.simt`, and, asked for with ``-m gpu``, on a GPU."""

import shutil

import pytest

from runtime.device import lacks_for_cupy
from tests.gpu.machines import GPU, SIMT, Machine


@pytest.fixture(params=["simt", pytest.param("gpu", marks=pytest.mark.gpu)])
def machine(request: pytest.FixtureRequest) -> Machine:
    """Where emitted modules run; a GPU that was asked for and is not there fails the test."""
    if request.param == "gpu":
        if (lack := lacks_for_cupy()) is not None:
            pytest.fail(f"no GPU that CuPy can use: {lack}")
        return GPU
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    return SIMT
