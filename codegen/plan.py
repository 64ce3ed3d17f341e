"""A plan: the stages by which a machine computes a layer, with the layout and the role of every axis.

A *stage* defines a tensor by an expression in tensors that come before it (``derive.terms.define``); that a plan
computes its layer is then one equation, which ``codegen.proofs`` proves for all sizes by unfolding the stages.  The
axes of a stage's tensor are in memory order, outermost first.  What a stage says beyond its tensor changes the machine
and never the meaning:

- ``template``: which template prints it; ``loops``: the variables that become Python loops, the others are vectors;
- ``margin``: zeros stored around its box, written once when the buffer is made;
- ``into``: the stage whose buffer it takes over, element by element, once nothing reads that stage any more;
- an output whose first axis is the batch lies where the result of a call lies: no copy brings it there.

A ``Matrix`` lays several stages side by side in one buffer, along rows or columns, so that ``[W|u] [Col; 1]`` is one
GEMM.  ``Plan.check`` holds all this to account: definitions before uses, no buffer read after another stage took
it over.  In a plan that is printed all sizes are numbers, but for the batch size, which stays free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Literal

from derive.indices import Index, IndexLike, Interval, index, symbol, var
from derive.terms import Apply, Derivative, Expr, Factor, Maximum, Read, Tensor

BATCH = symbol("N")
ADJACENT = 4  # cells of a product that one thread of a GPU has side by side
NumpyTemplate = Literal[
    "strided", "windows", "scatter", "overlaps", "matmul", "grouped", "shifted", "contract", "dot", "pointwise",
    "reduce", "constant", "share", "view", "alias",
]  # fmt: skip
CudaTemplate = Literal["cells", "flat", "product", "epilogue", "column", "local", "pooled", "spread", "reduce", "alias"]
Template = NumpyTemplate | CudaTemplate
SCATTERED: tuple[Template, ...] = ("scatter", "overlaps")
VIEWS: tuple[Template, ...] = ("strided", *SCATTERED, "pointwise")  # these write to an array with any strides
MADE_ONCE: tuple[Template, ...] = ("scatter", "constant", "share")
Phase = Literal["prologue", "block", "accumulate", "epilogue"]


class PlanError(ValueError):
    """A plan that breaks one of the rules of layout, or that no template can print; the text names the stage."""


@dataclass(frozen=True)
class Stage:
    """One step of a plan; see the head of this file.  ``letters`` name its variables: axes first, then bound ones."""

    tensor: Tensor
    template: Template
    letters: str = ""
    loops: tuple[str, ...] = ()
    margin: tuple[tuple[Index, Index], ...] = ()
    into: str = ""

    def __post_init__(self) -> None:
        if self.tensor.body is None:
            raise PlanError(f"{self.tensor.name}: a stage is a defined tensor")
        if not self.margin:
            object.__setattr__(self, "margin", ((index(0), index(0)),) * self.tensor.rank)

    @property
    def name(self) -> str:
        """The name of its tensor."""
        return self.tensor.name

    @property
    def body(self) -> Expr:
        """The expression that defines its tensor."""
        if self.tensor.body is None:
            raise PlanError(f"{self.name}: a stage is a defined tensor")
        return self.tensor.body

    @cached_property
    def names(self) -> tuple[str, ...]:
        """A letter for each variable, by position."""
        given = self.letters.split()
        most = self.tensor.rank + max((len(m.binders) for m in self.body.monomials), default=0) + 8
        return tuple(given + [f"v{k}" for k in range(len(given), most)])

    @property
    def dims(self) -> tuple[int | None, ...]:
        """The stored sizes, margins included; None is the batch."""
        return tuple(self.stored(axis) for axis in range(self.tensor.rank))

    def stored(self, axis: int) -> int | None:
        """The stored size of one axis, margins included."""
        size = extent(self.tensor.box[axis])
        return None if size is None else size + sum(number(e) for e in self.margin[axis])

    @property
    def accumulates(self) -> bool:
        """Whether it meets cells more than once and adds; its margin takes up what lies outside the box."""
        if self.template not in SCATTERED:
            return False
        rank = self.tensor.rank
        bound = [b for m in self.body.monomials for k, b in enumerate(m.binders) if self.names[rank + k] in self.loops]
        return any((hi - lo).constant != 1 for lo, hi in bound)

    @property
    def has_margin(self) -> bool:
        """Whether zeros are stored around the box."""
        return any(number(e) for pair in self.margin for e in pair)


@dataclass(frozen=True)
class Matrix:
    """Stages side by side in one buffer of two axes: of each, the first ``rows[k]`` axes make up the rows."""

    name: str
    parts: tuple[str, ...]
    rows: tuple[int, ...]
    stacked: Literal["rows", "columns"]


@dataclass(frozen=True)
class Plan:
    """Inputs, stages in order, and what is asked of them; ``outputs`` maps public names to stages.

    ``parameters`` maps public names of parameters to inputs; ``block`` is how many images are worked on at a time.
    ``labels`` are the inputs that hold a single 1 in each row, and may be given as its place.  ``legend`` says in words
    what tensors are, for whoever reads the text: names and what they mean.
    """

    algorithm: str
    inputs: tuple[Tensor, ...]
    stages: tuple[Stage, ...]
    outputs: Mapping[str, str]
    matrices: tuple[Matrix, ...] = ()
    parameters: Mapping[str, str] = field(default_factory=dict)
    block: int = 64
    labels: tuple[str, ...] = ()
    legend: tuple[tuple[tuple[str, ...], str], ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Stage]:
        """The stages by name."""
        return {s.name: s for s in self.stages}

    @cached_property
    def part_of(self) -> dict[str, Matrix]:
        """The matrix each stage lies in, for those that lie in one."""
        return {part: m for m in self.matrices for part in m.parts}

    @cached_property
    def phases(self) -> dict[str, Phase]:
        """When each stage runs: before the blocks of the batch, in each, summed over them, or after them."""
        phases: dict[str, Phase] = {}
        batched = {t.name for t in self.inputs if any(map(is_batch, t.box))}
        for s in self.stages:
            reads = {t.name for t in s.body.tensors}
            before = {phases[name] for name in reads if name in phases}
            if any(map(is_batch, s.tensor.box)):
                phases[s.name] = "block"
            elif "block" in before or reads & batched:
                phases[s.name] = "accumulate"
            elif before & {"accumulate", "epilogue"}:
                phases[s.name] = "epilogue"
            else:
                phases[s.name] = "prologue"
        return phases

    @cached_property
    def placed(self) -> frozenset[str]:
        """The stages that lie where a result of a call lies: outputs with the batch first, and what they take over."""
        outputs = [self.by_name[name] for name in self.outputs.values()]
        owners = {self.owner(s.name) for s in outputs if self.phases[s.name] == "block" and is_batch(s.tensor.box[0])}
        return frozenset(s.name for s in self.stages if self.owner(s.name) in owners)

    @cached_property
    def follows(self) -> bool:
        """Whether the result of a call is best laid channels last where its first argument is.

        It is written through views alone, since a product is formed only where axes can be merged, and from an array
        whose innermost axis is that of the channels.
        """
        if len(self.outputs) != 1 or not all(self.by_name[name].template in VIEWS for name in self.placed):
            return False
        (stage,) = (self.by_name[name] for name in self.outputs.values())
        full = [r for m in stage.body.monomials for r in m.factors if isinstance(r, Read) and r.tensor.rank > 2]
        return stage.name in self.placed and any(read.at[-1] == var(1) for read in full)

    @cached_property
    def arrays(self) -> dict[str, str]:
        """How each stage is reached in a text: in a block ``v``, in the workspace ``w``, or as a part of the result."""
        where = {"block": "v"}
        return {
            s.name: self.owner(s.name) if s.name in self.placed else f"{where.get(self.phases[s.name], 'w')}.{s.name}"
            for s in self.stages
        }

    def needed(self, *names: str) -> set[str]:
        """The stages that these depend on, themselves included."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name in self.by_name and name not in found:
                found.add(name)
                waiting.extend(t.name for t in self.by_name[name].body.tensors)
        return found

    @cached_property
    def conversions(self) -> tuple[Stage, ...]:
        """The changes of layout: copies of an array from outside in another order of its axes."""
        given = {t.name for t in self.inputs}
        return tuple(s for s in self.stages if (read := _copied(s)) and read.tensor.name in given and _turns(s, read))

    @cached_property
    def numbers(self) -> frozenset[str]:
        """The stages that depend on no input: constant matrices, and what is made of them alone."""
        found: set[str] = set()
        for s in self.stages:
            if all(t.name in found for t in s.body.tensors):
                found.add(s.name)
        return frozenset(found)

    def owner(self, name: str) -> str:
        """The stage whose buffer this one lies in."""
        into = self.by_name[name].into
        return self.owner(into) if into else name

    def check(self) -> Plan:
        """The plan itself; raises PlanError unless the rules of layout hold."""
        known = {t.name: t for t in self.inputs}
        taken: dict[str, str] = {}
        for s in self.stages:
            if s.name in known:
                raise PlanError(f"{s.name}: defined twice")
            for t in s.body.tensors:
                if known.get(t.name) != t:
                    raise PlanError(f"{s.name} reads {t.name}, which is no input and no earlier stage as it stands")
                if t.name in taken:
                    raise PlanError(f"{s.name} reads {t.name} after {taken[t.name]} took its buffer over")
            if s.into:
                self._check_into(s)
                taken[s.into] = s.name
            known[s.name] = s.tensor
        for public, name in self.outputs.items():
            if name not in self.by_name or name in taken:
                raise PlanError(f"output {public}: no stage {name}, or {taken.get(name)} took its buffer over")
        return self

    def _check_into(self, s: Stage) -> None:
        other = self.by_name.get(s.into)
        if other is None:
            raise PlanError(f"{s.name} takes over {s.into}, which is not a stage")
        if s.template == "view":
            if other.has_margin or s.has_margin:
                raise PlanError(f"{s.name} cannot be a view of {s.into}: a margin lies between its elements")
            ours, theirs = (cells_per_image(t) for t in (s.tensor, other.tensor))
            if ours != theirs:
                raise PlanError(f"{s.name} cannot be a view of {s.into}: its {ours} cells an image are not {theirs}")
            return
        if other.dims != s.dims or other.margin != s.margin:
            raise PlanError(f"{s.name} cannot take over the buffer of {s.into}: {other.dims} is not {s.dims}")
        if other.template in MADE_ONCE:
            raise PlanError(f"{s.name} cannot take over the buffer of {s.into}, part of which is written only once")
        if s.template in SCATTERED and s.has_margin:
            raise PlanError(f"{s.name} cannot take over the buffer of {s.into}: it would write into its margin")
        plain = tuple(var(axis) for axis in range(s.tensor.rank))
        if any(read.tensor.name == s.into and read.at != plain for read in reads_of(s.body)):
            raise PlanError(f"{s.name} reads {s.into} at another element than the one it writes")


def number(e: IndexLike) -> int:
    """The value of an index that has to be a number by now."""
    value = index(e).constant
    if value is None:
        raise PlanError(f"{index(e).text} is not a number; only the batch size {BATCH.text} stays free")
    return value


def extent(bounds: Interval) -> int | None:
    """The number of cells of an axis; None for the batch."""
    return None if is_batch(bounds) else max(number(bounds[1] - bounds[0]), 0)


def is_batch(bounds: Interval) -> bool:
    """Whether an axis is the batch."""
    return bounds[1] - bounds[0] == BATCH


def cells_per_image(t: Tensor) -> int:
    """The elements of a tensor for one image; a tensor without the batch counts as it is."""
    return prod(extent(b) or 1 for b in t.box)


def _copied(s: Stage) -> Read | None:
    """The one read of a stage that only copies it."""
    factors = [f for m in s.body.monomials for f in m.factors]
    return factors[0] if s.template != "alias" and len(factors) == 1 and isinstance(factors[0], Read) else None


def _turns(s: Stage, read: Read) -> bool:
    """Whether the axes of what is read are in another order in the stage."""
    levels = [level for e in read.at for level in sorted(e.variables) if level < s.tensor.rank]
    return levels != sorted(levels)


def reads_of(e: Expr) -> Iterator[Read]:
    """Every read in an expression."""
    for m in e.monomials:
        for f in m.factors:
            yield from _reads(f)


def _reads(f: Factor) -> Iterator[Read]:
    if isinstance(f, Read):
        yield f
    elif isinstance(f, Apply):
        yield from reads_of(f.argument)
    elif isinstance(f, Maximum):
        yield from reads_of(f.body)
    elif isinstance(f, Derivative):
        raise PlanError(f"{f.text}: a stage is computed from values, not from a derivative")
