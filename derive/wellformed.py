"""What a term must satisfy before a theorem may speak of it.

Every variable is bound where it stands, every divisor is at least one there, every maximum is over something, one name
means one tensor, and the theory is strong enough for the functions that occur.  Bodies of definitions are held to
the same, inside their boxes.  This file is part of what must be trusted.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import cast

from derive.indices import Divides, Guard, Index, NonNegative, Quotient, Sym, Var, Zero
from derive.obligations import Ledger, Refused
from derive.terms import Apply, Derivative, Expr, Factor, Maximum, Monomial, Read, Tensor, box_guards, ranges

THEORIES = ("commutative ring", "field", "ordered field", "reals with elementary functions")


def check_scope(e: Expr) -> None:
    """Raise ValueError unless every variable of the expression is bound where it stands.

    Raise TypeError for what only looks like a term: a subclass with an equality or a text of its own could make two
    different things pass for one, and a coefficient that is no rational number would not be substituted in.
    """
    _exactly(e, Expr)
    for m in e.monomials:
        _exactly(m, Monomial)
        _exactly(m.coefficient, Fraction)
        scope = e.depth + len(m.binders)
        for k, bounds in enumerate(m.binders):
            check_variables(bounds, e.depth + k)
        check_guards(m.guards, scope)
        for f in m.factors:
            _check_factor_scope(f, scope)


def _exactly(thing: object, *kinds: type) -> None:
    if type(thing) not in kinds:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{thing!r} is of type {type(thing).__name__}, where {wanted} is needed")


def _check_factor_scope(f: Factor, scope: int) -> None:
    _exactly(f, Read, Apply, Maximum, Derivative)
    if isinstance(f, (Read, Derivative)):
        _exactly(f.tensor, Tensor)
        check_variables(f.at, scope)
    inner = f.argument if isinstance(f, Apply) else f.body if isinstance(f, Maximum) else None
    extra = 0
    if isinstance(f, Derivative):
        inner = f.expr
    elif isinstance(f, Maximum):
        extra = len(f.binders)
        for k, bounds in enumerate(f.binders):
            check_variables(bounds, scope + k)
        check_guards(f.guards, scope + extra)
    if inner is not None:
        if inner.depth != scope + extra:
            raise ValueError(f"{f.text}: an expression of depth {inner.depth} stands in a scope of {scope + extra}")
        check_scope(inner)


def check_guards(guards: Iterable[Guard], scope: int) -> None:
    """Raise unless these are guards in the scope of so many variables."""
    for g in guards:
        _exactly(g, NonNegative, Zero, Divides)
        check_variables(g.indices(), scope)


def check_variables(indices: Iterable[Index], scope: int) -> None:
    """Raise unless these are indices in the scope of so many variables."""
    for e in indices:
        _check_index(e)
        if any(level >= scope for level in e.variables):
            raise ValueError(f"{e.text}: a variable is not bound here, where {scope} are in scope")


def _check_index(e: Index) -> None:
    _exactly(e, Index)
    for atom in e.atoms():
        _exactly(atom, Sym, Var, Quotient)
        if isinstance(atom, Quotient):
            _check_index(atom.numerator)
            _check_index(atom.denominator)


def well_formed(e: Expr, known: tuple[Guard, ...], facts: tuple[Guard, ...], ledger: Ledger) -> None:
    """Every divisor at least one, every maximum over something, also inside the bodies of definitions."""
    for m in e.monomials:
        inner = known + ranges(m.binders, e.depth) + m.guards
        divisors([i for bounds in m.binders for i in bounds], known, ledger)
        divisors_of_guards(m.guards, known + ranges(m.binders, e.depth), ledger)
        for f in m.factors:
            _factor_well_formed(f, e.depth + len(m.binders), inner, facts, ledger)


def _factor_well_formed(
    f: Factor, scope: int, known: tuple[Guard, ...], facts: tuple[Guard, ...], ledger: Ledger
) -> None:
    if isinstance(f, (Read, Derivative)):
        divisors(f.at, known, ledger)
        _tensor_well_formed(f.tensor, facts)
    if isinstance(f, Apply):
        well_formed(f.argument, known, facts, ledger)
    elif isinstance(f, Derivative):
        well_formed(f.expr, known, facts, ledger)
    elif isinstance(f, Maximum):
        if f.guards:
            raise Refused(f"{f.text}: a maximum under guards is not supported: its window could be empty")
        divisors([i for bounds in f.binders for i in bounds], known, ledger)
        ledger.require(known, [NonNegative(hi - lo - 1) for lo, hi in f.binders], "a maximum over nothing")
        well_formed(f.body, known + ranges(f.binders, scope), facts, ledger)


@lru_cache(maxsize=10_000)
def _tensor_well_formed(t: Tensor, facts: tuple[Guard, ...]) -> None:
    ledger = Ledger()
    for bounds in t.box:
        check_variables(bounds, 0)
    divisors([i for bounds in t.box for i in bounds], facts, ledger)
    if t.body is not None:
        check_scope(t.body)
        well_formed(t.body, facts + box_guards(t), facts, ledger)


def divisors(indices: Iterable[Index], known: tuple[Guard, ...], ledger: Ledger) -> None:
    """Require every divisor in these indices to be at least one, given what is known."""
    for e in indices:
        for atom in e.atoms():
            if isinstance(atom, Quotient):
                divisors((atom.numerator, atom.denominator), known, ledger)
                goal = NonNegative(atom.denominator - 1)
                if atom.denominator.constant is None:
                    ledger.require(known, [goal], "a divisor")


def divisors_of_guards(guards: Iterable[Guard], known: tuple[Guard, ...], ledger: Ledger) -> None:
    """Require every divisor in these guards to be at least one, given what is known."""
    for g in guards:
        divisors(g.indices(), known, ledger)
        if isinstance(g, Divides):
            ledger.require(known, [NonNegative(g.m - 1)], "a divisor")


def theory_of(e: Expr) -> str:
    """The weakest theory in which the expression has a meaning."""
    level = 0
    for m in e.monomials:
        level = max(level, int(m.coefficient.denominator != 1))
        for f in m.factors:
            if isinstance(f, Apply):
                own = {"recip": 1, "relu": 2, "step": 2}.get(f.function, 3)
                level = max(level, own, THEORIES.index(theory_of(f.argument)))
            elif isinstance(f, Maximum):
                level = max(level, 2, THEORIES.index(theory_of(f.body)))
            elif isinstance(f, Derivative):
                level = max(level, THEORIES.index(theory_of(f.expr)))
            elif f.tensor.body is not None:
                level = max(level, THEORIES.index(_body_theory(f.tensor)))
    return THEORIES[level]


@lru_cache(maxsize=10_000)
def _body_theory(t: Tensor) -> str:
    return theory_of(cast(Expr, t.body))


def one_tensor_a_name(*sides: Expr) -> None:
    """Refuse two different tensors of one name: a reader could not tell them apart."""
    seen: dict[str, Tensor] = {}
    for t in {t for e in sides for t in e.tensors}:
        for inner in t.reads_of_body:
            if seen.setdefault(inner.name, inner) != inner:
                raise Refused(f"two different tensors are called {inner.name}: rename one")
