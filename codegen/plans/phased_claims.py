"""How an input gradient by phases is proved: the phases of kernel and image joined again, an axis at a time.

Opened, the plan is a sum over r < s, q, and t with ``h + p == s q + r d``, of W[.., s t + r] and G[.., q - t d].  First
``i = q - t d`` is summed over in place of q, the output that a kernel cell was multiplied for; then ``a = s t + r`` in
place of r and t, since a kernel cell is that for one t and one r.  What is left is the sum over a and i with ``h + p ==
s i + a d``: the definition.  Stride and dilation may have a divisor in common; then several phases meet in a cell.
"""

from __future__ import annotations

from dataclasses import dataclass

from codegen.claims import Claim
from codegen.proofs import meet, opened, worked_out
from derive import kernel, tactics
from derive.indices import Index, Interval, index, inside, var, variables
from derive.kernel import Theorem
from derive.layers import Window
from derive.rules import Reguard, Reindex


@dataclass(frozen=True)
class PhasedClaim(Claim):
    """A claim about an input gradient by phases, with the windows of the layer, one an axis."""

    windows: tuple[Window, ...]

    def prove(self) -> Theorem:
        """The theorem.  Raises Refused where the two sides do not meet."""
        below = opened(self.lhs, self.facts, self.over, self.stages)
        above = worked_out(self.rhs, self.facts, self.over, self.definitions)
        # The variables stand in the order in which they are bound: r and q of every axis, n, t of every axis.
        axes = len(self.windows)
        for axis, w in enumerate(self.windows):
            below = _by_outputs(below, w, axes + axis, 2 * axes + 1)
            below = _by_cells(below, w, axis, 2 * axes + 1)
        return meet(below, above)


def _by_outputs(theorem: Theorem, w: Window, q: int, t: int) -> Theorem:
    """The sum over q as one over ``i = q - t d`` among the outputs; q and t are numbers of variables."""
    at = kernel.place(theorem, (0,))
    place, part = var(at.depth + q), var(at.depth + t)
    theorem = _known(theorem, place - part * w.dilation, (index(0), w.output))
    own = list(variables(at.depth, len(at.monomial.binders)))
    binders = list(at.monomial.binders)
    binders[q] = (index(0), w.output)
    forward, inverse = list(own), list(own)
    forward[q], inverse[q] = place + part * w.dilation, place - part * w.dilation
    return _in_new_variables(theorem, binders, forward, inverse)


def _by_cells(theorem: Theorem, w: Window, r: int, t: int) -> Theorem:
    """The sum over r and t, numbers of variables, as one over ``a = s t + r`` among the kernel cells, in r's place."""
    at = kernel.place(theorem, (0,))
    own = list(variables(at.depth, len(at.monomial.binders)))
    cell = own[t] * w.stride + own[r]
    theorem = _known(theorem, cell, (index(0), w.kernel))
    binders = [bounds for k, bounds in enumerate(at.monomial.binders) if k != t]
    binders[r] = (index(0), w.kernel)
    a = var(at.depth + r)
    turns = a // w.stride
    left = list(variables(at.depth, len(binders)))
    forward = [*left[:t], turns, *left[t:]]
    forward[r] = a - turns * w.stride
    inverse = [e for k, e in enumerate(own) if k != t]
    inverse[r] = cell
    return _in_new_variables(theorem, binders, forward, inverse)


def _known(theorem: Theorem, e: Index, bounds: Interval) -> Theorem:
    """The sum with guards that an index lies in an interval, as it does where what is read is not zero."""
    at = kernel.place(theorem, (0,))
    guards = tuple(dict.fromkeys((*at.monomial.guards, *inside(e, bounds))))
    return kernel.rewrite(theorem, (0,), Reguard(at.monomial.binders, guards))


def _in_new_variables(theorem: Theorem, binders: list[Interval], forward: list[Index], inverse: list[Index]) -> Theorem:
    step = Reindex(tuple(binders), tuple(forward), tuple(inverse))
    return tactics.tidy(kernel.rewrite(theorem, (0,), step))
