"""Elements of a prime field that NumPy's object arrays can carry, so that emitted text runs on exact numbers.

The text of a module is Python over NumPy and asks only for arithmetic.  Given arrays of ``Element`` it computes in the
integers modulo p = 2^61 - 1, where nothing is rounded and a rational constant is an element like any other; exp, log
and tanh are the pseudo-random functions of ``derive.evaluate.prime_field``, which evaluates the stages that the text
was printed from.  So text and stages can be compared for equality.

NumPy finds the functions by name: ``np.exp`` on an object array calls ``.exp()`` of its elements, ``np.reciprocal``
divides 1 by them, ``np.maximum`` and ``np.max`` compare them.  Sums stay unreduced until a product, a function or a
comparison needs the representative.  Matrix products have a faster way, ``codegen.products``.

>>> half = Element.ratio(1, 2, None)
>>> half + half == 1, np.tanh(np.array([half])) == np.array([half.tanh()])
(True, array([ True]))
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from random import Random
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from derive.evaluate import Numbers, prime_field

P = 2**61 - 1
Objects = npt.NDArray[np.object_]
_new = object.__new__


class Element:
    """An integer modulo p; ``numbers`` says what its functions are and how elements are ordered.

    Integers mix with elements.  Nothing else does: a floating-point constant in a text is a TypeError.
    """

    __slots__ = ("value",)
    numbers: ClassVar[Numbers] = prime_field(P)
    value: int

    def __init__(self, value: int) -> None:
        self.value = value

    @classmethod
    def ratio(cls, numerator: int, denominator: int, dtype: object) -> Self:  # noqa: ARG003 - the text passes it
        """A rational number: what the ``ratio`` of an emitted module has to give here."""
        return cls(cls.numbers.rational(Fraction(numerator, denominator)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value % P})"

    # The three most frequent operations do without further calls: this is where the time goes.

    def __add__(self, other: Any) -> Self:
        try:
            value = other.value
        except AttributeError:
            if not isinstance(other, (int, np.integer)):
                return NotImplemented
            value = int(other)
        result = _new(self.__class__)
        result.value = self.value + value
        return result

    def __mul__(self, other: Any) -> Self:
        try:
            value = other.value
        except AttributeError:
            if not isinstance(other, (int, np.integer)):
                return NotImplemented
            value = int(other)
        result = _new(self.__class__)
        result.value = self.value * value % P
        return result

    __radd__ = __add__
    __rmul__ = __mul__

    def __neg__(self) -> Self:
        result = _new(self.__class__)
        result.value = -self.value
        return result

    def __sub__(self, other: Any) -> Self:
        value = _integer(other)
        return NotImplemented if value is None else self.__class__(self.value - value)

    def __rsub__(self, other: Any) -> Self:
        value = _integer(other)
        return NotImplemented if value is None else self.__class__(value - self.value)

    def __truediv__(self, other: Any) -> Self:
        value = _integer(other)
        return NotImplemented if value is None else self * self.numbers.functions["recip"](value)

    def __rtruediv__(self, other: Any) -> Self:
        value = _integer(other)
        return NotImplemented if value is None else self.__class__(value) / self

    def __eq__(self, other: object) -> bool:
        value = _integer(other)
        return NotImplemented if value is None else (self.value - value) % P == 0

    def __hash__(self) -> int:
        return hash(self.value % P)

    def __bool__(self) -> bool:
        return self.value % P != 0

    def _key(self) -> Any:
        return self.numbers.key(self.value)

    def __lt__(self, other: Any) -> bool:
        value = _integer(other)
        return NotImplemented if value is None else bool(self._key() < self.numbers.key(value))

    def __le__(self, other: Any) -> bool:
        value = _integer(other)
        return NotImplemented if value is None else bool(self._key() <= self.numbers.key(value))

    def __gt__(self, other: Any) -> bool:
        value = _integer(other)
        return NotImplemented if value is None else bool(self._key() > self.numbers.key(value))

    def __ge__(self, other: Any) -> bool:
        value = _integer(other)
        return NotImplemented if value is None else bool(self._key() >= self.numbers.key(value))

    def exp(self) -> Self:
        """What ``np.exp`` gives."""
        return self.__class__(self.numbers.functions["exp"](self.value % P))

    def log(self) -> Self:
        """What ``np.log`` gives."""
        return self.__class__(self.numbers.functions["log"](self.value % P))

    def tanh(self) -> Self:
        """What ``np.tanh`` gives."""
        return self.__class__(self.numbers.functions["tanh"](self.value % P))


def _integer(other: object) -> int | None:
    """The integer behind an element or an integer; None for anything else."""
    if isinstance(other, Element):
        return other.value
    return int(other) if isinstance(other, (int, np.integer)) else None


def keyed(key: int) -> type[Element]:
    """Elements whose exp, log and tanh are chosen by ``key``; those of two keys do not belong together."""
    return type("Element", (Element,), {"__slots__": (), "numbers": prime_field(P, key)})


def drawn(rng: Random, count: int) -> list[int]:
    """That many elements, uniform and independent, as integers."""
    return [rng.randrange(P) for _ in range(count)]


def array(kind: type[Element], values: Iterable[int], shape: tuple[int, ...]) -> Objects:
    """An object array of these integers as elements, row-major."""
    cells = [kind(value) for value in values]
    flat = np.empty(len(cells), dtype=object)
    flat[:] = cells
    return flat.reshape(shape)
