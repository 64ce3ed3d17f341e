"""Bounds on size and error carried through a plan: they hold, they are not idle, and a wrong text leaves them.

In exact arithmetic no value of any stage exceeds its bound, cell by cell along the axes a bound is kept for, and all
are multiples of its fraction.  For a plain sum the error is the textbook's K u; for Toom-Cook the size is the
amplification of its points.  The texts themselves, run in float32, stay within.
"""

import random
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.check import check
from codegen.emit import Emitted, emit
from codegen.execution import Refuted
from codegen.growth import Growth, bounds, growth
from codegen.layer_data import DIGITS, largest
from codegen.plan import BATCH, Plan, PlanError, Stage
from codegen.plans.algorithms import ALGORITHMS
from codegen.rounding import FLOAT32, FLOAT64
from derive.evaluate import RATIONALS, Evaluator, Table
from derive.indices import var
from derive.layers import Conv, Conv1d, Conv2d
from derive.terms import Apply, define, tensor, term
from derive.toomcook import toom_cook
from tests.codegen.convolutions import RESULTS, Case, drawn, expected, run

IMAGES = 2
LAYERS: dict[str, tuple[Conv, tuple[int, ...]]] = {
    "nested": (Conv1d(2, 2, 4, padding=1), (6,)),
    "winograd2": (Conv2d(2, 2, 3, padding=1), (3, 4)),
    "winograd4": (Conv1d(2, 2, 3, padding=1), (7,)),
    "depthwise": (Conv2d(2, 2, (2, 3), (1, 2), 1, groups=2), (3, 4)),
}


def layer_of(algorithm: str) -> tuple[Conv, tuple[int, ...]]:
    return LAYERS.get(algorithm, (Conv2d(2, 3, (2, 3), (1, 2), 1, bias=True), (3, 4)))


@cache
def plans(algorithm: str) -> dict[str, Plan]:
    layer, shape = layer_of(algorithm)
    return ALGORITHMS[algorithm].plan(layer.on(tensor("X", BATCH, layer.in_channels, *shape), "Y"))


@cache
def stages(algorithm: str, result: str) -> dict[str, Growth]:
    return growth(plans(algorithm)[result], FLOAT32, batch=IMAGES)


def sizes(t_box: object) -> list[int]:
    return [IMAGES if hi - lo == BATCH else (hi - lo).constant or 0 for lo, hi in t_box]  # type: ignore[attr-defined]


# --- the bounds hold ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_value_exceeds_its_bound_in_exact_arithmetic(algorithm: str, result: str) -> None:
    """Every stage, for inputs of -1, 0 and 1, and for those of absolute value one everywhere."""
    plan = plans(algorithm)[result]
    known, rng = stages(algorithm, result), random.Random(f"{algorithm} {result}")
    most = bounds(plan, FLOAT32, batch=IMAGES).largest
    for choice in ((-1, 0, 1), (-1, 1), (1,)):
        tables = {
            t.name: Table(tuple((0, n) for n in sizes(t.box)), [rng.choice(choice) for _ in range(prod(sizes(t.box)))])
            for t in plan.inputs
        }
        values = Evaluator({"N": IMAGES}, tables, RATIONALS)
        for stage in plan.stages:
            found, own = values.table(stage.tensor), known[stage.name]
            cells = product(*(range(low, high) for low, high in found.box))
            for cell, value in zip(cells, map(Fraction, found.values), strict=True):
                bound = own.sizes[tuple(cell[axis] for axis in own.axes)]
                assert abs(value) <= bound * (1 + 2**-40), f"{stage.name}{cell} is {value}, bound {bound}"
                assert (value * own.denominator).denominator == 1, f"{stage.name}{cell} is {value}"
                assert abs(value) * own.denominator <= most * (1 + 2**-40)


@pytest.mark.parametrize("algorithm", ["direct", "gemm", "im2col", "nhwc", "shift", "phases", "depthwise"])
def test_a_plain_sum_reaches_its_bound(algorithm: str) -> None:
    """Where no padding is in the way, ones add up to the number of products: the bound is not idle."""
    layer = replace(layer_of(algorithm)[0], padding=(0, 0))
    x = tensor("X", BATCH, 2, 3, 4)
    plan = ALGORITHMS[algorithm].plan(layer.on(x, "Y"))["forward"]
    weight = layer.parameter_shapes()["weight"]
    assert growth(plan, FLOAT32)[plan.outputs["forward"]].size == prod(weight[1:]) + 1


# --- what they say of a plain sum, and of Toom-Cook ---------------------------------------------------------------


@settings(max_examples=30)
@given(
    channels=st.integers(1, 9), k=st.integers(1, 7), bias=st.booleans(),
    algorithm=st.sampled_from(["direct", "gemm", "im2col", "nhwc", "shift", "phases"]),
)  # fmt: skip
def test_the_error_of_a_plain_sum_is_k_u(channels: int, k: int, bias: bool, algorithm: str) -> None:
    """K - 1 additions and one multiplication; what a bias adds is one more term."""
    layer = Conv1d(channels, 2, k, bias=bias)
    plan = ALGORITHMS[algorithm].plan(layer.on(tensor("X", BATCH, channels, k + 4), "Y"))["forward"]
    terms, unit = channels * k + bias, float(FLOAT32.unit)
    relative = bounds(plan, FLOAT32).relative
    assert relative <= terms * unit / (1 - terms * unit) * (1 + 1e-12)
    assert relative >= channels * k * unit * (1 - 1 / terms if bias else 1)


@pytest.mark.parametrize(("m", "r"), [(2, 3), (4, 3), (2, 5), (4, 5)])
@pytest.mark.parametrize("axes", [1, 2])
def test_the_growth_of_toom_cook_is_its_amplification(m: int, r: int, axes: int) -> None:
    kind = {1: Conv1d, 2: Conv2d}[axes]
    layer, channels = kind(3, 2, r, bias=False), 3
    plan = ALGORITHMS[f"winograd{m}"].plan(layer.on(tensor("X", BATCH, 3, *[r + 2 * m] * axes), "Y"))["forward"]
    wanted = channels * toom_cook(m, r).amplification ** axes
    assert growth(plan, FLOAT32)["Zt"].size == pytest.approx(float(wanted), rel=1e-12)
    known = bounds(plan, FLOAT32)
    assert known.relative > bounds(direct_plan(layer, r + 2 * m), FLOAT32).relative
    assert known.error == pytest.approx(bounds(plan, FLOAT64).error * 2**29, rel=1e-4)


def direct_plan(layer: Conv, side: int) -> Plan:
    x = tensor("X", BATCH, layer.in_channels, *[side] * layer.axes)
    return ALGORITHMS["direct"].plan(layer.on(x, "Y"))["forward"]


def test_a_function_has_no_bound_of_this_kind() -> None:
    x = tensor("X", 3)
    stage = Stage(define("S", [3], term(1, Apply("exp", term(1, x[var(0)])))), "pointwise", "h")
    with pytest.raises(PlanError, match=r"S: .* has functions, whose bounds depend on their arguments"):
        growth(Plan("test", (x,), (stage,), {"out": "S"}), FLOAT32)


# --- integers that a dtype holds ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_integers_up_to_the_largest_are_computed_exactly(algorithm: str, dtype: str) -> None:
    """In the dtype, on data with entries of -B and B alone: where B exists, and not far above the digits."""
    precision = {"float32": FLOAT32, "float64": FLOAT64}[dtype]
    for result, plan in plans(algorithm).items():
        known = bounds(plan, precision, batch=IMAGES)
        top = largest(known, dtype)
        assert (top > 0) == (known.dyadic and known.largest < 2 ** DIGITS[dtype]), result
        assert not top or known.largest * top**2 < 2 ** DIGITS[dtype]
        if algorithm in ("direct", "gemm", "im2col", "shift", "phases", "toeplitz2", "depthwise", "winograd2"):
            assert top > 100, result


# --- texts in float32 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_float32_stays_within_the_bound(algorithm: str) -> None:
    """Integers of up to 21 bits, so that nearly every product is rounded; the exact result in Python's integers."""
    layer, shape = layer_of(algorithm)
    case = Case(layer, (IMAGES, layer.in_channels, *shape), algorithm)
    rng, small = np.random.default_rng(5), drawn(case, 0, "float64")
    top = 1 << 21
    x, weight, bias, grad = (
        rng.integers(-top, top, a.shape).astype(np.float64) for a in (small.x, small.weight, small.bias, small.grad)
    )
    data = replace(small, x=x, weight=weight, bias=bias, grad=grad)
    single = replace(data, **{name: getattr(data, name).astype(np.float32) for name in ("x", "weight", "bias", "grad")})
    wanted, rounded = expected(case, data), False
    for name, found in run(case, single, {}).items():
        off = np.abs(found.astype(object) - wanted[name].astype(object)).max()
        assert off <= bounds(plans(algorithm)[name], FLOAT32, batch=IMAGES).error * top**2, name
        rounded = rounded or bool(off)
    assert rounded


LAYER = Conv1d(2, 3, 3, padding=1)


def spoiled(old: str, new: str) -> Emitted:
    """A text that is right for objects, and in float32 multiplies its transformed kernel by something else."""
    emitted = emit(LAYER, input_shape=(2, 2, 9), algorithm="winograd4", dtype="float32")
    assert old in emitted.source
    return replace(emitted, source=emitted.source.replace(old, new))


def test_a_text_that_rounds_more_than_its_bound_is_refuted() -> None:
    """Every exact run passes; the run in the dtype finds what leaves the bound, and lets pass what stays within."""
    old = "result = _result("
    worse = 'w.U *= w.dtype.type({}) if w.dtype == "float32" else 1\n    ' + old
    with pytest.raises(Refuted, match=r"forward, .* in float32: output is off by .*, and rounding explains"):
        check(spoiled(old, worse.format("1.001")))
    assert check(spoiled(old, worse.format("1.0000001"))).rows


def test_what_is_rounded_is_said_with_its_bound() -> None:
    rows = check(emit(LAYER, input_shape=(2, 2, 9), algorithm="winograd4")).rows
    (row,) = (row for row in rows if "lie within the bound" in row.statement)
    assert "forward" in row.statement
    plan = emit(LAYER, input_shape=(2, 2, 9), algorithm="winograd4").plans["forward"]
    assert f"{bounds(plan, FLOAT32, batch=3).relative:.1e} for forward" in row.method
