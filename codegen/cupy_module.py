"""The emitted file of a layer for CuPy: CUDA text and the functions that launch it.

Every result is one stage, printed as one kernel, or two where a sum runs over the batch; stages before it that are
local are formed in the threads that read them.  The host part of the file
checks what comes in, makes the result, and launches.  Places in arrays are 32-bit numbers for all batches up to the
largest for which that is sure to be enough, 64-bit numbers beyond: the same text, compiled twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from codegen.functions import arguments
from codegen.layer_words import INPUT_SHAPE, NO_BIAS, SIGNATURES, described, is_weighted, sizes, words
from codegen.plan import Plan, Stage, cells_per_image, extent, is_batch
from codegen.templates.cuda import print_kernels
from codegen.templates.cuda.kernels import Kernel, aligned, template
from codegen.templates.cuda.numbers import NUMBERS, Numbers
from codegen.templates.cuda.prelude import cuda_text, uses_tensor_cores
from codegen.templates.cuda.splitting import BLOCKS
from codegen.templates.cuda.text import grouped
from derive.layers import Applied
from derive.terms import Tensor

TENSORS = {"input": "X", "grad_output": "G"}


@dataclass(frozen=True)
class Function:
    """One function of the module, as the pieces of text that the template puts together."""

    name: str
    arguments: str
    doc: str
    checked: str
    unpacked: str
    result: str
    before: tuple[str, ...]
    lines: tuple[str, ...]
    batched: bool


@dataclass(frozen=True)
class Printed:
    """A module for CuPy: its text, the CUDA text in it, and the names of the kernels."""

    source: str
    cuda: str
    kernels: tuple[Kernel, ...]


def cupy_source(
    applied: Applied,
    plans: Mapping[str, Plan],
    title: str,
    provenance: str,
    *,
    dtype: str,
    tf32: bool = False,
    tiles: Mapping[str, str] | None = None,
) -> Printed:
    """The text of the module of a layer, from the plans of its results.

    ``tf32``: with dtype "float32", products are formed on tensor cores, which round their factors to TF32.  ``tiles``
    names the tile of a result, one of `legal_tiles`; without a name the model's choice is taken.
    """
    numbers = NUMBERS["tf32" if tf32 else dtype]
    wanted = {name: replace(numbers, tiles=(numbers.fitting[tile],)) for name, tile in (tiles or {}).items()}
    printed = {name: _kernels(plan.check(), wanted.get(name, numbers)) for name, plan in plans.items()}
    kernels = tuple(kernel for own in printed.values() for kernel in own)
    cores = any(map(uses_tensor_cores, kernels))
    cuda = cuda_text(numbers, kernels)
    shapes = {
        "input": sizes(applied.x.box[1:]),
        "grad_output": sizes(applied.y.box[1:]),
        **{key: sizes(t.box) for key, t in applied.parameters.items()},
    }
    multiples = aligned(kernels)
    tensors = {**TENSORS, **{key: t.name for key, t in applied.parameters.items()}}
    source = template("layer.py").render(
        title=title, provenance=provenance, words=words(applied), bias="bias" in applied.parameters,
        weighted=is_weighted(applied), dtype=dtype, accumulator=numbers.sum_dtype, shapes=shapes,
        narrow=largest_narrow_batch(plans), blocks=BLOCKS, kernels=kernels, source=cuda, cores=cores,
        aligned={f'"{key}"': multiples[name] for key, name in tensors.items() if name in multiples},
        precision=_precision(dtype, kernels, tf32=tf32, weighted=is_weighted(applied)),
        filled_up=fills_up(applied, plans),
        legend=", ".join(f"{plan.outputs[name]} is what {name} gives" for name, plan in plans.items()),
        functions=[_function(name, plan, printed[name], applied) for name, plan in plans.items()],
    )  # fmt: skip
    return Printed(source + "\n", cuda, kernels)


def legal_tiles(plans: Mapping[str, Plan], dtype: str, *, tf32: bool = False) -> dict[str, tuple[str, ...]]:
    """For each result that is a matrix product the names of the tiles it may have.

    >>> from codegen.plan import BATCH
    >>> from codegen.plans.definition import definition
    >>> from derive.layers import Conv1d
    >>> from derive.terms import tensor
    >>> plans = definition(Conv1d(16, 16, 3, bias=False).on(tensor("X", BATCH, 16, 9)))
    >>> legal_tiles(plans, "float16")["forward"]
    ('128x128', '64x128', '128x64', '64x64', '32x128', '16x128', '32x32', '16x32')
    """
    names = tuple(NUMBERS["tf32" if tf32 else dtype].fitting)
    return {name: names for name, plan in plans.items() if any(s.template == "product" for s in plan.stages)}


def _precision(dtype: str, kernels: Iterable[Kernel], *, tf32: bool, weighted: bool) -> str:
    """What a text that uses tensor cores, or stores halves, has to say of its rounding; nothing of others."""
    halves = NUMBERS[dtype].sum_dtype != dtype
    if not weighted:
        return f"Numbers are computed in float32 and rounded to {dtype} once, when they are stored." if halves else ""
    used = ", ".join(kernel.name for kernel in kernels if uses_tensor_cores(kernel))
    told = f"Tensor cores form the products of {used}" if used else "No product here is large enough for tensor cores"
    if not used and tf32:
        return told + "."
    if tf32:
        return f"{told}; they round\nfactors to TF32, 11 bits or about three digits, and form sums in float32."
    if not halves:
        return ""
    return f"{told}; sums are\nformed in float32 and rounded to {dtype} once, when they are stored."


def fills_up(applied: Applied, plans: Mapping[str, Plan]) -> bool:
    """Whether the input gradient is a product with kernels that zeros fill up to a multiple of the stride.

    Zero times infinity is NaN, so it then spreads to cells that an output does not reach.  Where each thread sums for
    an element, terms beyond the kernel are left out.
    """
    uneven = any((w.kernel.constant or 0) % (w.stride.constant or 1) for w in applied.windows)
    return uneven and plans["input_gradient"].algorithm == "residue_products"


def _kernels(plan: Plan, numbers: Numbers) -> tuple[Kernel, ...]:
    return tuple(kernel for stage in _stored(plan) for kernel in print_kernels(plan, stage, numbers))


def _stored(plan: Plan) -> list[Stage]:
    """The stages that have an array: all but local ones."""
    return [stage for stage in plan.stages if stage.template != "local"]


def _function(name: str, plan: Plan, kernels: Iterable[Kernel], applied: Applied) -> Function:
    tensors = {**TENSORS, **{key: t.name for key, t in applied.parameters.items()}}
    weighted = is_weighted(applied)
    checked = [key for key in arguments(name, weighted=weighted) if key != "bias" or "bias" in applied.parameters]
    output = plan.by_name[plan.outputs[name]]
    lines = [
        *(f"{s.name} = cupy.empty({_shape(s.tensor)}, DTYPE)" for s in _stored(plan) if s != output),
        *(line for kernel in kernels for line in _launched(kernel, output.name)),
    ]
    batched = None in output.dims
    before = NO_BIAS if name == "forward" and weighted and "bias" not in applied.parameters else ()
    return Function(
        name, SIGNATURES[weighted][name], described(name, applied), ", ".join(f"{key}={key}" for key in checked),
        ", ".join(tensors[key] for key in checked) + ("," if len(checked) == 1 else ""),
        _shape(output.tensor),
        (*before, *(INPUT_SHAPE if weighted and name == "input_gradient" else ())), tuple(lines), batched,
    )  # fmt: skip


def _shape(t: Tensor) -> str:
    """The shape of an array, as Python in ``N``."""
    sizes_ = ["N" if extent(b) is None else str(extent(b)) for b in t.box]
    return f"({', '.join(sizes_)}{',' if len(sizes_) == 1 else ''})"


def _launched(kernel: Kernel, result: str) -> list[str]:
    """The statements that launch a kernel."""
    arrays = ", ".join("result" if a == result else a for a in kernel.arrays)
    (part,) = kernel.parts
    if part.adds:
        return [f'_launch("{kernel.name}", {part.blocks}, {kernel.threads}, ({arrays}), N, count)']
    if not part.terms:
        return [f'_launch("{kernel.name}", {part.blocks}, {kernel.threads}, ({arrays}), N)']
    return [
        f"sizes = {part.blocks}, {part.terms}, {part.at_once}, {part.ahead}",
        "length, count = share(*sizes), splits(*sizes)",
        f"{kernel.arrays[-1]} = cupy.empty(count * {grouped(part.results)}, SUM)",
        f'_launch("{kernel.name}", sizes[0] * count, {kernel.threads}, ({arrays}), N, length, count)',
    ]


def largest_narrow_batch(plans: Mapping[str, Plan]) -> int:
    """A batch up to which every number that a kernel computes is sure to be below 2^31.

    Such a number is a place in an array, or that of a row, column or term, of which there are no more than elements in
    some array; it may lie beyond the end by a tile, and an end by less than a share, half of the terms and a fetch at
    most.  Twice the elements of the largest array, with a tile to spare, are more than that.  An array without a batch
    has as many elements for any: it fits, or no batch does.
    """
    tensors = [t for plan in plans.values() for t in _tensors(plan)]
    growing = [t for t in tensors if any(map(is_batch, t.box))]
    if any(cells_per_image(t) >= ROOM for t in tensors):
        return 0
    return int(ROOM // max(1, *(cells_per_image(t) for t in growing)))


ROOM = (1 << 30) - (1 << 16)


def _tensors(plan: Plan) -> list[Tensor]:
    return [*plan.inputs, *(s.tensor for s in plan.stages)]
