"""Measuring tiles, with a clock that is told what to say: the least median wins, is kept, and enters the text.

The device is the stand-in, on which every call that is timed is made, so that each tile's kernels run and are checked.
"""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from typer.testing import CliRunner

import runtime
from codegen import load
from codegen.cupy_module import legal_tiles
from codegen.plan import Plan
from derive.layers import Conv2d
from runtime import device, tune_tiles
from runtime.cli import main
from runtime.gpu_timing import Call, Clock, Samples
from runtime.simt import on_cpu
from runtime.simt.cupy_standin import CupyStandIn
from runtime.tune import TuneError
from runtime.tune_tiles import Device, remembered, tune

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
compiling = sys.modules["runtime.compile"]  # the name of the module is that of its function

LAYER, SHAPE = Conv2d(5, 6, 3, bias=False), (1, 5, 5, 5)
FEW = ("32x128", "32x32", "16x32")
FASTEST = {"forward": "32x128", "input_gradient": "16x32", "weight_gradient": "32x32"}


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not all tiles that there are: a CPU takes seconds to compile one."""

    def few_of(plans: Mapping[str, Plan], dtype: str, **options: bool) -> dict[str, tuple[str, ...]]:
        every = legal_tiles(plans, dtype, **options)
        return {result: tuple(name for name in names if name in FEW) for result, names in every.items()}

    monkeypatch.setattr(tune_tiles, "legal_tiles", few_of)


class Told:
    """A clock that says of each result which tile is fastest; it makes every call once, and counts."""

    def __init__(self) -> None:
        self.rounds: list[Mapping[str, Call]] = []

    def sets(self, size: int) -> int:
        assert size > 0
        return 2

    def interleave(self, calls: Mapping[str, Call], *, rounds: int) -> Mapping[str, Samples]:
        results = {name: np.asarray(call(3)) for name, call in calls.items()}
        result = list(FASTEST)[len(self.rounds)]
        self.rounds.append(calls)
        first = next(iter(results.values()))
        for a in results.values():
            np.testing.assert_allclose(a.astype("d"), first.astype("d"), atol=0.02 * abs(first).max())
        return {name: Samples((1.0, 0.5 if name == FASTEST[result] else 0.9, 2.0)[:2]) for name in calls}


def standing_in(timer: object = None) -> Device:
    stand_in = CupyStandIn(schedules=("forward",))

    def loaded(source: str) -> ModuleType:
        with stand_in.installed():
            return load(source)

    return Device(stand_in, loaded, timer or Told(), "a stand-in")  # type: ignore[arg-type]


def test_the_fastest_tile_of_each_result_is_taken_and_remembered(tmp_path: Path) -> None:
    on = standing_in()
    assert remembered(LAYER, SHAPE, "float16", cache_dir=tmp_path, device=on) is None
    first = tune(LAYER, SHAPE, "float16", cache_dir=tmp_path, device=on)
    assert (first.tiles, first.remembered) == (FASTEST, False)
    assert all(tuple(found) == FEW for found in first.medians.values())
    again = tune(LAYER, SHAPE, "float16", cache_dir=tmp_path, device=on)
    assert (again.tiles, again.medians, again.remembered) == (first.tiles, first.medians, True)
    assert len(on.timer.rounds) == 3  # type: ignore[attr-defined]
    assert "  forward          32x128 0.750, 32x32 0.950, 16x32 0.950" in again.text()
    other = Device(on.cupy, on.load, on.timer, "another GPU")
    assert remembered(LAYER, SHAPE, "float16", cache_dir=tmp_path, device=other) is None
    assert remembered(LAYER, (2, *SHAPE[1:]), "float16", cache_dir=tmp_path, device=on) is None
    assert remembered(LAYER, SHAPE, "float32", cache_dir=tmp_path, device=on) is None


@pytest.mark.parametrize(
    "content",
    ["", "{", '{"tiles": {"forward": "7x7"}, "medians": {}}', '{"tiles": {"forward": "64x64"}, "medians": {}}'],
)
def test_an_entry_that_cannot_be_read_is_measured_again(content: str, tmp_path: Path) -> None:
    tune(LAYER, SHAPE, "float16", cache_dir=tmp_path, device=standing_in())
    (entry,) = tmp_path.iterdir()
    entry.write_text(content)
    assert not tune(LAYER, SHAPE, "float16", cache_dir=tmp_path, device=standing_in()).remembered
    assert json.loads(entry.read_text())["tiles"] == FASTEST


def test_nothing_is_measured_on_an_empty_batch(tmp_path: Path) -> None:
    with pytest.raises(TuneError, match="the nearest batch is 1"):
        tune(LAYER, (0, *SHAPE[1:]), cache_dir=tmp_path, device=standing_in())


def test_a_layer_without_a_product_has_nothing_to_measure(tmp_path: Path) -> None:
    depthwise = Conv2d(4, 4, 3, groups=4)
    found = tune(depthwise, (1, 4, 5, 5), cache_dir=tmp_path, device=standing_in())
    assert (dict(found.tiles), dict(found.medians)) == ({}, {})


def test_the_clock_of_a_gpu_times_every_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real clock, whose events count launches on the stand-in: two kernels a weight gradient, else one."""
    monkeypatch.setattr(tune_tiles, "ROUNDS", 1)
    on = standing_in(Clock.of(CupyStandIn(), 8))
    on = Device(on.cupy, on.load, Clock.of(on.cupy, 8), "a stand-in")
    found = tune(LAYER, SHAPE, "float16", cache_dir=tmp_path, device=on)
    assert {result: set(medians.values()) for result, medians in found.medians.items()} == {
        "forward": {2.0},
        "input_gradient": {2.0},
        "weight_gradient": {3.0},
    }


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine whose GPU is the stand-in."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(device, "_cupy", lambda: device.Backend("cupy", True, "a stand-in"))
    monkeypatch.setattr(compiling, "load_text", on_cpu)
    monkeypatch.setattr(Device, "current", staticmethod(standing_in))


@pytest.mark.usefixtures("gpu")
def test_compile_takes_what_was_measured() -> None:
    def first_line(op: runtime.Operation) -> str:
        text = " ".join((op.module.__doc__ or "").split())
        return text[text.index("input_shape=") : text.index(").write")]

    asked = {"backend": "cupy", "input_shape": SHAPE, "dtype": "float16"}
    plain = first_line(runtime.compile(LAYER, **asked))  # type: ignore[arg-type]
    assert first_line(runtime.compile(LAYER, algorithm="tuned", **asked)) == plain  # type: ignore[arg-type]
    tune(LAYER, SHAPE, "float16")
    tuned = first_line(runtime.compile(LAYER, algorithm="tuned", **asked))  # type: ignore[arg-type]
    assert tuned == plain + f", tiles={FASTEST}".replace("'", '"')
    assert first_line(runtime.compile(LAYER, **asked)) == plain  # type: ignore[arg-type]


@pytest.mark.usefixtures("gpu")
def test_the_command_measures_once_and_prints_the_text_with_the_tiles() -> None:
    words = ["emit", "conv2d", "--in-channels", "5", "--out-channels", "6", "--kernel-size", "3", "--no-bias"]
    words += ["--input", "1,5,5,5", "--dtype", "float16", "--backend", "cupy", "--tune"]
    first, again = (CliRunner().invoke(main, words) for _ in range(2))
    assert first.exit_code == again.exit_code == 0, first.output
    assert first.stdout == again.stdout
    assert 'tiles={"forward": "32x128", "input_gradient": "16x32",' in " ".join(first.stdout.split())
    assert "Measured milliseconds:" in first.stderr
    assert "remembered from before" in again.stderr


@pytest.mark.usefixtures("gpu")
def test_a_network_has_no_choice_of_tiles() -> None:
    found = CliRunner().invoke(main, ["emit", "lenet", "--backend", "cupy", "--tune"])
    assert found.exit_code == 2
    assert "the choice is between" in found.stderr
