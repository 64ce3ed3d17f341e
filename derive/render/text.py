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
    'Σ[0 ≤ j < k] v[j] X[2 i + j - 1]'
    >>> Text(ascii_only=True).expr(e, ("i",))
    'Sum[0 <= j < k] v[j] * X[2*i + j - 1]'
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

    def maximum(self, condition: str) -> str:
        """See the base class."""
        return f"max[{condition}]"

    def function(self, name: str) -> str:
        """See the base class."""
        return "σ" if name == "sigmoid" and not self.ascii_only else name

    def brackets(self, *, tall: bool) -> tuple[str, str]:
        """See the base class."""
        return "(", ")"

    def fraction(self, numerator: str, denominator: str, several: bool) -> str:
        """See the base class."""
        return f"{numerator} / ({denominator})" if several else f"{numerator} / {denominator}"

    def derivative(self, expr: str, target: str) -> str:
        """See the base class."""
        d = "d" if self.ascii_only else "∂"
        return f"{d}{expr}/{d}{target}" + ("" if expr else " ")

    def joined(self, groups: Sequence[Sequence[str]]) -> list[str]:
        """See the base class; in ASCII a product has its sign."""
        if not self.ascii_only:
            return super().joined(groups)
        return [
            piece + (" *" if last and k + 1 < len(groups) else "")
            for k, group in enumerate(groups)
            for piece, last in zip(group, [False] * (len(group) - 1) + [True], strict=True)
        ]

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
        if lines and len(lines[-1]) + 1 + len(piece) <= width and not _starts_term(piece):
            lines[-1] += " " + piece
        else:
            lines.append((indent if lines else "") + piece)
    whole = " ".join(pieces)
    return [whole] if len(whole) <= width else lines


def _starts_term(piece: str) -> bool:
    return piece.startswith(("+ ", "- "))


def _parts(piece: str, room: int, depth: int) -> list[str]:
    """The piece, or if it is too long its parts between blanks at this depth of brackets, or deeper ones."""
    if len(piece) <= room or " " not in piece:
        return [piece]
    parts, level = [""], 0
    for k, letter in enumerate(piece):
        level += (letter in "([⌊") - (letter in ")]⌋")
        joined = parts[-1] in ("+", "-") or piece[k + 1 : k + 2] == "*"
        if letter == " " and level <= depth and not joined:
            parts.append("")
        else:
            parts[-1] += letter
    if len(parts) == 1:
        return _parts(piece, room, depth + 1)
    return [inner for part in parts for inner in _parts(part, room, depth + 1)]
