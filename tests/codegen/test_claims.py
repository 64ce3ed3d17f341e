"""What plans claim is proved for all sizes, and what a wrong plan claims is not."""

from dataclasses import replace

import pytest

import codegen
from codegen import committed
from codegen.plan import BATCH, Plan
from codegen.plans import claims
from codegen.plans.algorithms import ALGORITHMS, Kind, kinds
from codegen.plans.claims import claims_of
from derive.indices import index
from derive.layers import Applied, Conv1d, Conv2d
from derive.obligations import Refused
from derive.terms import tensor

RESULTS = ("forward", "input_gradient", "weight_gradient", "bias_gradient")


FILES = [(axes, groups) for groups in (False, True) for axes in (1, 2, 3)]


@pytest.mark.parametrize(("axes", "groups"), FILES)
def test_every_statement_is_committed(axes: int, groups: bool) -> None:
    """That they are proved afresh is for ``python -m codegen.prove --check``, which CI runs."""
    seen = set()
    for kind in kinds(axes, groups=groups):
        file = committed.committed(kind.file)
        assert file is not None
        for name, claim in claims.claims(kind).items():
            assert file.proves(kind.key(name), claim.statement), kind.key(name)
            seen.add(kind.key(name))
    assert seen == set(file.outputs)


def is_quick(kind: Kind) -> bool:
    """Whether its proofs take a moment; those of the others are for ``codegen.prove --check`` and planted faults."""
    return kind.bias and kind.algorithm in ("gemm", "direct", "im2col", "definition", "depthwise")


@pytest.mark.parametrize("kind", [k for k in kinds(1) if is_quick(k)], ids=lambda kind: kind.key(""))
def test_a_kind_of_plan_is_proved_for_all_sizes(kind: Kind) -> None:
    for name, claim in claims.claims(kind).items():
        theorem = claim.prove()
        assert {symbol for _, hi in theorem.binders for symbol in hi.symbols}, name
        assert theorem.lhs.tensors != theorem.rhs.tensors


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("algorithm", ["direct", "im2col"])
def test_more_axes_are_proved_alike(algorithm: str, axes: int) -> None:
    for claim in claims.claims(Kind(algorithm, axes)).values():
        assert claim.prove().facts == claim.facts


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


@pytest.mark.parametrize("algorithm", ["gemm", "direct", "im2col", "toeplitz2"])
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


def numeric(layer: Conv1d, *shape: int) -> Applied:
    return layer.on(tensor("X", BATCH, *shape), "Y")


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


def test_no_theorem_is_quoted_for_a_plan_that_is_not_its_instance() -> None:
    applied = numeric(Conv1d(2, 3, 4, stride=3, dilation=2), 2, 17)
    plans = dict(ALGORITHMS["gemm"].plan(applied))
    plans["forward"] = wrong(plans["forward"])
    assert set(claims.proof_digests(applied, "gemm", plans)) == set(RESULTS) - {"forward"}


def wrong(plan: Plan) -> Plan:
    """The plan with its last stage twice as large."""
    *stages, last = plan.stages
    doubled = replace(last, tensor=replace(last.tensor, body=last.body.scaled(2)))
    return replace(plan, stages=(*stages, doubled))


def test_no_theorem_is_quoted_where_none_is_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "committed", lambda name: None)
    applied = Conv2d(1, 1, 2).on(tensor("X", BATCH, index(1), index(3), index(3)), "Y")
    assert claims.proof_digests(applied, "gemm", ALGORITHMS["gemm"].plan(applied)) == {}
