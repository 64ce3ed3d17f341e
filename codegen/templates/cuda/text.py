"""Indices, guards and addresses as C: what every CUDA template is made of.

A variable is printed by its letter, or by its value where it has but one, the batch size as ``N``.  Sizes are numbers,
so an index has bounds (``codegen.templates.cuda.ranges``), and a test that always holds is left out of the text.  Floor
division is C's division where the numerator is known to be at least 0, else the function ``floor_divide``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf, prod

from codegen.plan import BATCH, PlanError
from codegen.templates.cuda.ranges import Range, range_of
from derive.indices import Atom, Divides, Guard, Index, Interval, NonNegative, Quotient, Sym, Var, index, var
from derive.terms import Read, Tensor

SMALL = 1 << 30  # numbers below this are computed in ``int``


@dataclass(frozen=True)
class Scope:
    """The variables in scope: a letter and an interval each."""

    letters: tuple[str, ...]
    intervals: tuple[Interval, ...]
    exact: frozenset[Quotient] = frozenset()

    def knowing(self, guards: Iterable[Guard]) -> Scope:
        """The scope in which divisions leave no remainder, by these guards: C divides such numbers as it should."""
        divisions = [(g.e // g.m).substitute(self.only_value) for g in guards if isinstance(g, Divides)]
        found = [atom for e in divisions for atom in e.atoms()]
        return replace(self, exact=self.exact | {atom for atom in found if isinstance(atom, Quotient)})

    def inner(self, binders: Sequence[Interval], names: Sequence[str]) -> Scope:
        """The scope with further variables, their letters by position."""
        start = len(self.intervals)
        return replace(
            self,
            letters=(*self.letters, *names[start : start + len(binders)]),
            intervals=(*self.intervals, *binders),
        )

    def range(self, e: Index) -> Range:
        """Bounds on an index, both included."""
        return range_of(e, self.intervals)

    def never_negative(self, e: Index) -> bool:
        """Whether an index is known to be at least 0."""
        return self.range(e)[0] >= 0

    def text(self, e: Index) -> str:
        """An index as C."""
        terms = e.substitute(self.only_value).terms
        parts = [self._term(product, coefficient) for product, coefficient in terms]
        if not parts:
            return "0"
        first = parts[0].removeprefix("+ ")
        return " ".join([f"-{first[2:]}" if first.startswith("- ") else first, *parts[1:]])

    def only_value(self, atom: Atom) -> Index | None:
        """The value of a variable that has no other."""
        return self.intervals[atom.level][0] if isinstance(atom, Var) and self.is_settled(atom.level) else None

    def is_settled(self, level: int) -> bool:
        """Whether a variable has one value only; it is printed as that."""
        low, high = self.intervals[level]
        return (high - low).constant == 1

    def _term(self, product: tuple[Atom, ...], coefficient: int) -> str:
        sign, size = ("-", -coefficient) if coefficient < 0 else ("+", coefficient)
        factors = [self._atom_text(atom) for atom in product]
        if size != 1 or not factors:
            factors.insert(0, str(size))
        return f"{sign} {' * '.join(factors)}"

    def _atom_text(self, atom: Atom) -> str:
        if isinstance(atom, Sym):
            return self._size(atom)
        if isinstance(atom, Var):
            return self.letters[atom.level]
        above, below = self.text(atom.numerator), self.text(atom.denominator)
        if atom in self.exact or self.never_negative(atom.numerator):
            return f"({grouped(above)} / {grouped(below)})"
        return f"floor_divide({above}, {below})"

    def _size(self, atom: Sym) -> str:
        if index(0) + BATCH != Index((((atom,), 1),)):
            raise PlanError(f"the size {atom.name} is not a number; only the batch size {BATCH.text} stays free")
        return "N"

    def guard(self, g: Guard) -> str | None:
        """A guard as a C condition; None where it always holds."""
        if isinstance(g, NonNegative):
            return None if self.never_negative(g.e) else f"{self.text(g.e)} >= 0"
        if isinstance(g, Divides):
            if g.m.constant == 1:
                return None
            return f"{grouped(self.text(g.e))} % {grouped(self.text(g.m))} == 0"
        return f"{self.text(g.e)} == 0"

    def inside(self, read: Read) -> list[str]:
        """The conditions under which an index lies in the box of what is read, those left out that always hold."""
        return [text for conditions in self._beyond(read).values() for text in conditions]

    def leaving(self, read: Read) -> list[Index]:
        """The places along an axis that may lie outside the box of what is read."""
        return [read.at[axis] for axis in self._beyond(read)]

    def _beyond(self, read: Read) -> dict[int, list[str]]:
        """By axis, the conditions of those places that have any."""
        found: dict[int, list[str]] = {}
        for axis, (e, bounds) in enumerate(zip(read.at, read.tensor.box, strict=True)):
            if self._is_own_variable(e, bounds):
                continue
            self._check_small(read, e)
            low, high = bounds
            below = [] if self.never_negative(e - low) else [f"{self.text(e)} >= {self.text(low)}"]
            above = [] if self.never_negative(high - 1 - e) else [f"{self.text(e)} < {self.text(high)}"]
            if below or above:
                found[axis] = [*below, *above]
        return found

    def _check_small(self, read: Read, e: Index) -> None:
        """Refuse an index of small variables that ``int`` does not hold; what grows with the batch is an ``INDEX``."""
        low, high = self.range(e)
        if any(SMALL <= abs(end) < inf for end in (low, high)):
            raise PlanError(
                f"{read.tensor.name} is read at {self.text(e)}, from {low:.0f} to {high:.0f}; "
                f"places along an axis have to be below {SMALL} in CUDA text"
            )

    def _is_own_variable(self, e: Index, bounds: Interval) -> bool:
        return any(e == var(level) and own == bounds for level, own in enumerate(self.intervals))

    def offset(self, t: Tensor, at: Sequence[Index]) -> str:
        """The place of an element in the row-major array of a tensor: ``b * 4704 + ((c * 28 + h) * 28 + w)``.

        What lies within an image is an ``int``, and stands in parentheses so that C computes it as one.
        """
        axes = [(e - low, high - low) for e, (low, high) in zip(at, t.box, strict=True) if (high - low).constant != 1]
        outer = [k for k, (e, size) in enumerate(axes) if not self._is_small(e) or size.symbols]
        first = outer[-1] + 1 if outer else 0
        inner = prod_of(size for _, size in axes[first:])
        if first in (0, len(axes)) or kind_of(inner) != "int":
            return self._flat(t, axes)
        image, within = (self._horner(part) for part in (axes[:first], axes[first:]))
        return f"{grouped(image)} * {inner.constant}" + (f" + {grouped(within)}" if within != "0" else "")

    def _flat(self, t: Tensor, axes: Sequence[tuple[Index, Index]]) -> str:
        text = self._horner(axes)
        large = cells(t.box)
        if not large.symbols and kind_of(large) == "INDEX" and all(self._is_small(e) for e, _ in axes):
            return f"(INDEX){text}" if text.startswith("(") or text.isidentifier() else f"(INDEX)0 + {text}"
        return text

    def _horner(self, axes: Sequence[tuple[Index, Index]]) -> str:
        """``(c * 28 + h) * 28 + w``."""
        text = ""
        for e, size in axes:
            own = self.text(e)
            if text in ("", "0"):
                text = own
            elif own == "0":
                text = f"{grouped(text)} * {self.text(size)}"
            else:
                signed = f"- {own[1:]}" if own.startswith("-") else f"+ {own}"
                text = f"{grouped(text)} * {self.text(size)} {signed}"
        return text or "0"

    def _is_small(self, e: Index) -> bool:
        """Whether C computes an index as an ``int``: from variables of that type alone."""
        return not e.symbols and all(kind_of(self.intervals[v][1]) == "int" for v in e.variables)


def grouped(text: str) -> str:
    """In parentheses, where it is more than a name or a number."""
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def cells(box: Iterable[Interval]) -> Index:
    """The number of elements of a box."""
    return prod_of(high - low for low, high in box)


def prod_of(sizes: Iterable[Index]) -> Index:
    """The product of sizes."""
    return prod(sizes, start=index(1))


def kind_of(count: Index) -> str:
    """The C type of numbers below that: ``int`` for those that are sure to be small, else ``INDEX``.

    >>> kind_of(index(600)), kind_of(BATCH * 600)
    ('int', 'INDEX')
    """
    return "int" if count.constant is not None and count.constant < SMALL else "INDEX"
