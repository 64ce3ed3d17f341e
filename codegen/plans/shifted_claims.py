"""How an input gradient by shifts is proved: the output row that a kernel row brings to a given input row.

Worked out, the definition sums over output rows i and kernel rows a with ``h == i + a d - p``.  With stride 1 that is
one i for each a, ``i = h + p - a d``, and where it is no output row the cotangent is zero: what the plan sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

from codegen.claims import Claim
from codegen.proofs import meet, opened, worked_out
from derive import kernel, tactics
from derive.indices import equal, var
from derive.kernel import Theorem
from derive.layers import Window
from derive.obligations import Refused
from derive.rules import Contract

ROW = var(2)  # images, channels, then the first axis


@dataclass(frozen=True)
class ShiftedClaim(Claim):
    """A claim about an input gradient by shifts along the first axis, with its window."""

    window: Window

    def prove(self) -> Theorem:
        """The theorem.  Raises Refused where the two sides do not meet."""
        below = tactics.contract_simple(opened(self.lhs, self.facts, self.over, self.stages))
        above = worked_out(self.rhs, self.facts, self.over, self.definitions)
        return meet(below, tactics.tidy(self._solved(above)))

    def _solved(self, theorem: Theorem) -> Theorem:
        """The equation of rows solved for the output row."""
        at = kernel.place(theorem, (0,))
        for i, a in permutations(range(len(at.monomial.binders)), 2):
            equation = equal(ROW, self.window.read(var(at.depth + i), var(at.depth + a)))
            if equation in at.monomial.guards:
                return kernel.rewrite(theorem, (0,), Contract(i, equation))
        raise Refused(f"{theorem.rhs.text}: no equation of an input row with an output row and a kernel row")
