"""The variables of a stage while it is printed: a letter and an interval each, and which of them are Python loops."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from codegen.plan import PlanError, Stage, number
from derive.indices import Atom, Index, Interval, Var, index


@dataclass(frozen=True)
class Scope:
    """The variables in one monomial of a stage; loops that are written out have a value in ``fixed``."""

    letters: tuple[str, ...]
    intervals: tuple[Interval, ...]
    loops: frozenset[int]
    fixed: Mapping[int, int] = field(default_factory=dict)

    def text(self, e: Index) -> str:
        """An index as Python text."""
        body = re.sub(r"\$(\d+)", lambda m: self.letters[int(m.group(1))], self.put(e).text)
        body = re.sub(r"\(\(([\w*]+)\)//\((\w+)\)\)", r"(\1 // \2)", body)
        return re.sub(r"(?<=[\w)])([+-])", r" \1 ", body.removeprefix("+"))

    def put(self, e: Index) -> Index:
        """The index with the values of the loops that are written out."""
        return e if not self.fixed else _put(e, self.fixed)

    def vectors(self, e: Index) -> list[int]:
        """The variables of an index that are not loops."""
        return sorted(e.variables - self.loops)

    def choices(self, levels: Sequence[int]) -> Iterator[dict[int, int]]:
        """Every choice of values for these loops."""
        ranges = [range(*(number(end) for end in self.intervals[level])) for level in levels]
        for values in product(*ranges):
            yield dict(zip(levels, values, strict=True))

    def written_out(self, values: Mapping[int, int]) -> Scope:
        """The scope with numbers for some loops."""
        return replace(self, fixed={**self.fixed, **values})

    def values(self, e: Index) -> list[int]:
        """Every value that an index of loops takes."""
        here = self.put(e)
        if not here.variables <= self.loops:
            raise PlanError(f"{e.text} does not depend on loops alone")
        return sorted({number(_put(here, choice)) for choice in self.choices(sorted(here.variables))})

    def low(self, e: Index) -> int:
        """The least value of an index over the variables that have numbers for intervals."""
        return min(self._ends(self.put(e)))

    def high(self, e: Index) -> int:
        """The largest value."""
        return max(self._ends(self.put(e)))

    def _ends(self, e: Index) -> tuple[int, int]:
        bent = sorted({v for atom in e.atoms() if not isinstance(atom, Var) for v in index_of(atom).variables})
        if bent:
            ends = [self._ends(_put(e, choice)) for choice in self.choices(bent)]
            return min(low for low, _ in ends), max(high for _, high in ends)
        return self._extreme(e, at_end=False), self._extreme(e, at_end=True)

    def _extreme(self, e: Index, *, at_end: bool) -> int:
        total = e
        for level in sorted(e.variables):
            parts = total.linear_in(level)
            if parts is None:
                raise PlanError(f"{e.text} is not affine")
            lo, hi = self.intervals[level]
            up = (number(parts[0]) > 0) == at_end
            total = parts[0] * (number(hi) - 1 if up else number(lo)) + parts[1]
        return number(total)


def scope_of(stage: Stage, binders: Sequence[Interval]) -> Scope:
    """The scope of one monomial of a stage."""
    letters = stage.names
    count = stage.tensor.rank + len(binders)
    loops = frozenset(k for k in range(count) if letters[k] in stage.loops)
    return Scope(letters[:count], stage.tensor.box + tuple(binders), loops)


def index_of(atom: Atom) -> Index:
    """An atom as an index."""
    return Index((((atom,), 1),))


def _put(e: Index, values: Mapping[int, int]) -> Index:
    def swap(atom: Atom) -> Index | None:
        return index(values[atom.level]) if isinstance(atom, Var) and atom.level in values else None

    return e.substitute(swap)
