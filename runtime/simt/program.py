"""A kernel's text as a program, compiled once, and its launches.

A program is an executable of its own and every launch a process of its own: a kernel that crashes takes nothing with
it, and variables of the program (``__device__``, ``__constant__``) start each launch, and each order of blocks and
threads in it, as the text says.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypedDict, Unpack

from runtime.simt import arguments, process, report, signature, wire
from runtime.simt.build import Executable, built, key
from runtime.simt.errors import LaunchError, SimtCompileError
from runtime.simt.grid import Dims, check_bound, check_shared, orders, sizes
from runtime.simt.signature import Parameter

Define = str | int | None

_KEY_LIMIT = 4000


class Options(TypedDict, total=False):
    """How a launch runs; every one may be left out.

    schedules: orders of blocks and threads that the kernel runs under: "forward", "reverse", "shuffled", or a seed of
        at least 2.  All three unless given; the first one's results are kept.
    reproducible: whether the results of all schedules must be the same bits; None, the default: unless there were
        atomic operations on floating-point numbers.
    timeout: seconds for all schedules together; 60.
    field_key: the ``key`` of ``derive.evaluate.prime_field`` for texts over ``certiconv_field``; 0.
    strided: whether arrays that are not contiguous are taken, as they lie; False.
    """

    schedules: Sequence[str | int]
    reproducible: bool | None
    timeout: float
    field_key: int
    strided: bool


class Outcome(NamedTuple):
    """What a launch that went well counted.

    Attributes:
        accesses: memory accesses of all threads under all schedules; 0 without checks.
        floating_atomics: atomic operations on floating-point numbers, whose rounding depends on their order.
        schedules: the orders that ran.
        written: the names of the arrays that the kernel wrote to.
        undefined_shuffles: how often a thread read, by a shuffle, a lane that ended or is not in the mask.
    """

    accesses: int
    floating_atomics: int
    schedules: tuple[str, ...]
    written: tuple[str, ...]
    undefined_shuffles: int


@dataclass(frozen=True)
class Program:
    """A text of CUDA C++, compiled for the CPU; make one with `compile`.

    Attributes:
        source: the text.
        name: what it is called in reports.
        defines: the macros it was compiled with.
        check: whether its accesses are checked.
        include: the folders of its own headers.
    """

    source: str
    name: str
    defines: tuple[tuple[str, Define], ...]
    check: bool
    include: tuple[str, ...]
    _executables: dict[str, Executable] = field(default_factory=dict, repr=False, compare=False)

    @property
    def kernels(self) -> Mapping[str, tuple[Parameter, ...]]:
        """The kernels that the text shows and that are no templates, with their parameters."""
        return self._common().kernels

    def parameters(self, kernel: str) -> tuple[Parameter, ...]:
        """The parameters of a kernel, which may be an instance of a template."""
        return self._executable(kernel).kernels[key(kernel)]

    def launch(
        self,
        kernel: str,
        grid: Dims,
        block: Dims,
        args: Sequence[object],
        *,
        shared_bytes: int = 0,
        **options: Unpack[Options],
    ) -> Outcome:
        """Run a kernel on NumPy arrays, which are changed in place.

        Args:
            kernel: its name; of a template with its arguments, such as ``"gemm<float, 4>"``.
            grid, block: sizes, up to three, x first.
            args: an array or None for each pointer, a number for each value, bytes for a structure.
            shared_bytes: dynamic shared memory.
            options: see `Options`.

        Raises:
            SimtError: the kernel has a mistake; the arrays are as they were.
            LaunchError: the launch or an argument is not legal.
            derive.evaluate.Undefined: it divided by zero in the prime field.
        """
        executable, name = self._executable(kernel), key(kernel)
        parameters = executable.kernels[name]
        grid_size, block_size = sizes(grid, block)
        widened = any("certiconv_field" in str(value) for _, value in self.defines)
        check_shared(0, shared_bytes, widened=widened)
        check_bound(kernel, block_size, _bound(self.source, kernel, self.defines))
        taken = arguments.taken(kernel, parameters, args, strided=options.get("strided", False))
        chosen = orders(options.get("schedules", ("forward", "reverse", "shuffled")))
        reproducible, timeout = options.get("reproducible"), options.get("timeout", 60.0)
        request = wire.Request(
            executable.names.index(name), grid_size, block_size, shared_bytes, executable.shared[0].offset, self.check,
            max(1, round(timeout * 1000)), 1 if reproducible is None else 2 * reproducible, taken.places,
            [(b.bytes, b.out, True, b.item) for b in taken.buffers], [(s.offset, s.bytes) for s in executable.shared],
            list(chosen.values()), _field_key(options.get("field_key", 0)),
        )  # fmt: skip
        ran = process.run(executable.path, request, taken.buffers, timeout)
        result = ran.result
        if result.kind:
            context = report.Context(
                self.source, self.name, executable.path, grid_size, block_size, tuple(p.name for p in parameters),
                tuple(b.arrays for b in taken.buffers), tuple(s.name for s in executable.shared), tuple(chosen),
            )  # fmt: skip
            raise report.error(result, context, args)
        used = (s.bytes for s, used in zip(executable.shared[1:], ran.shared[1:], strict=True) if used)
        check_shared(sum(used), shared_bytes, widened=widened)
        back = (b for b, new in zip(taken.buffers, ran.changed, strict=True) if new)
        names = tuple(parameters[k].name for b in back for k in b.arrays)
        return Outcome(result.accesses, result.floating_atomics, tuple(chosen), names, result.undefined_shuffles)

    def _common(self) -> Executable:
        """The executable of all kernels that the text shows and that are no templates."""
        if "" not in self._executables:
            plain = [name for name in signature.kernels(self.source) if not name.startswith("<>")]
            self._executables[""] = self._compiled(plain)
        return self._executables[""]

    def _executable(self, kernel: str) -> Executable:
        """The executable that has this kernel; one of its own for an instance of a template."""
        name = key(kernel)
        for made in [k for k, e in self._executables.items() if not e.path.exists()]:
            del self._executables[made]  # the cache was emptied meanwhile
        if name in self._common().kernels:
            return self._common()
        if name not in self._executables:
            self._check_known(kernel)
            self._executables[name] = self._compiled([name])
        return self._executables[name]

    def _check_known(self, kernel: str) -> None:
        """Refuse a kernel that the text cannot have; one behind a macro is left to the compiler."""
        base = re.split(r"[<\s]", kernel, maxsplit=1)[0].rpartition("::")[2]
        if not re.search(rf"\b{re.escape(base)}\b|##", self.source):
            known = [name.removeprefix("<>") for name in signature.kernels(self.source)]
            raise LaunchError(f"kernel={kernel!r} is not in {self.name}; its kernels: {', '.join(known) or 'none'}")

    def _compiled(self, kernels: Sequence[str]) -> Executable:
        """The executable with these kernels, but for those that the text shows where the preprocessor sees nothing."""
        while True:
            try:
                return built(self._unit(kernels), self.source, check=self.check, include=self.include)
            except SimtCompileError as error:
                table = "\n".join(line for line in str(error).splitlines() if line.startswith("<launch>"))
                present = [name for name in kernels if f"'{name}'" not in table]
                if len(present) == len(kernels) or len(kernels) == 1:
                    raise
                kernels = present

    def _unit(self, kernels: Sequence[str]) -> str:
        """The text of the program: defines, the kernel's text with its own line numbers, the table of kernels."""
        defines = "".join(f"#define {n} {'' if v is None else v}\n" for n, v in self.defines)
        table = ", ".join(f"CERTICONV_KERNEL({kernel})" for kernel in kernels)
        return (
            f'{defines}#line 1 "{self.name}"\n{self.source}\n#line 1 "<launch>"\n#include "certiconv_entry.h"\n'
            f'extern "C" const certiconv::Kernel certiconv_kernels[] = {{{table or "{0, 0, 0}"}}};\n'
            f'extern "C" const unsigned certiconv_kernel_count = {len(kernels)};\n'
        )


@functools.lru_cache(maxsize=1024)
def _bound(source: str, kernel: str, defines: tuple[tuple[str, Define], ...]) -> int | None:
    return signature.launch_bound(source, kernel, dict(defines))


def _field_key(value: int) -> bytes:
    text = str(value)
    if len(text) > _KEY_LIMIT:
        raise LaunchError(f"field_key has {len(text)} digits; at most {_KEY_LIMIT} are taken")
    return text.encode()


def compile(  # noqa: A001 - as runtime.compile
    source: str,
    *,
    defines: Mapping[str, Define] | None = None,
    check: bool = True,
    name: str = "kernel.cu",
    include: Sequence[str | os.PathLike[str]] = (),
) -> Program:
    """A text of CUDA C++ as a program for the CPU.

    Args:
        source: the text: kernels and device functions, no host code.
        defines: macros, as nvcc's ``-D``; None defines one as nothing.
        check: whether its memory accesses are checked; without, it runs several times as fast.
        name: what the text is called in reports.
        include: folders where its own headers are.

    Raises:
        SimtUnavailable: there is no g++ here.
        SimtCompileError: g++ does not take it.
    """
    folders = tuple(str(Path(folder).resolve()) for folder in include)
    shown = name.replace('"', "'").replace("\\", "/")
    return _compiled(source, shown, tuple((defines or {}).items()), check, folders)


@functools.lru_cache(maxsize=256)
def _compiled(
    source: str, name: str, defines: tuple[tuple[str, Define], ...], check: bool, include: tuple[str, ...]
) -> Program:
    program = Program(source, name, defines, check, include)
    program.kernels  # noqa: B018 - errors of the text come now
    return program


def launch(
    source: str,
    kernel: str,
    grid: Dims,
    block: Dims,
    args: Sequence[object],
    *,
    shared_bytes: int = 0,
    check: bool = True,
    defines: Mapping[str, Define] | None = None,
    **options: Unpack[Options],
) -> Outcome:
    """`compile` and `Program.launch` in one: run a kernel of a text on NumPy arrays, which are changed in place.

    The program is compiled the first time; later calls, in this process or another, find it in the cache.
    """
    program = compile(source, defines=defines, check=check)
    return program.launch(kernel, grid, block, args, shared_bytes=shared_bytes, **options)
