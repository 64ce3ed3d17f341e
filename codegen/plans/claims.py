"""What the plans of a single convolution claim: each of their results is what the layer says, for all sizes.

The plans are those that are printed, built by the same functions with a symbol for every size: batch, channels, and on
each axis input, kernel, stride, padding, dilation and output of its own.

    forward           Z[n,j,b] = Y[b,n,j]                        for the output Y of the layer
    input gradient    dIn[c,h,b] = d(Sum G Y) / dX[b,c,h]        for a free cotangent G of the shape of Y
    weight gradient   dW[n,c,a] = d(Sum G Y) / dW[n,c,a]
    bias gradient     du[n] = d(Sum G Y) / du[n]

A stage may have the batch innermost where the layer has it outermost; then the left sides are read at other places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol

from codegen.architecture import instance
from codegen.claims import Claim
from codegen.committed import committed
from codegen.plan import Plan, is_batch, number
from codegen.plans import toeplitz, winograd
from codegen.plans.convolution import cotangent_of
from codegen.plans.depthwise import depthwise
from codegen.plans.direct import direct
from codegen.plans.gemm import gemm, is_pointwise
from codegen.plans.im2col import im2col, phases
from codegen.plans.nested import nested, scheme
from codegen.plans.tiled_claims import TiledClaim
from derive import kernel
from derive.indices import Index, Interval, variables
from derive.kernel import Theorem
from derive.layers import Applied, Conv, Conv1d, Conv2d, Conv3d, symbolic
from derive.terms import Expr, Tensor, instantiate, tensor, term

Limits = tuple[tuple[str, int], ...]


class Planner(Protocol):
    """What an algorithm is: from a convolution, for elements of so many bytes, a plan for each result."""

    def __call__(self, applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
        """See the class."""


@dataclass(frozen=True)
class Algorithm:
    """A planner, the side of its tiles of outputs (1: none), and which convolutions it is for."""

    plan: Planner
    tile: int = 1
    toom_cook: bool = False
    nested: bool = False
    depthwise: bool = False


ALGORITHMS: dict[str, Algorithm] = {
    "direct": Algorithm(direct),
    "gemm": Algorithm(gemm),
    "im2col": Algorithm(im2col),
    "phases": Algorithm(phases),
    "toeplitz2": Algorithm(toeplitz.planner(2), 2),
    "winograd2": Algorithm(winograd.planner(2), 2, toom_cook=True),
    "winograd4": Algorithm(winograd.planner(4), 4, toom_cook=True),
    "nested": Algorithm(nested, 3, nested=True),
    "depthwise": Algorithm(depthwise, depthwise=True),
}
# Where costs are equal, the plainer algorithm first.
RANKED = ("direct", "gemm", "im2col", "depthwise", "phases", "toeplitz2", "nested", "winograd2", "winograd4")
KINDS: dict[int, type[Conv]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
POINTWISE = (("kernel_size", 1), ("padding", 0))
UNIT_STEPS = (("stride", 1), ("dilation", 1))
WINOGRAD = (("winograd2", 3), ("winograd2", 5), ("winograd4", 3))


def with_kernel(side: int) -> Limits:
    """The limits of Toom-Cook: a kernel of this side, stride and dilation 1."""
    return (("kernel_size", side), *UNIT_STEPS)


@dataclass(frozen=True)
class Kind:
    """A kind of plan with theorems of its own: algorithm, spatial axes, with or without bias, and what is no symbol.

    ``limits`` are arguments of the layer that have numbers: kernels of one cell without padding, for which gemm has
    another plan, or the kernel that a scheme of Toom-Cook is made for.
    """

    algorithm: str
    axes: int
    bias: bool = True
    limits: Limits = ()

    @property
    def applied(self) -> Applied:
        """The layer with a symbol for every other size, on an input of such sizes."""
        kind = KINDS[self.axes]
        layer, shape = symbolic(kind, like=kind(2, 2, 1, groups=2) if self.algorithm == "depthwise" else None)
        layer = replace(layer, bias=self.bias, **dict(self.limits))
        return layer.on(tensor("X", *shape), "Y")

    @property
    def plans(self) -> dict[str, Plan]:
        """The plans of that layer."""
        return ALGORITHMS[self.algorithm].plan(self.applied)

    @property
    def file(self) -> str:
        """The committed file that holds its theorems."""
        return f"{'depthwise' if self.algorithm == 'depthwise' else 'conv'}{self.axes}d"

    def key(self, result: str) -> str:
        """What the theorem about one result is called in the committed file."""
        side = dict(self.limits).get("kernel_size")
        kernel = "" if side is None else f", kernel {side}"
        limits = ("" if self.bias else ", without bias") + (", pointwise" if self.limits == POINTWISE else kernel)
        return f"{self.algorithm} {result}{limits}"


def kinds(axes: int, *, groups: bool = False) -> Iterator[Kind]:
    """Every kind of plan whose theorems are committed, of convolutions without groups or of depthwise ones."""
    if groups:
        yield from (Kind("depthwise", axes, bias) for bias in (True, False))
        return
    for bias in (True, False):
        yield from (
            Kind(name, axes, bias) for name, a in ALGORITHMS.items() if not (a.toom_cook or a.depthwise or a.nested)
        )
        yield Kind("gemm", axes, bias, POINTWISE)
        if axes == 1:
            yield Kind("nested", axes, bias, UNIT_STEPS)
        if axes < 3:
            yield from (Kind(name, axes, bias, with_kernel(side)) for name, side in WINOGRAD)


def kind_of(applied: Applied, algorithm: str) -> Kind | None:
    """The kind of plan that an algorithm has for a convolution; None where it has none for it."""
    axes, bias = len(applied.windows), "bias" in applied.parameters
    layer = applied.layer
    if isinstance(layer, Conv) and layer.is_grouped and not (layer.is_depthwise and ALGORITHMS[algorithm].depthwise):
        return None
    if ALGORITHMS[algorithm].depthwise:
        return Kind(algorithm, axes, bias) if isinstance(layer, Conv) and layer.is_depthwise else None
    if ALGORITHMS[algorithm].nested:
        only = [(w.stride.constant, w.dilation.constant) for w in applied.windows]
        return Kind(algorithm, axes, bias, UNIT_STEPS) if only == [(1, 1)] else None
    if ALGORITHMS[algorithm].toom_cook:
        sides = {(w.kernel.constant, w.stride.constant, w.dilation.constant) for w in applied.windows}
        ((side, *steps), *others) = sides
        if axes == 3 or others or steps != [1, 1] or side is None or side < 2:
            return None
        return Kind(algorithm, axes, bias, with_kernel(side))
    return Kind(algorithm, axes, bias, POINTWISE if algorithm == "gemm" and is_pointwise(applied) else ())


def committed_kind(kind: Kind) -> bool:
    """Whether theorems about this kind of plan are committed."""
    sides = [side for name, side in WINOGRAD if name == kind.algorithm]
    return not ALGORITHMS[kind.algorithm].toom_cook or any(kind.limits == with_kernel(side) for side in sides)


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
    every = kinds(axes, groups=groups)
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
    sizes = _sizes(general, applied)
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


def _sizes(general: Applied, applied: Applied) -> dict[str, int]:
    """The numbers that the symbols of a kind's layer stand for in a convolution of that kind."""
    pairs = list(zip(general.y.box[1:], applied.y.box[1:], strict=True))
    for ours, theirs in ((general.x, applied.x), (general.parameters["weight"], applied.parameters["weight"])):
        pairs += zip(ours.box[1:], theirs.box[1:], strict=True)
    sizes = [(mine, number(other)) for (_, mine), (_, other) in pairs]
    for w, v in zip(general.windows, applied.windows, strict=True):
        sizes += [(w.stride, number(v.stride)), (w.dilation, number(v.dilation)), (w.before, number(v.before))]
    return {mine.text: value for mine, value in sizes if mine.constant is None}


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
    algorithm = ALGORITHMS.get(plan.algorithm, Algorithm(direct))
    if algorithm.tile == 1:
        return Claim(title, *sides)
    outputs = tuple(applied.y.box[2:])
    if algorithm.nested:
        turned = name == "input_gradient"
        return TiledClaim(title, *sides, algorithm.tile, outputs, (scheme(),), turned=turned, pieces=_kernel(applied))
    if not algorithm.toom_cook:
        return TiledClaim(title, *sides, algorithm.tile, outputs)
    schemes = winograd.Tiling.of(applied, algorithm.tile).schemes
    return TiledClaim(title, *sides, algorithm.tile, outputs, schemes, turned=name == "input_gradient")


def _kernel(applied: Applied) -> tuple[Interval, ...]:
    """The spatial axes of the kernel."""
    return tuple(applied.parameters["weight"].box[2:])


def _derivative(applied: Applied, target: Tensor, at: tuple[Index, ...]) -> Expr:
    """``d(Sum G Y) / d target[at]``."""
    product = kernel.vector_jacobian(cotangent_of(applied), applied.y, target)
    return instantiate(product, at, len(at))
