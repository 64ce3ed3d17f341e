"""How far a computed stage may lie from the exact one: what rounding does to its expression, read off the expression.

A stage sums terms, and a term is a product.  Multiply each term out and add the terms, in any order, blocked in any
way, a multiplication and an addition fused or not: a term then takes part in at most q roundings of its product and
K - 1 additions, K the number of terms of the sum (a bias is one).  Each is a factor 1 + d with |d| <= u, so

    |computed - exact|  <=  Sum of g |term| over the terms  +  eta (1 + g) times the number of products

with g = k u / (1 - k u) and k = q + K - 1; eta is the smallest number above zero, since a product may also underflow,
gradually.  For a plain sum of products w x with a bias this is the g_K (Sum |w x| + |b|) of the textbooks.

- Adding or multiplying by zero and one is exact, so only terms whose guards hold are counted.
- A constant p/q is itself rounded, unless it is a small integer over a power of two; multiplying by a power of two is
  exact, but for underflow.
- A scalar function brings its argument's error along, times how steep it is there, and errs by itself: recip is an IEEE
  division, relu and step are exact, and the others are *trusted* to lie within ``ULPS`` units in the last place.
- The largest of some numbers, and a copy, are exact.

This file counts and holds no arrays.  The bound itself depends on the numbers a stage reads; ``codegen.bounds`` puts
them in.  It holds unless something overflows.

Where subnormal numbers count as zero, those that are read as well as those that are computed (CuPy compiles CUDA text
so, with ``-ftz=true``), eta is the smallest normal number, every addition may underflow too, and so may what is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from codegen.plan import PlanError, Stage
from derive.indices import Index, index
from derive.terms import Apply, Derivative, Expr, Factor, Maximum, Monomial

# NumPy's policy for its vectorised functions; the C library's own are closer.
ULPS = {"exp": 4, "log": 4, "tanh": 4, "sigmoid": 4}
EXACT = frozenset({"relu", "step"})
SMALL = 1 << 11  # every IEEE format, half precision included, holds the integers up to here


@dataclass(frozen=True)
class Precision:
    """A floating-point format: the unit roundoff u and the smallest number above zero.

    ``flushes``: what would be subnormal counts as zero, wherever it is read or computed; eta is a normal number then.
    """

    name: str
    unit: Fraction
    eta: Fraction
    flushes: bool = False


FLOAT32 = Precision("float32", Fraction(1, 2**24), Fraction(1, 2**149))
FLUSHED32 = Precision("float32 without subnormal numbers", Fraction(1, 2**24), Fraction(1, 2**126), flushes=True)
FLOAT64 = Precision("float64", Fraction(1, 2**53), Fraction(1, 2**1074))


@dataclass(frozen=True)
class Term:
    """What rounding does to one term of a sum: roundings of its product, and multiplications that may underflow."""

    roundings: int
    multiplications: int

    @staticmethod
    def of(m: Monomial) -> Term:
        """Count one monomial; its sums are not counted here.

        >>> Term.of(Monomial(Fraction(1, 6)))
        Term(roundings=1, multiplications=0)
        """
        between = max(len(m.factors) - 1, 0)
        scaled = 1 if m.factors and abs(m.coefficient) != 1 else 0
        rounded = 0 if is_power_of_two(m.coefficient) else scaled
        return Term(between + rounded + (0 if is_representable(m.coefficient) else 1), between + scaled)


@dataclass(frozen=True)
class Rounding:
    """The whole of a stage: at most how many terms, the most roundings of a product, and the functions it applies."""

    terms: Index
    roundings: int
    functions: tuple[str, ...]

    @cached_property
    def depth(self) -> Index:
        """The k of the bound: the roundings a number goes through at most, functions aside."""
        return self.terms - 1 + self.roundings

    @property
    def exact(self) -> bool:
        """Whether no number is ever rounded: a copy, or a maximum."""
        return self.depth.constant == 0 and not set(self.functions) - EXACT

    @property
    def trusted(self) -> tuple[str, ...]:
        """What the bound takes on trust, a sentence for each function."""
        return tuple(f"{f} is computed within {ULPS[f]} units in the last place" for f in self.functions if f in ULPS)


def rounding(stage: Stage) -> Rounding:
    """What rounding does to a stage.

    >>> from derive.indices import var
    >>> from derive.terms import define, tensor, term
    >>> W, X, u = tensor("W", 6, 25), tensor("X", 25), tensor("u", 6)
    >>> product = term(1, W[var(0), var(1)], X[var(1)], over=[(index(0), index(25))])
    >>> stage = Stage(define("Z", [6], product + term(1, u[var(0)])), "matmul")
    >>> rounding(stage).terms, rounding(stage).depth, rounding(stage).trusted
    (26, 26, ())
    """
    return Rounding(
        _terms(stage.body),
        max((Term.of(m).roundings for m in stage.body.monomials), default=0),
        tuple(sorted(set(_functions(stage.body)))),
    )


def is_power_of_two(value: Fraction) -> bool:
    """Whether multiplying by it only moves the point."""
    return value != 0 and all(n & (n - 1) == 0 for n in (abs(value.numerator), value.denominator))


def is_representable(value: Fraction) -> bool:
    """Whether every format holds it as it is: a small integer over a power of two."""
    powers = value.denominator & (value.denominator - 1) == 0
    return powers and max(abs(value.numerator), value.denominator) <= SMALL


def is_count(e: Expr) -> bool:
    """Whether it sums integers alone: exact, in any order, while the total stays below 1/u."""
    return all(not m.factors and m.coefficient.denominator == 1 for m in e.monomials)


def _terms(e: Expr) -> Index:
    """The number of terms where every guard holds; intervals that depend on variables are counted at their longest."""
    total = index(0)
    for m in e.monomials:
        cells = index(1)
        for low, high in m.binders:
            if (high - low).variables:
                raise PlanError(f"{low.text}..{high.text}: a stage sums over intervals that depend on sizes only")
            cells = cells * (high - low)
        total = total + cells
    return total


def _functions(e: Expr) -> Iterator[str]:
    for m in e.monomials:
        for f in m.factors:
            yield from _functions_of(f)


def _functions_of(f: Factor) -> Iterator[str]:
    if isinstance(f, Apply):
        yield f.function
        yield from _functions(f.argument)
    elif isinstance(f, Maximum):
        yield from _functions(f.body)
    elif isinstance(f, Derivative):
        raise PlanError(f"{f.text}: a stage is computed from values, not from a derivative")
