"""What plans claim is proved for all sizes, and what a wrong plan claims is not."""

from dataclasses import replace

import pytest

import codegen
from codegen import committed
from codegen.plan import BATCH, Plan
from codegen.plans import claims
from codegen.plans.algorithms import ALGORITHMS, Kind
from codegen.plans.claims import claims_of
from derive.indices import index
from derive.layers import Applied, Conv1d, Conv2d
from derive.obligations import Refused
from derive.terms import tensor

RESULTS = ("forward", "input_gradient", "weight_gradient", "bias_gradient")


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_kind_of_plan_is_proved_for_all_sizes(axes: int) -> None:
    theorems = claims.prove(axes)
    assert len(theorems) == 21
    for key, theorem in theorems.items():
        sizes = {name for _, hi in theorem.binders for name in hi.symbols}
        assert sizes, key
        assert theorem.lhs.tensors != theorem.rhs.tensors


def test_a_theorem_says_that_a_stage_is_the_layer() -> None:
    theorem = claims.claims(Kind("gemm", 2))["forward"].prove()
    assert (theorem.lhs.text, theorem.rhs.text) == ("Z[$0,$1,$2,$3]", "Y[$3,$0,$1,$2]")
    theorem = claims.claims(Kind("direct", 1))["weight_gradient"].prove()
    assert theorem.rhs.text == "d(Sum{0<=$3<N,0<=$4<M,0<=$5<o0}*G[$3,$4,$5]*Y[$3,$4,$5])/dW[$0,$1,$2]"


def swapped(applied: Applied) -> Applied:
    """A planner that takes the stride for the dilation and the dilation for the stride."""
    return replace(applied, windows=tuple(replace(w, stride=w.dilation, dilation=w.stride) for w in applied.windows))


def wrong_sign(applied: Applied) -> Applied:
    """A planner that adds the padding to the index instead of subtracting it."""
    return replace(applied, windows=tuple(replace(w, before=-w.before) for w in applied.windows))


def no_bias(applied: Applied) -> Applied:
    """A planner that forgets the bias."""
    return replace(applied, parameters={"weight": applied.parameters["weight"]})


@pytest.mark.parametrize("algorithm", ["gemm", "direct"])
@pytest.mark.parametrize("mistake", [swapped, wrong_sign])
@pytest.mark.parametrize("result", RESULTS[:3])
def test_a_plan_for_other_windows_is_not_provable(algorithm: str, mistake: object, result: str) -> None:
    applied = Kind(algorithm, 1).applied
    assert callable(mistake)
    plans = ALGORITHMS[algorithm].plan(mistake(applied))
    with pytest.raises(Refused):
        claims_of(applied, {result: plans[result]})[result].prove()


@pytest.mark.parametrize("algorithm", ["gemm", "direct"])
def test_a_plan_without_the_bias_is_not_provable(algorithm: str) -> None:
    applied = Kind(algorithm, 2).applied
    plans = ALGORITHMS[algorithm].plan(no_bias(applied))
    with pytest.raises(Refused, match="has no counterpart"):
        claims_of(applied, plans)["forward"].prove()


def test_a_plan_that_leaves_out_a_kernel_cell_is_not_provable() -> None:
    applied = Kind("gemm", 1).applied
    shorter = replace(applied, windows=tuple(replace(w, kernel=w.kernel - 1) for w in applied.windows))
    with pytest.raises(Refused):
        claims_of(applied, ALGORITHMS["gemm"].plan(shorter))["forward"].prove()


# --- theorems quoted ----------------------------------------------------------------------------------------------


@pytest.fixture
def proved(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the theorems of ``claims.prove(1)`` were the committed ones."""
    theorems = claims.prove(1)
    outputs = {
        key: {
            "digest": committed.statement_digest(committed.Record.of(t)),
            "theory": t.theory,
            "conditions": t.conditions,
        }
        for key, t in theorems.items()
    }
    monkeypatch.setattr(
        claims, "committed", lambda name: committed.Committed(name, outputs, "") if "1d" in name else None
    )


def numeric(layer: Conv1d, *shape: int) -> Applied:
    return layer.on(tensor("X", BATCH, *shape), "Y")


@pytest.mark.usefixtures("proved")
@pytest.mark.parametrize("algorithm", ["gemm", "direct"])
@pytest.mark.parametrize(
    "layer",
    [
        Conv1d(2, 3, 4, stride=3, padding=1, dilation=2),
        Conv1d(2, 3, 1, stride=2),
        Conv1d(1, 1, 1, bias=False),
        Conv1d(1, 1, 1, padding=1),
    ],
    ids=str,
)
def test_the_theorems_of_a_plan_at_numbers_are_those_of_its_kind(layer: Conv1d, algorithm: str) -> None:
    applied = numeric(layer, layer.in_channels if isinstance(layer.in_channels, int) else 0, 17)
    plans = ALGORITHMS[algorithm].plan(applied)
    digests = claims.proof_digests(applied, algorithm, plans)
    assert list(digests) == list(plans)
    assert len(set(digests.values())) == len(plans)
    assert (
        codegen.emit(layer, input_shape=(1, applied.x.box[1][1].constant or 0, 17), algorithm=algorithm).theorems
        == digests
    )


@pytest.mark.usefixtures("proved")
def test_no_theorem_is_quoted_for_a_plan_that_is_not_its_instance() -> None:
    applied = numeric(Conv1d(2, 3, 4, stride=3, dilation=2), 2, 17)
    plans = dict(ALGORITHMS["gemm"].plan(applied))
    plans["forward"] = wrong(plans["forward"])
    assert claims.proof_digests(applied, "gemm", plans) == {}


def wrong(plan: Plan) -> Plan:
    """The plan with its last stage twice as large."""
    *stages, last = plan.stages
    doubled = replace(last, tensor=replace(last.tensor, body=last.body.scaled(2)))
    return replace(plan, stages=(*stages, doubled))


def test_no_theorem_is_quoted_where_none_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "committed", lambda name: None)
    applied = Conv2d(1, 1, 2).on(tensor("X", BATCH, index(1), index(3), index(3)), "Y")
    assert claims.proof_digests(applied, "gemm", ALGORITHMS["gemm"].plan(applied)) == {}
