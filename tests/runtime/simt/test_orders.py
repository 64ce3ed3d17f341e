"""A result that depends on the order of threads without a race, and the orders that an emitted module runs under."""

import re
import shutil

import numpy as np
import pytest

from codegen.cupy_check import check_cupy
from codegen.emit import emit
from codegen.execution import Refuted
from derive.layers import Conv2d
from runtime.simt import on_cpu
from runtime.simt.modules import TURNS

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

EMITTED = emit(Conv2d(2, 3, 3, padding=1), backend="cupy", input_shape=(2, 2, 5, 4))

# The thread that comes first leaves its number by an atomic, so nothing races; the result is right if it is thread 0.
FIRST = r"""__shared__ int first;
  if (threadIdx.x == 0) first = -1;
  __syncthreads();
  atomicCAS(&first, -1, (int)threadIdx.x);
  __syncthreads();
  const bool right = first == 0;
  if (cell >="""


def planted() -> str:
    """The text, its forward kernel right under one order of threads only."""
    start, end = EMITTED.source.index("// Z[b"), EMITTED.source.index("// dX[b")
    kernel = EMITTED.source[start:end].replace("if (cell >=", FIRST, 1)
    kernel, count = re.subn(r"Z\[cell\] = REAL\((.*)\);", r"Z[cell] = right ? REAL(\1) : REAL(0);", kernel)
    assert count == 1
    return EMITTED.source[:start] + kernel + EMITTED.source[end:]


def test_one_order_may_miss_what_a_check_finds() -> None:
    source = planted()
    check_cupy(
        source, EMITTED.plans, lambda text, **options: on_cpu(text, turns=("forward",), **options), dtype="float32"
    )
    with pytest.raises(Refuted, match="forward"):
        check_cupy(source, EMITTED.plans, on_cpu, dtype="float32")


def test_the_launches_of_a_kernel_take_turns() -> None:
    module = on_cpu(EMITTED.source, turn=1)
    x, w, u = np.zeros((2, 2, 5, 4), "f"), np.zeros((3, 2, 3, 3), "f"), np.zeros(3, "f")
    for _ in range(4):
        module.forward(x, w, u)
    module.input_gradient(np.zeros((2, 3, 5, 4), "f"), w, x.shape)
    orders = [(launched.kernel, launched.outcome.schedules) for launched in module.cupy.launches]
    turned = [TURNS[k % 3] for k in (1, 2, 3, 4)]
    assert orders[:4] == [("compute_Z", (order,)) for order in turned]
    assert orders[4] == ("compute_dX", (TURNS[1],))
