"""Vector-Jacobian products: each theorem evaluated exactly, against derivatives that dual numbers find.

Both sides of a theorem are evaluated by ``derive.evaluate``, which works a derivative out by dual numbers from the
layer's own definition and knows no rule; the right sides of the gather and the scatter form have to agree in every
cell.  Sizes are drawn with strides that leave a remainder, dilations other than the stride and even kernels.
"""

import random
from collections.abc import Mapping
from functools import cache
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from derive import tactics
from derive.derivation import Derivation
from derive.evaluate import RATIONALS, Evaluator, Numbers, Table, prime_field
from derive.gradients import FORMS, gradient
from derive.indices import Divides, Zero
from derive.kernel import Theorem
from derive.layers import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    Conv1d,
    Conv2d,
    Conv3d,
    CrossEntropyLoss,
    Flatten,
    Layer,
    LayerError,
    Linear,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
)
from derive.terms import Derivative, Tensor

CONVOLUTIONS = {1: Conv1d(1, 1, 1), 2: Conv2d(1, 1, 1), 3: Conv3d(1, 1, 1)}
DEPTHWISE = Conv1d(2, 2, 1, groups=2)
GROUPED = Conv1d(4, 6, 1, groups=2)
POOLS: list[tuple[Layer, tuple[tuple[int, int], ...]]] = [
    (AvgPool1d(2), ((2, 2),)),
    (AvgPool1d(3, 2), ((3, 2),)),
    (AvgPool1d(2, 3), ((2, 3),)),
    (AvgPool2d((2, 3), (2, 1)), ((2, 2), (3, 1))),
    (AvgPool3d((2, 1, 2), (1, 2, 3)), ((2, 1), (1, 2), (2, 3))),
]
ELEMENTWISE: list[Layer] = [Sigmoid(), Tanh(), ReLU(), Flatten()]


@cache
def derived(layer: Layer, wrt: str, form: str) -> Derivation:
    return gradient(layer, wrt, form=form)


def evaluator(theorem: Theorem, sizes: Mapping[str, int], seed: int, numbers: Numbers) -> Evaluator:
    """Drawn integers for every tensor that is not defined."""
    choices = random.Random(seed)
    free: dict[str, Tensor] = {}
    for side in (theorem.lhs, theorem.rhs):
        free |= {t.name: t for made in side.tensors for t in made.reads_of_body if t.body is None}
    tables = {}
    for name in sorted(free):
        box = tuple((lo.evaluate(sizes), hi.evaluate(sizes)) for lo, hi in free[name].box)
        tables[name] = Table.full(box, lambda *_: choices.choice([-3, -2, -1, 1, 2, 3, 5]))
    return Evaluator(sizes, tables, numbers)


def check(
    layer: Layer, wrt: str, sizes: Mapping[str, int], seed: int, numbers: Numbers = RATIONALS, cells: int = 6
) -> None:
    """Gather is scatter in every cell, and both are the derivative, which is worked out in a few cells."""
    theorems = {form: derived(layer, wrt, form).theorem for form in FORMS}
    one = theorems["gather"]
    assert all(t.lhs == one.lhs and t.binders == one.binders for t in theorems.values())
    for t in theorems.values():
        assert all(fact.holds(sizes) for fact in t.facts), sizes
    values = {form: evaluator(t, sizes, seed, numbers) for form, t in theorems.items()}
    everywhere = list(product(*(range(lo.evaluate(sizes), hi.evaluate(sizes)) for lo, hi in one.binders)))
    sides = {form: {at: values[form].value(t.rhs, at) for at in everywhere} for form, t in theorems.items()}
    assert sides["gather"] == sides["scatter"]
    for at in random.Random(seed).sample(everywhere, min(cells, len(everywhere))):
        assert values["gather"].value(one.lhs, at) == sides["gather"][at], at


@st.composite
def windows(draw: st.DrawFn, axes: int) -> dict[str, int]:
    """Legal sizes of a convolution: small in three axes, larger in one."""
    most = {1: 6, 2: 4, 3: 2}[axes]
    sizes = {name: draw(st.integers(0 if name == "N" else 1, 2)) for name in ("N", "C", "M")}
    for axis in range(axes):
        k, s, d = (draw(st.integers(1, top)) for top in ({1: 4, 2: 3, 3: 2}[axes], 3, 3))
        p = draw(st.integers(0, 2))
        extent = d * (k - 1) + 1
        n = draw(st.integers(max(1, extent - 2 * p), max(1, extent - 2 * p) + most))
        named = {"k": k, "s": s, "d": d, "p": p, "n": n, "o": (n + 2 * p - extent) // s + 1}
        sizes |= {f"{letter}{axis}": value for letter, value in named.items()}
    return sizes


def sizes_of(n: int, k: int, s: int, d: int, p: int) -> dict[str, int]:
    """One axis, two images, two channels, three outputs."""
    o = (n + 2 * p - d * (k - 1) - 1) // s + 1
    return {"N": 2, "C": 2, "M": 3, "n0": n, "k0": k, "s0": s, "d0": d, "p0": p, "o0": o}


# --- convolutions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrt", ["input", "weight", "bias"])
@settings(max_examples=100)
@example(sizes_of(n=9, k=2, s=3, d=2, p=0), 0)  # two cells at the end that no window reaches
@example(sizes_of(n=7, k=4, s=2, d=3, p=2), 1)  # an even kernel, stride and dilation without a common divisor
@example(sizes_of(n=5, k=2, s=4, d=2, p=1), 2)  # cells between the windows
@example(sizes_of(n=1, k=4, s=1, d=1, p=3), 3)  # more padding than image
@given(windows(1), st.integers(0, 2**32))
def test_a_convolution_over_one_axis(wrt: str, sizes: dict[str, int], seed: int) -> None:
    check(CONVOLUTIONS[1], wrt, sizes, seed)


@pytest.mark.parametrize("wrt", ["input", "weight", "bias"])
@settings(max_examples=30)
@given(windows(2), st.integers(0, 2**32))
def test_a_convolution_over_two_axes(wrt: str, sizes: dict[str, int], seed: int) -> None:
    check(CONVOLUTIONS[2], wrt, sizes, seed, cells=3)


@pytest.mark.parametrize("wrt", ["input", "weight", "bias"])
@settings(max_examples=15)
@given(windows(3), st.integers(0, 2**32))
def test_a_convolution_over_three_axes(wrt: str, sizes: dict[str, int], seed: int) -> None:
    check(CONVOLUTIONS[3], wrt, sizes, seed, cells=2)


@pytest.mark.parametrize("wrt", ["input", "weight", "bias"])
@settings(max_examples=40)
@given(windows(1), st.integers(1, 3), st.integers(0, 2**32))
def test_a_depthwise_convolution(wrt: str, sizes: dict[str, int], channels: int, seed: int) -> None:
    check(DEPTHWISE, wrt, {**sizes, "C": channels}, seed)


@pytest.mark.parametrize("wrt", ["input", "weight", "bias"])
@settings(max_examples=40)
@example(sizes_of(n=7, k=4, s=2, d=3, p=2), (2, 2, 3), 1)
@given(windows(1), st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(1, 3)), st.integers(0, 2**32))
def test_a_grouped_convolution(wrt: str, sizes: dict[str, int], groups: tuple[int, int, int], seed: int) -> None:
    check(GROUPED, wrt, {**sizes, **dict(zip(("g", "Cg", "Og"), groups, strict=True))}, seed)


@pytest.mark.parametrize("layer", [Conv2d(2, 2, 1, groups=2), Conv2d(4, 6, 1, groups=2)])
@pytest.mark.parametrize("wrt", ["input", "weight"])
@settings(max_examples=8)
@given(sizes=windows(2), seed=st.integers(0, 2**32))
def test_a_grouped_convolution_over_two_axes(layer: Layer, wrt: str, sizes: dict[str, int], seed: int) -> None:
    check(layer, wrt, {**sizes, "g": 2, "Cg": 2, "Og": 1}, seed, cells=2)


def test_a_derivation_names_the_groups() -> None:
    told = gradient(Conv1d(4, 6, 3, groups=2), "weight")
    assert "In this layer g = 2, Cg = 2, Og = 3, k0 = 3" in told.introduction
    assert Derivation.from_json(told.to_json()).to_json() == told.to_json()
    assert "⌊n/Og⌋" in told.to_text()
    assert "C = 2, k0 = 3" in gradient(Conv1d(2, 2, 3, groups=2), "weight").introduction
    assert derived(Conv1d(2, 2, 1, groups=2, bias=False), "input", "gather").theorem.rhs == (
        derived(DEPTHWISE, "input", "gather").theorem.rhs
    )


@pytest.mark.parametrize("axes", CONVOLUTIONS)
def test_the_gather_form_divides_and_the_scatter_form_has_an_equation(axes: int) -> None:
    (gather,) = derived(CONVOLUTIONS[axes], "input", "gather").theorem.rhs.monomials
    (scatter,) = derived(CONVOLUTIONS[axes], "input", "scatter").theorem.rhs.monomials
    assert [type(g) for g in gather.guards] == [Divides] * axes
    assert [type(g) for g in scatter.guards] == [Zero] * axes
    assert len(gather.binders) == 1 + axes  # output channels and kernel cells
    assert len(scatter.binders) == 1 + 2 * axes  # and output positions


def test_a_convolution_without_bias_has_the_same_other_gradients() -> None:
    without = Conv2d(1, 1, 1, bias=False)
    for wrt in ("input", "weight"):
        assert derived(without, wrt, "gather").theorem.rhs == derived(CONVOLUTIONS[2], wrt, "gather").theorem.rhs
    with pytest.raises(LayerError, match="wrt='bias': Conv2d has input, weight"):
        gradient(without, "bias")


def test_the_derivatives_that_are_compared_are_not_zero() -> None:
    sizes = sizes_of(n=7, k=4, s=2, d=3, p=2)
    for wrt, at in {"input": (0, 0, 1), "weight": (0, 0, 1), "bias": (0,)}.items():
        theorem = derived(CONVOLUTIONS[1], wrt, "gather").theorem
        assert evaluator(theorem, sizes, 1, RATIONALS).value(theorem.lhs, at) != 0


# --- the other layers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pool", "settings_"), POOLS)
@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 2**32))
def test_an_average_pool(pool: Layer, settings_: tuple[tuple[int, int], ...], data: st.DataObject, seed: int) -> None:
    sizes = {"N": data.draw(st.integers(0, 2)), "C": data.draw(st.integers(1, 2))}
    for axis, (k, s) in enumerate(settings_):
        n = data.draw(st.integers(k, k + 5 - axis))
        sizes |= {f"n{axis}": n, f"o{axis}": (n - k) // s + 1}
    check(pool, "input", sizes, seed, cells=4)


@pytest.mark.parametrize("wrt", ["input", "weight", "bias"])
@settings(max_examples=25)
@given(st.integers(0, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**32))
def test_a_dense_layer(wrt: str, n: int, k: int, m: int, seed: int) -> None:
    check(Linear(1, 1), wrt, {"N": n, "K": k, "M": m}, seed)


@pytest.mark.parametrize("layer", ELEMENTWISE)
@settings(max_examples=25)
@given(st.lists(st.integers(1, 3), min_size=4, max_size=4), st.integers(0, 2**32))
def test_functions_and_flattening(layer: Layer, shape: list[int], seed: int) -> None:
    sizes = dict(zip(("N", "C", "n0", "n1"), shape, strict=True))
    check(layer, "input", sizes, seed, prime_field(key=seed), cells=4)


@settings(max_examples=15)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32))
def test_cross_entropy(n: int, k: int, seed: int) -> None:
    check(CrossEntropyLoss(), "input", {"N": n, "K": k}, seed, prime_field(key=seed), cells=20)


# --- what a derivation says ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [*CONVOLUTIONS.values(), AvgPool2d(2), Linear(1, 1), *ELEMENTWISE])
def test_the_left_side_is_the_derivative_and_the_right_side_is_worked_out(layer: Layer) -> None:
    derivation = derived(layer, "input", "gather")
    ((read,),) = (m.factors for m in derivation.theorem.lhs.monomials)
    assert isinstance(read, Derivative)
    assert read.tensor.name == "X"
    assert {t.name for t in read.expr.tensors} >= {"G"}
    found = tactics.find(derivation.theorem.rhs, lambda f: isinstance(f, Derivative))
    assert found is None
    assert all(t.body is None for t in derivation.theorem.rhs.tensors)
    convention = ["relu has the derivative 0 by convention"] if layer == ReLU() else []
    assert [c.partition("is 0, ")[2] for c in derivation.theorem.conditions] == convention
    assert "Differentiate" in derivation.to_text()


def test_what_is_asked_wrongly_is_refused() -> None:
    with pytest.raises(LayerError, match="form='both': the forms are gather and scatter"):
        gradient(Conv1d(1, 1, 1), form="both")
    with pytest.raises(LayerError, match="wrt='weight': AvgPool1d has input"):
        gradient(AvgPool1d(2), "weight")
    with pytest.raises(LayerError, match="wrt='target': CrossEntropyLoss has input"):
        gradient(CrossEntropyLoss(), "target")
    with pytest.raises(LayerError, match="ask for that of each layer in it"):
        gradient(Sequential(Sigmoid()))
