"""Bands of rows: their theorem, texts that form results in them, how many rows they have, and faults planted there.

Texts are compared with the definition written out as loops, at drawn layers, numbers of rows, layouts and batches: the
last band overlaps the one before or does not, strides leave a remainder, kernels are dilated, the padding may be larger
than a band and a band lie in it entirely.
"""

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import codegen
from codegen.check import check
from codegen.choose import choose, explained
from codegen.emit import Emitted, emit
from codegen.execution import Refuted
from codegen.layer_module import layer_source
from codegen.plan import BATCH, PlanError
from codegen.plans import band_claims, bands
from codegen.plans.algorithms import ALGORITHMS
from codegen.plans.bands import Band, Bands, Reading, band, fitting, in_bands, largest, least_rows
from derive.indices import index, symbol
from derive.layers import Applied, Conv, Conv1d, Conv2d, Conv3d
from derive.obligations import Refused
from derive.terms import tensor
from runtime.bench_cases import CASES, Convolution
from tests.codegen.convolutions import LAYOUTS, Case, cases, drawn, expected, laid_out, plans_of

Patch = pytest.MonkeyPatch
FORWARD = ("nhwc", "winograd2", "winograd4")  # those that form their result through views
BACKWARD = ("winograd2", "winograd4")


def applied_of(layer: Conv, *sizes: int) -> Applied:
    """A layer on images of these sizes."""
    return layer.on(tensor("X", BATCH, *sizes), "Y")


# --- the theorem --------------------------------------------------------------------------------------------------


def test_every_statement_is_committed() -> None:
    file = codegen.committed.committed(band_claims.FILE)
    assert file is not None
    known = dict(band_claims.claims())
    assert all(file.proves(name, claim.statement) for name, claim in known.items())
    assert set(known) == set(file.outputs)


@pytest.mark.parametrize("result", bands.RESULTS)
def test_rows_of_a_result_are_proved_for_all_sizes(result: str) -> None:
    for axes in (1, 2, 3):
        theorem = dict(band_claims.claims())[band_claims.key(axes, result, bias=True)].prove()
        sizes = {s for _, hi in theorem.binders for s in hi.symbols} | {
            s for f in theorem.facts for s in f.indices()[0].symbols
        }
        assert {"r", "R", "k0", "d0", "p0", "o0"} <= sizes
        assert ("s0" in sizes) == (result == "forward")


def one_row_too_far(own: Band) -> Band:
    """Rows are read from the next one on."""
    return replace(own, reading=replace(own.reading, before=own.reading.before - 1))


def every_row(own: Band) -> Band:
    """The stride is forgotten."""
    return replace(own, reading=replace(own.reading, step=own.reading.step + 1))


def padded_again(own: Band) -> Band:
    """The convolution of a band has one more row of zeros on each side."""
    (first, *others) = own.layer.padding
    return replace(own, layer=replace(own.layer, padding=(index(first) + 1, *others)))


@pytest.mark.parametrize("mistake", [one_row_too_far, every_row, padded_again])
@pytest.mark.parametrize("result", bands.RESULTS)
def test_other_rows_are_refused(mistake: Any, result: str) -> None:
    applied = band_claims._general(1, result, bias=True)
    with pytest.raises(Refused):
        band_claims.claim_of(applied, result, mistake(band(applied, result, symbol("R")))).prove()


def test_a_band_is_an_instance_only_where_its_facts_hold_and_it_is_the_right_one() -> None:
    applied = applied_of(Conv2d(2, 3, 3, stride=2, padding=1), 2, 12, 7)
    cut = in_bands(applied, "nhwc", "forward", 4)
    assert cut.starts == (0, 2)
    assert band_claims.proof_digest(applied, "forward", cut)
    for wrong in (
        replace(cut, total=7),
        replace(cut, total=5),
        replace(cut, band=one_row_too_far(cut.band)),
        replace(cut, band=padded_again(cut.band)),
    ):
        assert band_claims.proof_digest(applied, "forward", wrong) is None


# --- texts --------------------------------------------------------------------------------------------------------


def module_in_bands(case: Case, rows: Mapping[str, int]) -> tuple[ModuleType, dict[str, Bands]]:
    """The module of a case with some results in bands."""
    applied = applied_of(case.layer, *case.shape[1:])
    cut = {name: in_bands(applied, case.algorithm, name, n, itemsize=8) for name, n in rows.items()}
    module = codegen.load(layer_source(applied, plans_of(case), "A convolution", "For a test.", bands=cut))
    if "ratio" in vars(module):
        module.__dict__["ratio"] = lambda p, q, dtype: Fraction(p, q)
    return module, cut


@pytest.mark.parametrize("algorithm", FORWARD)
def test_bands_are_rows_of_the_definition(algorithm: str) -> None:
    @settings(max_examples=40)
    @given(
        case=cases(algorithm), seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 9), block=st.integers(1, 3),
        layouts=st.lists(st.sampled_from(LAYOUTS), min_size=4, max_size=4), last=st.booleans(),
    )  # fmt: skip
    def holds(case: Case, seed: int, layouts: list[str], rows: int, block: int, last: bool) -> None:
        data = drawn(case, seed, "object", layouts)
        wanted, outputs, height = expected(case, data), data.grad.shape[2], case.shape[2]
        forced = {"forward": min(rows, outputs)}
        if algorithm in BACKWARD:
            forced["input_gradient"] = min(rows, height)
        m, cut = module_in_bands(case, forced)
        applied = applied_of(case.layer, *case.shape[1:])
        assert all(band_claims.proof_digest(applied, name, own) for name, own in cut.items())
        work, bias = m.Forward(case.batch, object, block), data.bias if case.layer.bias else None
        out = laid_out(np.zeros(data.grad.shape, object), "channels last" if last else "contiguous")
        m.forward(drawn(case, seed + 1, "object").x, data.weight, bias, work)
        for found in (m.forward(data.x, data.weight, bias), m.forward(data.x, data.weight, bias, work, out)):
            assert (found == wanted["forward"]).all()
        assert found is out
        found = m.input_gradient(data.grad, data.weight, data.x.shape)
        assert (found == wanted["input_gradient"]).all()

    holds()


@pytest.mark.parametrize(("algorithm", "rows"), [("nhwc", 0), ("nhwc", 6), ("im2col", 2)])
def test_bands_that_cannot_be_are_refused(algorithm: str, rows: int) -> None:
    applied = applied_of(Conv1d(2, 2, 3), 2, 7)
    with pytest.raises(PlanError, match="nearest legal value is [15]" if algorithm == "nhwc" else "through views"):
        in_bands(applied, algorithm, "forward", rows)


def test_a_convolution_without_padding_reads_its_rows_in_place() -> None:
    m, _ = module_in_bands(Case(Conv2d(2, 2, 3), (1, 2, 7, 7), "nhwc"), {"forward": 2})
    assert not hasattr(m, "_rows")
    assert hasattr(module_in_bands(Case(Conv2d(2, 2, 3, padding=1), (1, 2, 7, 7), "nhwc"), {"forward": 2})[0], "_rows")


# --- how many rows ------------------------------------------------------------------------------------------------


@given(
    algorithm=st.sampled_from(FORWARD), channels=st.integers(1, 300), outputs=st.integers(1, 300),
    height=st.integers(3, 900), width=st.integers(3, 900), itemsize=st.sampled_from([4, 8]),
    stride=st.integers(1, 3), dilation=st.integers(1, 40), padding=st.integers(0, 5),
)  # fmt: skip
@settings(max_examples=60)
def test_the_buffers_of_a_band_fit(
    algorithm: str, channels: int, outputs: int, height: int, width: int, itemsize: int, stride: int, dilation: int,
    padding: int,
) -> None:  # fmt: skip
    stride, dilation = (stride, dilation) if algorithm == "nhwc" else (1, 1)
    layer = Conv2d(channels, outputs, 3, stride, padding, dilation)
    applied = applied_of(layer, channels, 2 * dilation + height, 2 * dilation + width)
    for result, plan in ALGORITHMS[algorithm].plan(applied, itemsize=itemsize).items():
        cut = fitting(applied, algorithm, result, plan, itemsize=itemsize)
        if cut is None:
            continue
        fewest, tile = least_rows(applied, algorithm, result), ALGORITHMS[algorithm].tile
        assert largest(cut.plan, itemsize) <= bands.FILLED or cut.rows <= fewest
        assert cut.rows % tile == 0
        assert cut.starts[-1] + cut.rows == cut.total
        assert sum(cut.rows for _ in cut.starts) - cut.total < tile * len(cut.starts)  # rows formed twice
        assert cut.plan.block == 1


def test_images_of_the_benchmark_are_formed_whole() -> None:
    """They are small: what was fastest for them whole stays so."""
    for work in {case.work for case in CASES if isinstance(case.work, Convolution)}:
        for layout in ("channels_first", "channels_last"):
            for choice in choose(work.layer(), work.input_shape, "float32", layout=layout):
                (taken,) = (c for c in choice.candidates if c.verdict.startswith("taken"))
                assert taken.bands is None, (work, layout, choice.result)


def test_kernels_that_are_large_are_not_read_again_and_again() -> None:
    applied = applied_of(Conv2d(256, 256, 3, padding=1), 256, 112, 112)
    for algorithm, cut in (("winograd4", False), ("nhwc", True)):
        plan = ALGORITHMS[algorithm].plan(applied)["forward"]
        assert (fitting(applied, algorithm, "forward", plan) is not None) == cut
        assert (largest(plan, 4, phase="prologue") <= bands.AGAIN) == cut


def test_a_large_image_is_formed_in_bands_and_the_choice_says_so() -> None:
    layer, shape = Conv2d(64, 64, 3, padding=1), (1, 64, 224, 224)
    emitted = emit(layer, input_shape=shape)
    assert set(emitted.bands) == {"forward", "input_gradient"}
    assert emitted.plans["forward"].algorithm == emitted.bands["forward"].plan.algorithm == "winograd4"
    assert {"forward in bands", "input_gradient in bands"} <= set(emitted.theorems)
    cut = emitted.bands["forward"]
    assert f"taken; in {len(cut.starts)} bands of {cut.rows} rows" in explained(choose(layer, shape, "float32"))
    assert emit(layer, input_shape=shape, algorithm="winograd4").bands == emitted.bands


# --- certificates, and faults -------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch: Patch) -> None:
    """A machine with so small a cache that images of a few cells are cut."""
    for name, value in (("LEAST", 0), ("FILLED", 1200), ("ROWS", 1)):
        monkeypatch.setattr(bands, name, value)


STRIDED = (Conv2d(2, 3, 3, stride=(2, 1), padding=2, dilation=(3, 1)), (3, 2, 12, 5), "nhwc")
SQUARE = (Conv2d(2, 2, 3, padding=1), (3, 2, 9, 5), "winograd2")
SIGNAL = (Conv1d(3, 2, 5, stride=2, padding=2), (2, 3, 121), "nhwc")
SOLID = (Conv3d(1, 2, 2, padding=1), (2, 1, 5, 3, 2), "nhwc")


def emitted_of(layer: Conv, shape: tuple[int, ...], algorithm: str) -> Emitted:
    """The text by an algorithm, with its forward pass in bands."""
    found = emit(layer, input_shape=shape, algorithm=algorithm)
    assert "forward" in found.bands
    return found


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("request_", [STRIDED, SQUARE, SIGNAL, SOLID], ids=["strided", "square", "signal", "solid"])
def test_a_certificate_says_that_a_text_runs_in_bands(request_: Any) -> None:
    emitted = emitted_of(*request_)
    rows = check(emitted).rows
    for result, cut in emitted.bands.items():
        assert len(cut.starts) > 1
        (row,) = (r for r in rows if f"forms {result} in {len(cut.starts)} bands of {cut.rows} rows" in r.statement)
        theorem = emitted.theorems[f"{result} in bands"]
        assert theorem in row.method
        assert theorem in emitted.source
    assert not any(row.scope == "not proved" for row in rows)


@pytest.mark.usefixtures("small")
def test_a_plan_in_bands_without_its_theorem_is_not_called_proved() -> None:
    emitted = emitted_of(*SQUARE)
    bare = replace(emitted, theorems={k: v for k, v in emitted.theorems.items() if not k.endswith("in bands")})
    assert [row.scope for row in check(bare).rows].count("not proved") == len(emitted.bands)


LOOP = "for row in (*range(0, {last}, {rows}), {last}):"
FAULTS = {
    "the last band is left out": (SQUARE, LOOP, "for row in range(0, {last}, {rows}):"),
    "bands are one row too far apart": (STRIDED, "range(0, {last}, {rows})", "range(0, {last}, {rows} + 1)"),
    "all but the first band lie one row too high": (
        SQUARE,
        ":, row:row + {rows}]",
        ":, row - (row > 0):][:, :, :{rows}]",
    ),
    "rows are read from the next one on": (STRIDED, "2 * row - 2", "2 * row - 1"),
    "the stride is forgotten": (STRIDED, "2 * row - 2", "row - 2"),
    "zeros of the band before are not renewed": (STRIDED, "    band.fill(0)\n", ""),
    "rows below the image are not looked for": (SQUARE, "first >= 0 and last <=", "first >= 0 and last - 1 <="),
    "rows above the image are moved up": (SQUARE, "band[:, :, low - first:high - first]", "band[:, :, :high - low]"),
    "every block reads the first images": (SQUARE, "_rows(input[low:high]", "_rows(input[:high - low]"),
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_bands_is_killed_by_execution(fault: str) -> None:
    request_, right, wrong = FAULTS[fault]
    emitted = emitted_of(*request_)
    cut = emitted.bands["forward"]
    right, wrong = (
        text.replace("{last}", str(cut.starts[-1])).replace("{rows}", str(cut.rows)) for text in (right, wrong)
    )
    assert right in emitted.source
    with pytest.raises(Refuted, match=r"forward|input_gradient") as caught:
        check(replace(emitted, source=emitted.source.replace(right, wrong)))
    if "so no stage is named" in str(caught.value):
        assert caught.value.finding.stage is None


def test_rows_are_read_where_the_formula_says() -> None:
    reading = Reading(tensor("X", BATCH, 2, 9), index(2), index(1), index(4))
    rows = reading.rows("Xb", 3)
    assert rows.body is not None
    assert (rows.body.text, reading.is_inside) == ("X[$0,$1,$2+5]", False)
