"""That a plan computes its layer: proofs, for all sizes, from stages unfolded and definitions worked out.

Both sides are opened until only inputs are left, a stage from below and the definition (or the derivative of it) from
above; that they meet is the theorem.  Sigmoids become reciprocals on both sides, sums are put in one order, guards that
follow from others are dropped.  Nothing here is trusted: the kernel makes every step or refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from codegen.plan import Stage
from derive import kernel, tactics
from derive.indices import Guard, Interval, var, variables
from derive.kernel import Theorem
from derive.matching import match
from derive.rules import Cancel, Count, ExpSum, LogFactor, RecipFactor, Rule, Sigmoid
from derive.terms import Apply, Expr, Read, Substitution, term


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
    """Sigmoids as recip(1 + exp(-z)), numbers for sums of nothing, no idle guards."""
    while (found := tactics.find(theorem.rhs, _is_sigmoid)) is not None:
        theorem = kernel.rewrite(theorem, found[0], Sigmoid(found[1]))
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


# --- the stable softmax -------------------------------------------------------------------------------------------


def free_of(theorem: Theorem, name: str) -> Theorem:
    """The same without the tensor ``name`` by which exponentials were shifted: ``exp(z - M) = exp(z) exp(-M)``."""
    while (step := _next_law(theorem, name)) is not None:
        theorem = kernel.rewrite(theorem, *step)
    return theorem


def _next_law(theorem: Theorem, name: str) -> tuple[kernel.Where, Rule] | None:
    """Split an exponential, take the shift out of a reciprocal or logarithm of a sum, or cancel it."""
    for where, m, _ in tactics.scopes(theorem.rhs):
        for k, f in enumerate(m.factors):
            if not isinstance(f, Apply):
                continue
            chosen = _terms_with(f.argument, name)
            if f.function == "exp" and chosen and len(chosen) < len(f.argument.monomials):
                return where, ExpSum(k, chosen)
            common = _common_shift(f.argument, name)
            if common is not None and f.function == "recip" and term(f.argument.depth, common) != f.argument:
                return where, RecipFactor(k, common)
            if common is not None and f.function == "log":
                return where, LogFactor(k, common)
            partner = Apply("recip", term(f.argument.depth, f)) if f.function == "exp" else None
            if chosen and partner in m.factors:
                return where, Cancel(k, m.factors.index(partner))
    return None


def _terms_with(e: Expr, name: str) -> tuple[int, ...]:
    """The numbers of the monomials that read the tensor directly."""
    reads = [any(isinstance(f, Read) and f.tensor.name == name for f in m.factors) for m in e.monomials]
    return tuple(k for k, found in enumerate(reads) if found)


def _common_shift(e: Expr, name: str) -> Apply | None:
    """The exponential of the shift that is a factor of the one monomial of a sum."""
    if len(e.monomials) != 1:
        return None
    for f in e.monomials[0].factors:
        alone = isinstance(f, Apply) and f.function == "exp" and len(f.argument.monomials) == 1
        if alone and isinstance(f, Apply) and _terms_with(f.argument, name) == (0,):
            scope = e.depth + len(e.monomials[0].binders)
            reads = [r for r in f.argument.monomials[0].factors if isinstance(r, Read)]
            if all(v < e.depth for r in reads for i in r.at for v in i.variables):
                back = Substitution(scope, (*variables(0, e.depth), *[var(0)] * (scope - e.depth)), e.depth)
                moved = back.factor(f)
                return moved if isinstance(moved, Apply) else None
    return None
