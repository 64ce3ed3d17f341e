"""The program of a worker process: an emitted module, and calls of its functions on arrays in shared memory.

It is run as a script and imports NumPy alone, so it starts as fast as Python and NumPy do, and nothing of its caller's
program is run again.  What comes and goes over the connection is small: the text of the module at first, then for each
call the name of a function and where its arrays lie.  `runtime.process_crew` is the other end.
"""

from __future__ import annotations

import math
import mmap
import signal
import sys
import traceback
from collections.abc import Mapping
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Place = tuple[int, tuple[int, ...], str, tuple[int, ...]]
"""Where an array lies in the shared memory: its first byte, its shape in the order of memory, its dtype, and for each
of its axes which one of those it is."""
_KEPT = 16  # workspaces of a worker


def array_at(memory: Any, place: Place) -> Array:
    """The array that lies there.

    >>> array_at(bytearray(range(6)), (0, (3, 2), "uint8", (1, 0))).tolist()
    [[0, 2, 4], [1, 3, 5]]
    """
    start, shape, dtype, axes = place
    count = math.prod(shape)
    if count == 0:
        return np.empty(shape, dtype).transpose(axes)  # nothing lies anywhere
    return np.frombuffer(memory, dtype, count, start).reshape(shape).transpose(axes)


class Worker:
    """A module, the shared memory as far as it is mapped, and workspaces by kind and batch."""

    def __init__(self, module: ModuleType, dtype: str, file: int) -> None:
        self.module = module
        self.dtype = np.dtype(dtype)
        self.file = file
        self.memory: Any = b""
        self._works: dict[tuple[str, int], Any] = {}

    def call(
        self,
        size: int,
        errors: Mapping[str, Any],
        function: str,
        workspace: str,
        batch: int,
        arguments: list[tuple[str, Any]],
        result: Any,
    ) -> float | None:
        """One call; its result is put where it is wanted, and a loss is given back.

        Args:
            size: of the shared memory, which may have grown.
            errors: what NumPy is to do about overflows and the like, as the caller has set it.
            function, workspace: names in the module.
            batch: of the workspace.
            arguments: ("array", place), ("arrays", places by name) or ("value", anything).
            result: as an argument: an "array" that the function writes to or, if it is called "sum", that takes what
                the function returns; or "arrays", for the gradients that it returns after the loss.
        """
        if size > len(self.memory):
            self.memory = mmap.mmap(self.file, size)
        run = np.errstate(**errors)(getattr(self.module, function))
        given = [self._taken(kind, value) for kind, value in arguments]
        kind, place = result
        wanted = self._taken("arrays" if kind == "arrays" else "array", place)
        work = self._work(workspace, batch)
        if kind == "array":
            run(*given, work, wanted)
            return None
        if kind == "sum":
            np.copyto(wanted, run(*given, work))
            return None
        loss, gradients = run(*given, work)
        for name, array in wanted.items():
            np.copyto(array, gradients[name])
        return float(loss)

    def _taken(self, kind: str, value: Any) -> Any:
        if kind == "array":
            return array_at(self.memory, value)
        if kind == "arrays":
            places: Mapping[str, Place] = value
            return {name: array_at(self.memory, place) for name, place in places.items()}
        return value

    def _work(self, kind: str, batch: int) -> Any:
        """A workspace; the least lately used one is given up for it where there are many."""
        work = self._works.pop((kind, batch), None)
        if work is None:
            work = getattr(self.module, kind)(batch, self.dtype)
        self._works[kind, batch] = work
        while len(self._works) > _KEPT:
            del self._works[next(iter(self._works))]
        return work


def main(connection: Connection, file: int) -> None:
    """Answer calls until the other end is closed: ("done", loss) or ("failed", the error, its traceback)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program that waits for the answer
    try:
        source, dtype = connection.recv()
        module = ModuleType("emitted")
        exec(compile(source, "<emitted>", "exec"), module.__dict__)  # this is what the text is for
        worker = Worker(module, dtype, file)
        while True:
            message = connection.recv()
            try:
                answer: tuple[Any, ...] = ("done", worker.call(*message))
            except Exception as error:  # noqa: BLE001 - whatever it is, the other end raises it
                answer = ("failed", _sendable(error), traceback.format_exc())
            connection.send(answer)
    except (EOFError, ConnectionError):
        return


def _sendable(error: Exception) -> Exception:
    """The error as one of Python's own, which the other end knows: of the nearest such class."""
    kind: type[Exception] = next(each for each in type(error).__mro__ if each.__module__ == "builtins")
    try:
        return kind(str(error))
    except TypeError:  # a class that wants more than a message
        return RuntimeError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])), int(sys.argv[2]))
