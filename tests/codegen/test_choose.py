"""Which algorithm is chosen: within the tolerance, the same for every batch and process, and told in words."""

import pytest

import codegen
from codegen.choose import choose, explained
from codegen.cost import cost
from codegen.growth import bounds
from codegen.machine import REFERENCE, Machine
from codegen.plan import BATCH
from codegen.plans.algorithms import ALGORITHMS, kind_of
from codegen.rounding import FLOAT32, FLOAT64
from derive.layers import Conv, Conv1d, Conv2d, Conv3d
from derive.terms import tensor

LAYERS: list[tuple[Conv, tuple[int, ...]]] = [
    (Conv2d(32, 32, 3, padding=1), (2, 32, 14, 14)),
    (Conv2d(3, 8, 11, stride=4, padding=2), (2, 3, 40, 40)),
    (Conv2d(16, 8, 1), (2, 16, 7, 7)),
    (Conv2d(1, 6, 5, padding=2), (2, 1, 28, 28)),
    (Conv1d(16, 16, 9, padding=4), (2, 16, 300)),
    (Conv3d(2, 3, 2, stride=2), (2, 2, 4, 5, 6)),
    (Conv2d(4, 4, 3, groups=4), (2, 4, 8, 8)),
    (Conv2d(4, 6, 3, groups=2), (2, 4, 8, 8)),
    (Conv2d(2, 2, (3, 2), dilation=(2, 1), bias=False), (2, 2, 9, 8)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=[str(k) for k in range(len(LAYERS))])
@pytest.mark.parametrize(("dtype", "precision"), [("float32", FLOAT32), ("float64", FLOAT64)])
def test_what_is_taken_is_the_cheapest_within_the_tolerance(
    layer: Conv, shape: tuple[int, ...], dtype: str, precision: object
) -> None:
    applied = layer.on(tensor("X", BATCH, *shape[1:]), "Y")
    choices = choose(layer, shape, dtype, tolerance=1e-4, thorough=True)
    assert [c.result for c in choices] == ["forward", "input_gradient", "weight_gradient", "bias_gradient"][
        : len(choices)
    ]
    for choice in choices:
        taken = [c for c in choice.candidates if c.verdict.startswith("taken")]
        assert [c.algorithm for c in taken] == [choice.algorithm]
        totals = [c.cost.total for c in choice.candidates]
        assert totals == sorted(totals)
        within = [c for c in choice.candidates if c.within]
        if within:
            assert taken[0] == within[0]
        for c in choice.candidates:
            assert kind_of(applied, c.algorithm) is not None
            plan = ALGORITHMS[c.algorithm].plan(applied)[choice.result]
            assert c.error == bounds(plan, precision, batch=8).relative  # type: ignore[arg-type]
            assert c.within == (c.error <= 1e-4)


def test_a_smaller_tolerance_takes_what_rounds_less() -> None:
    layer, shape = Conv2d(64, 64, 3, padding=1), (2, 64, 28, 28)
    taken = [choose(layer, shape, "float32", tolerance=t)[0].algorithm for t in (1e-2, 1e-4, 2e-5)]
    assert taken[0] == "winograd4"
    assert taken[2] not in ("winograd2", "winograd4")
    last = choose(layer, shape, "float32", tolerance=1e-9)[0]
    assert last.algorithm == min(last.candidates, key=lambda c: c.error or 1.0).algorithm
    assert "none is sure to be within the tolerance" in explained((last,))


def test_times_are_told_for_the_images_that_are_asked_for() -> None:
    choices = choose(*LAYERS[0], "float32")[:1]
    one, some, many = (explained(choices, images=n) for n in (1, 8, 32))
    assert one.startswith("Milliseconds for 1 image, their share of those predicted for 32; the error")
    assert some.startswith("Milliseconds for 8 images, their share of those predicted for 32; the error")
    assert many.startswith("Milliseconds for 32 images; the error")
    assert explained(choices) == many
    predicted = [float(text.splitlines()[4].split()[1]) for text in (some, many)]
    assert predicted[1] == pytest.approx(4 * predicted[0], abs=0.03)


def test_the_batch_does_not_matter_and_the_machine_does() -> None:
    layer, shape = LAYERS[0]
    assert choose(layer, shape, "float32") == choose(layer, (999, *shape[1:]), "float32")
    slow = Machine(gemm=REFERENCE.gemm / 100)
    fast, other = (choose(layer, shape, "float32", machine=m)[0] for m in (REFERENCE, slow))
    products = [{c.algorithm: c.cost.product for c in choice.candidates} for choice in (fast, other)]
    assert all(products[1][name] > 50 * products[0][name] for name in ("gemm", "im2col"))
    assert {fast.algorithm, other.algorithm} == {fast.algorithm, "direct"}  # which has no product


@pytest.mark.parametrize(
    ("layer", "shape", "taken"),
    [
        (Conv2d(64, 128, 3, 2, 1), (8, 64, 56, 56), ("nhwc", "nhwc")),
        (Conv2d(64, 64, 3, padding=1), (8, 64, 56, 56), ("winograd4", "winograd4")),
        (Conv2d(256, 64, 1), (8, 256, 28, 28), ("im2col", "nhwc")),
    ],
    ids=str,
)  # fmt: skip
def test_costs_depend_on_how_the_images_lie(layer: Conv2d, shape: tuple[int, ...], taken: tuple[str, str]) -> None:
    """Plans with the channels innermost cost less where images lie so, and those that need rows of the image more."""
    choices = [choose(layer, shape, "float32", layout=name)[0] for name in ("channels_first", "channels_last")]
    assert tuple(choice.algorithm for choice in choices) == taken
    first, last = ({c.algorithm: c.cost.total for c in choice.candidates} for choice in choices)
    assert last["nhwc"] < first["nhwc"]
    assert layer.kernel_size != (1, 1) or last["im2col"] > first["im2col"]


def test_a_cost_is_made_of_its_parts_and_grows_with_the_image() -> None:
    totals = []
    for side in (8, 16, 32):
        plans = ALGORITHMS["im2col"].plan(Conv2d(8, 8, 3, padding=1).on(tensor("X", BATCH, 8, side, side)))
        found = cost(plans["forward"])
        assert found.total == pytest.approx(found.product + found.move + found.element + found.call)
        totals.append(found.total)
    assert totals == sorted(totals)
    assert totals[2] > 2.5 * totals[1]  # four times the cells, and as many products as before


def test_a_module_says_what_was_chosen_and_is_made_again_by_it() -> None:
    layer, shape = LAYERS[1]
    emitted = codegen.emit(layer, input_shape=shape)
    chosen = {c.result: c.algorithm for c in choose(layer, shape, "float32")}
    assert {result: plan.algorithm for result, plan in emitted.plans.items()} == chosen
    assert codegen.emit(layer, input_shape=shape, algorithm=chosen).source == emitted.source


REFUSED = [
    ({"tolerance": 0}, "tolerance=0: it has to be a finite number above 0"),
    ({"tolerance": float("nan")}, "tolerance=nan: it has to be a finite number above 0"),
    ({"tolerance": "a"}, "tolerance='a': it has to be a finite number above 0"),
    ({"tolerance": 1e-3, "algorithm": "gemm"}, "nothing is chosen by it where the algorithm is fixed, to 'gemm'"),
    ({"algorithm": {"forwards": "gemm"}}, "algorithm='forwards': it has to be one of 'forward', 'input_gradient'"),
    ({"algorithm": {"forward": "nested"}}, "algorithm='nested': it has no plan for Conv2d(32, 32, (3, 3)"),
]


@pytest.mark.parametrize(("change", "words"), REFUSED, ids=[str(k) for k in range(len(REFUSED))])
def test_a_request_that_nothing_can_be_chosen_for_is_refused_in_words(change: dict[str, object], words: str) -> None:
    with pytest.raises(codegen.EmitError) as caught:
        codegen.emit(LAYERS[0][0], input_shape=LAYERS[0][1], **change)  # type: ignore[arg-type]
    assert words in str(caught.value)


def test_a_long_signal_is_planned_like_a_short_one() -> None:
    conv = Conv1d(16, 16, 9, padding=4)
    short, long = (
        choose(conv, (1, 16, length), "float32") for length in (10**6, 10**9)
    )  # no cell is looked at by itself
    assert [c.result for c in short] == [c.result for c in long]
