"""Which algorithm is fastest here: the candidates of a convolution measured side by side, and remembered.

``codegen.choose`` predicts; this measures.  For each result every candidate whose error is within the tolerance, and
that is not predicted to be hopeless, runs on the same arrays in turns, and the least median wins.  BLAS is held at one
thread, or asked to have one before it is loaded.
The answer is kept on disk under the hash of everything it depends on: the layer, the shape, the dtype, the tolerance,
the versions of NumPy and of the generator, and the processor.  An entry that cannot be read is measured again.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

import codegen
from codegen.choose import Choice, choose
from codegen.files import write_atomically
from codegen.functions import passed, workspace
from codegen.layout import FIRST, LAST
from codegen.plans.algorithms import ALGORITHMS
from derive.layers import Conv
from runtime.arrays import with_channels_last
from runtime.cache import PathLike, generator, sha256, user_cache_dir
from runtime.compile import load_text
from runtime.roofline import probe
from runtime.threads import blas_threads
from runtime.timing import interleave

HOPELESS = 4.0  # a candidate predicted to take so many times the best is not measured
ROUNDS = 9
Array = npt.NDArray[Any]


class TuneError(ValueError):
    """A request that nothing can be measured for; the text names the argument and what would be possible."""


@dataclass(frozen=True)
class Tuned:
    """For each result the algorithm that was fastest, and the median milliseconds of all that were measured."""

    algorithms: Mapping[str, str]
    medians: Mapping[str, Mapping[str, float]]
    remembered: bool

    def text(self) -> str:
        """For a reader."""
        return told(self.medians, remembered=self.remembered)


def told(measured: Mapping[str, Mapping[str, float]], *, remembered: bool) -> str:
    """The medians of each result, the least first, for a reader.

    >>> print(told({"forward": {"gemm": 2.0, "direct": 1.5}}, remembered=False))
    Measured milliseconds:
      forward          direct 1.500, gemm 2.000
    """
    lines = ["Measured milliseconds (medians), remembered from before:" if remembered else "Measured milliseconds:"]
    for result, medians in measured.items():
        shown = ", ".join(f"{name} {value:.3f}" for name, value in sorted(medians.items(), key=lambda pair: pair[1]))
        lines.append(f"  {result:<16} {shown}")
    return "\n".join(lines)


def tune(
    layer: Conv,
    input_shape: tuple[int, ...],
    dtype: str = "float32",
    *,
    tolerance: float | None = None,
    layout: str = FIRST,
    cache_dir: PathLike | None = None,
) -> Tuned:
    """The fastest algorithm for each result on this machine, from the disk if it was measured before.

    Args:
        layer: a convolution with numbers for sizes.
        input_shape: (batch, channels, spatial axes...); here the batch counts, of at least one image.
        dtype: "float32" or "float64".
        tolerance, layout: as ``codegen.choose.choose``.
        cache_dir: where answers are kept; None: the user's cache folder.

    Raises:
        TuneError: the batch is empty.
    """
    if input_shape[0] < 1:
        raise TuneError(f"input_shape={input_shape}: nothing can be measured on an empty batch; the nearest batch is 1")
    known = remembered(layer, input_shape, dtype, tolerance=tolerance, layout=layout, cache_dir=cache_dir)
    if known is not None:
        return known
    entry = _entry(layer, input_shape, dtype, tolerance, layout, cache_dir)
    choices = choose(layer, input_shape, dtype, tolerance=tolerance, thorough=True, layout=layout)
    medians = _measured(layer, input_shape, dtype, layout, choices)
    algorithms = {c.result: c.algorithm for c in choices} | {r: min(m, key=m.__getitem__) for r, m in medians.items()}
    write_entry(entry, "algorithms", algorithms, medians)
    return Tuned(algorithms, medians, remembered=False)


def remembered(
    layer: Conv,
    input_shape: tuple[int, ...],
    dtype: str = "float32",
    *,
    tolerance: float | None = None,
    layout: str = FIRST,
    cache_dir: PathLike | None = None,
) -> Tuned | None:
    """What ``tune`` found for this very request on this machine, or None where it was never asked."""
    found = read_entry(_entry(layer, input_shape, dtype, tolerance, layout, cache_dir), "algorithms", ALGORITHMS)
    return None if found is None else Tuned(*found, remembered=True)


def _entry(
    layer: Conv,
    shape: tuple[int, ...],
    dtype: str,
    tolerance: float | None,
    layout: str,
    cache_dir: PathLike | None,
) -> Path:
    """The file of a request: under everything that the answer depends on."""
    request = (generator(), repr(layer), shape, dtype, tolerance, layout, np.__version__, _processor())
    folder = user_cache_dir() if cache_dir is None else Path(cache_dir)
    return folder / f"tuned-{sha256(repr(request))}.json"


def read_entry(
    entry: Path, kind: str, legal: Collection[str]
) -> tuple[dict[str, str], dict[str, dict[str, float]]] | None:
    """The choices, which an entry has under ``kind``, and the medians.

    None where it cannot be read, or names what is not legal, as no version of this program would write it.
    """
    try:
        data = json.loads(entry.read_text(encoding="utf-8"))
        chosen = {str(result): str(name) for result, name in data[kind].items()}
        medians = {str(k): {str(name): float(ms) for name, ms in v.items()} for k, v in data["medians"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    known = set(chosen.values()).union(*medians.values()) <= set(legal)
    return (chosen, medians) if chosen and known else None


def _processor() -> str:
    """What the processor calls itself, where the system says so."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()} {models[0] if models else platform.processor()}"


def write_entry(entry: Path, kind: str, chosen: Mapping[str, str], medians: Mapping[str, Mapping[str, float]]) -> None:
    """Write what `read_entry` reads, if the folder can be written to."""
    try:
        entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(entry, (json.dumps({kind: chosen, "medians": medians}, indent=1) + "\n").encode())
    except OSError:
        return  # a read-only or full disk costs time, never a result


def _measured(
    layer: Conv, shape: tuple[int, ...], dtype: str, layout: str, choices: tuple[Choice, ...]
) -> dict[str, dict[str, float]]:
    """The median milliseconds of every candidate worth measuring, by result."""
    found = {}
    for choice in choices:
        names = _worth_measuring(choice)
        if len(names) < 2:
            continue
        modules = {name: _module(layer, shape, dtype, choice.result, name) for name in names}
        calls = {name: _call(module, choice.result, layer, shape, dtype, layout) for name, module in modules.items()}
        with blas_threads(1):
            samples = interleave(calls, rounds=ROUNDS, probe=probe())
        found[choice.result] = {name: 1e3 * samples.of(name).median for name in names}
    return found


def _worth_measuring(choice: Choice) -> list[str]:
    """The candidates within the tolerance that are not predicted to be hopeless."""
    best = next(c for c in choice.candidates if c.algorithm == choice.algorithm)
    return [c.algorithm for c in choice.candidates if c.within and c.cost.total <= HOPELESS * best.cost.total]


def _module(layer: Conv, shape: tuple[int, ...], dtype: str, result: str, algorithm: str) -> ModuleType:
    return load_text(codegen.emit(layer, input_shape=shape, dtype=dtype, algorithm={result: algorithm}).source)


def _call(
    module: ModuleType, result: str, layer: Conv, shape: tuple[int, ...], dtype: str, layout: str
) -> Callable[[], object]:
    """A call of a function of a module on arrays made for it, with a workspace of its own."""
    rng = np.random.default_rng(0)

    def drawn(*sizes: int) -> Array:
        return np.asarray(rng.standard_normal(sizes), dtype)

    sizes: Mapping[str, tuple[int, ...]] = module.SHAPES
    x, g = drawn(*shape), drawn(shape[0], *sizes["grad_output"])
    if layout == LAST:
        x, g = with_channels_last(x), with_channels_last(g)
    arrays = {"input": x, "weight": drawn(*sizes["weight"]), "grad_output": g}
    arrays |= {"bias": drawn(*sizes["bias"])} if layer.bias else {}
    work = getattr(module, workspace(result))(shape[0], dtype)
    return partial(getattr(module, result), *passed(result, arrays), work)
