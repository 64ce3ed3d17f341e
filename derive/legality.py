"""When a layer is legal, said once.

A ``Condition`` is a guard, the argument it is about, and words for a reader.  At numbers, a guard that is false becomes
the error a user reads (``check``); left symbolic, the same guards are the facts that a theorem about the layer assumes.
Shapes, errors, theorems and plans therefore cannot disagree about what is allowed.

``Window`` is one spatial axis of a sliding window.  With ``L = n + pl + pr - d (k - 1) - 1``, the last position at
which a window of stride 1 fits, the legal positions are ``0, s, 2 s, ... <= L`` and their number is
``max(0, L // s + 1)``: ``derive.shapes`` proves it.  The floor matters: division that truncates towards zero gives 1
for ``-s < L < 0``, one window where there is none.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Union

from derive.indices import Divides, Guard, Index, at_least, index, symbol

Dim = Union[int, Index]
Dims = Union[Dim, tuple[Dim, ...]]


class LayerError(ValueError):
    """A layer or a shape that is not legal; the text names the argument, its value and the nearest legal one."""


@dataclass(frozen=True)
class Condition:
    """One condition of legality: an argument and its value, the guard, the same in words, the nearest legal value."""

    argument: str
    value: Index
    guard: Guard
    words: str
    nearest: Index | None = None

    @property
    def message(self) -> str:
        """What a user is told when the guard is false."""
        mend = "" if self.nearest is None else f"; the nearest legal value is {self.nearest.text}"
        return f"{self.argument}={self.value.text} is not legal: {self.words}{mend}"


def check(owner: object, conditions: Iterable[Condition]) -> None:
    """Raise LayerError for the first condition between numbers that is false."""
    for c in conditions:
        decided = all(e.constant is not None for e in c.guard.indices())
        if decided and not c.guard.holds({}):
            raise LayerError(f"{owner}: {c.message}")


def lower_bound(argument: str, value: Dim, least: int, words: str) -> Condition:
    """That an argument is at least a number."""
    return Condition(argument, index(value), at_least(index(value), least), words, index(least))


def positive(argument: str, value: Dim) -> Condition:
    """That an argument is at least 1."""
    return lower_bound(argument, value, 1, f"{argument} is at least 1")


def batch_size(n: Index) -> Condition:
    """That a batch size is at least 0: an empty batch is legal."""
    return lower_bound("batch size", n, 0, "a batch has at least 0 elements")


def same(argument: str, value: Dim, found: Index, words: str) -> tuple[Condition, Condition]:
    """That an argument is the number found in the input, as two inequalities."""
    v = index(value)
    text = f"{words} is {found.text}"
    return (
        Condition(argument, v, at_least(v, found), text, found),
        Condition(argument, v, at_least(found, v), text, found),
    )


def grouped(channels: Iterable[tuple[str, Dim]], groups: Dim) -> tuple[Condition, ...]:
    """That there is at least one group, and that all groups of channels are equally large and not empty.

    Between numbers the second is divisibility.  A symbolic number of channels is a multiple of ``groups`` by its form;
    LayerError where it is not.
    """
    conditions = [positive("groups", groups)]
    parts = index(groups).constant
    for name, value in channels:
        total = index(value).constant
        if parts is not None and total is not None:
            if parts >= 1:
                conditions.append(_divisible(name, total, parts))
            continue
        conditions.append(positive(f"{name} // groups", in_a_group(value, groups)))
    return tuple(conditions)


def _divisible(argument: str, total: int, parts: int) -> Condition:
    below, rest = divmod(total, parts)
    nearest = max(1, below + (2 * rest >= parts)) * parts
    words = f"groups={parts} has to divide {argument}, and {total} = {below}*{parts} + {rest}"
    return Condition(argument, index(total), Divides(index(parts), index(total)), words, index(nearest))


def in_a_group(channels: Dim, groups: Dim) -> Index:
    """``channels / groups`` as a polynomial: 6 in 2 groups are 3 each, g*Cg in g groups are Cg each.

    LayerError where ``groups`` is not a factor.
    """
    total, parts = index(channels), index(groups)
    share = _quotient(total, parts)
    if share is None:
        raise LayerError(
            f"groups={parts.text} is not legal with {total.text} channels: it has to be a factor of them by its form; "
            f"nearest legal: {(parts * symbol(fresh('Cg', total.symbols | parts.symbols))).text} channels"
        )
    return share


def _quotient(total: Index, parts: Index) -> Index | None:
    """The polynomial q with ``q * parts == total`` for a monomial ``parts``, None where there is none."""
    if len(parts.terms) != 1:
        return index(1) if total == parts and parts.terms else None
    ((product, coefficient),) = parts.terms
    terms = []
    for factors, number in total.terms:
        left = list(factors)
        for atom in product:
            if atom not in left:
                return None
            left.remove(atom)
        if number % coefficient:
            return None
        terms.append((tuple(left), number // coefficient))
    return sum((Index((t,)) for t in terms), index(0))


def dimension(argument: str, value: Any) -> Dim:
    """One dimension: a size symbol, or anything that is an integer to Python (NumPy's integers too)."""
    if isinstance(value, Index):
        return value
    if not isinstance(value, bool):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise LayerError(f"{argument}={value!r}: a dimension is an integer or a size symbol, not {type(value).__name__}")


def dimensions(value: Any, axes: int, argument: str) -> tuple[Dim, ...]:
    """A dimension for every axis, or one for all of them."""
    dims = tuple(value) if isinstance(value, (tuple, list)) else (value,) * axes
    if len(dims) != axes:
        raise LayerError(f"{argument}={value!r}: {axes} numbers are needed, one an axis, or a single one for all")
    return tuple(dimension(argument, d) for d in dims)


@dataclass(frozen=True)
class Window:
    """One spatial axis of a sliding window: input size, kernel, stride, dilation, zeros before and after it.

    ``output`` is the number of window positions (d2l 7.3, with the dilation of PyTorch's documentation).
    """

    size: Index
    kernel: Index
    stride: Index
    dilation: Index
    before: Index
    after: Index
    output: Index
    axis: int = 0

    @property
    def extent(self) -> Index:
        """How many input cells one window spans: ``d (k - 1) + 1``."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def padded(self) -> Index:
        """How many cells there are with the zeros around them: ``n + pl + pr``."""
        return self.size + self.before + self.after

    @property
    def last(self) -> Index:
        """``L = n + pl + pr - d (k - 1) - 1``: the last position at which a window of stride 1 still fits."""
        return self.padded - self.extent

    @property
    def positions(self) -> Index:
        """``L // s + 1``, the number of window positions where it is not negative; else there are none."""
        return self.last // self.stride + 1

    @property
    def formula(self) -> str:
        """The number of window positions, written with this window's values."""
        n, pl, pr, d, k, s = (
            _operand(e) for e in (self.size, self.before, self.after, self.dilation, self.kernel, self.stride)
        )
        return f"({n} + {pl} + {pr} - {d}*({k} - 1) - 1)//{s} + 1"

    def read(self, i: Index, a: Index) -> Index:
        """The input cell under kernel cell ``a`` at output position ``i``: ``i s + a d - p``."""
        return i * self.stride + a * self.dilation - self.before

    def settings(self) -> tuple[Condition, ...]:
        """When kernel, stride, dilation and padding are legal, whatever the input."""
        return (
            lower_bound("kernel_size", self.kernel, 1, f"a kernel has at least one cell{self._where}"),
            lower_bound("stride", self.stride, 1, f"a window moves by at least one cell{self._where}"),
            lower_bound("dilation", self.dilation, 1, f"kernel cells are at least one apart{self._where}"),
            lower_bound("padding", self.before, 0, f"zeros are added, never removed{self._where}"),
            lower_bound("padding", self.after, 0, f"zeros are added, never removed{self._where}"),
        )

    def conditions(self) -> tuple[Condition, ...]:
        """When the axis is legal; the last two say that ``output`` is the number of window positions."""
        least = self.extent - self.before - self.after
        nearest = least if least.constant is None else index(max(1, least.constant))
        fits = f"no window fits{self._where}: (n + pl + pr - d*(k - 1) - 1)//s + 1 = {self.formula} is less than 1"
        output = f"the number of window positions{self._where} is {self.formula}"
        return (
            Condition("input size", self.size, at_least(self.size, 1), f"no cell{self._where}", nearest),
            *self.settings(),
            Condition("input size", self.size, at_least(self.last, 0), fits, nearest),
            Condition("output size", self.output, at_least(self.output, 1), output),
            Condition("output size", self.output, at_least(self.last, self.stride * (self.output - 1)), output),
            Condition("output size", self.output, at_least(self.stride * self.output - 1, self.last), output),
        )

    @property
    def _where(self) -> str:
        return f" on spatial axis {self.axis}"


def _operand(e: Index) -> str:
    single = len(e.terms) == 1 and (e.constant is None or e.constant >= 0)
    return e.text if single or not e.terms else f"({e.text})"


def window(
    size: Dim,
    kernel: Dim,
    stride: Dim,
    dilation: Dim,
    before: Dim,
    after: Dim,
    axis: int = 0,
    taken: Iterable[str] = (),
) -> Window:
    """A window with its output size: a number where all sizes are numbers, else the symbol ``o`` and the axis.

    That symbol is none of the window's own and none of ``taken``.

    >>> window(28, 5, 1, 1, 2, 2).output, window(28, 5, 2, 1, 0, 0).output, window(3, 5, 2, 1, 0, 0).output
    (28, 12, 0)
    """
    n, k, s, d, pl, pr = (index(e) for e in (size, kernel, stride, dilation, before, after))
    own = {name for e in (n, k, s, d, pl, pr) for name in e.symbols}
    w = Window(n, k, s, d, pl, pr, symbol(fresh(f"o{axis}", own | set(taken))), axis)
    last, step = w.last.constant, s.constant
    if last is None or step is None:
        return w
    # An illegal stride is reported by the conditions; it must not fail here.
    return replace(w, output=index(max(0, last // max(step, 1) + 1)))


def fresh(name: str, taken: Iterable[str]) -> str:
    """The name, or the first of name_1, name_2, ... that is not taken."""
    used, k, new = set(taken), 0, name
    while new in used:
        k += 1
        new = f"{name}_{k}"
    return new


__all__: Sequence[str] = [
    "Condition", "Dim", "Dims", "LayerError", "Window", "batch_size", "check", "dimension", "dimensions", "fresh",
    "grouped", "in_a_group", "lower_bound", "positive", "same", "window",
]  # fmt: skip
