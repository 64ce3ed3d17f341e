"""The roofline on given numbers, and its picture."""

import io

import matplotlib.image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from runtime import roofline
from runtime.bench_cases import CASES
from runtime.pictures import png
from runtime.roofline import Cost, Roof
from runtime.roofline_picture import Point, draw

ROOF = Roof(gemm=80e9, copy=16e9)
POSITIVE = st.floats(1e-3, 1e3)


@pytest.mark.parametrize(("intensity", "rate"), [(0.5, 8e9), (5.0, 80e9), (4.0, 64e9), (1000.0, 80e9)])
def test_the_roof_is_the_lesser_of_two_rates(intensity: float, rate: float) -> None:
    assert ROOF.at(intensity) == rate
    assert ROOF.ridge == 5.0


def test_shares_of_the_roof() -> None:
    computed = Cost(operations=800e9, bytes=1e9)  # 10 s at the product's rate
    copied = Cost(operations=16e9, bytes=16e9)  # 1 s at the copy's
    assert ROOF.share(computed, 20.0) == 0.5
    assert ROOF.share(copied, 4.0) == 0.25
    assert ROOF.share(copied, 0.5) == 2.0  # what stays in a cache may be faster


@given(POSITIVE, POSITIVE, POSITIVE, POSITIVE)
def test_work_at_the_roof_takes_the_longer_of_its_two_times(gemm: float, copy: float, ops: float, size: float) -> None:
    roof, cost = Roof(gemm, copy), Cost(ops, size)
    assert roof.share(cost, max(ops / gemm, size / copy)) == pytest.approx(1.0)


def test_measuring_gives_rates_from_operations_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "_SIDE", 8)
    monkeypatch.setattr(roofline, "_COPIED", 1000)
    monkeypatch.setattr(roofline, "least", lambda call: 0.5)
    # 2 n^3 operations of a product, and every byte of a copy read and written, in half a second
    assert roofline.measure() == Roof(gemm=2 * 8**3 / 0.5, copy=2 * 1000 / 0.5)


def test_the_best_try_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now, takes = [0.0], iter([9.0, *[3.0] * 7, 2.0, *[4.0] * 7])  # the first is to warm up

    def call() -> None:
        now[0] += next(takes)

    monkeypatch.setattr(roofline.time, "perf_counter", lambda: now[0])
    assert roofline.least(call) == 2.0


# --- The picture --------------------------------------------------------------------------------------------


def points() -> list[Point]:
    found = []
    for k, case in enumerate(CASES):
        if not case.name.startswith("depthwise"):
            seconds = case.work.cost().operations / 10e9 / (1 + k % 5)
            found.append(Point(case.family, case.part, case.name, case.work.cost(), seconds, 1.3 * seconds))
    return found


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is written on the pictures of this test."""
    noted: list[str] = []

    def noting(figure: Figure) -> bytes:
        noted.extend(text.get_text() for text in figure.findobj(Text))
        return png(figure)

    monkeypatch.setattr("runtime.roofline_picture.png", noting)
    return noted


def test_every_case_is_named_and_the_rates_are_written(written: list[str]) -> None:
    content = draw(ROOF, points(), title="a title")
    for point in points():
        assert point.name in written
        assert point.family in written
    assert {"matrix product, 80 GFLOP/s", "copy, 16 GB/s", "PyTorch's better layout", "a title"} <= set(written)
    pixels = matplotlib.image.imread(io.BytesIO(content))
    assert pixels.shape[1] > 1500
    assert 0.01 < (pixels[..., :3].min(axis=2) < 0.9).mean() < 0.4


def test_without_pytorch_there_is_no_ring_and_the_same_numbers_give_the_same_bytes(written: list[str]) -> None:
    alone = [Point("a", "forward", "a-forward", Cost(1e9, 1e6), 0.1)]
    assert draw(ROOF, alone) == draw(ROOF, alone)
    assert "certiconv" in written
    assert "PyTorch's better layout" not in written


def test_no_point_no_picture() -> None:
    with pytest.raises(ValueError, match="at least one case must have been timed"):
        draw(ROOF, [])
