"""Index arithmetic: integer polynomials in sizes and variables, with floor division, and guards on them.

An index says *which* element is meant: ``i*s + a*d - p``.  It is an integer polynomial whose atoms are size
symbols (``n``), variables and floor divisions ``e // m``.  Polynomials are kept expanded and sorted, so equal
polynomials are equal objects and every text made from them is the same on every run.

Variables are *positional*: ``Var(2)`` is the third variable in scope, counted from the outside.  No name can be
captured, because there is none; names are chosen only when a formula is printed.

``e // m`` means the floor of the quotient and makes sense for ``m >= 1`` only.  A literal divisor below one is
refused here; a symbolic one becomes an obligation in ``derive.kernel`` wherever such a term enters a theorem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Union


@dataclass(frozen=True)
class Sym:
    """A size symbol: any integer for which the facts of a theorem hold."""

    name: str

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name={self.name!r}: a size symbol is named by an identifier, such as 'n'")

    @cached_property
    def text(self) -> str:
        """Canonical text, also the sort key."""
        return self.name


@dataclass(frozen=True)
class Var:
    """The variable at a position: 0 is the outermost one in scope."""

    level: int

    def __post_init__(self) -> None:
        if type(self.level) is not int or self.level < 0:
            raise ValueError(f"level={self.level!r}: variables are counted from 0")

    @cached_property
    def text(self) -> str:
        """Canonical text; ``$`` keeps it apart from every size symbol."""
        return f"${self.level}"


@dataclass(frozen=True)
class Quotient:
    """The floor of ``numerator / denominator``; the denominator has to be at least one."""

    numerator: Index
    denominator: Index

    def __post_init__(self) -> None:
        constant = self.denominator.constant
        if constant is not None and constant < 1:
            raise ValueError(f"denominator={constant}: floor division is defined here for divisors >= 1 only")

    @cached_property
    def text(self) -> str:
        """Canonical text."""
        return f"(({self.numerator.text})//({self.denominator.text}))"


Atom = Union[Sym, Var, Quotient]
Product = tuple[Atom, ...]


@dataclass(frozen=True)
class Index:
    """An integer polynomial: pairs (product of atoms, coefficient), sorted, without zero coefficients.

    >>> n, s = symbol("n"), symbol("s")
    >>> (n + 1) * s - s
    n*s
    """

    terms: tuple[tuple[Product, int], ...]
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash(self.terms))

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return self.text

    @cached_property
    def text(self) -> str:
        """Canonical text, also the sort key."""
        if not self.terms:
            return "0"
        parts = []
        for product, coefficient in self.terms:
            body = "*".join(atom.text for atom in product)
            if not product:
                parts.append(f"{coefficient:+d}")
            elif abs(coefficient) == 1:
                parts.append(("+" if coefficient > 0 else "-") + body)
            else:
                parts.append(f"{coefficient:+d}*{body}")
        return "".join(parts).removeprefix("+")

    @cached_property
    def constant(self) -> int | None:
        """The value, when the polynomial is a number; otherwise None."""
        if not self.terms:
            return 0
        if len(self.terms) == 1 and not self.terms[0][0]:
            return self.terms[0][1]
        return None

    @cached_property
    def variables(self) -> frozenset[int]:
        """Levels of the variables that occur, also inside floor divisions."""
        found: set[int] = set()
        for atom in self.atoms():
            if isinstance(atom, Var):
                found.add(atom.level)
            elif isinstance(atom, Quotient):
                found |= atom.numerator.variables | atom.denominator.variables
        return frozenset(found)

    @cached_property
    def symbols(self) -> frozenset[str]:
        """Names of the size symbols that occur, also inside floor divisions."""
        found: set[str] = set()
        for atom in self.atoms():
            if isinstance(atom, Sym):
                found.add(atom.name)
            elif isinstance(atom, Quotient):
                found |= atom.numerator.symbols | atom.denominator.symbols
        return frozenset(found)

    def atoms(self) -> Iterator[Atom]:
        """Every atom of every product, outermost only."""
        return (atom for product, _ in self.terms for atom in product)

    def __add__(self, other: IndexLike) -> Index:
        return _collect([*self.terms, *index(other).terms])

    def __neg__(self) -> Index:
        return Index(tuple((product, -coefficient) for product, coefficient in self.terms))

    def __sub__(self, other: IndexLike) -> Index:
        return self + (-index(other))

    def __mul__(self, other: IndexLike) -> Index:
        right = index(other).terms
        return _collect([(_merge(p, q), a * b) for p, a in self.terms for q, b in right])

    def __floordiv__(self, other: IndexLike) -> Index:
        divisor = index(other)
        if divisor.constant == 1:
            return self
        if divisor.constant is not None and divisor.constant > 1 and self.constant is not None:
            return index(self.constant // divisor.constant)
        return Index((((Quotient(self, divisor),), 1),))

    def __radd__(self, other: int) -> Index:
        return index(other) + self

    def __rsub__(self, other: int) -> Index:
        return index(other) - self

    def __rmul__(self, other: int) -> Index:
        return index(other) * self

    def __rfloordiv__(self, other: int) -> Index:
        return index(other) // self

    def substitute(self, replace: Callable[[Atom], Index | None]) -> Index:
        """Replace symbols and variables (``replace`` gives None for those that stay)."""
        total: list[tuple[Product, int]] = []
        for product, coefficient in self.terms:
            value = index(coefficient)
            for atom in product:
                value = value * _substituted(atom, replace)
            total.extend(value.terms)
        return _collect(total)

    def evaluate(self, sizes: Mapping[str, int], variables: tuple[int, ...] = ()) -> int:
        """The number this index is, by plain arithmetic.

        >>> (symbol("n") // 2).evaluate({"n": 7})
        3
        """
        total = 0
        for product, coefficient in self.terms:
            for atom in product:
                if isinstance(atom, Sym):
                    coefficient *= sizes[atom.name]
                elif isinstance(atom, Var):
                    coefficient *= variables[atom.level]
                else:
                    divisor = atom.denominator.evaluate(sizes, variables)
                    if divisor < 1:
                        raise ValueError(f"{atom.text}: the divisor is {divisor}, it has to be at least 1")
                    coefficient *= atom.numerator.evaluate(sizes, variables) // divisor
            total += coefficient
        return total

    def linear_in(self, level: int) -> tuple[Index, Index] | None:
        """``(a, b)`` with ``self == a * Var(level) + b`` and the variable in neither, or None."""
        slope: list[tuple[Product, int]] = []
        rest: list[tuple[Product, int]] = []
        target = Var(level)
        for product, coefficient in self.terms:
            if target in product:
                position = product.index(target)
                slope.append((product[:position] + product[position + 1 :], coefficient))
            else:
                rest.append((product, coefficient))
        a, b = _collect(slope), _collect(rest)
        if level in a.variables or level in b.variables:
            return None
        return a, b

    def slope(self, level: int) -> int | None:
        """How far one step of the variable moves it, where that is one number: 0 where the variable does not occur.

        >>> n = symbol("n")
        >>> (3 * var(0) + n).slope(0), (n * var(0)).slope(0), (var(0) // 2).slope(0)
        (3, None, None)
        """
        parts = self.linear_in(level)
        return None if parts is None else parts[0].constant


IndexLike = Union[Index, int]


def _merge(left: Product, right: Product) -> Product:
    return tuple(sorted(left + right, key=lambda atom: atom.text))


def _collect(terms: Iterable[tuple[Product, int]]) -> Index:
    total: dict[Product, int] = {}
    for product, coefficient in terms:
        total[product] = total.get(product, 0) + coefficient
    kept = [(product, coefficient) for product, coefficient in total.items() if coefficient]
    kept.sort(key=lambda term: (not term[0], tuple(atom.text for atom in term[0])))
    return Index(tuple(kept))


def _substituted(atom: Atom, replace: Callable[[Atom], Index | None]) -> Index:
    if isinstance(atom, Quotient):
        return atom.numerator.substitute(replace) // atom.denominator.substitute(replace)
    new = replace(atom)
    return Index((((atom,), 1),)) if new is None else new


def index(value: IndexLike) -> Index:
    """An integer, or an index as it is, as an index."""
    if isinstance(value, Index):
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"value={value!r} ({type(value).__name__}): an index is an integer or an Index")
    return Index((((), value),)) if value else Index(())


def symbol(name: str) -> Index:
    """The size symbol of that name, as an index."""
    return Index((((Sym(name),), 1),))


def symbols(names: str) -> tuple[Index, ...]:
    """Several size symbols, their names separated by blanks."""
    return tuple(symbol(name) for name in names.split())


def var(level: int) -> Index:
    """The variable at that position, as an index."""
    return Index((((Var(level),), 1),))


def variables(start: int, count: int) -> tuple[Index, ...]:
    """The variables at positions ``start, ..., start + count - 1``."""
    return tuple(var(level) for level in range(start, start + count))


@dataclass(frozen=True)
class NonNegative:
    """The guard ``e >= 0``."""

    e: Index

    @cached_property
    def text(self) -> str:
        """Canonical text, also the sort key."""
        return f"{self.e.text}>=0"

    def indices(self) -> tuple[Index, ...]:
        """The indices the guard speaks of."""
        return (self.e,)

    def rebuild(self, change: Callable[[Index], Index]) -> Guard:
        """The same guard on changed indices."""
        return NonNegative(change(self.e))

    def holds(self, sizes: Mapping[str, int], variables: tuple[int, ...] = ()) -> bool:
        """Whether it is true of these numbers."""
        return self.e.evaluate(sizes, variables) >= 0


@dataclass(frozen=True)
class Zero:
    """The guard ``e == 0``; of ``e`` and ``-e`` the one with the positive leading coefficient is kept."""

    e: Index

    def __post_init__(self) -> None:
        if self.e.terms and self.e.terms[0][1] < 0:
            object.__setattr__(self, "e", -self.e)

    @cached_property
    def text(self) -> str:
        """Canonical text, also the sort key."""
        return f"{self.e.text}==0"

    def indices(self) -> tuple[Index, ...]:
        """The indices the guard speaks of."""
        return (self.e,)

    def rebuild(self, change: Callable[[Index], Index]) -> Guard:
        """The same guard on changed indices."""
        return Zero(change(self.e))

    def holds(self, sizes: Mapping[str, int], variables: tuple[int, ...] = ()) -> bool:
        """Whether it is true of these numbers."""
        return self.e.evaluate(sizes, variables) == 0


@dataclass(frozen=True)
class Divides:
    """The guard ``m | e``, for ``m >= 1``."""

    m: Index
    e: Index

    def __post_init__(self) -> None:
        constant = self.m.constant
        if constant is not None and constant < 1:
            raise ValueError(f"m={constant}: divisibility is asked here for divisors >= 1 only")

    @cached_property
    def text(self) -> str:
        """Canonical text, also the sort key."""
        return f"{self.m.text} | {self.e.text}"

    def indices(self) -> tuple[Index, ...]:
        """The indices the guard speaks of."""
        return (self.m, self.e)

    def rebuild(self, change: Callable[[Index], Index]) -> Guard:
        """The same guard on changed indices."""
        return Divides(change(self.m), change(self.e))

    def holds(self, sizes: Mapping[str, int], variables: tuple[int, ...] = ()) -> bool:
        """Whether it is true of these numbers."""
        divisor = self.m.evaluate(sizes, variables)
        if divisor < 1:
            raise ValueError(f"{self.text}: the divisor is {divisor}, it has to be at least 1")
        return self.e.evaluate(sizes, variables) % divisor == 0


Guard = Union[NonNegative, Zero, Divides]
Interval = tuple[Index, Index]


def interval(low: IndexLike, high: IndexLike) -> Interval:
    """The integers ``low <= v < high``."""
    return index(low), index(high)


def inside(e: IndexLike, bounds: Interval) -> tuple[Guard, Guard]:
    """The two guards that say ``low <= e < high``."""
    value = index(e)
    return NonNegative(value - bounds[0]), NonNegative(bounds[1] - 1 - value)


def at_least(e: IndexLike, bound: IndexLike) -> Guard:
    """The guard ``e >= bound``."""
    return NonNegative(index(e) - index(bound))


def equal(left: IndexLike, right: IndexLike) -> Guard:
    """The guard ``left == right``."""
    return Zero(index(left) - index(right))


def constant_truth(guard: Guard) -> bool | None:
    """True or False for a guard between numbers, None for one that depends on a symbol or variable."""
    if type(guard) not in (NonNegative, Zero, Divides):  # a subclass could have its own idea of what holds
        raise TypeError(f"guard={guard!r} ({type(guard).__name__}): a guard is NonNegative, Zero or Divides")
    values = [e.constant for e in guard.indices()]
    return None if None in values else guard.holds({})
