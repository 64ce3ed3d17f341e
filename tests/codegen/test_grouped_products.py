"""Convolutions in groups as matrix products, a group each: the split axis, exact results at tiles' edges, faults.

The right numbers are those of the definition as loops (``tests.codegen.convolutions.expected``), which shares nothing
with the stages.
"""

import re
from math import prod
from random import Random

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from codegen.contraction import contraction
from codegen.cupy_check import check_cupy, cut_short
from codegen.cupy_module import legal_tiles
from codegen.emit import emit
from codegen.execution import Refuted
from codegen.grouping import by_groups, groups_of
from codegen.plan import BATCH, Stage
from codegen.plans.definition import definition
from derive.evaluate import RATIONALS, Evaluator, Table
from derive.layers import Conv, Conv1d, Conv2d, Conv3d
from derive.terms import tensor
from tests.codegen.convolutions import Case, drawn, expected
from tests.codegen.cupy_on_cpu import needs_compiler, on_cpu

KINDS: dict[int, type[Conv]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
SPLIT = ("forward", "weight_gradient")
BATCHES = {"N": 2}


def stages(layer: Conv, *shape: int) -> dict[str, Stage]:
    """The stages of a layer that groups concern."""
    plans = definition(layer.on(tensor("X", BATCH, *shape), "Y"))
    return {result: plans[result].stages[0] for result in SPLIT}


@st.composite
def layers(draw: st.DrawFn) -> Case:
    """Groups with outputs enough for a product, about as many as tiles have rows, and windows of every kind."""
    rank = draw(st.sampled_from([1, 1, 2, 3]))
    most = 3 if rank < 3 else 2
    sides, spatial = [], []
    for _ in range(rank):
        k, s, d, p = (draw(st.integers(low, high)) for low, high in ((1, most), (1, most), (1, 2), (0, 2)))
        outputs, rest = draw(st.integers(1, 4 if rank < 3 else 2)), draw(st.integers(0, s - 1))
        sides.append((k, s, p, d))
        spatial.append(max(1, (outputs - 1) * s + d * (k - 1) + 1 - 2 * p + rest))
    groups = draw(st.sampled_from([2, 3, 5]))
    c, n = groups * draw(st.sampled_from([1, 2, 4, 8])), groups * draw(st.sampled_from([5, 8, 9, 17]))
    kernel, stride, padding, dilation = zip(*sides, strict=True)
    layer = KINDS[rank](c, n, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    return Case(layer, (draw(st.sampled_from([1, 2, 5])), c, *spatial), "direct")


# --- the split axis -----------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(layers(), st.integers(0, 9))
def test_a_split_stage_has_the_same_elements_in_the_same_order(case: Case, seed: int) -> None:
    rng = Random(seed)
    for stage in stages(case.layer, *case.shape[1:]).values():
        split = by_groups(stage)
        tables = {}
        for t in stage.body.tensors:
            sizes = [(hi - lo).evaluate(BATCHES) for lo, hi in t.box]
            tables[t.name] = Table(tuple((0, n) for n in sizes), [rng.randint(-9, 9) for _ in range(prod(sizes))])
        values = Evaluator(BATCHES, tables, RATIONALS)
        assert values.table(split.tensor).values == values.table(stage.tensor).values
        assert (split.name, split.tensor.rank) == (stage.name, stage.tensor.rank + 1)


def test_a_group_is_a_product_of_its_outputs_and_its_inputs() -> None:
    every = stages(Conv2d(12, 18, 3, stride=2, groups=2), 12, 8, 7)
    forward, weight = (contraction(by_groups(every[result])) for result in SPLIT)
    assert forward is not None
    assert (forward.batch, forward.rows, forward.columns) == ((1,), (2,), (0, 3, 4))
    assert forward.left.read.tensor.name == "W"
    assert weight is not None
    assert (weight.batch, weight.rows, weight.columns) == ((0,), (1,), (2, 3, 4))
    assert weight.left.read.tensor.name == "G"


@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(8, 8, 3, groups=8),  # depthwise: a kernel a channel
        Conv2d(8, 8, 3, groups=4),  # two outputs a group
        Conv2d(2, 16, 2, groups=2),  # four terms
    ],
    ids=["depthwise", "few rows", "few terms"],
)
def test_groups_that_are_too_small_for_a_product_stay_as_they_are(layer: Conv) -> None:
    assert stages(layer, layer.in_channels, 9, 9)["forward"].template == "cells"  # type: ignore[arg-type]


def test_without_groups_nothing_is_split() -> None:
    for stage in stages(Conv2d(8, 8, 3, stride=2), 8, 9, 9).values():
        assert groups_of(stage) is None
        assert by_groups(stage) is stage


def test_it_is_the_plan_of_the_theorem_that_is_printed() -> None:
    emitted = emit(Conv2d(12, 18, 3, groups=2), backend="cupy", input_shape=(2, 12, 8, 8))
    assert set(emitted.theorems) == set(emitted.plans)
    assert [emitted.plans[result].stages[0].template for result in SPLIT] == ["product", "product"]
    assert "// Here n is 9 * g + m: number m of group g." in emitted.cuda


# --- execution ----------------------------------------------------------------------------------------------------


def compared(case: Case, dtype: str, data: st.DataObject) -> None:
    plans = definition(case.layer.on(tensor("X", BATCH, *case.shape[1:]), "Y"))
    legal = legal_tiles(plans, dtype)
    tiles = {result: data.draw(st.sampled_from(names), label=result) for result, names in legal.items()}
    module = on_cpu(emit(case.layer, backend="cupy", input_shape=case.shape, dtype=dtype, tiles=tiles).source)
    if data.draw(st.booleans(), label="one share"):
        module.__dict__["BLOCKS"] = 1
    else:
        cut_short(module)
    numbers = drawn(case, 1, dtype)
    right = expected(case, numbers)
    bias = numbers.bias if case.layer.bias else None
    np.testing.assert_array_equal(module.forward(numbers.x, numbers.weight, bias), right["forward"], str(case))
    np.testing.assert_array_equal(module.weight_gradient(numbers.grad, numbers.x), right["weight_gradient"], str(case))


@needs_compiler
@pytest.mark.parametrize("examples", [6, pytest.param(150, marks=pytest.mark.campaign)])
def test_drawn_layers_are_exact(examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(layers(), st.sampled_from(["float32", "float64", "float16"]), st.data())
    def drawn_layer(case: Case, dtype: str, data: st.DataObject) -> None:
        compared(case, dtype, data)

    drawn_layer()


EDGES = [
    (Case(Conv2d(6, 2 * rows, (2, 3), padding=1, groups=2), (3, 6, 4, columns), "direct"), tile)
    for tile, rows, columns in [("16x32", 15, 7), ("16x32", 17, 8), ("32x32", 33, 6), ("8x128", 9, 9)]
]


@needs_compiler
@pytest.mark.parametrize(("case", "tile"), EDGES, ids=[f"{tile} {k}" for k, (_, tile) in enumerate(EDGES)])
def test_rows_beyond_the_edge_of_a_tile_are_no_rows_of_the_next_group(case: Case, tile: str) -> None:
    emitted = emit(case.layer, backend="cupy", input_shape=case.shape, tiles=dict.fromkeys(SPLIT, tile))
    check_cupy(emitted.source, emitted.plans, on_cpu, dtype="float32")


# --- faults -------------------------------------------------------------------------------------------------------

LAYER = Conv2d(6, 18, (2, 3), stride=(2, 1), padding=1, groups=2)
PRODUCT = emit(LAYER, backend="cupy", input_shape=(2, 6, 5, 4), tiles=dict.fromkeys(SPLIT, "16x32"))

FAULTS = {
    "the first group's channels": (r"\(3 \* g \+ c\)", "(c)"),
    "the other group's weights": (r"W\[\(\(\(9 \* g \+ m\)", "W[(((9 * (1 - g) + m)"),
    "the other group's cotangents": (r"G\[(b \* \d+) \+ \(\(\(9 \* g", r"G[\1 + (((9 * (1 - g)"),
    "the bias of the first group": (r"u\[9 \* g \+ m\]", "u[m]"),
    "outputs on top of each other": (r"Z\[(b \* \d+) \+ \(\(\(g \* 9 \+ m\)", r"Z[\1 + (((m)"),
    "shares on top of each other": (r"\(split \* 2 \+ g\)", "(split * 2)"),
    "a row too many": (r"row\(i\) < rows\) put", "row(i) <= rows) put"),
    "rows of the next group, and of none after the last": (r"\bm < 9 && ", ""),
    "one group alone": (r"g = block / (column_tiles|\w+);", "g = 0;"),
    "a group's gradients in another's place": (r"dW\[\(\(\(g \* 9", "dW[((((1 - g) * 9"),
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    source, count = re.subn(*FAULTS[name], PRODUCT.source)
    assert count, f"{FAULTS[name][0]} is not in the text"
    with pytest.raises(Refuted):
        check_cupy(source, PRODUCT.plans, on_cpu, dtype="float32")
