"""An architecture forgets every size of a network; a plan with numbers is an instance of the plan with symbols, or not.

``instance`` compares stage by stage and fact by fact, by plain arithmetic.  What it accepts is proved by the theorem
of the architecture, so each way in which a plan can fail to be an instance has to be reported.
"""

from dataclasses import replace
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from codegen.architecture import forget, instance
from codegen.network_proof import NetworkProof
from codegen.plan import BATCH, PlanError
from codegen.plans.network import network
from derive.indices import Guard, Index, at_least, symbol
from derive.layers import AvgPool2d, Conv2d, Flatten, LayerError, Linear, Sequential, Sigmoid, Tanh
from derive.terms import constant
from tests.codegen.networks import LENET, NETWORKS, changed, proof_of, sizes

Net = tuple[Sequential, tuple[Index, ...]]


@cache
def theorem() -> NetworkProof:
    """LeNet's plan in symbols; nothing is proved here."""
    return NetworkProof.of(forget(*LENET))


def like_lenet(first: Conv2d, second: Conv2d, shape: tuple[Index, ...], dense: tuple[int, int, int]) -> Net:
    """A network of LeNet's architecture with these convolutions and numbers of features."""
    body = (first, Sigmoid(), AvgPool2d(2), second, Sigmoid(), AvgPool2d(2), Flatten())
    flat = Sequential(*body).output_shape(shape)[-1].constant
    assert flat is not None
    a, b, c = dense
    return Sequential(*body, Linear(flat, a), Sigmoid(), Linear(a, b), Sigmoid(), Linear(b, c)), shape


def difference(net: Sequential, shape: tuple[Index, ...]) -> str:
    """What ``instance`` says of the network against LeNet's theorem."""
    return instance(network(net, shape), theorem().plan, theorem().facts, forget(net, shape).sizes)


# --- forgetting ---------------------------------------------------------------------------------------------------


def test_lenet_forgotten() -> None:
    architecture = forget(*LENET)
    found = architecture.sizes
    assert {name: found[name] for name in ("C", "n0", "k0_0", "p0_1", "k3_0", "s3_1", "C0", "C3", "F7", "F9", "K")} == {
        "C": 1, "n0": 28, "k0_0": 5, "p0_1": 2, "k3_0": 5, "s3_1": 1, "C0": 6, "C3": 16, "F7": 120, "F9": 84, "K": 10,
    }  # fmt: skip
    assert sorted(v for name, v in found.items() if name.startswith("o")) == [5, 5, 10, 10, 14, 14, 28, 28]
    assert "N" not in found
    assert architecture.input_shape == (BATCH, symbol("C"), symbol("n0"), symbol("n1"))


def test_networks_of_one_architecture_are_forgotten_alike() -> None:
    other = like_lenet(Conv2d(3, 4, (2, 7), stride=(1, 2)), Conv2d(4, 5, 4, padding=3), sizes(3, 30, 41), (7, 6, 5))
    ours, theirs = forget(*LENET), forget(*other)
    assert (ours.net, ours.input_shape) == (theirs.net, theirs.input_shape)
    assert ours.sizes.keys() == theirs.sizes.keys()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_an_instance_of_its_own_architecture(name: str) -> None:
    net, shape = NETWORKS[name]
    architecture = forget(net, shape)
    general = NetworkProof.of(architecture)
    assert instance(network(net, shape), general.plan, general.facts, architecture.sizes) == ""


def test_a_network_without_numbers_cannot_be_forgotten() -> None:
    net = Sequential(Conv2d(1, symbol("M"), 3), Sigmoid(), Flatten(), Linear(36 * symbol("M"), 2))
    with pytest.raises(ValueError, match=r"C0=.*M.*: a network with numbers is needed, but for its batch size"):
        forget(net, sizes(1, 8, 8))


# --- instances of LeNet's theorem ---------------------------------------------------------------------------------

INSTANCES: dict[str, Net] = {
    "LeNet at 28 x 28": LENET,
    "at 32 x 32": like_lenet(Conv2d(1, 6, 5, padding=2), Conv2d(6, 16, 5), sizes(1, 32, 32), (120, 84, 10)),
    "of three channels, not square": like_lenet(Conv2d(3, 6, 5), Conv2d(6, 8, 3), sizes(3, 40, 25), (30, 20, 7)),
    "with stride 2": like_lenet(Conv2d(1, 6, 5, stride=2), Conv2d(6, 9, 3, stride=(1, 2)), sizes(1, 39, 40), (9, 8, 7)),
    "with even kernels": like_lenet(Conv2d(1, 2, 4, padding=1), Conv2d(2, 3, (2, 6)), sizes(1, 28, 30), (5, 4, 3)),
    "with dilation": like_lenet(Conv2d(1, 2, 3, 1, 0, (2, 3)), Conv2d(2, 3, 2, 1, 0, 4), sizes(1, 28, 29), (5, 4, 3)),
    "with odd outputs": like_lenet(Conv2d(1, 2, 2), Conv2d(2, 2, 2), sizes(1, 12, 16), (4, 3, 2)),
}  # fmt: skip


@pytest.mark.parametrize("what", INSTANCES)
def test_the_theorem_covers(what: str) -> None:
    assert difference(*INSTANCES[what]) == ""


@settings(max_examples=15)
@given(data=st.data())
def test_the_theorem_covers_every_legal_network_of_the_architecture(data: st.DataObject) -> None:
    def number(low: int, high: int) -> int:
        return data.draw(st.integers(low, high))

    def convolution(channels: int, out: int) -> Conv2d:
        k, s, p, d = ((number(low, high), number(low, high)) for low, high in ((1, 4), (1, 3), (0, 2), (1, 2)))
        return Conv2d(channels, out, k, s, p, d)

    c, m = number(1, 3), number(1, 3)
    shape = sizes(c, number(8, 40), number(8, 40))
    try:
        net, _ = like_lenet(convolution(c, m), convolution(m, number(1, 3)), shape, (number(1, 5), number(1, 5), 2))
    except LayerError:
        assume(False)
    assert difference(net, shape) == ""


def test_the_block_and_the_itemsize_do_not_matter() -> None:
    plan = network(*LENET, block=7)
    assert instance(plan, theorem().plan, theorem().facts, forget(*LENET).sizes) == ""


# --- what is no instance ------------------------------------------------------------------------------------------


def test_another_number_of_stages_is_reported() -> None:
    net, shape = NETWORKS["one convolution, two dense layers"]
    ours, theirs = len(network(net, shape).stages), len(theorem().plan.stages)
    assert difference(net, shape) == f"the plan has {ours} stages and the theorem's {theirs}"


def test_another_pool_is_reported() -> None:
    body = (Conv2d(1, 6, 5, padding=2), Sigmoid(), AvgPool2d(3), Conv2d(6, 16, 5), Sigmoid(), AvgPool2d(2), Flatten())
    net = Sequential(*body, Linear(64, 120), Sigmoid(), Linear(120, 84), Sigmoid(), Linear(84, 10))
    assert difference(net, LENET[1]) == "the fact -o0+2*o0_1+1>=0 does not hold at this shape"


def test_another_pool_of_the_same_output_size_is_reported() -> None:
    """5 cells are one window of three and of five, with the same facts: the stages tell them apart."""
    three, five = (
        (Sequential(Conv2d(1, 2, 1), Sigmoid(), AvgPool2d(pool), Flatten(), Linear(2, 2)), sizes(1, 5, 5))
        for pool in (3, 5)
    )
    general = NetworkProof.of(forget(*three))
    assert instance(network(*three), general.plan, general.facts, forget(*three).sizes) == ""
    found = instance(network(*five), general.plan, (), forget(*five).sizes)
    assert found == "the stage T0 is not that of the theorem at these sizes"


def test_an_output_that_is_another_stage_is_reported() -> None:
    plan = network(*LENET)
    wrong = replace(plan, outputs={**plan.outputs, "gradient 9.bias": "du7"})
    found = instance(wrong, theorem().plan, theorem().facts, forget(*LENET).sizes)
    assert found == "the plan's outputs or parameters are not the stages and inputs that the theorem's are"


@pytest.mark.parametrize("fact", [at_least(5, BATCH), at_least(BATCH, 1), at_least(BATCH * BATCH, BATCH)])
def test_a_fact_about_the_batch_is_not_taken_for_granted(fact: Guard) -> None:
    found = instance(network(*LENET), theorem().plan, (fact,), forget(*LENET).sizes)
    assert found == f"the fact {fact.text} does not hold at this shape"


@pytest.mark.parametrize("stage", ["Col0", "P3", "Pd", "dW0", "L"])
def test_a_changed_stage_is_reported(stage: str) -> None:
    right = proof_of(*LENET)
    wrong = changed(right, stage, lambda s: s.body + constant(s.body.depth, 1))
    found = instance(wrong.plan, theorem().plan, theorem().facts, forget(*LENET).sizes)
    assert found == f"the stage {stage} is not that of the theorem at these sizes"


def test_stages_in_another_order_are_reported() -> None:
    plan = network(*LENET)
    turned = replace(plan, stages=(plan.stages[1], plan.stages[0], *plan.stages[2:]))
    found = instance(turned, theorem().plan, theorem().facts, forget(*LENET).sizes)
    assert found == "the stage T0 is not that of the theorem at these sizes"


@pytest.mark.parametrize(
    ("name", "value", "fact"),
    [
        ("k0_0", 40, "d0_0-d0_0*k0_0+n0+2*p0_0-1>=0"),
        ("s3_1", 0, "s3_1-1>=0"),
        ("p0_0", -1, "p0_0>=0"),
        ("K", 0, "K-1>=0"),
    ],
)
def test_an_illegal_size_is_reported(name: str, value: int, fact: str) -> None:
    found = {**forget(*LENET).sizes, name: value}
    said = instance(network(*LENET), theorem().plan, theorem().facts, found)
    assert said == f"the fact {fact} does not hold at this shape"


def test_a_wrong_output_size_is_reported() -> None:
    found = {**forget(*LENET).sizes, "o0": 27}
    said = instance(network(*LENET), theorem().plan, theorem().facts, found)
    assert said.startswith("the fact ")


def test_a_size_that_is_legal_but_not_the_plans_is_reported() -> None:
    found = {**forget(*LENET).sizes, "K": 11}
    said = instance(network(*LENET), theorem().plan, theorem().facts, found)
    assert said == "the stage Wq11 is not that of the theorem at these sizes"


def test_the_plan_refuses_what_it_has_no_form_for() -> None:
    with pytest.raises(PlanError, match="layer 0: the network plan needs a sigmoid after a convolution"):
        network(Sequential(Conv2d(1, 2, 3), Tanh(), Flatten(), Linear(72, 2)), sizes(1, 8, 8))
