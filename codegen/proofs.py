"""That a plan computes its layer: proofs, for all sizes, from stages unfolded and definitions worked out.

Both sides are opened until only inputs are left, a stage from below and the definition (or the derivative of it) from
above; that they meet is the theorem.  Sigmoids become tanh on both sides, sums are put in one order, guards that follow
from others are dropped.  Nothing here is trusted: the kernel makes every step or refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from codegen.plan import Stage
from derive import kernel, tactics
from derive.indices import Guard, Interval
from derive.kernel import Theorem
from derive.matching import match
from derive.rules import Count, SigmoidTanh
from derive.terms import Apply, Expr


def opened(e: Expr, facts: Iterable[Guard], over: Sequence[Interval], stages: Iterable[Stage]) -> Theorem:
    """``e`` with these stages unfolded down to what they read."""
    theorem = kernel.begin(e, facts=facts, over=over)
    return normal(tactics.open_and_solve(theorem, [s.name for s in stages]))


def worked_out(e: Expr, facts: Iterable[Guard], over: Sequence[Interval], names: Iterable[str]) -> Theorem:
    """``e`` with these definitions unfolded and derivatives worked out."""
    theorem = kernel.begin(e, facts=facts, over=over)
    theorem = tactics.open_and_solve(theorem, names)
    theorem = tactics.contract_simple(tactics.differentiate_all(theorem))
    return normal(theorem)


def normal(theorem: Theorem) -> Theorem:
    """Sigmoids as tanh, numbers for sums of nothing, no idle guards."""
    while (found := tactics.find(theorem.rhs, _is_sigmoid)) is not None:
        theorem = kernel.rewrite(theorem, found[0], SigmoidTanh(found[1]))
    return tactics.tidy(_counted(tactics.tidy(theorem)))


def _is_sigmoid(f: object) -> bool:
    return isinstance(f, Apply) and f.function == "sigmoid"


def _counted(theorem: Theorem) -> Theorem:
    """Sums over numbers of cells that nothing depends on, as coefficients."""
    for where, m, _ in tactics.scopes(theorem.rhs):
        if not m.factors and not m.guards and m.binders and all(hi.constant is not None for _, hi in m.binders):
            return _counted(kernel.rewrite(theorem, where, Count(0)))
    return theorem


def meet(below: Theorem, above: Theorem) -> Theorem:
    """``stage = definition`` from the two sides opened."""
    return kernel.trans(match(below, above.rhs), kernel.sym(above))
