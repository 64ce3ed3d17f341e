"""What the plans of a single convolution claim: each of their results is what the layer says, for all sizes.

The plans are those that are printed, built by the same functions with a symbol for every size: batch, channels, groups,
and on each axis input, kernel, stride, padding, dilation and output of its own.

    forward           Z[b,n,j] = Y[b,n,j]                        for the output Y of the layer
    input gradient    dX[b,c,h] = d(Sum G Y) / dX[b,c,h]         for a free cotangent G of the shape of Y
    weight gradient   dW[n,c,a] = d(Sum G Y) / dW[n,c,a]
    bias gradient     du[n] = d(Sum G Y) / du[n]

A stage may have the batch innermost where the layer has it outermost; then the left sides are read at other places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from codegen.architecture import instance
from codegen.claims import Claim, GatheredClaim
from codegen.committed import committed
from codegen.plan import Plan, PlanError, is_batch, number
from codegen.plans import nested, winograd
from codegen.plans.algorithms import ALGORITHMS, Kind, kind_of, kinds, residue_kinds
from codegen.plans.convolution import cotangent_of, is_grouped
from codegen.plans.grouped_claims import GroupedClaim
from codegen.plans.phased_claims import PhasedClaim
from codegen.plans.residue_claims import ResidueClaim
from codegen.plans.shifted_claims import ShiftedClaim
from codegen.plans.tiled_claims import TiledClaim
from derive import kernel
from derive.indices import Index, index, variables
from derive.kernel import Theorem
from derive.layers import Applied, AvgPool, Conv
from derive.terms import Expr, Tensor, instantiate, term


def claims(kind: Kind) -> dict[str, Claim]:
    """What is claimed of a kind of plan, by result.

    >>> forward = claims(Kind("gemm", 1))["forward"]
    >>> forward.lhs, forward.rhs
    (Z[$0,$1,$2], Y[$2,$0,$1])
    >>> forward.prove().facts == forward.facts
    True
    """
    return claims_of(kind.applied, kind.plans)


def prove(axes: int, *, groups: bool = False) -> dict[str, Theorem]:
    """Every theorem about plans for a number of spatial axes, as ``kinds``."""
    return _proved(kinds(axes, groups=groups))


def prove_residues(axes: int) -> dict[str, Theorem]:
    """The same of input gradients by residues, as ``residue_kinds``."""
    return _proved(residue_kinds(axes))


def _proved(every: Iterable[Kind]) -> dict[str, Theorem]:
    return {kind.key(name): claim.prove() for kind in every for name, claim in claims(kind).items()}


def proof_digests(applied: Applied, algorithm: str, plans: Mapping[str, Plan]) -> dict[str, str]:
    """The digests of the committed theorems that these plans of an algorithm are instances of, by result.

    Facts and stages are compared by plain arithmetic; nothing is proved here.
    """
    kind = kind_of(applied, algorithm)
    file = None if kind is None else committed(kind.file)
    if kind is None or file is None:
        return {}
    general, every, known = _general(kind)
    sizes = sizes_of(general, applied)
    found = {}
    for name, plan in plans.items():
        same = not instance(plan, every[name], known[name].facts, sizes)
        if same and file.proves(kind.key(name), known[name].statement):
            found[name] = str(file.outputs[kind.key(name)]["digest"])
    return found


@lru_cache(maxsize=64)
def _general(kind: Kind) -> tuple[Applied, Mapping[str, Plan], Mapping[str, Claim]]:
    """A kind's layer, plans and claims: the same for every shape."""
    applied, plans = kind.applied, kind.plans
    return applied, plans, claims_of(applied, plans)


def sizes_of(general: Applied, applied: Applied) -> dict[str, int]:
    """The numbers that the symbols of a kind's layer stand for in a convolution of that kind."""
    pairs = list(zip(general.y.box[1:], applied.y.box[1:], strict=True))
    for ours, theirs in ((general.x, applied.x), (general.parameters["weight"], applied.parameters["weight"])):
        pairs += zip(ours.box[1:], theirs.box[1:], strict=True)
    sizes = [(mine, number(other)) for (_, mine), (_, other) in pairs]
    for w, v in zip(general.windows, applied.windows, strict=True):
        sizes += [(w.stride, number(v.stride)), (w.dilation, number(v.dilation)), (w.before, number(v.before))]
    sizes += [(mine, number(other)) for mine, other in zip(_groups(general), _groups(applied), strict=True)]
    return {mine.text: value for mine, value in sizes if mine.constant is None}


def _group_sizes(applied: Applied) -> tuple[Index, Index]:
    """How many inputs and outputs a group has."""
    layer = applied.layer
    if not isinstance(layer, Conv):
        raise PlanError(f"{layer}: only a convolution has groups")
    return layer.group_sizes()


def _is_depthwise(applied: Applied) -> bool:
    return isinstance(applied.layer, Conv) and applied.layer.is_depthwise


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
    rank = stage.tensor.rank
    at = variables(0, rank)
    turned = name in ("forward", "input_gradient") and not is_batch(stage.tensor.box[0])
    there = (at[-1], *at[:-1]) if turned else at
    rhs = term(rank, applied.y[there]) if target is None else _derivative(applied, target, there)
    title = f"{plan.algorithm} {len(applied.windows)}d {name}"
    sides = term(rank, stage.tensor[at]), rhs, applied.facts, stage.tensor.box, plan.stages, (applied.y.name,)
    tile = ALGORITHMS[plan.algorithm].tile if plan.algorithm in ALGORITHMS else 1
    outputs = applied.y.box[2:]
    backward = name == "input_gradient"
    if backward and plan.algorithm == "im2col" and is_grouped(applied):
        return GroupedClaim(title, *sides, *_group_sizes(applied))
    match plan.algorithm:
        case "phases" if backward:
            return PhasedClaim(title, *sides, applied.windows)
        case "definition" if backward and isinstance(applied.layer, AvgPool):
            return ResidueClaim(title, *sides, index(1), index(1), applied.windows, shared=False)
        case "residues" | "residue_products":
            shared = is_grouped(applied) and not _is_depthwise(applied)
            return ResidueClaim(title, *sides, *_group_sizes(applied), applied.windows, shared)
        case "definition" if backward:
            return GatheredClaim(title, *sides)
        case "shift" if backward:
            return ShiftedClaim(title, *sides, applied.windows[0])
        case _ if tile == 1:
            return Claim(title, *sides)
        case "nested":
            pieces = applied.parameters["weight"].box[2:]
            return TiledClaim(title, *sides, tile, outputs, (nested.scheme(),), turned=backward, pieces=pieces)
        case "winograd2" | "winograd4":
            schemes = winograd.Tiling.of(applied, tile).schemes
            return TiledClaim(title, *sides, tile, outputs, schemes, turned=backward)
    return TiledClaim(title, *sides, tile, outputs)


def _derivative(applied: Applied, target: Tensor, at: tuple[Index, ...]) -> Expr:
    """``d(Sum G Y) / d target[at]``."""
    product = kernel.vector_jacobian(cotangent_of(applied), applied.y, target)
    return instantiate(product, at, len(at))
