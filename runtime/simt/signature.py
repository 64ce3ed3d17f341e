"""The kernels of a text, the names of their parameters and their launch bounds, found in the text; types come from the
compiler.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
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


def launch_bound(source: str, kernel: str, defines: Mapping[str, object]) -> int | None:
    r"""The threads that ``__launch_bounds__`` lets a block of a kernel have; None where the text does not tell.

    It is read where it stands in every definition of this name, and is a product of numbers, macros and constants.

    Args:
        source: the text.
        kernel: the kernel's name.
        defines: macros that the text is compiled with.

    >>> launch_bound("#define W 2\n__global__ void __launch_bounds__(32 * W, 1) f(int *y) { *y = 1; }", "f", {})
    64
    """
    name = re.split(r"[<\s]", kernel.strip(), maxsplit=1)[0].rpartition("::")[2]
    plain = without_comments(source)
    constants = _constants(plain, defines)
    plain = re.sub(r"^[ \t]*#(?:.*\\\n)*.*", "", plain, flags=re.MULTILINE)
    bounds = [found.group()[found.group().index("(") + 1 : -1] for found in _BOUNDS.finditer(plain)]
    numbers = iter(range(len(bounds)))
    plain = _BOUNDS.sub(lambda _: f" certiconv_bound_{next(numbers)} ", plain)
    values: set[int | None] = set()
    for match in _KERNEL.finditer(plain):
        end = _closing(plain, match.end())
        if end is None or plain[end + 1 :].lstrip()[:1] != "{" or re.findall(r"\w+", match["before"])[-1:] != [name]:
            continue
        head = re.split(r"[;{}]", plain[: match.start()])[-1] + match["before"]
        marks = re.findall(r"certiconv_bound_(\d+)", head)
        known = {} if _is_template(plain[: match.start()]) else constants
        first = _parts(bounds[int(marks[0])])[:1] if len(marks) == 1 else []
        values.add(_product(first[0], known) if first else None)
    return values.pop() if len(values) == 1 else None


def _constants(source: str, defines: Mapping[str, object]) -> dict[str, str]:
    """The macros and constants that have one value in a text; what is defined from outside goes first."""
    pattern = r"^[ \t]*#[ \t]*define[ \t]+(\w+)[ \t]+([^\n]+)|\bconst(?:expr)?\b[\w \t]*\b(\w+)\s*=([^;,]+)"
    found: dict[str, set[str]] = {}
    for macro, text, constant, value in re.findall(pattern, source, re.MULTILINE):
        found.setdefault(macro or constant, set()).add(text or value)
    single = {name: values.pop() for name, values in found.items() if len(values) == 1}
    return {**single, **{name: str(value) for name, value in defines.items()}}


def _product(text: str, constants: Mapping[str, str]) -> int | None:
    """A product of integers and of names for such products; None for anything else."""
    product = 1
    for factor in (part.strip(" \t\r\n()") for part in text.split("*")):
        if re.fullmatch(r"[1-9]\d*[uUlL]*", factor):
            product *= int(factor.rstrip("uUlL"))
            continue
        rest = {name: value for name, value in constants.items() if name != factor}
        value = _product(constants[factor], rest) if factor in constants else None
        if value is None:
            return None
        product *= value
    return product


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
