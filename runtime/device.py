"""Which backends work here, and why one does not.

A backend is a pair: text that `codegen` can print, and a machine that can run it.  NumPy has both, always.  For CuPy
the text is missing in this version, so it does not work anywhere yet, and its reason says so before anything else; what
this machine would lack besides (the package, the driver, a GPU) is told with it.

Asking is cheap.  The driver is asked through its C library, so CuPy is never imported to find that there is no GPU, and
the answer is kept: neither drivers nor GPUs come and go while a program runs.
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


@functools.cache
def _cupy() -> Backend:
    lack = _lacks_for_cupy()
    here = "CuPy and a GPU are here" if lack is None else f"besides, {lack}"
    return Backend("cupy", False, f"this version of certiconv prints no CUDA text yet ({here})")


def _lacks_for_cupy() -> str | None:
    """What this machine lacks to run CuPy; None: nothing that can be found out without starting it."""
    if importlib.util.find_spec("cupy") is None:
        return "CuPy is not installed here"
    try:
        devices = _driver_devices()
    except OSError:
        return "no CUDA driver is installed here"
    if isinstance(devices, str):
        return f"the CUDA driver does not start here: {devices}"
    return None if devices else "the CUDA driver finds no GPU here"


def _driver_devices() -> int | str:
    """How many GPUs the CUDA driver sees, or its error; OSError if there is no driver (CUDA Driver API, 6.2 to 6.5)."""
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    if error := driver.cuInit(0):
        no_device = 100  # CUDA_ERROR_NO_DEVICE: the driver is well, but there is nothing to drive
        return 0 if error == no_device else f"cuInit returned error {error}"
    count = ctypes.c_int()
    if error := driver.cuDeviceGetCount(ctypes.byref(count)):
        return f"cuDeviceGetCount returned error {error}"
    return count.value
