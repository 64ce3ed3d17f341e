"""What there is to prove about a plan: that one of its stages is what a layer, or a derivative of it, says.

A ``Claim`` holds both sides and how far each has to be opened: below, the stages of the plan, down to the inputs;
above, the definitions of the layer.  It is data, so that a plan that is wrong can be claimed as well, and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from codegen import committed
from codegen.plan import Stage
from codegen.proofs import meet, opened, worked_out
from derive import tactics
from derive.indices import Guard, Interval
from derive.kernel import Theorem
from derive.terms import Expr


@dataclass(frozen=True)
class Claim:
    """``lhs = rhs`` for all sizes with these facts and all variables in ``over``.

    ``stages`` are opened on the left side, ``definitions`` (names of tensors) on the right, where derivatives are
    worked out too.
    """

    name: str
    lhs: Expr
    rhs: Expr
    facts: tuple[Guard, ...]
    over: tuple[Interval, ...]
    stages: tuple[Stage, ...]
    definitions: tuple[str, ...]

    @property
    def statement(self) -> committed.Claim:
        """What its theorem would say, without stages and proof."""
        return committed.Claim(self.facts, self.over, self.lhs, self.rhs)

    def prove(self) -> Theorem:
        """The theorem.  Raises Refused where the two sides do not meet."""
        below = tactics.contract_simple(opened(self.lhs, self.facts, self.over, self.stages))
        above = worked_out(self.rhs, self.facts, self.over, self.definitions)
        return meet(below, above)


class GatheredClaim(Claim):
    """The same where a stage gathers: each equation between indices on the right is solved for a bound variable."""

    def prove(self) -> Theorem:
        """See ``Claim``."""
        below = opened(self.lhs, self.facts, self.over, self.stages)
        above = worked_out(self.rhs, self.facts, self.over, self.definitions)
        return meet(below, tactics.tidy(tactics.contract_all(above)))
