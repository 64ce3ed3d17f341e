"""The stand-in for CuPy: a module written for CuPy runs on it, and it is stricter where CuPy is silently wrong."""

import shutil
import sys
from types import ModuleType

import numpy as np
import pytest

from codegen.field import Element, P
from runtime.simt import LaunchError, SimtError
from runtime.simt.cupy_standin import CupyStandIn

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

MODULE = r'''
import cupy

CODE = r"""
#ifndef REAL
#define REAL float
#endif
extern "C" __global__ void scale(const REAL *x, REAL *y, int n, REAL by, long long stride) {
    extern __shared__ REAL s[];
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    s[threadIdx.x] = i < n ? x[stride * i] : REAL(0);
    __syncthreads();
    if (i < n) y[i] = s[threadIdx.x] * by + REAL(OFFSET);
}
template <int N> __global__ void filled(int *y) { y[threadIdx.x] = N; }
"""
kernels = cupy.RawModule(code=CODE, options=("-std=c++17", "-DOFFSET=1"), name_expressions=["filled<7>"])
scale = kernels.get_function("scale")

def forward(x, by, stop=None):
    y = cupy.empty(len(x), dtype=cupy.float32)
    n = len(x) if stop is None else stop
    with cupy.cuda.get_current_stream():
        scale((-(-n // 32),), (32,), (x, y, cupy.int32(n), by, cupy.int64(x.strides[0] // x.itemsize)), shared_mem=256)
    return y

def read_what_was_left():
    y = forward(cupy.zeros(8, cupy.float32), cupy.float32(1), stop=5)
    return forward(y, cupy.float32(1))

def filled():
    y = cupy.zeros(32, cupy.int32)
    kernels.get_function("filled<7>")((1,), (32,), (y,))
    return y
'''


def loaded(stand_in: CupyStandIn) -> ModuleType:
    module = ModuleType("emitted")
    with stand_in.installed():
        exec(compile(MODULE, "emitted", "exec"), module.__dict__)
    return module


def test_a_module_for_cupy_runs() -> None:
    stand_in = CupyStandIn()
    module = loaded(stand_in)
    x = np.arange(80, dtype="f")
    np.testing.assert_array_equal(module.forward(x, np.float32(3)), 3 * x + 1)
    np.testing.assert_array_equal(module.forward(x[::-2], np.float32(3)), 3 * x[::-2] + 1)
    np.testing.assert_array_equal(module.filled(), 7)
    assert [launch.kernel for launch in stand_in.launches] == ["scale", "scale", "filled<7>"]
    assert stand_in.launches[0].grid == (3,)
    assert stand_in.launches[0].outcome.written == ("y",)


def test_it_leaves_no_trace_among_the_modules() -> None:
    before = sys.modules.get("cupy")
    loaded(CupyStandIn())
    assert sys.modules.get("cupy") is before


def test_the_same_module_runs_over_the_field() -> None:
    stand_in = CupyStandIn(defines={"REAL": "certiconv_field"}, names={"float32": np.uint64}, field_key=3)
    x = np.array([5, P - 1], "u8")
    y = loaded(stand_in).forward(x, Element.ratio(1, 3, None))
    assert [Element(v) * 3 for v in y.tolist()] == [5 + 3, -1 + 3]


def test_what_empty_gives_must_be_written_before_it_is_read() -> None:
    with pytest.raises(SimtError, match=r"uninitialised: x\[5\]"):
        loaded(CupyStandIn()).read_what_was_left()


def test_a_number_must_have_the_type_of_its_parameter() -> None:
    with pytest.raises(LaunchError, match=r"argument by=2.5 of scale is float64.*nearest legal: numpy.float32\(2.5\)"):
        loaded(CupyStandIn()).forward(np.zeros(4, "f"), 2.5)


def test_much_shared_memory_must_be_asked_for() -> None:
    module = loaded(CupyStandIn())
    args = (np.zeros(4, "f"), np.zeros(4, "f"), np.int32(4), np.float32(1), np.int64(1))
    with pytest.raises(LaunchError, match="shared_mem=65536 is more than max_dynamic_shared_size_bytes=49152 of scale"):
        module.scale((1,), (32,), args, shared_mem=65536)
    module.scale.max_dynamic_shared_size_bytes = 65536
    module.scale((1,), (32,), args, shared_mem=65536)


def test_the_device_and_the_names_of_numpy() -> None:
    stand_in = CupyStandIn()
    assert stand_in.cuda.Device().compute_capability == "80"
    assert stand_in.ndarray is np.ndarray
    assert np.isnan(stand_in.empty_like(np.zeros((2, 3), order="F"))).all()


def test_a_stream_captures_launches_and_runs_them_when_told_to() -> None:
    module = loaded(stand_in := CupyStandIn())
    x, y, factor = np.ones(4, "f"), np.zeros(4, "f"), np.float32(2)
    stream = stand_in.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        module.scale((1,), (32,), (x, y, np.int32(4), factor, np.int64(1)), shared_mem=256)
        graph = stream.end_capture()
    np.testing.assert_array_equal(y, 0)
    x[:] = 5
    graph.launch(stream)
    np.testing.assert_array_equal(y, 11)
    assert len(stand_in.launches) == 1


def test_a_capture_makes_no_array_and_waits_for_nothing() -> None:
    module = loaded(stand_in := CupyStandIn())
    stream = stand_in.cuda.Stream(non_blocking=True)
    x = np.ones(4, "f")
    stream.begin_capture()
    with pytest.raises(LaunchError, match=r"cupy\.empty makes an array while a stream captures"):
        module.forward(x, np.float32(1))
    with pytest.raises(LaunchError, match=r"cupy\.zeros makes an array"):
        stand_in.zeros(3)
    with pytest.raises(LaunchError, match="nothing can be waited for"):
        stream.synchronize()
    with pytest.raises(LaunchError, match="captures already"):
        stream.begin_capture()
    assert stream.is_capturing()
    assert stream.end_capture().launches == ()
    with pytest.raises(LaunchError, match="no stream captures"):
        stream.end_capture()
    with pytest.raises(LaunchError, match="the null stream cannot capture"):
        stand_in.cuda.Stream.null.begin_capture()


def test_events_count_launches() -> None:
    module = loaded(stand_in := CupyStandIn())
    start, stop = stand_in.cuda.Event(), stand_in.cuda.Event()
    with pytest.raises(LaunchError, match="not recorded"):
        stand_in.cuda.get_elapsed_time(start, stop)
    start.record()
    module.filled()
    module.filled()
    stop.record()
    stop.synchronize()
    assert stand_in.cuda.get_elapsed_time(start, stop) == 3.0
