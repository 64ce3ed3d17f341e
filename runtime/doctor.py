"""What this machine has for certiconv, what it lacks, and the command that mends it.

Each `Finding` is one thing that was looked for.  What NumPy's backend needs is *needed*; what the GPU's needs, and what
single features use, is *optional*, and its absence says which feature it is that does without.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from runtime import device

PACKAGES = ("derive", "codegen", "runtime")
OPTIONAL = {
    "scipy": ("a peer in certiconv bench", "pip install scipy"),
    "torch": ("a peer in certiconv bench, and the oracle of tests", "pip install torch"),
    "ml_dtypes": ("bfloat16 for CuPy", "pip install ml_dtypes"),
    "threadpoolctl": ("holds BLAS at one thread", "pip install threadpoolctl"),
}
WHEELS = {"cupy": 0, "cupy-cuda12x": 12, "cupy-cuda13x": 13}  # what CuPy may be called, and the CUDA it is made for
CUPY, OLDEST, NEWEST = 14, 12, 13  # the first CuPy that will do; what CUDA there is one for
HEADERS = ("cuda_fp16.h", "cuda_bf16.h")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for: its name, whether it is right, what was found, and how to mend it."""

    name: str
    right: bool
    found: str
    remedy: str = ""
    needed: bool = False


def examined() -> list[Finding]:
    """Everything that is looked for, in the order in which a reader wants it."""
    return [*_names(), *_libraries(), _compiler(), *_gpu()]


def _names() -> Iterator[Finding]:
    """The three packages: imported from one place, and claimed by no other distribution.

    ``runtime`` and ``codegen`` are names that others may have too, and the last one installed wins.  What keeps the
    command from starting at all, `runtime.entry` tells.
    """
    root = Path(__file__).parent.parent
    claimed = metadata.packages_distributions()
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        origin = Path(spec.origin).parent.parent if spec is not None and spec.origin else None
        others = sorted({d for d in claimed.get(name, ()) if d != "certiconv"})
        if origin is None:
            yield Finding(
                f"package {name}", False, f"not whole: {root / name / '__init__.py'} is gone", "reinstall certiconv",
                needed=True,
            )  # fmt: skip
        elif origin != root:
            yield Finding(
                f"package {name}", False, f"imported from {origin}, not from {root}",
                f"start Python elsewhere, or uninstall what holds {name} there", needed=True,
            )  # fmt: skip
        elif others:
            yield Finding(
                f"package {name}", False, f"also a package of {', '.join(others)}",
                f"pip uninstall {' '.join(others)}, then reinstall certiconv", needed=True,
            )  # fmt: skip
        else:
            yield Finding(f"package {name}", True, str(origin / name), needed=True)


def _libraries() -> Iterator[Finding]:
    yield Finding(
        "Python", sys.version_info >= (3, 11), sys.version.split()[0], "use Python 3.11 or newer", needed=True
    )
    for name in ("numpy", "sympy", "z3-solver"):
        version = _version(name)
        yield Finding(name, version is not None, version or "not installed", "pip install certiconv", needed=True)
    for name, (use, command) in OPTIONAL.items():
        version = _version(name)
        yield Finding(name, version is not None, version or f"not installed: {use}", command)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _compiler() -> Finding:
    path = shutil.which("g++")
    return Finding("g++", path is not None, path or "not found: runs CUDA text on the CPU", "apt-get install g++")


def _gpu() -> Iterator[Finding]:
    cuda = device.driver_cuda()
    yield _driver(cuda)
    cupy = _cupy(cuda)
    yield cupy
    yield _nvrtc()
    yield _headers()
    lack = device.lacks_for_cupy()
    found = lack or "a kernel was compiled and launched"
    remedy = "see the lines above" + ("" if cupy.right else f", then {cupy.remedy}")
    yield Finding("backend cupy", lack is None, found, remedy)


def _driver(cuda: tuple[int, int] | None) -> Finding:
    """The driver, how many GPUs it sees, and whether a CuPy of today runs on it."""
    name = "CUDA driver"
    try:
        devices = device.driver_devices()
    except OSError:
        return Finding(name, False, "not found", "install NVIDIA's driver (needs a GPU)")
    if isinstance(devices, str):
        return Finding(name, False, devices, "reinstall NVIDIA's driver")
    found = ("no GPU", "1 GPU")[devices] if devices < 2 else f"{devices} GPUs"
    found += f", for CUDA {cuda[0]}.{cuda[1]}" if cuda else ""
    if cuda is not None and cuda[0] < OLDEST:
        return Finding(name, False, found, f"update NVIDIA's driver to one for CUDA {OLDEST} or newer")
    return Finding(name, devices > 0, found, "put in a GPU, or let this process see one (CUDA_VISIBLE_DEVICES)")


def _cupy(cuda: tuple[int, int] | None) -> Finding:
    """One CuPy, new enough for this program and not too new for the driver."""
    wheels = {name: version for name in WHEELS if (version := _version(name)) is not None}
    if not wheels:
        return Finding("CuPy", False, "not installed: runs CUDA text on a GPU", _install(cuda))
    found = ", ".join(f"{name} {version}" for name, version in wheels.items())
    if len(wheels) > 1:
        first = f"pip uninstall -y {' '.join(wheels)} && {_install(cuda)}"
        return Finding("CuPy", False, f"{found}: they overwrite each other", first)
    ((name, version),) = wheels.items()
    if int(version.partition(".")[0]) < CUPY:
        return Finding("CuPy", False, f"{found}: version {CUPY} or newer is needed", _install(cuda))
    if cuda is not None and (asks := WHEELS[name]) > cuda[0]:
        told = f"{found}: made for CUDA {asks}, and the driver is for {cuda[0]}.{cuda[1]}"
        return Finding("CuPy", False, told, f"pip uninstall -y {name} && {_install(cuda)}; or update NVIDIA's driver")
    return Finding("CuPy", True, found)


def _install(cuda: tuple[int, int] | None) -> str:
    """The command that brings the CuPy for a driver, with what compiles for it; the newest where there is none."""
    major = NEWEST if cuda is None else max(OLDEST, min(cuda[0], NEWEST))
    return f"pip install -U 'cupy-cuda{major}x[ctk]' ml_dtypes"


def _nvrtc() -> Finding:
    from runtime.nvrtc import NvrtcError, nvrtc

    try:
        major, minor = nvrtc().version
    except NvrtcError as error:
        return Finding("NVRTC", False, "not found: compiles CUDA text", str(error).partition("; ")[2])
    return Finding("NVRTC", True, f"{major}.{minor}")


def _headers() -> Finding:
    """CUDA's headers, which text in float16 and bfloat16 includes."""
    from runtime.nvrtc import include_folders

    missing = [name for name in HEADERS if not any((Path(f) / name).is_file() for f in include_folders())]
    return Finding(
        "CUDA headers", not missing, f"no {', '.join(missing)}: float16 and bfloat16" if missing else "found",
        _install(device.driver_cuda()),
    )  # fmt: skip


def to_text(findings: list[Finding]) -> str:
    """A line for each, and under what is missing the command that mends it.

    >>> print(to_text([Finding("g++", False, "not found: runs CUDA text on the CPU", "apt-get install g++")]), end="")
    -  g++             not found: runs CUDA text on the CPU
                       mend: apt-get install g++
    """
    lines = []
    for f in findings:
        mark = "ok" if f.right else "NO" if f.needed else "- "
        lines.append(f"{mark} {f.name:<15} {f.found}")
        if not f.right and f.remedy:
            lines.append(f"{'':<18} mend: {f.remedy}")
    return "\n".join(lines) + "\n"


def holds(findings: list[Finding]) -> bool:
    """Whether everything that is needed is right."""
    return all(f.right for f in findings if f.needed)


__all__ = ["Finding", "examined", "holds", "to_text"]
