"""CUDA's run-time compiler by itself: whether a text compiles for a GPU that is not here, and what its kernels take.

NVRTC is a library (in the wheel ``nvidia-cuda-nvrtc``, or a CUDA toolkit) that needs neither a driver nor a GPU to turn
CUDA C into machine code for a named architecture.  It is called through its C interface (NVRTC's documentation,
"Basic Usage"); ptxas, which it runs, tells how many registers each kernel uses and whether any are spilled to memory.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ARCHITECTURES = ("sm_80", "sm_90")
OPTIONS = ("-std=c++17", "-ftz=true", "--ptxas-options=-v")  # CuPy adds the second to whatever text it compiles


class NvrtcError(RuntimeError):
    """A text that does not compile, or a library that is not there; the text is the compiler's own, or the remedy."""


@dataclass(frozen=True)
class Usage:
    """What ptxas says of one kernel: registers of a thread, bytes spilled, bytes of shared memory of a block."""

    kernel: str
    registers: int
    spilled: int
    shared: int


@dataclass(frozen=True)
class Nvrtc:
    """The library and its version."""

    library: ctypes.CDLL
    version: tuple[int, int]

    def compile(self, source: str, *, arch: str = "sm_90", options: Sequence[str] = ()) -> tuple[Usage, ...]:
        """Compile a text for an architecture as CuPy does; gives the usage of its kernels, in the order of their names.

        Raises NvrtcError with the compiler's messages where it does not compile.
        """
        program = ctypes.c_void_p()
        self._call("nvrtcCreateProgram", ctypes.byref(program), source.encode(), b"emitted.cu", 0, None, None)
        try:
            given = [f"-arch={arch}", *OPTIONS, *options]
            texts = (ctypes.c_char_p * len(given))(*(text.encode() for text in given))
            failed = self.library.nvrtcCompileProgram(program, len(given), texts)
            log = self._log(program)
            if failed:
                raise NvrtcError(f"the text does not compile for {arch}:\n{log}")
            return usages(log)
        finally:
            self._call("nvrtcDestroyProgram", ctypes.byref(program))

    def _log(self, program: ctypes.c_void_p) -> str:
        size = ctypes.c_size_t()
        self._call("nvrtcGetProgramLogSize", program, ctypes.byref(size))
        text = ctypes.create_string_buffer(size.value)
        self._call("nvrtcGetProgramLog", program, text)
        return text.value.decode(errors="replace")

    def _call(self, name: str, *arguments: object) -> None:
        if error := getattr(self.library, name)(*arguments):
            raise NvrtcError(f"{name} returned error {error}")


def usages(log: str) -> tuple[Usage, ...]:
    """What a log of ptxas says of each kernel.

    >>> usages('''ptxas info    : Compiling entry function 'f' for 'sm_90'
    ... ptxas info    : Function properties for f
    ...     0 bytes stack frame, 8 bytes spill stores, 4 bytes spill loads
    ... ptxas info    : Used 10 registers, used 1 barriers, 1024 bytes smem''')
    (Usage(kernel='f', registers=10, spilled=12, shared=1024),)
    """
    found = []
    for part in re.split(r"Compiling entry function '", log)[1:]:
        name = part.partition("'")[0]
        spilled = sum(int(n) for n in re.findall(r"(\d+) bytes spill", part))
        registers = re.search(r"Used (\d+) registers", part)
        shared = re.search(r"(\d+) bytes smem", part)
        found.append(
            Usage(name, int(registers.group(1)) if registers else 0, spilled, int(shared.group(1)) if shared else 0)
        )
    return tuple(sorted(found, key=lambda u: u.kernel))


@functools.cache
def nvrtc() -> Nvrtc:
    """The library, from the wheel or the system.

    Raises NvrtcError where there is none, with the command that installs it.
    """
    for path in _places():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        major, minor = ctypes.c_int(), ctypes.c_int()
        if not library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)):
            return Nvrtc(library, (major.value, minor.value))
    raise NvrtcError("NVRTC is not installed here; pip install 'nvidia-cuda-nvrtc' brings it (it needs no GPU)")


def _places() -> list[str]:
    """Where the library may lie: the folders of NVIDIA's wheels, then wherever the system looks."""
    root = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    wheels = sorted(str(p) for p in root.glob("*/lib/libnvrtc.so.*") if "builtins" not in p.name)
    return [*reversed(wheels), "libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]


def include_folders() -> list[str]:
    """The folders of CUDA's headers: those of NVIDIA's wheels, then of a toolkit."""
    root = Path(sysconfig.get_paths()["purelib"]) / "nvidia"
    toolkit = os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return [str(p) for p in (*sorted(root.glob("*/include")), Path(toolkit) / "include") if p.is_dir()]
