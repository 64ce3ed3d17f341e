"""Deliberate faults in the algorithms for a single convolution, as in ``test_faults``: planted, and killed.

A fault in a plan changes its stages, so its theorem is refused, whatever the text does.  A fault in a template leaves
the stages as they are, so exact execution finds the first stage that the text gets wrong.  They stand in files of their
own, ``faults_in_plans`` and ``faults_in_templates``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from codegen.check import check
from codegen.emit import emit
from codegen.execution import Refuted
from codegen.plans import claims
from codegen.plans.algorithms import UNIT_STEPS, UNIT_STRIDE, Kind, with_kernel
from derive.layers import Conv, Conv1d, Conv2d
from derive.obligations import Refused
from tests.codegen.faults_in_plans import (
    added_back_a_cell_too_far,
    bias_twice,
    channels_and_outputs_exchanged,
    cotangent_of_the_next_row,
    cotangent_one_tile_too_far,
    kernel_not_flipped,
    kernel_the_wrong_way_round,
    phases_not_dilated,
    phases_put_side_by_side,
    pieces_the_wrong_way_round,
    residues_exchanged,
    residues_not_turned_on,
    rows_shifted_back,
    windows_without_padding,
    wrong_matrix_in_the_plan,
    wrong_tile_origin,
)
from tests.codegen.faults_in_templates import (
    batch_turned,
    bias_left_out_of_the_text,
    clip_off_by_one,
    factors_not_turned,
    last_block_only,
    last_tile_dropped,
    layout_not_kept,
    never_shifted,
    nothing_where_no_slice_goes,
    products_not_added,
    result_of_the_first_block,
    shifted_by_one_more,
    the_last_slice_counts,
    wrong_matrix_in_the_text,
)

Patch = pytest.MonkeyPatch
SQUARE = Conv2d(2, 2, 3, padding=1)


# --- the checks ---------------------------------------------------------------------------------------------------


def prove(algorithm: str, result: str) -> None:
    """The theorem about a result on one axis, for all sizes."""
    limits = {"winograd2": with_kernel(3), "nested": UNIT_STEPS, "shift": UNIT_STRIDE}.get(algorithm, ())
    claims.claims(Kind(algorithm, 1, limits=limits))[result].prove()


@cache
def proved_without_a_fault(algorithm: str, result: str) -> None:
    """The same where nothing is planted: once, however many faults are planted there."""
    prove(algorithm, result)


def execute(algorithm: str, layer: Conv = SQUARE, shape: tuple[int, ...] = (3, 2, 5, 4)) -> None:
    """Exact execution of every result, on outputs that are no whole tiles, in blocks that do not divide the batch."""
    check(emit(layer, input_shape=shape, algorithm=algorithm))


# --- the table ----------------------------------------------------------------------------------------------------

GRADIENTS = ("input_gradient", "weight_gradient")


@dataclass(frozen=True)
class InPlan:
    """A fault in a plan, and the theorems it takes away."""

    plant: Callable[[Patch], None]
    algorithm: str
    results: tuple[str, ...]


IN_PLANS = (
    InPlan(wrong_tile_origin, "winograd2", ("forward", *GRADIENTS)),
    InPlan(wrong_matrix_in_the_plan, "winograd2", ("forward", *GRADIENTS)),
    InPlan(kernel_not_flipped, "winograd2", ("input_gradient",)),
    InPlan(bias_twice, "winograd2", ("forward",)),
    InPlan(cotangent_one_tile_too_far, "toeplitz2", GRADIENTS),
    InPlan(windows_without_padding, "im2col", ("forward", "weight_gradient")),
    InPlan(rows_shifted_back, "shift", ("forward", "weight_gradient")),
    InPlan(cotangent_of_the_next_row, "shift", ("input_gradient",)),
    InPlan(pieces_the_wrong_way_round, "nested", ("input_gradient",)),
    InPlan(residues_not_turned_on, "phases", ("forward", "weight_gradient")),
    InPlan(residues_exchanged, "phases", ("input_gradient",)),
    InPlan(phases_not_dilated, "phases", ("input_gradient",)),
    InPlan(phases_put_side_by_side, "phases", ("input_gradient",)),
    InPlan(kernel_the_wrong_way_round, "nhwc", ("forward", "input_gradient")),
    InPlan(added_back_a_cell_too_far, "nhwc", ("input_gradient",)),
    InPlan(channels_and_outputs_exchanged, "nhwc", ("weight_gradient",)),
)


@pytest.mark.parametrize("fault", IN_PLANS, ids=lambda fault: f"{fault.plant.__name__}")
def test_a_fault_in_a_plan_is_refused_by_the_proof(fault: InPlan, monkeypatch: Patch) -> None:
    for result in fault.results:
        proved_without_a_fault(fault.algorithm, result)
    fault.plant(monkeypatch)
    for result in fault.results:
        with pytest.raises(Refused):
            prove(fault.algorithm, result)


STRIDED, WIDE = Conv2d(2, 3, 3, 2, 1), (3, 2, 5, 6)
LONG, SIGNAL = Conv1d(2, 3, 7, padding=2), (3, 2, 8)
IN_TEXTS: list[tuple[Callable[[Patch], None], str, tuple[Any, ...], str]] = [
    (wrong_matrix_in_the_text, "winograd2", (), r"the first stage that is wrong is stage GG "),
    (last_tile_dropped, "winograd2", (), "forward.* is stage Z "),
    (clip_off_by_one, "im2col", (), "wrong is stage Col |broadcast"),
    (last_block_only, "winograd2", (), "weight_gradient.* is stage dU "),
    (last_block_only, "im2col", (), "weight_gradient.* is stage dW "),
    (last_block_only, "nhwc", (), "weight_gradient.* is stage dV "),
    (last_block_only, "phases", (STRIDED, WIDE), "weight_gradient.* is stage dW "),
    (layout_not_kept, "nhwc", (STRIDED, WIDE), "out"),
    (the_last_slice_counts, "phases", (Conv1d(2, 2, 5, 2, dilation=4), (2, 2, 20)), "input_gradient.* is stage dX "),
    (nothing_where_no_slice_goes, "phases", (Conv1d(2, 2, 3, 2, dilation=5), (2, 2, 14)), "input_gradient.* stage dX "),
    (last_block_only, "shift", (), "weight_gradient.* is stage dT "),
    (never_shifted, "shift", (), "forward.* is stage S "),
    (products_not_added, "shift", (), "forward.* is stage S "),
    (shifted_by_one_more, "shift", (), "input_gradient.*(stage dCol|ValueError)"),
    (last_block_only, "toeplitz2", (), "weight_gradient.* is stage dT "),
    (factors_not_turned, "winograd2", (), "weight_gradient.*(mismatch|is stage dU )"),
    (batch_turned, "winograd2", (), "is stage M "),
    (bias_left_out_of_the_text, "nested", (LONG, SIGNAL), "forward.* is stage Z "),
    (result_of_the_first_block, "winograd2", (), "forward"),
    (result_of_the_first_block, "im2col", (STRIDED, WIDE), "forward"),
    (result_of_the_first_block, "nhwc", (STRIDED, WIDE), "forward"),
]


@pytest.mark.parametrize(
    ("plant", "algorithm", "arguments", "says"), IN_TEXTS, ids=[f"{p.__name__}-{a}" for p, a, *_ in IN_TEXTS]
)
def test_a_fault_in_a_template_is_killed_by_execution(
    plant: Callable[[Patch], None], algorithm: str, arguments: tuple[Any, ...], says: str, monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Refuted, match=says):
        execute(algorithm, *arguments)


@pytest.mark.parametrize("algorithm", ["im2col", "nhwc", "shift", "toeplitz2", "winograd2"])
def test_without_a_fault_the_same_checks_pass(algorithm: str) -> None:
    execute(algorithm)
    execute("im2col", STRIDED, WIDE)


@pytest.mark.parametrize("plant", [wrong_tile_origin, kernel_not_flipped])
def test_execution_does_not_replace_the_proof(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """A text that computes wrong stages faithfully is what its plan says; it quotes no theorem for what is wrong."""
    right = emit(SQUARE, input_shape=(3, 2, 5, 4), algorithm="winograd2").theorems
    claims._general.cache_clear()
    plant(monkeypatch)
    execute("winograd2")
    wrong = emit(SQUARE, input_shape=(3, 2, 5, 4), algorithm="winograd2").theorems
    claims._general.cache_clear()
    assert set(wrong) < set(right)


def test_there_are_fifteen_faults_and_more() -> None:
    assert len({fault.plant for fault in IN_PLANS} | {plant for plant, *_ in IN_TEXTS}) >= 15
