"""A stage with an axis that is cut into groups, as one with an axis of groups and one within them.

In a convolution of groups of Og outputs, output n reads the input channels from ``n // Og`` on.  With ``n = g Og + m``
it is a matrix product for each group g, whose rows are the m:

    Z[b,n,i]  = Sum_{c,a} W[n,c,a] X[b, (n // Og) Cg + c, ..]      is   Z[b, g Og + m, i] with X[b, g Cg + c, ..]
    dW[n,c,a] = Sum_{b,i} G[b,n,i] X[b, (n // Og) Cg + c, ..]      is   dW[g Og + m, c, a] with the same

The tensor lies in memory as it did: an axis of n is, row by row, the two axes g and m.  So this is another name for the
same elements and no stage of a plan; a template splits a stage before it prints it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from codegen.plan import Stage, reads_of
from derive.indices import Index, Quotient, index, var, variables
from derive.terms import Substitution, define


@dataclass(frozen=True)
class Groups:
    """An axis that is cut into groups, how many elements each has, and how many groups there are."""

    axis: int
    size: int
    count: int

    @property
    def quotient(self) -> Quotient:
        """The group of an element, as a stage says it."""
        return Quotient(var(self.axis), index(self.size))


def groups_of(stage: Stage) -> Groups | None:
    """The groups of a stage; None where no axis, or more than one, is divided by a number that it is a multiple of.

    >>> from codegen.plan import BATCH
    >>> from codegen.plans.definition import definition
    >>> from derive.layers import Conv1d
    >>> from derive.terms import tensor
    >>> groups_of(definition(Conv1d(6, 9, 2, groups=3).on(tensor("X", BATCH, 6, 8)))["forward"].stages[0])
    Groups(axis=1, size=3, count=3)
    """
    found = {
        Groups(axis, size, count)
        for read in reads_of(stage.body)
        for e in read.at
        for atom in e.atoms()
        for axis, (low, high) in enumerate(stage.tensor.box)
        if isinstance(atom, Quotient) and atom.numerator == var(axis) and low == index(0)
        if (size := atom.denominator.constant) and (count := _quotient(high, size))
    }
    return found.pop() if len(found) == 1 else None


def _quotient(whole: Index, part: int) -> int | None:
    """How many times a part goes into a whole; None where that leaves a rest, or is not known."""
    number = whole.constant
    return number // part if number is not None and number % part == 0 else None


@dataclass(frozen=True)
class _Split(Substitution):
    """The variables of a stage put in terms of group and place in it, the group's quotient being the group."""

    groups: Groups = Groups(0, 1, 1)

    def index(self, e: Index) -> Index:
        """On an index."""
        total = index(0)
        for product, coefficient in e.terms:
            value = index(coefficient)
            for atom in product:
                is_group = atom == self.groups.quotient
                value = value * (var(self.groups.axis) if is_group else super().index(Index((((atom,), 1),))))
            total = total + value
        return total


def by_groups(stage: Stage) -> Stage:
    """The stage with its groups as an axis of their own, ``g``, and ``m`` within; the stage itself without groups."""
    groups = groups_of(stage)
    if groups is None:
        return stage
    rank, axis = stage.tensor.rank, groups.axis
    both = var(axis) * groups.size + var(axis + 1)
    values = (*variables(0, axis), both, *variables(axis + 2, rank - axis - 1))
    body = _Split(rank, values, rank + 1, groups=groups).expr(stage.body)
    box = [*stage.tensor.box]
    box[axis : axis + 1] = [(index(0), index(groups.count)), (index(0), index(groups.size))]
    names = [*stage.letters.split()]
    names[axis : axis + 1] = ["g", "m"]
    none = (index(0), index(0))
    return replace(
        stage, tensor=define(stage.name, box, body), letters=" ".join(names), margin=(none,) * (rank + 1)
    )  # fmt: skip
