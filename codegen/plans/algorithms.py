"""The algorithms for a convolution by itself: what each is called, how it plans, and which convolutions it is for.

    direct      shift, multiply by one number of the kernel, add; any groups
    gemm        windows laid out (im2col), batch innermost, one product for a block of images
    im2col      one product an image and group, formed in the result; phases: the same, the input split by the stride
    shift       one product for each row of the kernel, on shifted views: windows are copied on the other axes only
    nhwc        windows laid out with the channels innermost, one product for a block of images
    toeplitz2   tiles of two outputs an axis, batch innermost
    winograd2, winograd4   Toom-Cook on tiles of two and four outputs an axis, on one and two axes
    nested      long kernels on one axis in pieces of three cells, each by Toom-Cook
    depthwise   one kernel a channel, by one contraction

of which those with channels innermost form large images in bands of rows (``codegen.plans.bands``), and for CUDA text

    definition  a result a stage, windows formed on the way; what it takes for an input gradient with strides or groups:
    residues    the sum over the kernel cells of one residue; residue_products: the same for all residues at once

A *kind* of plan has theorems of its own: they hold for all sizes but for its *limits*, the arguments of the layer that
have to be numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from codegen.plan import Plan
from codegen.plans import toeplitz, winograd
from codegen.plans.definition import definition
from codegen.plans.depthwise import depthwise
from codegen.plans.direct import direct
from codegen.plans.gemm import gemm, is_pointwise
from codegen.plans.im2col import im2col
from codegen.plans.nested import nested
from codegen.plans.nhwc import nhwc
from codegen.plans.phases import phases
from codegen.plans.residues import residue_products, residues
from codegen.plans.shift import shift
from derive.layers import Applied, Conv, Conv1d, Conv2d, Conv3d, symbolic
from derive.terms import tensor

Limits = tuple[tuple[str, int], ...]
KINDS: dict[int, type[Conv]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
POINTWISE: Limits = (("kernel_size", 1), ("padding", 0))
NO_DILATION: Limits = (("dilation", 1),)
UNIT_STRIDE: Limits = (("stride", 1),)
UNIT_STEPS: Limits = (("stride", 1), ("dilation", 1))
LONGEST = 11  # cells of a kernel, so that points are chosen for tiles of four outputs too
SIDES = {"winograd2": (3, 5), "winograd4": (3,)}  # kernels for which theorems are committed


class Planner(Protocol):
    """From a convolution, for elements of so many bytes, a plan for each result."""

    def __call__(self, applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
        """See the class."""


@dataclass(frozen=True)
class Algorithm:
    """A planner, the side of its tiles of outputs (1: none), and the limits within which it plans a convolution.

    ``limits`` gives None for a convolution without groups that the algorithm has no plan for; ``groups`` says whether
    it has one for a convolution with groups, ``group_limits`` within which limits.
    """

    plan: Planner
    tile: int = 1
    limits: Callable[[Applied], Limits | None] = lambda _: ()
    groups: Callable[[Conv], bool] = lambda _: False
    group_limits: Callable[[Applied], Limits | None] = lambda _: ()


def _pointwise(applied: Applied) -> Limits:
    return POINTWISE if is_pointwise(applied) else ()


def _one_side(applied: Applied) -> Limits | None:
    """Kernels with one side on all axes, of which there are at most two, not too long, and unit steps."""
    sides = {(w.kernel.constant, w.stride.constant, w.dilation.constant) for w in applied.windows}
    ((side, *steps), *others) = sides
    if len(applied.windows) > 2 or others or steps != [1, 1] or side is None or not 2 <= side <= LONGEST:
        return None
    return with_kernel(side)


def _unstrided(applied: Applied) -> Limits | None:
    return UNIT_STRIDE if all(w.stride.constant == 1 for w in applied.windows) else None


def _one_step(applied: Applied) -> Limits | None:
    """No dilation, or else no strides."""
    if all(w.dilation.constant == 1 for w in applied.windows):
        return NO_DILATION
    return _unstrided(applied)


def _one_axis(applied: Applied) -> Limits | None:
    steps = [(w.stride.constant, w.dilation.constant) for w in applied.windows]
    return UNIT_STEPS if steps == [(1, 1)] else None


def with_kernel(side: int) -> Limits:
    """The limits of Toom-Cook: a kernel of this side, stride and dilation 1."""
    return (("kernel_size", side), *UNIT_STEPS)


ALGORITHMS: dict[str, Algorithm] = {
    "direct": Algorithm(direct, groups=lambda _: True),
    "gemm": Algorithm(gemm, limits=_pointwise),
    "im2col": Algorithm(im2col, groups=lambda _: True),
    "phases": Algorithm(phases),
    "shift": Algorithm(shift, limits=_unstrided),
    "nhwc": Algorithm(nhwc),
    "toeplitz2": Algorithm(toeplitz.planner(2), 2),
    "winograd2": Algorithm(winograd.planner(2), 2, _one_side),
    "winograd4": Algorithm(winograd.planner(4), 4, _one_side),
    "nested": Algorithm(nested, 3, _one_axis),
    "depthwise": Algorithm(depthwise, limits=lambda _: None, groups=lambda layer: layer.is_depthwise),
}


CUDA: dict[str, Algorithm] = {
    "definition": Algorithm(definition, groups=lambda _: True),
    "residues": Algorithm(residues, 1, _one_step, lambda _: True, _one_step),
    "residue_products": Algorithm(residue_products, 1, _one_step, lambda layer: not layer.is_depthwise, _one_step),
}
"""Those whose stages CUDA templates print; all others are printed as NumPy."""

RESIDUES = ("residues", "residue_products")
EVERY = {**ALGORITHMS, **CUDA}


@dataclass(frozen=True)
class Kind:
    """A kind of plan: algorithm, number of spatial axes, with or without bias, limits, with groups or without.

    ``depthwise``: of groups with one channel each, whose definition has a form of its own.
    """

    algorithm: str
    axes: int
    bias: bool = True
    limits: Limits = ()
    groups: bool = False
    depthwise: bool = False

    @property
    def applied(self) -> Applied:
        """The layer with a symbol for every size that is not limited, on an input of such sizes."""
        kind = KINDS[self.axes]
        like = kind(4, 4, 1, groups=4 if self.depthwise else 2) if self.groups else None
        layer, shape = symbolic(kind, like=like)
        return replace(layer, bias=self.bias, **dict(self.limits)).on(tensor("X", *shape), "Y")

    @property
    def plans(self) -> dict[str, Plan]:
        """The plans of that layer."""
        return EVERY[self.algorithm].plan(self.applied)

    @property
    def file(self) -> str:
        """The committed file that holds its theorems."""
        if self.algorithm in RESIDUES:
            return f"residues{self.axes}d"
        return f"{'groups' if self.groups else 'conv'}{self.axes}d"

    @property
    def committed(self) -> bool:
        """Whether theorems about it are committed."""
        sides = SIDES.get(self.algorithm)
        return sides is None or any(self.limits == with_kernel(side) for side in sides)

    def key(self, result: str) -> str:
        """What the theorem about one result is called in the committed file."""
        side = dict(self.limits).get("kernel_size")
        channels = ", depthwise" if self.depthwise and self.algorithm in CUDA else ""
        if self.algorithm in RESIDUES and self.groups:
            channels = (channels or ", groups") + (", stride 1" if self.limits == UNIT_STRIDE else "")
        limited = ", pointwise" if self.limits == POINTWISE else "" if side is None else f", kernel {side}"
        return f"{self.algorithm} {result}{'' if self.bias else ', without bias'}{limited}{channels}"


def kind_of(applied: Applied, algorithm: str) -> Kind | None:
    """The kind of plan that an algorithm has for a convolution; None where it has none."""
    own, layer = EVERY[algorithm], applied.layer
    axes, bias = len(applied.windows), "bias" in applied.parameters
    if isinstance(layer, Conv) and layer.is_grouped:
        depthwise = layer.is_depthwise and (algorithm in CUDA or algorithm == "depthwise")
        limits = own.group_limits(applied) if own.groups(layer) else None
        return None if limits is None else Kind(algorithm, axes, bias, limits, groups=True, depthwise=depthwise)
    limits = own.limits(applied)
    return None if limits is None else Kind(algorithm, axes, bias, limits)


def kinds(axes: int, *, groups: bool = False) -> Iterator[Kind]:
    """Every kind whose theorems are committed, for a number of axes, of convolutions without groups or with."""
    for bias in (True, False):
        if groups:
            yield Kind("depthwise", axes, bias, groups=True, depthwise=True)
            yield Kind("direct", axes, bias, groups=True)
            yield from (Kind("definition", axes, bias, groups=True, depthwise=own) for own in (False, True))
            yield Kind("im2col", axes, bias, groups=True)
            continue
        for name in ("direct", "gemm", "im2col", "nhwc", "phases", "toeplitz2"):
            yield Kind(name, axes, bias)
        yield Kind("gemm", axes, bias, POINTWISE)
        yield Kind("definition", axes, bias)
        yield Kind("shift", axes, bias, UNIT_STRIDE)
        if axes == 1:
            yield Kind("nested", axes, bias, UNIT_STEPS)
        if axes < 3:
            yield from (Kind(name, axes, bias, with_kernel(side)) for name, sides in SIDES.items() for side in sides)


def residue_kinds(axes: int) -> Iterator[Kind]:
    """The same of input gradients by residues, which have a file of their own: without groups and with them."""
    for bias in (True, False):
        yield from (Kind(name, axes, bias, NO_DILATION) for name in RESIDUES)
        for limits in (NO_DILATION, UNIT_STRIDE):
            yield from (Kind(name, axes, bias, limits, groups=True) for name in RESIDUES)
            yield Kind("residues", axes, bias, limits, groups=True, depthwise=True)
