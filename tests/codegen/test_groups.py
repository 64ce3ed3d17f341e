"""Grouped convolutions, depthwise ones above all: their theorems, their text, faults that are caught, refusals.

That every result is what the definition says, at drawn sizes, is tested with the other algorithms in
``test_layer_module``.
"""

import importlib
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import codegen
from codegen.check import check
from codegen.execution import Refuted
from codegen.layer_module import layer_source
from codegen.plan import BATCH, Plan, PlanError, Stage
from codegen.plans import claims, depthwise, im2col
from codegen.plans import convolution as conv
from codegen.plans.algorithms import ALGORITHMS, Kind, kinds
from codegen.plans.claims import claims_of
from codegen.templates import numpy as templates
from codegen.templates.numpy import clipping
from codegen.templates.numpy.views import Scope
from derive.indices import Index, at_least, index, symbol, var
from derive.layers import Applied, Conv, Conv1d, Conv2d, Conv3d
from derive.obligations import Refused
from derive.terms import define, tensor, term

Patch = pytest.MonkeyPatch
LAYER = Conv2d(3, 3, (3, 2), stride=(2, 1), padding=(1, 2), dilation=(1, 3), groups=3)
SHAPE = (3, 3, 6, 5)
GROUPED = Conv1d(4, 6, 3, stride=2, padding=1, groups=2)


def numeric() -> Applied:
    return LAYER.on(tensor("X", BATCH, *SHAPE[1:]), "Y")


# --- theorems -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_claim_is_for_all_sizes(axes: int) -> None:
    """That they are proved is for ``python -m codegen.prove --check``, which CI runs."""
    every = {
        kind.key(name): claim.statement
        for kind in kinds(axes, groups=True)
        for name, claim in claims.claims(kind).items()
    }
    assert len(every) > 30
    for key, theorem in every.items():
        channels = {"C"} if "depthwise" in key else {"g"}
        assert {name for _, hi in theorem.binders for name in hi.symbols} >= channels, key
        assert theorem.lhs.tensors != theorem.rhs.tensors
    forward = every["depthwise forward"]
    at = "$0,$1,$2" + "".join(f",${k}" for k in range(3, 2 + axes))
    assert (forward.lhs.text, forward.rhs.text) == (f"Z[{at}]", f"Y[{at}]")


@pytest.mark.parametrize("shape", [(4, 3, 9), (4, 3, 5, 6), (4, 3, 2, 3, 4)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_the_committed_theorems_are_quoted(shape: tuple[int, ...], bias: bool) -> None:
    kind = {3: Conv1d, 4: Conv2d, 5: Conv3d}[len(shape)]
    emitted = codegen.emit(kind(3, 3, 2, stride=2, padding=1, groups=3, bias=bias), input_shape=shape)
    assert list(emitted.theorems) == list(emitted.plans)


def swapped(applied: Applied) -> Applied:
    """Stride and dilation exchanged."""
    return replace(applied, windows=tuple(replace(w, stride=w.dilation, dilation=w.stride) for w in applied.windows))


def wrong_sign(applied: Applied) -> Applied:
    """The padding with the other sign."""
    return replace(applied, windows=tuple(replace(w, before=-w.before) for w in applied.windows))


@pytest.mark.parametrize("mistake", [swapped, wrong_sign])
@pytest.mark.parametrize("result", ["forward", "input_gradient", "weight_gradient"])
def test_a_plan_for_other_windows_is_not_provable(mistake: Callable[[Applied], Applied], result: str) -> None:
    applied = Kind("depthwise", 2, groups=True, depthwise=True).applied
    plans = ALGORITHMS["depthwise"].plan(mistake(applied))
    with pytest.raises(Refused):
        claims_of(applied, {result: plans[result]})[result].prove()


def test_a_plan_that_reads_the_next_channel_is_not_provable() -> None:
    applied = Kind("depthwise", 1, groups=True, depthwise=True).applied
    plan = ALGORITHMS["depthwise"].plan(applied)["forward"]
    col, *rest = plan.stages
    ((read,),) = (m.factors for m in col.body.monomials)
    moved = read.tensor[(read.at[0], read.at[1] + 1, *read.at[2:])]
    wrong = replace(col, tensor=define("Col", list(col.tensor.box), term(col.tensor.rank, moved)))
    stages = (wrong, *(replace(s, tensor=_reading(s, col, wrong)) for s in rest))
    with pytest.raises(Refused):
        claims_of(applied, {"forward": replace(plan, stages=stages[:2], outputs={"forward": "S"})})["forward"].prove()


def _reading(stage: Stage, old: Stage, new: Stage) -> Any:
    """The tensor of a stage with one of the stages it reads replaced."""
    monomials = [
        term(stage.tensor.rank, *(new.tensor[f.at] if f.tensor == old.tensor else f for f in m.factors), over=m.binders)
        for m in stage.body.monomials
    ]
    return define(stage.name, list(stage.tensor.box), sum(monomials[1:], monomials[0]))


# --- faults -------------------------------------------------------------------------------------------------------


def prove_all() -> None:
    """The four theorems of each algorithm over two axes."""
    for algorithm in ("depthwise", "direct", "im2col"):
        for claim in claims.claims(Kind(algorithm, 2, groups=True, depthwise=algorithm == "depthwise")).values():
            claim.prove()


def execute() -> None:
    """Exact execution at strides with remainders, an even kernel, and columns that no window reaches."""
    check(codegen.emit(LAYER, input_shape=SHAPE, algorithm="depthwise"))
    for algorithm in ("direct", "im2col"):
        check(codegen.emit(GROUPED, input_shape=(3, 4, 7), algorithm=algorithm))


def kernel_not_turned(patch: Patch) -> None:
    """The input gradient reads the cotangent as the forward pass reads the input: right for a kernel of one row."""
    original = depthwise._input_gradient

    def wrong(applied: Applied, w: conv.Windows) -> conv.Result:
        col, last = original(applied, w).stages
        (m,) = last.body.monomials
        reads = {f.tensor.name: f for f in m.factors}
        at = list(reads["Col"].at)
        rank = last.tensor.rank
        at[3] = var(2) - w.windows[0].before + var(rank) * w.windows[0].dilation
        body = term(rank, reads["W"], col.tensor[tuple(at)], over=m.binders)
        margin = (*col.margin[:3], (index(9), index(9)), col.margin[4])
        return conv.Result(
            (replace(col, margin=margin), replace(last, tensor=define("dIn", list(last.tensor.box), body)))
        )

    patch.setattr(depthwise, "_input_gradient", wrong)


def spread_without_strides(patch: Patch) -> None:
    """The cotangent is not spread out by the strides of the rows: right at stride 1."""
    original = depthwise._spread

    def wrong(applied: Applied, w: conv.Windows) -> Stage:
        one = replace(w, windows=tuple(replace(v, stride=index(1)) if v.axis == 0 else v for v in w.windows))
        return original(applied, one)

    patch.setattr(depthwise, "_spread", wrong)


def clipped_one_short(patch: Patch) -> None:
    """Copies that are cut off end one column early."""
    original = clipping._extreme

    def extreme(name: str, *rest: Any) -> str:
        text = original(name, *rest)
        return f"{text} - 1" if text.startswith("min(") else text

    patch.setattr(clipping, "_extreme", extreme)


def last_shift_missing(patch: Patch) -> None:
    """The copy for the last kernel column is left out."""
    original = templates.strided
    patch.setattr(templates, "strided", lambda *a: original(*a)[:-1])


def buffer_not_zeroed(patch: Patch) -> None:
    """The buffer that copies are cut off in is made without zeros: right wherever fresh memory is zero."""
    original = templates._own_buffer
    patch.setattr(templates, "_own_buffer", lambda *a, **k: original(*a, **k).replace("np.zeros(", "np.empty("))


def window_forwards(patch: Patch) -> None:
    """Cells in a window always go forwards: wrong in the input gradient only."""
    contract = importlib.import_module("codegen.templates.numpy.contract")
    original = contract._run
    patch.setattr(contract, "_run", lambda first, step, count: original(first, abs(step), count))


def rows_merged_always(patch: Patch) -> None:
    """Rows are taken to follow each other whatever the stride: right at stride 1."""
    contract = importlib.import_module("codegen.templates.numpy.contract")
    patch.setattr(contract, "_rows_follow", lambda ctx, stage, reads, scope: stage.name != "dW")


def group_rounded_up(patch: Patch) -> None:
    """The printed group of the last output of each group is that of the next: wrong only where text divides."""
    views = importlib.import_module("codegen.templates.numpy.views")
    original = views.Scope.text

    def text(self: Any, e: Index) -> str:
        return original(self, e).replace("(n // 3)", "((n + 1) // 3 % 2)")

    patch.setattr(views.Scope, "text", text)


def last_block_only(patch: Patch) -> None:
    """The gradient of the weight is that of the last block: right for a batch that fits into one."""
    original = templates.contract
    patch.setattr(templates, "contract", lambda ctx, stage, **_: original(ctx, stage, accumulate=False))


def groups_of_inputs(patch: Patch) -> None:
    """Output n is taken to be in group n // (C/g) instead of n // (O/g): right where a group has as many outputs."""
    patch.setattr(conv, "channel", lambda applied, n, c: n // _inputs(applied) * _inputs(applied) + c)


def _inputs(applied: Applied) -> Index:
    assert isinstance(applied.layer, Conv)
    return applied.layer.group_sizes()[0]


def readers_counted_by_inputs(patch: Patch) -> None:
    """A channel of group q is read from output q C/g on instead of q O/g on: right where they are as many."""
    original = im2col._readers

    def wrong(applied: Applied, c: Index, m: Index) -> tuple[Index, Index, Any]:
        _, own, over = original(applied, c, m)
        return c - own + m, own, over

    patch.setattr(im2col, "_readers", wrong)


def first_group_for_all(patch: Patch) -> None:
    """Every group is multiplied by the kernel of the first."""
    grouped = importlib.import_module("codegen.templates.numpy.grouped")
    original = grouped.reshaped
    patch.setattr(grouped, "reshaped", lambda *a: original(*a) + ("[:1]" if a[0] == "weight" else ""))


def channels_dealt_out(patch: Patch) -> None:
    """Outputs are dealt to the groups in turn instead of one group after the other."""
    grouped = importlib.import_module("codegen.templates.numpy.grouped")
    original = grouped.reshaped

    def wrong(array: str, *rest: Any) -> str:
        text = original(array, *rest)
        return text.replace("(2, 3, ", "(3, 2, ") + ".swapaxes(0, 1)" if array == "weight" else text

    patch.setattr(grouped, "reshaped", wrong)


def next_image(patch: Patch) -> None:
    """The cotangents of the images are taken backwards: right for one image."""
    grouped = importlib.import_module("codegen.templates.numpy.grouped")
    original = grouped.reshaped
    patch.setattr(grouped, "reshaped", lambda *a: original(*a) + ("[::-1]" if a[0] == "G" else ""))


PLAN_FAULTS = [kernel_not_turned, spread_without_strides, groups_of_inputs, readers_counted_by_inputs]


@pytest.mark.parametrize("plant", PLAN_FAULTS)
def test_a_fault_in_a_plan_is_refused_by_the_proof(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    with pytest.raises(Refused):
        prove_all()


TEXT_FAULTS = [
    (clipped_one_short, "the first stage that is wrong is stage Col "),
    (last_shift_missing, "the first stage that is wrong is stage Col "),
    (buffer_not_zeroed, "NoneType|stage Col"),
    (window_forwards, "input_gradient.* is stage dIn "),
    (rows_merged_always, "forward.*(stage S|ValueError)"),
    (group_rounded_up, "forward.* is stage S "),
    (last_block_only, "weight_gradient.* is stage dW "),
    (first_group_for_all, "forward.* is stage S "),
    (channels_dealt_out, "forward.* is stage S "),
    (next_image, "input_gradient.* is stage dCol "),
]


@pytest.mark.parametrize(("plant", "says"), TEXT_FAULTS, ids=[plant.__name__ for plant, _ in TEXT_FAULTS])
def test_a_fault_in_a_template_is_killed_by_execution(
    plant: Callable[[Patch], None], says: str, monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Refuted, match=says):
        execute()


def test_without_a_fault_the_same_checks_pass() -> None:
    prove_all()
    execute()


# --- text ---------------------------------------------------------------------------------------------------------


def test_a_group_is_a_quotient_in_the_text() -> None:
    text = codegen.emit(GROUPED, input_shape=(1, 4, 7), algorithm="direct").source
    assert "np.multiply(v.In[c + 2*(n // 3), a0:a0 + 7:2], weight[n, c, a0], out=v.S_part)" in text


def test_groups_are_an_axis_of_products_in_the_text() -> None:
    text = codegen.emit(GROUPED, input_shape=(1, 4, 7), algorithm="im2col").source
    product = "np.matmul({}, {}, out={})".format
    assert product("weight.reshape(2, 3, 6)", "v.Col.reshape(-1, 2, 6, 4)", "S.reshape(-1, 2, 3, 4)") in text
    turned = "weight.reshape(2, 3, 6).swapaxes(-1, -2)"
    assert product(turned, "G.reshape(-1, 2, 3, 4)", "v.dCol.reshape(-1, 2, 6, 4)") in text


@settings(max_examples=25)
@given(
    g=st.integers(2, 3), inputs=st.integers(1, 3), outputs=st.integers(1, 3), k=st.integers(1, 3), s=st.integers(1, 3),
    d=st.integers(1, 2), p=st.integers(0, 3), more=st.integers(0, 3), bias=st.booleans(),
)  # fmt: skip
def test_groups_of_any_size_execute_exactly(
    g: int, inputs: int, outputs: int, k: int, s: int, d: int, p: int, more: int, bias: bool
) -> None:
    """One input or output in a group, kernels of one cell, strides with remainders, and windows that are the input."""
    n = max(1, d * (k - 1) + 1 - 2 * p) + more
    layer = Conv1d(g * inputs, g * outputs, k, stride=s, padding=p, dilation=d, groups=g, bias=bias)
    emitted = codegen.emit(layer, input_shape=(2, g * inputs, n), algorithm="im2col")
    assert check(emitted).rows
    assert list(emitted.theorems) == list(emitted.plans)


def test_what_an_index_can_be_is_bounded_through_quotients() -> None:
    scope = Scope(("n", "c"), ((index(0), index(6)), (index(0), index(2))), frozenset({0, 1}))
    assert (scope.low(var(0) // 3 * 2 + var(1)), scope.high(var(0) // 3 * 2 + var(1))) == (0, 3)
    assert (scope.low(1 - (var(0) - 1) // 2 * 3), scope.high(1 - (var(0) - 1) // 2 * 3)) == (-5, 4)
    for wrong in (var(0) * var(1), symbol("s") + 1):
        with pytest.raises(PlanError, match=r"is not affine|is not a number"):
            scope.low(wrong)


@settings(max_examples=30)
@given(
    k=st.integers(1, 5), s=st.integers(1, 3), d=st.integers(1, 3), p=st.integers(0, 4), more=st.integers(0, 4),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_exact_execution_at_drawn_edges(k: int, s: int, d: int, p: int, more: int, seed: int) -> None:
    n = max(1, d * (k - 1) + 1 - 2 * p) + more
    rows = random.Random(seed).randint(1, 3)
    layer = Conv2d(2, 2, (rows, k), stride=(1, s), padding=(rows - 1, p), dilation=(1, d), groups=2)
    assert check(codegen.emit(layer, input_shape=(1, 2, 3, n))).rows


def test_positions_are_one_long_axis_where_rows_follow_each_other() -> None:
    text = codegen.emit(Conv2d(4, 4, 3, padding=1, groups=4), input_shape=(1, 4, 5, 6)).source
    assert "out=S.reshape(len(S), 4, 30)" in text
    assert "(self.Col.reshape(b, 4, 3, 42), (13,), axis=(3,))[:, :, :, 0:30, 0:13:6]" in text
    strided = codegen.emit(Conv2d(4, 4, 3, stride=(2, 1), groups=4), input_shape=(1, 4, 5, 6)).source
    assert "out=S)" in strided
    assert "S.reshape" not in strided[: strided.index("class InputGradient")]


def test_outputs_lie_in_the_result_with_what_they_take_over() -> None:
    plan = ALGORITHMS["depthwise"].plan(numeric())["forward"]
    assert plan.placed == {"S", "Z"}
    assert plan.arrays["Z"] == plan.arrays["S"] == "S"
    assert codegen.emit(Conv2d(2, 3, 3), input_shape=(1, 2, 5, 5), algorithm="gemm").plan.placed == set()
    assert check(codegen.emit(LAYER, input_shape=SHAPE, dtype="float64")).rows


def test_a_shift_that_leaves_nothing_is_not_printed() -> None:
    text = codegen.emit(Conv1d(2, 2, 3, padding=3, dilation=3, groups=2), input_shape=(1, 2, 1)).source
    forward = text[text.index("def forward") : text.index("class InputGradient")]
    assert forward.count("np.copyto(v.Col") == 1


def test_float32_rounds_as_little_as_its_bound_says() -> None:
    layer = Conv2d(4, 4, 3, padding=1, groups=4)
    module = codegen.load(codegen.emit(layer, input_shape=(2, 4, 9, 9)).source)
    rng = np.random.default_rng(3)
    x, w, u = rng.normal(size=(2, 4, 9, 9)), rng.normal(size=(4, 1, 3, 3)), rng.normal(size=4)
    single = [a.astype(np.float32) for a in (x, w, u)]
    exact = module.forward(*(a.astype(np.float64) for a in single))
    size = module.forward(*(abs(a).astype(np.float64) for a in single))
    error = abs(module.forward(*single) - exact)
    assert (error <= 11 * 2.0**-24 * size).all()
    assert error.any()


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [Conv2d(4, 4, 3), Conv2d(4, 4, 3, groups=2), Conv2d(4, 8, 3, groups=4)], ids=str)
def test_other_convolutions_have_no_such_plan(layer: Conv2d) -> None:
    with pytest.raises(PlanError, match="depthwise is for groups == in_channels == out_channels"):
        ALGORITHMS["depthwise"].plan(layer.on(tensor("X", BATCH, 4, 9, 9)))


def changed(name: str, **changes: Any) -> Plan:
    """The forward plan with one of its stages changed."""
    plan = ALGORITHMS["depthwise"].plan(numeric())["forward"]
    return replace(plan, stages=tuple(replace(s, **changes) if s.name == name else s for s in plan.stages))


def columns(body: Callable[[Any, tuple[Index, ...]], Any]) -> Plan:
    """A plan of one stage that is copied by slices."""
    x = tensor("X", BATCH, *SHAPE[1:])
    at = (var(0), var(1), var(2), var(3))
    stage = Stage(define("Z", list(numeric().y.box), body(x, at)), "strided", "b n i j")
    return Plan("depthwise", (x,), (stage,), {"forward": "Z"})


REFUSED = [
    (lambda: changed("Col", margin=()), "Col: cells -1..5 are read and 0..5 stored; it needs a margin"),
    (lambda: changed("S", loops=("a0",)), "without loops"),
    (lambda: columns(lambda x, at: term(4, x[at], x[at])), "prints one read by slices"),
    (lambda: columns(lambda x, at: term(4, x[(at[0], at[1], at[2], -at[3])])), "is not a slice with a positive step"),
    (lambda: columns(lambda x, at: term(4, x[(at[0], at[1], at[2], at[2])])), "is no slice; make it a loop"),
    (lambda: columns(lambda x, at: term(4, x[at], guards=[at_least(at[2], 1)])), "cannot be printed as slices"),
]


@pytest.mark.parametrize(("plan", "words"), REFUSED, ids=[str(k) for k in range(len(REFUSED))])
def test_what_the_templates_cannot_print_is_refused(plan: Callable[[], Plan], words: str) -> None:
    with pytest.raises(PlanError) as caught:
        layer_source(numeric(), {"forward": plan()}, "", "")
    assert words in str(caught.value)
