"""Every algorithm for a single convolution, against the definition written out as loops.

Output and all gradients, at drawn layers on one, two and three axes: strides that leave a remainder, stride and
dilation that differ, even kernels, padding larger than the image, outputs one less and one more than whole tiles, a
batch one less and one more than whole blocks or empty, arrays with every kind of stride, and workspaces that other
data went through before.  In objects every algorithm is exact, so equality is asked for; in float32 and float64 too
where it divides by powers of two only, and elsewhere what ``codegen.growth`` says rounding explains.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import codegen
from codegen.check import check
from codegen.growth import bounds
from codegen.layer_data import PRECISIONS, largest
from codegen.plans.algorithms import ALGORITHMS, kind_of
from derive.layers import Conv, Conv1d, Conv2d, Conv3d
from derive.terms import tensor
from runtime import reference
from runtime.arrays import channels_last
from tests.codegen.convolutions import (
    LARGEST,
    LAYOUTS,
    RESULTS,
    Array,
    Case,
    Data,
    cases,
    drawn,
    expected,
    laid_out,
    module_of,
    plans_of,
    run,
    works_of,
)

TOOM_COOK = ("winograd2", "winograd4", "nested")
AXES = (1, 1, 0, 0)  # of channels, or of what there is for each, in the output and in the gradients
LAYOUT = st.sampled_from(LAYOUTS)


def agree(case: Case, name: str, found: Array, wanted: Array, dtype: str) -> None:
    """Equal where nothing is rounded, else within the bound that follows from the plan."""
    assert found.dtype == dtype
    assert found.shape == wanted.shape
    if dtype != "object" and case.algorithm in TOOM_COOK:
        known = bounds(plans_of(case)[name], PRECISIONS[dtype], batch=max(case.batch, 1))
        if largest(known, dtype) < LARGEST:
            off = np.abs(found - wanted).max(initial=0.0)
            assert off <= known.error * LARGEST**2, f"{name} is off by {off}, not within {known.error * LARGEST**2}"
            return
    assert (found == wanted).all(), name


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_result_is_what_the_definition_says(algorithm: str) -> None:
    @settings(max_examples=15)
    @given(
        case=cases(algorithm), seed=st.integers(0, 2**32 - 1), dtype=st.sampled_from(["float32", "float64", "object"]),
        layouts=st.lists(LAYOUT, min_size=4, max_size=4), block=st.integers(1, 4), beyond=st.sampled_from([-1, 0, 1]),
        blocks=st.integers(0, 2),
    )  # fmt: skip
    def holds(case: Case, seed: int, dtype: str, layouts: list[str], block: int, beyond: int, blocks: int) -> None:
        case = replace(case, shape=(max(0, blocks * block + beyond), *case.shape[1:]))
        data = drawn(case, seed, dtype, layouts)
        wanted, works = expected(case, data), works_of(case, dtype, block)
        run(case, drawn(case, seed + 1, dtype, layouts), works)
        for used in (works, {}):
            for name, result in run(case, data, used).items():
                assert lies_as_promised(case, data, name, result)
                assert (result if result.base is None else result.base).flags.owndata
                agree(case, name, result, wanted[name], dtype)

    holds()


def lies_as_promised(case: Case, data: Data, name: str, result: Array) -> bool:
    """C-contiguous, or channels last where the first argument lies so and the module promises to follow it."""
    leader = {"forward": data.x, "input_gradient": data.grad}.get(name)
    if leader is not None and channels_last(leader) and name in module_of(case).KEEPS_LAYOUT:
        return bool(np.moveaxis(result, 1, -1).flags.c_contiguous)
    return result.flags.c_contiguous


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_result_is_put_in_an_array_of_either_layout(algorithm: str) -> None:
    case = small_case(algorithm, 5)
    m, data = module_of(case), drawn(case, 3, "float64", ["channels last", *["contiguous"] * 3])
    wanted = expected(case, data)
    for name in ("forward", "input_gradient"):
        out = laid_out(np.full(wanted[name].shape, np.nan), "channels last")
        arguments = (data.x, data.weight, data.bias) if name == "forward" else (data.grad, data.weight, data.x.shape)
        if name not in m.KEEPS_LAYOUT:
            with pytest.raises(ValueError, match=r"out has the strides .*, which are not C-contiguous"):
                getattr(m, name)(*arguments, out=out)
            continue
        assert getattr(m, name)(*arguments, out=out) is out
        agree(case, name, out, wanted[name], "float64")


SMALL = {
    "depthwise": Conv2d(2, 2, (2, 3), (1, 2), 1, groups=2),
    "shift": Conv2d(2, 3, (2, 3), padding=(0, 1)),
    "winograd2": Conv2d(2, 3, 3, padding=1),
    "winograd4": Conv2d(2, 3, 3, padding=1),
    "nested": Conv1d(2, 3, 7, padding=2),
}


def small_case(algorithm: str, batch: int, *, bias: bool = True) -> Case:
    """A layer that the algorithm is for, and images of 5 x 6, or of 5."""
    layer = replace(SMALL.get(algorithm, Conv2d(2, 3, (2, 3), (1, 2), (0, 1))), bias=bias)
    return Case(layer, (batch, 2, *(5, 6)[: layer.axes]), algorithm)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("beyond", [-1, 0, 1])
def test_a_batch_around_its_own_block(algorithm: str, beyond: int) -> None:
    """Workspaces that a call makes for itself have the blocks of the plan: of at most 64 images."""
    case = small_case(algorithm, 1)
    assert {plan.block for plan in plans_of(case).values()} == {64}
    case = replace(case, shape=(64 + beyond, *case.shape[1:]))
    data = drawn(case, 7, "float64")
    wanted = expected(case, data)
    for name, found in run(case, data, {}).items():
        agree(case, name, found, wanted[name], "float64")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_results_are_those_of_the_reference(algorithm: str, layout: str) -> None:
    """Normal numbers in float64, against the windows of ``runtime.reference``, on one axis those of a single row."""
    case = small_case(algorithm, 3)
    rng = np.random.default_rng(11)
    integers = drawn(case, 0, "float64")
    x, weight, bias, grad = (
        laid_out(rng.normal(size=a.shape), layout) for a in (integers.x, integers.weight, integers.bias, integers.grad)
    )
    found = run(case, replace(integers, x=x, weight=weight, bias=bias, grad=grad), {})
    wanted = dict(zip(RESULTS, by_reference(case.layer, x, weight, bias, grad), strict=True))
    for name, result in found.items():
        np.testing.assert_allclose(result, wanted[name], rtol=1e-11, atol=1e-11, err_msg=name)


def by_reference(layer: Conv, x: Array, weight: Array, bias: Array, grad: Array) -> tuple[Array, ...]:
    """Output and gradients; a depthwise convolution is one of a single channel for each of its own."""
    if layer.axes == 1:
        rows = Conv2d(2, 3, (1, *layer.kernel_size), 1, (0, *layer.padding))
        found = by_reference(rows, x[:, :, None], weight[:, :, None], bias, grad[:, :, None])
        return (*(a[:, :, 0] for a in found[:3]), found[3])
    sides = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
    if layer.groups == 1:
        return (reference.conv2d(x, weight, bias, **sides), *reference.conv2d_gradients(grad, x, weight, **sides))
    one = replace(layer, in_channels=1, out_channels=1, groups=1)
    parts = [slice(c, c + 1) for c in range(layer.groups)]
    each = [by_reference(one, x[:, c], weight[c], bias[c], grad[:, c]) for c in parts]
    return tuple(np.concatenate(found, axis=axis) for found, axis in zip(zip(*each, strict=True), AXES, strict=True))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_results_do_not_share_memory_with_a_workspace(algorithm: str) -> None:
    case = small_case(algorithm, 3)
    works = works_of(case, "float64", 2)
    first = run(case, drawn(case, 1, "float64"), works)
    kept = {name: result.copy() for name, result in first.items()}
    run(case, drawn(case, 2, "float64"), works)
    assert all(np.array_equal(first[name], kept[name]) for name in first)


IN_GROUPS = Case(Conv2d(4, 6, 3, padding=1, groups=2), (2, 4, 5, 6), "im2col")


@pytest.mark.parametrize("case", [*(small_case(name, 2) for name in ALGORITHMS), IN_GROUPS], ids=str)
def test_arguments_whose_axes_are_merged_are_listed_as_copies(case: Case) -> None:
    """A reshape of an argument that is not C-contiguous copies it, and a function's docstring says so."""
    source = codegen.emit(case.layer, input_shape=case.shape, algorithm=case.algorithm).source
    for name in RESULTS:
        text = source[source.index(f"def {name}(") :]
        text = text[: text.index("\n\n\n")]
        for argument in ("X", "G"):
            merged = re.search(rf"\b{argument}\.reshape\(", text) is not None
            assert (f"{argument} where it is not C-contiguous" in text) == merged, (name, argument)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("bias", [True, False])
def test_backward_gives_all_gradients(algorithm: str, bias: bool) -> None:
    case = small_case(algorithm, 4, bias=bias)
    m, data = module_of(case), drawn(case, 0, "object")
    _, *wanted = expected(case, data).values()
    works = (
        m.InputGradient(4, "object"),
        m.WeightGradient(4, "object"),
        *([m.BiasGradient(4, "object")] if bias else []),
    )
    for found in (m.backward(data.grad, data.x, data.weight), m.backward(data.grad, data.x, data.weight, works)):
        assert all((f == w).all() for f, w in zip(found, wanted, strict=False))
        assert (found[2] is None) is not bias


# --- kernels of one cell ---------------------------------------------------------------------------------------------

ONE_CELL = [Conv1d(3, 2, 1), Conv2d(2, 3, 1, dilation=2), Conv2d(1, 1, 1), Conv3d(2, 2, 1, bias=False)]
PRODUCTS = [(layer, name) for layer in ONE_CELL for name in ("im2col", "nhwc", "gemm")]
PRODUCTS += [(Conv2d(4, 6, 1, groups=2), "im2col"), (Conv1d(3, 3, 1, groups=3), "im2col")]


@pytest.mark.parametrize(("layer", "algorithm"), PRODUCTS, ids=str)
@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**32 - 1), batch=st.integers(0, 4), sizes=st.lists(st.integers(1, 5), min_size=3, max_size=3),
    dtype=st.sampled_from(["float32", "object"]), layouts=st.lists(LAYOUT, min_size=4, max_size=4),
)  # fmt: skip
def test_kernels_of_one_cell_are_matrix_products(
    layer: Conv, algorithm: str, seed: int, batch: int, sizes: list[int], dtype: str, layouts: list[str]
) -> None:
    channels = layer.in_channels
    assert isinstance(channels, int)
    case = Case(layer, (batch, channels, *sizes[: layer.axes]), algorithm)
    data = drawn(case, seed, dtype, layouts)
    wanted, works = expected(case, data), works_of(case, dtype, 2)
    run(case, drawn(case, seed + 1, dtype, layouts), works)
    for used in (works, {}):
        for name, result in run(case, data, used).items():
            agree(case, name, result, wanted[name], dtype)


@pytest.mark.parametrize(("layer", "algorithm"), PRODUCTS, ids=str)
def test_kernels_of_one_cell_copy_no_windows(layer: Conv, algorithm: str) -> None:
    """Changes of layout apart, of the arrays of the call and of the kernel."""
    channels = layer.in_channels
    assert isinstance(channels, int)
    emitted = codegen.emit(layer, input_shape=(2, channels, *[4] * layer.axes), algorithm=algorithm)
    for name in ("forward", "input_gradient", "weight_gradient"):
        plan = emitted.plans[name]
        moved = {s.name for s in plan.stages if s.template in ("strided", "windows", "scatter", "overlaps")}
        turned = {s.name for s in plan.conversions}
        kernels = {"T", "ut", "Wk", "Wr"}  # as small as the weight
        assert moved - turned <= {*kernels, *(("Z", "dX", "dW") if algorithm == "nhwc" else ())}, name
    assert set(emitted.theorems) == set(emitted.plans)


# --- exact execution, and theorems --------------------------------------------------------------------------------

CHECKED = [
    (Conv1d(2, 3, 3, padding=1), (4, 2, 7), ("im2col", "nhwc", "toeplitz2", "winograd2", "winograd4", "nested")),
    (Conv1d(2, 3, 5, padding=3), (2, 2, 6), ("nested", "shift")),
    (Conv1d(1, 1, 1, padding=2), (2, 1, 5), ("shift",)),
    (Conv1d(2, 2, 4, padding=3, dilation=2, bias=False), (1, 2, 5), ("shift",)),
    (Conv2d(2, 3, (3, 2), padding=(5, 0), dilation=(1, 2)), (3, 2, 4, 5), ("shift",)),
    (Conv3d(1, 2, (2, 1, 2), padding=(0, 1, 1)), (1, 1, 3, 3, 2), ("shift",)),
    (Conv1d(2, 2, 4, stride=3, padding=3, dilation=2, bias=False), (1, 2, 5), ("im2col", "nhwc", "toeplitz2")),
    (Conv1d(2, 2, 4, stride=3, padding=3), (1, 2, 8), ("phases",)),
    (Conv1d(2, 2, 4, stride=3, padding=3, dilation=2), (2, 2, 9), ("phases",)),
    (Conv1d(2, 3, 5, stride=2, padding=1, dilation=4, bias=False), (2, 2, 20), ("phases",)),
    (Conv2d(2, 2, (3, 4), (4, 2), (2, 1), (6, 3)), (1, 2, 15, 12), ("phases",)),
    (Conv3d(1, 2, (3, 1, 2), (2, 3, 1), (1, 0, 1), (1, 2, 2)), (2, 1, 5, 4, 3), ("phases",)),
    (Conv2d(2, 3, 3, padding=(0, 2)), (2, 2, 5, 4), ("winograd2", "winograd4")),
    (Conv2d(1, 2, 2, padding=1), (2, 1, 3, 4), ("winograd2", "winograd4")),
    (Conv2d(2, 3, (3, 2), (2, 1), (3, 0), (1, 2)), (2, 2, 4, 5), ("im2col", "nhwc", "toeplitz2")),
    (Conv2d(2, 3, (3, 2), (2, 3), (3, 0)), (2, 2, 4, 5), ("phases",)),
    (Conv2d(3, 2, 1), (2, 3, 4, 3), ("im2col", "phases", "direct", "nhwc", "gemm")),
    (Conv2d(4, 6, 1, groups=2), (3, 4, 2, 3), ("im2col",)),
    (Conv1d(1, 3, 1), (2, 1, 1), ("im2col",)),
    (Conv1d(1, 1, 1, padding=1), (2, 1, 5), ("direct", "gemm", "im2col", "nhwc")),
    (Conv2d(3, 2, 1, stride=2), (2, 3, 4, 5), ("im2col", "phases")),
    (Conv2d(2, 2, 1, padding=1), (2, 2, 3, 3), ("im2col", "gemm")),
    (Conv2d(2, 2, (2, 3), stride=(2, 3), padding=(4, 1), groups=2), (2, 2, 3, 7), ("depthwise",)),
    (Conv3d(1, 2, (2, 1, 2), stride=(1, 2, 1), padding=(0, 0, 1)), (1, 1, 3, 3, 2), ("im2col", "nhwc", "toeplitz2")),
]  # fmt: skip
CHECKS = [(layer, shape, algorithm) for layer, shape, algorithms in CHECKED for algorithm in algorithms]


@pytest.mark.parametrize(("layer", "shape", "algorithm"), CHECKS, ids=str)
def test_the_text_computes_its_stages_and_quotes_theorems(layer: Conv, shape: tuple[int, ...], algorithm: str) -> None:
    for dtype in ("float32", "float64") if layer.axes == 1 else ("float32",):
        emitted = codegen.emit(layer, input_shape=shape, algorithm=algorithm, dtype=dtype)
        certificate = check(emitted)
        sure = [row.error_probability for row in certificate.rows if row.error_probability is not None]
        assert all(probability <= 1e-6 for probability in sure)
        assert any(dtype in row.statement for row in certificate.rows)
    applied = layer.on(tensor("X", 1, *shape[1:]), "Y")
    kind = kind_of(applied, algorithm)
    assert kind is not None
    assert emitted.algorithm == algorithm


@pytest.mark.parametrize(
    ("algorithm", "axes"),
    [(name, axes) for name in ALGORITHMS for axes in (1, 2) if (name, axes) != ("nested", 2)] + [("phases", 3)],
)
def test_the_committed_theorems_are_quoted(algorithm: str, axes: int) -> None:
    kind = {1: Conv1d, 2: Conv2d, 3: Conv3d}[axes]
    stride, groups = 1 if algorithm in (*TOOM_COOK, "shift") else 2, 3 if algorithm == "depthwise" else 1
    dilation = 3 if algorithm == "phases" else 1
    layer = kind(3, 3, 3, stride, padding=1, dilation=dilation, groups=groups)
    emitted = codegen.emit(layer, input_shape=(2, 3, *[9] * axes), algorithm=algorithm)
    assert list(emitted.theorems) == list(emitted.plans) == list(RESULTS)
    assert len(set(emitted.theorems.values())) == len(RESULTS)


@pytest.mark.parametrize(
    "layer",
    [
        Conv2d(2, 3, 3, stride=2), Conv2d(2, 3, 3, dilation=2), Conv2d(2, 3, (3, 2)), Conv2d(2, 3, 1),
        Conv3d(2, 3, 3),
    ],
    ids=str,
)  # fmt: skip
def test_toom_cook_is_for_square_kernels_next_to_each_other(layer: Conv) -> None:
    shape = (1, 2, *[9] * len(layer.kernel_size))
    for algorithm in ("winograd2", "winograd4"):
        assert kind_of(layer.on(tensor("X", *shape), "Y"), algorithm) is None
        with pytest.raises(codegen.EmitError, match=r"it has no plan for .*; those that have one: "):
            codegen.emit(layer, input_shape=shape, algorithm=algorithm)


def test_a_scheme_without_a_committed_theorem_quotes_none() -> None:
    emitted = codegen.emit(Conv1d(2, 2, 2), input_shape=(1, 2, 6), algorithm="winograd4")
    assert emitted.theorems == {}
    assert "follows from no theorem" in emitted.source
