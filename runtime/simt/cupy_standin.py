"""What an emitted module uses of CuPy, on NumPy arrays and the SIMT executor: its kernels run without a GPU.

An emitted module says ``import cupy``.  Under `CupyStandIn.installed` that gives the stand-in, whose arrays are
NumPy's, whose ``empty`` marks what nothing has been written to, and whose kernels run checked.  It is stricter than
CuPy where CuPy would go wrong in silence: a number must have exactly the type of its parameter, dynamic shared memory
beyond 48 KiB must have been asked for, and no array is made while a stream captures.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt

from runtime.simt.errors import LaunchError, SimtCompileError
from runtime.simt.poison import empty
from runtime.simt.program import Define, Outcome, Program, compile  # noqa: A004 - as runtime.compile
from runtime.simt.signature import Parameter
from runtime.simt.streams import Streams

Array = npt.NDArray[Any]

_DEFAULT_SHARED = 48 << 10
_MAKERS = ("zeros", "ones", "full", "zeros_like", "array", "ascontiguousarray", "from_dlpack")
_LETTERS = {"f": "f", "i": "i", "u": "u", "B": "b", "h": "f"}


class Launched(NamedTuple):
    """A launch that went well: what was asked for, and what was counted."""

    kernel: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    shared_mem: int
    outcome: Outcome


class Function:
    """A kernel of a module, called as CuPy's: ``(grid, block, args, shared_mem=0, stream=None)``."""

    def __init__(self, home: CupyStandIn, program: Program, name: str) -> None:
        self._home, self._program, self.name = home, program, name
        self.max_dynamic_shared_size_bytes = _DEFAULT_SHARED

    @property
    def kernel(self) -> Self:
        """The function itself, as for CuPy's RawKernel."""
        return self

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: Sequence[object],
        *,
        shared_mem: int = 0,
        stream: object = None,  # every stream is the same
    ) -> None:
        """Run it.

        Raises:
            SimtError: the kernel has a mistake.
            LaunchError: the launch would fail or be misunderstood on a GPU.
        """
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise LaunchError(
                f"shared_mem={shared_mem} is more than max_dynamic_shared_size_bytes="
                f"{self.max_dynamic_shared_size_bytes} of {self.name}; set that first"
            )
        for parameter, argument in zip(self._program.parameters(self.name), args, strict=False):
            _check_number(self.name, parameter, argument)
        self._home.streams.launch(partial(self._run, tuple(grid), tuple(block), tuple(args), shared_mem))

    def _run(self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[object], shared_mem: int) -> None:
        settings = self._home.settings_of(self.name)
        outcome = self._program.launch(self.name, grid, block, args, shared_bytes=shared_mem, strided=True, **settings)
        self._home.launches.append(Launched(self.name, grid, block, shared_mem, outcome))


class RawModule:
    """A text with kernels, as CuPy's RawModule; it is compiled when a function is asked for."""

    def __init__(
        self,
        home: CupyStandIn,
        code: str,
        options: Sequence[str] = (),
        name_expressions: Sequence[str] | None = None,
    ) -> None:
        self._home, self.code, self.options = home, code, tuple(options)
        self.name_expressions = tuple(name_expressions or ())
        self._program: Program | None = None

    def compile(self, log_stream: object = None) -> None:
        """Compile it now.

        Raises:
            SimtCompileError: the text does not compile.
        """
        if self._program is None:
            defines = {**defined(self.options), **self._home.defines}
            self._program = compile(self.code, defines=defines, check=self._home.check)

    def get_function(self, name: str) -> Function:
        """A kernel by its name, or by its expression for a template."""
        self.compile()
        return Function(self._home, cast(Program, self._program), name)


class CupyStandIn(ModuleType):
    """An object that an emitted module can use as ``cupy``.  Names it does not define are NumPy's.

    Attributes:
        launches: every launch that went well, in order.

    >>> cupy = CupyStandIn(defines={"REAL": "certiconv_field"}, names={"float32": np.uint64})
    >>> cupy.zeros(2, cupy.float32)
    array([0, 0], dtype=uint64)
    """

    def __init__(
        self,
        *,
        defines: Mapping[str, Define] | None = None,
        check: bool = True,
        names: Mapping[str, object] | None = None,
        turns: Sequence[str | int] = (),
        **settings: Any,
    ) -> None:
        """A stand-in.

        Args:
            defines: macros for every module, which go before its own ``-D``; such as REAL for another element type.
            check: whether accesses are checked.
            names: names that mean something else, such as ``{"float32": numpy.uint64}`` for a run over the field.
            turns: orders of threads and blocks that the launches of each kernel take in turn, one a launch.
            settings: of `Program.launch`: schedules, reproducible, timeout, field_key.
        """
        super().__init__("cupy", "NumPy arrays and the SIMT executor in the place of CuPy.")
        self.defines, self.check, self.settings = dict(defines or {}), check, settings
        self._turns: tuple[str | int, ...] = tuple(turns)
        self._taken: Counter[str] = Counter()
        self.launches: list[Launched] = []
        self.streams = Streams()
        self.cuda = _cuda(self.streams)
        for name, value in (names or {}).items():
            setattr(self, name, value)

    def settings_of(self, kernel: str) -> dict[str, Any]:
        """The settings of the next launch of a kernel."""
        if not self._turns:
            return self.settings
        turn = self._taken[kernel] % len(self._turns)
        self._taken[kernel] += 1
        return {**self.settings, "schedules": self._turns[turn : turn + 1]}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name in _MAKERS:
            self.streams.check_makes_nothing(name)
        return getattr(np, name)

    @contextlib.contextmanager
    def installed(self) -> Iterator[Self]:
        """Let ``import cupy`` give this object; what was there before comes back."""
        before = sys.modules.get("cupy")
        sys.modules["cupy"] = self
        try:
            yield self
        finally:
            if before is None:
                del sys.modules["cupy"]
            else:
                sys.modules["cupy"] = before

    def RawModule(  # noqa: N802 - CuPy's name
        self,
        *,
        code: str,
        options: Sequence[str] = (),
        name_expressions: Sequence[str] | None = None,
        backend: str = "nvrtc",
        jitify: bool = False,
    ) -> RawModule:
        """A module of this text."""
        return RawModule(self, code, options, name_expressions)

    def RawKernel(  # noqa: N802 - CuPy's name
        self, code: str, name: str, options: Sequence[str] = (), **_: object
    ) -> Function:
        """One kernel of a text."""
        return RawModule(self, code, options).get_function(name)

    def empty(self, shape: int | tuple[int, ...], dtype: npt.DTypeLike = "float64", order: str = "C") -> Array:
        """A new array whose cells count as uninitialised."""
        self.streams.check_makes_nothing("empty")
        return empty(shape, dtype, order)

    def empty_like(self, array: Array, dtype: npt.DTypeLike | None = None, shape: Any = None) -> Array:
        """A new array of the same shape and dtype, whose cells count as uninitialised."""
        self.streams.check_makes_nothing("empty_like")
        order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        return empty(array.shape if shape is None else shape, array.dtype if dtype is None else dtype, order)

    @staticmethod
    def asnumpy(array: Array) -> Array:
        """The array, copied as from a GPU."""
        return np.array(array)

    @staticmethod
    def is_available() -> bool:
        """It is."""
        return True


def _cuda(streams: Streams) -> SimpleNamespace:
    """What ``cupy.cuda`` has: one device of compute capability 8.0, and streams that wait for nothing."""
    device = SimpleNamespace(
        id=0,
        compute_capability="80",
        attributes={"MaxSharedMemoryPerBlockOptin": 227 << 10, "MultiProcessorCount": 1},
        synchronize=lambda: None,
    )
    return SimpleNamespace(
        Device=lambda _=0: device,
        Stream=streams,
        Event=streams.event,
        get_elapsed_time=streams.elapsed,
        get_current_stream=lambda _=None: streams.null,
        is_available=lambda: True,
        runtime=SimpleNamespace(
            getDevice=lambda: 0,
            getDeviceCount=lambda: 1,
            getDeviceProperties=lambda _: {"name": b"no GPU: runtime.simt on the CPU"},
            deviceSynchronize=lambda: None,
        ),
        compiler=SimpleNamespace(CompileException=SimtCompileError),
    )


def defined(options: Sequence[str]) -> dict[str, Define]:
    """The macros among a compiler's options; all other options are for a GPU.

    >>> defined(("-std=c++17", "-DN=4", "-D", "FAST", "--define-macro=REAL=double"))
    {'N': '4', 'FAST': None, 'REAL': 'double'}
    """
    found: dict[str, Define] = {}
    words = iter(options)
    for word in words:
        if word in ("-D", "--define-macro"):
            text = next(words, "")
        elif word.startswith(("-D", "--define-macro=")):
            text = word.removeprefix("--define-macro=").removeprefix("-D")
        else:
            continue
        name, equals, value = text.partition("=")
        found[name] = value if equals else None
    return found


def _check_number(kernel: str, parameter: Parameter, argument: object) -> None:
    """Refuse a number whose bytes CuPy would hand over as those of another type."""
    if parameter.pointer or parameter.letter not in _LETTERS:
        return
    given = np.dtype(type(argument)) if isinstance(argument, (int, float)) else getattr(argument, "dtype", None)
    wanted = _LETTERS[parameter.letter]
    if given is None or (given.kind, given.itemsize) == (wanted, parameter.size):
        return
    nearest = f"numpy.{({'f': 'float', 'i': 'int', 'u': 'uint', 'b': 'bool_'})[wanted]}"
    nearest += "" if wanted == "b" else str(8 * parameter.size)
    raise LaunchError(
        f"argument {parameter.name}={argument!r} of {kernel} is {given}, and CuPy would hand its bytes over as "
        f"{parameter.type}; nearest legal: {nearest}({argument})"
    )
