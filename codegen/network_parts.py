"""The stages of a network's plan as parts of kernels: which are computed together, and which share a launch.

What a machine does at once (``codegen.plans.device_network``) becomes one part: a product with its epilogue, what it is
spread to, its pool and its column.  Which parts share a launch follows from the arrays that they read and write
(``codegen.launches``); there a stage that is another name for the cells of an array counts as that array.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from codegen.launches import launches, threads_for
from codegen.plan import Plan, PlanError, Stage, cells_per_image, reads_of
from codegen.templates.cuda import print_stage
from codegen.templates.cuda.kernels import Part
from codegen.templates.cuda.numbers import Numbers
from codegen.templates.cuda.shares import Shares
from codegen.templates.cuda.spread import product_of

Launch = tuple[Part, ...]
Made = Part | Shares


@dataclass(frozen=True)
class Together:
    """A stage, and those that are done where it is in registers: see ``codegen.templates.cuda.print_stage``."""

    stage: Stage
    then: Stage | None
    column: Stage | None
    pool: Stage | None

    @property
    def name(self) -> str:
        """The last stage, whose array is written."""
        return (self.then or self.stage).name

    def printed(self, plan: Plan, numbers: Numbers, threads: int | None = None) -> Made:
        """What a block of so many threads does."""
        return print_stage(
            plan, self.stage, numbers, then=self.then, column=self.column, pool=self.pool, threads=threads
        )


def together(plan: Plan) -> list[Together]:
    """The stages of a plan, those together that one part computes, in the order of the plan."""
    stages, found = plan.stages, []
    for k, stage in enumerate(stages):
        if stage.template in ("alias", "local", "epilogue", "column", "pooled", "spread"):
            continue
        then = next((s for s in stages if _finishes(plan, s, stage)), None)
        beside = stages[k + 1] if k + 1 < len(stages) and stages[k + 1].template == "column" else None
        pool = next((s for s in stages if s.template == "pooled" and stage.tensor in s.body.tensors), None)
        found.append(Together(stage, then, beside, pool))
    return found


def _finishes(plan: Plan, stage: Stage, product: Stage) -> bool:
    """Whether a stage is what is stored in the place of a product."""
    if stage.template == "spread":
        return product_of(plan, stage) == product
    return stage.template == "epilogue" and stage.into == product.name


@dataclass(frozen=True)
class Parts:
    """The parts of a network by the last stage of each, in the order of the plan; shares where a sum is cut up.

    Attributes:
        plan: the plan.
        made: the parts, those that share a launch with the same number of threads.
        forward: the launches of the forward pass.
        backward: those of the loss and all gradients, which come after it.
        loss: those of the loss by itself, which come after the forward pass too.
    """

    plan: Plan
    made: Mapping[str, Made]
    forward: tuple[Launch, ...]
    backward: tuple[Launch, ...]
    loss: tuple[Launch, ...]

    @property
    def stored(self) -> tuple[Stage, ...]:
        """The stages that have an array."""
        whole = {name for name, made in self.made.items() if isinstance(made, Part)}
        return tuple(s for s in self.plan.stages if s.name in whole or s.template == "pooled")

    @property
    def shares(self) -> tuple[Shares, ...]:
        """The sums that are cut up."""
        return tuple(made for made in self.made.values() if isinstance(made, Shares))

    @property
    def called(self) -> frozenset[str]:
        """The stages whose part is a function, since it shares a launch with others."""
        return frozenset(part.stage for launch in (*self.forward, *self.backward) if len(launch) > 1 for part in launch)


def parts_of(plan: Plan, numbers: Numbers) -> Parts:
    """The parts of a network's plan, and their launches.

    What the loss needs is launched as often by itself as before the gradients, each of its launches being part of one
    of those, so one number of threads for each stage is enough.

    Raises PlanError where a stage cannot be printed.
    """
    every = {t.name: t for t in together(plan)}
    made = {name: t.printed(plan, numbers) for name, t in every.items()}
    ahead, loss = plan.needed(plan.outputs["forward"]), plan.needed(plan.outputs["loss"])

    def launched(names: Iterable[str]) -> tuple[Launch, ...]:
        own = [_part(made[name]) for name in made if name in set(names)]
        return tuple(tuple(placed.part for placed in launch) for launch in launches([_placed(plan, p) for p in own]))

    forward, rest = every.keys() & ahead, every.keys() - ahead
    for launch in (*launched(forward), *launched(rest)):
        if len(launch) > 1:
            threads = threads_for(launch)
            made |= {part.stage: every[part.stage].printed(plan, numbers, threads) for part in launch}
    return Parts(plan, made, launched(forward), launched(rest), launched(rest & loss))


def _part(made: Made) -> Part:
    return made.part if isinstance(made, Shares) else made


@dataclass(frozen=True)
class Placed:
    """A part, and the arrays that it reads and writes, by the stage or the input that each belongs to."""

    part: Part
    reads: frozenset[str]
    writes: frozenset[str]


def _placed(plan: Plan, part: Part) -> Placed:
    reads, writes = (frozenset(memory(plan, name) for name in names) for names in (part.reads, part.writes))
    return Placed(part, reads, writes)


def memory(plan: Plan, name: str) -> str:
    """The tensor in whose array another one lies.

    Raises PlanError where a stage that has no array of its own has other cells than what it reads.
    """
    stage = plan.by_name.get(name)
    if stage is None or stage.template != "alias":
        return name
    (read,) = reads_of(stage.body)
    if cells_per_image(read.tensor) != cells_per_image(stage.tensor):
        raise PlanError(f"{name} is no other name for the cells of {read.tensor.name}")
    return memory(plan, read.tensor.name)
