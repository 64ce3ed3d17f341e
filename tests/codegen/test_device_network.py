"""The plan of a network for a GPU: what is proved of it, what is refused, and what it does at once."""

from collections.abc import Callable
from fractions import Fraction
from functools import cache

import pytest

from codegen.committed import committed
from codegen.emit import EmitError, emit
from codegen.network_proof import NetworkProof
from codegen.plan import BATCH, PlanError, Stage
from codegen.plans.device_network import device_network, joined
from derive.indices import index, var, variables
from derive.layers import AvgPool1d, Conv1d, CrossEntropyLoss, Flatten, Linear, Sequential, Sigmoid, lenet
from derive.obligations import Refused
from derive.terms import Derivative, Expr, expression, shift, tensor, term
from tests.codegen.networks import NETWORKS, changed
from tests.codegen.test_network_proof import moved, scaled, swapped, without

ONE, TWO = "one convolution, two dense layers", "a pool of three, then one of two"
LOPSIDED = "strides and dilations, a kernel that is no square"


@cache
def proof(name: str) -> NetworkProof:
    net, shape = NETWORKS[name]
    return NetworkProof(net.chain(tensor("X", *shape)), *joined(net, shape))


# --- what is proved -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [ONE, TWO, LOPSIDED, "one axis, no pool"])
def test_every_output_is_the_layer_or_the_derivative_of_the_loss(name: str) -> None:
    plan, (net, shape) = proof(name).plan, NETWORKS[name]
    steps = net.chain(tensor("X", *shape))
    logits = steps[-1].y
    loss = CrossEntropyLoss().on(logits, "Loss", {"target": tensor("T", BATCH, logits.box[1][1])}).y
    parameters = {f"{k}.{key}": t for k, step in enumerate(steps) for key, t in step.parameters.items()}
    found = dict(proof(name).prove())
    assert set(found) == set(plan.outputs)
    for output, theorem in found.items():
        stage = plan.by_name[plan.outputs[output]].tensor
        at = variables(0, stage.rank)
        assert theorem.lhs == term(stage.rank, stage[at])
        assert theorem.conditions == ()
        if output == "forward":
            assert theorem.rhs == term(2, logits[var(0), var(1)])
        elif output == "loss":
            assert theorem.rhs == term(0, loss[()])
        else:
            target = parameters[output.removeprefix("gradient ")]
            assert theorem.binders == target.box
            assert theorem.rhs == term(stage.rank, Derivative(shift(term(0, loss[()]), stage.rank), target, at))


def test_the_module_of_lenet_quotes_the_committed_theorems() -> None:
    file = committed("lenet_device")
    assert file is not None
    emitted = emit(lenet(), backend="cupy", input_shape=(64, 1, 28, 28))
    assert dict(emitted.theorems) == {output: entry["digest"] for output, entry in file.outputs.items()}
    assert len(emitted.theorems) == 12
    assert all(digest in emitted.source for digest in emitted.theorems.values())
    assert set(emitted.theorems.values()).isdisjoint(emit(lenet(), input_shape=(64, 1, 28, 28)).theorems.values())


def test_another_architecture_says_that_nothing_is_proved() -> None:
    net, _ = NETWORKS[ONE]
    emitted = emit(net, backend="cupy", input_shape=(1, 1, 8, 8))
    assert not emitted.theorems
    assert "follows from no theorem that comes with this version" in emitted.source


# --- what is refused ----------------------------------------------------------------------------------------------


def _first(s: Stage) -> Expr:
    """The first monomial alone."""
    return expression(s.body.depth, s.body.monomials[:1])


WRONG: dict[str, tuple[str, str, Callable[[Stage], Expr]]] = {
    "the bias of a convolution dropped": (ONE, "A0", lambda s: s.body.scaled(2)),
    "a pool that divides by another number": (TWO, "P0", scaled(Fraction(9, 8))),
    "a pool one cell off": (TWO, "P3", moved("A3", 2, 1)),
    "the maximum left in the loss": (ONE, "Le", without("M")),
    "a loss without the target": (ONE, "Le", without("T")),
    "softmax without the target": (ONE, "dL", without("T")),
    "a slope of a sigmoid without its square": (ONE, "dZ4", _first),
    "a share forgotten on the way through a pool": (TWO, "dZ3", scaled(4)),
    "a cotangent read one tile off": (TWO, "dZ0", moved("dX3", 2, 1)),
    "a window gathered from the wrong cells": (LOPSIDED, "dX3", moved("dZ3", 3, 1)),
    "rows and columns of a kernel's gradient exchanged": (LOPSIDED, "dW0", swapped("X", 2, 3)),
    "a gradient twice too large": (ONE, "du4", scaled(2)),
    "cells of the flattened image in another order": (ONE, "dX3", moved("dX4", 1, 1)),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_plan_is_refused(what: str) -> None:
    network, stage, change = WRONG[what]
    wrong = changed(proof(network), stage, change)
    assert wrong.plan.by_name[stage].body != proof(network).plan.by_name[stage].body
    proved = []
    with pytest.raises(Refused):
        proved.extend(output for output, _ in wrong.prove())
    assert all(stage not in wrong.plan.needed(wrong.plan.outputs[output]) for output in proved)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Sequential(Flatten(), Linear(9, 2)), "layer 0 is Flatten"),
        (Sequential(Conv1d(1, 2, 3), Flatten(), Linear(14, 2)), "layer 0: the network plan needs a sigmoid"),
        (Sequential(Conv1d(1, 2, 3), Sigmoid()), "the network has to end in a dense layer"),
        (Sequential(Conv1d(2, 2, 3, groups=2), Sigmoid()), "layer 0: groups=2: no plan of a network has grouped"),
    ],
)
def test_a_network_of_another_form_is_refused_in_words(net: Sequential, message: str) -> None:
    channels = 2 if "groups=2" in message else 1
    shape = (4, channels, 9)
    with pytest.raises(PlanError, match=message):
        device_network(net, (BATCH, *map(index, shape[1:])))
    with pytest.raises(EmitError, match=message):
        emit(net, backend="cupy", input_shape=shape)


# --- what is done at once -----------------------------------------------------------------------------------------


def test_lenet_is_done_in_few_stages() -> None:
    plan = device_network(*NETWORKS["LeNet"])
    kinds = {s.name: s.template for s in plan.stages}
    assert [name for name, kind in kinds.items() if kind == "epilogue"] == ["dZ9", "dZ7"]
    assert {plan.by_name[name].into for name in ("dZ9", "dZ7")} == {"dX11", "dX9"}
    assert [name for name, kind in kinds.items() if kind == "column"] == ["du11", "du9", "du7", "du3", "du0"]
    assert [name for name, kind in kinds.items() if kind == "local"] == ["M", "Se", "Share", "Le"]
    assert [name for name, kind in kinds.items() if kind == "alias"] == ["F6", "dX6"]
    assert [name for name, kind in kinds.items() if kind == "pooled"] == ["P0", "P3"]
    assert [name for name, kind in kinds.items() if kind == "spread"] == ["dZ3", "dZ0"]
    assert plan.labels == ("T",)
    assert all(s.template != "product" or s.tensor.box[0][1] == BATCH or s.name.startswith("dW") for s in plan.stages)


def test_tiles_that_leave_cells_over_or_that_no_thread_has_are_stages_of_their_own() -> None:
    kinds = {s.name: s.template for s in device_network(*NETWORKS[TWO]).stages}
    assert [kinds[name] for name in ("P0", "dZ0", "dZ3")] == ["cells", "cells", "cells"]
    net = Sequential(Conv1d(1, 8, 9), Sigmoid(), AvgPool1d(2), Flatten(), Linear(24, 5))
    odd = {s.name: s.template for s in device_network(net, (BATCH, index(1), index(15))).stages}
    assert [odd[name] for name in ("P0", "dZ0")] == ["pooled", "cells"]


def test_the_rows_of_a_loss_with_many_classes_are_stored() -> None:
    net = Sequential(Conv1d(1, 8, 3), Sigmoid(), Flatten(), Linear(56, 100))
    kinds = {s.name: s.template for s in device_network(net, (BATCH, index(1), index(9))).stages}
    assert [kinds[name] for name in ("M", "Se", "Le", "Share")] == ["cells", "cells", "cells", "local"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_legend_speaks_once_of_every_tensor(name: str) -> None:
    net, shape = NETWORKS[name]
    plan = device_network(net, shape)
    told = [tensor_name for names, _ in plan.legend for tensor_name in names]
    assert sorted(told) == sorted([*(t.name for t in plan.inputs), *plan.by_name])


def test_the_legend_names_layers_and_quantities() -> None:
    legend = dict(device_network(lenet(), (BATCH, *map(index, (1, 28, 28)))).legend)
    assert legend["W3", "u3"] == "weight and bias of layer 3 (Conv2d)"
    assert legend["A3",] == "output of layer 4 (Sigmoid)"
    assert legend["F6",] == "output of layer 6 (Flatten)"
    assert legend["dX3",] == "gradient of the loss by P0"
    assert legend["dZ3",] == "gradient of the loss by the output of layer 3 (Conv2d)"
    assert legend["dW3", "du3"] == "gradients of the loss by W3 and u3"
