"""From a layer to a function: emit text, or take it from the cache, load it as a module, and guard its border.

This file is the one crossing from `runtime` to `codegen`.  Nothing is proved here, and neither Z3 nor the exact
execution of `codegen.check` is started: text is loaded as it was printed.

The cache keeps emitted text on disk under the hash of everything it depends on: the layer, the shape, the dtype, the
backend, and the files of `derive` and `codegen` themselves, so text of another version is never found.  An entry begins
with the hash of its text; one that was cut off or changed does not match, and is emitted again.  The cache saves time
and decides nothing: where its folder cannot be used, every call emits.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import numpy.typing as npt

import codegen
from codegen.files import write_atomically
from derive import shapes
from derive.layers import Conv, Layer
from derive.legality import LayerError
from runtime.arrays import Array, checked, float_dtype
from runtime.device import choose
from runtime.threads import remedy

if TYPE_CHECKING:
    from runtime.parallel import Convolution

PathLike = str | os.PathLike[str]


class Gradients(NamedTuple):
    """Vector-Jacobian products of a layer; ``bias`` is None for a layer without one."""

    input: Array
    weight: Array
    bias: Array | None


def compile(  # noqa: A001 - the public name, as in torch.compile
    layer: Layer,
    *,
    backend: str = "auto",
    input_shape: Sequence[int],
    dtype: npt.DTypeLike = "float32",
    threads: int = 1,
    cache_dir: PathLike | None = None,
) -> Operation:
    """A convolution as a function, generated for one input shape.

    Args:
        layer: a convolution whose dimensions are all numbers.
        backend: "auto", "numpy" or "cupy", see `runtime.device.choose`.
        input_shape: (batch, channels, spatial axes...); the text is made for it, but the batch size stays free.
        dtype: float32 or float64.
        threads: how many a call may use, at least 1; more than one split a batch that is large enough to gain by it
            (`runtime.parallel`), and results may then differ from those of one thread by rounding.
        cache_dir: the folder of emitted text; None: the user's cache folder.

    Returns:
        An `Operation` with ``forward`` and ``backward``.

    Raises:
        LayerError: the layer is no convolution, has a symbol for a dimension, or cannot take the shape.
        BackendError: the backend does not work here.
        ArrayError: the dtype is neither float32 nor float64.
        ValueError: ``threads`` is less than 1.

    >>> from derive.layers import Conv2d
    >>> compile(Conv2d(1, 6, 5), input_shape=(8, 1, 4, 28))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    derive.legality.LayerError: ...no window fits on spatial axis 0...
    """
    if not isinstance(layer, Conv):
        raise LayerError(
            f"layer={layer!r}: a convolution is compiled by itself; runtime.Network takes a Sequential of other layers"
        )
    shape = tuple(input_shape)
    output_shape = numeric_output_shape(layer, shape)
    many = checked_threads(threads) > 1
    module = load_module(layer, backend=backend, input_shape=shape, dtype=dtype, cache_dir=cache_dir)
    return Operation(
        layer, shape, output_shape, float_dtype(dtype).name, module,
        _parallel(layer, shape, module, float_dtype(dtype).name, threads) if many else None,
    )  # fmt: skip


def checked_threads(threads: int) -> int:
    """A number of threads, at least 1; warns where BLAS cannot be held at one thread, which several threads need.

    >>> checked_threads(0)
    Traceback (most recent call last):
    ValueError: threads=0 is less than 1; nearest legal: 1
    """
    if type(threads) is not int:
        raise TypeError(f"threads={threads!r} is {type(threads).__name__}; an integer of at least 1 is needed")
    if threads < 1:
        raise ValueError(f"threads={threads} is less than 1; nearest legal: 1")
    if threads > 1 and (told := remedy(1)) is not None:
        warnings.warn(
            f"threads={threads}: right, but probably much slower than one: {told}", RuntimeWarning, stacklevel=3
        )
    return threads


def _parallel(layer: Conv, shape: tuple[int, ...], module: ModuleType, dtype: str, threads: int) -> Convolution:
    from runtime.parallel import Convolution, seconds  # here, since most programs need one thread

    return Convolution(module, dtype, threads=threads, image=seconds(layer, shape))


@dataclass(frozen=True)
class Operation:
    """A compiled convolution.  Shapes are those it was compiled for, with any batch size; results are new arrays.

    Any strides will do: ``input`` is read where it lies, the other arguments are packed first if they are not
    C-contiguous (`runtime.arrays` has the policy).  Calls share no state, so threads may share an operation.

    Attributes:
        layer: the convolution.
        input_shape, output_shape: with the batch size it was compiled for.
        dtype: "float32" or "float64".
        module: the emitted module.
        parallel: its functions on several threads; None where one was asked for.
    """

    layer: Conv
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: str
    module: ModuleType
    parallel: Convolution | None = None

    def forward(self, input: object, weight: object, bias: object = None) -> Array:
        """The cross-correlation of the input with the weight, plus the bias.

        Args:
            input: (batch, channels, spatial axes...).
            weight: (out_channels, in_channels // groups, kernel axes...).
            bias: (out_channels,), exactly if the layer has one.

        Returns:
            (batch, out_channels, output axes...).

        Raises:
            ArrayError: an argument has another dtype, shape or device.
        """
        x, w = self._input(input), self._parameter("weight", weight)
        if not self.layer.bias:
            if bias is not None:
                raise LayerError(f"bias is given, but {self.layer} has none; nearest legal: bias=None")
            return self._run(x, w)
        if bias is None:
            raise LayerError(
                f"bias=None, but {self.layer} has one; nearest legal: zeros of shape {self._shape('bias')}"
            )
        return self._run(x, w, self._parameter("bias", bias))

    def backward(self, grad_output: object, input: object, weight: object) -> Gradients:
        """The gradients of <grad_output, forward(input, weight, bias)>.

        Args:
            grad_output: the cotangent, of the shape of the output.
            input, weight: as for `forward`.

        Returns:
            The gradients, each of the shape of its argument.

        Raises:
            ArrayError: an argument has another dtype, shape or device.
        """
        x, w = self._input(input), self._parameter("weight", weight)
        shape = (len(x), *self.output_shape[1:])
        cotangent = checked("grad_output", grad_output, shape=shape, dtype=self.dtype, policy="packed")
        run = self.module.backward if self.parallel is None else self.parallel.backward
        grad_input, grad_weight, grad_bias = run(cotangent, x, w)
        return Gradients(grad_input, grad_weight, grad_bias if self.layer.bias else None)

    def _run(self, *arguments: Array) -> Array:
        run = self.module.forward if self.parallel is None else self.parallel.forward
        output: Array = run(*arguments)
        return output

    def _input(self, value: object) -> Array:
        return checked("input", value, shape=(None, *self.input_shape[1:]), dtype=self.dtype)

    def _parameter(self, name: str, value: object) -> Array:
        return checked(name, value, shape=self._shape(name), dtype=self.dtype, policy="packed")

    def _shape(self, name: str) -> tuple[int, ...]:
        return numbers(self.layer, self.layer.parameter_shapes()[name])

    def __repr__(self) -> str:
        threads = "" if self.parallel is None else f", threads={self.parallel.threads}"
        return f"Operation({self.layer!r}, input_shape={self.input_shape}, dtype={self.dtype!r}{threads})"


def numbers(layer: Layer, dims: Sequence[object]) -> tuple[int, ...]:
    """Dimensions that are all numbers.

    Raises:
        LayerError: one of them is a symbol.
    """
    found = [d if isinstance(d, int) else getattr(d, "constant", None) for d in dims]
    if any(d is None for d in found):
        shown = ", ".join(getattr(d, "text", str(d)) for d in dims)
        raise LayerError(f"{layer}: ({shown}) has a symbol; what runs needs a number for every dimension")
    return tuple(int(d) for d in found if d is not None)


def numeric_output_shape(layer: Layer, input_shape: Sequence[int]) -> tuple[int, ...]:
    """The output shape of a layer, after its parameters and the shape were found to be legal numbers.

    Raises:
        LayerError: they are not.

    >>> from derive.layers import Conv2d
    >>> numeric_output_shape(Conv2d(6, 16, 5), (8, 6, 14, 14))
    (8, 16, 10, 10)
    """
    for shape in layer.parameter_shapes().values():
        numbers(layer, shape)
    return tuple(int(size) for size in shapes.output_shape(layer, numbers(layer, input_shape)))


# --- Text and modules ---------------------------------------------------------------------------------------


def emit(
    layer: Layer,
    *,
    backend: str = "auto",
    input_shape: Sequence[int],
    dtype: npt.DTypeLike,
    algorithm: str | Mapping[str, str] = "auto",
    tolerance: float | None = None,
) -> codegen.Emitted:
    """`codegen.emit` with the backend chosen and the dtype checked.

    Raises:
        BackendError, ArrayError, LayerError: as `compile`.
    """
    return codegen.emit(
        layer, backend=choose(backend), input_shape=tuple(input_shape), dtype=float_dtype(dtype).name,
        algorithm=algorithm, tolerance=tolerance,
    )  # fmt: skip


def load_text(source: str) -> ModuleType:
    """Emitted text as a module, named by its hash; tracebacks show its lines."""
    from codegen.module import load

    return load(source, f"certiconv_{_sha256(source)[:12]}")


def load_module(
    layer: Layer,
    *,
    backend: str = "auto",
    input_shape: Sequence[int],
    dtype: npt.DTypeLike = "float32",
    cache_dir: PathLike | None = None,
) -> ModuleType:
    """The emitted module of a layer, its text taken from the cache where it is there and whole.

    Raises:
        BackendError, ArrayError, LayerError: as `compile`.
    """
    name, kind = choose(backend), float_dtype(dtype).name
    request = repr((generator(), layer, name, tuple(input_shape), kind))
    entry = (user_cache_dir() if cache_dir is None else Path(cache_dir)) / f"{_sha256(request)}.txt"
    source = _cached(entry)
    if source is None:
        source = emit(layer, backend=name, input_shape=input_shape, dtype=kind).source
        _remember(entry, source)
    return load_text(source)


# --- The cache ----------------------------------------------------------------------------------------------


def user_cache_dir() -> Path:
    """Where this system keeps a user's caches: XDG's rule, or that of macOS or Windows."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "certiconv"


def _cached(entry: Path) -> str | None:
    """The text of an entry, or None where there is none or its hash tells that it is not what was written."""
    try:
        digest, _, source = entry.read_bytes().decode("utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return source if digest == _sha256(source) else None


def _remember(entry: Path, source: str) -> None:
    try:
        entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # what lies here is run, so it is the user's alone
        write_atomically(entry, f"{_sha256(source)}\n{source}".encode())
    except OSError:
        return  # a read-only or full disk costs time, never a result


@functools.cache
def generator() -> str:
    """A hash of every file that decides what is printed: those of `derive` and `codegen`."""
    digest = hashlib.sha256()
    for package in ("derive", "codegen"):
        root = Path(str(importlib.import_module(package).__file__)).parent
        files = (f for f in root.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
        for file in sorted(files, key=lambda f: f.relative_to(root).as_posix()):
            content = file.read_bytes()
            digest.update(f"{package}/{file.relative_to(root).as_posix()}:{len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
