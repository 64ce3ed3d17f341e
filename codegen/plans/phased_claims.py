"""How an input gradient by phases is proved: the phases of kernel and image joined again.

Opened, the plan is a sum over r < s, q, and t with ``h + p == s q + r``, of W[.., s t + r] and G[.., q - t].  A kernel
cell is ``a = s t + r`` for one t and one r, and ``i = q - t`` is the output it was multiplied for, so the same sum goes
over a and i with ``h + p == s i + a``: the definition.
"""

from __future__ import annotations

from dataclasses import dataclass

from codegen.claims import Claim
from codegen.proofs import meet, opened, worked_out
from derive import kernel, tactics
from derive.indices import Index, Interval, index, inside, variables
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
        return meet(self._joined(below), above)

    def _joined(self, theorem: Theorem) -> Theorem:
        """The sum over r, q, n, t as one over i, n, a; the variables stand in the order in which they are bound."""
        at = kernel.place(theorem, (0,))
        axes, depth = len(self.windows), at.depth
        r, q, _, t = _grouped(variables(depth, len(at.monomial.binders)), axes)
        cells = [tk * w.stride + rk for w, tk, rk in zip(self.windows, t, r, strict=True)]
        outputs = [qk - tk for qk, tk in zip(q, t, strict=True)]
        known: list[Interval] = [(index(0), w.kernel) for w in self.windows]
        reached: list[Interval] = [(index(0), w.output) for w in self.windows]
        more = [g for e, bounds in zip((*cells, *outputs), (*known, *reached), strict=True) for g in inside(e, bounds)]
        guards = tuple(dict.fromkeys((*at.monomial.guards, *more)))
        theorem = kernel.rewrite(theorem, (0,), Reguard(at.monomial.binders, guards))
        summed = at.monomial.binders[2 * axes]
        i, (n,), a = _three(variables(depth, 2 * axes + 1), axes)
        turns = [ak // w.stride for w, ak in zip(self.windows, a, strict=True)]
        within = [ak - w.stride * turn for w, ak, turn in zip(self.windows, a, turns, strict=True)]
        forward = (*within, *(ik + turn for ik, turn in zip(i, turns, strict=True)), n, *turns)
        inverse = (*outputs, variables(depth + 2 * axes, 1)[0], *cells)
        step = Reindex((*reached, summed, *known), tuple(forward), tuple(inverse))
        return tactics.tidy(kernel.rewrite(theorem, (0,), step))


def _grouped(at: tuple[Index, ...], axes: int) -> tuple[tuple[Index, ...], ...]:
    return at[:axes], at[axes : 2 * axes], at[2 * axes : 2 * axes + 1], at[2 * axes + 1 :]


def _three(at: tuple[Index, ...], axes: int) -> tuple[tuple[Index, ...], ...]:
    return at[:axes], at[axes : axes + 1], at[axes + 1 :]
