"""From a layer to a function: emit text, or take it from the cache, load it as a module, and guard its border.

This file is the one crossing from `runtime` to `codegen`.  Nothing is proved here, and neither Z3 nor the exact
execution of `codegen.check` is started: text is loaded as it was printed.

Text is kept on disk between runs (`runtime.cache`), under everything that was asked for: a request with another
algorithm or tolerance has text of its own.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING

import numpy.typing as npt

import codegen
from codegen.legal import CUDA_DTYPES, nearest
from derive.layers import Activation, AvgPool, Conv, Layer, Linear
from derive.legality import LayerError
from runtime.arrays import ArrayError, float_dtype
from runtime.cache import PathLike, entry_of, keep, kept, sha256
from runtime.crew import checked_parts, crew_for
from runtime.device import BackendError, choose, printed_for
from runtime.operation import Operation
from runtime.sizes import numeric_output_shape

if TYPE_CHECKING:
    from codegen.certificate import Certificate
    from runtime.crew import Crew
    from runtime.parallel import Convolution

Algorithms = str | Mapping[str, str]
HALVES = ("float16", "bfloat16")  # dtypes that only a GPU computes in


def compile(  # noqa: A001, PLR0913 - the public name, as in torch.compile, and its options
    layer: Layer,
    *,
    backend: str = "auto",
    input_shape: Sequence[int],
    dtype: npt.DTypeLike = "float32",
    algorithm: Algorithms = "auto",
    tolerance: float | None = None,
    layout: str = "channels_first",
    threads: int = 1,
    processes: int = 1,
    cache_dir: PathLike | None = None,
) -> Operation:
    """A layer as a function, generated for one input shape.

    Args:
        layer: a convolution, an average pool, Sigmoid, Tanh, ReLU or Linear, whose dimensions are all numbers.
        backend: "auto", "numpy" or "cupy", see `runtime.device.choose`.
        input_shape: (batch, channels, spatial axes...), or as the layer has it; the text is made for it, but the batch
            size stays free.
        dtype: float32 or float64; on a GPU also "float16" and "bfloat16".
        algorithm, tolerance: as for `codegen.emit`: one name or one for each result, "auto" for what is predicted to be
            fastest with an error within the tolerance.  "tuned" is what ``certiconv emit --tune`` measured to be
            fastest here for this layer, input_shape with its batch, dtype and tolerance; where that was never measured,
            as for all but convolutions, it is as "auto", and nothing is measured now.  On a GPU the tiles of matrix
            products are what is measured.
        layout: how the images will lie in memory, "channels_first" or "channels_last", for which "auto" and "tuned"
            choose, see `codegen.emit`; on a GPU only the first.
        threads: how many a call of a convolution may use, at least 1; more than one split a batch that is large enough
            to gain by it, and "auto" chooses for that (`runtime.parallel`), and results may then differ
            from those of one thread by rounding.
        processes: the same with processes in place of threads, for calls that are short (`runtime.process_crew`), with
            the same bits.  They are started by the first call that is split, which takes half a second.  Results lie in
            memory that a process forked later shares.
        cache_dir: the folder of emitted text and of what was measured; None: the user's cache folder.

    Returns:
        An `Operation` with ``forward`` and ``backward``.

    Raises:
        LayerError: the layer is none of those, has a symbol for a dimension, or cannot take the shape.
        BackendError: the backend does not work here.
        ArrayError: the backend has no such dtype.
        ValueError: ``threads`` or ``processes`` is less than 1, or both are more, or one is for a layer that is no
            convolution; or no algorithm of that name has a plan for the layer (codegen.emit).

    >>> from derive.layers import Conv2d
    >>> compile(Conv2d(1, 6, 5), input_shape=(8, 1, 4, 28))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    derive.legality.LayerError: ...no window fits on spatial axis 0...
    """
    if not isinstance(layer, (Conv, AvgPool, Activation, Linear)):
        raise LayerError(
            f"layer={layer!r}: convolutions, average pools, activations and Linear are compiled by themselves; "
            "runtime.Network takes a Sequential"
        )
    shape = tuple(input_shape)
    output_shape = numeric_output_shape(layer, shape)
    on = choose(backend)
    if not isinstance(layer, Conv) and (threads, processes) != (1, 1):
        raise ValueError(
            f"threads={threads}, processes={processes}: only a convolution is split, and this is "
            f"{type(layer).__name__}; nearest legal: 1 and 1"
        )
    parts = checked_parts(threads, processes, on)
    kind = dtype_name(dtype, on)
    asked, tiles = algorithm, None
    if not isinstance(layer, Conv):
        asked = "auto" if algorithm == "tuned" else algorithm  # there is no choice to measure
    elif on == "numpy":
        if parts > 1 and algorithm == "auto":
            asked = _for_threads(layer, shape, kind, tolerance, layout, parts)
        else:
            asked = _with_measured(layer, shape, kind, algorithm, tolerance, layout, cache_dir)
    elif algorithm == "tuned":
        asked, tiles = "auto", _measured_tiles(layer, shape, kind, cache_dir)
    module = load_module(
        layer, backend=on, input_shape=shape, dtype=kind, algorithm=asked, tolerance=tolerance, layout=layout,
        tiles=tiles, cache_dir=cache_dir,
    )  # fmt: skip
    parallel = None
    if isinstance(layer, Conv) and parts > 1:
        parallel = _parallel(layer, shape, crew_for(module, kind, threads, processes))
    return Operation(layer, shape, output_shape, kind, module, parallel, on)


def _for_threads(
    layer: Conv, shape: tuple[int, ...], dtype: str, tolerance: float | None, layout: str, threads: int
) -> Algorithms:
    """What is predicted to be fastest where a batch is split between so many threads."""
    from codegen.choose import choose as choose_algorithm
    from codegen.emit import request
    from codegen.machine import REFERENCE

    request(layer, "numpy", shape, dtype, "auto", tolerance, layout)
    machine = replace(REFERENCE, threads=threads)
    choices = choose_algorithm(layer, shape, dtype, tolerance=tolerance, machine=machine, layout=layout)
    return {choice.result: choice.algorithm for choice in choices}


def _with_measured(
    layer: Conv,
    shape: tuple[int, ...],
    dtype: str,
    asked: Algorithms,
    tolerance: float | None,
    layout: str,
    cache_dir: PathLike | None,
) -> Algorithms:
    """What is asked for, with what was measured to be fastest in place of "tuned", or "auto" where nothing was."""
    if asked != "tuned" and not (isinstance(asked, Mapping) and "tuned" in asked.values()):
        return asked
    from runtime.tune import remembered  # here, since it imports this file

    known = remembered(layer, shape, dtype, tolerance=tolerance, layout=layout, cache_dir=cache_dir)
    best = {} if known is None else known.algorithms
    if isinstance(asked, str):
        return dict(best) or "auto"
    return {result: best.get(result, "auto") if name == "tuned" else name for result, name in asked.items()}


def _measured_tiles(
    layer: Conv, shape: tuple[int, ...], dtype: str, cache_dir: PathLike | None
) -> Mapping[str, str] | None:
    """The tiles that were measured to be fastest on this GPU, or None where nothing was."""
    from runtime.tune_tiles import remembered  # here, since most programs measure nothing

    known = remembered(layer, shape, dtype, cache_dir=cache_dir)
    return None if known is None else known.tiles


def _parallel(layer: Conv, shape: tuple[int, ...], run_by: Crew) -> Convolution:
    from runtime.parallel import Convolution, seconds

    return Convolution(run_by, image=seconds(layer, shape))


# --- Text and modules ---------------------------------------------------------------------------------------


def emit(
    layer: Layer,
    *,
    backend: str = "auto",
    input_shape: Sequence[int],
    dtype: npt.DTypeLike,
    algorithm: Algorithms = "auto",
    tolerance: float | None = None,
    layout: str = "channels_first",
    tiles: Mapping[str, str] | None = None,
) -> codegen.Emitted:
    """`codegen.emit` with the backend chosen and the dtype checked; text for a GPU is printed without one.

    Raises:
        BackendError, ArrayError, LayerError: as `compile`.
    """
    name = printed_for(backend)
    return codegen.emit(
        layer, backend=name, input_shape=tuple(input_shape), dtype=dtype_name(dtype, name),
        algorithm=algorithm, tolerance=tolerance, layout=layout, tiles=tiles,
    )  # fmt: skip


def dtype_name(dtype: npt.DTypeLike, backend: str) -> str:
    """The name of a dtype that a backend has; raises ArrayError where it has not.

    >>> dtype_name("float16", "cupy"), dtype_name(float, "numpy")
    ('float16', 'float64')
    """
    name = dtype if isinstance(dtype, str) else getattr(dtype, "__name__", getattr(dtype, "name", None))
    if backend == "cupy" and name in HALVES:
        return str(name)
    try:
        return float_dtype(dtype).name
    except ArrayError as error:
        if name in HALVES:
            raise ArrayError(
                f"dtype={dtype!r}: only backend='cupy' computes in it; nearest legal: 'float32'"
            ) from error
        if backend == "cupy":
            raise ArrayError(
                f"dtype={dtype!r}: it has to be one of {', '.join(map(repr, CUDA_DTYPES))} for backend='cupy'; "
                f"nearest legal: {nearest(dtype, CUDA_DTYPES)!r}"
            ) from error
        raise


def certificate_of(emitted: codegen.Emitted) -> Certificate:
    """What is known of a text: `codegen.check`, with the SIMT executor for a text for CuPy.

    Raises:
        codegen.execution.Refuted: the text does not compute its stages.
        SimtUnavailable: a text for CuPy, and there is no g++ here.
    """
    if emitted.backend == "numpy":
        return emitted.certificate
    from codegen.check import check
    from runtime.simt import on_cpu
    from runtime.simt.toolchain import compiler

    compiler()  # raises where there is none, before anything else is done
    if emitted.dtype == "bfloat16" and importlib.util.find_spec("ml_dtypes") is None:
        raise BackendError(
            "dtype='bfloat16': NumPy has it by way of ml_dtypes, which is not here; pip install ml_dtypes"
        )
    return check(emitted, executor=on_cpu)


def load_text(source: str) -> ModuleType:
    """Emitted text as a module, named by its hash; tracebacks show its lines."""
    from codegen.loading import load

    return load(source, f"certiconv_{sha256(source)[:12]}")


def load_module(  # noqa: PLR0913 - the options of `compile`
    layer: Layer,
    *,
    backend: str = "auto",
    input_shape: Sequence[int],
    dtype: npt.DTypeLike = "float32",
    algorithm: Algorithms = "auto",
    tolerance: float | None = None,
    layout: str = "channels_first",
    tiles: Mapping[str, str] | None = None,
    cache_dir: PathLike | None = None,
) -> ModuleType:
    """The emitted module of a layer, its text taken from the cache where it is there and whole.

    Raises:
        BackendError, ArrayError, LayerError, EmitError: as `compile`.
    """
    name = choose(backend)
    kind = dtype_name(dtype, name)
    asked = sorted(algorithm.items()) if isinstance(algorithm, Mapping) else algorithm
    cut = sorted((tiles or {}).items())
    entry = entry_of((layer, name, tuple(input_shape), kind, asked, tolerance, layout, cut), cache_dir)
    source = kept(entry)
    if source is None:
        source = emit(
            layer, backend=name, input_shape=input_shape, dtype=kind, algorithm=algorithm, tolerance=tolerance,
            layout=layout, tiles=tiles,
        ).source  # fmt: skip
        keep(entry, source)
    return load_text(source)
