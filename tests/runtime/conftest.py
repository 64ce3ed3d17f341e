"""What the tests of `runtime` share: a cache folder that is not the user's, and emission that is not repeated."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import codegen
from runtime import device
from runtime.simt import on_cpu
from runtime.threads import VARIABLES
from tests.runtime.emission import Emission


@pytest.fixture
def emission(monkeypatch: pytest.MonkeyPatch) -> Emission:
    """What was emitted in this test."""
    noted = Emission()
    monkeypatch.setattr(codegen, "emit", noted.emit)
    return noted


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine whose kernels run on the stand-in for CuPy, and whose cache is its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = device.Backend("cupy", True, "a stand-in")
    monkeypatch.setattr(device, "_cupy", lambda: here)
    compiling = importlib.import_module("runtime.compile")  # as an attribute its name is that of a function
    monkeypatch.setattr(compiling, "load_text", on_cpu)
    monkeypatch.setattr("runtime.network.load_text", on_cpu)


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where these tests, and the processes they start, keep what would go to the user's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def blas_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command asks the environment for one thread of BLAS; what it sets must not decide a later test."""
    for name in VARIABLES:
        # Setting and deleting notes the value of now, or that there is none, to be put back.
        monkeypatch.setenv(name, os.environ.get(name, ""))
        if not os.environ[name]:
            monkeypatch.delenv(name)
