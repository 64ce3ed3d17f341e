"""Where a network's arrays lie: in the memory of the CPU, or on a GPU.

A `Border` looks at what comes in (`runtime.arrays`, `runtime.gpu_arrays`) and takes arrays across where a caller asks
for that: `place` to where the network computes, `fetch` to the CPU.  A call of a network takes nothing across itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from runtime.arrays import Array, ArrayError, Shape, check_shape, checked, checked_labels, checked_parameters
from runtime.gpu_arrays import beyond, checked_on_gpu, on_gpu

Shapes = Mapping[str, Sequence[int]]


class Border(Protocol):
    """What a network asks about arrays; ``dtype`` is the name of that of images and parameters."""

    def images(self, name: str, value: object, *, shape: Shape, dtype: str) -> Array:
        """An argument of this dtype and shape."""

    def labels(self, name: str, value: object, *, count: int, classes: int) -> Array:
        """Labels: integers in 0..classes-1, one for each image."""

    def parameters(self, params: Mapping[str, object], shapes: Shapes, *, dtype: str) -> dict[str, Array]:
        """Parameters, fit to be updated in place."""

    def place(self, array: Array) -> Array:
        """An array from the CPU, where the network computes."""

    def fetch(self, array: Array) -> Array:
        """An array from where the network computes, on the CPU."""

    @property
    def where(self) -> str:
        """What computes, for a reader."""

    @property
    def versions(self) -> list[tuple[str, str]]:
        """What its results depend on beside NumPy: names and versions."""


class Host:
    """NumPy arrays; nothing is taken anywhere."""

    def images(self, name: str, value: object, *, shape: Shape, dtype: str) -> Array:
        """See `Border`."""
        return checked(name, value, shape=shape, dtype=dtype)

    def labels(self, name: str, value: object, *, count: int, classes: int) -> Array:
        """See `Border`."""
        return checked_labels(name, value, count=count, classes=classes)

    def parameters(self, params: Mapping[str, object], shapes: Shapes, *, dtype: str) -> dict[str, Array]:
        """See `Border`."""
        return checked_parameters(params, shapes, dtype=dtype)

    def place(self, array: Array) -> Array:
        """See `Border`."""
        return array

    def fetch(self, array: Array) -> Array:
        """See `Border`."""
        return array

    @property
    def where(self) -> str:
        """See `Border`."""
        return "NumPy on the CPU"

    @property
    def versions(self) -> list[tuple[str, str]]:
        """See `Border`: the BLAS that NumPy was built with."""
        blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return [("BLAS", f"{blas['name']} {blas['version']}")]


class Gpu:
    """Arrays of CuPy, which is handed in, with the bytes that the addresses of some have to be multiples of."""

    def __init__(self, cupy: Any, aligned: Mapping[str, int] | None = None) -> None:
        self.cupy = cupy
        self.aligned = dict(aligned or {})

    def images(self, name: str, value: object, *, shape: Shape, dtype: str) -> Array:
        """See `Border`; what is not C-contiguous, or begins where it may not, is packed on the GPU."""
        multiple = self.aligned.get("x", 1)
        found: Array = checked_on_gpu(self.cupy, name, value, shape=shape, dtype=dtype, multiple=multiple)
        return found

    def labels(self, name: str, value: object, *, count: int, classes: int) -> Array:
        """See `Border`; waits for the GPU to tell the smallest and the largest label."""
        labels = on_gpu(self.cupy, name, value)
        if labels.dtype.kind not in "iu":
            raise ArrayError(
                f"{name} has dtype {labels.dtype}; labels are integers in 0..{classes - 1}; "
                f"nearest legal: {name}.astype('int64')"
            )
        check_shape(name, labels.shape, (count,))
        if count and not (int(labels.min()) >= 0 and int(labels.max()) < classes):
            return checked_labels(name, self.fetch(labels), count=count, classes=classes)  # raises: it names the label
        found: Array = labels
        return found

    def parameters(self, params: Mapping[str, object], shapes: Shapes, *, dtype: str) -> dict[str, Array]:
        """See `Border`."""
        if set(params) != set(shapes):
            empty = {name: np.zeros(0) for name in params}
            checked_parameters(empty, shapes, dtype=dtype)  # raises: it names what is missing or unknown
        found = {}
        for name, shape in shapes.items():
            told = f"params[{name!r}]"
            array = on_gpu(self.cupy, told, params[name])
            if not array.flags.c_contiguous:
                raise ArrayError(
                    f"{told} is not C-contiguous, and a step in place on a copy would be lost; "
                    f"nearest legal: cupy.ascontiguousarray({told})"
                )
            multiple = self.aligned.get(told, 1)
            if past := beyond(array, multiple):
                raise ArrayError(
                    f"{told} begins {past} bytes behind a multiple of {multiple}, where kernels cannot read several "
                    f"elements at once, and a step in place on a copy would be lost; nearest legal: {told}.copy()"
                )
            found[name] = checked_on_gpu(self.cupy, told, array, shape=shape, dtype=dtype)
        return found

    def place(self, array: Array) -> Array:
        """See `Border`."""
        found: Array = self.cupy.asarray(array)
        return found

    def fetch(self, array: Array) -> Array:
        """See `Border`."""
        found: Array = self.cupy.asnumpy(array)
        return found

    @property
    def where(self) -> str:
        """See `Border`."""
        run = self.cupy.cuda.runtime
        name = run.getDeviceProperties(run.getDevice())["name"]
        return f"CuPy on {name.decode() if isinstance(name, bytes) else name}"

    @property
    def versions(self) -> list[tuple[str, str]]:
        """See `Border`: CuPy, the driver and the compiler; of what stands in for CuPy, none."""
        if getattr(self.cupy, "__version__", None) is None:
            return []
        run, compiler = self.cupy.cuda.runtime, self.cupy.cuda.nvrtc.getVersion()
        return [
            ("CuPy", self.cupy.__version__),
            ("CUDA", f"driver {run.driverGetVersion()}, NVRTC {'.'.join(map(str, compiler))}"),
        ]
