"""Factors of products that are fetched several at a time: where that is legal, and that it is seen where not."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from codegen.emit import Emitted, emit
from codegen.execution import Refuted
from codegen.templates.cuda import fetching, layout
from codegen.templates.cuda.fetching import widest
from codegen.templates.cuda.text import Scope
from derive.indices import at_least, interval, var
from derive.layers import Conv1d
from derive.terms import tensor
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
    run_exactly(name, dtype, emitted)


def run_exactly(name: str, dtype: str, emitted: Emitted) -> None:
    from codegen.check import check

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
    from codegen.check import check

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
