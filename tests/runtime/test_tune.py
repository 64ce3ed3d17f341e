"""Measuring the candidates: only those within the tolerance, once, and again where what was kept cannot be read."""

import json
from pathlib import Path

import pytest

from codegen.choose import choose
from derive.layers import Conv2d
from runtime import tune as job
from runtime.tune import TuneError, tune

LAYER, SHAPE = Conv2d(4, 4, 3, padding=1), (2, 4, 6, 6)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "ROUNDS", 1)


def test_the_fastest_within_the_tolerance_is_taken_and_remembered(tmp_path: Path) -> None:
    first = tune(LAYER, SHAPE, tolerance=1e-5, cache_dir=tmp_path)
    within = {
        c.result: {x.algorithm for x in c.candidates if x.within}
        for c in choose(LAYER, SHAPE, "float32", tolerance=1e-5, thorough=True)
    }
    assert not first.remembered
    assert set(first.algorithms) == set(within)
    for result, medians in first.medians.items():
        assert set(medians) <= within[result]
        assert first.algorithms[result] == min(medians, key=medians.__getitem__)
    again = tune(LAYER, SHAPE, tolerance=1e-5, cache_dir=tmp_path)
    assert again.remembered
    assert (again.algorithms, again.medians) == (first.algorithms, first.medians)
    assert "remembered from before" in again.text()


@pytest.mark.parametrize(
    "content",
    ["", "{", '{"algorithms": {}, "medians": {"forward": {"gemm": "x"}}}',
     '{"algorithms": {"forward": "foo"}, "medians": {}}', '{"algorithms": {"forward": "gemm"}, "medians": 3}'],
)  # fmt: skip
def test_an_entry_that_cannot_be_read_is_measured_again(content: str, tmp_path: Path) -> None:
    tune(LAYER, SHAPE, cache_dir=tmp_path)
    (entry,) = tmp_path.iterdir()
    entry.write_text(content)
    assert not tune(LAYER, SHAPE, cache_dir=tmp_path).remembered
    assert json.loads(entry.read_text())["algorithms"]


def test_other_requests_have_other_entries(tmp_path: Path) -> None:
    for shape, dtype, tolerance in ((SHAPE, "float32", None), (SHAPE, "float64", None), (SHAPE, "float32", 1e-3)):
        assert not tune(LAYER, shape, dtype, tolerance=tolerance, cache_dir=tmp_path).remembered
    assert not tune(LAYER, SHAPE, layout="channels_last", cache_dir=tmp_path).remembered
    assert len(list(tmp_path.iterdir())) == 4


def test_nothing_is_measured_on_an_empty_batch(tmp_path: Path) -> None:
    with pytest.raises(TuneError, match="the nearest batch is 1"):
        tune(LAYER, (0, 4, 6, 6), cache_dir=tmp_path)


def test_a_folder_that_cannot_be_written_costs_time_and_no_result(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert tune(LAYER, SHAPE, cache_dir=tmp_path / "file" / "no").algorithms
