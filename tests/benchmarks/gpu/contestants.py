"""Who computes a layer: our module, and PyTorch in both of its layouts, each with sets of arrays to rotate through.

PyTorch's convolutions are cuDNN's on a GPU, chosen by its own measurements (``cudnn.benchmark``) after a first call.
Whether it may round float32 to TF32 is set for every case, and products of half precision are not accumulated in half
precision.  Its layers get their arrays in the layout they are timed in; ours are always (batch, channels, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from math import prod
from types import ModuleType
from typing import Any

import numpy as np

import codegen
from runtime.gpu_timing import Call
from tests.benchmarks.gpu.cases import ITEMSIZES, Case

OURS = "certiconv"
Array = Any
Load = Callable[[str], ModuleType]


@dataclass(frozen=True)
class Contestant:
    """A name, a call on the k-th set of arrays, and its result as float64 on the host."""

    name: str
    call: Call
    outcome: Callable[[], Array]


@dataclass(frozen=True)
class Arguments:
    """Input, weight and cotangent on the host in float32, already rounded to the format of a case."""

    x: Array
    w: Array
    g: Array

    @staticmethod
    def of(case: Case) -> Arguments:
        """Normal numbers; weights so that results are about as large as the input."""
        rng = np.random.default_rng(0)
        dtype = numpy_dtype(case.numbers)
        scale = 1 / np.sqrt(prod(case.weight_shape[1:]))
        shapes = ((case.shape, 1.0), (case.weight_shape, scale), (case.output_shape, 1.0))
        made = [rng.standard_normal(shape, dtype=np.float32) * np.float32(by) for shape, by in shapes]
        return Arguments(*(a.astype(dtype).astype(np.float32) for a in made))

    def exact(self) -> tuple[Array, Array, Array]:
        """The same in float64."""
        x, w, g = (a.astype(np.float64) for a in (self.x, self.w, self.g))
        return x, w, g


def numpy_dtype(numbers: str) -> Any:
    """What NumPy calls it; bfloat16 comes from the package ml_dtypes."""
    if numbers != "bfloat16":
        return np.dtype("float32" if numbers == "tf32" else numbers)
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16)


def moved(case: Case) -> int:
    """Bytes of a set of arrays."""
    return ITEMSIZES[case.numbers] * sum(prod(s) for s in (case.shape, case.weight_shape, case.output_shape))


def ours(case: Case, given: Arguments, cupy: Any, load: Load, sets: int) -> Contestant:
    """The emitted module; results of forward and input_gradient go into arrays that are there."""
    dtype, algorithm = ("float32", "tf32") if case.numbers == "tf32" else (case.numbers, "auto")
    emitted = codegen.emit(case.layer, backend="cupy", input_shape=case.shape, dtype=dtype, algorithm=algorithm)
    module = load(emitted.source)
    kind = numpy_dtype(case.numbers)
    x, w, g = ([cupy.asarray(a.astype(kind)) for _ in range(sets)] for a in (given.x, given.w, given.g))
    shape = case.output_shape if case.part == "forward" else case.shape
    out = [cupy.zeros(shape, module.DTYPE) for _ in range(sets)] if case.part != "weight" else []

    def call(k: int) -> Array:
        k %= sets
        match case.part:
            case "forward":
                return module.forward(x[k], w[k], None, out=out[k])
            case "input":
                return module.input_gradient(g[k], w[k], case.shape, out=out[k])
        return module.weight_gradient(g[k], x[k])

    return Contestant(OURS, call, lambda: cupy.asnumpy(call(0)).astype(np.float64))


def builders(
    case: Case, given: Arguments, cupy: Any, load: Load, torch: Any, device: str, sets: int
) -> Iterator[tuple[str, Callable[[], Contestant]]]:
    """Everybody's name, and what makes the contestant."""
    us = partial(ours, case, given, cupy, load, sets)
    return everybody(us, partial(torchs, case, given, torch, device, sets), torch)


def everybody(
    us: Callable[[], Contestant], them: Callable[[str, Any], Contestant], torch: Any
) -> Iterator[tuple[str, Callable[[], Contestant]]]:
    """We, and where PyTorch is there it with either layout; ``them`` makes a contestant of a name and a layout."""
    yield OURS, us
    if torch is not None:
        yield "torch", partial(them, "torch", torch.contiguous_format)
        yield "torch channels_last", partial(them, "torch channels_last", torch.channels_last)


def torchs(case: Case, given: Arguments, torch: Any, device: str, sets: int, name: str, layout: Any) -> Contestant:
    """PyTorch in one of its layouts."""
    allow_tf32(torch, allow=case.numbers == "tf32")
    kind = torch.float32 if case.numbers == "tf32" else getattr(torch, case.numbers)

    def placed(a: Array) -> list[Array]:
        tensor = torch.from_numpy(a).to(device=device, dtype=kind)
        return [tensor.clone(memory_format=layout) for _ in range(sets)]

    call = _torch_call(case, torch, placed(given.x), placed(given.w), placed(given.g))
    return Contestant(name, call, lambda: call(0).to(torch.float64).cpu().contiguous().numpy())


def _torch_call(case: Case, torch: Any, x: list[Array], w: list[Array], g: list[Array]) -> Call:
    layer, sets = case.layer, len(x)
    sides = (list(layer.stride), list(layer.padding), list(layer.dilation))
    mask = [case.part == "input", case.part == "weight", False]

    def forward(k: int) -> Array:
        with torch.no_grad():
            return torch.nn.functional.conv2d(x[k % sets], w[k % sets], None, *sides, layer.groups)

    def gradient(k: int) -> Array:
        k %= sets
        gradients = torch.ops.aten.convolution_backward(
            g[k], x[k], w[k], None, *sides, False, [0, 0], layer.groups, mask
        )
        return gradients[0 if case.part == "input" else 1]

    return forward if case.part == "forward" else gradient


def allow_tf32(torch: Any, *, allow: bool) -> None:
    """Whether PyTorch may round float32 to TF32, in convolutions and products; sums in half precision it may not do."""
    torch.backends.cudnn.benchmark = True
    precision = "tf32" if allow else "ieee"
    if hasattr(torch.backends.cudnn, "conv"):  # PyTorch 2.9 and newer
        torch.backends.cudnn.conv.fp32_precision = precision
        torch.backends.cuda.matmul.fp32_precision = precision
    else:
        torch.backends.cudnn.allow_tf32 = allow
        torch.backends.cuda.matmul.allow_tf32 = allow
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
