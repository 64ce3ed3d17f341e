"""Threads that run the parts of a call, each with a workspace of its own, and BLAS at one thread meanwhile.

Parts run at once as long as a call of NumPy works longer than it takes to hand over the interpreter.
"""

from __future__ import annotations

import contextvars
import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from runtime.arrays import Array, laid_as
from runtime.crew import Call, Part
from runtime.threads import Hold

T = TypeVar("T")
_SIZES = 4  # sizes of a part whose workspaces are kept


class Threads:
    """Parts on threads of this process, each with a workspace that is kept from call to call.

    Args:
        module: the emitted module.
        dtype: of all arrays.
        count: how many threads at most, at least 1.
    """

    least = 5e-4
    """Two parts save half of a call at best.  Where nothing could be saved, on a machine whose cores were all busy,
    they added 0.2 ms to a convolution of few images; a part has to take more than twice that."""
    least_step = 8e-3
    """As above: 1 ms was added to a step of LeNet, which is many short calls of NumPy that hand the interpreter over
    again and again.  It takes 0.1 ms an image where 0.26 ms is foretold, so batches of 64 and more are split in two."""

    def __init__(self, module: ModuleType, dtype: Any, count: int) -> None:
        self.module = module
        self.dtype = np.dtype(dtype)
        self.count = count
        self._work = Workspaces(dtype)

    def joined(self, call: Call, parts: Sequence[Part], like: Array, image: tuple[int, ...], *, follows: bool) -> Array:
        """See `Crew`; a new array that owns its memory, but for its order."""
        whole = (len(like), *image)
        result = laid_as(like, whole, self.dtype) if follows else np.empty(whole, self.dtype)
        together([functools.partial(self.part, call, low, high, result[low:high]) for low, high in parts])
        return result

    def sums(self, call: Call, parts: Sequence[Part]) -> list[Array]:
        """See `Crew`."""
        return together([functools.partial(self.part, call, *part) for part in parts])

    def steps(self, call: Call, parts: Sequence[Part]) -> list[tuple[float, dict[str, Array]]]:
        """See `Crew`."""
        return [(float(loss), gradients) for loss, gradients in self.sums(call, parts)]

    def __str__(self) -> str:
        return f"threads={self.count}"

    def part(self, call: Call, low: int, high: int, out: Array | None = None) -> Any:
        """See `Crew`."""
        with self._work.lent(getattr(self.module, call.workspace), high - low) as work:
            given = [*call.given(low, high), work]
            return getattr(self.module, call.function)(*given, *(() if out is None else (out,)))


def together(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """What the tasks give, in their order; the first runs on the calling thread, each other one on a thread of its own.

    All have ended when this returns or raises, unless Ctrl-C ends the waiting.  If several fail, the error of the first
    of them is raised.

    >>> together([lambda: 1, lambda: 2])
    [1, 2]
    """
    first, *others = tasks
    if not others:
        return [first()]
    with _THREADS.hold:
        futures: list[Future[T]] = []
        try:
            pool = _THREADS.pool(len(others))
            # A context each, for what the caller has set there: np.errstate is one such thing in NumPy 2.
            futures.extend(pool.submit(contextvars.copy_context().run, task) for task in others)
            own = first()
        finally:
            wait(futures)
        return [own, *(future.result() for future in futures)]


class _Threads:
    """The threads of this process: started when they are first needed, and kept."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin with none."""
        self.hold = Hold()
        self._lock = threading.Lock()
        self._pools: dict[int, ThreadPoolExecutor] = {}

    def pool(self, workers: int) -> ThreadPoolExecutor:
        """So many threads besides the calling one."""
        with self._lock:
            if workers not in self._pools:
                self._pools[workers] = ThreadPoolExecutor(workers, thread_name_prefix="certiconv")
            return self._pools[workers]


_THREADS = _Threads()
if hasattr(os, "register_at_fork"):
    # A forked process has none of the threads, and may have a lock that nobody will open.
    os.register_at_fork(after_in_child=_THREADS.renew)


def blas_at_one_thread() -> Hold:
    """A context in which BLAS has one thread, for whoever runs parts of a call."""
    return _THREADS.hold


class Workspaces:
    """Workspaces by kind and batch size, kept from call to call; one is used by one thread at a time."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)
        self._lock = threading.Lock()
        self._free: dict[tuple[type, int], list[Any]] = {}

    @contextmanager
    def lent(self, kind: type, batch: int) -> Iterator[Any]:
        """A workspace, for as long as the context is open; one that an error came out of is not used again."""
        with self._lock:
            free = self._free.pop((kind, batch), [])
            self._free[kind, batch] = free  # now the last
            work = free.pop() if free else None
        if work is None:
            work = kind(batch, self.dtype)
        yield work
        with self._lock:
            self._free.setdefault((kind, batch), []).append(work)
            sizes = [key for key in self._free if key[0] is kind]
            for key in sizes[:-_SIZES]:
                del self._free[key]
