"""The reference meaning of an expression: its value at given sizes, over exact numbers.

Nothing here knows a rule.  A theorem, a plan and an emitted text are each compared with what an *evaluator* says, which
takes an expression literally: a tensor is zero outside its box, a defined tensor is its body inside it, a guard is a
factor 0 or 1, and a derivative is the slope of a value along one entry of a tensor, found by dual numbers.  What a
number is, ``Numbers`` says: a rational number, or an element of a prime field, where the elementary functions are fixed
pseudo-random functions, so that texts that agree there used none of the laws of exp or tanh.

Where a product has a factor that is zero by a guard or by the box of a direct read, its other factors are not
computed, and need not be defined.  How an expression is computed in a fraction of a microsecond a term is the
business of ``derive.loops``.

>>> from derive.indices import symbol, var
>>> from derive.terms import define, tensor, term
>>> n = symbol("n")
>>> X = tensor("X", n)
>>> Y = define("Y", [n], term(1, X[var(0) + var(1)], over=[(var(0) * 0, var(0) * 0 + 2)]))
>>> given = {"X": Table(((0, 3),), [1, 10, 100])}
>>> Evaluator({"n": 3}, given, RATIONALS).table(Y).values
[11, 110, 100]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from hashlib import blake2b
from itertools import product
from math import prod
from typing import Any

from derive.affine import number
from derive.blocks import Span
from derive.loops import Compiler, Number
from derive.terms import FUNCTIONS, Derivative, Expr, Tensor


class Undefined(ArithmeticError):
    """A value does not exist at these numbers, such as the reciprocal of 0: draw others."""


@dataclass
class Table:
    """The values of a tensor inside its box, row-major; ``box`` holds a pair (low, high) for each axis."""

    box: tuple[Span, ...]
    values: list[Number]

    def __post_init__(self) -> None:
        self.box = tuple((low, max(low, high)) for low, high in self.box)
        cells = prod(high - low for low, high in self.box)
        if len(self.values) != cells:
            raise ValueError(f"values: {len(self.values)} were given for the {cells} cells of the box {self.box}")

    @staticmethod
    def full(box: tuple[Span, ...], f: Callable[..., Number]) -> Table:
        """The table of ``f(i, j, ...)``."""
        return Table(box, [f(*at) for at in product(*(range(low, high) for low, high in box))])

    @staticmethod
    def scalar(value: Number) -> Table:
        """The table of a tensor without axes."""
        return Table((), [value])

    def position(self, at: tuple[int, ...]) -> int | None:
        """Where the value at this index stands in ``values``; None outside the box."""
        place = 0
        for e, (low, high) in zip(at, self.box, strict=True):
            if not low <= e < high:
                return None
            place = place * (high - low) + e - low
        return place


def _as_it_is(x: Number) -> Number:
    return x


@dataclass(frozen=True)
class Numbers:
    """How to compute: rational constants, scalar functions, what is done to a finished sum, the order of a maximum.

    Sums and products are ``+`` and ``*`` of the numbers; they may stay unreduced until ``finish``.
    """

    rational: Callable[[Fraction], Number]
    functions: Mapping[str, Callable[[Number], Number]]
    finish: Callable[[Number], Number] = _as_it_is
    key: Callable[[Number], Any] = _as_it_is


def _refused(name: str) -> Callable[[Number], Number]:
    def function(x: Number) -> Number:
        raise ValueError(f"{name}({x}) is no rational number in general: evaluate over prime_field()")

    return function


def _ratio(x: Fraction) -> Number:
    return x.numerator if x.denominator == 1 else x


def _reciprocal(x: Number) -> Number:
    if x == 0:
        raise Undefined("recip(0)")
    return _ratio(1 / Fraction(x))


RATIONALS = Numbers(
    _ratio,
    {
        **{name: _refused(name) for name in FUNCTIONS},
        "recip": _reciprocal,
        "relu": lambda x: max(x, 0),
        "step": lambda x: int(x > 0),
    },
)


def prime_field(p: int = 2**61 - 1, key: int = 0) -> Numbers:
    """The integers modulo the prime ``p``, as ``0, ..., p - 1``.

    exp, log, tanh and sigmoid are fixed pseudo-random functions, chosen by ``key``; recip is the inverse and Undefined
    at 0.  Order is that of the representatives between ``-p/2`` and ``p/2``, so relu and step tell half of the
    elements from the other half.
    """

    def inverse(x: int) -> int:
        if x % p == 0:
            raise Undefined(f"recip(0) modulo {p}")
        return pow(x, -1, p)

    def hashed(name: str) -> Callable[[int], int]:
        @lru_cache(maxsize=1 << 18)
        def function(x: int) -> int:
            digest = blake2b(f"{name} {key} {x % p}".encode(), digest_size=(p.bit_length() + 71) // 8).digest()
            return int.from_bytes(digest, "big") % p

        return function

    def signed(x: int) -> int:
        x %= p
        return x if 2 * x < p else x - p

    functions: dict[str, Callable[[int], int]] = {name: hashed(name) for name in ("exp", "log", "tanh", "sigmoid")}
    functions |= {"recip": inverse, "relu": lambda x: max(signed(x), 0), "step": lambda x: int(signed(x) > 0)}
    return Numbers(lambda x: x.numerator * inverse(x.denominator) % p, functions, lambda x: x % p, signed)


# --- dual numbers -------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Dual:
    """``value + tangent * e`` with ``e * e = 0``; each nesting of derivatives has an ``e`` of its own, by ``order``."""

    value: Number
    tangent: Number
    order: int

    def _parts(self, other: Number) -> tuple[Number, Number]:
        same = isinstance(other, _Dual) and other.order == self.order
        return (other.value, other.tangent) if same else (other, 0)

    def __add__(self, other: Number) -> _Dual:
        if isinstance(other, _Dual) and other.order > self.order:
            return other + self  # the outer one takes the inner one as a plain number
        value, tangent = self._parts(other)
        return _Dual(self.value + value, self.tangent + tangent, self.order)

    def __mul__(self, other: Number) -> _Dual:
        if isinstance(other, _Dual) and other.order > self.order:
            return other * self
        value, tangent = self._parts(other)
        return _Dual(self.value * value, self.tangent * value + self.value * tangent, self.order)

    __radd__ = __add__
    __rmul__ = __mul__


def _slope(name: str, functions: Mapping[str, Callable[[Number], Number]], x: Number, y: Number) -> Number:
    """The derivative of a scalar function at ``x``, where its value is ``y``."""
    match name:
        case "exp":
            return y
        case "log":
            return functions["recip"](x)
        case "recip":
            return y * y * -1
        case "tanh":
            return 1 + y * y * -1
        case "sigmoid":
            return y + y * y * -1
        case "relu":
            return functions["step"](x)
        case "step":
            return 0
    raise ValueError(f"function={name!r} has no derivative here")


def _duals(base: Numbers, order: int) -> Numbers:
    """Dual numbers over these numbers; a plain number has tangent 0."""

    def lifted(name: str) -> Callable[[Number], Number]:
        def function(x: Number) -> Number:
            if not (isinstance(x, _Dual) and x.order == order):
                return base.functions[name](x)
            value = base.functions[name](x.value)
            slope = _slope(name, base.functions, x.value, value)
            return _Dual(value, base.finish(slope * x.tangent), order)

        return function

    def finish(x: Number) -> Number:
        if isinstance(x, _Dual) and x.order == order:
            return _Dual(base.finish(x.value), base.finish(x.tangent), order)
        return base.finish(x)

    def key(x: Number) -> Any:
        return base.key(x.value if isinstance(x, _Dual) and x.order == order else x)

    return Numbers(base.rational, {name: lifted(name) for name in base.functions}, finish, key)


# --- the evaluator ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Seed:
    """The entry of a tensor along which a derivative is taken, and where all other numbers come from."""

    tensor: Tensor
    at: tuple[int, ...]
    base: Evaluator
    order: int

    def table(self, tensor: Tensor) -> Table:
        """The table of a tensor that is not computed anew: plain numbers, but for the entry itself."""
        table = self.base.table(tensor)
        place = table.position(self.at) if tensor == self.tensor else None
        if place is None:
            return table
        moving = _Dual(table.values[place], self.base.numbers.rational(Fraction(1)), self.order)
        return Table(table.box, [*table.values[:place], moving, *table.values[place + 1 :]])

    def moved(self, tensor: Tensor, values: list[Number]) -> list[Number]:
        """The values that are given for a defined tensor, with the tangents of its body."""
        pairs = zip(self.base.table(tensor).values, values, strict=True)
        return [_Dual(x, y.tangent, y.order) if isinstance(y, _Dual) and y.order == self.order else x for x, y in pairs]


@dataclass
class Evaluator:
    """Values of expressions at these sizes, from these tables, in these numbers.

    ``tables`` is by tensor name, and taken instead of a definition where both exist.  Derivatives take their tensor as
    free, and everything defined by it as varying with it; at a tie a maximum has the slope of the first maximiser
    in row-major order.
    """

    sizes: Mapping[str, int]
    tables: Mapping[str, Table]
    numbers: Numbers
    _seed: _Seed | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        zero, one = self.numbers.rational(Fraction(0)), self.numbers.rational(Fraction(1))
        constants = {"zero": zero, "one": one, "rational": self.numbers.rational, "finish": self.numbers.finish}
        constants |= {"key": self.numbers.key, **self.numbers.functions}
        self._compiler = Compiler(self.sizes, self._box_and_values, constants, self._derivative)
        self._functions: dict[Expr, Callable[..., Number]] = {}
        self._known: dict[Tensor, Table] = {}
        self._along: dict[Tensor, tuple[tuple[int, ...], Evaluator]] = {}

    def value(self, expr: Expr, variables: Sequence[int] = ()) -> Number:
        """The value of an expression where its variables have these values."""
        if len(variables) != expr.depth:
            raise ValueError(f"variables={variables}: the expression has {expr.depth} free variables")
        if expr not in self._functions:
            self._tabulate_all(list(expr.tensors))
            self._functions[expr] = self._compiler.function(expr)
        return self._functions[expr](*variables)

    def table(self, tensor: Tensor) -> Table:
        """The values of a tensor in its box; a defined one is tabulated once."""
        self._tabulate_all([tensor])
        return self._known[tensor]

    def _box_and_values(self, tensor: Tensor) -> tuple[tuple[Span, ...], list[Number]]:
        table = self.table(tensor)
        return table.box, table.values

    def _tabulate_all(self, waiting: list[Tensor]) -> None:
        """Tabulate these and what they are made from, the innermost first."""
        while waiting:
            tensor = waiting[-1]
            body = None if tensor in self._known else self._body(tensor)
            needed = [] if body is None else [t for t in body.tensors if t not in self._known]
            waiting.extend(needed)
            if not needed:
                waiting.pop()
                if tensor not in self._known:
                    self._known[tensor] = self._tabulated(tensor, body)

    def _body(self, tensor: Tensor) -> Expr | None:
        """The body of a tensor that has to be computed here."""
        if self._seed is None:
            return None if tensor.name in self.tables else tensor.body
        varies = tensor != self._seed.tensor and self._seed.tensor in tensor.reads_of_body
        return tensor.body if varies else None

    def _tabulated(self, tensor: Tensor, body: Expr | None) -> Table:
        if body is None:
            return self._given(tensor) if self._seed is None else self._seed.table(tensor)
        values = self._compiler.tabulate(body, self._box(tensor))
        if self._seed is not None and tensor.name in self.tables:
            values = self._seed.moved(tensor, values)
        return Table(self._box(tensor), values)

    def _box(self, tensor: Tensor) -> tuple[Span, ...]:
        box = ((number(low, self.sizes), number(high, self.sizes)) for low, high in tensor.box)
        return tuple((low, max(low, high)) for low, high in box)

    def _given(self, tensor: Tensor) -> Table:
        if tensor.name not in self.tables:
            raise ValueError(f"tables: {tensor.name} is not defined and has no table")
        table, box = self.tables[tensor.name], self._box(tensor)
        if table.box != box:
            raise ValueError(
                f"tables: {tensor.name} has the box {box} at these sizes, and its table the box {table.box}"
            )
        return table

    def _derivative(self, d: Derivative, variables: Sequence[int]) -> Number:
        at = tuple(number(e, self.sizes, variables) for e in d.at)
        if self.table(d.tensor).position(at) is None or not d.expr.depends_on(d.tensor):
            return self.numbers.rational(Fraction(0))
        order = 1 if self._seed is None else self._seed.order + 1
        along = self._along.get(d.tensor)
        if along is None or along[0] != at:
            seed = _Seed(d.tensor, at, self, order)
            along = at, Evaluator(self.sizes, self.tables, _duals(self.numbers, order), seed)
            self._along[d.tensor] = along
        value = along[1].value(d.expr, variables)
        return (
            value.tangent if isinstance(value, _Dual) and value.order == order else self.numbers.rational(Fraction(0))
        )
