"""What an expression is worth, written down a second time and as plainly as possible, for tests of the kernel.

Sums are loops, guards are asked at every point, a tensor is zero outside its box.  A derivative is found with
infinitesimals: a number is then a polynomial in them, each of which has the square zero.  Nothing is taken from the
rules, and nothing from ``derive.evaluate``.

The scalar functions are rational functions that obey every law in the table exactly: exp(x) is 16 to the power x where
that is rational, log is a homomorphism from the positive rationals that undoes it, sigmoid and tanh are made of exp.
Where a value is not a rational number, ``Undefined`` is raised and the test draws other numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Union

from derive.indices import Index, Interval
from derive.terms import Apply, Derivative, Expr, Factor, Maximum, Monomial, Read, Tensor

Point = tuple[int, ...]


class Undefined(ArithmeticError):
    """There is no value here, or none that is a rational number."""


# --- numbers with infinitesimals ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Jet:
    """A polynomial in infinitesimals: the coefficient of each product of them, the empty product's being the value."""

    parts: Mapping[frozenset[int], Fraction]

    def split(self) -> tuple[int, Number, Number]:
        """``(k, u, w)`` with ``self == u + w * infinitesimal k`` and neither u nor w containing it."""
        k = max(max(tags, default=-1) for tags in self.parts)
        rest = {tags: x for tags, x in self.parts.items() if k not in tags}
        slope = {tags - {k}: x for tags, x in self.parts.items() if k in tags}
        return k, _number(rest), _number(slope)


Number = Union[Fraction, Jet]


def _number(parts: Mapping[frozenset[int], Fraction]) -> Number:
    kept = {tags: x for tags, x in parts.items() if x}
    return Jet(kept) if any(kept) else kept.get(frozenset(), Fraction(0))


def _parts(x: Number) -> Mapping[frozenset[int], Fraction]:
    return x.parts if isinstance(x, Jet) else {frozenset(): x}


def add(x: Number, y: Number) -> Number:
    """The sum."""
    if not isinstance(x, Jet) and not isinstance(y, Jet):
        return x + y
    total = dict(_parts(x))
    for tags, value in _parts(y).items():
        total[tags] = total.get(tags, Fraction(0)) + value
    return _number(total)


def times(x: Number, y: Number) -> Number:
    """The product; the square of an infinitesimal is zero."""
    if not isinstance(x, Jet) and not isinstance(y, Jet):
        return x * y
    total: dict[frozenset[int], Fraction] = {}
    for a, v in _parts(x).items():
        for b, w in _parts(y).items():
            if not a & b:
                total[a | b] = total.get(a | b, Fraction(0)) + v * w
    return _number(total)


def value_of(x: Number) -> Fraction:
    """A number without its infinitesimals."""
    return _parts(x).get(frozenset(), Fraction(0))


# --- scalar functions ---------------------------------------------------------------------------------------------


def power_of_two(x: Fraction) -> Fraction:
    """2 ** x, for whole x that are not too large to write down."""
    if x.denominator != 1 or abs(x) > 400:
        raise Undefined(f"2 ** {x}")
    return Fraction(2) ** int(x)


def exponential(x: Fraction) -> Fraction:
    """16 ** x."""
    return power_of_two(4 * x)


def logarithm(x: Fraction) -> Fraction:
    """A homomorphism from the positive rationals with the value 1 at 16: a sum of valuations."""
    if x <= 0:
        raise Undefined(f"log({x})")
    return valuation(x, 2) / 4 + valuation(x, 3) - 2 * valuation(x, 5)


def valuation(x: Fraction, prime: int) -> Fraction:
    """How often the prime divides it."""
    count, up, down = 0, x.numerator, x.denominator
    while up % prime == 0:
        up, count = up // prime, count + 1
    while down % prime == 0:
        down, count = down // prime, count - 1
    return Fraction(count)


def reciprocal(x: Fraction) -> Fraction:
    """1 / x."""
    if x == 0:
        raise Undefined("recip(0)")
    return 1 / x


FUNCTIONS: Mapping[str, Callable[[Fraction], Fraction]] = {
    "exp": exponential,
    "log": logarithm,
    "recip": reciprocal,
    "tanh": lambda x: 1 - 2 / (1 + power_of_two(8 * x)),
    "sigmoid": lambda x: 1 / (1 + exponential(-x)),
    "relu": lambda x: max(x, Fraction(0)),
    "step": lambda x: Fraction(x > 0),
}


def apply(name: str, x: Number) -> Number:
    """A scalar function, with its slope along every infinitesimal."""
    if not isinstance(x, Jet):
        return FUNCTIONS[name](x)
    k, u, w = x.split()
    along = times(w, Jet({frozenset({k}): Fraction(1)}))
    return add(apply(name, u), times(slope(name, u), along))


def slope(name: str, u: Number) -> Number:
    """The derivative of a scalar function; at the kink of relu it is 0."""
    y = apply(name, u)
    match name:
        case "exp":
            return y
        case "log":
            return apply("recip", u)
        case "recip":
            return times(Fraction(-1), times(y, y))
        case "tanh":
            return add(Fraction(1), times(Fraction(-1), times(y, y)))
        case "sigmoid":
            return add(y, times(Fraction(-1), times(y, y)))
        case "relu":
            return apply("step", u)
    return Fraction(0)


# --- expressions --------------------------------------------------------------------------------------------------


@dataclass
class Meaning:
    """The values of expressions at these sizes; ``datum`` gives the entries of free tensors by name and index.

    A product in which a direct read is outside its box is zero, and its other factors need not have a value; where
    ``strict``, they do, so that a value exists only where every number that is divided by is not zero.
    """

    sizes: Mapping[str, int]
    datum: Callable[[str, Point], Fraction | int]
    seeds: tuple[tuple[Tensor, Point], ...] = ()
    known: dict[tuple[Tensor, Point], Number] = field(default_factory=dict)
    strict: bool = False

    def index(self, e: Index, at: Point) -> int:
        """The number that an index is."""
        return e.evaluate(self.sizes, at)

    def points(self, binders: tuple[Interval, ...], at: Point) -> Iterator[Point]:
        """Every choice of the variables, whose intervals may depend on those before."""
        if not binders:
            yield at
            return
        low, high = (self.index(e, at) for e in binders[0])
        for v in range(low, high):
            yield from self.points(binders[1:], (*at, v))

    def box(self, t: Tensor) -> tuple[range, ...]:
        """The indices inside a tensor's box, axis by axis."""
        return tuple(range(self.index(low, ()), self.index(high, ())) for low, high in t.box)

    def element(self, t: Tensor, at: Point) -> Number:
        """What a tensor holds there."""
        if any(e not in span for e, span in zip(at, self.box(t), strict=True)):
            return Fraction(0)
        if (t, at) not in self.known:
            self.known[t, at] = self._element(t, at)
        return self.known[t, at]

    def _element(self, t: Tensor, at: Point) -> Number:
        """A tensor that a derivative is taken by is free there, however it is defined."""
        if all(t != target for target, _ in self.seeds):
            return Fraction(self.datum(t.name, at)) if t.body is None else self.value(t.body, at)
        last = max(k for k, (target, _) in enumerate(self.seeds) if target == t)
        outside = Meaning(self.sizes, self.datum, self.seeds[:last], strict=self.strict)
        moved = Jet({frozenset({last}): Fraction(1)}) if self.seeds[last][1] == at else Fraction(0)
        return add(outside.element(t, at), moved)

    def value(self, e: Expr, at: Point = ()) -> Number:
        """The value of an expression where its variables have these values."""
        total: Number = Fraction(0)
        for m in e.monomials:
            for point in self.points(m.binders, at):
                if all(g.holds(self.sizes, point) for g in m.guards):
                    total = add(total, self.product(m, point))
        return total

    def product(self, m: Monomial, at: Point) -> Number:
        """The product of a monomial's factors."""
        total: Number = m.coefficient
        for f in sorted(m.factors, key=lambda f: not isinstance(f, Read)):
            if isinstance(f, Read) and not self.strict and not self.inside(f, at):
                return Fraction(0)
            total = times(total, self.factor(f, at))
        return total

    def inside(self, f: Read, at: Point) -> bool:
        """Whether a read lies in the box."""
        return all(self.index(e, at) in span for e, span in zip(f.at, self.box(f.tensor), strict=True))

    def factor(self, f: Factor, at: Point) -> Number:
        """The value of a factor."""
        if isinstance(f, Read):
            return self.element(f.tensor, tuple(self.index(e, at) for e in f.at))
        if isinstance(f, Apply):
            return apply(f.function, self.value(f.argument, at))
        if isinstance(f, Maximum):
            return max((self.value(f.body, p) for p in self.points(f.binders, at)), key=value_of)
        return self.derivative(f, at)

    def derivative(self, d: Derivative, at: Point) -> Number:
        """The part of the value that has the infinitesimal of the entry moved."""
        entry = tuple(self.index(e, at) for e in d.at)
        if any(e not in span for e, span in zip(entry, self.box(d.tensor), strict=True)):
            return Fraction(0)
        k = len(self.seeds)
        there = Meaning(self.sizes, self.datum, (*self.seeds, (d.tensor, entry)), strict=self.strict)
        moved = there.value(d.expr, at)
        return _number({tags - {k}: x for tags, x in _parts(moved).items() if k in tags})
