"""How an input gradient by residues is proved: kernel cells of one residue are outputs of one window.

Opened, the plan is a sum over t of W[.., s t + r] and G[.., q - t] for q = (h + p) // s and the residue r.  The output
``i = q - t`` lies under the kernel cell ``s t + r = h + p - i s``: the definition's equation, solved for the cell.  In
groups the definition's sum over all outputs is brought to those of the own group first (``grouped_claims``).  With
strides of 1 the sum over kernel cells stays, and the equation is solved for the output.
"""

from __future__ import annotations

from dataclasses import dataclass

from codegen.plans.grouped_claims import GroupedClaim
from codegen.proofs import meet, opened, worked_out
from derive import kernel, tactics
from derive.indices import Guard, Interval, Zero, index, inside, var, variables
from derive.kernel import Theorem
from derive.layers import Window
from derive.obligations import Refused
from derive.rules import Contract, Reguard, Reindex


@dataclass(frozen=True)
class ResidueClaim(GroupedClaim):
    """A claim about an input gradient by residues, with the windows of the layer, one an axis.

    ``shared``: whether groups have more than one channel each, so that the outputs of a group are counted.
    """

    windows: tuple[Window, ...]
    shared: bool

    def prove(self) -> Theorem:
        """The theorem.  Raises Refused where the two sides do not meet."""
        below = opened(self.lhs, self.facts, self.over, self.stages)
        above = worked_out(self.rhs, self.facts, self.over, self.definitions)
        if self.shared:
            above = self._within_the_group(*self._solved(above))
        if all(w.stride.constant == 1 for w in self.windows):
            return meet(below, tactics.tidy(tactics.contract_all(above)))
        return meet(self._by_outputs(below), tactics.tidy(self._by_cells(above)))

    def _by_outputs(self, theorem: Theorem) -> Theorem:
        """The sum over t as one over the outputs ``i = q - t`` that exist, for kernel cells that exist."""
        at = kernel.place(theorem, (0,))
        axes, bound = len(self.windows), len(at.monomial.binders)
        first = bound - axes
        parts = variables(at.depth + first, axes)
        reached = [var(2 + axis) + w.before for axis, w in enumerate(self.windows)]
        turns = [e // w.stride for e, w in zip(reached, self.windows, strict=True)]
        outputs = [q - t for q, t in zip(turns, parts, strict=True)]
        cells = [e - i * w.stride for e, i, w in zip(reached, outputs, self.windows, strict=True)]
        known: list[Guard] = list(at.monomial.guards)
        for w, cell, output in zip(self.windows, cells, outputs, strict=True):
            known += [*inside(cell, (index(0), w.kernel)), *inside(output, (index(0), w.output))]
        theorem = kernel.rewrite(theorem, (0,), Reguard(at.monomial.binders, tuple(dict.fromkeys(known))))
        binders: list[Interval] = [*at.monomial.binders[:first], *((index(0), w.output) for w in self.windows)]
        # The map between t and i is its own inverse.
        there = (*variables(at.depth, first), *outputs)
        return tactics.tidy(kernel.rewrite(theorem, (0,), Reindex(tuple(binders), there, there)))

    def _by_cells(self, theorem: Theorem) -> Theorem:
        """Each equation between a cell, an output and a kernel cell solved for the kernel cell."""
        for _ in self.windows:
            at = kernel.place(theorem, (0,))
            equations = [g for g in at.monomial.guards if isinstance(g, Zero)]
            found = [
                (k, g) for k in range(len(at.monomial.binders)) for g in equations if g.e.slope(at.depth + k) == -1
            ]
            if not found:
                raise Refused(f"{theorem.rhs.text}: no equation of a cell, an output and a kernel cell")
            theorem = kernel.rewrite(theorem, (0,), Contract(*found[0]))
        return theorem
