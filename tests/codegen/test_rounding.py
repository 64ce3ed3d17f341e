"""The rounding bound: counted off a stage, never left by a computed number, and far below the values it is about.

The bound is tried in two ways.  On small stages, arithmetic is done in exact rationals that are rounded to float32
after each operation, in drawn orders, with and without fused multiply-add.  On the emitted LeNet, every stage runs in
float32 on the numbers that the emitted text itself made, and stages that are slightly wrong have to leave the bound.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen.bounds import bound
from codegen.plan import BATCH, PlanError, Stage
from codegen.plans.network import network
from codegen.rounding import FLOAT32, FLOAT64, FLUSHED32, ULPS, Precision, Term, is_representable, rounding
from derive.evaluate import Evaluator, Numbers, Table
from derive.indices import index, symbol, var
from derive.layers import AvgPool2d, Conv2d, Flatten, Linear, Sequential, Sigmoid, lenet
from derive.terms import Apply, Expr, Monomial, constant, define, tensor, term
from tests.codegen.stagewise import Stagewise, Step

LENET = network(lenet(), [BATCH, index(1), index(28), index(28)])

# The median of the bound over the median of the values, at most, for each kind of stage.
SMALL = {
    "constant": 0.0,
    "view": 0.0,
    "share": 1e-6,
    "strided": 1e-6,
    "scatter": 0.0,
    "windows": 0.0,
    "overlaps": 1e-6,
    "pointwise": 1e-6,
    "reduce": 2e-6,
    "exp": 1e-6,
    "log": 1e-6,
    "tanh": 1e-6,
    "recip": 1e-6,
    "sigmoid": 1e-5,  # less one half, where most of it is
    "matmul": 3e-3,  # sums of up to 400 products of both signs, which cancel
}


@lru_cache(maxsize=1)
def emitted_lenet() -> Stagewise:
    return Stagewise(LENET)


@pytest.fixture
def net() -> Stagewise:
    return emitted_lenet()


def ran(net: Stagewise, seed: int, batch: int, scale: float, dtype: Any = np.float32, **options: Any) -> list[Step]:
    """Every stage on normal images, drawn labels and parameters of this scale."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, *net.emitted.INPUT)).astype(dtype)
    labels = rng.integers(0, net.emitted.CLASSES, batch)
    return list(net.run(x, labels, net.parameters(rng, scale, dtype), **options))


def relative(step: Step) -> float:
    """The median of the bound over the median of the values that are not zero."""
    values = abs(step.exact.value)
    values = values[values > 0]
    return float(np.median(step.exact.error) / np.median(values)) if values.size else 0.0


# --- the emitted network ------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    batch=st.integers(1, 5),
    scale=st.sampled_from([0.01, 0.3, 1.0, 4.0]),
    block=st.sampled_from([None, 1, 2]),
)
def test_every_stage_of_lenet_lies_within_its_bound(seed: int, batch: int, scale: float, block: int | None) -> None:
    steps = ran(emitted_lenet(), seed, batch, scale, block=block)
    assert {s.stage.name for s in steps} == set(LENET.by_name)
    for step in steps:
        assert np.isfinite(step.exact.error).all(), step.stage.name
        assert step.within, f"{step.stage.name} is off by {step.distance.max()}"
        assert step.clean_margin, step.stage.name


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_the_bound_is_far_below_the_values(net: Stagewise, scale: float) -> None:
    found: dict[str, list[float]] = defaultdict(list)
    for step in ran(net, 1, 4, scale):
        found[step.kind].append(relative(step))
    assert set(found) <= set(SMALL)
    for kind, ratios in found.items():
        assert max(ratios) <= SMALL[kind], (kind, max(ratios))


def test_the_bound_is_not_far_above_the_errors(net: Stagewise) -> None:
    used: dict[str, float] = defaultdict(float)
    for step in ran(net, 2, 3, 1.0):
        off = step.exact.error > 0
        if off.any():
            used[step.kind] = max(used[step.kind], float((step.distance[off] / step.exact.error[off]).max()))
    assert min(used[kind] for kind in ("pointwise", "overlaps", "strided", "recip")) > 0.3
    assert used["matmul"] > 0.05


def test_copies_and_maxima_are_exact(net: Stagewise) -> None:
    exact = {s.stage.name for s in ran(net, 3, 2, 1.0) if not s.exact.error.any()}
    assert exact >= {"In0", "Col0", "One0", "Col3", "One3", "F6", "Tn", "M", "dP6"}
    assert not exact & {"Zm0", "Sh0", "S0", "P0", "Zm7", "E", "Se", "Rs", "dL", "dW3", "dIn3"}


def test_float64_lies_within_the_bound_of_float64(net: Stagewise) -> None:
    for step in ran(net, 4, 3, 1.0, np.float64, precision=FLOAT64, block=2):
        assert step.within, step.stage.name
        assert relative(step) <= SMALL[step.kind] * 2.0**-27, step.stage.name


def halved(array: str) -> Callable[[str], str]:
    return lambda text: text.replace(array, f"{array}.astype(np.float16).astype(np.float32)")


WRONG: dict[str, tuple[str, Callable[[str], str]]] = {
    "a constant a little off": ("P0", lambda text: text.replace("w.c_1_4", "np.float32(0.2501)")),
    "a bias dropped": ("uq7", lambda text: text.replace('params["7.bias"]', '(0 * params["7.bias"])')),
    "an operand in half precision": ("Zm3", halved("v.Windows3")),
    "a kernel in half precision": ("Zm9", halved("w.Kernel9")),
    "a function a few units off": ("A7", lambda text: text + "\nv.A7 *= np.float32(1 - 2.0**-18)"),
    "a slab of the tile forgotten": ("S3", lambda text: text.replace("np.add(v.S3, v.Sh3[1, 1], out=v.S3)", "")),
    "a sum over the batch not added up": ("dW9 du9", lambda text: text.replace("np.add(w.dKernel9,", "np.add(0,")),
    "a window cell forgotten": ("dIn3", lambda text: text.replace("v.dIn3_moves", "v.dIn3_moves[:-1]")),
    "a loss that is no mean": ("dL", lambda text: text.replace("w.share", "1")),
    "no target": ("Pd", lambda text: text.replace("v.Tn", "0 * v.Tn")),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_stage_leaves_its_bound_and_no_other_does(net: Stagewise, what: str) -> None:
    """Two stages where one statement computes both."""
    names, edit = WRONG[what]
    first, *others = names.split()
    steps = ran(net.spoiled(first, edit), 5, 4, 1.0, block=2)
    assert {s.stage.name for s in steps if not s.within} == {first, *others}


@pytest.mark.parametrize("function", ["exp", "log", "tanh"])
def test_the_functions_are_as_close_as_is_trusted(function: str) -> None:
    rng = np.random.default_rng(0)
    spread = np.concatenate([rng.uniform(-80, 80, 10**6), rng.normal(size=10**6), 10.0 ** rng.uniform(-30, 0, 10**6)])
    x = (abs(spread) if function == "log" else spread).astype(np.float32)
    exact = getattr(np, function)(x.astype(np.float64))
    computed = getattr(np, function)(x).astype(np.float64)
    units = np.spacing(abs(exact).astype(np.float32)).astype(np.float64)
    assert (abs(computed - exact) / units).max() <= ULPS[function]


# --- the evaluation against the reference meaning -----------------------------------------------------------------


def test_values_are_those_of_the_stages() -> None:
    small = Sequential(
        Conv2d(2, 3, 3, padding=1), Sigmoid(), AvgPool2d(2), Flatten(), Linear(12, 4), Sigmoid(), Linear(4, 3)
    )
    plan = network(small, [BATCH, index(2), index(4), index(5)])
    rng = np.random.default_rng(6)
    arrays = {t.name: rng.normal(size=[2 if hi == BATCH else hi.evaluate({}) for _, hi in t.box]) for t in plan.inputs}
    tables = {name: Table(tuple((0, n) for n in a.shape), a.ravel().tolist()) for name, a in arrays.items()}
    functions = {"exp": math.exp, "log": math.log, "tanh": math.tanh, "recip": lambda x: 1 / x}
    reference = Evaluator({"N": 2}, tables, Numbers(float, functions))
    for stage in plan.stages:
        result = bound(stage, arrays, FLOAT32, sizes={"N": 2})
        arrays[stage.name] = np.array(reference.table(stage.tensor).values).reshape(result.value.shape)
        assert abs(result.value - arrays[stage.name]).max() <= 1e-13, stage.name


# --- the bound on exact arithmetic --------------------------------------------------------------------------------


def to_float32(q: Fraction) -> Fraction:
    """The float32 nearest to a rational, ties to even, with subnormal numbers."""
    if q == 0:
        return q
    exponent = q.numerator.bit_length() - q.denominator.bit_length()
    exponent -= abs(q) < Fraction(2) ** exponent
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    return round(q / unit) * unit


def flushed(q: Fraction) -> Fraction:
    """Zero for what is subnormal."""
    return q if abs(q) >= Fraction(1, 2**126) else Fraction(0)


def computed(terms: list[list[Fraction]], choices: random.Random, *, flushes: bool = False) -> Fraction:
    """Products rounded after each factor, then a sum in a drawn order and bracketing, at times fused with a product."""
    parts: list[Fraction | tuple[Fraction, Fraction]] = []
    settle: Callable[[Fraction], Fraction] = (lambda q: flushed(to_float32(q))) if flushes else to_float32
    for factors in terms:
        factors = [flushed(q) for q in factors] if flushes else factors
        choices.shuffle(factors)
        product, *rest = factors
        while len(rest) > 1:
            product = settle(product * rest.pop())
        parts.append((product, rest[0]) if rest else product)

    def settled(part: Fraction | tuple[Fraction, Fraction]) -> Fraction:
        return settle(part[0] * part[1]) if isinstance(part, tuple) else part

    while len(parts) > 1:
        a, b = (parts.pop(choices.randrange(len(parts))) for _ in range(2))
        fused = choices.random() < 0.5 and isinstance(a, tuple)
        left = a[0] * a[1] if fused and isinstance(a, tuple) else settled(a)
        parts.append(settle(left + settled(b)))
    return settled(parts[0])


def float32s(magnitudes: st.SearchStrategy[int]) -> st.SearchStrategy[float]:
    """Numbers with 24 random bits, of drawn sizes."""
    bits = st.integers(-(2**24) + 1, 2**24 - 1)
    return st.builds(lambda m, e: math.ldexp(m, e - 24), bits, magnitudes)


k, one = var(1), index(0)
CELLS = ((index(0), symbol("K")),)
A, B, C = tensor("A", symbol("K")), tensor("B", symbol("K")), tensor("C", 1)
at_k, SIXTH = var(0), Fraction(1, 6)
BODIES: dict[str, tuple[Expr, Callable[..., list[list[Fraction]]]]] = {
    "products and a bias": (
        term(0, A[at_k], B[at_k], over=CELLS) + term(0, C[0]),
        lambda a, b, c: [[x, y] for x, y in zip(a, b, strict=True)] + [[c]],
    ),
    "a rounded constant": (
        term(0, A[at_k], B[at_k], over=CELLS, coefficient=SIXTH),
        lambda a, b, c: [[to_float32(SIXTH), x, y] for x, y in zip(a, b, strict=True)],
    ),
    "three factors and a constant": (
        constant(0, Fraction(3, 4)) + term(0, A[at_k], B[at_k], C[0], over=CELLS, coefficient=-3),
        lambda a, b, c: [[Fraction(3, 4)]] + [[Fraction(-3), x, y, c] for x, y in zip(a, b, strict=True)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("precision", [FLOAT32, FLUSHED32], ids=["gradual", "flushed"])
@pytest.mark.parametrize("body", BODIES)
@settings(max_examples=60)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1), count=st.integers(1, 20))
def test_no_order_of_rounded_operations_leaves_the_bound(
    body: str, precision: Precision, data: st.DataObject, seed: int, count: int
) -> None:
    expr, terms = BODIES[body]
    sizes = data.draw(st.sampled_from([st.integers(-3, 3), st.integers(-90, 20), st.integers(-148, -120)]))
    a, b = (data.draw(st.lists(float32s(sizes), min_size=count, max_size=count)) for _ in range(2))
    c = data.draw(float32s(sizes))
    stage = Stage(define("Z", [], expr), "pointwise")
    reads = {"A": np.array(a), "B": np.array(b), "C": np.array([c])}
    result = bound(stage, reads, precision, sizes={"K": count})
    choices = random.Random(seed)
    exact_terms = terms([Fraction(x) for x in a], [Fraction(x) for x in b], Fraction(c))
    found = computed(exact_terms, choices, flushes=precision.flushes)
    assert abs(found - Fraction(float(result.value))) <= Fraction(float(result.error))


@pytest.mark.parametrize(
    ("numbers", "body"),
    [
        ([2.0**-127], term(0, A[at_k], over=CELLS)),
        ([2.0**-125, -(2.0**-125) * (1 - 2.0**-5)], term(0, A[at_k], over=CELLS)),
        ([2.0**-63, 2.0**-64], term(0, A[index(0)], A[index(1)])),
        ([2.0**-127, 1.0], term(0, A[index(0)], C[0])),
    ],
    ids=["read", "sum", "product", "factor"],
)
def test_what_is_flushed_is_beyond_the_bound_that_underflows_gradually(numbers: list[float], body: Expr) -> None:
    """A number that is read, a difference and a product may each be lost as a whole."""
    stage = Stage(define("Z", [], body), "reduce")
    reads = {"A": np.array(numbers), "C": np.array([2.0**20])}
    gradual, flushes = (bound(stage, reads, p, sizes={"K": len(numbers)}) for p in (FLOAT32, FLUSHED32))
    lost = abs(gradual.value)  # the result is zero
    assert gradual.error < lost <= flushes.error


def test_the_bound_is_reached_up_to_a_small_factor() -> None:
    stage = Stage(define("Z", [], term(0, A[at_k], over=CELLS)), "reduce")
    ones = np.array([1.0] + [2.0**-24] * 4095)  # each addition to 1 is rounded down, to 1 again
    result = bound(stage, {"A": ones}, FLOAT32, sizes={"K": 4096})
    assert 0.9 < float(abs(1 - result.value) / result.error) <= 1


# --- counting -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "terms", "depth", "functions"),
    [
        ("Col3", 1, 0, ()),
        ("Zm0", 37, 37, ()),
        ("Zm3", 217, 217, ()),
        ("Sh3", 2, 1, ("exp", "recip")),
        ("A7", 1, 0, ("exp", "recip")),
        ("S3", 4, 3, ()),
        ("P3", 2, 1, ()),
        ("Zm7", 401, 401, ()),
        ("M", 1, 0, ()),
        ("Se", 10, 9, ()),
        ("Pd", 2, 1, ()),
        ("dZ3", 1, 1, ()),
    ],
)
def test_roundings_of_lenet(name: str, terms: int, depth: int, functions: tuple[str, ...]) -> None:
    found = rounding(LENET.by_name[name])
    assert (found.terms.constant, found.depth.constant, found.functions) == (terms, depth, functions)
    assert len(found.trusted) == len([f for f in functions if f in ULPS])
    assert found.exact == (depth == 0 and not functions)


def test_the_number_of_terms_may_be_a_polynomial() -> None:
    assert rounding(LENET.by_name["dW7"]).terms == BATCH
    assert str(rounding(LENET.by_name["dut0"]).depth) == "196*N"


@pytest.mark.parametrize(
    ("coefficient", "factors", "roundings", "multiplications"),
    [
        (1, 0, 0, 0),
        (-1, 1, 0, 0),
        (Fraction(1, 8), 1, 0, 1),
        (Fraction(3, 8), 1, 1, 1),
        (Fraction(1, 6), 1, 2, 1),
        (Fraction(1, 6), 0, 1, 0),
        (1, 3, 2, 2),
        (5000, 2, 3, 2),
    ],
)
def test_roundings_of_one_term(coefficient: Fraction, factors: int, roundings: int, multiplications: int) -> None:
    m = Monomial(Fraction(coefficient), factors=(C[0],) * factors)
    assert Term.of(m) == Term(roundings, multiplications)


@given(st.fractions(max_denominator=5000))
def test_a_constant_that_counts_as_held_is_held_by_every_format(value: Fraction) -> None:
    if is_representable(value):
        assert Fraction(float(np.float16(float(value)))) == value


# --- functions and sums of sums -----------------------------------------------------------------------------------


def test_functions_pass_their_arguments_error_on() -> None:
    inner = term(0, A[at_k], B[at_k], over=CELLS)
    cells = {"A": np.array([3.0, -2.0]), "B": np.array([1.5, 1.25])}
    argument = bound(Stage(define("Z", [], inner), "matmul"), cells, FLOAT32, sizes={"K": 2})
    u, z, e = 2.0**-24, float(argument.value), float(argument.error)
    slopes = {"exp": math.exp(z), "log": 1 / z, "recip": 1 / z**2, "tanh": 1.0, "sigmoid": 0.25, "relu": 1.0}
    values = {"exp": math.exp(z), "log": math.log(z), "recip": 1 / z, "tanh": math.tanh(z), "relu": z}
    values["sigmoid"] = 1 / (1 + math.exp(-z))
    units = {"recip": 1, "relu": 0}
    for name, slope in slopes.items():
        stage = Stage(define("Y", [], term(0, Apply(name, inner))), "pointwise")
        found = bound(stage, cells, FLOAT32, sizes={"K": 2})
        assert float(found.value) == pytest.approx(values[name], rel=1e-14)
        assert float(found.error) == pytest.approx(slope * e + units.get(name, 8) * u * abs(values[name]), rel=1e-5)


def test_a_function_that_has_no_bound_there_says_infinity() -> None:
    inner = term(0, A[at_k], over=CELLS)
    cells = {"A": np.array([1.0, -1.0 + 2.0**-23])}
    for name in ("log", "recip"):
        stage = Stage(define("Y", [], term(0, Apply(name, inner))), "pointwise")
        assert np.isinf(bound(stage, cells, FLOAT32, sizes={"K": 2}).error)


def test_a_derivative_and_a_triangle_are_refused() -> None:
    triangle = term(0, A[var(1)], over=[(index(0), symbol("K")), (index(0), var(0))])
    with pytest.raises(PlanError, match="sizes only"):
        rounding(Stage(define("Z", [], triangle), "reduce"))
