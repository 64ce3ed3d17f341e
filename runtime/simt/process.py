"""One process for one launch: its buffers in shared memory, there and back."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from runtime.simt import arguments, wire
from runtime.simt.errors import LaunchError


class Ran(NamedTuple):
    """What a process left: its result, which buffers changed, which shared arrays the kernel wrote to."""

    result: wire.Result
    changed: list[bool]
    shared: list[bool]


def run(executable: Path, request: wire.Request, buffers: Sequence[arguments.Buffer], timeout: float) -> Ran:
    """Run one process on a copy of the buffers; what it wrote comes back if all went well.

    Raises:
        LaunchError: the kernel wrote to an array that is read-only.
    """
    head, starts, size = wire.pack(request)
    file = os.memfd_create("certiconv")
    try:
        os.ftruncate(file, size)
        with mmap.mmap(file, size) as shared, memoryview(shared) as content:
            content[: len(head)] = head
            for buffer, start in zip(buffers, starts, strict=True):
                content[start : start + buffer.bytes] = memoryview(arguments.memory(buffer)).cast("B")
            errors = _process(executable, file, timeout)
            result = wire.result(content)
            if not result.finished:
                result = result._replace(kind="crash", text=errors or "the process ended without a word")
            elif result.kind == "crash" and errors:  # such as what a failed assertion says
                result = result._replace(text=f"{result.text}: {errors.splitlines()[-1]}")
            changed = wire.written(content, len(buffers))
            if not result.kind:
                _take_back(content, buffers, starts, changed)
            return Ran(result, changed, wire.shared_used(content, len(request.shared)))
    finally:
        os.close(file)


def _take_back(
    content: memoryview, buffers: Sequence[arguments.Buffer], starts: Sequence[int], changed: Sequence[bool]
) -> None:
    back = [(buffer, start) for buffer, start, new in zip(buffers, starts, changed, strict=True) if new]
    for buffer, _ in back:
        if buffer.read_only:
            raise LaunchError(f"the kernel wrote to {buffer.read_only}, which is read-only")
    for buffer, start in back:
        memoryview(arguments.memory(buffer)).cast("B")[:] = content[start : start + buffer.bytes]


def _process(executable: Path, file: int, timeout: float) -> str:
    """Run the process; what a kernel prints goes to standard output.  Returns what it said when it failed."""
    command = [str(executable), str(file)]
    try:
        done = subprocess.run(
            command,
            pass_fds=(file,),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout + 10,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {timeout + 10:g} s"
    if done.stdout:
        sys.stdout.write(done.stdout)
    return done.stderr.strip() if done.returncode >= 0 else f"it was ended by signal {-done.returncode}"
