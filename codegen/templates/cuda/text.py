"""Indices, guards and addresses as C: what every CUDA template is made of.

A variable is printed by its letter, or by its value where it has but one, the batch size as ``N``.  Sizes are numbers,
so an index is bounded by interval arithmetic over the ranges of its variables, and a test that always holds is left out
of the text.  Floor division is C's division where the numerator is known to be at least 0, else the function
``floor_divide``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf, prod

from codegen.plan import BATCH, PlanError
from derive.indices import Atom, Divides, Guard, Index, Interval, NonNegative, Quotient, Sym, Var, index, var
from derive.terms import Read, Tensor

Range = tuple[float, float]
SMALL = 1 << 30  # numbers below this are computed in ``int``
LINE = 98  # characters of a statement on one line


@dataclass(frozen=True)
class Scope:
    """The variables in scope: a letter and an interval each."""

    letters: tuple[str, ...]
    intervals: tuple[Interval, ...]
    exact: frozenset[Quotient] = frozenset()

    def knowing(self, guards: Iterable[Guard]) -> Scope:
        """The scope in which divisions leave no remainder, by these guards: C divides such numbers as it should."""
        divisions = [(g.e // g.m).substitute(self._only_value) for g in guards if isinstance(g, Divides)]
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

    # --- bounds ---------------------------------------------------------------------------------------------------

    def range(self, e: Index) -> Range:
        """Bounds on an index by interval arithmetic, both included; a remainder is known to be one."""
        low, high = self._sum(e)
        for product, coefficient in e.terms:
            if len(product) == 1 and isinstance(product[0], Quotient):
                within = self._with_remainder(e, product[0], coefficient)
                low, high = max(low, within[0]), min(high, within[1])
        return low, high

    def _with_remainder(self, e: Index, atom: Quotient, coefficient: int) -> Range:
        """Bounds on ``e`` as a rest and a multiple of ``x - m (x // m)``, for a multiple of m before ``x // m``."""
        by = atom.denominator.constant
        if by is None or coefficient % by:
            return (-inf, inf)
        times = -coefficient // by
        low, high = self._sum(e - (atom.numerator - by * Index((((atom,), 1),))) * times)
        return low + min(0, times * (by - 1)), high + max(0, times * (by - 1))

    def _sum(self, e: Index) -> Range:
        low, high = 0.0, 0.0
        for product, coefficient in e.terms:
            part: Range = (coefficient, coefficient)
            for atom in product:
                part = _times(part, self._atom(atom))
            low, high = low + part[0], high + part[1]
        return low, high

    def _atom(self, atom: Atom) -> Range:
        if isinstance(atom, Sym):
            return (0.0, inf)
        if isinstance(atom, Quotient):
            low, high = self.range(atom.numerator)
            by = atom.denominator.constant
            return (low, high) if by is None else (_floor(low, by), _floor(high, by))
        first, end = self.intervals[atom.level]
        return self.range(first)[0], self.range(end)[1] - 1

    def never_negative(self, e: Index) -> bool:
        """Whether an index is known to be at least 0."""
        return self.range(e)[0] >= 0

    # --- text -----------------------------------------------------------------------------------------------------

    def text(self, e: Index) -> str:
        """An index as C."""
        terms = e.substitute(self._only_value).terms
        parts = [self._term(product, coefficient) for product, coefficient in terms]
        if not parts:
            return "0"
        first = parts[0].removeprefix("+ ")
        return " ".join([f"-{first[2:]}" if first.startswith("- ") else first, *parts[1:]])

    def _only_value(self, atom: Atom) -> Index | None:
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
            return None if self.never_negative(g.e) else _comparison(self, g.e)
        if isinstance(g, Divides):
            if g.m.constant == 1:
                return None
            return f"{grouped(self.text(g.e))} % {grouped(self.text(g.m))} == 0"
        return f"{self.text(g.e)} == 0"

    def inside(self, read: Read) -> list[str]:
        """The conditions under which an index lies in the box of what is read, those left out that always hold."""
        found = []
        for e, bounds in zip(read.at, read.tensor.box, strict=True):
            if self._is_own_variable(e, bounds):
                continue
            self._check_small(read, e)
            low, high = bounds
            if not self.never_negative(e - low):
                found.append(f"{self.text(e)} >= {self.text(low)}")
            if not self.never_negative(high - 1 - e):
                found.append(f"{self.text(e)} < {self.text(high)}")
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


def _comparison(scope: Scope, e: Index) -> str:
    return f"{scope.text(e)} >= 0"


def grouped(text: str) -> str:
    """In parentheses, where it is more than a name or a number."""
    return text if text.isidentifier() or text.isdigit() else f"({text})"


def _times(a: Range, b: Range) -> Range:
    ends = [0.0 if 0 in (x, y) else x * y for x in a for y in b]
    return min(ends), max(ends)


def _floor(value: float, by: int) -> float:
    return value if abs(value) == inf else float(int(value) // by)


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


def unflattened(scope: Scope, levels: Sequence[int], flat: str) -> list[str]:
    """Declarations of these variables from the place of their combination in row-major order.

    Of a large number, what is left within an image comes first, so that the rest is computed with ``int``.

    >>> from derive.indices import interval
    >>> scope = Scope(("b", "n", "i"), (interval(0, BATCH), interval(0, 6), interval(0, 28)))
    >>> for line in unflattened(scope, (0, 1, 2), "cell"):
    ...     print(line)
    const INDEX b = cell / 168;
    const int rest = cell % 168;
    const int n = rest / 28;
    const int i = rest % 28;
    >>> unflattened(scope, (2,), "cell"), unflattened(scope, (2,), "i")
    (['const int i = cell;'], [])
    """
    kept = [level for level in levels if not scope.is_settled(level)]
    inner = cells(scope.intervals[level] for level in kept[1:])
    if len(kept) > 2 and kind_of(scope.intervals[kept[0]][1]) == "INDEX" and kind_of(inner) == "int":
        within = f"const int rest = {flat} % {scope.text(inner)};"
        return [*_declared(scope, kept, flat)[:1], within, *_declared(scope, kept[1:], "rest")]
    return _declared(scope, kept, flat)


def _declared(scope: Scope, levels: Sequence[int], flat: str) -> list[str]:
    lines: list[str] = []
    inner = index(1)
    for place, level in reversed(list(enumerate(levels))):
        low, high = scope.intervals[level]
        text = flat if inner.constant == 1 else f"{flat} / {grouped(scope.text(inner))}"
        if place:
            text += f" % {grouped(scope.text(high - low))}"
        if low.constant != 0:
            text += f" + {scope.text(low)}"
        if text != scope.letters[level]:
            lines.insert(0, f"const {kind_of(high)} {scope.letters[level]} = {text};")
        inner = inner * (high - low)
    return lines


def flat_name(scope: Scope, levels: Sequence[int], otherwise: str) -> str:
    """What the place of a combination of variables is called: the one variable's own letter, where it is its value."""
    kept = [level for level in levels if not scope.is_settled(level)]
    if len(kept) != 1 or scope.intervals[kept[0]][0].constant != 0:
        return otherwise
    return scope.letters[kept[0]]


def used(declarations: Sequence[str], texts: Iterable[str]) -> list[str]:
    """The declarations of those variables that occur in these texts, or in a declaration that is kept.

    >>> used(["const int rest = cell % 6;", "const int n = rest / 2;", "const int i = rest % 2;"], ["Y[n]"])
    ['const int rest = cell % 6;', 'const int n = rest / 2;']
    """
    words = words_of(texts)
    kept: list[str] = []
    for line in reversed(declarations):
        if line.split()[2] in words:
            kept.insert(0, line)
            words |= words_of([line])
    return kept


def gathered(declarations: Iterable[str]) -> list[str]:
    """The same declarations, neighbours of one type in one statement as long as a line holds them.

    >>> gathered(["const INDEX b = cell / 9;", "const int i = cell / 3 % 3;", "const int j = cell % 3;"])
    ['const INDEX b = cell / 9;', 'const int i = cell / 3 % 3, j = cell % 3;']
    """
    found: list[str] = []
    for line in declarations:
        kind, rest = line[: len(line) - len(line.split(" ", 2)[2])], line.split(" ", 2)[2]
        if found and found[-1].startswith(kind) and len(found[-1]) + len(rest) < LINE:
            found[-1] = f"{found[-1][:-1]}, {rest}"
        else:
            found.append(line)
    return found


def stored(cell: str, value: str) -> list[str]:
    """The statement that stores a number, on as many lines as that takes.

    >>> stored("Y[n]", "x + y")
    ['Y[n] = REAL(x + y);']
    """
    whole = f"{cell} = REAL({value});"
    return [whole] if len(whole) <= LINE else [f"{cell} =", f"    REAL({value});"]


def words_of(texts: Iterable[str]) -> set[str]:
    """Every name that occurs in these texts."""
    return {word for text in texts for word in re.findall(r"\w+", text)}
