"""Input gradients by residues and by groups: proved for all sizes, executed exactly on a CPU, and shorter sums.

The right numbers are those of the definition as loops (``tests.codegen.convolutions.expected``), which shares nothing
with the stages.  Faults are planted in plans, which are then refused a proof, and in texts, which then give others.
"""

import re
from dataclasses import replace
from functools import cache
from math import prod
from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codegen import committed
from codegen.cupy_check import check_cupy
from codegen.emit import Emitted, emit
from codegen.execution import Refuted
from codegen.plan import Plan, PlanError
from codegen.plans import claims
from codegen.plans.algorithms import CUDA, RESIDUES, Kind, kind_of, residue_kinds
from codegen.plans.claims import claims_of
from codegen.plans.residues import fewer_terms
from derive.layers import Applied, Conv, Conv1d, Conv2d, Conv3d
from derive.obligations import Refused
from derive.terms import tensor
from tests.codegen.convolutions import Case, drawn, expected
from tests.codegen.cupy_on_cpu import needs_compiler, on_cpu

KINDS: dict[int, type[Conv]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}


def gradient_plan(layer: Conv, *shape: int) -> Plan:
    return emit(layer, backend="cupy", input_shape=(1, *shape)).plans["input_gradient"]


# --- proofs -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_statement_is_committed(axes: int) -> None:
    seen = set()
    for kind in residue_kinds(axes):
        file = committed.committed(kind.file)
        assert file is not None
        ((name, claim),) = claims.claims(kind).items()
        assert file.proves(kind.key(name), claim.statement), kind.key(name)
        seen.add(kind.key(name))
    assert seen == set(file.outputs)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_claim_is_for_all_sizes(axes: int) -> None:
    """That they are proved is for ``python -m codegen.prove --check``, which CI runs."""
    every = {kind.key(name): claim for kind in residue_kinds(axes) for name, claim in claims.claims(kind).items()}
    assert every
    for key, claim in every.items():
        theorem = claim.statement
        symbols = {name for _, hi in theorem.binders for name in hi.symbols}
        assert symbols >= ({"g", "n0"} if "groups" in key else {"C", "n0"}), key
        assert theorem.rhs.text.startswith("d("), key


def shifted(applied: Applied) -> Applied:
    """The image is cut at other places."""
    return replace(applied, windows=tuple(replace(w, before=w.before + 1) for w in applied.windows))


def shorter(applied: Applied) -> Applied:
    """A kernel cell is left out."""
    return replace(applied, windows=tuple(replace(w, kernel=w.kernel - w.stride) for w in applied.windows))


def longer_stride(applied: Applied) -> Applied:
    """Residues of another stride."""
    return replace(applied, windows=tuple(replace(w, stride=w.stride + 1) for w in applied.windows))


@pytest.mark.parametrize("algorithm", RESIDUES)
@pytest.mark.parametrize("mistake", [shifted, shorter, longer_stride])
@pytest.mark.parametrize("groups", [False, True])
def test_a_plan_for_other_windows_is_not_provable(algorithm: str, mistake: object, groups: bool) -> None:
    applied = Kind(algorithm, 1, limits=(("dilation", 1),), groups=groups).applied
    assert callable(mistake)
    with pytest.raises((Refused, PlanError)):
        claims_of(applied, CUDA[algorithm].plan(mistake(applied)))["input_gradient"].prove()


def test_a_plan_with_strides_and_dilation_is_not_provable() -> None:
    """Why such a layer keeps the form of the definition: the kernel cells of a residue are others."""
    applied = Kind("residues", 1).applied
    with pytest.raises(Refused):
        claims_of(applied, CUDA["residues"].plan(applied))["input_gradient"].prove()


# --- which form is taken ------------------------------------------------------------------------------------------

FORMS = [
    (Conv2d(64, 128, 3, stride=2, padding=1), (64, 56, 56), "residue_products", 1152, 512),
    (Conv2d(3, 64, 7, stride=2, padding=3), (3, 224, 224), "residue_products", 3136, 1024),
    (Conv2d(3, 96, 4, stride=4), (3, 224, 224), "residue_products", 1536, 96),
    (Conv2d(128, 128, 3, padding=1, groups=32), (128, 28, 28), "residues", 1152, 36),
    (Conv2d(256, 256, 3, stride=2, padding=1, groups=32), (256, 28, 28), "residue_products", 2304, 32),
    (Conv2d(96, 96, 3, stride=2, padding=1, groups=96), (96, 28, 28), "residues", 9, 4),
    (Conv2d(12, 24, 3, padding=2, dilation=2, groups=6), (12, 9, 9), "residues", 216, 36),
    (Conv2d(8, 8, 3, groups=2), (8, 9, 9), "definition", 72, 36),  # too few channels a group for a product
    (Conv2d(64, 64, 3, padding=1), (64, 9, 9), "definition", 576, 576),
    (Conv2d(64, 64, 1, stride=2), (64, 9, 9), "definition", 64, 64),
    (Conv2d(9, 9, 3, groups=9), (9, 9, 9), "definition", 9, 9),
]


@pytest.mark.parametrize(("layer", "shape", "form", "before", "after"), FORMS, ids=[str(k) for k in range(len(FORMS))])
def test_a_sum_has_fewer_terms_where_that_gains(
    layer: Conv, shape: tuple[int, ...], form: str, before: int, after: int
) -> None:
    plan = gradient_plan(layer, *shape)
    applied = layer.on(tensor("X", 1, *shape))
    assert plan.algorithm == form
    assert fewer_terms(applied) == (before, after)
    (m,) = plan.stages[0].body.monomials
    terms = prod((high - low).constant or 0 for low, high in m.binders)
    assert terms == (before if form == "definition" else after)


def test_strides_with_dilation_keep_the_form_of_the_definition() -> None:
    layer = Conv2d(8, 8, 3, stride=2, dilation=2)
    assert gradient_plan(layer, 8, 9, 9).algorithm == "definition"
    assert fewer_terms(layer.on(tensor("X", 1, 8, 9, 9))) is None
    assert kind_of(layer.on(tensor("X", 1, 8, 9, 9)), "residues") is None
    assert fewer_terms(Kind("residues", 1).applied) is None


@pytest.mark.parametrize(("layer", "shape", "form", "before", "after"), FORMS, ids=[str(k) for k in range(len(FORMS))])
def test_its_theorem_is_quoted(layer: Conv, shape: tuple[int, ...], form: str, before: int, after: int) -> None:
    emitted = emit(layer, backend="cupy", input_shape=(1, *shape))
    assert list(emitted.theorems) == list(emitted.plans)


# --- execution ----------------------------------------------------------------------------------------------------


@st.composite
def layers(draw: st.DrawFn) -> Case:
    """Strides that leave a remainder or exceed the kernel, or dilation, with and without groups."""
    rank, strided = draw(st.sampled_from([1, 2, 2, 3])), draw(st.sampled_from([True, True, False]))
    most = {1: 5, 2: 4, 3: 2}[rank]
    sides, spatial = [], []
    for _ in range(rank):
        k, p = draw(st.integers(1, most)), draw(st.integers(0, 2))
        s, d = (draw(st.integers(1, most)), 1) if strided else (1, draw(st.integers(1, 3)))
        outputs, rest = draw(st.integers(1, 3)), draw(st.integers(0, s - 1))
        sides.append((k, s, p, d))
        spatial.append(max(1, (outputs - 1) * s + d * (k - 1) + 1 - 2 * p + rest))
    groups = draw(st.sampled_from([1, 2, 3, 5]))
    c, n = groups * draw(st.sampled_from([1, 2, 5])), groups * draw(st.sampled_from([1, 2, 9]))
    kernel, stride, padding, dilation = zip(*sides, strict=True)
    layer = KINDS[rank](c, n, kernel, stride, padding, dilation, groups, bias=False)
    return Case(layer, (draw(st.sampled_from([0, 1, 3])), c, *spatial), "direct")


@cache
def text_of(case: Case, dtype: str) -> Emitted:
    return emit(case.layer, backend="cupy", input_shape=case.shape, dtype=dtype)


def exact(case: Case, dtype: str, *, module: ModuleType | None = None) -> None:
    module = module or on_cpu(text_of(case, dtype).source)
    data = drawn(case, 1, dtype)
    found = module.input_gradient(data.grad, data.weight, data.x.shape)
    np.testing.assert_array_equal(found, expected(case, data)["input_gradient"], err_msg=str(case))


@needs_compiler
@pytest.mark.parametrize("examples", [6, pytest.param(150, marks=pytest.mark.campaign)])
def test_drawn_layers_are_exact(examples: int) -> None:
    @settings(max_examples=examples)
    @given(layers(), st.sampled_from(["float32", "float64", "float16"]))
    @example(Case(Conv2d(5, 9, (2, 5), stride=(4, 3), padding=(1, 2)), (2, 5, 6, 8), "direct"), "float32")
    @example(Case(Conv2d(10, 6, (3, 4), stride=(2, 1), padding=1, groups=2), (2, 10, 6, 5), "direct"), "float16")
    @example(Case(Conv1d(5, 5, 5, stride=2, padding=3, groups=5), (2, 5, 8), "direct"), "float32")
    @example(Case(Conv1d(4, 8, 3, dilation=2, groups=4), (2, 4, 8), "direct"), "float64")
    def compared(case: Case, dtype: str) -> None:
        exact(case, dtype)

    compared()


# --- what is not finite -------------------------------------------------------------------------------------------

FINITE = "Numbers are to be finite: input_gradient multiplies"
FORMS = {
    "strides that leave a remainder": (Case(Conv2d(8, 16, 3, stride=2, padding=1), (1, 8, 7, 8), "direct"), True),
    "on one axis, in groups": (Case(Conv2d(10, 6, (3, 4), stride=(1, 3), groups=2), (1, 10, 7, 8), "direct"), True),
    "strides beyond the kernel": (Case(Conv2d(8, 16, 2, stride=3), (1, 8, 7, 8), "direct"), True),
    "strides that divide the kernel": (Case(Conv2d(8, 16, 4, stride=2, padding=1), (1, 8, 7, 8), "direct"), False),
    "groups alone": (Case(Conv2d(16, 32, 3, padding=1, groups=2), (1, 16, 7, 8), "direct"), False),
    "a thread an element": (Case(Conv1d(6, 12, 5, stride=2, padding=1, groups=6), (1, 6, 9), "direct"), False),
    "by definition": (Case(Conv2d(8, 16, 3, stride=2, dilation=2, padding=1), (1, 8, 9, 8), "direct"), False),
}


@needs_compiler
@pytest.mark.parametrize("name", FORMS)
def test_an_infinity_spreads_where_the_text_says_so_and_nowhere_else(name: str) -> None:
    case, spreads = FORMS[name]
    source = text_of(case, "float32").source
    module = on_cpu(source)
    shape = (1, *module.SHAPES["grad_output"])
    weight = np.ones(module.SHAPES["weight"], np.float32)
    found = False
    cells = int(np.prod(shape))
    for place in range(0, cells, max(7, cells // 20 | 1)):  # an odd step meets every place in a row
        one, infinite = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        one.flat[place], infinite.flat[place] = 1, np.inf
        reached = module.input_gradient(one, weight, (1, *module.SHAPES["input"])) != 0
        result = module.input_gradient(infinite, weight, (1, *module.SHAPES["input"]))
        found = found or bool((~np.isfinite(result) & ~reached).any())
    assert (found, FINITE in source) == (spreads, spreads)


# --- faults -------------------------------------------------------------------------------------------------------

PRODUCT = Case(Conv2d(10, 6, (3, 4), stride=(2, 3), padding=1, groups=2), (2, 10, 7, 8), "direct")
CELLS = Case(Conv1d(6, 12, 5, stride=2, padding=1, groups=6), (2, 6, 9), "direct")

FAULTS = {
    "the residue of another cell": (PRODUCT, r"h0 - 2 \* \(\(h0 \+ 1\) / 2\) \+ 1", "h0 - 2 * (h0 / 2)"),
    "the turn before": (PRODUCT, r"\+ \(\(h1 \+ 1\) / 3\)\)\]", "+ (h1 / 3))]"),
    "the other group's outputs": (PRODUCT, r"G\[b \* 72 \+ \(\(\(3 \* g", "G[b * 72 + (((3 * (1 - g)"),
    "the other group's weights": (PRODUCT, r"W\[\(\(\(3 \* g", "W[(((3 * (1 - g)"),
    "no end of the kernel": (PRODUCT, r"r0 \+ 2 \* t0 < 3 && ", ""),
    "no end of the outputs": (PRODUCT, r"q0 - t0 >= 0 && ", ""),
    "an axis too short": (PRODUCT, r"P = cupy\.empty\(\(N, 2, 3, 2, 5, 4, 3\)", "P = cupy.empty((N, 2, 3, 2, 5, 4, 2)"),
    "the image before its phases": (
        PRODUCT, r"(?s)(    _launch\(\"compute_P\".*?\n)(    _launch\(\"compute_dX\".*?\n)", r"\2\1",
    ),
    "a kernel cell too few": (CELLS, r"t0 < 3;", "t0 < 2;"),
    "the kernel cell beside": (
        CELLS, r"h0 \+ 2 \* t0 - 2 \* \(\(h0 \+ 1\) / 2\) \+ 1\]", "h0 + 2 * t0 - 2 * (h0 / 2)]",
    ),
    "outputs of the first group": (CELLS, r"G\[b \* 48 \+ \(\(2 \* c \+ n\)", "G[b * 48 + ((n)"),
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    case, pattern, put = FAULTS[name]
    emitted = text_of(case, "float32")
    head, kernels, rest = _around_the_gradient(emitted.source)
    source, count = re.subn(pattern, put, kernels)
    assert count, f"{pattern} is not in the text"
    with pytest.raises(Refuted, match="input_gradient"):
        check_cupy(head + source + rest, emitted.plans, on_cpu, dtype="float32")


def _around_the_gradient(source: str) -> tuple[str, str, str]:
    """What comes before the kernels of the input gradient, they and the functions, and nothing after."""
    start = min(at for name in ("P[b", "dX[b") if (at := source.find(f"// {name}")) >= 0)
    end = source.index("def weight_gradient")
    return source[:start], source[start:end], source[end:]


@needs_compiler
@pytest.mark.parametrize("case", [PRODUCT, CELLS], ids=["product", "cells"])
def test_the_texts_without_faults_are_right(case: Case) -> None:
    emitted = text_of(case, "float32")
    check_cupy(emitted.source, emitted.plans, on_cpu, dtype="float32")
