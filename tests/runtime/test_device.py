"""Which backends work, and what a user reads when one does not; what a machine may lack is played, one by one."""

import ctypes
import importlib.util
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from runtime import device
from runtime.device import Backend, BackendError, backends, choose
from runtime.simt.cupy_standin import CupyStandIn


@pytest.fixture(autouse=True)
def asked_afresh() -> Iterator[None]:
    device._cupy.cache_clear()
    yield
    device._cupy.cache_clear()


class Driver:
    """CUDA's driver library with given answers."""

    def __init__(self, init: int = 0, count: int = 0, devices: int = 0) -> None:
        self.init, self.count, self.devices = init, count, devices

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        return self.init

    def cuDeviceGetCount(self, found: object) -> int:
        found._obj.value = self.devices  # type: ignore[attr-defined]
        return self.count


def no_driver(_: str) -> Driver:
    raise OSError("libcuda.so.1: cannot open shared object file")


MACHINES: list[tuple[bool, Callable[[str], Driver], str]] = [
    (False, no_driver, "CuPy is not installed here"),
    (True, no_driver, "no CUDA driver is installed here"),
    (True, lambda _: Driver(init=100), "the CUDA driver finds no GPU here"),
    (True, lambda _: Driver(init=803), "the CUDA driver does not start here: cuInit returned error 803"),
    (True, lambda _: Driver(count=3), "the CUDA driver does not start here: cuDeviceGetCount returned error 3"),
    (True, lambda _: Driver(devices=0), "the CUDA driver finds no GPU here"),
    (True, lambda _: Driver(devices=2), "CuPy cannot run a kernel here: ModuleNotFoundError: "),
]


@pytest.mark.parametrize(("cupy", "driver", "words"), MACHINES)
def test_why_cupy_does_not_work(
    cupy: bool, driver: Callable[[str], Driver], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if cupy else None)
    monkeypatch.setattr(ctypes, "CDLL", driver)
    monkeypatch.setitem(sys.modules, "cupy", None)
    found = backends()
    assert found["numpy"] == Backend("numpy", True, "NumPy is always there")
    assert not found["cupy"].works
    assert found["cupy"].why.startswith(words)
    assert choose("auto") == "numpy"
    with pytest.raises(BackendError) as refused:
        choose("cupy")
    assert str(refused.value) == f"backend='cupy' does not work here: {found['cupy'].why}; nearest legal: 'numpy'"


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_where_a_kernel_runs_cupy_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(devices=1))
    with CupyStandIn().installed():
        assert backends()["cupy"] == Backend("cupy", True, "a kernel was compiled and launched")
        assert choose("auto") == choose("cupy") == "cupy"


def test_a_kernel_that_writes_something_else_is_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(devices=1))
    silent = SimpleNamespace(
        zeros=lambda n, dtype: [0] * n,
        int32=int,
        RawModule=lambda **_: SimpleNamespace(get_function=lambda name: lambda *_: None),
    )
    monkeypatch.setitem(sys.modules, "cupy", silent)
    assert backends()["cupy"] == Backend("cupy", False, "a kernel that writes 42 wrote 0 here")


def test_the_machine_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(importlib.util, "find_spec", asked.append)
    for _ in range(3):
        backends()
    assert asked == ["cupy"]


def test_choosing_imports_neither_cupy_nor_numpy() -> None:
    code = (
        "import sys; from runtime.device import choose; choose(); "
        "print([m for m in ('cupy', 'numpy', 'sympy', 'z3') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"


def test_an_unknown_name_is_refused_with_the_legal_ones() -> None:
    with pytest.raises(BackendError, match=r"backend='jax' is unknown; legal: 'auto', 'numpy', 'cupy'"):
        choose("jax")
