"""A kernel's text made an executable: compiled, its dynamic shared arrays placed, its kernels and shared arrays listed.

Executables are kept in the user's cache folder by a hash of the text, the defines, the compiler and this package.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from runtime.simt import signature, toolchain
from runtime.simt.elf import Symbol, plain_name, thread_local_symbols
from runtime.simt.errors import SimtCompileError
from runtime.simt.signature import Parameter

DYNAMIC_BYTES = 1 << 20
_LINK = ("-no-pie", "-Wl,-z,norelro", "-Wl,--compress-debug-sections=zlib")
_DYNAMIC = "certiconv_dynamic_shared"
_VARIABLES = (".data", "certiconv_data"), (".bss", "certiconv_zeros")
_NO_STACK = '.section .note.GNU-stack,"",@progbits\n'
_GUARD = "__tsan_atomic8_load"
_AT_RUN_TIME = (
    "a variable of the program is initialised at run time, by a constructor or a call, and CUDA has constants alone "
    "for __device__, __constant__ and static variables; make the constructor constexpr, or assign in a kernel"
)
_WRAPPERS = (
    "functions for tensor cores, ldmatrix and cp.async, with the PTX for a GPU, are in "
    f"{toolchain.INCLUDE / 'certiconv_ptx.cuh'}, which a text may include"
)
_FLAG = "_ZGV"  # whether a variable was constructed (Itanium C++ ABI, 5.1.4.2); g++ keeps one where it need not


class Shared(NamedTuple):
    """A shared array of a program: its name, its place in the thread-local segment, its bytes."""

    name: str
    offset: int
    bytes: int


@dataclass(frozen=True)
class Executable:
    """A compiled text with some of its kernels."""

    path: Path
    kernels: Mapping[str, tuple[Parameter, ...]]
    shared: tuple[Shared, ...]

    @property
    def names(self) -> list[str]:
        """The kernels by their numbers."""
        return list(self.kernels)


def built(unit: str, source: str, *, check: bool, include: Sequence[str]) -> Executable:
    """The executable of a unit, which is ``source`` with its defines and its table of kernels, from the cache or made.

    Raises:
        SimtUnavailable: there is no g++ here.
        SimtCompileError: g++ does not take it.
    """
    gxx = toolchain.compiler()
    name = toolchain.digest(unit, str(check), *include, toolchain.identity(gxx))
    entry = toolchain.kept(f"program-{name}", lambda at: _build(gxx, at, unit, check, include))
    path = entry / "program"
    described = _described((entry / "kernels.txt").read_text(), source)
    return Executable(path, described, _shared(thread_local_symbols(path)))


def _build(gxx: Path, at: Path, unit: str, check: bool, include: Sequence[str]) -> None:
    source, compiled, before, after = (at / name for name in ("unit.cpp", "unit.o", "before.s", "after.s"))
    source.write_text(unit)
    folders = [f"-I{folder}" for folder in include]
    header = toolchain.precompiled(gxx, check)
    _compile_unit([gxx, *toolchain.flags(check), *folders, "-include", header, "-c", source, "-o", compiled])
    before.write_text(_marks("start"))
    after.write_text(_marks("end") + _dynamic([s.name for s in thread_local_symbols(compiled) if not s.defined]))
    executable = at / "program"
    _link([gxx, *_LINK, before, compiled, after, toolchain.executor(gxx), "-o", executable])
    described = subprocess.run([executable], capture_output=True, text=True, check=False)
    if described.returncode:  # it ended before it could speak, in what runs before main
        raise SimtCompileError(_AT_RUN_TIME)
    (at / "kernels.txt").write_text(described.stdout)
    for left in (source, compiled, before, after):
        left.unlink()


def _compile_unit(command: Sequence[str | Path]) -> None:
    try:
        toolchain.run(command)
    except SimtCompileError as error:
        text = str(error)
        lines = [line for line in text.splitlines() if "<command-line>" not in line]
        raise SimtCompileError("\n".join([*lines, *_hints(text)])) from None


def _hints(message: str) -> list[str]:
    """What helps with texts that nvcc takes: host code, CUDA's other headers, inline PTX."""
    hints = []
    if "<<<" in message:
        hints.append("(host code with <<<...>>> belongs between #ifdef __CUDACC__ and #endif)")
    header = re.search(r"fatal error: ((?:cooperative_groups|mma|cuda|cub/|cute/|cutlass/)\S*): No such file", message)
    if header:
        hints.append(f"(CUDA's {header[1]} is not here; {_WRAPPERS})")
    elif "Assembler messages" in message or re.search(r"error:[^\n]*(?:'asm'|\bconstraint )", message):
        hints.append(f"(inline PTX does not run on a CPU; {_WRAPPERS})")
    return hints


def _link(command: Sequence[str | Path]) -> None:
    try:
        toolchain.run(command)
    except SimtCompileError as error:
        if _GUARD in str(error):  # of a static variable of a function
            raise SimtCompileError(_AT_RUN_TIME) from None
        raise


def _marks(side: str) -> str:
    """Assembler that marks a side of the user's variables: the linker keeps the order of the files in each section."""
    return "".join(f"{section}\n.globl {name}_{side}\n{name}_{side}:\n" for section, name in _VARIABLES) + _NO_STACK


def _dynamic(names: Sequence[str]) -> str:
    """Assembler that gives all dynamic shared arrays one place: they share their start, as CUDA has it."""
    all_names = dict.fromkeys((_DYNAMIC, *names))
    heads = "".join(f".globl {n}\n.type {n}, @object\n.size {n}, {DYNAMIC_BYTES}\n" for n in all_names)
    labels = "".join(f"{n}:\n" for n in all_names)
    return f'.section .tbss,"awT",@nobits\n.balign 65536\n{heads}{labels}.zero {DYNAMIC_BYTES}\n{_NO_STACK}'


def _shared(symbols: Sequence[Symbol]) -> tuple[Shared, ...]:
    """The shared arrays of an executable: the dynamic one first, under its name in the text, and g++'s flags last."""
    places: dict[int, Symbol] = {}
    for symbol in sorted(symbols, key=lambda s: s.name == _DYNAMIC):  # a name of the text goes before ours
        if symbol.defined and symbol.size:
            places.setdefault(symbol.offset, symbol)
    (start,) = {s.offset for s in symbols if s.name == _DYNAMIC}
    first = places.pop(start)
    name = "dynamic shared memory" if first.name == _DYNAMIC else plain_name(first.name)
    arrays = [s for s in places.values() if not s.name.startswith(_FLAG)]
    return (
        Shared(name, start, DYNAMIC_BYTES),
        *(Shared(plain_name(s.name), s.offset, s.size) for s in arrays),
        *(Shared("", s.offset, 0) for s in places.values() if s.name.startswith(_FLAG)),
    )


def _described(text: str, source: str) -> dict[str, tuple[Parameter, ...]]:
    """What an executable says of its kernels."""
    found = {}
    for chunk in text.split("\n\n"):
        name, *lines = chunk.strip().splitlines() or [""]
        if not name:
            continue
        names = signature.parameter_names(source, name)
        parameters = []
        for k, line in enumerate(lines):
            pointer, constant, letter, size, pretty = line.split(" ", 4)
            type_name = pretty.rpartition("T = ")[2].rstrip("]")
            shown = names[k] if len(names) == len(lines) else str(k)
            parameters.append(Parameter(shown, pointer == "1", constant == "1", letter, int(size), type_name))
        found[key(name)] = tuple(parameters)
    return found


def key(kernel: str) -> str:
    """A kernel's name without the spaces that mean nothing.

    >>> key("gemm< float,  4 >") == key("gemm<float, 4>")
    True
    """
    return re.sub(r"\s*([<>,&*:()])\s*", r"\1", re.sub(r"\s+", " ", kernel.strip()))
