"""What the tests of `runtime` share: a cache folder that is not the user's, and emission that is not repeated."""

from collections.abc import Iterator
from pathlib import Path

import pytest

import codegen
from tests.runtime.emission import Emission


@pytest.fixture
def emission(monkeypatch: pytest.MonkeyPatch) -> Emission:
    """What was emitted in this test."""
    noted = Emission()
    monkeypatch.setattr(codegen, "emit", noted.emit)
    return noted


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where these tests, and the processes they start, keep what would go to the user's cache folder."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder
