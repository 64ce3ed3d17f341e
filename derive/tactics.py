"""Ways of finding the next step: nothing here is trusted, every step is made by the kernel or refused by it.

A tactic takes a theorem and gives one with a longer derivation.  ``tidy`` removes guards that follow from others,
``unfold_all`` opens definitions, ``contract_all`` solves equations for bound variables; ``derivative`` is the three of
them after ``differentiate``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from derive import kernel
from derive.indices import Atom, Guard, Index, NonNegative, Var, Zero, index, var
from derive.kernel import Theorem, Where
from derive.obligations import Refused
from derive.rules import Contract, Differentiate, Place, Reguard, Reindex, Unfold
from derive.solver import ask, ask_near, question
from derive.terms import Apply, Derivative, Expr, Factor, Maximum, Monomial, Read, expression, ranges


def positions(e: Expr, prefix: Where = ()) -> Iterator[tuple[Where, Monomial]]:
    """Every monomial with its address, innermost first."""
    for k, m in enumerate(e.monomials):
        for j, f in enumerate(m.factors):
            inner = _inner(f)
            if inner is not None:
                yield from positions(inner, (*prefix, k, j))
        yield (*prefix, k), m


def _inner(f: Factor) -> Expr | None:
    if isinstance(f, Apply):
        return f.argument
    if isinstance(f, Maximum):
        return f.body
    return f.expr if isinstance(f, Derivative) else None


def find(e: Expr, wanted: Callable[[Factor], bool]) -> tuple[Where, int] | None:
    """The address of the first factor that is wanted, innermost first: its monomial's, and its own number."""
    for where, m in positions(e):
        for j, f in enumerate(m.factors):
            if wanted(f):
                return where, j
    return None


def locate(theorem: Theorem, depth: int, wanted: Monomial) -> Where:
    """The address of the monomial with these variables and factors whose guards are these and the fewest others.

    Raises Refused where there is none.
    """
    same = (wanted.binders, wanted.factors, wanted.coefficient)
    found = [
        (len(m.guards), where)
        for where, m, own in scopes(theorem.rhs)
        if own == depth and (m.binders, m.factors, m.coefficient) == same and set(m.guards) >= set(wanted.guards)
    ]
    if not found:
        raise Refused(f"{expression(depth, [wanted]).text} is not on the right side")
    return min(found)[1]


def unfold_all(theorem: Theorem, names: Iterable[str] | None = None) -> Theorem:
    """Unfold reads of the tensors of these names (of every defined tensor by default) until none is left."""
    chosen = None if names is None else set(names)

    def wanted(f: Factor) -> bool:
        return isinstance(f, Read) and f.tensor.body is not None and (chosen is None or f.tensor.name in chosen)

    while (found := find(theorem.rhs, wanted)) is not None:
        theorem = kernel.rewrite(theorem, found[0], Unfold(found[1]))
    return theorem


def differentiate_all(theorem: Theorem) -> Theorem:
    """Work every derivative out."""
    while (found := find(theorem.rhs, lambda f: isinstance(f, Derivative))) is not None:
        theorem = kernel.rewrite(theorem, found[0], Differentiate(found[1]))
    return theorem


def contract_all(theorem: Theorem, prefer: Sequence[int] = ()) -> Theorem:
    """Solve equations among guards for the monomials' own variables until none can be; +-1 coefficients first.

    ``prefer`` numbers variables of a monomial to be solved for where an equation leaves a choice.
    """
    changed = True
    while changed:
        changed = False
        for where, _ in positions(theorem.rhs):
            step = _contraction(kernel.place(theorem, where), prefer)
            if step is not None:
                theorem = kernel.rewrite(theorem, where, step)
                changed = True
                break
    return theorem


def _contraction(at: Place, prefer: Sequence[int]) -> Contract | None:
    candidates: list[tuple[int, int, Index, Contract]] = []
    for guard in at.monomial.guards:
        if not isinstance(guard, Zero):
            continue
        for k in range(len(at.monomial.binders)):
            parts = guard.e.linear_in(at.depth + k)
            if parts is None or not parts[0].terms:
                continue
            unit = parts[0].constant in (1, -1)
            simple = len(guard.e.variables)
            rank = (0 if unit else 1) * 100 + (0 if k in prefer else 10) + simple
            candidates.append((rank, k, parts[0], Contract(k, guard)))
    for _, _, a, step in sorted(candidates, key=lambda c: (c[0], c[1], c[3].guard.text)):
        known = at.hypotheses + tuple(g for g in at.known if not _speaks_of(g, at.depth + step.variable))
        if any(ask(question(known, NonNegative(s * a - 1))).status == "proved" for s in (index(1), index(-1))):
            return step
    return None


def contract_simple(theorem: Theorem) -> Theorem:
    """Solve the equations that have one bound variable, with the coefficient 1 or -1, such as ``[b' == b]``."""
    while (found := _simple(theorem.rhs)) is not None:
        theorem = kernel.rewrite(theorem, *found)
    return theorem


def _simple(e: Expr) -> tuple[Where, Contract] | None:
    for where, m, depth in scopes(e):
        for guard in m.guards:
            own = [v for v in guard.indices()[0].variables if v >= depth] if isinstance(guard, Zero) else []
            if len(own) == 1 and guard.indices()[0].slope(own[0]) in (1, -1):
                return where, Contract(own[0] - depth, guard)
    return None


def scopes(e: Expr, prefix: Where = ()) -> Iterator[tuple[Where, Monomial, int]]:
    """Every monomial with its address and its depth, innermost first."""
    for k, m in enumerate(e.monomials):
        for j, f in enumerate(m.factors):
            inner = _inner(f)
            if inner is not None:
                yield from scopes(inner, (*prefix, k, j))
        yield (*prefix, k), m, e.depth


def open_and_solve(theorem: Theorem, names: Iterable[str]) -> Theorem:
    """Unfold the tensors of these names; equations a body brings along are solved for the indices it was read at.

    That is how a kernel in Toeplitz form, or a flattened tensor, becomes what it was made from.
    """
    chosen = set(names)

    def wanted(f: Factor) -> bool:
        return isinstance(f, Read) and f.tensor.body is not None and f.tensor.name in chosen

    while (found := find(theorem.rhs, wanted)) is not None:
        at = kernel.place(theorem, found[0])
        old = len(at.monomial.binders)
        before = set(at.monomial.guards)
        theorem = kernel.rewrite(theorem, found[0], Unfold(found[1]))
        theorem = _solve_new(theorem, at.depth, old, before)
    return theorem


def _solve_new(theorem: Theorem, depth: int, old: int, before: set[Guard]) -> Theorem:
    """Contract the equations that were not there before, for the first ``old`` variables of their monomial."""
    fresh = next((_fresh(m, before) for _, m, own in scopes(theorem.rhs) if own == depth and _fresh(m, before)), [])
    while fresh:
        guard, *fresh = fresh
        where = next((w for w, m, own in scopes(theorem.rhs) if own == depth and guard in m.guards), None)
        level = next((k for k in range(depth, depth + old) if guard.indices()[0].slope(k) in (1, -1)), None)
        if where is None or level is None:
            continue
        theorem = kernel.rewrite(theorem, where, Contract(level - depth, guard))
        fresh = [_closed_up(g, level) for g in fresh]
        old -= 1
    return theorem


def _fresh(m: Monomial, before: set[Guard]) -> list[Zero]:
    return [g for g in m.guards if isinstance(g, Zero) and g not in before]


def _closed_up(guard: Zero, level: int) -> Zero:
    """An equation that does not speak of the variable ``level``, once that variable is gone."""

    def down(atom: Atom) -> Index | None:
        return var(atom.level - 1) if isinstance(atom, Var) and atom.level > level else None

    return Zero(guard.e.substitute(down))


def _speaks_of(guard: Guard, level: int) -> bool:
    return any(level in e.variables for e in guard.indices())


def tidy(theorem: Theorem) -> Theorem:
    """Remove every guard that follows from the others, the intervals and the boxes of direct reads."""
    for where, _ in list(positions(theorem.rhs)):
        at = kernel.place(theorem, where)
        kept = needed_guards(at)
        if kept != at.monomial.guards:
            theorem = kernel.rewrite(theorem, where, Reguard(at.monomial.binders, kept))
            return tidy(theorem)
    return theorem


def needed_guards(at: Place) -> tuple[Guard, ...]:
    """The monomial's guards without those that follow from what is left, tried in order."""
    kept = list(at.monomial.guards)
    known = at.hypotheses + ranges(at.monomial.binders, at.depth) + at.boxes()
    for guard in sorted(kept, key=lambda g: (isinstance(g, NonNegative), len(g.text)), reverse=True):
        others = [g for g in kept if g != guard]
        if ask_near(question([*known, *others], guard), 2_000_000).status == "proved":
            kept = others
    return tuple(kept)


def derivative(theorem: Theorem, names: Iterable[str]) -> Theorem:
    """Unfold the tensors of these names, differentiate, solve the equations that brings, drop idle guards."""
    return tidy(contract_all(differentiate_all(unfold_all(theorem, names))))


def reorder(theorem: Theorem, where: Where, order: Sequence[int]) -> Theorem:
    """The same sum with its variables in another order; their intervals must not depend on one another."""
    at = kernel.place(theorem, where)
    binders = tuple(at.monomial.binders[k] for k in order)
    back = [list(order).index(k) for k in range(len(order))]
    forward = tuple(var(at.depth + b) for b in back)
    inverse = tuple(var(at.depth + k) for k in order)
    return tidy(kernel.rewrite(theorem, where, Reindex(binders, forward, inverse)))


def agree(left: Theorem, right: Theorem) -> Theorem:
    """``left.lhs = right.lhs`` from two theorems with the same right side."""
    return kernel.trans(left, kernel.sym(right))


__all__ = [
    "agree",
    "contract_all",
    "derivative",
    "differentiate_all",
    "find",
    "locate",
    "positions",
    "reorder",
    "tidy",
    "unfold_all",
]
