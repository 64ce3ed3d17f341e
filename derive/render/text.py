"""Formulas as plain text, in Unicode or in ASCII, for a terminal: laid out within a width.

A line is broken between factors and terms, and inside brackets only where a piece is longer than a line.
"""

from __future__ import annotations

from collections.abc import Sequence

from derive.render.formula import Notation
from derive.render.names import Namer

_UNICODE = {"<=": "≤", ">=": "≥", "|": "∣"}
_SUPERSCRIPTS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


class Text(Notation):
    """Plain text.

    >>> from derive.indices import symbols, variables, interval
    >>> from derive.terms import tensor, term
    >>> n, k = symbols("n k")
    >>> i, a = variables(0, 2)
    >>> e = term(1, tensor("v", k)[a], tensor("X", n)[2 * i + a - 1], over=[interval(0, k)])
    >>> Text().expr(e, ("i",))
    'Σ[0 ≤ j < k] X[2 i + j - 1] v[j]'
    >>> Text(ascii_only=True).expr(e, ("i",))
    'Sum[0 <= j < k] X[2*i + j - 1] * v[j]'
    """

    def __init__(self, namer: Namer | None = None, *, ascii_only: bool = False) -> None:
        super().__init__(namer)
        self.ascii_only = ascii_only

    def name(self, name: str) -> str:
        """See the base class."""
        return name

    def product(self, parts: Sequence[str]) -> str:
        """See the base class."""
        return ("*" if self.ascii_only else " ").join(parts)

    def power(self, base: str, exponent: int) -> str:
        """See the base class."""
        return f"{base}^{exponent}" if self.ascii_only else base + str(exponent).translate(_SUPERSCRIPTS)

    def floor(self, numerator: str, denominator: str) -> str:
        """See the base class."""
        inside = f"{numerator}/{denominator}"
        return f"floor({inside})" if self.ascii_only else f"⌊{inside}⌋"

    def operator(self, operator: str) -> str:
        """See the base class."""
        return f" {operator if self.ascii_only else _UNICODE.get(operator, operator)} "

    def bracket(self, condition: str) -> str:
        """See the base class."""
        return f"[{condition}]"

    def read(self, tensor: str, at: Sequence[str]) -> str:
        """See the base class."""
        return f"{tensor}[{', '.join(at)}]" if at else tensor

    def sum(self, bounds: Sequence[tuple[str, str, str]], condition: str) -> str:
        """See the base class."""
        return f"{'Sum' if self.ascii_only else 'Σ'}[{condition}]"

    def maximum(self, condition: str, body: str) -> str:
        """See the base class."""
        return f"max[{condition}]({body})"

    def apply(self, function: str, argument: str) -> str:
        """See the base class."""
        name = "σ" if function == "sigmoid" and not self.ascii_only else function
        return f"{name}({argument})"

    def fraction(self, numerator: str, denominator: str, several: bool) -> str:
        """See the base class."""
        return f"{numerator} / ({denominator})" if several else f"{numerator} / {denominator}"

    def derivative(self, expr: str, target: str, simple: bool) -> str:
        """See the base class."""
        d = "d" if self.ascii_only else "∂"
        return f"{d}{expr}/{d}{target}" if simple else f"{d}/{d}{target} ({expr})"

    def factors_separator(self) -> str:
        """What stands between two factors."""
        return " * " if self.ascii_only else " "

    def _powers(self, factors: object, scope: tuple[str, ...]) -> list[str]:
        found = super()._powers(factors, scope)  # type: ignore[arg-type]
        return [*(f + " *" for f in found[:-1]), *found[-1:]] if self.ascii_only else found

    def inline(self, formula: str) -> str:
        """See the base class."""
        return formula

    def prose(self, text: str) -> str:
        """See the base class."""
        return text


def fill(pieces: Sequence[str], width: int, indent: str = "") -> list[str]:
    """The pieces in lines of at most ``width``, lines after the first indented; long pieces are broken at blanks.

    >>> fill(["aaa bbb", "(ccc ddd)", "e"], 11, "  ")
    ['aaa bbb', '  (ccc ddd)', '  e']
    """
    room = max(width - len(indent), 20)
    lines: list[str] = []
    for piece in (part for p in pieces for part in _parts(p, room, 0)):
        start = indent if lines else ""
        if lines and len(lines[-1]) + 1 + len(piece) <= width:
            lines[-1] += " " + piece
        else:
            lines.append(start + piece)
    return lines


def _parts(piece: str, room: int, depth: int) -> list[str]:
    """The piece, or if it is too long its parts between blanks at this depth of brackets, or deeper ones."""
    if len(piece) <= room or " " not in piece:
        return [piece]
    parts, level = [""], 0
    for letter in piece:
        level += (letter in "([⌊") - (letter in ")]⌋")
        if letter == " " and level <= depth:
            parts.append("")
        else:
            parts[-1] += letter
    if len(parts) == 1:
        return _parts(piece, room, depth + 1)
    return [inner for part in parts for inner in _parts(part, room, depth + 1)]
