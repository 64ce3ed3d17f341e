"""What ``emit`` says of a value that it cannot take: the argument, the value, what it may be and for what, the nearest.

Which values there are depends on what else is asked for (a backend, a layer, a dtype), so a refusal names that too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import zip_longest
from math import log2

from derive.layers import Layer, Linear, Sequential

NUMPY_DTYPES = ("float32", "float64")
CUDA_DTYPES = (*NUMPY_DTYPES, "float16", "bfloat16")
CUDA_ALGORITHMS = ("auto", "definition", "tf32")


class EmitError(ValueError):
    """A request that cannot be met; the text names the argument, its value and what would be possible."""


def one_of(argument: str, value: object, legal: Sequence[str], *, of: str = "", near: str | None = None) -> None:
    """Raise EmitError unless a value is one of the legal ones.

    ``of`` says for what they are legal, ``near`` which is the nearest, where it is not the one spelled most alike.

    >>> one_of("layout", "NHWC", ["first", "last"], of="for images")
    Traceback (most recent call last):
    codegen.legal.EmitError: layout='NHWC': it has to be one of 'first', 'last' for images; nearest legal: 'first'
    """
    if isinstance(value, str) and value in legal:
        return
    named = ", ".join(map(repr, legal))
    told = f" {of}" if of else ""
    if len(legal) == 1:
        raise EmitError(f"{argument}={value!r}: it has to be {named}{told}")
    near = near or nearest(value, legal)
    raise EmitError(f"{argument}={value!r}: it has to be one of {named}{told}; nearest legal: {near!r}")


def nearest(value: object, legal: Sequence[str]) -> str:
    """The legal name that is spelled most like a value, or the first; a type counts by its name.

    >>> nearest("input_grad", ["forward", "input_gradient"]), nearest(None, ["auto", "gemm"])
    ('input_gradient', 'auto')
    """
    spelled = value if isinstance(value, str) else getattr(value, "__name__", "")
    return next(iter(get_close_matches(spelled, legal, n=1)), legal[0])


def check_dtype(dtype: object, backend: str, layer: Layer) -> None:
    """Raise EmitError unless text of this backend computes this layer in this dtype."""
    single = not isinstance(layer, Sequential)
    legal = CUDA_DTYPES if backend == "cupy" and single else NUMPY_DTYPES
    of = "for a network" if backend == "cupy" and not single else f"for backend={backend!r}"
    elsewhere = isinstance(dtype, str) and dtype in CUDA_DTYPES
    of += " (a layer by itself has it for backend='cupy')" if elsewhere else ""
    one_of("dtype", dtype, legal, of=of, near="float32" if elsewhere else None)


def check_cuda_algorithm(algorithm: object, dtype: str) -> None:
    """Raise EmitError unless a convolution for CuPy is computed so in this dtype."""
    if isinstance(algorithm, Mapping):
        raise EmitError(
            f"algorithm={algorithm!r}: for backend='cupy' one name is needed for all results, of "
            f"{', '.join(map(repr, CUDA_ALGORITHMS))}; nearest legal: 'auto'"
        )
    if algorithm == "tf32" and dtype != "float32":
        raise EmitError(
            f"algorithm='tf32': it rounds factors in float32 to 11 bits, and dtype is {dtype!r}; "
            "nearest legal: 'auto', or dtype='float32'"
        )
    legal = CUDA_ALGORITHMS if dtype == "float32" else CUDA_ALGORITHMS[:-1]
    one_of("algorithm", algorithm, legal, of="for backend='cupy', which forms each result by its definition")


def check_numpy_algorithm(algorithm: object, legal: Sequence[str]) -> None:
    """Raise EmitError unless NumPy's backend has an algorithm of this name."""
    elsewhere = isinstance(algorithm, str) and algorithm in CUDA_ALGORITHMS
    of = "for backend='numpy'" + (" (backend='cupy' has it)" if elsewhere else "")
    one_of("algorithm", algorithm, ("auto", *legal), of=of)


def check_single_algorithm(algorithm: object, only: str, layer: Layer, backend: str, dtype: str) -> None:
    """Raise EmitError unless it is the one algorithm of a layer that has one, or leaves that open.

    A dense layer in float32 may have its products on tensor cores besides.
    """
    if backend == "cupy" and isinstance(layer, Linear):
        check_cuda_algorithm(algorithm, dtype)
        return
    one_of("algorithm", algorithm, ("auto", only), of=f"for {type(layer).__name__} and backend={backend!r}")


def check_tiles(tiles: object) -> None:
    """Raise EmitError unless tiles are given by the names of results."""
    if tiles is not None and not isinstance(tiles, Mapping):
        raise EmitError(
            f"tiles={tiles!r}: a mapping from results to tiles is needed, such as {{'forward': '64x64'}}; "
            "nearest legal: None"
        )


def check_tile(result: str, tile: object, legal: Sequence[str]) -> None:
    """Raise EmitError unless a tile has a legal name; the nearest is the one whose numbers differ least.

    >>> check_tile("forward", "8x32x4", ["64x64", "8x32x8"])
    Traceback (most recent call last):
    codegen.legal.EmitError: tiles['forward']='8x32x4': it has to be one of '64x64', '8x32x8'; nearest legal: '8x32x8'
    """
    found = re.fullmatch(r"[1-9]\d{0,8}(x[1-9]\d{0,8}){1,2}", tile.lower()) if isinstance(tile, str) else None
    asked = [int(number) for number in found[0].split("x")] if found else []

    def off(name: str) -> float:
        numbers = map(int, name.split("x"))
        return sum(abs(log2(a / b)) for a, b in zip_longest(numbers, asked, fillvalue=1)) if asked else 0.0

    one_of(f"tiles[{result!r}]", tile, legal, near=min(legal, key=off))


def check_layer(layer: object) -> None:
    """Raise EmitError unless this is a layer at all."""
    if not isinstance(layer, Layer):
        raise EmitError(f"layer={layer!r}: a layer is needed, such as derive.Conv2d(6, 16, 5)")
