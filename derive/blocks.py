"""Source text as a tree of blocks, in which every index is computed in the outermost block that knows its variables.

A block is a header such as ``for v3 in range(0, 5):``, a *prelude* of indices that its variable completes, and a body.
Asked for the text of an index, a block splits it by levels: what an outer loop knows becomes a name in the prelude of
that loop, so an inner loop adds to a running offset.  A block also knows bounds of its loop variable, and with them
decides tests that always hold or always fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

from derive.affine import Extreme, Floor, Linear, Position, Test, Times
from derive.indices import Var

Span = tuple[int, int]


class Block:
    """A piece of source under a header; a loop knows its variable and, if it is known, the span of its values."""

    def __init__(self, header: str, parent: Block | None, level: int | None = None, span: Span | None = None):
        self.header, self.parent, self.level, self.span = header, parent, level, span
        self.fresh: Callable[[str], str] = _numbered() if parent is None else parent.fresh
        self.loops: int = 0 if parent is None else parent.loops + (level is not None)
        self.prelude: list[str] = []
        self.body: list[str | Block] = []
        self.names: dict[object, str] = {}
        self.ready: set[str] = set()

    def has(self, name: str) -> bool:
        """Whether this factor has certainly been computed where this block goes on."""
        return name in self.ready or (self.parent is not None and self.parent.has(name))

    def child(self, header: str) -> Block:
        """A block under a condition."""
        inner = Block(header, self)
        self.body.append(inner)
        return inner

    def home(self, level: int) -> Block:
        """The outermost block that knows all variables up to this level."""
        block = self
        while block.parent is not None and (block.level is None or block.level > level):
            block = block.parent
        return block

    def span_of(self, e: Linear) -> Span | None:
        """Bounds of the values of ``e`` here, if there are any."""
        low = high = e.constant
        for atom, coefficient in e.terms:
            span = self._span_of_atom(atom)
            if span is None:
                return None
            ends = (coefficient * span[0], coefficient * span[1])
            low, high = low + min(ends), high + max(ends)
        return low, high

    def _span_of_atom(self, atom: Position) -> Span | None:
        if isinstance(atom, Var):
            home = self.home(atom.level)
            return home.span if home.level == atom.level else None
        if isinstance(atom, Times) or not atom.safe:
            return None
        parts = atom.bounds if isinstance(atom, Extreme) else (atom.numerator,)
        spans = [s for s in map(self.span_of, parts) if s is not None]
        if len(spans) < len(parts):
            return None
        if isinstance(atom, Floor):
            return spans[0][0] // atom.divisor.constant, spans[0][1] // atom.divisor.constant
        pick = max if atom.name == "max" else min
        return pick(s[0] for s in spans), pick(s[1] for s in spans)

    def source(self, indent: str = "") -> Iterator[str]:
        """The lines of this block."""
        yield indent + self.header
        for line in (*self.prelude, *(self.body or ["pass"])):
            if isinstance(line, Block):
                yield from line.source(indent + " ")
            else:
                yield f"{indent} {line}"

    def text(self, e: Linear) -> str:
        """A name or number for ``e``, computed in the outermost block that knows it; unsafe ones as they stand."""
        if not e.terms:
            return str(e.constant)
        level = e.level
        home = self.home(level)
        if e not in home.names:
            rest = Linear(e.constant, tuple(t for t in e.terms if t[0].level < level))
            parts = [
                self._text_of_atom(atom) + (f" * {c}" if c != 1 else "") for atom, c in e.terms if atom.level == level
            ]
            if rest.terms or rest.constant:
                parts.append(self.text(rest))
            text = " + ".join(parts)
            if not e.safe:
                return f"({text})"
            if e.terms == ((Var(level), 1),) and not e.constant:
                return text
            home.names[e] = self.fresh("i")
            home.prelude.append(f"{home.names[e]} = {text}")
        return home.names[e]

    def _text_of_atom(self, atom: Position) -> str:
        if isinstance(atom, Var):
            return f"v{atom.level}"
        if isinstance(atom, Times):
            return " * ".join(self._text_of_atom(f) for f in atom.factors)
        if isinstance(atom, Floor):
            n, d = self.text(atom.numerator), self.text(atom.divisor)
            return f"({n} // {d})" if atom.safe else f"quotient({n}, {d})"
        bounds = [self.text(b) for b in atom.bounds]
        if len(bounds) != 2 or not atom.safe:
            return f"{atom.name}({', '.join(bounds)})"
        sign = ">" if atom.name == "max" else "<"
        return f"({bounds[0]} if {bounds[0]} {sign} {bounds[1]} else {bounds[1]})"

    def truth(self, test: Test) -> bool | None:
        """Whether a test holds here for certain, or fails for certain."""
        if isinstance(test, Linear):
            span = self.span_of(test)
            return None if span is None or span[0] < 0 <= span[1] else span[0] >= 0
        if test.divisor.terms or test.divisor.constant < 1:
            return None
        if test.divisor.constant == 1:
            return True
        return None if test.e.terms else test.e.constant % test.divisor.constant == 0

    def condition(self, test: Test) -> str:
        """Source for a test."""
        if isinstance(test, Linear):
            return f"{self.text(test)} >= 0"
        e, m = self.text(test.e), self.text(test.divisor)
        return f"{e} % {m} == 0" if test.safe else f"quotient({e}, {m}) * {m} == {e}"


def _numbered() -> Callable[[str], str]:
    numbers = count(1)
    return lambda letter: f"{letter}{next(numbers)}"
