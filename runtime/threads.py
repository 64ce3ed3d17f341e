"""BLAS at a number of threads: its sums may depend on it, and so does its speed.

threadpoolctl sets the number for the libraries that are loaded when it is asked: load NumPy, SciPy and PyTorch first.
Without it, a BLAS reads the environment once, when it is loaded; nothing can be changed afterwards, and what is said
here is only whether the environment asks for the right number.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator

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


def _can_set() -> bool:
    return importlib.util.find_spec("threadpoolctl") is not None


def _asked(limit: int) -> bool:
    return os.environ.get(VARIABLES[0]) == str(limit)


def _count(limit: int) -> str:
    return "one thread" if limit == 1 else f"{limit} threads"
