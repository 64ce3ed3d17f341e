"""Threads that run tasks: all of them, in their order, with errors told, and BLAS held meanwhile."""

import contextvars
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, Self

import numpy as np
import pytest

from runtime import thread_crew, threads
from runtime.thread_crew import Workspaces, together


def failing(message: str) -> Callable[[], int]:
    def task() -> int:
        raise ValueError(message)

    return task


def test_an_error_arrives_with_its_message_after_all_have_ended() -> None:
    ended: list[int] = []
    go = threading.Event()

    def slow() -> int:
        go.wait(30)
        ended.append(1)
        return 0

    def failing_first() -> int:
        go.set()
        raise ValueError("of the caller")

    with pytest.raises(ValueError, match="of the caller"):
        together([failing_first, slow])
    assert ended == [1]
    with pytest.raises(ValueError, match="of a worker"):
        together([lambda: 0, failing("of a worker"), failing("of another")])
    with pytest.raises(ValueError, match="of the first"):
        together([failing("of the first"), failing("of the second")])
    assert together([lambda: 1, lambda: 2, lambda: 3]) == [1, 2, 3]


def test_what_is_set_in_a_context_holds_on_every_thread() -> None:
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(7)
    assert together([variable.get] * 3) == [7, 7, 7]


def test_a_forked_process_starts_threads_of_its_own() -> None:
    code = """
import os, sys, warnings
warnings.simplefilter("ignore")
from runtime.thread_crew import together
assert together([lambda: 1, lambda: 2]) == [1, 2]
if not hasattr(os, "fork"):
    sys.exit(0)
child = os.fork()
if child == 0:
    os._exit(0 if together([lambda: 3, lambda: 4]) == [3, 4] else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_workspace_is_lent_to_one_at_a_time_and_few_are_kept() -> None:
    class Work:
        def __init__(self, batch: int, dtype: Any) -> None:
            self.batch, self.dtype = batch, dtype

    works = Workspaces("float32")
    with works.lent(Work, 3) as first, works.lent(Work, 3) as second:
        assert first is not second
        assert (first.batch, first.dtype) == (3, np.float32)
    with works.lent(Work, 3) as again:
        assert again in (first, second)
    with pytest.raises(ValueError, match="wrong"), works.lent(Work, 4) as spoilt:
        raise ValueError("wrong")
    with works.lent(Work, 4) as other:
        assert other is not spoilt
    for batch in range(10, 30):
        with works.lent(Work, batch):
            pass
    assert len(works._free) == thread_crew._SIZES


# --- BLAS ---------------------------------------------------------------------------------------------------


class Limited:
    """A controller that notes what it is asked for, and when the limit ends."""

    def __init__(self) -> None:
        self.noted: list[Any] = []

    def limit(self, **options: Any) -> Self:
        self.noted.append(options)
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.noted.append("ended")


def test_blas_is_held_once_from_the_first_to_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    limited = Limited()
    monkeypatch.setattr(threads, "_libraries", lambda: limited)
    held = [{"limits": 1, "user_api": "blas"}]
    assert together([lambda: list(limited.noted)] * 2) == [held, held]
    assert limited.noted == [*held, "ended"]
    limited.noted.clear()
    hold = threads.Hold()
    with hold:
        with hold:
            pass
        assert limited.noted == held
        with pytest.raises(ValueError, match="inside"), hold:
            raise ValueError("inside")
        assert limited.noted == held
    assert limited.noted == [*held, "ended"]
    together([lambda: 1])
    assert len(limited.noted) == 2  # a call that is not split leaves BLAS alone
