"""Where a run takes place: a GPU through CuPy, or the stand-in on a CPU; and what it says of itself."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import importlib.util
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import codegen
from runtime.device import lacks_for_cupy
from runtime.simt.cupy_standin import CupyStandIn

PACKAGES = ("certiconv", "numpy", "cupy", "cupy-cuda13x", "cupy-cuda12x", "torch", "ml_dtypes")


@dataclass(frozen=True)
class Machine:
    """CuPy or its stand-in, how a text becomes a module, PyTorch or None, and where PyTorch computes."""

    cupy: Any
    load: Callable[[str], ModuleType]
    torch: Any
    device: str
    real: bool

    def described(self) -> dict[str, str]:
        """The device, the driver, and the versions of everything that took part."""
        versions = {name: v for name in PACKAGES if (v := _version(name)) is not None}
        told = {"date": dt.datetime.now(dt.UTC).date().isoformat(), **self._device()}
        told["packages"] = ", ".join(f"{name} {version}" for name, version in versions.items())
        if self.torch is None:
            told["PyTorch"] = "not here, or without CUDA: only ours and the roof were measured"
        elif self.real:
            told["cuDNN"] = str(self.torch.backends.cudnn.version())
        return told

    def _device(self) -> dict[str, str]:
        if not self.real:
            return {"device": "none: runtime.simt on a CPU; not a measurement"}
        run = self.cupy.cuda.runtime
        properties = run.getDeviceProperties(run.getDevice())
        name = properties["name"]
        return {
            "device": name.decode() if isinstance(name, bytes) else str(name),
            "driver": _driver(),
            "CUDA": f"driver {run.driverGetVersion()}, runtime {run.runtimeGetVersion()}, "
            f"NVRTC {'.'.join(map(str, self.cupy.cuda.nvrtc.getVersion()))}",
        }


def gpu(*, with_torch: bool) -> Machine:
    """This machine's GPU.

    Raises RuntimeError where there is none that CuPy can use.
    """
    if (lack := lacks_for_cupy()) is not None:
        raise RuntimeError(f"{lack}; --simt runs the script without a GPU")
    import cupy

    torch = _torch() if with_torch else None
    if torch is not None and not torch.cuda.is_available():
        torch = None
    return Machine(cupy, codegen.load, torch, "cuda", real=True)


def simt(*, with_torch: bool) -> Machine:
    """The stand-in, beside PyTorch on the CPU."""
    stand_in = CupyStandIn(schedules=("forward",))

    def load(source: str) -> ModuleType:
        with stand_in.installed():
            return codegen.load(source)

    return Machine(stand_in, load, _torch() if with_torch else None, "cpu", real=False)


def _torch() -> Any:
    if importlib.util.find_spec("torch") is None:
        return None
    import torch

    return torch


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str:
    """The driver's version and the clocks, as NVIDIA's tool says; it may be missing in a container."""
    command = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "nvidia-smi does not say"
    return done.stdout.strip().splitlines()[0]
