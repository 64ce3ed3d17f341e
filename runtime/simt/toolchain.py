"""g++: where it is, the flags of a program, and what all programs share.

The header is precompiled and the executor compiled once, into the user's cache folder, under a hash of everything they
are made of.  Entries are made in a folder beside and renamed, so that one is there as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from runtime.cache import user_cache_dir
from runtime.simt.errors import SimtCompileError, SimtUnavailable

HERE = Path(__file__).resolve().parent
INCLUDE, EXECUTOR = HERE / "include", HERE / "executor"
HEADER = "certiconv_simt.h"
KEPT = 1000
"""How many entries the cache has at most, of some 0.2 MB each (a header takes 20 MB)."""

_COMMON = (
    "-std=c++17",
    "-w",
    "-fno-pie",
    "-fno-exceptions",
    "-fno-rtti",
    "-fno-extern-tls-init",
    "-fno-var-tracking",  # lines are needed, and nobody looks at variables
    "-gdwarf-4",  # addr2line takes the first file of version 5 for another
    "-ffp-contract=off",
)
_CALLS = (  # a barrier is known by the calls that lead to it (executor/calls.h): their addresses can be followed, ...
    "-fno-omit-frame-pointer",
    "-fno-optimize-sibling-calls",
    "-fno-crossjumping",  # ... two calls are not made one, ...
    "-fno-tree-tail-merge",
    "-fno-code-hoisting",
    "-fno-ipa-icf",
    "-fno-thread-jumps",  # ... and one is not copied
    "-fno-split-paths",
    "-fno-unswitch-loops",
    "-fno-ipa-cp-clone",
    "--param=max-completely-peel-times=0",
)
_CHECKED = ("-O1", "-fsanitize=thread,alignment,bounds,signed-integer-overflow", *_CALLS)
_FAST = ("-O2", "-fwrapv")


def compiler() -> Path:
    """The g++ of this machine.

    Raises:
        SimtUnavailable: there is none, or the machine is no x86-64 Linux.
    """
    machine = platform.machine().lower()
    if sys.platform != "linux" or machine not in ("x86_64", "amd64"):
        raise SimtUnavailable(f"kernels run on the CPU of x86-64 Linux only; this is {machine} with {sys.platform}")
    found = shutil.which("g++")
    if found is None:
        raise SimtUnavailable(
            "running kernels on the CPU needs g++ 11 or newer, and none is on PATH; "
            "on Debian or Ubuntu: apt-get install g++"
        )
    return Path(found).resolve()


@functools.cache
def version() -> str:
    """The version of the g++ of this machine; raises SimtUnavailable as `compiler`."""
    done = subprocess.run([compiler(), "-dumpfullversion"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "of unknown version"


def flags(check: bool) -> tuple[str, ...]:
    """What a kernel's text is compiled with."""
    return (*_COMMON, *(_CHECKED if check else _FAST), f"-I{INCLUDE}")


def run(command: Sequence[str | Path], *, text: str = "") -> None:
    """Run g++.

    Raises:
        SimtCompileError: it says no.
    """
    environment = {**os.environ, "LC_ALL": "C"}  # messages in one language
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SimtCompileError(f"{text}{done.stderr.strip() or done.stdout.strip()}")


def folder() -> Path:
    """Where compiled programs are kept."""
    return user_cache_dir() / "simt"


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """The cache entry of this name, a folder, made if it is not there.

    Where the cache cannot be written, the entry is made in a temporary folder that lives as long as the process.
    """
    entry = folder() / name
    if entry.is_dir():
        with contextlib.suppress(OSError):
            os.utime(entry)  # it is in use
        return entry
    try:
        entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # what lies here is run, so it is the user's alone
        draft = Path(tempfile.mkdtemp(prefix=".part-", dir=entry.parent))
    except OSError:
        return _temporary(name, make)
    try:
        make(draft)
        _make_room(entry.parent)
        with contextlib.suppress(OSError):  # another process was faster: its entry is as good
            draft.rename(entry)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return entry


def _make_room(parent: Path) -> None:
    """Remove the entries that were not used for longest, where there are many."""
    with contextlib.suppress(OSError):  # another process may do the same
        entries = [(e.stat().st_mtime, e) for e in parent.iterdir() if not e.name.startswith(".part-")]
        for _, entry in sorted(entries)[: max(0, len(entries) - KEPT + KEPT // 10)] if len(entries) >= KEPT else ():
            shutil.rmtree(entry, ignore_errors=True)


@functools.cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="certiconv-simt-")


def _temporary(name: str, make: Callable[[Path], None]) -> Path:
    entry = Path(_scratch().name) / name
    if not entry.is_dir():
        entry.mkdir()
        make(entry)
    return entry


def digest(*parts: str) -> str:
    """A name for what is made of these texts."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


@functools.cache
def _sources() -> str:
    files = sorted((*INCLUDE.rglob("*"), *EXECUTOR.rglob("*")))
    return digest(*(f"{f.relative_to(HERE)}\0{f.read_text()}" for f in files if f.is_file()))


@functools.cache
def identity(gxx: Path) -> str:
    """What stands for the compiler, its flags and our sources in the name of a cache entry."""
    found = gxx.stat()
    return digest(str(gxx), str(found.st_mtime_ns), str(found.st_size), *flags(True), *flags(False), _sources())


def precompiled(gxx: Path, check: bool) -> Path:
    """The folder with the precompiled header, for ``-include``."""

    def make(at: Path) -> None:
        command: list[str | Path] = [
            gxx,
            *flags(check),
            "-x",
            "c++-header",
            INCLUDE / HEADER,
            "-o",
            at / f"{HEADER}.gch",
        ]
        run(command, text="the executor's header does not compile here:\n")

    return kept(f"header-{'checked' if check else 'fast'}-{identity(gxx)}", make) / HEADER


def executor(gxx: Path) -> Path:
    """The compiled executor."""

    def make(at: Path) -> None:
        command: list[str | Path] = [gxx, *_COMMON, "-O2", "-c", EXECUTOR / "executor.cpp", "-o", at / "executor.o"]
        run(command, text="the executor does not compile here:\n")

    return kept(f"executor-{identity(gxx)}", make) / "executor.o"
