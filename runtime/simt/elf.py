"""The thread-local symbols of an object file or executable, which are a kernel's shared arrays (ELF-64, little-endian).

A program's shared arrays are found in its symbol table: names, places in the thread-local segment, sizes.  In an object
file, a thread-local symbol that is declared but not defined is a dynamic shared array (``extern __shared__``).
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import NamedTuple

_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_SYMTAB, _TLS = 2, 6


class Symbol(NamedTuple):
    """A thread-local symbol: where it lies in its segment, or that it is not defined here."""

    name: str
    defined: bool
    offset: int
    size: int


def thread_local_symbols(path: Path) -> list[Symbol]:
    """All thread-local symbols of a file."""
    content = path.read_bytes()
    start, size, count = _header(content)
    sections = [_SECTION.unpack_from(content, start + k * size) for k in range(count)]
    found = []
    for section in sections:
        if section[1] != _SYMTAB:
            continue
        names = sections[section[6]][4]
        for at in range(section[4], section[4] + section[5], _SYMBOL.size):
            name, info, _, index, value, extent = _SYMBOL.unpack_from(content, at)
            if info & 15 == _TLS:
                end = content.index(b"\0", names + name)
                found.append(Symbol(content[names + name : end].decode(), index != 0, value, extent))
    return found


def _header(content: bytes) -> tuple[int, int, int]:
    """Where the section headers are, the size of one, and how many there are."""
    if content[:6] != b"\x7fELF\x02\x01":
        raise ValueError("no ELF-64 file of a little-endian machine")
    (start,) = struct.unpack_from("<Q", content, 40)
    size, count = struct.unpack_from("<HH", content, 58)
    return start, size, count


def plain_name(symbol: str) -> str:
    """The name in the source of a mangled symbol: the last identifier of it (Itanium C++ ABI, 5.1).

    >>> plain_name("_ZZ4gemmPfE4tile"), plain_name("_ZZ1gILi16EEvPfE1q_0"), plain_name("smem")
    ('tile', 'q', 'smem')
    """
    for found in re.finditer(r"(?<![0-9])[0-9]+", symbol if symbol.startswith("_Z") else ""):
        end = found.end() + int(found.group())
        name = symbol[found.end() : end]
        if end <= len(symbol) and re.fullmatch(r"[A-Za-z_]\w*", name) and re.fullmatch(r"E?(_[0-9]*_?)?", symbol[end:]):
            return name
    return symbol
