"""What the plans of a single convolution claim: each of their results is what the layer says, for all sizes.

The plans are those that are printed, built by the same functions with a symbol for every size: batch, channels, and on
each axis input, kernel, stride, padding, dilation and output of its own.

    forward           Z[n,j,b] = Y[b,n,j]                        for the output Y of the layer
    input gradient    dIn[c,h,b] = d(Sum G Y) / dX[b,c,h]        for a free cotangent G of the shape of Y
    weight gradient   dW[n,c,a] = d(Sum G Y) / dW[n,c,a]
    bias gradient     du[n] = d(Sum G Y) / du[n]

A stage has the batch innermost where the layer has it outermost, so the left sides are read at other places; those of
``depthwise`` have it outermost too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from codegen.architecture import instance
from codegen.claims import Claim
from codegen.committed import committed
from codegen.plan import Plan, number
from codegen.plans.convolution import cotangent_of
from codegen.plans.depthwise import depthwise
from codegen.plans.direct import direct
from codegen.plans.gemm import gemm, is_pointwise
from derive import kernel
from derive.indices import Index, index, variables
from derive.kernel import Theorem
from derive.layers import Applied, Conv, Conv1d, Conv2d, Conv3d, symbolic
from derive.terms import Expr, Tensor, instantiate, tensor, term


class Planner(Protocol):
    """What an algorithm is: from a convolution, for elements of so many bytes, a plan for each result."""

    def __call__(self, applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
        """See the class."""


ALGORITHMS: dict[str, Planner] = {"direct": direct, "gemm": gemm, "depthwise": depthwise}
KINDS: dict[int, type[Conv]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}


@dataclass(frozen=True)
class Kind:
    """A kind of plan with theorems of its own: algorithm, spatial axes, with or without bias.

    ``pointwise`` says that kernels have one cell and nothing is padded, for which gemm has another plan; ``groups``
    that channels are cut into groups.
    """

    algorithm: str
    axes: int
    bias: bool = True
    pointwise: bool = False
    groups: bool = False

    @property
    def applied(self) -> Applied:
        """The layer with a symbol for every size, on an input of such sizes."""
        kind = KINDS[self.axes]
        like = kind(4, 4, 1, groups=4 if self.algorithm == "depthwise" else 2) if self.groups else None
        layer, shape = symbolic(kind, like=like)
        if self.pointwise:
            layer = replace(layer, kernel_size=1, padding=0)
        return replace(layer, bias=self.bias).on(tensor("X", *shape), "Y")

    @property
    def file(self) -> str:
        """The committed file that holds its theorems."""
        return f"{'groups' if self.groups else 'conv'}{self.axes}d"

    def key(self, result: str) -> str:
        """What the theorem about one result is called in the committed file."""
        limits = ("" if self.bias else ", without bias") + (", pointwise" if self.pointwise else "")
        return f"{self.algorithm} {result}{limits}"


def kinds(axes: int, *, groups: bool = False) -> Iterator[Kind]:
    """Every kind of plan for a number of spatial axes, of convolutions without groups or of grouped ones."""
    if groups:
        for bias in (True, False):
            yield Kind("depthwise", axes, bias, groups=True)
            yield Kind("direct", axes, bias, groups=True)
        return
    for bias in (True, False):
        yield Kind("direct", axes, bias)
        yield Kind("gemm", axes, bias)
        yield Kind("gemm", axes, bias, pointwise=True)


def kind_of(applied: Applied, algorithm: str) -> Kind:
    """The kind of plan that an algorithm has for a convolution."""
    pointwise = algorithm == "gemm" and is_pointwise(applied)
    groups = isinstance(applied.layer, Conv) and applied.layer.is_grouped
    return Kind(algorithm, len(applied.windows), "bias" in applied.parameters, pointwise, groups)


def claims(kind: Kind) -> dict[str, Claim]:
    """What is claimed of a kind of plan, by result.

    >>> forward = claims(Kind("gemm", 1))["forward"]
    >>> forward.lhs, forward.rhs
    (Z[$0,$1,$2], Y[$2,$0,$1])
    >>> forward.prove().facts == forward.facts
    True
    """
    applied = kind.applied
    return claims_of(applied, ALGORITHMS[kind.algorithm](applied))


def prove(axes: int, *, groups: bool = False) -> dict[str, Theorem]:
    """Every theorem about plans for a number of spatial axes, as ``kinds``."""
    every = kinds(axes, groups=groups)
    return {kind.key(name): claim.prove() for kind in every for name, claim in claims(kind).items()}


def proof_digests(applied: Applied, algorithm: str, plans: Mapping[str, Plan]) -> dict[str, str]:
    """The digests of the committed theorems that these plans are instances of, by result; empty unless all are.

    Facts and stages are compared by plain arithmetic; nothing is proved here.
    """
    kind = kind_of(applied, algorithm)
    file = committed(kind.file)
    if file is None:
        return {}
    general = kind.applied
    every, sizes = ALGORITHMS[algorithm](general), _sizes(general, applied)
    found = {}
    for name, claim in claims_of(general, every).items():
        same = not instance(plans[name], every[name], claim.facts, sizes)
        if same and file.proves(kind.key(name), claim.statement):
            found[name] = str(file.outputs[kind.key(name)]["digest"])
    return found if len(found) == len(plans) else {}


def _sizes(general: Applied, applied: Applied) -> dict[str, int]:
    """The numbers that the symbols of a kind's layer stand for in a convolution of that kind."""
    pairs = list(zip(general.y.box[1:], applied.y.box[1:], strict=True))
    for ours, theirs in ((general.x, applied.x), (general.parameters["weight"], applied.parameters["weight"])):
        pairs += zip(ours.box[1:], theirs.box[1:], strict=True)
    sizes = [(mine, number(other)) for (_, mine), (_, other) in pairs]
    for w, v in zip(general.windows, applied.windows, strict=True):
        sizes += [(w.stride, number(v.stride)), (w.dilation, number(v.dilation)), (w.before, number(v.before))]
    sizes += [(mine, number(other)) for mine, other in zip(_groups(general), _groups(applied), strict=True)]
    return {mine.text: value for mine, value in sizes if mine.constant is None}


def _groups(applied: Applied) -> tuple[Index, ...]:
    """How many groups there are and how many outputs each has, for a grouped convolution."""
    layer = applied.layer
    return (index(layer.groups), layer.group_sizes()[1]) if isinstance(layer, Conv) and layer.is_grouped else ()


def claims_of(applied: Applied, plans: Mapping[str, Plan]) -> dict[str, Claim]:
    """What these plans, right or wrong, claim to be of a convolution."""
    target = {"input_gradient": applied.x}
    target |= {f"{key}_gradient": t for key, t in applied.parameters.items()}
    return {name: _claim(name, plan, applied, target.get(name)) for name, plan in plans.items()}


def _claim(name: str, plan: Plan, applied: Applied, target: Tensor | None) -> Claim:
    stage = plan.by_name[plan.outputs[name]]
    rank, images = stage.tensor.rank, applied.x.box[0]
    at = variables(0, rank)
    batched = name in ("forward", "input_gradient") and stage.tensor.box[0] != images
    there = (at[-1], *at[:-1]) if batched else at
    rhs = term(rank, applied.y[there]) if target is None else _derivative(applied, target, there)
    return Claim(
        f"{plan.algorithm} {len(applied.windows)}d {name}",
        term(rank, stage.tensor[at]), rhs, applied.facts, stage.tensor.box, plan.stages, (applied.y.name,),
    )  # fmt: skip


def _derivative(applied: Applied, target: Tensor, at: tuple[Index, ...]) -> Expr:
    """``d(Sum G Y) / d target[at]``."""
    product = kernel.vector_jacobian(cotangent_of(applied), applied.y, target)
    return instantiate(product, at, len(at))
