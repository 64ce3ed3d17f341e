"""The two machines that the tests of this folder run on: one body for both, so that what a GPU runs cannot rot.

An emitted module says ``import cupy``.  On ``simt`` that is the stand-in of `runtime.simt`, whose arrays are NumPy's
and whose kernels run checked on the CPU; on ``gpu`` it is CuPy.  A test takes arrays to the machine and back by
``module.cupy.asarray`` and ``module.cupy.asnumpy`` and otherwise speaks to the module alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np

import codegen
from codegen.emit import Emitted
from derive.layers import Layer
from runtime.simt import on_cpu

CUDA = 2  # DLPack's kDLCUDA


@dataclass(frozen=True)
class Machine:
    """Where emitted modules run.

    Attributes:
        name: "simt" or "gpu".
        load: makes a module of a text.
        examples: how many drawn layers a test of this folder takes: few where a CPU runs every thread.
    """

    name: str
    load: Callable[[str], ModuleType]
    examples: int

    def module(self, emitted: Emitted) -> ModuleType:
        """The module of an emitted text, loaded once."""
        return _loaded(self, emitted.source)


@lru_cache(maxsize=64)
def _loaded(machine: Machine, source: str) -> ModuleType:
    return machine.load(source)


SIMT = Machine("simt", on_cpu, 2)
GPU = Machine("gpu", codegen.load, 40)


@lru_cache(maxsize=256)
def emitted(layer: Layer, shape: tuple[int, ...], numbers: str) -> Emitted:
    """The text of a layer for CuPy; ``numbers`` is a dtype, or "tf32" for products of float32 on tensor cores."""
    dtype, algorithm = ("float32", "tf32") if numbers == "tf32" else (numbers, "auto")
    return codegen.emit(layer, backend="cupy", input_shape=shape, dtype=dtype, algorithm=algorithm)


class Interface:
    """Another library's array, seen through ``__cuda_array_interface__``; NumPy's own is what the stand-in reads."""

    def __init__(self, array: Any) -> None:
        self._array = array  # keeps the memory
        if isinstance(array, np.ndarray):
            self.__cuda_array_interface__ = self.__array_interface__ = array.__array_interface__
        else:
            self.__cuda_array_interface__ = array.__cuda_array_interface__


@dataclass(frozen=True)
class Exporter:
    """Another library's array in the memory of a GPU, seen through DLPack."""

    array: Any

    def __dlpack__(self, **options: Any) -> Any:
        if isinstance(self.array, np.ndarray):
            options.pop("stream", None)
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (CUDA, 0) if isinstance(self.array, np.ndarray) else self.array.__dlpack_device__()
