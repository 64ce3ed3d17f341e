"""The kernels of a text and the names of their parameters, found in the text; types come from the compiler."""

from __future__ import annotations

import re
from typing import NamedTuple


class Parameter(NamedTuple):
    """A kernel's parameter.

    Attributes:
        name: as in the source, or its number.
        pointer, constant: whether it is a pointer, and one to constants.
        letter: the kind of the type (pointed to): f, i, u, h (half), b (bfloat16), F (field), B (bool), s (structure),
            p (pointer), v (void).
        size: its bytes.
        type: its name in C++.
    """

    name: str
    pointer: bool
    constant: bool
    letter: str
    size: int
    type: str

    def declaration(self) -> str:
        """How it is declared.

        >>> Parameter("x", True, True, "f", 4, "float").declaration()
        'const float *x'
        """
        return f"{'const ' if self.constant else ''}{self.type} {'*' if self.pointer else ''}{self.name}"


def without_comments(source: str) -> str:
    """The text with comments and strings blanked; every line stays where it is.

    >>> without_comments("a /* b */ c // d")
    'a           c     '
    """
    pattern = r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\""
    return re.sub(pattern, lambda found: re.sub(r"[^\n]", " ", found.group()), source, flags=re.DOTALL)


_KERNEL = re.compile(r"\b__global__\b(?P<before>[^;{}()]*)\(")
_BOUNDS = re.compile(r"__launch_bounds__\s*\((?:[^()]|\([^()]*\))*\)")


def kernels(source: str) -> dict[str, list[str]]:
    r"""Each kernel's name, with the names of its parameters; a template's name begins with ``<>``.

    >>> kernels("template <int N> __global__ void f(float *x) {} extern "
    ...         "\"C\" __global__ void __launch_bounds__(64) g(const int *y, float z[]) {}")
    {'<>f': ['x'], 'g': ['y', 'z']}
    """
    plain = _BOUNDS.sub("", without_comments(source))
    found = {}
    for match in _KERNEL.finditer(plain):
        names = re.findall(r"[A-Za-z_]\w*", match["before"])
        if names and (end := _closing(plain, match.end())) is not None:
            key = f"<>{names[-1]}" if _is_template(plain[: match.start()]) else names[-1]
            found[key] = [_last_name(part) for part in _parts(plain[match.end() : end])]
    return found


def parameter_names(source: str, kernel: str) -> list[str]:
    """The names of a kernel's parameters; empty where the text does not show them, as behind a macro."""
    name = re.split(r"[<\s]", kernel.strip(), maxsplit=1)[0].rpartition("::")[2]
    known = kernels(source)
    return known.get(name) or known.get(f"<>{name}") or []


def _is_template(before: str) -> bool:
    """Whether a declaration that starts here is a template: its head stands since the last end of something."""
    head = re.split(r"[;{}]", before)[-1]
    return re.search(r"\btemplate\s*<", head) is not None


def _closing(text: str, start: int) -> int | None:
    depth = 1
    for k in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[k], 0)
        if not depth:
            return k
    return None


def _parts(text: str) -> list[str]:
    """What stands between the outer commas."""
    parts, depth = [""], 0
    for c in text:
        depth += {"(": 1, "[": 1, "<": 1, ")": -1, "]": -1, ">": -1}.get(c, 0)
        if c == "," and not depth:
            parts.append("")
        else:
            parts[-1] += c
    return [part for part in parts if part.strip() and part.strip() != "void"]


def _last_name(declaration: str) -> str:
    names = re.findall(r"[A-Za-z_]\w*", re.sub(r"\[[^\]]*\]|=.*", "", declaration))
    return names[-1] if names else "?"
