"""How an inequality between polynomials is written down: terms moved to where a reader expects them.

The term language keeps every guard as ``e >= 0``, ``e == 0`` or ``m | e`` with ``e`` multiplied out.  A reader expects
``0 <= i s + a d - p < n``, two guards in one chain, ``C, n >= 1`` for several sizes, and ``d (k - 1)`` for
``d k - d``.  Everything here is a choice of notation: each relation says exactly what its guards say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from derive.indices import Atom, Divides, Guard, Index, Interval, NonNegative, Sym, Var, var


@dataclass(frozen=True)
class Summand:
    """``coefficient * product of atoms``, times ``(less_one - 1)`` where that is given."""

    coefficient: int
    atoms: tuple[Atom, ...]
    less_one: Atom | None = None

    def negated(self) -> Summand:
        """The same with the other sign."""
        return Summand(-self.coefficient, self.atoms, self.less_one)


Side = tuple[Summand, ...]


@dataclass(frozen=True)
class Relation:
    """A chain ``sides[0] operators[0] sides[1] ...``; a side lists what it speaks of, mostly one polynomial."""

    sides: tuple[tuple[Side, ...], ...]
    operators: tuple[str, ...]


def summands(e: Index) -> Side:
    """The polynomial's terms, positive ones first, with ``d k - d`` gathered into ``d (k - 1)``."""
    return positive_first(_gathered(e))


def positive_first(side: Iterable[Summand]) -> Side:
    """The terms with the positive ones first; among them variables from the outermost, then sizes, then a number."""

    def order(s: Summand) -> tuple[object, ...]:
        levels = sorted(a.level for a in s.atoms if isinstance(a, Var))
        return s.coefficient < 0, not s.atoms, not levels, levels

    return tuple(sorted(side, key=order))


def _gathered(e: Index) -> list[Summand]:
    left = dict(e.terms)
    found: list[Summand] = []
    for product, coefficient in e.terms:
        if len(product) != 2 or not all(isinstance(a, Sym) for a in product):
            continue
        for outer, inner in (product, product[::-1]):
            if left.get((outer,)) == -coefficient and product in left and outer != inner:
                del left[product], left[(outer,)]
                found.append(Summand(coefficient, (outer,), inner))
    return [*(Summand(c, p) for p, c in left.items()), *found] if found else [Summand(c, p) for p, c in e.terms]


def relations(guards: Sequence[Guard]) -> list[Relation]:
    """The guards as a reader writes them: two bounds of one quantity in one chain, like statements together."""
    rest = sorted(guards, key=lambda g: (isinstance(g, NonNegative), isinstance(g, Divides)))
    found: list[Relation] = []
    while rest:
        guard = rest.pop(0)
        partner = next((g for g in rest if _bound_the_same(guard, g)), None)
        if partner is None:
            found.append(_single(guard))
        else:
            rest.remove(partner)
            found.append(_chain(guard, partner))
    return _together(found)


def interval_relations(intervals: Sequence[Interval], start: int) -> list[Relation]:
    """``low <= v < high`` for variables ``start, start + 1, ...``, those with one interval together."""
    chains = []
    for k, (lo, hi) in enumerate(intervals):
        closed = hi.constant is None and any(not p and c > 0 for p, c in hi.terms)
        top, operator = (hi - 1, "<=") if closed else (hi, "<")
        chains.append(Relation(((summands(lo),), (summands(var(start + k)),), (summands(top),)), ("<=", operator)))
    return _together(chains)


def _varying(e: Index) -> Index:
    """The part of a polynomial that depends on variables."""
    return Index(tuple((p, c) for p, c in e.terms if Index(((p, 1),)).variables))


def _bound_the_same(first: Guard, second: Guard) -> bool:
    """Whether the two are a lower and an upper bound of one quantity that varies."""
    if not (isinstance(first, NonNegative) and isinstance(second, NonNegative)):
        return False
    return bool(first.e.variables) and not (first.e + second.e).variables


def _chain(first: Guard, second: Guard) -> Relation:
    low, high = first.indices()[0], second.indices()[0]
    if _leads_negative(_varying(low)):
        low, high = high, low
    core = min((low, _varying(low)), key=lambda e: _length(e) + _length(e - low) + _length(e + high))
    below, above = core - low, core + high
    strict = any(not p and c < 0 for p, c in above.terms) or above.constant is not None
    top, operator = (above + 1, "<") if strict else (above, "<=")
    return Relation(((summands(below),), (summands(core),), (summands(top),)), ("<=", operator))


def _length(e: Index) -> int:
    return max(len(e.terms), 1)


def _leads_negative(e: Index) -> bool:
    return bool(e.terms) and e.terms[0][1] < 0


def _single(guard: Guard) -> Relation:
    if isinstance(guard, Divides):
        return Relation(((summands(guard.m),), (summands(guard.e),)), ("|",))
    if isinstance(guard, NonNegative):
        return _inequality(guard.e)
    return _equation(guard.e)


def _split(e: Index) -> tuple[Side, Side, int]:
    """``(P, N, c)`` with ``e = P - N + c`` and only positive terms in P and N."""
    terms = summands(e)
    constant = sum(s.coefficient for s in terms if not s.atoms)
    positive = tuple(s for s in terms if s.coefficient > 0 and s.atoms)
    negative = tuple(s.negated() for s in terms if s.coefficient < 0 and s.atoms)
    return positive, negative, constant


def _with(side: Side, constant: int) -> Side:
    return (*side, Summand(constant, ())) if constant or not side else side


def _inequality(e: Index) -> Relation:
    positive, negative, c = _split(e)
    if not negative:
        return Relation((((positive or _with((), 0)),), (_with((), -c),)), (">=",))
    if not positive:
        return Relation(((negative,), (_with((), c),)), ("<=",))
    if c == -1:
        return Relation(((negative,), (positive,)), ("<",))
    low, high = (_with(negative, -c), positive) if c < 0 else (negative, _with(positive, c))
    return Relation(((low,), (high,)), ("<=",))


def _equation(e: Index) -> Relation:
    """``v = rest`` for the outermost variable that stands alone, otherwise positive terms = negative terms."""
    alone = [(p[0].level, c) for p, c in e.terms if len(p) == 1 and isinstance(p[0], Var) and c in (1, -1)]
    for level, c in sorted(alone):
        rest = (e - var(level) * c) * -c
        if level not in rest.variables:
            return Relation(((summands(var(level)),), (summands(rest),)), ("=",))
    positive, negative, c = _split(e)
    right = _with(negative, -c) if c <= 0 else negative or _with((), 0)
    left = _with(positive, c) if c > 0 else positive or _with((), 0)
    return Relation(((left,), (right,)), ("=",))


def _together(found: Sequence[Relation]) -> list[Relation]:
    """Relations that differ only in one side, where each has a single atom, as one relation of several."""
    merged: list[Relation] = []
    for r in found:
        for k, old in enumerate(merged):
            both = _joined(old, r)
            if both is not None:
                merged[k] = both
                break
        else:
            merged.append(r)
    return merged


def _joined(old: Relation, new: Relation) -> Relation | None:
    if old.operators != new.operators or old.operators in (("=",), ("|",)):
        return None
    differ = [k for k, (a, b) in enumerate(zip(old.sides, new.sides, strict=True)) if a != b]
    if len(differ) != 1 or not all(_atomic(s) for s in (*old.sides[differ[0]], *new.sides[differ[0]])):
        return None
    k = differ[0]
    return Relation((*old.sides[:k], old.sides[k] + new.sides[k], *old.sides[k + 1 :]), old.operators)


def _atomic(side: Side) -> bool:
    return len(side) == 1 and side[0].coefficient == 1 and len(side[0].atoms) == 1 and side[0].less_one is None
