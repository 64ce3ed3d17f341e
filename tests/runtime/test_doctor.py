"""`certiconv doctor`: what is found, what is missing, and the command that mends it; machines are played."""

import ctypes
import importlib.util
import shutil
from importlib import metadata
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from runtime import device, doctor, nvrtc
from runtime.cli import main
from runtime.doctor import Finding, examined, holds, to_text


def found(name: str) -> Finding:
    return next(f for f in examined() if f.name == name)


def test_what_numpy_needs_is_here() -> None:
    findings = examined()
    assert holds(findings)
    assert {f.name for f in findings if f.needed} == {
        "package derive", "package codegen", "package runtime", "Python", "numpy", "sympy", "z3-solver",
    }  # fmt: skip


def test_every_finding_that_is_not_right_has_a_remedy() -> None:
    assert all(f.remedy for f in examined() if not f.right)


@pytest.mark.parametrize("name", ["runtime", "codegen"])
def test_a_name_that_another_distribution_has_too_is_told(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {name: ["certiconv", "other"]})
    told = found(f"package {name}")
    assert (told.right, told.found, told.needed) == (False, "also a package of other", True)
    assert told.remedy == "pip uninstall other, then reinstall certiconv"
    assert not holds(examined())


def test_a_package_from_elsewhere_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    elsewhere = SimpleNamespace(origin="/elsewhere/codegen/__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: elsewhere if name == "codegen" else real(name))
    told = found("package codegen")
    assert not told.right
    assert told.found.startswith("imported from /elsewhere, not from ")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "codegen" else real(name))
    assert found("package codegen").found.endswith("codegen/__init__.py is gone")


def test_a_machine_with_nothing_but_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking() -> None:
        raise nvrtc.NvrtcError("NVRTC is not installed here; pip install it")

    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(nvrtc, "nvrtc", lacking)
    monkeypatch.setattr(nvrtc, "include_folders", list)
    monkeypatch.setattr(device, "lacks_for_cupy", lambda: "CuPy is not installed here")
    told = {f.name: f for f in examined()}
    assert told["g++"].found == "not found: runs CUDA text on the CPU"
    assert told["NVRTC"].remedy == "pip install it"
    assert told["CUDA headers"].found == "no cuda_fp16.h, cuda_bf16.h: float16 and bfloat16"
    assert told["backend cupy"].found == "CuPy is not installed here"
    assert holds(examined())


def test_a_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "driver_devices", lambda: 2)
    assert found("CUDA driver").found == "2 GPUs"
    monkeypatch.setattr(device, "driver_devices", lambda: "cuInit returned error 803")
    assert found("CUDA driver").found == "cuInit returned error 803"


OLD_CUPY = "cupy-cuda12x 13.6.0: version 14 or newer is needed"


@pytest.mark.parametrize(
    ("cuda", "wheels", "words", "remedy"),
    [
        (None, {}, "not installed: runs CUDA text on a GPU", "pip install -U 'cupy-cuda13x[ctk]' ml_dtypes"),
        ((12, 4), {}, "not installed: runs CUDA text on a GPU", "pip install -U 'cupy-cuda12x[ctk]' ml_dtypes"),
        ((12, 4), {"cupy-cuda12x": "14.2.0"}, "cupy-cuda12x 14.2.0", ""),
        ((14, 1), {"cupy-cuda13x": "14.2.0"}, "cupy-cuda13x 14.2.0", ""),
        ((13, 0), {"cupy-cuda12x": "13.6.0"}, OLD_CUPY, "pip install -U 'cupy-cuda13x[ctk]' ml_dtypes"),
        (
            (12, 4), {"cupy-cuda13x": "14.2.0"}, "cupy-cuda13x 14.2.0: made for CUDA 13, and the driver is for 12.4",
            "pip uninstall -y cupy-cuda13x && pip install -U 'cupy-cuda12x[ctk]' ml_dtypes; or update NVIDIA's driver",
        ),
        (
            (13, 0), {"cupy-cuda12x": "14.2.0", "cupy-cuda13x": "14.2.0"},
            "cupy-cuda12x 14.2.0, cupy-cuda13x 14.2.0: they overwrite each other",
            "pip uninstall -y cupy-cuda12x cupy-cuda13x && pip install -U 'cupy-cuda13x[ctk]' ml_dtypes",
        ),
    ],
)  # fmt: skip
def test_one_cupy_that_fits_the_driver(
    cuda: tuple[int, int] | None, wheels: dict[str, str], words: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "driver_cuda", lambda: cuda)
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: wheels.get(name) if "cupy" in name else real(name))
    told = found("CuPy")
    assert (told.found, told.right) == (words, remedy == "")
    assert told.right or told.remedy == remedy


@pytest.mark.parametrize("wheels", [{"cupy-cuda13x": "14.2.0"}, {}])
def test_a_cupy_that_is_there_need_not_be_installed_again(
    wheels: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: wheels.get(name) if "cupy" in name else real(name))
    monkeypatch.setattr(device, "driver_cuda", lambda: None)
    monkeypatch.setattr(device, "lacks_for_cupy", lambda: "no CUDA driver is installed here")
    told = found("backend cupy")
    assert told.found == "no CUDA driver is installed here"
    then = ", then pip install -U 'cupy-cuda13x[ctk]' ml_dtypes"
    assert told.remedy == "see the lines above" + ("" if wheels else then)


@pytest.mark.parametrize(
    ("cuda", "devices", "words", "right"),
    [((11, 8), 1, "1 GPU, for CUDA 11.8", False), ((12, 4), 1, "1 GPU, for CUDA 12.4", True),
     ((13, 0), 0, "no GPU, for CUDA 13.0", False), (None, 3, "3 GPUs", True)],
)  # fmt: skip
def test_a_driver_that_is_new_enough(
    cuda: tuple[int, int] | None, devices: int, words: str, right: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "driver_cuda", lambda: cuda)
    monkeypatch.setattr(device, "driver_devices", lambda: devices)
    told = found("CUDA driver")
    assert (told.found, told.right) == (words, right)
    assert right or ("update NVIDIA's driver to one for CUDA 12 or newer" in told.remedy) == (devices > 0)


def test_the_version_of_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(found: Any) -> int:
        found._obj.value = 12040
        return 0

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(cuDriverGetVersion=version))
    assert device.driver_cuda() == (12, 4)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(cuDriverGetVersion=lambda _: 1))
    assert device.driver_cuda() is None


def test_the_lines() -> None:
    lines = to_text(
        [Finding("numpy", True, "2.0"), Finding("sympy", False, "not installed", "pip install sympy", True)]
    )
    assert (
        lines
        == "ok numpy           2.0\nNO sympy           not installed\n                   mend: pip install sympy\n"
    )


def test_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    right, wrong = Finding("backend cupy", True, "here"), Finding("backend cupy", False, "no GPU", "buy one")
    for finding, arguments, status in ((right, [], 0), (wrong, [], 0), (wrong, ["--backend", "cupy"], 1),
                                       (right, ["--backend", "cupy"], 0)):  # fmt: skip
        monkeypatch.setattr(doctor, "examined", lambda finding=finding: [finding])
        ran = CliRunner().invoke(main, ["doctor", *arguments])
        assert (ran.exit_code, "backend cupy" in ran.stdout) == (status, True)
    assert CliRunner().invoke(main, ["doctor", "--backend", "jax"]).exit_code == 2
