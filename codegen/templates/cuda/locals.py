"""Local stages: numbers that the threads that read them form for themselves, before anything else.

A local stage has no array.  Its element is read only at the first variables of its reader, as the maximum of a row is
by all elements of that row, so it is one number a thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from codegen.plan import Plan, PlanError, Stage, reads_of
from codegen.templates.cuda.text import Scope
from codegen.templates.cuda.value import Printer
from derive.indices import variables


def locals_of(plan: Plan, stage: Stage) -> tuple[Stage, ...]:
    """The local stages that a stage reads, itself or through others, in the order of the plan.

    Raises PlanError where one is read at another element than that of the first variables.
    """
    found: set[str] = set()
    waiting = [stage]
    while waiting:
        reader = waiting.pop()
        for read in reads_of(reader.body):
            other = plan.by_name.get(read.tensor.name)
            if other is None or other.template != "local":
                continue
            if read.at != variables(0, other.tensor.rank):
                raise PlanError(f"{reader.name} reads the local stage {other.name} at {read.text}, not at its own row")
            if other.name not in found:
                found.add(other.name)
                waiting.append(other)
    return tuple(s for s in plan.stages if s.name in found)


@dataclass
class Declared:
    """The statements that form local stages, those of one number apart, and the text of each stage."""

    once: list[str] = field(default_factory=list)
    each: list[str] = field(default_factory=list)
    known: dict[str, str] = field(default_factory=dict)

    @property
    def lines(self) -> list[str]:
        """All statements."""
        return [*self.once, *self.each]


def declared(plan: Plan, stage: Stage, scope: Scope, *, known: Mapping[str, str] | None = None) -> Declared:
    """What forms the local stages of a stage; ``known`` gives the text of tensors that are at hand in a register."""
    made = Declared(known=dict(known or {}))
    for s in locals_of(plan, stage):
        rank = s.tensor.rank
        own = Scope(scope.letters[:rank], scope.intervals[:rank])
        printer = Printer(s, arrays_of(plan), known=dict(made.known), labels=plan.labels, prefix=f"{s.name}_")
        text = printer.expr(s.body, own)
        lines = made.each if rank else made.once
        lines += [*printer.lines, f"const ACC {s.name} = {text};"]
        made.known[s.name] = s.name
    return made


def arrays_of(plan: Plan) -> dict[str, str]:
    """Every array under the name of its tensor."""
    return {name: name for name in (*(t.name for t in plan.inputs), *plan.by_name)}


def reads(plan: Plan, *stages: Stage) -> tuple[str, ...]:
    """The tensors whose arrays these stages read, themselves or through local stages, in the order of the plan."""
    every = [s for stage in stages for s in (stage, *locals_of(plan, stage))]
    names = {t.name for s in every for t in s.body.tensors} - {s.name for s in every}
    return tuple(name for name in arrays_of(plan) if name in names)
