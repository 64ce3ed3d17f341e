"""The term language: what a formula is, before anybody asks whether two of them are equal.

A *tensor* names a total function from integer tuples to numbers that is **zero outside its box**; zero padding
is then nothing that has to be done.  A *monomial* is

    coefficient * Sum over variables in intervals, [guards], of a product of factors

with a rational coefficient, and an *expression* is a sum of monomials.  A factor is a read ``X[i*s + a]``, a scalar
function of an expression, a maximum, or a derivative ``d expression / d X[h]`` that is still to be worked out.

A tensor may be *defined*: it then carries its body, an expression in as many variables as it has axes.  A
definition is part of the tensor's identity, so two tensors of one name with different bodies are different tensors.
Weight sharing is such a definition (``W[i,k] := v[k-i]``), and so is each stage of a plan.

Variables are positional (``derive.indices``): an expression of ``depth`` n may use variables 0..n-1, and a monomial
in it that binds k more calls them n..n+k-1.  Everything here is immutable and kept in canonical order: factors and
guards sorted, like monomials collected, monomials with coefficient 0 or a plainly false guard dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Union

from derive.indices import (
    Atom,
    Guard,
    Index,
    IndexLike,
    Interval,
    Sym,
    Var,
    constant_truth,
    index,
    inside,
    var,
    variables,
)

FUNCTIONS = ("exp", "log", "recip", "tanh", "sigmoid", "relu", "step")


@dataclass(frozen=True)
class Tensor:
    """A named total function, zero outside ``box``; with ``body``, the one that body defines.

    ``box`` gives an interval for each axis, in sizes only.  ``body`` has the depth ``len(box)``.
    """

    name: str
    box: tuple[Interval, ...]
    body: Expr | None = None
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        if not self.name.isidentifier():
            raise ValueError(f"name={self.name!r}: a tensor is named by an identifier, such as 'X'")
        for axis, bounds in enumerate(self.box):
            if any(e.variables for e in bounds):
                raise ValueError(f"{self.name}: axis {axis} of the box depends on a variable; sizes only are allowed")
        if self.body is not None and self.body.depth != len(self.box):
            raise ValueError(
                f"{self.name}: the body has {self.body.depth} free variables and the box {len(self.box)} axes"
            )
        object.__setattr__(self, "_hash", hash((self.name, self.box, self.body)))

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Tensor({self.name}{'' if self.body is None else ' := ...'})"

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.box)

    def __getitem__(self, at: IndexLike | tuple[IndexLike, ...]) -> Read:
        """The factor that reads this tensor there."""
        where = at if isinstance(at, tuple) else (at,)
        return Read(self, tuple(index(e) for e in where))

    @cached_property
    def reads_of_body(self) -> frozenset[Tensor]:
        """Every tensor this one is made from, through all definitions, itself included."""
        found = {self}
        if self.body is not None:
            for tensor in self.body.tensors:
                found |= tensor.reads_of_body
        return frozenset(found)


def tensor(name: str, *sizes: IndexLike | Interval, body: Expr | None = None) -> Tensor:
    """A tensor whose axes run from 0 to each size, or over each interval.

    >>> from derive.indices import symbol
    >>> tensor("X", symbol("n"), 3).box
    ((0, n), (0, 3))
    """
    box = tuple((index(0), index(s)) if isinstance(s, (int, Index)) else (index(s[0]), index(s[1])) for s in sizes)
    return Tensor(name, box, body)


@dataclass(frozen=True)
class Read:
    """The number a tensor holds at an index; zero outside its box."""

    tensor: Tensor
    at: tuple[Index, ...]

    def __post_init__(self) -> None:
        if len(self.at) != self.tensor.rank:
            raise ValueError(f"{self.tensor.name} has {self.tensor.rank} axes and was read with {len(self.at)} indices")

    @cached_property
    def text(self) -> str:
        """Canonical text, also the sort key."""
        return f"{self.tensor.name}[{','.join(e.text for e in self.at)}]"

    def in_box(self) -> tuple[Guard, ...]:
        """The guards that say that the index lies in the box."""
        return tuple(g for e, bounds in zip(self.at, self.tensor.box, strict=True) for g in inside(e, bounds))


@dataclass(frozen=True)
class Apply:
    """A scalar function of an expression; one of ``FUNCTIONS``."""

    function: str
    argument: Expr

    def __post_init__(self) -> None:
        if self.function not in FUNCTIONS:
            raise ValueError(f"function={self.function!r}: the functions are {', '.join(FUNCTIONS)}")

    @cached_property
    def text(self) -> str:
        """Canonical text, also the sort key."""
        return f"{self.function}({self.argument.text})"


@dataclass(frozen=True)
class Maximum:
    """The largest value of ``body`` over the variables that satisfy the guards; they must not be none."""

    binders: tuple[Interval, ...]
    guards: tuple[Guard, ...]
    body: Expr

    @cached_property
    def text(self) -> str:
        """Canonical text, also the sort key."""
        start = self.body.depth - len(self.binders)
        return f"max{_scope_text(start, self.binders, self.guards)}({self.body.text})"


@dataclass(frozen=True)
class Derivative:
    """``d expr / d tensor[at]``, with ``tensor`` taken as free: not a number yet, ``differentiate`` removes it."""

    expr: Expr
    tensor: Tensor
    at: tuple[Index, ...]

    def __post_init__(self) -> None:
        if len(self.at) != self.tensor.rank:
            raise ValueError(f"{self.tensor.name} has {self.tensor.rank} axes, not {len(self.at)}")

    @cached_property
    def text(self) -> str:
        """Canonical text, also the sort key."""
        return f"d({self.expr.text})/d{self.tensor.name}[{','.join(e.text for e in self.at)}]"


Factor = Union[Read, Apply, Maximum, Derivative]


@dataclass(frozen=True)
class Monomial:
    """``coefficient * Sum [guards] product of factors``; see the head of this file."""

    coefficient: Fraction
    binders: tuple[Interval, ...] = ()
    guards: tuple[Guard, ...] = ()
    factors: tuple[Factor, ...] = ()

    @cached_property
    def body_key(self) -> tuple[object, ...]:
        """Everything but the coefficient: monomials that agree in it are collected."""
        return (self.binders, self.guards, self.factors)


@dataclass(frozen=True)
class Expr:
    """A sum of monomials in the scope of ``depth`` variables.  Make it with ``expression`` or ``term``."""

    depth: int
    monomials: tuple[Monomial, ...]
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.depth, self.monomials)))

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return self.text

    @cached_property
    def text(self) -> str:
        """Canonical text; tensors by name only."""
        return " + ".join(_monomial_text(self.depth, m) for m in self.monomials) or "0"

    @cached_property
    def tensors(self) -> frozenset[Tensor]:
        """The tensors that occur in it, not those inside their bodies."""
        return frozenset(t for m in self.monomials for f in m.factors for t in _tensors_of(f))

    def __add__(self, other: Expr) -> Expr:
        self._same_scope(other)
        return expression(self.depth, (*self.monomials, *other.monomials))

    def __mul__(self, other: Expr) -> Expr:
        self._same_scope(other)
        return expression(self.depth, [multiply(self.depth, a, b) for a in self.monomials for b in other.monomials])

    def _same_scope(self, other: Expr) -> None:
        if self.depth != other.depth:
            raise ValueError(f"expressions in scopes of {self.depth} and {other.depth} variables: shift one of them")

    def scaled(self, coefficient: Fraction | int) -> Expr:
        """This expression times a rational number."""
        return expression(
            self.depth,
            [replace(m, coefficient=m.coefficient * Fraction(coefficient)) for m in self.monomials],
        )

    def __sub__(self, other: Expr) -> Expr:
        return self + other.scaled(-1)

    def depends_on(self, target: Tensor) -> bool:
        """Whether ``target`` occurs in it, through definitions too."""
        return any(target in t.reads_of_body for t in self.tensors)


def _tensors_of(factor: Factor) -> Iterator[Tensor]:
    if isinstance(factor, Read):
        yield factor.tensor
    elif isinstance(factor, Apply):
        yield from factor.argument.tensors
    elif isinstance(factor, Maximum):
        yield from factor.body.tensors
    else:
        yield from factor.expr.tensors
        yield factor.tensor


def _scope_text(start: int, binders: tuple[Interval, ...], guards: tuple[Guard, ...]) -> str:
    bounds = ",".join(f"{lo.text}<=${start + k}<{hi.text}" for k, (lo, hi) in enumerate(binders))
    return ("{" + bounds + "}" if binders else "") + "".join(f"[{g.text}]" for g in guards)


def _monomial_text(depth: int, m: Monomial) -> str:
    head = "" if m.coefficient == 1 and (m.factors or m.binders or m.guards) else f"{m.coefficient}"
    total = ("Sum" if m.binders else "") + _scope_text(depth, m.binders, m.guards)
    return "*".join(part for part in (head, total, *(f.text for f in m.factors)) if part)


# --- making expressions -------------------------------------------------------------------------------------------


def _guards(guards: Iterable[Guard]) -> tuple[Guard, ...] | None:
    """Sorted, without repetitions and plainly true ones; None when one is plainly false."""
    kept: dict[str, Guard] = {}
    for guard in guards:
        truth = constant_truth(guard)
        if truth is False:
            return None
        if truth is None:
            kept[guard.text] = guard
    return tuple(kept[text] for text in sorted(kept))


def _factor_key(factor: Factor) -> str:
    return factor.text


def expression(depth: int, monomials: Iterable[Monomial]) -> Expr:
    """The canonical sum of these monomials."""
    collected: dict[tuple[object, ...], Monomial] = {}
    for m in monomials:
        guards = _guards(m.guards)
        if guards is None or m.coefficient == 0:
            continue
        factors = tuple(sorted(m.factors, key=_factor_key))
        m = Monomial(m.coefficient, m.binders, guards, factors)
        old = collected.get(m.body_key)
        collected[m.body_key] = m if old is None else replace(m, coefficient=old.coefficient + m.coefficient)
    kept = [m for m in collected.values() if m.coefficient]
    kept.sort(key=lambda m: _monomial_text(depth, replace(m, coefficient=Fraction(1))))
    return Expr(depth, tuple(kept))


def term(
    depth: int,
    *factors: Factor,
    over: Sequence[Interval] = (),
    guards: Iterable[Guard] = (),
    coefficient: Fraction | int = 1,
) -> Expr:
    """One monomial as an expression; ``over`` binds the variables ``depth, depth + 1, ...``."""
    return expression(depth, [Monomial(Fraction(coefficient), tuple(over), tuple(guards), factors)])


def constant(depth: int, value: Fraction | int) -> Expr:
    """A rational number as an expression."""
    return term(depth, coefficient=value)


def zero(depth: int) -> Expr:
    """The empty sum."""
    return Expr(depth, ())


def within(depth: int, m: Monomial, inner: Expr) -> list[Monomial]:
    """The product of a monomial of scope ``depth`` and an expression in the scope of its variables, multiplied out."""
    scope = depth + len(m.binders)
    if inner.depth != scope:
        raise ValueError(f"the inner expression has depth {inner.depth}, the monomial's variables end at {scope}")
    products = []
    for r in inner.monomials:
        outer = shift_factors(m.factors, scope, scope + len(r.binders))
        products.append(
            Monomial(m.coefficient * r.coefficient, m.binders + r.binders, m.guards + r.guards, outer + r.factors)
        )
    return products


def multiply(depth: int, a: Monomial, b: Monomial) -> Monomial:
    """The product of two monomials: their sums side by side, the second one's variables after the first's."""
    scope = depth + len(a.binders)
    shifted = shift_monomial(b, depth, scope)
    return within(depth, a, Expr(scope, (shifted,)))[0]


def shift_factors(factors: Iterable[Factor], depth: int, new_depth: int) -> tuple[Factor, ...]:
    """Factors of scope ``depth`` in the larger scope ``new_depth``: what is bound inside them moves outwards."""
    if depth == new_depth:
        return tuple(factors)
    shift = Substitution(depth, variables(0, depth), new_depth)
    return tuple(shift.factor(f) for f in factors)


def shift_monomial(m: Monomial, depth: int, new_depth: int) -> Monomial:
    """A monomial of scope ``depth`` in the larger scope ``new_depth``: its own variables move outwards."""
    return Substitution(depth, variables(0, depth), new_depth).monomial(m)


def define(name: str, box: Sequence[IndexLike | Interval], body: Expr) -> Tensor:
    """A new name for an expression: the tensor that has this body inside the box and is zero outside."""
    return tensor(name, *box, body=body)


# --- replacing variables, sizes and tensors -----------------------------------------------------------------------


@dataclass(frozen=True)
class Substitution:
    """Carries a term from a scope of ``depth`` variables to one of ``new_depth``.

    Variable ``v < depth`` becomes ``values[v]``; variables bound inside keep their order above ``new_depth``.
    ``sizes`` replaces size symbols, by sizes only; ``tensors`` replaces tensors as they stand.
    """

    depth: int
    values: tuple[Index, ...]
    new_depth: int
    sizes: Mapping[str, Index] = field(default_factory=dict)
    tensors: Callable[[Tensor], Tensor] | None = None

    def _replace(self, atom: Atom) -> Index | None:
        if isinstance(atom, Var):
            if atom.level < self.depth:
                return self.values[atom.level]
            return var(atom.level - self.depth + self.new_depth)
        if isinstance(atom, Sym):
            return self.sizes.get(atom.name)
        return None

    def index(self, e: Index) -> Index:
        """On an index."""
        return e.substitute(self._replace) if e.variables or e.symbols else e

    def guard(self, g: Guard) -> Guard:
        """On a guard."""
        return g.rebuild(self.index)

    def _tensor(self, t: Tensor) -> Tensor:
        return t if self.tensors is None else self.tensors(t)

    def _intervals(self, binders: tuple[Interval, ...]) -> tuple[Interval, ...]:
        return tuple((self.index(lo), self.index(hi)) for lo, hi in binders)

    def factor(self, f: Factor) -> Factor:
        """On a factor."""
        if isinstance(f, Read):
            return Read(self._tensor(f.tensor), tuple(self.index(e) for e in f.at))
        if isinstance(f, Apply):
            return Apply(f.function, self.expr(f.argument))
        if isinstance(f, Maximum):
            guards = tuple(sorted((self.guard(g) for g in f.guards), key=lambda g: g.text))
            return Maximum(self._intervals(f.binders), guards, self.expr(f.body))
        return Derivative(self.expr(f.expr), self._tensor(f.tensor), tuple(self.index(e) for e in f.at))

    def monomial(self, m: Monomial) -> Monomial:
        """On a monomial."""
        return Monomial(
            m.coefficient,
            self._intervals(m.binders),
            tuple(self.guard(g) for g in m.guards),
            tuple(self.factor(f) for f in m.factors),
        )

    def expr(self, e: Expr) -> Expr:
        """On an expression, whose own depth may be larger where it stands under binders."""
        return expression(e.depth - self.depth + self.new_depth, [self.monomial(m) for m in e.monomials])


def instantiate(body: Expr, at: Sequence[Index], depth: int) -> Expr:
    """The body with its variables replaced by these indices, in the scope of ``depth`` variables."""
    if len(at) != body.depth:
        raise ValueError(f"the body has {body.depth} variables and was given {len(at)} indices")
    return Substitution(body.depth, tuple(at), depth).expr(body)


def shift(e: Expr, depth: int) -> Expr:
    """The same expression in the larger scope of ``depth`` variables."""
    return e if e.depth == depth else Substitution(e.depth, variables(0, e.depth), depth).expr(e)


def ranges(binders: Sequence[Interval], start: int) -> tuple[Guard, ...]:
    """That variables ``start, start + 1, ...`` lie in their intervals."""
    return tuple(g for k, bounds in enumerate(binders) for g in inside(var(start + k), bounds))


def box_guards(t: Tensor) -> tuple[Guard, ...]:
    """That variables 0, 1, ... lie in the tensor's box."""
    return ranges(t.box, 0)


def resized(t: Tensor, sizes: Mapping[str, Index], cache: dict[Tensor, Tensor] | None = None) -> Tensor:
    """The same tensor with size symbols replaced, in its box and through all definitions."""
    known: dict[Tensor, Tensor] = {} if cache is None else cache
    if t not in known:
        swap = Substitution(0, (), 0, sizes, lambda inner: resized(inner, sizes, known))
        box = tuple((swap.index(lo), swap.index(hi)) for lo, hi in t.box)
        known[t] = Tensor(t.name, box, None if t.body is None else swap.expr(t.body))
    return known[t]
