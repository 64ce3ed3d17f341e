"""Factors of products that are fetched several at a time: where that is legal, and that it is seen where not."""

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from codegen.check import check
from codegen.emit import Emitted, emit
from codegen.execution import Refuted
from codegen.templates.cuda import fetching, layout
from codegen.templates.cuda.fetching import widest
from codegen.templates.cuda.text import Scope
from derive.indices import at_least, interval, var
from derive.layers import Conv1d, lenet
from derive.terms import tensor
from runtime.arrays import ArrayError
from runtime.border import Gpu
from runtime.gpu_arrays import checked_on_gpu
from tests.codegen.cupy_on_cpu import needs_compiler, on_cpu

N, C, H = var(0), var(1), var(2)


def scope(n: int, c: int, h: int) -> Scope:
    return Scope(("n", "c", "h"), (interval(0, n), interval(0, c), interval(0, h)))


@pytest.mark.parametrize(
    ("at", "sizes", "levels", "size", "wanted"),
    [
        ((N, C, H), (4, 8, 12), (2,), 4, 4),
        ((N, C, H), (4, 8, 12), (2,), 8, 2),
        ((N, C, H), (4, 8, 12), (2,), 2, 4),
        ((N, C, H), (4, 8, 9), (1, 2), 2, 8),
        ((N, C, H), (4, 8, 9), (2,), 4, 1),
        ((N, C, H), (4, 8, 6), (2,), 4, 2),
        ((N, C, H), (4, 3, 3), (1, 2), 4, 1),
        ((N, C, H), (4, 8, 12), (1,), 4, 1),
        ((N, C, H), (4, 8, 12), (2, 1), 4, 1),
        ((N, C, 2 * H), (4, 8, 6), (2,), 4, 1),
        ((N, C, H + 1), (4, 8, 12), (2,), 4, 1),
        ((N, C, H + N), (4, 8, 8), (2,), 4, 1),
        ((N, C, H - H // 2), (4, 8, 8), (2,), 4, 1),
    ],
)
def test_the_widest_access(
    at: tuple[Any, ...], sizes: tuple[int, int, int], levels: tuple[int, ...], size: int, wanted: int
) -> None:
    there = scope(*sizes)
    box = (4, sizes[1], 12 if at != (N, C, H) else sizes[2])
    assert widest(tensor("X", *box)[at], (), there, levels, size=size) == wanted


def test_a_condition_on_a_variable_of_the_run_forbids_it() -> None:
    read, there = tensor("X", 4, 8, 12)[N, C, H], scope(4, 8, 12)
    assert widest(read, (at_least(C, 1),), there, (2,), size=4) == 4
    assert widest(read, (at_least(H, 1),), there, (2,), size=4) == 1
    assert widest(read, (at_least(H, 0),), there, (2,), size=4) == 4


POINTWISE = Conv1d(16, 8, 1), (3, 16, 8)
LAYERS = {
    "pointwise": POINTWISE,
    "kernels of three": (Conv1d(8, 12, 3, padding=1), (2, 8, 12)),
    "strided": (Conv1d(8, 8, 2, stride=2), (2, 8, 16)),
}


def made(name: str, dtype: str) -> Emitted:
    layer, shape = LAYERS[name]
    return emit(layer, backend="cupy", input_shape=shape, dtype=dtype)


@needs_compiler
@pytest.mark.parametrize(
    ("name", "dtype"),
    [("pointwise", "float32"), ("pointwise", "float16"), ("kernels of three", "float64"), ("strided", "float32")],
)
def test_layers_are_exact_with_every_access_watched(name: str, dtype: str) -> None:
    emitted = made(name, dtype)
    assert "load<" in emitted.cuda
    check(emitted, executor=on_cpu)


def begun_one_later(patch: pytest.MonkeyPatch) -> None:
    """Every vector begins one element late."""
    original = layout.Scope.offset
    patch.setattr(layout.Scope, "offset", lambda *a: f"{original(*a)} + 1")


def too_wide(patch: pytest.MonkeyPatch) -> None:
    """Vectors are twice as long as what divides."""
    original = fetching.widest
    patch.setattr(fetching, "widest", lambda *a, **k: 2 * original(*a, **k) if original(*a, **k) == 2 else 1)


@needs_compiler
@pytest.mark.parametrize(
    ("plant", "layer", "shape"),
    [
        (begun_one_later, *POINTWISE),
        (too_wide, Conv1d(10, 8, 1), (3, 10, 5)),
    ],
)
def test_what_is_no_legal_access_is_seen(
    plant: Any, layer: Conv1d, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    emitted = emit(layer, backend="cupy", input_shape=shape)
    assert "load<" in emitted.cuda
    with pytest.raises(Refuted):
        check(emitted, executor=on_cpu)


# --- where arrays begin -----------------------------------------------------------------------------------------


class OnGpu(np.ndarray):  # type: ignore[type-arg]
    """An array that tells the address at which it lies, as CuPy's does."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return type("Pointer", (), {"ptr": self.ctypes.data})()


def placed(shape: tuple[int, ...], past: int) -> Any:
    """Zeros that begin so many elements behind a multiple of 16 bytes."""
    room = np.zeros(int(np.prod(shape)) + 16, np.float32)
    start = -room.ctypes.data // 4 % 4 + past
    return room[start : start + int(np.prod(shape))].reshape(shape).view(OnGpu)


@pytest.fixture
def module() -> ModuleType:
    return on_cpu(made("pointwise", "float32").source)


@needs_compiler
def test_a_module_refuses_arrays_that_begin_elsewhere(module: ModuleType) -> None:
    assert module.ALIGNED == {"input": 16, "grad_output": 16, "weight": 16}
    x, w, u = np.zeros((3, 16, 8), "f"), np.zeros((8, 16, 1), "f"), np.zeros(8, "f")
    assert module._array("input", placed((3, 16, 8), 0)).shape == x.shape
    with pytest.raises(ValueError, match=r"input begins 4 bytes behind a multiple of 16; several .* as a copy does"):
        module.forward(placed((3, 16, 8), 1), w, u)
    with pytest.raises(ValueError, match="weight begins 8 bytes behind a multiple of 16"):
        module.forward(x, placed((8, 16, 1), 2), u)
    assert module._array("bias", placed((8,), 3)).shape == (8,)


# What of CuPy the border asks for, which keeps the address of an array.
CUPY = SimpleNamespace(ndarray=np.ndarray, ascontiguousarray=lambda a: np.asanyarray(a, order="C"))


def test_the_border_copies_what_begins_elsewhere_and_nothing_else() -> None:
    for past, multiple, same in [(0, 16, True), (1, 16, False), (2, 16, False), (2, 8, True), (1, 1, True)]:
        given = placed((3, 4), past)
        found = checked_on_gpu(CUPY, "x", given, shape=(None, 4), dtype="float32", multiple=multiple)
        assert (found is given) == same
        assert found.data.ptr % multiple == 0
        assert (found == given).all()


def test_a_parameter_that_begins_elsewhere_is_refused() -> None:
    border = Gpu(CUPY, {"params['w']": 16})
    shapes = {"w": (4, 4), "u": (4,)}
    right = {"w": placed((4, 4), 0), "u": placed((4,), 1)}
    assert border.parameters(right, shapes, dtype="float32")["u"] is right["u"]
    with pytest.raises(ArrayError, match=r"params\['w'\] begins 8 bytes behind a multiple of 16.*\.copy\(\)"):
        border.parameters({**right, "w": placed((4, 4), 2)}, shapes, dtype="float32")


@needs_compiler
def test_a_network_says_where_its_parameters_begin() -> None:
    """400 = 16 * 25, 120 and 84 inputs are multiples of four; 150 terms of the second convolution of two."""
    module = on_cpu(emit(lenet(), backend="cupy", input_shape=(2, 1, 28, 28)).source)
    wide = {f"params['{layer}.weight']": 16 for layer in (7, 9, 11)}
    assert {"params['3.weight']": 8, **wide} == module.ALIGNED
    with pytest.raises(ValueError, match=r"params\['7.weight'\] begins 4 bytes behind a multiple of 16"):
        module._array("params['7.weight']", placed((120, 400), 1))
