"""Declarations of variables in CUDA text: those of a combination, from its place in row-major order.

A template declares all variables of a row, a column or a term, and keeps those of which the statements below speak.
What is left stands with its neighbours of the same type in one statement.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from codegen.templates.cuda.text import Scope, cells, grouped, kind_of
from derive.indices import index

LINE = 98  # characters of a statement on one line


class Declaration(NamedTuple):
    """A constant of a type, its name, and its value."""

    kind: str
    name: str
    value: str

    @property
    def text(self) -> str:
        """As a statement."""
        return f"const {self.kind} {self.name} = {self.value};"


def unflattened(scope: Scope, levels: Sequence[int], flat: str) -> list[Declaration]:
    """Declarations of these variables from the place of their combination in row-major order.

    Of a large number, what is left within an image comes first, so that the rest is computed with ``int``.

    >>> from codegen.plan import BATCH
    >>> from derive.indices import interval
    >>> scope = Scope(("b", "n", "i"), (interval(0, BATCH), interval(0, 6), interval(0, 28)))
    >>> for declaration in unflattened(scope, (0, 1, 2), "cell"):
    ...     print(declaration.text)
    const INDEX b = cell / 168;
    const int rest = cell % 168;
    const int n = rest / 28;
    const int i = rest % 28;
    >>> [declaration.text for declaration in unflattened(scope, (2,), "cell")], unflattened(scope, (2,), "i")
    (['const int i = cell;'], [])
    """
    kept = [level for level in levels if not scope.is_settled(level)]
    inner = cells(scope.intervals[level] for level in kept[1:])
    if len(kept) > 2 and kind_of(scope.intervals[kept[0]][1]) == "INDEX" and kind_of(inner) == "int":
        within = Declaration("int", "rest", f"{flat} % {scope.text(inner)}")
        return [*_declared(scope, kept, flat)[:1], within, *_declared(scope, kept[1:], "rest")]
    return _declared(scope, kept, flat)


def _declared(scope: Scope, levels: Sequence[int], flat: str) -> list[Declaration]:
    found: list[Declaration] = []
    inner = index(1)
    for place, level in reversed(list(enumerate(levels))):
        low, high = scope.intervals[level]
        text = flat if inner.constant == 1 else f"{flat} / {grouped(scope.text(inner))}"
        if place:
            text += f" % {grouped(scope.text(high - low))}"
        if low.constant != 0:
            text += f" + {scope.text(low)}"
        if text != scope.letters[level]:
            found.insert(0, Declaration(kind_of(high), scope.letters[level], text))
        inner = inner * (high - low)
    return found


def flat_name(scope: Scope, levels: Sequence[int], otherwise: str) -> str:
    """What the place of a combination of variables is called: the one variable's own letter, where it is its value."""
    kept = [level for level in levels if not scope.is_settled(level)]
    if len(kept) != 1 or scope.intervals[kept[0]][0].constant != 0:
        return otherwise
    return scope.letters[kept[0]]


def used(declarations: Sequence[Declaration], texts: Iterable[str]) -> list[Declaration]:
    """The declarations of those variables that occur in these texts, or in a declaration that is kept.

    >>> places = [Declaration("int", "rest", "cell % 6"), Declaration("int", "n", "rest / 2")]
    >>> [d.name for d in used([*places, Declaration("int", "i", "rest % 2")], ["Y[n]"])]
    ['rest', 'n']
    """
    words = words_of(texts)
    kept: list[Declaration] = []
    for declaration in reversed(declarations):
        if declaration.name in words:
            kept.insert(0, declaration)
            words |= words_of([declaration.value])
    return kept


def gathered(declarations: Iterable[Declaration]) -> list[str]:
    """Declarations as statements, neighbours of one type in one of them as long as a line holds them.

    >>> gathered([Declaration("INDEX", "b", "cell / 9"), Declaration("int", "i", "3"), Declaration("int", "j", "4")])
    ['const INDEX b = cell / 9;', 'const int i = 3, j = 4;']
    """
    found: list[str] = []
    kind = ""
    for declaration in declarations:
        further = f", {declaration.name} = {declaration.value};"
        if declaration.kind == kind and len(found[-1]) + len(further) < LINE + 2:
            found[-1] = found[-1].removesuffix(";") + further
        else:
            found.append(declaration.text)
        kind = declaration.kind
    return found


def words_of(texts: Iterable[str]) -> set[str]:
    """Every name that occurs in these texts."""
    return {word for text in texts for word in re.findall(r"\w+", text)}
