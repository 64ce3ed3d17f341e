"""The network plan's theorems: every output of every network of the known form, and no output of a wrong plan.

A wrong plan is the plan with another body for one stage.  What was proved before the refusal must not depend on that
stage: otherwise something false was proved.
"""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import cache

import pytest

from codegen.architecture import forget
from codegen.network_proof import NetworkProof
from codegen.plan import BATCH, Stage
from derive import kernel
from derive.indices import Index, at_least, var, variables
from derive.kernel import Theorem
from derive.layers import CrossEntropyLoss
from derive.obligations import Refused
from derive.terms import Derivative, Expr, Monomial, Read, constant, expression, shift, tensor, term
from tests.codegen.networks import NETWORKS, changed, proof_of

ONE, TWO = "one convolution, two dense layers", "a pool of three, then one of two"
LOPSIDED = "strides and dilations, a kernel that is no square"


@cache
def proof(name: str) -> NetworkProof:
    return proof_of(*NETWORKS[name])


@cache
def theorems(name: str) -> dict[str, Theorem]:
    return dict(proof(name).prove())


# --- what is proved -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NETWORKS)
def test_every_output_is_the_layer_or_the_derivative_of_the_loss(name: str) -> None:
    plan, (net, shape) = proof(name).plan, NETWORKS[name]
    assert set(theorems(name)) == set(plan.outputs)
    steps = net.chain(tensor("X", *shape))
    logits = steps[-1].y
    loss = CrossEntropyLoss().on(logits, "Loss", {"target": tensor("T", BATCH, logits.box[1][1])}).y
    parameters = {f"{k}.{key}": t for k, step in enumerate(steps) for key, t in step.parameters.items()}
    for output, theorem in theorems(name).items():
        stage = plan.by_name[plan.outputs[output]].tensor
        at = variables(0, stage.rank)
        assert theorem.lhs == term(stage.rank, stage[at])
        assert theorem.binders == stage.box
        assert theorem.facts == (at_least(BATCH, 0),)
        if output == "forward":
            assert theorem.rhs == term(2, logits[var(1), var(0)])
        elif output == "loss":
            assert theorem.rhs == term(0, loss[()])
        else:
            target = parameters[output.removeprefix("gradient ")]
            assert theorem.binders == target.box
            assert theorem.rhs == term(stage.rank, Derivative(shift(term(0, loss[()]), stage.rank), target, at))


@pytest.mark.parametrize("name", NETWORKS)
def test_claims_are_the_statements_of_the_theorems(name: str) -> None:
    claims = proof(name).claims()
    assert list(claims) == list(proof(name).plan.outputs)
    for output, theorem in theorems(name).items():
        claim = claims[output]
        assert (claim.facts, claim.binders) == (theorem.facts, theorem.binders)
        assert (claim.lhs, claim.rhs) == (theorem.lhs, theorem.rhs)


def test_nothing_is_assumed_of_values() -> None:
    """Sums of exponentials over at least one class are positive, so their logarithms and reciprocals exist."""
    assert all(t.conditions == () for t in theorems(ONE).values())


@pytest.mark.parametrize("name", [ONE, "one axis, no pool"])
def test_an_architecture_is_proved_for_all_its_sizes(name: str) -> None:
    architecture = forget(*NETWORKS[name])
    found = dict(NetworkProof.of(architecture).prove())
    assert set(found) == set(theorems(name))
    sizes = {s for t in found.values() for lo, hi in t.binders for s in (lo.symbols | hi.symbols)}
    assert sizes <= {*architecture.sizes, "N"}
    assert {"C", "K"} <= sizes


def test_a_theorem_of_all_sizes_gives_that_of_one_size() -> None:
    net, shape = NETWORKS["one axis, no pool"]
    architecture = forget(net, shape)
    general = dict(NetworkProof.of(architecture).prove())
    numbers = {name: Index((((), value),)) if value else Index(()) for name, value in architecture.sizes.items()}
    for output, theorem in theorems("one axis, no pool").items():
        special = kernel.specialise(general[output], facts=theorem.facts, sizes=numbers)
        assert (special.lhs, special.rhs, special.binders) == (theorem.lhs, theorem.rhs, theorem.binders)


# --- what is refused ----------------------------------------------------------------------------------------------


def with_reads(change: Callable[[Read], Read], name: str) -> Callable[[Stage], Expr]:
    """Every direct read of a tensor changed."""

    def body(s: Stage) -> Expr:
        def factors(m: Monomial) -> Monomial:
            changed_ = (change(f) if isinstance(f, Read) and f.tensor.name == name else f for f in m.factors)
            return replace(m, factors=tuple(changed_))

        return expression(s.body.depth, [factors(m) for m in s.body.monomials])

    return body


def swapped(name: str, i: int, j: int) -> Callable[[Stage], Expr]:
    """Two indices of each read of a tensor exchanged."""

    def change(read: Read) -> Read:
        at = list(read.at)
        at[i], at[j] = at[j], at[i]
        return Read(read.tensor, tuple(at))

    return with_reads(change, name)


def moved(name: str, axis: int, by: int) -> Callable[[Stage], Expr]:
    """An index of each read of a tensor moved."""
    return with_reads(lambda r: Read(r.tensor, (*r.at[:axis], r.at[axis] + by, *r.at[axis + 1 :])), name)


def scaled(by: Fraction | int) -> Callable[[Stage], Expr]:
    return lambda s: s.body.scaled(by)


def without(name: str) -> Callable[[Stage], Expr]:
    """The monomials that read a tensor dropped."""

    def body(s: Stage) -> Expr:
        return expression(s.body.depth, [m for m in s.body.monomials if name not in _read(m)])

    return body


def _read(m: Monomial) -> set[str]:
    return {f.tensor.name for f in m.factors if isinstance(f, Read)}


def _mean_over(denominator: int) -> Callable[[Stage], Expr]:
    """1/2 and the sum of the slabs over this number."""

    def body(s: Stage) -> Expr:
        (m,) = (m for m in s.body.monomials if m.factors)
        half = constant(s.body.depth, Fraction(1, 2))
        return half + expression(s.body.depth, [replace(m, coefficient=Fraction(1, denominator))])

    return body


def _unshared(name: str) -> Callable[[Stage], Expr]:
    """The factor that reads this tensor dropped."""

    def kept(m: Monomial) -> Monomial:
        return replace(m, factors=tuple(f for f in m.factors if not (isinstance(f, Read) and f.tensor.name == name)))

    return lambda s: expression(s.body.depth, [kept(m) for m in s.body.monomials])


def _shifted_guard(s: Stage) -> Expr:
    (m,) = s.body.monomials
    guard = m.guards[0].rebuild(lambda e: e + 1)
    return expression(s.body.depth, [replace(m, guards=(guard, *m.guards[1:]))])


def _turned(read: Read) -> Read:
    """Columns before rows, in an image of two channels and 3 x 3 cells."""
    channel, row, column = variables(0, 3)
    return Read(read.tensor, (9 * channel + 3 * column + row, read.at[1]))


WRONG: dict[str, tuple[str, str, Callable[[Stage], Expr]]] = {
    "the bias of a convolution dropped": (ONE, "Zm0", without("ut0")),
    "the bias of a dense layer dropped": (ONE, "Zm4", without("uq4")),
    "a pool that divides by another number": (TWO, "P0", _mean_over(8)),
    "a sum of the pool's cells, no mean": (ONE, "P0", _mean_over(2)),
    "a kernel written at the wrong places of a window": (ONE, "T0", _shifted_guard),
    "r0 and r1 exchanged in the gradient of a kernel": (ONE, "dW0", swapped("dT0", 0, 1)),
    "rows and columns of the input exchanged": (LOPSIDED, "In0", swapped("X", 2, 3)),
    "padding forgotten": (LOPSIDED, "Col0", moved("In0", 1, 1)),
    "a kernel shifted": (TWO, "T3", moved("W3", 2, 1)),
    "the scale -1 of a cotangent forgotten": (TWO, "D0", scaled(-1)),
    "a cotangent read one cell off": (TWO, "dCol3", moved("dZ3", 3, 1)),
    "a window added to the wrong cells": (TWO, "dIn3", _shifted_guard),
    "the slope of another sigmoid": (ONE, "Q4", lambda s: s.body + s.body),
    "a gradient twice too large": (ONE, "du4", scaled(2)),
    "softmax without the target": (ONE, "Pd", without("Tn")),
    "softmax without its sum": (ONE, "Pr", _unshared("Rs")),
    "a sum over the batch, no mean": (ONE, "dL", _unshared("share")),
    "a loss without the row's maximum": (ONE, "Lm", without("M")),
    "a loss without the target": (ONE, "Le", without("Hz")),
    "the maximum of another row": (ONE, "R", scaled(-1)),
    "cells of the flattened image in another order": (ONE, "dP3", with_reads(_turned, "dH4")),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_plan_is_refused(what: str) -> None:
    network, stage, change = WRONG[what]
    wrong = changed(proof(network), stage, change)
    assert wrong.plan.by_name[stage].body != proof(network).plan.by_name[stage].body
    proved = []
    with pytest.raises(Refused):
        proved.extend(output for output, _ in wrong.prove())
    for output in proved:
        assert stage not in wrong.plan.needed(wrong.plan.outputs[output])


def test_a_pool_does_not_notice_that_its_cells_were_exchanged_but_the_gradient_of_the_kernel_does() -> None:
    """With r0 and r1 exchanged in the product the slabs come in another order; their mean is the same."""
    wrong = changed(proof(ONE), "Zm0", swapped("T0", 0, 1))
    proved = []
    with pytest.raises(Refused):
        proved.extend(output for output, _ in wrong.prove())
    assert {"forward", "loss"} <= set(proved)
    assert "gradient 0.weight" not in proved


def test_a_cotangent_whose_scale_is_forgotten_is_refused() -> None:
    right = proof(TWO)
    joins = [replace(join, up=None if join.up is None else replace(join.up, scale=Fraction(1))) for join in right.joins]
    with pytest.raises(Refused, match="do not agree"):
        list(NetworkProof(right.steps, right.plan, tuple(joins)).prove())


def test_a_refusal_says_what_does_not_agree() -> None:
    wrong = changed(proof(ONE), "Zm4", without("uq4"))
    with pytest.raises(Refused, match=r"the two sides do not agree: .*recip.* has no counterpart; .*-1\*u4\["):
        list(wrong.prove())


def test_changing_nothing_changes_no_theorem() -> None:
    """The wrong plans above are wrong by their one stage only."""
    assert changed(proof(ONE), "Zm4", lambda s: s.body).plan == proof(ONE).plan
