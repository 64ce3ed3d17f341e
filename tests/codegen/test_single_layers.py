"""Pools, activations, dense layers by themselves: theorems, text for NumPy and CuPy, certificates, planted faults."""

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import codegen
import derive
from codegen import nearness
from codegen.bounds import FUNCTIONS
from codegen.chance import applications
from codegen.check import check, proof_rows
from codegen.committed import committed
from codegen.execution import Refuted
from codegen.nearness import has_functions
from codegen.plan import BATCH, PlanError, Stage
from codegen.plans import activation, layer_claims, pool
from codegen.plans.layer_claims import Kind, claims, kind_of, kinds, proof_digests, with_numbers
from codegen.templates.cuda.flat import flat_part
from derive.evaluate import RATIONALS, Evaluator, Table
from derive.indices import index, variables
from derive.layers import AvgPool1d, AvgPool2d, Conv1d, Layer, Linear, ReLU, Sigmoid, Tanh
from derive.legality import LayerError
from derive.obligations import Refused
from derive.terms import Apply, define, tensor, term
from tests.codegen import single_layers as plain
from tests.codegen.cupy_on_cpu import needs_compiler, on_cpu

LAYERS: list[tuple[Layer, tuple[int, ...]]] = [
    (AvgPool2d(2), (2, 2, 5, 4)),
    (AvgPool2d((3, 2), (2, 1)), (2, 1, 7, 4)),
    (AvgPool1d(2, 3), (1, 2, 9)),
    (Sigmoid(), (2, 3)),
    (Tanh(), (2, 3, 2)),
    (ReLU(), (2, 3, 2, 2)),
    (Linear(5, 3), (2, 5)),
]
IDS = [f"{type(layer).__name__}-{k}" for k, (layer, _) in enumerate(LAYERS)]


def agrees(layer: Layer, shape: tuple[int, ...], module: Any, seed: int, dtype: str = "float64") -> None:
    """Forward and gradient of a module for NumPy, on arrays with any strides, beside plain loops."""
    rng = np.random.default_rng(seed)
    x = np.where(rng.integers(0, 4, shape) == 0, 0.0, rng.standard_normal(shape) * 4)
    wanted = plain.forward(layer, x)
    g = rng.standard_normal(wanted.shape)
    near = {"float64": 1e-12, "float32": 1e-5}[dtype]
    given_x, given_g = plain.laid_out(rng, x.astype(dtype)), plain.laid_out(rng, g.astype(dtype))
    y, dx = module.forward(given_x), module.input_gradient(given_g, given_x)
    assert y.shape == wanted.shape
    assert y.dtype == dx.dtype == dtype
    assert np.allclose(y, wanted, rtol=near, atol=near)
    assert dx.shape == shape
    assert np.allclose(dx, plain.input_gradient(layer, g, x), rtol=near, atol=near)


@settings(max_examples=40)
@given(plain.pools() | plain.activations(), st.integers(0, 1 << 30), st.sampled_from(["float32", "float64"]))
def test_the_text_for_numpy_is_the_layer(case: tuple[Layer, tuple[int, ...]], seed: int, dtype: str) -> None:
    layer, shape = case
    emitted = codegen.emit(layer, input_shape=(4, *shape[1:]), dtype=dtype)
    assert set(emitted.theorems) == {"forward", "input_gradient"}
    agrees(layer, shape, codegen.load(emitted.source), seed, dtype)


@settings(max_examples=30)
@given(plain.pools())
def test_plans_for_both_backends_are_the_derived_definition(case: tuple[Layer, tuple[int, ...]]) -> None:
    """The stages against ``derive.evaluate`` of the layer's own definition, in exact numbers."""
    layer, shape = case
    applied = layer.on(tensor("X", BATCH, *shape[1:]), "Y")
    rng = np.random.default_rng(3)
    x = rng.integers(-9, 9, (2, *shape[1:]))
    table = Table(tuple((0, n) for n in x.shape), [int(v) for v in x.ravel()])
    wanted = Evaluator({"N": 2}, {"X": table}, RATIONALS).table(applied.y).values
    for planner in (pool.slabs, pool.definition):
        plan = planner(applied)["forward"].check()
        found = Evaluator({"N": 2}, {"X": table}, RATIONALS).table(plan.by_name["P"].tensor).values
        assert found == wanted


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=IDS)
def test_a_certificate_has_theorems_and_runs(layer: Layer, shape: tuple[int, ...]) -> None:
    emitted = codegen.emit(layer, input_shape=shape)
    rows = emitted.certificate.rows
    assert [row.scope for row in rows].count("all sizes") == len(emitted.plans) == len(emitted.theorems)
    assert not any(row.scope == "not proved" for row in rows)
    functions = any(map(has_functions, emitted.plans.values()))
    assert any("in the integers modulo p" in row.method for row in rows)
    assert any("than rounding explains" in row.statement for row in rows) >= functions


@needs_compiler
@pytest.mark.parametrize(
    ("layer", "shape", "dtype"),
    [(layer, shape, ("float32", "float16", "float64")[k % 3]) for k, (layer, shape) in enumerate(LAYERS)]
    + [(Sigmoid(), (3, 401), "float32")],  # more elements than a block, so that the last block is not full
    ids=[*IDS, "Sigmoid-large"],
)
def test_a_text_for_cupy_is_executed(layer: Layer, shape: tuple[int, ...], dtype: str) -> None:
    emitted = codegen.emit(layer, backend="cupy", input_shape=shape, dtype=dtype)
    assert len(emitted.theorems) == len(emitted.plans)
    rows = check(emitted, executor=on_cpu).rows
    assert any("no kernel reads or writes outside an array" in row.statement for row in rows)
    assert sum(f"In {dtype}" in row.statement for row in rows) >= 1


@needs_compiler
@settings(max_examples=6)
@given(plain.pools(), st.integers(0, 1 << 30))
def test_the_text_for_cupy_is_the_pool(case: tuple[Layer, tuple[int, ...]], seed: int) -> None:
    layer, shape = case
    module = on_cpu(codegen.emit(layer, backend="cupy", input_shape=(4, *shape[1:]), dtype="float64").source)
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    wanted = plain.forward(layer, x)
    g = rng.standard_normal(wanted.shape)
    assert np.allclose(module.forward(x), wanted)
    assert np.allclose(module.input_gradient(g, x), plain.input_gradient(layer, g, x))


# --- pitfalls --------------------------------------------------------------------------------------------------------


def test_cells_that_fill_no_window_have_the_gradient_0_on_used_workspaces() -> None:
    """Stride above the kernel size, and a remainder: zeros also where another call left numbers."""
    module = codegen.load(codegen.emit(AvgPool2d((1, 2), (2, 3)), input_shape=(2, 1, 4, 6), dtype="float64").source)
    x, out = np.ones((2, 1, 4, 6)), np.full((2, 1, 4, 6), 7.0)
    work = module.InputGradient(2, "float64")
    for scale in (1.0, 3.0):
        found = module.input_gradient(np.full((2, 1, 2, 2), scale), x, work, out)
        assert found is out
        assert np.array_equal(found[0, 0], scale / 2 * np.array([[1, 1, 0, 1, 1, 0], [0] * 6] * 2))


@pytest.mark.parametrize("layer", plain.ACTIVATIONS, ids=lambda layer: layer.function)
def test_extremes_and_kinks(layer: Layer) -> None:
    """No warning where exp overflows; the slope of relu at 0 is 0; a slope that is small is not lost."""
    module = codegen.load(codegen.emit(layer, input_shape=(1, 5)).source)
    x = np.array([[-1000, -30, 0, 30, 1000]], np.float32)
    y, dx = module.forward(x)[0], module.input_gradient(np.ones_like(x), x)[0]
    ends = {"sigmoid": (0, 1), "tanh": (-1, 1), "relu": (0, 1000)}[layer.function]  # type: ignore[attr-defined]
    assert (y[0], y[-1]) == ends
    assert np.all(np.isfinite(dx))
    if isinstance(layer, ReLU):
        assert dx.tolist() == [0, 0, 0, 1, 1]
    if isinstance(layer, Sigmoid):
        assert dx[1] == pytest.approx(np.exp(-30), rel=1e-5)


def test_arrays_that_lie_channels_last_give_results_that_do() -> None:
    for layer in (AvgPool2d(2), Tanh()):
        module = codegen.load(codegen.emit(layer, input_shape=(2, 3, 4, 4)).source)
        images = np.ones((2, 4, 4, 3), np.float32).transpose(0, 3, 1, 2)
        assert module.KEEPS_LAYOUT == ["forward", "input_gradient"]
        assert module.forward(images).transpose(0, 2, 3, 1).flags.c_contiguous


# --- what is proved, and what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["pools", "activations", "linear"])
def test_every_kind_has_its_theorems_in_the_committed_file(file: str) -> None:
    known = committed(file)
    assert known is not None
    every = {kind.key(name): claim for kind in kinds(file) for name, claim in claims(kind).items()}
    assert set(known.outputs) == set(every)
    assert all(known.proves(key, claim.statement) for key, claim in every.items())


@pytest.mark.parametrize(
    "kind", [Kind(AvgPool1d, 1, "slabs"), Kind(AvgPool1d, 1, "definition")], ids=lambda k: k.algorithm
)
def test_a_pool_plan_that_is_wrong_has_no_theorem(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows one cell further, for the plan alone."""
    applied = kind.applied
    (window,) = applied.windows
    wrong = kind.plan(type(applied)(applied.layer, applied.x, applied.y, {}, applied.conditions, (_moved(window),)))
    for name, claim in layer_claims.claims_of(applied, wrong).items():
        with pytest.raises(Refused):
            claim.prove()
        assert name in ("forward", "input_gradient")


def _moved(window: Any) -> Any:
    return replace(window, stride=window.stride + 1)


def test_a_plan_of_another_kernel_size_is_no_instance() -> None:
    applied, other = (AvgPool1d(k, 2).on(tensor("X", BATCH, 1, 9), "Y") for k in (2, 3))
    kind = kind_of(applied.layer, 3, "numpy")
    assert kind is not None
    assert set(proof_digests(kind, applied, pool.slabs(applied))) == {"forward", "input_gradient"}
    assert proof_digests(kind, applied, pool.slabs(other)) == {}
    twice = applied.y.body
    assert twice is not None
    scaled = type(applied)(
        applied.layer, applied.x, define("Y", list(applied.y.box), twice.scaled(2)), {}, (), applied.windows
    )
    assert proof_digests(kind, scaled, pool.slabs(applied)) == {}


def test_only_reciprocals_of_counts_become_numbers() -> None:
    two = [(index(0), index(2))]
    count, weighted = term(1, over=two), term(1, over=two, coefficient=Fraction(3))
    body = with_numbers(define("P", [4], term(1, Apply("recip", count), Apply("recip", weighted)))).body
    assert body is not None
    ((m,),) = (body.monomials,)
    assert m.coefficient == Fraction(1, 2)
    assert m.factors == (Apply("recip", weighted),)


FAULTS = [
    (AvgPool2d(2), r"np\.add\((v\.S0\[:, :, :, )0(:3:2\]), (.*), out=S1\)", r"np.add(\g<1>1:4:2], \3, out=S1)"),
    (AvgPool2d(2), r"np\.multiply\(S1, w\.c_1_4, out=S1\)", "pass"),
    (AvgPool2d(2), r"dX\.fill\(0\)", "pass"),
    (Sigmoid(), r"np\.negative\(X, out=(\S+)\)", r"np.copyto(\1, X)"),
    (Sigmoid(), r"np\.subtract\(v\.A, Q, out=Q\)", "np.subtract(w.c_1_1, Q, out=Q)"),
    (Tanh(), r"np\.multiply\(A, A, out=A\)", "pass"),
    (ReLU(), r"np\.maximum\(", "np.minimum("),
    (ReLU(), r"np\.greater\(", "np.less("),
]


@pytest.mark.parametrize(("layer", "old", "new"), FAULTS, ids=[str(k) for k in range(len(FAULTS))])
def test_a_planted_fault_in_the_text_is_refuted(layer: Layer, old: str, new: str) -> None:
    emitted = codegen.emit(layer, input_shape=(2, 2, 5, 4))
    source, count = re.subn(old, new, emitted.source)
    assert count
    with pytest.raises(Refuted):
        check(replace(emitted, source=source))


@needs_compiler
@pytest.mark.parametrize(
    ("layer", "old", "new"),
    [
        (AvgPool2d((3, 2)), "RATIO(1, 6)", "RATIO(1, 5)"),
        (Sigmoid(), "A - A * A", "A + A * A"),
        (Tanh(), "if (cell < cells) {\n      A[", "if (cell <= cells) {\n      A["),
        (ReLU(), "x < ACC(0) ? ACC(0) : x", "x"),
    ],
    ids=["share", "slope", "bounds", "kink"],
)
def test_a_planted_fault_in_a_kernel_is_refuted(layer: Layer, old: str, new: str) -> None:
    emitted = codegen.emit(layer, backend="cupy", input_shape=(2, 2, 5, 4))
    assert old in emitted.source
    with pytest.raises(Refuted):
        check(replace(emitted, source=emitted.source.replace(old, new)), executor=on_cpu)


@needs_compiler
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("k < 8; ++k) total += memory", "k < 1; ++k) total += memory"),
        ("split < splits; split +=", "split < 1; split +="),
        ("length, count = share(*sizes), splits(*sizes)", "length, count = share(*sizes) - 1, splits(*sizes)"),
        ("length, count = share(*sizes), splits(*sizes)", "length, count = share(*sizes), 1"),
    ],
    ids=["warps", "shares", "length", "count"],
)
def test_the_sum_over_a_batch_of_three_has_shares_to_get_wrong(old: str, new: str) -> None:
    emitted = codegen.emit(Linear(3, 4), backend="cupy", input_shape=(2, 3))
    assert old in emitted.source
    with pytest.raises(Refuted):
        check(replace(emitted, source=emitted.source.replace(old, new)), executor=on_cpu)


@needs_compiler
def test_the_certificate_of_a_kernel_that_compares_says_so() -> None:
    """And none speaks of shares where no sum is cut into any."""
    rows = check(codegen.emit(ReLU(), backend="cupy", input_shape=(1, 3)), executor=on_cpu).rows
    assert "Where functions compare, the bound is for texts that compare as the stages do." in rows[2].method
    assert "shares" not in rows[2].method


def test_a_certificate_names_what_compared_the_plan_with_the_theorem() -> None:
    def told(layer: Layer, shape: tuple[int, ...]) -> str:
        return " ".join(proof_rows(codegen.emit(layer, input_shape=shape))[0].trusted)

    assert "codegen.plans.layer_claims" in told(ReLU(), (1, 3))
    assert "reciprocal" not in told(ReLU(), (1, 3))
    assert "puts a number for each reciprocal" in told(AvgPool2d(2), (1, 1, 4, 4))
    assert "layer_claims" not in told(Conv1d(1, 1, 1), (1, 1, 4))


def test_only_texts_that_work_in_blocks_of_a_cache_say_so() -> None:
    tanh, linear = (codegen.emit(layer, input_shape=(1, 3)).source for layer in (Tanh(), Linear(3, 2)))
    assert "worked on in blocks that fit a cache." in tanh
    assert "worked on in blocks." in linear


def test_what_a_cuda_text_says_of_a_layer_is_so() -> None:
    activation, linear = (
        codegen.emit(layer, backend="cupy", input_shape=(1, 3), dtype="float16").source
        for layer in (ReLU(), Linear(3, 2))
    )
    assert activation.startswith('"""ReLU, and its gradient, in CUDA.')
    assert linear.startswith('"""Linear, and its gradients, in CUDA.')
    assert "\nWork is put on" in linear
    assert "tensor cores" not in activation
    assert "Numbers are computed in float32 and rounded to float16 once" in activation


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2, 0), "input size=0 is not legal: axis 1 has at least one element; the nearest legal value is 1"),
        ((2, 3, -1), "input size=-1 is not legal: axis 2 has at least one element; the nearest legal value is 1"),
        ((-1, 3), "batch size=-1 is not legal: a batch has at least 0 elements; the nearest legal value is 0"),
        ((), "the input has 0 axes, at least 1 is needed"),
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", ["numpy", "cupy"])
def test_shapes_that_no_activation_takes(shape: tuple[int, ...], words: str, backend: str) -> None:
    with pytest.raises(LayerError, match=re.escape(words)):
        codegen.emit(Sigmoid(), backend=backend, input_shape=shape)


def test_the_slope_at_a_kink_is_a_convention_that_the_certificate_names() -> None:
    first, second, *_ = codegen.emit(ReLU(), input_shape=(1, 3)).certificate.rows
    assert "by convention" not in first.method
    assert "relu has the derivative 0 by convention" in second.method


def test_functions_within_arguments_count() -> None:
    """exp stands inside the reciprocal that a sigmoid is."""
    plan = activation.chain(Sigmoid().on(tensor("X", BATCH, 7)))["forward"]
    assert applications(plan, 3) == 21


def test_the_reference_sigmoid_of_bounds_is_exact_near_0() -> None:
    assert FUNCTIONS["sigmoid"](np.array([-40.0]))[0] == pytest.approx(np.exp(-40.0), rel=1e-12)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (
            {"algorithm": "gemm"},
            "algorithm='gemm': it has to be one of 'auto', 'slabs' for AvgPool2d and backend='numpy'",
        ),
        ({"layout": "channels_last"}, "layout='channels_last': it has to be 'channels_first' for AvgPool2d"),
        ({"tiles": {}, "tolerance": 1e-3}, "there is a choice for one convolution only"),
        ({"layer": derive.Flatten()}, "by itself it has no text; convolutions, average pools, activations, Linear and"),
        ({"backend": "cupy", "dtype": "float8"}, "dtype='float8': it has to be one of 'float32', 'float64', 'float16'"),
    ],
)
def test_what_cannot_be_met_is_refused_in_words(request_: dict[str, Any], words: str) -> None:
    with pytest.raises(codegen.EmitError) as caught:
        codegen.emit(**{"layer": AvgPool2d(2), "input_shape": (1, 1, 4, 4), **request_})
    assert words in str(caught.value)


# --- the parts that such texts and checks are made of -----------------------------------------------------------------


@pytest.mark.parametrize(("off", "passes"), [(0.0, True), (1e-5, False), (np.nan, False), (np.inf, False)])
def test_a_result_off_by_more_than_rounding_is_refused(off: float, passes: bool) -> None:
    """The bound of a mean of three is some units in the last place; what is no number is never within it."""
    plans = pool.definition(AvgPool1d(3).on(tensor("X", BATCH, 1, 9), "Y"))
    arrays = nearness.draw(plans, "float32", "seed")
    means = arrays["input"].astype(np.float64).reshape(nearness.BATCH, 1, 3, 3).mean(-1)
    means[1, 0, 2] += off
    found = {"output": means.astype(np.float32)}
    if passes:
        nearness.compare(found, plans["forward"], arrays, "float32", "float32", "here")
        return
    with pytest.raises(Refuted, match=re.escape("here: output[1, 0, 2] is")):
        nearness.compare(found, plans["forward"], arrays, "float32", "float32", "here")


@pytest.mark.parametrize(("size", "moved"), [(4, 0), (5, 1)])
def test_a_flat_stage_reads_what_has_its_own_shape_at_its_own_element(size: int, moved: int) -> None:
    plan = activation.definition(ReLU().on(tensor("X", BATCH, 5)))["forward"]
    b, c = variables(0, 2)
    read = tensor("X", BATCH, size)
    wrong = Stage(define("A", [BATCH, index(5)], term(2, read[b, c + moved])), "flat", "b c")
    with pytest.raises(PlanError, match="is not read at the element that is written"):
        flat_part(plan, wrong, [])
