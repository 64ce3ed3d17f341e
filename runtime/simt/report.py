"""From what the executor noted, addresses of code and of memory, to what a reader of the kernel understands."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from derive.evaluate import Undefined
from runtime.simt import toolchain, wire
from runtime.simt.errors import Index, SimtError, Site

_BUFFER, _SHARED, _VARIABLES = 1, 2, 3
_MASK = 0xFFFFFFFFFFFFFFFF


class Context(NamedTuple):
    """What a result is explained with."""

    source: str
    name: str
    executable: Path
    grid: Index
    block: Index
    parameters: tuple[str, ...]
    buffers: tuple[tuple[int, ...], ...]
    """The parameters whose arrays lie in each buffer."""
    shared: tuple[str, ...]
    schedules: tuple[str, ...]


def error(result: wire.Result, context: Context, args: Sequence[object]) -> Exception:
    """The exception for a result that is not fine."""
    here, there = _sites(result, context)
    if result.kind == "undefined":
        place = f" ({here.file}:{here.line}: {here.text})" if here and here.line else ""
        return Undefined(f"{result.text}{place}")
    array, item = _array(result, context, args)
    if result.kind == "out-of-bounds" and result.numbers[2] and there is not None:  # see report_index in hooks.h
        array = array if here is not None and here.line == there.line else ""
        there = None
    schedule = context.schedules[result.schedule] if result.schedule < len(context.schedules) else ""
    what = _what(result, array, item, schedule, context)
    return SimtError(result.kind, what, here, there, array, result.offset if array else 0, schedule)


# --- Places in the source -----------------------------------------------------------------------------------


def _sites(result: wire.Result, context: Context) -> tuple[Site | None, Site | None]:
    codes = [site.pc for site in (result.here, result.there) if site.pc and not site.line]
    lines = iter(_lines(codes, context))
    if result.kind in ("crash", "timeout"):  # the executor's own code may run for a line: take the access before
        lines = iter(
            [line if line[1] else last for line, last in zip(lines, _lines([result.numbers[3]], context), strict=False)]
        )
    found: list[Site | None] = []
    for k, site in enumerate((result.here, result.there)):
        if not any(site) and (k or result.kind in ("order-dependent", "crash")):
            found.append(None)
            continue
        file, line = (context.name, site.line) if site.line or not site.pc else next(lines)
        found.append(
            Site(
                wire.ACCESSES[site.access], file, line, _text(file, line, context), _index(site.block, context.grid),
                _index(site.thread, context.block),
            )
        )  # fmt: skip
    return found[0], found[1]


def _lines(codes: Sequence[int], context: Context) -> list[tuple[str, int]]:
    """The line of each address of code: the innermost one that is not in a header of ours or of the compiler."""
    return [next(iter(chain), ("", 0)) for chain in _chains(codes, context)]


def _chains(codes: Sequence[int], context: Context) -> list[list[tuple[str, int]]]:
    """The user's lines at each address of code: of the innermost function inlined there, then of its callers."""
    if not codes:
        return []
    command = ["addr2line", "-a", "-i", "-e", str(context.executable), *(hex(code) for code in codes)]
    try:
        printed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except OSError:  # binutils came with g++, but may be gone
        printed = ""
    frames: list[list[tuple[str, int]]] = []
    for line in printed.splitlines():
        if line.startswith("0x"):
            frames.append([])
            continue
        file, _, number = line.partition(" ")[0].rpartition(":")
        frames[-1].append((file, int(number) if number.isdigit() else 0))
    frames += [[] for _ in codes[len(frames) :]]
    own = Path(context.name).name
    users = [[(f, n) for f, n in chain if n and _of_user(f)] for chain in frames]
    return [[(context.name if Path(f).name == own else f, n) for f, n in chain] for chain in users]


def _ways(result: wire.Result, context: Context) -> str:
    """Where two threads parted that stand at one line, but not by the same calls (executor/calls.h)."""
    calls = [code for code in result.numbers[2:4] if code]
    if len(calls) < 2 or result.here.line != result.there.line:
        return ""
    one, other = (list(reversed(chain)) for chain in _chains(calls, context))  # from the kernel inwards
    parted = [pair for pair in zip(one, other, strict=False) if pair[0] != pair[1]]
    if parted:
        (file, line), (second_file, second_line) = parted[0]
        return f": one came by the call at {file}:{line}, the other by that at {second_file}:{second_line}"
    file, line = one[0] if one else (context.name, result.here.line)
    return f": {file}:{line} has two calls, and each thread came by one"


def _of_user(file: str) -> bool:
    ours = str(toolchain.HERE)
    return not (file.startswith((ours, "/usr/include", "/usr/lib")) or file in ("", "??", "<launch>"))


def _text(file: str, line: int, context: Context) -> str:
    source = context.source
    if file != context.name:
        try:
            source = Path(file).read_text(errors="replace")
        except OSError:
            return ""
    lines = source.splitlines()
    return lines[line - 1].strip() if 1 <= line <= len(lines) else ""


def _index(linear: int, sizes: Index) -> Index:
    x, y, _ = sizes
    return linear % x, linear // x % y, linear // x // y


# --- Arrays -------------------------------------------------------------------------------------------------


def _array(result: wire.Result, context: Context, args: Sequence[object]) -> tuple[str, int]:
    """The array's name, and the bytes of one of its items (0: not known)."""
    if result.space == _BUFFER:
        members = context.buffers[result.array]
        item = getattr(args[members[0]], "itemsize", 0)
        return "/".join(context.parameters[k] for k in members), item
    if result.space == _SHARED:
        return context.shared[result.array], 0
    return ("a variable of the program", 0) if result.space == _VARIABLES else ("", 0)


def _place(result: wire.Result, array: str, item: int) -> str:
    """Where in an array."""
    if not array:
        return f"address {result.offset & _MASK:#x}"
    size = item or (result.bytes if result.bytes in (1, 2, 4, 8) else 0)
    if size and result.offset % size == 0:
        return f"{array}[{result.offset // size}]" if item else f"{array} at byte {result.offset}"
    return f"{array} at byte {result.offset}"


def _what(result: wire.Result, array: str, item: int, schedule: str, context: Context) -> str:
    """The mistake in one line."""
    place = _place(result, array, item)
    n = result.numbers
    match result.kind:
        case "race":
            return f"{place}, {_count(result.bytes)}: {result.text}"
        case "out-of-bounds":
            return _bounds(result, array, place)
        case "divergent-barrier" | "shuffle-mask" if not array:
            return result.text + _ways(result, context)
        case "uninitialised" | "shuffle-mask":
            return f"{place}, {_count(result.bytes)}: {result.text}" if array else result.text
        case "misaligned":
            kind = result.text.strip("'") or f"an access of {_count(n[1])}"
            where = f"{array} at byte {result.offset}" if array else f"address {n[3]:#x}"
            return f"{where}: {kind} needs a multiple of {n[1]}"
        case "overflow":
            return f"{_signed(n[0])} {result.text.replace(' in', f' {_signed(n[1])} in', 1)}"
        case "order-dependent":
            first, again = _values(n[2], n[3], item)
            told = f"{place} is {first} under {context.schedules[0]}, but {again} under {schedule}"
            count = result.undefined_shuffles
            return f"{told}; {undefined(count)}, and are given another value in each order" if count else told
        case "timeout":
            return "the launch has not ended in time; a thread may wait for one that cannot run before it returns"
    return result.text


def _bounds(result: wire.Result, array: str, place: str) -> str:
    n = result.numbers
    if n[2]:
        inner = f"{result.text.strip(chr(39))}"
        index = _signed(n[1])
        return f"index {index} of an array {inner}" + (f" ({array})" if array else "")
    if not array:
        return f"{place}: {result.text}"
    if result.text:
        return f"{place}: {result.text}"
    return f"{place}, {_count(result.bytes)}: the array has {_count(n[0])}"


def undefined(count: int) -> str:
    """What is said of shuffles whose results are undefined.

    >>> undefined(2)
    '2 shuffles read a lane that ended or is not in the mask'
    """
    return f"{count} shuffle{'' if count == 1 else 's'} read a lane that ended or is not in the mask"


def _count(count: int) -> str:
    return f"{count} byte" + ("" if count == 1 else "s")


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _values(first: int, again: int, item: int) -> tuple[str, str]:
    """Two cells as hexadecimal numbers of their size."""
    width = 2 * min(item or 1, 8)
    return f"0x{first:0{width}x}", f"0x{again:0{width}x}"
