"""Which tiles are fastest on this GPU: every tile that a convolution's kernels may have, measured and remembered.

As `runtime.tune` does for NumPy's algorithms: for each result that is a matrix product every legal tile computes it on
the same arrays in turns, timed by CUDA events, and the least median wins.  The text stays a function of what is asked
for: the choice is an argument of ``codegen.emit`` and stands in the text's first lines.  Unless tiles are asked for, a
model decides.

The answer is kept on disk under the hash of everything it depends on: the layer, the shape, the dtype, the algorithm,
the generator, CuPy, and the GPU with its driver and compiler.  An entry that cannot be read is measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np

import codegen
from codegen.cupy_module import legal_tiles
from codegen.functions import passed
from codegen.plan import BATCH
from codegen.plans.definition import definition
from derive.indices import index
from derive.layers import Conv
from derive.terms import tensor
from runtime.cache import PathLike, generator, sha256, user_cache_dir
from runtime.gpu_timing import Call, Clock, Samples
from runtime.tune import TuneError, read_entry, told, write_entry

ROUNDS = 15
LEAD = 1 << 28  # bytes overwritten before each sample


class Timer(Protocol):
    """What `runtime.gpu_timing.Clock` does for a GPU."""

    def sets(self, size: int) -> int:
        """How many sets of arrays of so many bytes exceed the cache."""

    def interleave(self, calls: Mapping[str, Call], *, rounds: int) -> Mapping[str, Samples]:
        """Samples of every call."""


@dataclass(frozen=True)
class Device:
    """A GPU: CuPy, how a text becomes a module, what times its calls, and the name that answers are kept under."""

    cupy: Any
    load: Callable[[str], ModuleType]
    timer: Timer
    name: str

    @staticmethod
    def current() -> Device:
        """The GPU that CuPy uses now."""
        import cupy

        return Device(cupy, codegen.load, Clock.of(cupy, LEAD), device_name(cupy))


@dataclass(frozen=True)
class Tuned:
    """For each result the tile that was fastest, and the median milliseconds of all that were measured."""

    tiles: Mapping[str, str]
    medians: Mapping[str, Mapping[str, float]]
    remembered: bool

    def text(self) -> str:
        """For a reader."""
        return told(self.medians, remembered=self.remembered)


def device_name(cupy: Any) -> str:
    """The GPU, its driver, CuPy and the compiler."""
    run = cupy.cuda.runtime
    properties = run.getDeviceProperties(run.getDevice())
    return repr((properties["name"], run.driverGetVersion(), cupy.__version__, cupy.cuda.nvrtc.getVersion()))


def tune(
    layer: Conv,
    input_shape: tuple[int, ...],
    dtype: str = "float32",
    *,
    algorithm: str = "auto",
    cache_dir: PathLike | None = None,
    device: Device | None = None,
) -> Tuned:
    """The fastest tile for each result on this GPU, from the disk if it was measured before.

    Args:
        layer: a convolution with numbers for sizes.
        input_shape: (batch, channels, spatial axes...); here the batch counts, of at least one image.
        dtype: as for ``codegen.emit`` with the backend "cupy".
        algorithm: "auto" or "tf32", likewise.
        cache_dir: where answers are kept; None: the user's cache folder.
        device: where to measure; None: the GPU that CuPy uses now.

    Raises:
        TuneError: the batch is empty.
        EmitError, LayerError: as ``codegen.emit``.
    """
    if input_shape[0] < 1:
        raise TuneError(f"input_shape={input_shape}: nothing can be measured on an empty batch; the nearest batch is 1")
    on = Device.current() if device is None else device
    codegen.emit(layer, backend="cupy", input_shape=input_shape, dtype=dtype, algorithm=algorithm)  # checks all of it
    known = remembered(layer, input_shape, dtype, algorithm=algorithm, cache_dir=cache_dir, device=on)
    if known is not None:
        return known
    legal = _legal(layer, input_shape, dtype, algorithm)
    modules = {
        name: on.load(
            codegen.emit(
                layer, backend="cupy", input_shape=input_shape, dtype=dtype, algorithm=algorithm,
                tiles={result: name for result, names in legal.items() if name in names},
            ).source
        )
        for name in dict.fromkeys(name for names in legal.values() for name in names)
    }  # fmt: skip
    medians = _measured(legal, modules, input_shape, on)
    tiles = {result: min(found, key=found.__getitem__) for result, found in medians.items()}
    write_entry(_entry(layer, input_shape, dtype, algorithm, cache_dir, on.name), "tiles", tiles, medians)
    return Tuned(tiles, medians, remembered=False)


def remembered(
    layer: Conv,
    input_shape: tuple[int, ...],
    dtype: str = "float32",
    *,
    algorithm: str = "auto",
    cache_dir: PathLike | None = None,
    device: Device | None = None,
) -> Tuned | None:
    """What ``tune`` found for this very request on this GPU, or None where it was never asked."""
    on = Device.current() if device is None else device
    legal = _legal(layer, input_shape, dtype, algorithm)
    every = {name for names in legal.values() for name in names}
    found = read_entry(_entry(layer, input_shape, dtype, algorithm, cache_dir, on.name), "tiles", every)
    return None if found is None or set(found[0]) != set(legal) else Tuned(*found, remembered=True)


def _legal(layer: Conv, shape: tuple[int, ...], dtype: str, algorithm: str) -> dict[str, tuple[str, ...]]:
    plans = definition(layer.on(tensor("X", BATCH, *map(index, shape[1:])), "Y"))
    return legal_tiles(plans, dtype, tf32=algorithm == "tf32")


def _entry(
    layer: Conv, shape: tuple[int, ...], dtype: str, algorithm: str, cache_dir: PathLike | None, device: str
) -> Path:
    """The file of a request: under everything that the answer depends on."""
    request = (generator(), repr(layer), shape, dtype, algorithm, device)
    folder = user_cache_dir() if cache_dir is None else Path(cache_dir)
    return folder / f"tiles-{sha256(repr(request))}.json"


def _measured(
    legal: Mapping[str, tuple[str, ...]], modules: Mapping[str, ModuleType], shape: tuple[int, ...], device: Device
) -> dict[str, dict[str, float]]:
    """The median milliseconds of every tile for each result, on arrays that all share; a module has one tile."""
    if not modules:
        return {}
    given = _Arrays.of(next(iter(modules.values())), shape, device)
    found = {}
    for result, names in legal.items():
        calls = {name: given.call(modules[name], result) for name in names}
        samples = device.timer.interleave(calls, rounds=ROUNDS)
        found[result] = {name: samples[name].median for name in names}
    return found


@dataclass(frozen=True)
class _Arrays:
    """Sets of arrays for every argument, which calls rotate through."""

    x: list[Any]
    w: list[Any]
    g: list[Any]
    b: Any

    @staticmethod
    def of(module: ModuleType, shape: tuple[int, ...], device: Device) -> _Arrays:
        """Normal numbers."""
        rng = np.random.default_rng(0)
        sizes: Mapping[str, tuple[int, ...]] = module.SHAPES
        shapes = (shape, sizes["weight"], (shape[0], *sizes["grad_output"]))
        sets = device.timer.sets(module.DTYPE.itemsize * sum(map(prod, shapes)))

        def drawn(*cells: int) -> Any:
            return device.cupy.asarray(rng.standard_normal(cells, dtype=np.float32).astype(module.DTYPE))

        x, w, g = ([drawn(*cells) for _ in range(sets)] for cells in shapes)
        return _Arrays(x, w, g, drawn(*sizes["bias"]) if "bias" in sizes else None)

    def call(self, module: ModuleType, result: str) -> Call:
        """A call of a function of a module on the k-th set."""
        function, every = getattr(module, result), zip(self.x, self.w, self.g, strict=True)
        sets = [passed(result, {"input": x, "weight": w, "bias": self.b, "grad_output": g}) for x, w, g in every]
        return lambda k: function(*sets[k % len(sets)])


__all__ = ["Device", "Timer", "Tuned", "remembered", "tune"]
