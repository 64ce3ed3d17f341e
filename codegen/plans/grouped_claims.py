"""How an input gradient with groups is proved: the outputs that read a channel, counted within their group.

Worked out, the definition sums over all outputs n and places e with ``c == (n // Og) Cg + e``.  Solved for e, what
is left of e's interval says that ``c // Cg`` is ``n // Og``: n is one of the Og outputs of the group of c, over which
the plan sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

from codegen.claims import Claim
from codegen.proofs import meet, opened, worked_out
from derive import kernel, tactics
from derive.indices import Index, Zero, equal, index, inside, var, variables
from derive.kernel import Theorem
from derive.obligations import Refused
from derive.rules import Contract, Reguard, Reindex, RewriteIndex
from derive.terms import Read

CHANNEL = var(1)  # images first, then channels


@dataclass(frozen=True)
class GroupedClaim(Claim):
    """A claim about an input gradient of a convolution with groups, with the inputs and outputs of a group."""

    inputs: Index
    outputs: Index

    def prove(self) -> Theorem:
        """The theorem.  Raises Refused where the two sides do not meet."""
        below = tactics.contract_simple(opened(self.lhs, self.facts, self.over, self.stages))
        above = worked_out(self.rhs, self.facts, self.over, self.definitions)
        return meet(below, self._within_the_group(*self._solved(above)))

    def _solved(self, theorem: Theorem) -> tuple[Theorem, int]:
        """The equation of channels solved for the place in the group, and the number of the variable n then."""
        at = kernel.place(theorem, (0,))
        bound = range(len(at.monomial.binders))
        for n, e in permutations(bound, 2):
            equation = equal(CHANNEL, var(at.depth + n) // self.outputs * self.inputs + var(at.depth + e))
            if equation in at.monomial.guards:
                return kernel.rewrite(theorem, (0,), Contract(e, equation)), n - int(n > e)
        raise Refused(f"{theorem.rhs.text}: no equation of a channel and its place in a group")

    def _within_the_group(self, theorem: Theorem, n: int) -> Theorem:
        """The sum over all outputs n with ``0 <= c - (n // Og) Cg < Cg`` as one over those of c's group."""
        at = kernel.place(theorem, (0,))
        output, group = var(at.depth + n), CHANNEL // self.inputs
        bounds = inside(CHANNEL - output // self.outputs * self.inputs, (index(0), self.inputs))
        others = tuple(g for g in at.monomial.guards if g not in bounds)
        same = Zero(group - output // self.outputs)
        theorem = kernel.rewrite(theorem, (0,), Reguard(at.monomial.binders, (*others, same)))
        binders = list(at.monomial.binders)
        binders[n] = (group * self.outputs, group * self.outputs + self.outputs)
        theorem = kernel.rewrite(theorem, (0,), Reguard(tuple(binders), others))
        theorem = self._placed(theorem, group)
        counted = list(variables(at.depth, len(binders)))
        forward, inverse = list(counted), list(counted)
        forward[n], inverse[n] = output + group * self.outputs, output - group * self.outputs
        binders[n] = (index(0), self.outputs)
        step = Reindex(tuple(binders), tuple(forward), tuple(inverse))
        return tactics.tidy(kernel.rewrite(theorem, (0,), step))

    def _placed(self, theorem: Theorem, group: Index) -> Theorem:
        """The weight read at the place of c in its group."""
        (m,) = theorem.rhs.monomials
        wanted = CHANNEL - group * self.inputs
        for factor, read in enumerate(m.factors):
            for axis, e in enumerate(read.at if isinstance(read, Read) else ()):
                if e != wanted and CHANNEL.variables < e.variables:
                    return kernel.rewrite(theorem, (0,), RewriteIndex(factor, axis, wanted))
        raise Refused(f"{theorem.rhs.text}: nothing is read at the place of a channel in its group")
