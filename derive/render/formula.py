"""From a term to notation: the part that plain text, LaTeX and HTML have in common.

A ``Notation`` walks over a term, names its variables on the way, and puts the pieces in the order a reader expects:
terms without a sum first, positive before negative, brackets of guards right after the sum they restrict, reciprocals
as denominators.  An expression comes out as *chunks*, pieces between which a line may be broken.  How a piece looks
(a product, a sum, a bracket) is what the subclasses say.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from copy import copy
from fractions import Fraction
from itertools import groupby
from typing import Self

from derive.indices import Atom, Guard, Index, Interval, Quotient, Sym, Var, var
from derive.render.names import Namer, Scope
from derive.render.relations import Relation, Side, Summand, interval_relations, relations, summands
from derive.terms import Apply, Derivative, Expr, Factor, Maximum, Monomial, Read, expression


class Notation(ABC):
    """Writes terms in one notation; ``namer`` chooses the names of variables."""

    space = " "

    def __init__(self, namer: Namer | None = None) -> None:
        self.namer = namer or Namer()

    def naming(self, namer: Namer) -> Self:
        """The same notation with another choice of names."""
        other = copy(self)
        other.namer = namer
        return other

    # --- how the pieces look ------------------------------------------------------------------------------------------

    @abstractmethod
    def name(self, name: str) -> str:
        """A size symbol, a variable or a tensor."""

    @abstractmethod
    def product(self, parts: Sequence[str]) -> str:
        """A product of atoms in an index."""

    @abstractmethod
    def power(self, base: str, exponent: int) -> str:
        """A power."""

    @abstractmethod
    def floor(self, numerator: str, denominator: str) -> str:
        """The floor of a quotient."""

    @abstractmethod
    def operator(self, operator: str) -> str:
        """One of ``<=  <  >=  =  |``, with space around it."""

    @abstractmethod
    def bracket(self, condition: str) -> str:
        """An Iverson bracket: 1 where the condition holds, else 0."""

    @abstractmethod
    def read(self, tensor: str, at: Sequence[str]) -> str:
        """A tensor at an index."""

    @abstractmethod
    def sum(self, bounds: Sequence[tuple[str, str, str]], condition: str) -> str:
        """A sum over variables: (name, lowest, highest value) of each, and all bounds as one condition."""

    @abstractmethod
    def maximum(self, condition: str) -> str:
        """The sign for the largest value under a condition."""

    @abstractmethod
    def function(self, name: str) -> str:
        """The sign for a scalar function."""

    @abstractmethod
    def brackets(self, *, tall: bool) -> tuple[str, str]:
        """Round brackets, around something tall or not, with the blank before them."""

    @abstractmethod
    def fraction(self, numerator: str, denominator: str, several: bool) -> str:
        """A quotient of expressions; ``several`` says that the denominator needs brackets on a line."""

    @abstractmethod
    def derivative(self, expr: str, target: str) -> str:
        """``d expr / d target``, or the operator where no ``expr`` is given."""

    @abstractmethod
    def inline(self, formula: str) -> str:
        """A formula within prose."""

    @abstractmethod
    def prose(self, text: str) -> str:
        """Prose, with what is special in this notation escaped."""

    # --- indices and guards -------------------------------------------------------------------------------------------

    def index(self, e: Index, scope: Scope) -> str:
        """An index."""
        return self.side(summands(e), scope)

    def side(self, side: Side, scope: Scope) -> str:
        """A sum of terms of an index."""
        text = ""
        for k, s in enumerate(side):
            sign = "-" if s.coefficient < 0 else "+" if k else ""
            gap = " " if k else ""
            text += f"{gap}{sign}{gap}{self._summand(s, scope)}"
        return text or "0"

    def _summand(self, s: Summand, scope: Scope) -> str:
        size = abs(s.coefficient)
        parts = [str(size)] if size != 1 or not s.atoms else []
        for atom, same in groupby(s.atoms):
            count = len(list(same))
            text = self.atom(atom, scope)
            parts.append(text if count == 1 else self.power(text, count))
        if s.less_one is not None:
            parts.append(f"({self.atom(s.less_one, scope)} - 1)")
        return self.product(parts)

    def atom(self, atom: Atom, scope: Scope) -> str:
        """A symbol, a variable by its name in scope, or a floor division."""
        if isinstance(atom, Sym):
            return self.name(atom.name)
        if isinstance(atom, Var):
            return self.name(scope[atom.level])
        assert isinstance(atom, Quotient)
        return self.floor(self._operand(atom.numerator, scope), self._operand(atom.denominator, scope))

    def _operand(self, e: Index, scope: Scope) -> str:
        text = self.index(e, scope)
        plain = len(e.terms) == 1 and len(e.terms[0][0]) <= 1 and e.terms[0][1] in (1, e.constant)
        return text if plain else f"({text})"

    def relation(self, r: Relation, scope: Scope) -> str:
        """A chain of comparisons."""
        sides = [", ".join(self.side(s, scope) for s in several) for several in r.sides]
        text = sides[0]
        for operator, side in zip(r.operators, sides[1:], strict=True):
            text += self.operator(operator) + side
        return text

    def conditions(self, guards: Sequence[Guard], scope: Scope) -> list[str]:
        """Guards as conditions, like ones together."""
        return [self.relation(r, scope) for r in relations(guards)]

    def intervals(self, intervals: Sequence[Interval], scope: Scope, start: int) -> list[str]:
        """The bounds of variables ``start, start + 1, ...`` as conditions, like ones together."""
        return [self.relation(r, scope) for r in interval_relations(intervals, start)]

    # --- expressions --------------------------------------------------------------------------------------------------

    def expr(self, e: Expr, scope: Scope) -> str:
        """An expression in one piece."""
        return self.space.join(self.chunks(e, scope))

    def chunks(self, e: Expr, scope: Scope) -> list[str]:
        """An expression in pieces between which a line may be broken."""
        found: list[str] = []
        for k, m in enumerate(sorted(e.monomials, key=_reading_order)):
            pieces = self.monomial(m, scope)
            sign = "-" if m.coefficient < 0 else "+" if k else ""
            found.extend([self.signed(sign, pieces[0], bool(k)), *pieces[1:]])
        return found or ["0"]

    def signed(self, sign: str, piece: str, later: bool) -> str:
        """The first piece of a term with its sign."""
        return f"{sign} {piece}" if later else f"{sign}{piece}"

    def monomial(self, m: Monomial, scope: Scope) -> list[str]:
        """The pieces of a monomial, without its sign."""
        inner = self.namer.extend(scope, m.binders, m.factors)
        pieces = [self._sum(m.binders, inner, len(scope))] if m.binders else []
        pieces += [self.bracket(c) for c in self.conditions(m.guards, inner)]
        body = self._body(abs(m.coefficient), m.factors, inner, bare=not m.guards)
        return [*pieces, *body]

    def _sum(self, intervals: Sequence[Interval], scope: Scope, start: int) -> str:
        bounds = [
            (self.name(scope[start + k]), self.index(lo, scope), self.index(hi - 1, scope))
            for k, (lo, hi) in enumerate(intervals)
        ]
        return self.sum(bounds, ", ".join(self.intervals(intervals, scope, start)))

    def _body(self, coefficient: Fraction, factors: Sequence[Factor], scope: Scope, bare: bool) -> list[str]:
        """Coefficient and factors, the reciprocals among them as a denominator; nothing for a 1 after a bracket."""
        below = [f.argument for f in factors if isinstance(f, Apply) and f.function == "recip"]
        above = self._powers([f for f in factors if not _is_reciprocal(f)], scope)
        if not below:
            number = [[self.rational(coefficient)]] if coefficient != 1 or (bare and not above) else []
            return self.joined([*number, *above])
        if coefficient.numerator != 1:
            above.insert(0, [str(coefficient.numerator)])
        bottom = [str(coefficient.denominator)] if coefficient.denominator != 1 else []
        if len(bottom) + len(below) == 1:
            bottom = [self.expr(below[0], scope)]
        else:
            bottom += [self._group(e, len(list(same)), scope) for e, same in groupby(below)]
        several = len(bottom) > 1 or (len(below) == 1 and not _is_one_factor(below[0]))
        top = self.space.join(self.joined(above)) or "1"
        return [self.fraction(top, self.space.join(self.joined([[b] for b in bottom])), several)]

    def _group(self, e: Expr, exponent: int, scope: Scope) -> str:
        text = self.expr(e, scope)
        opening, closing = self.brackets(tall=any(m.binders for m in e.monomials))
        text = text if _is_one_factor(e) else f"{opening}{text}{closing}".strip()
        return text if exponent == 1 else self.power(text, exponent)

    def rational(self, value: Fraction) -> str:
        """A positive rational number."""
        return str(value)

    def joined(self, groups: Sequence[Sequence[str]]) -> list[str]:
        """The pieces of factors that are multiplied, one after the other."""
        return [piece for group in groups for piece in group]

    def _powers(self, factors: Iterable[Factor], scope: Scope) -> list[list[str]]:
        found = []
        for f, same in groupby(sorted(factors, key=_shifted)):
            count = len(list(same))
            found.append(self.pieces(f, scope) if count == 1 else [self.power(self.factor(f, scope), count)])
        return found

    def factor(self, f: Factor, scope: Scope) -> str:
        """A factor in one piece."""
        return self.space.join(self.pieces(f, scope))

    def pieces(self, f: Factor, scope: Scope) -> list[str]:
        """A factor in pieces."""
        if isinstance(f, Read):
            return [self._at(f, scope)]
        if isinstance(f, Apply):
            if f.function == "recip":
                return [self.fraction("1", self.expr(f.argument, scope), not _is_one_factor(f.argument))]
            return self._call(self.function(f.function), f.argument, scope)
        if isinstance(f, Maximum):
            uses = [g for m in f.body.monomials for g in m.factors]
            inner = self.namer.extend(scope, f.binders, uses)
            bounds = [*self.intervals(f.binders, inner, len(scope)), *self.conditions(f.guards, inner)]
            return self._call(self.maximum(", ".join(bounds)), f.body, inner)
        assert isinstance(f, Derivative)
        if _is_one_factor(f.expr):
            return [self.derivative(self.expr(f.expr, scope), self._at(f, scope))]
        return self._call(self.derivative("", self._at(f, scope)), f.expr, scope)

    def _at(self, f: Read | Derivative, scope: Scope) -> str:
        return self.read(self.name(f.tensor.name), [self.index(e, scope) for e in f.at])

    def _call(self, head: str, e: Expr, scope: Scope) -> list[str]:
        """Something applied to an expression in round brackets, in pieces."""
        inner = self.chunks(e, scope)
        opening, closing = self.brackets(tall=any(m.binders for m in e.monomials))
        inner[0] = f"{head}{opening}{inner[0]}"
        inner[-1] = f"{inner[-1]}{closing}"
        return inner

    def fragment(self, depth: int, m: Monomial, scope: Scope) -> list[str]:
        """The pieces of one monomial with its sign."""
        return self.chunks(expression(depth, [m]), scope)


def _is_one_factor(e: Expr) -> bool:
    """Whether the expression is one factor as it stands, so that no brackets are needed around it."""
    if len(e.monomials) != 1:
        return False
    m = e.monomials[0]
    return m.coefficient == 1 and not m.binders and not m.guards and len(m.factors) == 1


def _shifted(f: Factor) -> bool:
    """Whether a factor is a read at a composed index: ``w[a] X[i + a]`` is written in this order."""
    return isinstance(f, Read) and any(e != var(v) for e in f.at for v in [min(e.variables, default=-1)] if v >= 0)


def _is_reciprocal(f: Factor) -> bool:
    return isinstance(f, Apply) and f.function == "recip"


def _reading_order(m: Monomial) -> tuple[bool, bool]:
    return m.coefficient < 0, bool(m.binders)
