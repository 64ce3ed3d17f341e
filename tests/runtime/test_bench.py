"""`runtime.bench`: cases, data, who is timed, and that nothing wrong ever is.

Nothing here asserts a time.  The cases are tiny, the rates of the machine are given, and the peers are the emitted
module, textbook NumPy, and implementations with planted mistakes; PyTorch has its place in `tests/oracle`.
"""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import codegen
from derive.legality import LayerError
from runtime import bench_text, textbook
from runtime.arrays import Array, channels_last
from runtime.bench import Bench, BenchError, Growth, Result, prepared
from runtime.bench_cases import CASES, QUICK, Case, CaseError, Convolution, LeNetStep, Part, find, sweeps
from runtime.bench_data import Data, Disagreement, LayerData, StepData, arrays, truth
from runtime.bench_peers import (
    CERTICONV,
    PEERS,
    PYTORCH,
    RESULTS,
    SCIPY,
    TEXTBOOK,
    Contestant,
    Peer,
    emitted,
    peers,
)
from runtime.process_crew import Processes
from runtime.roofline import Roof
from runtime.thread_crew import Threads
from runtime.timing import Samples

pytestmark = pytest.mark.usefixtures("emission")

ROOF = Roof(gemm=80e9, copy=16e9)
TINY = Convolution(3, 2, 4, (7, 6), 3, stride=2, padding=1)
PARTS: tuple[Part, ...] = ("forward", "weight", "input")
BASE = tuple(peer for peer in PEERS if not peer.package)


def case(part: Part = "forward", work: Convolution = TINY) -> Case:
    return Case(f"tiny-{part}", work, part)


def run(*cases: Case, peers: tuple[Peer, ...] = BASE, rounds: int = 2) -> list[Result]:
    with prepared(rounds=rounds, peers=peers, measure=lambda: ROOF) as ready:
        return [ready.run(one) for one in cases]


# --- Cases --------------------------------------------------------------------------------------------------


def test_names_are_unique_and_families_have_their_parts() -> None:
    names = [one.name for one in CASES]
    assert len(set(names)) == len(names)
    assert all(one.name.startswith(f"{one.family}-") for one in CASES)
    assert {one.part for one in CASES if one.family == "lenet2"} == {"forward", "weight", "input"}
    assert find(QUICK)
    for one in CASES:
        if isinstance(one.work, Convolution):
            assert one.work.channels % one.work.groups == one.work.outputs % one.work.groups == 0


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["audio"], ["audio-forward", "audio-weight", "audio-input"]),
        (["lenet-step-128"], ["lenet-step-128"]),
        (["lenet2-i", "lenet-step"], ["lenet-step-256", "lenet-step-128", "lenet2-input"]),
        (["audio-input", "audio-input"], ["audio-input"]),
        ([], [one.name for one in CASES]),
    ],
)
def test_a_name_or_its_start_selects(wanted: list[str], found: list[str]) -> None:
    assert [one.name for one in find(wanted)] == found


def test_a_whole_name_is_not_a_prefix_as_well() -> None:
    cases = (Case("a-1", TINY, "forward"), Case("a-12", TINY, "forward"))
    assert find(["a-1"], cases) == cases[:1]
    assert find(["a-"], cases) == cases


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("depthwis-forward", "case 'depthwis-forward' is unknown; nearest: depthwise-forward"),
        ("alexnet", None),
        ("xyzzy", "legal: lenet-step, lenet1, lenet2, conv3-128"),
        ("", "case '' is unknown"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, words: str | None) -> None:
    if words is None:
        assert find([name])
        return
    with pytest.raises(CaseError) as caught:
        find([name])
    assert words in str(caught.value)


def test_the_cost_of_a_convolution() -> None:
    cost = Convolution(8, 64, 64, (56, 56), 3, padding=1).cost()
    assert cost.operations == 2 * 8 * 56 * 56 * 64 * 64 * 9
    assert cost.bytes == 4 * (2 * 8 * 64 * 56 * 56 + 64 * 64 * 9)
    strided = TINY.cost()  # 7x6 to 4x3
    assert strided.operations == 2 * 3 * 4 * 3 * 4 * 2 * 9
    assert strided.bytes == 4 * (3 * 2 * 42 + 4 * 2 * 9 + 3 * 4 * 12)


def test_the_cost_of_a_step_of_lenet() -> None:
    cost = LeNetStep(10).cost()
    first, others = 6 * 25 * 28 * 28, 16 * 150 * 100 + 400 * 120 + 120 * 84 + 84 * 10
    assert cost.operations == 2 * 10 * (2 * first + 3 * others)
    parameters = 156 + 2416 + 48120 + 10164 + 850
    assert cost.bytes == 4 * (10 * 784 + 2 * parameters)


def test_sweeps_grow_one_size_as_the_exponent_says() -> None:
    for sweep in sweeps(doublings=3):
        operations = [one.work.cost().operations for one in sweep.cases]
        assert [b / a for a, b in itertools.pairwise(operations)] == [2.0**sweep.expected] * 3


def layouts(one: Case) -> set[str]:
    """Ours that are timed for a case: channels last for images, where the result keeps that layout or has no batch."""
    if isinstance(one.work, LeNetStep) or len(one.work.image) != 2:
        return {CERTICONV[0]}
    kept = emitted(one, "channels_last").KEEPS_LAYOUT
    return set(CERTICONV if one.part == "weight" or RESULTS[one.part] in kept else CERTICONV[:1])


# --- Peers agree --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["forward", "weight", "input"])
@pytest.mark.parametrize(
    "work", [TINY, Convolution(2, 3, 2, (9,), 4, padding=2), Convolution(2, 1, 2, (4, 5, 3), 2)], ids=["2d", "1d", "3d"]
)
def test_every_peer_gives_the_right_result_and_is_timed(part: Part, work: Convolution) -> None:
    (result,) = run(case(part, work))
    assert result.samples is not None
    assert set(result.samples.seconds) == {*layouts(case(part, work)), TEXTBOOK}
    assert all(len(seconds) == 2 for seconds in result.samples.seconds.values())
    assert result.reference == TEXTBOOK
    assert result.ratio is not None
    assert result.pytorch is None


def noting(original: Callable[..., Any], noted: list[int]) -> Callable[..., Any]:
    """A method of a crew that notes in how many parts it is asked to run a call."""

    def method(self: Any, call: Any, parts: Any, *rest: Any, **named: Any) -> Any:
        noted.append(len(parts))
        return original(self, call, parts, *rest, **named)

    return method


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
@pytest.mark.parametrize("work", [TINY, LeNetStep(5)], ids=["convolution", "step"])
def test_two_of_ours_give_the_right_result(
    work: Convolution | LeNetStep, processes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = Processes if processes else Threads
    noted: list[int] = []
    for name in ("least", "least_step"):
        monkeypatch.setattr(kind, name, 1e-12)
    for name in ("joined", "sums", "steps"):
        monkeypatch.setattr(kind, name, noting(getattr(kind, name), noted))
    cases = [Case("step", work, "step")] if isinstance(work, LeNetStep) else [case(part) for part in PARTS]
    ours = tuple(peer for peer in peers(2, processes=processes) if peer.name in CERTICONV)
    with prepared(rounds=1, threads=2, processes=processes, peers=ours, measure=lambda: ROOF) as ready:
        for one in cases:
            result = ready.run(one)
            assert result.samples is not None
            assert set(result.samples.seconds) == layouts(one)
    assert set(noted) == {2}


def test_everybody_is_asked_for_with_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    by_threads = {n: tuple(peer for peer in peers(n) if not peer.package) for n in (1, 2)}
    monkeypatch.setattr("runtime.bench.everybody", lambda n, *, processes: () if processes else by_threads[n])
    for n in (1, 2):
        with prepared(threads=n, measure=lambda: ROOF) as ready:
            assert ready.peers == by_threads[n]


def test_scipy_correlates_a_channel_at_a_time() -> None:
    for one in (case("forward", Convolution(2, 3, 4, (8, 7), 3, padding=1)), case(work=Convolution(2, 2, 3, (9,), 4))):
        data = arrays(one)
        contestant = peer(SCIPY).build(one, data)
        assert contestant is not None
        truth(one, data).check(SCIPY, contestant.outcome())
    large = Convolution(256, 6, 16, (64, 64), 5)
    for other in (case("weight"), case(work=TINY), case(work=large), Case("step", LeNetStep(1), "step")):
        assert peer(SCIPY).build(other, arrays(other)) is None  # a gradient, a stride, too large, no convolution


def test_ours_lies_channels_last_only_where_its_result_does() -> None:
    image, inside = case(), case(work=Convolution(2, 64, 64, (6, 6), 3, groups=2))  # products formed in the result
    for one, found in ((image, True), (inside, False)):
        contestant = peer(CERTICONV[1]).build(one, arrays(one))
        assert (contestant is not None) == found
    contestant = peer(CERTICONV[1]).build(image, arrays(image))
    assert contestant is not None
    assert channels_last(contestant.call())


def peer(name: str) -> Peer:
    return next(one for one in PEERS if one.name == name)


def test_a_training_step_moves_everybodys_own_parameters() -> None:
    step = Case("step-3", LeNetStep(3), "step")
    data = arrays(step)
    assert isinstance(data, StepData)
    before = data.copies()
    (result,) = run(step)
    assert result.samples is not None
    assert set(result.samples.seconds) == {CERTICONV[0], TEXTBOOK}
    again = arrays(step)
    assert isinstance(again, StepData)
    for name, array in before.items():
        np.testing.assert_array_equal(array, again.params[name])


def test_results_are_integers_and_float32_holds_them() -> None:
    for part in ("forward", "weight", "input"):
        one = case(part)  # type: ignore[arg-type]
        (value,) = truth(one, arrays(one)).values.values()
        assert (value == np.round(value)).all()
        assert np.abs(value).max() < 2**24


# --- Whoever is wrong is not timed --------------------------------------------------------------------------


def wrong(change: Callable[[Array], Any], called: list[int]) -> Peer:
    """Textbook NumPy with a planted mistake, counting its calls."""

    def build(one: Case, data: Data) -> Contestant:
        assert isinstance(data, LayerData)

        def call() -> Any:
            called.append(1)
            return change(textbook.forward(data.x, data.w, data.b, TINY.setting))

        return Contestant(call, lambda: {one.part: np.asarray(call())})

    return Peer("planted", build)


def off_by_one_cell(z: Array) -> Array:
    z[2, 3, 1, 2] += 1
    return z


def with_nan(z: Array) -> Array:
    z[0, 1, 0, 0] = np.nan
    return z


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (off_by_one_cell, "planted: forward at (2, 3, 1, 2) is "),
        (with_nan, "planted: forward at (0, 1, 0, 0) is nan instead of "),
        (lambda z: z[..., :-1], "planted: forward has the shape (3, 4, 4, 2) instead of (3, 4, 4, 3)"),
        (lambda z: z[..., ::-1], "planted: forward at "),
        (lambda z: z * 0, "planted: forward at "),
    ],
)
def test_a_wrong_result_is_refused_before_anything_is_timed(change: Callable[[Array], Any], words: str) -> None:
    called: list[int] = []
    with pytest.raises(Disagreement) as caught:
        run(case(), peers=(*BASE, wrong(change, called)))
    assert words in str(caught.value)
    assert str(caught.value).startswith("tiny-forward: planted")
    assert "it is not timed" in str(caught.value)
    assert len(called) == 1


def test_the_same_peer_without_a_mistake_is_timed() -> None:
    called: list[int] = []
    (result,) = run(case(), peers=(*BASE, wrong(lambda z: z + 0.2, called)))  # what rounding may do
    assert result.seconds("planted") is not None
    assert len(called) > 3


def test_a_flipped_kernel_is_refused() -> None:
    def build(one: Case, data: Data) -> Contestant:
        assert isinstance(data, LayerData)
        z = textbook.forward(data.x, data.w[..., ::-1, ::-1], data.b, TINY.setting)
        return Contestant(lambda: z, lambda: {one.part: z})

    with pytest.raises(Disagreement):
        run(case(), peers=(Peer("flipped", build),))


@pytest.mark.parametrize("forgotten", ["0.bias", "0.weight", "9.weight"])
def test_a_step_that_forgets_a_parameter_is_refused(forgotten: str) -> None:
    def build(one: Case, data: Data) -> Contestant:
        assert isinstance(data, StepData)
        params = data.copies()

        def step() -> None:
            kept = params[forgotten].copy()
            textbook.lenet_step(data.x, data.y, params, data.lr)
            params[forgotten][...] = kept

        return Contestant(step, lambda: step() or params)  # type: ignore[func-returns-value]

    with pytest.raises(Disagreement, match=f"forgetful: {forgotten} at"):
        run(Case("step-3", LeNetStep(3), "step"), peers=(Peer("forgetful", build),))


def test_a_result_that_is_missing_is_refused() -> None:
    nothing = Peer("nothing", lambda one, data: Contestant(lambda: None, dict))
    with pytest.raises(Disagreement, match="nothing gives no forward"):
        run(case(), peers=(nothing,))


# --- What is not there --------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [LayerError("groups=2: no"), codegen.EmitError("algorithm: none")])
def test_what_is_not_emitted_is_a_row_with_the_reason(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def refuse(*_: object, **__: object) -> codegen.Emitted:
        raise error

    monkeypatch.setattr(codegen, "emit", refuse)
    with prepared(rounds=1, peers=BASE, measure=lambda: ROOF) as ready:
        result = ready.run(case())
        assert result.reason == str(error)
        assert result.ratio is None
        assert bench_text.rows([result], ready)[0][:2] == ("tiny-forward", "not emitted")
        assert f"tiny-forward not emitted: {error}" in bench_text.notes([result], ready)
        assert bench_text.as_json([result], [], ready)["cases"][0]["not_emitted"] == str(error)


def test_a_peer_that_is_not_installed_takes_no_part() -> None:
    absent = Peer("absent", lambda one, data: pytest.fail("it was asked"), package="no_such_package_anywhere")
    (result,) = run(case(), peers=(*BASE, absent))
    assert result.seconds("absent") is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rounds": 0}, "rounds=0 is less than 1; nearest legal: 1"),
        ({"threads": 0}, "threads=0 is neither 1 nor 2; nearest legal: 1"),
        ({"threads": 3}, "threads=3 is neither 1 nor 2; nearest legal: 2"),
        ({"processes": True}, "processes=True with threads=1: nothing would be split; nearest legal: threads=2"),
    ],
)
def test_settings_that_are_not_legal(given: dict[str, int], words: str) -> None:
    with pytest.raises(BenchError, match=words), prepared(**given, peers=BASE, measure=lambda: ROOF):  # type: ignore[arg-type]
        pass


def test_only_threads_that_spin_are_given_a_rest() -> None:
    for threads in (1, 2):
        with prepared(threads=threads, peers=BASE, measure=lambda: ROOF) as ready:
            assert (ready.rest > 0) == (threads > 1)


# --- Results ------------------------------------------------------------------------------------------------


def result(**seconds: float) -> Result:
    """A result with these times, in three quiet rounds."""
    names = {
        "ours": CERTICONV[0],
        "last_ours": CERTICONV[1],
        "nchw": PYTORCH[0],
        "last": PYTORCH[1],
        "scipy": SCIPY,
        "textbook": TEXTBOOK,
    }
    return Result(case(), Samples({names[key]: (value,) * 3 for key, value in seconds.items()}, (1.0,) * 4))


@pytest.mark.parametrize(
    ("found", "reference", "ratio"),
    [
        (result(ours=1.0, nchw=2.0, last=4.0, scipy=0.5, textbook=0.1), PYTORCH[0], 0.5),
        (result(ours=1.0, nchw=8.0, last=4.0, textbook=3.0), PYTORCH[1], 0.25),
        (result(ours=1.0, nchw=8.0), PYTORCH[0], 0.125),
        (result(ours=1.0, last_ours=0.5, nchw=8.0), PYTORCH[0], 0.0625),
        (result(ours=1.0, last_ours=2.0, textbook=4.0), TEXTBOOK, 0.25),
        (result(ours=1.0, scipy=4.0, textbook=2.0), TEXTBOOK, 0.5),
        (result(ours=1.0), None, None),
    ],
)
def test_the_ratio_is_of_the_better_layouts(found: Result, reference: str | None, ratio: float | None) -> None:
    assert found.reference == reference
    assert (found.ratio and found.ratio.median) == ratio


def test_exponents_are_those_of_the_times() -> None:
    sweep = sweeps(doublings=2)[1]
    growth = Growth(sweep, (result(ours=1.0), result(ours=4.0), result(ours=4.0)))
    assert growth.exponents() == [2.0, 0.0]
    both = Growth(sweep, (result(ours=1.0, last_ours=2.0), result(ours=8.0, last_ours=4.0), result(textbook=1.0)))
    assert both.exponents() == [2.0, None]  # of the better layout at each size


def test_the_roof_is_measured_again_and_the_better_kept() -> None:
    rates = iter([Roof(1.0, 4.0), Roof(2.0, 3.0)])
    with prepared(peers=BASE, measure=lambda: next(rates)) as ready:
        assert ready.roof == Roof(1.0, 4.0)
        assert ready.measured_again().roof == Roof(2.0, 4.0)


def test_a_row_says_what_was_found() -> None:
    with prepared(rounds=3, peers=BASE, measure=lambda: ROOF) as ready:
        one = result(ours=0.002, nchw=0.004, last=0.008, textbook=0.01)
        (row,) = bench_text.rows([one], ready)
        notes = bench_text.notes([one], ready)
    cost = TINY.cost()
    assert dict(zip(bench_text.HEADER, row, strict=True)) == {
        "case": "tiny-forward",
        "certiconv ms": "2.00 ±0.00",
        "ours in": "NCHW",
        "PyTorch ms": "4.00 ±0.00",
        "theirs in": "NCHW",
        "SciPy ms": "-",
        "textbook ms": "10.00 ±0.00",
        "ratio": "0.50",
        "quartiles": "0.50-0.50",
        "goal": "-",
        "GFLOP/s": f"{cost.operations / 0.002 / 1e9:.1f}",
        "roof": f"{ROOF.share(cost, 0.002):.0%}",
        "dropped": "0/3",
    }
    assert any("median over PyTorch's, in the layouts named" in note for note in notes)
    assert any("80 GFLOP/s (matrix product) and 16 GB/s (copy)" in note for note in notes)


@pytest.mark.parametrize(("load", "busy"), [(0.1, False), (3.0, True), (None, False)])
def test_a_busy_machine_is_told(load: float | None, busy: bool) -> None:
    told = bench_text.notes([], Bench(ROOF, "", 1, 1, (), load=load))
    assert not any("splits the batch" in note for note in told)
    assert any("splits the batch" in note for note in bench_text.notes([], Bench(ROOF, "", 1, 2, (), load=load)))
    assert any(note.startswith("The load average was 3.0") for note in told) == busy


def test_json_holds_everything() -> None:
    with prepared(rounds=2, peers=BASE, measure=lambda: ROOF) as ready:
        found, growth = ready.run(case()), ready.grow(sweeps(doublings=1)[2])
        told = bench_text.as_json([found], [growth], ready)
    assert told["roof"] == {"gemm": 80e9, "copy": 16e9, "ridge": 5.0}
    assert told["settings"].keys() == {"dtype", "rounds", "threads", "processes", "blas", "load_before", "noise_limit"}
    (one,) = told["cases"]
    assert one["input_shape"] == [3, 2, 7, 6]
    assert (one["rounds"], one["reference"], set(one["peers"])) == (2, TEXTBOOK, {*CERTICONV, TEXTBOOK})
    ours = one["peers"][one["ours"]]
    assert ours["least"] <= ours["lower_quartile"] <= ours["median"] <= ours["upper_quartile"]
    assert ours["rate"] == one["operations"] / ours["median"]
    assert ours["share_of_roof"] == ours["rate"] / ROOF.at(one["intensity"])
    assert one["ratio"]["median"] == ours["median"] / one["peers"][TEXTBOOK]["median"]
    (grown,) = told["growth"]
    assert (grown["axis"], grown["sizes"], grown["expected_exponent"]) == ("image", [7, 14], 2)
    assert len(grown["cases"]) == 2
    assert len(grown["exponents"]) == 1


def test_growth_is_a_row_a_size() -> None:
    sweep = sweeps(doublings=1)[0]
    growth = Growth(sweep, (result(ours=0.001, nchw=0.002), result(ours=0.003, nchw=0.002)))
    assert bench_text.growth_rows(growth) == [
        ("1", "1.00 ±0.00", "2.00 ±0.00", "0.50", "-"),
        ("2", "3.00 ±0.00", "2.00 ±0.00", "1.50", "1.58"),
    ]
    assert "time as batch grows (Conv2d 3x3, padding 1, forward, 32 channels, 28x28" in bench_text.growth_title(growth)


def test_plain_columns_are_aligned() -> None:
    assert bench_text.plain(("case", "ms"), [("a", "1.00"), ("long-name", "-")]) == (
        "case         ms\na          1.00\nlong-name     -"
    )
