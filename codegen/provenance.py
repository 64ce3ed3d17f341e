"""What a module says of where it comes from: the call that makes it again, and the theorems its stages rest on.

Nothing in it differs between machines, days or batch sizes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from textwrap import wrap

from codegen.version import VERSION
from derive.layers import Conv, Layer, Sequential


def spec(layer: Layer, package: str = "") -> str:
    """A layer as the expression that makes it, every argument written out.

    >>> from derive.layers import Conv1d, Sequential, Sigmoid
    >>> spec(Sequential(Conv1d(1, 2, 3), Sigmoid()))
    'Sequential(Conv1d(1, 2, (3,), stride=(1,), padding=(0,), dilation=(1,), bias=True), Sigmoid())'
    """
    name = package + type(layer).__name__
    if isinstance(layer, Sequential):
        return f"{name}({', '.join(spec(inner, package) for inner in layer.layers)})"
    if isinstance(layer, Conv):
        keys = ("stride", "padding", "dilation", *(("groups",) if layer.is_grouped else ()), "bias")
        sides = "".join(f", {key}={getattr(layer, key)!r}" for key in keys)
        return f"{name}({layer.in_channels}, {layer.out_channels}, {layer.kernel_size!r}{sides})"
    return f"{name}({', '.join(f'{f.name}={getattr(layer, f.name)!r}' for f in fields(layer))})"


def provenance_of(
    layer: Layer,
    shape: tuple[int, ...],
    dtype: str,
    algorithm: str | Mapping[str, str],
    theorems: Mapping[str, str],
    *,
    backend: str = "numpy",
    tiles: Mapping[str, str] | None = None,
) -> str:
    """What a module says of where it comes from: nothing that differs between machines, days or batch sizes."""
    names = {algorithm} if isinstance(algorithm, str) else set(algorithm.values())
    asked = f'"{min(names)}"' if len(names) == 1 else str(algorithm).replace("'", '"')
    names_of = algorithm if isinstance(algorithm, str) else told(algorithm)
    on = "" if backend == "numpy" else f'backend="{backend}", '
    options = f'{on}input_shape={(1, *shape[1:])}, dtype="{dtype}", algorithm={asked}'
    options += f", tiles={tiles}".replace("'", '"') if tiles else ""
    call = f'codegen.emit({spec(layer, "derive.")}, {options}).write("FILE")'
    open_ = [] if isinstance(algorithm, str) else [result for result in algorithm if result not in theorems]
    known = []
    if theorems:
        known = ["That its stages compute this layer is proved for all sizes, by the theorems with the SHA-256"]
        known += [f"    {digest}  {result}" for result, digest in theorems.items()]
    if open_ or not theorems:
        of = f" of {', '.join(open_)}" if theorems else ""
        known.append(f"That its stages{of} compute this layer follows from no theorem that comes with this version.")
    if backend == "cupy" and dtype != "float64":
        known.append("CuPy compiles it with -ftz=true: to float32 arithmetic a number below 2^-126 in size is zero.")
    lines = [
        *wrap(f"Made by certiconv {VERSION} with {names_of} for any batch of {dtype}; made again by", 112),
        *wrap(
            f"python -c 'import codegen, derive; {call}'", 112,
            initial_indent="    ", subsequent_indent="        ", break_long_words=False, break_on_hyphens=False,
        ),
        *known,
    ]  # fmt: skip
    return "\n".join(lines)


def told(algorithms: Mapping[str, str]) -> str:
    """One name where all results but the bias gradient, which every algorithm sums alike, have one; else each."""
    names = {name for result, name in algorithms.items() if result != "bias_gradient"}
    return names.pop() if len(names) == 1 else ", ".join(f"{result} {name}" for result, name in algorithms.items())
