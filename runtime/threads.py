"""BLAS at a number of threads: its sums may depend on it, and so does its speed.

threadpoolctl sets the number for the libraries that are loaded when it is asked: load NumPy, SciPy and PyTorch first.
Without it, a BLAS reads the environment once, when it is loaded; nothing can be changed afterwards, and what is said
here is only whether the environment asks for the right number.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import threading
from collections.abc import Iterator
from typing import Any, Self

VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What a BLAS reads when it is loaded."""


@contextlib.contextmanager
def blas_threads(limit: int) -> Iterator[str]:
    """BLAS at ``limit`` threads, and in words what was done; without threadpoolctl it is left alone."""
    if not _can_set():
        yield (
            f"BLAS at {_count(limit)}, as the environment asks"
            if _asked(limit)
            else "BLAS threads as the system sets them (threadpoolctl is not installed)"
        )
        return
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=limit, user_api="blas"):
        yield f"BLAS held at {_count(limit)}"


class Hold:
    """BLAS at one thread from the first caller that enters to the last that leaves, whichever thread each is on.

    `blas_threads` looks for libraries at every use, half a millisecond, and two threads that use it at once may put
    back what the other has set.  This one looks once, for the BLAS that NumPy has loaded, and takes ten microseconds.
    Without threadpoolctl it does nothing; `remedy` says what to do then.

    >>> with Hold() as hold:
    ...     hold.users
    1
    """

    def __init__(self) -> None:
        self.users = 0
        self._lock = threading.Lock()
        self._before = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with self._lock:
            if not self.users and (libraries := _libraries()) is not None:
                self._before.enter_context(libraries.limit(limits=1, user_api="blas"))
            self.users += 1
        return self

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self.users -= 1
            if not self.users:
                self._before.close()


def remedy(limit: int) -> str | None:
    """What to do so that BLAS has ``limit`` threads; None where it has them."""
    if _can_set() or _asked(limit):
        return None
    asked = os.environ.get(VARIABLES[0])
    found = f"{VARIABLES[0]}={asked}" if asked else f"{VARIABLES[0]} is not set"
    return (
        f"the number of BLAS threads is not known to be {limit}: threadpoolctl is not installed and {found}; "
        f"install the extra `threads`, or set {VARIABLES[0]}={limit} before the start"
    )


def ask_environment(limit: int) -> None:
    """Ask for a number of threads where the user did not; of use only before NumPy is imported."""
    for name in VARIABLES:
        os.environ.setdefault(name, str(limit))


@functools.cache
def _libraries() -> Any:
    """The loaded libraries that have threads, NumPy's BLAS among them; None without threadpoolctl."""
    if not _can_set():
        return None
    import numpy as np  # noqa: F401 - it has to be loaded to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _can_set() -> bool:
    return importlib.util.find_spec("threadpoolctl") is not None


def _asked(limit: int) -> bool:
    return os.environ.get(VARIABLES[0]) == str(limit)


def _count(limit: int) -> str:
    return "one thread" if limit == 1 else f"{limit} threads"
