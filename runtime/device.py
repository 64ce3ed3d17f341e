"""Which backends work here, and why one does not.

NumPy works always.  CuPy needs a package, a driver, a GPU, and CUDA's run-time compiler with its headers; whatever is
missing first is the reason that is given, and `LACKS` has the command that mends it.

Asking is cheap.  The driver is asked through its C library, so CuPy is not imported to find that there is no GPU.
Where there is one, a kernel of one thread is compiled and launched, since nothing less shows that it can be.  The
answer is kept: neither drivers nor GPUs come and go while a program runs.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import sys
from dataclasses import dataclass

BACKENDS = ("numpy", "cupy")
"""The backends that have a name, the fastest last."""


class BackendError(ValueError):
    """A backend that does not exist or does not work here; the text says why and which one does."""


@dataclass(frozen=True)
class Backend:
    """One backend: whether it works here, and why it does or does not.

    >>> backends()["numpy"].works
    True
    """

    name: str
    works: bool
    why: str


def backends() -> dict[str, Backend]:
    """Every backend by its name, in the order of ``BACKENDS``.

    >>> list(backends())
    ['numpy', 'cupy']
    """
    return {"numpy": Backend("numpy", True, "NumPy is always there"), "cupy": _cupy()}


def choose(name: str = "auto") -> str:
    """The backend to use.

    Args:
        name: "auto" takes the fastest that works here; any other name is that backend or an error.

    Raises:
        BackendError: the name is unknown, or that backend does not work here.

    >>> choose("auto")
    'numpy'
    >>> choose("cuda")
    Traceback (most recent call last):
    runtime.device.BackendError: backend='cuda' is unknown; legal: 'auto', 'numpy', 'cupy'
    """
    known = backends()
    if name == "auto":
        return next(n for n in reversed(known) if known[n].works)
    if name not in known:
        legal = ", ".join(repr(n) for n in ("auto", *known))
        raise BackendError(f"backend={name!r} is unknown; legal: {legal}")
    if not known[name].works:
        raise BackendError(f"backend={name!r} does not work here: {known[name].why}; nearest legal: 'numpy'")
    return name


def printed_for(name: str = "auto") -> str:
    """The backend to print text for: as `choose`, but text for a GPU needs none to be printed.

    Raises:
        BackendError: the name is unknown.

    >>> printed_for("cupy")
    'cupy'
    """
    return name if name in BACKENDS else choose(name)


@functools.cache
def _cupy() -> Backend:
    lack = lacks_for_cupy()
    return Backend("cupy", lack is None, "a kernel was compiled and launched" if lack is None else lack)


def lacks_for_cupy() -> str | None:
    """What this machine lacks to run CuPy; None: nothing, a kernel ran."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed here"
    try:
        devices = driver_devices()
    except OSError:
        return "no CUDA driver is installed here"
    if isinstance(devices, str):
        return f"the CUDA driver does not start here: {devices}"
    return _kernel_fails() if devices else "the CUDA driver finds no GPU here"


TRIAL = r"""
extern "C" __global__ void trial(int* x) { x[0] = 42; }
"""


def _kernel_fails() -> str | None:
    """Why a kernel of one thread does not run; None if it does."""
    try:
        import cupy

        x = cupy.zeros(1, cupy.int32)
        cupy.RawModule(code=TRIAL, options=("-std=c++17",)).get_function("trial")((1,), (1,), (x,))
        found = int(x[0])
    except Exception as error:  # noqa: BLE001 - whatever CuPy, NVRTC or the driver raises is the answer
        return (
            f"CuPy cannot run a kernel here: {type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}"
        )
    return None if found == 42 else f"a kernel that writes 42 wrote {found} here"


def driver_cuda() -> tuple[int, int] | None:
    """The newest CUDA that the driver can run, (major, minor) (CUDA Driver API, 6.3); None without one."""
    try:
        driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    except OSError:
        return None
    version = ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)):
        return None
    return version.value // 1000, version.value % 1000 // 10


def driver_devices() -> int | str:
    """How many GPUs the CUDA driver sees, or its error; OSError if there is no driver (CUDA Driver API, 6.2 to 6.5)."""
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    if error := driver.cuInit(0):
        no_device = 100  # CUDA_ERROR_NO_DEVICE: the driver is well, but there is nothing to drive
        return 0 if error == no_device else f"cuInit returned error {error}"
    count = ctypes.c_int()
    if error := driver.cuDeviceGetCount(ctypes.byref(count)):
        return f"cuDeviceGetCount returned error {error}"
    return count.value
