"""Networks of the form that the network plan knows, and plans of them that are wrong in one stage."""

from collections.abc import Callable

from codegen.network_proof import NetworkProof
from codegen.plan import BATCH, Plan, Stage
from codegen.plans.elementwise import Cotangent
from codegen.plans.network import Join, joined
from derive.indices import Index, index
from derive.layers import AvgPool2d, Conv1d, Conv2d, Flatten, Linear, Sequential, Sigmoid, lenet
from derive.terms import Expr, Substitution, Tensor, tensor

Change = Callable[[Stage], Expr]


def sizes(*numbers: int) -> tuple[Index, ...]:
    """An input shape: any batch, then these numbers."""
    return (BATCH, *(index(n) for n in numbers))


LENET = lenet(), sizes(1, 28, 28)

NETWORKS: dict[str, tuple[Sequential, tuple[Index, ...]]] = {
    "LeNet": LENET,
    "one convolution, two dense layers": (
        Sequential(Conv2d(1, 2, 3), Sigmoid(), AvgPool2d(2), Flatten(), Linear(18, 4), Sigmoid(), Linear(4, 3)),
        sizes(1, 8, 8),
    ),
    "a pool of three, then one of two": (
        Sequential(
            Conv2d(2, 2, 2, padding=1), Sigmoid(), AvgPool2d(3),
            Conv2d(2, 3, 2), Sigmoid(), AvgPool2d(2), Flatten(), Linear(3, 3),
        ),
        sizes(2, 10, 11),
    ),
    "strides and dilations, a kernel that is no square": (
        Sequential(
            Conv2d(1, 2, (3, 2), stride=(1, 2), dilation=(2, 3), padding=(1, 0)), Sigmoid(), AvgPool2d(2),
            Conv2d(2, 2, 2, stride=2, padding=1), Sigmoid(), AvgPool2d(2), Flatten(), Linear(2, 3),
        ),
        sizes(1, 12, 15),
    ),
    "one axis, no pool": (
        Sequential(Conv1d(2, 3, 3, stride=2, dilation=2), Sigmoid(), Flatten(), Linear(9, 2)),
        sizes(2, 10),
    ),
}  # fmt: skip


def proof_of(net: Sequential, shape: tuple[Index, ...]) -> NetworkProof:
    """The proof of the plan of a network at its shape."""
    return NetworkProof(net.chain(tensor("X", *shape)), *joined(net, shape))


def changed(proof: NetworkProof, name: str, change: Change) -> NetworkProof:
    """The proof of the same plan with another body for one stage; what reads it reads the changed one."""
    new: dict[str, Tensor] = {}

    def renewed(t: Tensor) -> Tensor:
        return new.get(t.name, t)

    put = Substitution(0, (), 0, {}, renewed)
    stages = []
    for s in proof.plan.stages:
        body = put.expr(s.body)
        old = Stage(Tensor(s.name, s.tensor.box, body), s.template, s.letters, s.loops, s.margin, s.into)
        if s.name == name:
            body = change(old)
        if body != s.body:
            new[s.name] = Tensor(s.name, s.tensor.box, body)
        stages.append(Stage(renewed(s.tensor), s.template, s.letters, s.loops, s.margin, s.into))
    plan = Plan(
        proof.plan.algorithm, proof.plan.inputs, tuple(stages), proof.plan.outputs, proof.plan.matrices,
        proof.plan.parameters, proof.plan.block,
    )  # fmt: skip
    return NetworkProof(proof.steps, plan, tuple(_rejoined(join, plan) for join in proof.joins))


def _rejoined(join: Join, plan: Plan) -> Join:
    def found(stage: Stage) -> Stage:
        return plan.by_name[stage.name]

    up = None if join.up is None else Cotangent(found(join.up.stage), join.up.scale)
    down = Cotangent(found(join.down.stage), join.down.scale)
    before = None if join.input is None else found(join.input)
    return Join(join.first, join.last, found(join.output), down, before, up)
