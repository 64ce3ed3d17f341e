"""The rules that rewrite one monomial, each with its side condition.

A rule is data: its arguments are its fields, so a derivation can be printed, saved and tried at random.  ``rewrite``
gives the expression that is equal to the monomial at a ``Place``, under what is known there; what it needs for that
goes to the ledger.  Rules have slots, so that no object can carry a method of its own over one of these.  This file
is part of what must be trusted; ``derive.kernel`` applies the rules named in ``RULES`` and no others.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import ClassVar, Union

from derive import calculus
from derive.indices import (
    Divides,
    Guard,
    Index,
    Interval,
    NonNegative,
    Zero,
    equal,
    index,
    inside,
    var,
    variables,
)
from derive.obligations import Ledger, Refused
from derive.solver import FALSE
from derive.terms import (
    Apply,
    Derivative,
    Expr,
    Factor,
    Monomial,
    Read,
    Substitution,
    Tensor,
    expression,
    instantiate,
    ranges,
    term,
    within,
)
from derive.wellformed import check_scope, divisors


@dataclass(frozen=True)
class Place:
    """A monomial where it stands: its scope, what is known there, and the tensors being differentiated around it."""

    depth: int
    monomial: Monomial
    hypotheses: tuple[Guard, ...]
    targets: tuple[Tensor, ...] = ()

    @property
    def scope(self) -> int:
        """The number of variables in scope inside the monomial."""
        return self.depth + len(self.monomial.binders)

    @property
    def known(self) -> tuple[Guard, ...]:
        """What may be used inside the monomial: what holds around it, its intervals and its guards."""
        return self.hypotheses + ranges(self.monomial.binders, self.depth) + self.monomial.guards

    def factor(self, position: int) -> Factor:
        """A factor by its number."""
        if position not in range(len(self.monomial.factors)):
            raise Refused(f"factor={position}: the monomial has {len(self.monomial.factors)} factors")
        return self.monomial.factors[position]

    def boxes(self) -> tuple[Guard, ...]:
        """That the direct reads lie in their boxes: where one does not, the monomial is zero."""
        return tuple(g for f in self.monomial.factors if isinstance(f, Read) for g in f.in_box())

    def without(self, *positions: int) -> Monomial:
        """The monomial without these factors."""
        kept = tuple(f for k, f in enumerate(self.monomial.factors) if k not in positions)
        return replace(self.monomial, factors=kept)

    def times(self, rest: Monomial, inner: Expr) -> Expr:
        """``rest * inner``, multiplied out."""
        return expression(self.depth, within(self.depth, rest, inner))


@dataclass(frozen=True, slots=True)
class Unfold:
    """Replace a read of a defined tensor by its body; box guards that are not proved to hold are added."""

    name: ClassVar[str] = "unfold"
    factor: int

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        read = at.factor(self.factor)
        if not isinstance(read, Read) or read.tensor.body is None:
            raise Refused(f"{read.text} is not a read of a defined tensor")
        if read.tensor in at.targets:
            raise Refused(f"{read.tensor.name} is being differentiated by: it has to stay folded")
        body = instantiate(read.tensor.body, read.at, at.scope)
        left = tuple(g for g in read.in_box() if not ledger.holds(at.known, g))
        guarded = expression(at.scope, [replace(m, guards=m.guards + left) for m in body.monomials])
        return at.times(at.without(self.factor), guarded)


@dataclass(frozen=True, slots=True)
class Reindex:
    """The same sum in new variables: ``old = forward(new)``, ``new = inverse(old)``.

    ``binders`` and ``guards`` give the range of the new variables.  Shown: on the old range ``inverse(old)`` lies in
    the new one and ``forward(inverse(old)) = old``; on the new range, where ``forward(new)`` lies in the old one,
    ``inverse(forward(new)) = new``.
    """

    name: ClassVar[str] = "reindex"
    binders: tuple[Interval, ...]
    forward: tuple[Index, ...]
    inverse: tuple[Index, ...]
    guards: tuple[Guard, ...] = ()

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        old, depth = at.monomial, at.depth
        self._check(at, ledger)
        fixed = variables(0, depth)
        to_new = Substitution(at.scope, (*fixed, *self.forward), depth + len(self.binders))
        to_old = Substitution(depth + len(self.binders), (*fixed, *self.inverse), at.scope)
        new_range = ranges(self.binders, depth) + self.guards
        ledger.require(at.known, map(to_old.guard, new_range), "reindex: the inverse leaves the new range")
        back = [equal(to_old.index(f), var(depth + k)) for k, f in enumerate(self.forward)]
        ledger.require(at.known, back, "reindex: forward(inverse(old)) is not old")
        carried = tuple(map(to_new.guard, ranges(old.binders, depth) + old.guards))
        known = at.hypotheses + new_range + carried
        there = [equal(to_new.index(f), var(depth + k)) for k, f in enumerate(self.inverse)]
        ledger.require(known, there, "reindex: inverse(forward(new)) is not new")
        factors = tuple(map(to_new.factor, old.factors))
        return expression(depth, [Monomial(old.coefficient, self.binders, self.guards + carried, factors)])

    def _check(self, at: Place, ledger: Ledger) -> None:
        old, new, depth = len(at.monomial.binders), len(self.binders), at.depth
        if len(self.forward) != old or len(self.inverse) != new:
            raise Refused(f"reindex: {old} variables become {new}; forward or inverse has another length")
        check_scope(term(depth, over=self.binders, guards=self.guards))
        check_scope(term(depth + new, guards=_mention(self.forward)))
        check_scope(term(depth + old, guards=_mention(self.inverse)))
        new_range = ranges(self.binders, depth) + self.guards
        divisors([e for g in new_range for e in g.indices()], at.hypotheses, ledger)
        divisors(self.inverse, at.known, ledger)
        divisors(self.forward, at.hypotheses + new_range, ledger)


@dataclass(frozen=True, slots=True)
class Contract:
    """``Sum_k [a k + b == 0] f(k) = [a | -b] f(-b // a)`` with k's interval as guards, for a >= 1 after a sign change.

    ``variable`` numbers the monomial's own variables; ``guard`` is the equation to solve for it.
    """

    name: ClassVar[str] = "contract"
    variable: int
    guard: Guard

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        m, level = at.monomial, at.depth + self.variable
        a, b = self._solve(at)
        if any(level in e.variables for bounds in m.binders for e in bounds):
            raise Refused("contract: the interval of another variable depends on the one to be contracted")
        others = tuple(g for g in m.guards if g != self.guard)
        known = at.hypotheses + tuple(g for g in ranges(m.binders, at.depth) + others if not _speaks_of(g, level))
        if not ledger.holds(known, NonNegative(a - 1)):
            a, b = -a, -b
            ledger.require(known, [NonNegative(a - 1)], "contract: the coefficient")
        divides: tuple[Guard, ...] = () if a.constant == 1 else (Divides(a, -b),)
        guards = others + inside(var(level), m.binders[self.variable]) + divides
        return eliminate(at, self.variable, (-b) // a, guards)

    def _solve(self, at: Place) -> tuple[Index, Index]:
        if self.variable not in range(len(at.monomial.binders)):
            raise Refused(f"variable={self.variable}: the monomial binds {len(at.monomial.binders)} variables")
        if type(self.guard) is not Zero or self.guard not in at.monomial.guards:
            raise Refused(f"{self.guard.text} is not an equation among the guards")
        parts = self.guard.e.linear_in(at.depth + self.variable)
        if parts is None or not parts[0].terms:
            raise Refused(f"{self.guard.text} is not linear in the variable to be contracted")
        return parts


@dataclass(frozen=True, slots=True)
class Reguard:
    """Other intervals and guards that admit the same indices, given the boxes of the tensors read *directly*."""

    name: ClassVar[str] = "reguard"
    binders: tuple[Interval, ...]
    guards: tuple[Guard, ...]

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        m = at.monomial
        if len(self.binders) != len(m.binders):
            raise Refused(f"reguard keeps the number of variables: {len(m.binders)}, not {len(self.binders)}")
        check_scope(term(at.depth, over=self.binders, guards=self.guards))
        before = ranges(m.binders, at.depth) + m.guards
        after = ranges(self.binders, at.depth) + self.guards
        divisors([e for g in after for e in g.indices()], at.hypotheses, ledger)
        known = at.hypotheses + at.boxes()
        ledger.require(known + before, after, "reguard: a new guard does not follow from the old ones")
        ledger.require(known + after, before, "reguard: an old guard does not follow from the new ones")
        return expression(at.depth, [replace(m, binders=self.binders, guards=self.guards)])


@dataclass(frozen=True, slots=True)
class RewriteIndex:
    """Another index, equal under the guards, in one axis of a read."""

    name: ClassVar[str] = "rewrite index"
    factor: int
    axis: int
    new: Index

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        read = at.factor(self.factor)
        if not isinstance(read, Read) or self.axis not in range(read.tensor.rank):
            raise Refused(f"{read.text} is not a read with an axis {self.axis}")
        check_scope(term(at.scope, guards=_mention((self.new,))))
        divisors((self.new,), at.known, ledger)
        ledger.require(at.known, [equal(read.at[self.axis], self.new)], "rewrite index")
        changed = Read(read.tensor, read.at[: self.axis] + (self.new,) + read.at[self.axis + 1 :])
        factors = (*at.without(self.factor).factors, changed)
        return expression(at.depth, [replace(at.monomial, factors=factors)])


@dataclass(frozen=True, slots=True)
class Case:
    """Split a sum on ``e >= 0`` and ``e <= -1``."""

    name: ClassVar[str] = "case"
    guard: NonNegative

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        m = at.monomial
        if type(self.guard) is not NonNegative:
            raise Refused(f"{self.guard.text} is no guard e >= 0: only of such a guard e <= -1 is the other case")
        check_scope(term(at.scope, guards=[self.guard]))
        divisors(self.guard.indices(), at.known, ledger)
        other = NonNegative(-self.guard.e - 1)
        return expression(at.depth, [replace(m, guards=(*m.guards, g)) for g in (self.guard, other)])


@dataclass(frozen=True, slots=True)
class Drop:
    """Remove a monomial whose guards contradict each other or the boxes of what it reads directly."""

    name: ClassVar[str] = "drop"

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        ledger.require(at.known + at.boxes(), [FALSE], "drop: the guards are satisfiable")
        return expression(at.depth, [])


@dataclass(frozen=True, slots=True)
class Count:
    """``Sum_{lo <= a < hi} f = max(hi - lo, 0) f`` for f free of a and bounds that are numbers."""

    name: ClassVar[str] = "count"
    variable: int

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        m, level = at.monomial, at.depth + self.variable
        if self.variable not in range(len(m.binders)):
            raise Refused(f"variable={self.variable}: the monomial binds {len(m.binders)} variables")
        lo, hi = (e.constant for e in m.binders[self.variable])
        if lo is None or hi is None:
            raise Refused("count: the interval has to be between numbers, a coefficient is a rational number")
        moved = Substitution(at.scope, tuple(var(v) + int(v == level) for v in range(at.scope)), at.scope)
        if moved.monomial(m) != m:
            raise Refused("count: the summand depends on the variable")
        kept = replace(at, monomial=replace(m, coefficient=m.coefficient * max(hi - lo, 0)))
        return eliminate(kept, self.variable, index(0), m.guards)


@dataclass(frozen=True, slots=True)
class Differentiate:
    """Work a derivative out by ``derive.calculus.differentiate``."""

    name: ClassVar[str] = "differentiate"
    factor: int

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        d = at.factor(self.factor)
        if not isinstance(d, Derivative):
            raise Refused(f"{d.text} is not a derivative")
        ledger.conditions.extend(calculus.conventions(d.expr, d.tensor))
        return at.times(at.without(self.factor), calculus.differentiate(d.expr, d.tensor, d.at))


@dataclass(frozen=True, slots=True)
class ExpSum:
    """exp(a + b) = exp(a) exp(b); ``chosen`` numbers the monomials of the argument that make up b."""

    name: ClassVar[str] = "law exp-sum"
    factor: int
    chosen: tuple[int, ...]

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        return at.times(at.without(self.factor), calculus.law_exp_sum(at.factor(self.factor), self.chosen))


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """sigmoid(x) = recip(1 + exp(-x))."""

    name: ClassVar[str] = "law sigmoid"
    factor: int

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        return at.times(at.without(self.factor), calculus.law_sigmoid(at.factor(self.factor)))


@dataclass(frozen=True, slots=True)
class SigmoidTanh:
    """sigmoid(x) = 1/2 + 1/2 tanh(x/2)."""

    name: ClassVar[str] = "law sigmoid-tanh"
    factor: int

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        return at.times(at.without(self.factor), calculus.law_sigmoid_tanh(at.factor(self.factor)))


@dataclass(frozen=True, slots=True)
class RecipFactor:
    """recip(c x) = recip(c) recip(x), c a factor of every monomial of the argument, where both exist.

    That is a condition, unless the argument is positive by its form.
    """

    name: ClassVar[str] = "law recip-factor"
    factor: int
    common: Factor

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        check_scope(term(at.scope, self.common))
        factor = at.factor(self.factor)
        new = calculus.law_recip_factor(factor, self.common)
        if not _positive_argument(at, factor, ledger):
            ledger.conditions.append(f"{factor.text} is the reciprocal of a number that is not 0")
        return at.times(at.without(self.factor), new)


@dataclass(frozen=True, slots=True)
class RecipScale:
    """recip(q x) = recip(x) / q for a rational number q that is not 0."""

    name: ClassVar[str] = "law recip-scale"
    factor: int
    scale: Fraction

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        return at.times(at.without(self.factor), calculus.law_recip_scale(at.factor(self.factor), Fraction(self.scale)))


@dataclass(frozen=True, slots=True)
class LogFactor:
    """log(exp(a) x) = a + log(x), exp(a) a factor of every monomial of the argument, where x > 0.

    That is a condition, unless the argument is positive by its form.
    """

    name: ClassVar[str] = "law log-factor"
    factor: int
    common: Factor

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        check_scope(term(at.scope, self.common))
        factor = at.factor(self.factor)
        new = calculus.law_log_factor(factor, self.common)
        if not _positive_argument(at, factor, ledger):
            ledger.conditions.append(f"{factor.text} is the logarithm of a positive number")
        return at.times(at.without(self.factor), new)


@dataclass(frozen=True, slots=True)
class Cancel:
    """x recip(x) = 1, on the condition that x is not 0, unless x is positive by its form."""

    name: ClassVar[str] = "law cancel"
    factor: int
    reciprocal: int

    def rewrite(self, at: Place, ledger: Ledger) -> Expr:
        """See the class."""
        if self.factor == self.reciprocal:
            raise Refused("cancel: one factor is not a pair")
        x = calculus.reciprocal_pair(at.factor(self.factor), at.factor(self.reciprocal))
        if not calculus.discharged(x):
            ledger.conditions.append(f"{x.text} is not 0")
        return expression(at.depth, [at.without(self.factor, self.reciprocal)])


Rule = Union[
    Unfold, Reindex, Contract, Reguard, RewriteIndex, Case, Drop, Count, Differentiate,
    ExpSum, Sigmoid, SigmoidTanh, RecipFactor, RecipScale, LogFactor, Cancel,
]  # fmt: skip
RULES: tuple[type[Rule], ...] = (
    Unfold, Reindex, Contract, Reguard, RewriteIndex, Case, Drop, Count, Differentiate,
    ExpSum, Sigmoid, SigmoidTanh, RecipFactor, RecipScale, LogFactor, Cancel,
)  # fmt: skip


def _positive_argument(at: Place, factor: Factor, ledger: Ledger) -> bool:
    """Whether the argument of a function is positive by its form: positive terms, and one sum that is not empty."""
    if not isinstance(factor, Apply) or not calculus.positive_terms(factor.argument):
        return False
    return any(
        all(ledger.holds(at.known, NonNegative(hi - lo - 1)) for lo, hi in m.binders) for m in factor.argument.monomials
    )


def eliminate(at: Place, variable: int, value: Index, guards: Iterable[Guard]) -> Expr:
    """Put a value, free of it, for one bound variable; the variables after it move up by one."""
    level, m = at.depth + variable, at.monomial
    without = Substitution(at.scope, tuple(var(v - int(v > level)) for v in range(at.scope)), at.scope - 1)
    here = without.index(value)
    values = tuple(here if v == level else var(v - int(v > level)) for v in range(at.scope))
    put = Substitution(at.scope, values, at.scope - 1)
    rest = m.binders[:variable] + m.binders[variable + 1 :]
    binders = tuple((put.index(lo), put.index(hi)) for lo, hi in rest)
    factors = tuple(map(put.factor, m.factors))
    return expression(at.depth, [Monomial(m.coefficient, binders, tuple(map(put.guard, guards)), factors)])


def _mention(indices: Iterable[Index]) -> list[Guard]:
    """Guards that mention these indices, for a check of scope."""
    return [NonNegative(e) for e in indices]


def _speaks_of(guard: Guard, level: int) -> bool:
    return any(level in e.variables for e in guard.indices())
