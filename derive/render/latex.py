r"""Formulas as LaTeX (amsmath, amssymb), in the part of it that latex2mathml reads too.

Indices stand in brackets, ``X[b, c, i s + a d - p]``: a floor division in a subscript is too small to read, and a
tensor called ``A1``, set as ``A_1``, has a subscript already.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction

from derive.render.formula import Notation

_GREEK = re.compile(
    "alpha|beta|gamma|delta|epsilon|zeta|eta|theta|iota|kappa|lambda|mu|nu|xi|pi|rho|sigma|tau|upsilon|phi|chi|psi|"
    "omega|Gamma|Delta|Theta|Lambda|Xi|Pi|Sigma|Upsilon|Phi|Psi|Omega"
)
_OPERATORS = {"<=": r" \le ", ">=": r" \ge ", "<": " < ", "=": " = ", "|": r" \mid "}
_FUNCTIONS = {"exp": r"\exp", "log": r"\log", "tanh": r"\tanh", "sigmoid": r"\sigma"}
_SPECIAL = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "≤": r"$\le$", "≥": r"$\ge$", "∣": r"$\mid$", "Σ": r"$\Sigma$", "σ": r"$\sigma$", "∂": r"$\partial$",
    "⌊": r"$\lfloor$", "⌋": r"$\rfloor$", "×": r"$\times$", "→": r"$\to$", "↦": r"$\mapsto$",
}  # fmt: skip


class Latex(Notation):
    r"""LaTeX.

    >>> from derive.indices import symbols, variables, interval
    >>> from derive.terms import tensor, term
    >>> n, k = symbols("n k")
    >>> i, a = variables(0, 2)
    >>> e = term(1, tensor("v", k)[a], tensor("X", n)[2 * i + a - 1], over=[interval(0, k)])
    >>> print(Latex().expr(e, ("i",)))
    \sum\limits_{j=0}^{k - 1} \, v[j] \, X[2\,i + j - 1]
    """

    space = r" \, "

    def name(self, name: str) -> str:
        """See the base class."""
        return latex_name(name)

    def product(self, parts: Sequence[str]) -> str:
        """See the base class."""
        return r"\,".join(parts)

    def power(self, base: str, exponent: int) -> str:
        """See the base class."""
        return f"{{{base}}}^{{{exponent}}}"

    def floor(self, numerator: str, denominator: str) -> str:
        """See the base class."""
        return rf"\left\lfloor {numerator}/{denominator} \right\rfloor"

    def operator(self, operator: str) -> str:
        """See the base class."""
        return _OPERATORS[operator]

    def bracket(self, condition: str) -> str:
        """See the base class."""
        return f"[{condition}]"

    def read(self, tensor: str, at: Sequence[str]) -> str:
        """See the base class."""
        return rf"{tensor}[{', '.join(at)}]" if at else tensor

    def sum(self, bounds: Sequence[tuple[str, str, str]], condition: str) -> str:
        """See the base class."""
        if len(bounds) <= 3:
            return " ".join(rf"\sum\limits_{{{name}={low}}}^{{{high}}}" for name, low, high in bounds)
        return rf"\sum\limits_{{{stacked(condition)}}}"

    def maximum(self, condition: str) -> str:
        """See the base class."""
        return rf"\max\limits_{{{stacked(condition)}}}"

    def function(self, name: str) -> str:
        """See the base class."""
        return _FUNCTIONS.get(name, rf"\operatorname{{{name}}}")

    def brackets(self, *, tall: bool) -> tuple[str, str]:
        """See the base class; ``left`` and ``right`` would keep a line from being broken between them."""
        return (r" \Bigl( ", r" \Bigr)") if tall else ("(", ")")

    def fraction(self, numerator: str, denominator: str, several: bool) -> str:
        """See the base class."""
        return rf"\frac{{{numerator}}}{{{denominator}}}"

    def rational(self, value: Fraction) -> str:
        """See the base class."""
        return str(value) if value.denominator == 1 else rf"\frac{{{value.numerator}}}{{{value.denominator}}}"

    def derivative(self, expr: str, target: str) -> str:
        """See the base class."""
        return rf"\frac{{\partial {expr}}}{{\partial {target}}}"

    def inline(self, formula: str) -> str:
        """See the base class."""
        return f"${formula}$"

    def prose(self, text: str) -> str:
        """See the base class."""
        return "".join(_SPECIAL.get(letter, letter) for letter in text)


def stacked(condition: str) -> str:
    """A condition below a sign, two of its parts on a line."""
    parts = re.split(r", (?=[^,]*\\le)", condition)
    lines = [", ".join(parts[k : k + 2]) for k in range(0, len(parts), 2)]
    return lines[0] if len(lines) == 1 else r"\substack{" + r" \\ ".join(lines) + "}"


def latex_name(name: str) -> str:
    r"""A name as mathematics sets it: ``A1`` with a subscript, several letters upright, Greek letters as such.

    >>> [latex_name(name) for name in ("i", "i'", "dZ1", "n_out", "alpha", "A_1")]
    ['i', "i'", '\\mathrm{dZ}_{1}', 'n_{\\mathrm{out}}', '\\alpha', 'A_{1}']
    """
    stem, primes = name.rstrip("'"), "'" * (len(name) - len(name.rstrip("'")))
    match = re.fullmatch(r"([A-Za-z]+)_?(\d+)", stem) or re.fullmatch(r"([A-Za-z]+)_([A-Za-z0-9]+)", stem)
    if match:
        return f"{_word(match[1])}_{{{_word(match[2])}}}{primes}"
    return _word(stem) + primes


def _word(word: str) -> str:
    if len(word) == 1 or word.isdigit():
        return word
    if _GREEK.fullmatch(word):
        return f"\\{word}"
    return r"\mathrm{" + word.replace("_", r"\_") + "}"
