"""Which stages of a plan share a launch on a GPU: those of which none needs what another one does.

The blocks of a kernel run at once and in any order, and launches run one after another.  So what is done in order may
be done in one launch if nobody reads or writes an array that another one writes.  A stage goes into the first launch
after those of everything that it depends on; there are then as many launches as the longest chain of stages has, each
of which depends on the one before, and with fewer some stage of that chain would run beside what it needs.

The blocks of a launch are of one size, so its parts get the number of threads with which, by the model of
``codegen.templates.cuda.choice``, they cost least together.  A part that is no matrix product takes any number.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol, TypeVar

from codegen.plan import PlanError
from codegen.templates.cuda.kernels import BLOCK, Part


class Work(Protocol):
    """Something that is done, and the arrays that it reads and writes."""

    @property
    def reads(self) -> Collection[str]:
        """See the class."""

    @property
    def writes(self) -> Collection[str]:
        """See the class."""


W = TypeVar("W", bound=Work)


def launches(works: Sequence[W]) -> list[list[W]]:
    """What is done in this order, as the launches that do the same: in each, what may be done at once, in this order.

    >>> from codegen.templates.cuda.kernels import Part, pointers
    >>> def part(name: str, *reads: str) -> Part:
    ...     return Part(name, name, (), pointers(reads, name), (), "1")
    >>> found = launches([part("A"), part("B", "A"), part("C", "A"), part("D", "B")])
    >>> [[p.name for p in launch] for launch in found]
    [['A'], ['B', 'C'], ['D']]
    """
    found: list[list[W]] = []
    for work in works:
        last = max((k for k, launch in enumerate(found) if any(depends(work, other) for other in launch)), default=-1)
        if last + 1 == len(found):
            found.append([])
        found[last + 1].append(work)
    return found


def depends(later: Work, earlier: Work) -> bool:
    """Whether two things may not be done at once: one of them writes what the other one reads or writes."""
    written = set(earlier.writes)
    return not (written.isdisjoint((*later.reads, *later.writes)) and set(later.writes).isdisjoint(earlier.reads))


def threads_for(parts: Sequence[Part]) -> int:
    """The number of threads of a block with which these parts cost least together.

    Raises PlanError where there is no number that all of them can have.
    """
    bound = [part for part in parts if part.costs]
    if not bound:
        return BLOCK
    common = sorted(set.intersection(*(set(part.costs) for part in bound)))
    if not common:
        told = "; ".join(f"{part.stage}: {', '.join(map(str, sorted(part.costs)))}" for part in bound)
        raise PlanError(f"these stages have no number of threads in common: {told}")
    return min(common, key=lambda threads: sum(part.costs[threads] for part in bound))
