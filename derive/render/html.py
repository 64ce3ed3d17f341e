"""Formulas as MathML within HTML: one small ``<math>`` element a piece, so that long formulas wrap in any browser.

The MathML is made from the LaTeX by latex2mathml, which is imported when the first formula is converted.
"""

from __future__ import annotations

import html
from functools import lru_cache

from derive.render.latex import Latex


class Html(Latex):
    """LaTeX whose formulas within prose are MathML."""

    def signed(self, sign: str, piece: str, later: bool) -> str:
        """See the base class; an empty group keeps the sign of a later term from being read as a prefix."""
        return f"{{}} {sign} {piece}" if later else f"{sign}{piece}"

    def inline(self, formula: str) -> str:
        """See the base class."""
        return mathml(formula)

    def prose(self, text: str) -> str:
        """See the base class."""
        return html.escape(text)


@lru_cache(maxsize=10_000)
def mathml(formula: str, display: bool = False) -> str:
    """One ``<math>`` element; ``display`` sets it with full-size sums and fractions."""
    from latex2mathml.converter import convert

    made = convert(formula, display="block" if display else "inline")
    if display:
        made = made.replace('display="block"', 'display="inline" displaystyle="true"', 1)
    return made
