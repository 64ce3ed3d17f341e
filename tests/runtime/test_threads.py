"""BLAS threads: what is said is what is the case, with threadpoolctl and without."""

import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from runtime import threads
from runtime.threads import VARIABLES, Hold, ask_environment, blas_threads, remedy


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No variable is set, and whatever the test sets is undone."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "1")
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A threadpoolctl that notes what it is asked for and when it ends."""
    noted: list[Any] = []

    class Limits:
        def __init__(self, **options: Any) -> None:
            noted.append(options)

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None:
            noted.append("ended")

    fake = ModuleType("threadpoolctl")
    fake.threadpool_limits = Limits  # type: ignore[attr-defined]
    fake.ThreadpoolController = lambda: SimpleNamespace(limit=Limits)  # type: ignore[attr-defined]
    fake.__spec__ = importlib.util.spec_from_loader("threadpoolctl", None)
    monkeypatch.setitem(sys.modules, "threadpoolctl", fake)
    return noted


@pytest.fixture
def without(environment: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No threadpoolctl."""
    find = importlib.util.find_spec
    environment.setattr(importlib.util, "find_spec", lambda name: None if name == "threadpoolctl" else find(name))
    return environment


@pytest.fixture
def looked_up() -> Iterator[None]:
    """Libraries are looked for in this test, and again in the next."""
    threads._libraries.cache_clear()
    yield
    threads._libraries.cache_clear()


@pytest.mark.usefixtures("looked_up")
def test_a_hold_sets_one_thread_and_lets_go(limits: list[Any]) -> None:
    with Hold(), Hold():
        assert limits == [{"limits": 1, "user_api": "blas"}] * 2
    assert limits[2:] == ["ended"] * 2


@pytest.mark.usefixtures("without", "looked_up")
def test_a_hold_does_nothing_without_threadpoolctl() -> None:
    hold = Hold()
    with hold, hold:
        assert hold.users == 2
    assert hold.users == 0


@pytest.mark.parametrize(("limit", "words"), [(1, "BLAS held at one thread"), (2, "BLAS held at 2 threads")])
def test_threadpoolctl_holds_blas_and_lets_it_go(limits: list[Any], limit: int, words: str) -> None:
    with blas_threads(limit) as said:
        assert said == words
        assert limits == [{"limits": limit, "user_api": "blas"}]
    assert limits[-1] == "ended"
    assert remedy(limit) is None


def test_without_it_only_the_environment_can_tell(without: pytest.MonkeyPatch) -> None:
    with blas_threads(1) as said:
        assert said == "BLAS threads as the system sets them (threadpoolctl is not installed)"
    told = remedy(1)
    assert told is not None
    assert "OPENBLAS_NUM_THREADS is not set; install the extra `threads`, or set OPENBLAS_NUM_THREADS=1" in told
    without.setenv("OPENBLAS_NUM_THREADS", "1")
    with blas_threads(1) as said:
        assert said == "BLAS at one thread, as the environment asks"
    assert remedy(1) is None
    told = remedy(2)
    assert told is not None
    assert "OPENBLAS_NUM_THREADS=1; install" in told


def test_the_environment_is_asked_where_the_user_did_not(environment: pytest.MonkeyPatch) -> None:
    import os

    environment.setenv("OMP_NUM_THREADS", "7")
    ask_environment(2)
    assert [os.environ[name] for name in VARIABLES] == ["2", "7", "2"]
