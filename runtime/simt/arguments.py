"""A kernel's arguments: arrays become buffers with guard zones, numbers take the type of their parameter.

Arrays that share memory share a buffer, so that a kernel that works in place does so here.  Nothing is cast: an array
has the element type of its parameter, and a number must be one that this type holds.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from codegen.field import Element, P
from runtime.arrays import Array
from runtime.simt.errors import LaunchError
from runtime.simt.signature import Parameter
from runtime.simt.wire import NULL

_KINDS = {"f": "f", "i": "iub", "u": "iub", "B": "bu", "h": "f", "b": "uV", "F": "u"}
_NUMPY = {"f": "float{}", "i": "int{}", "u": "uint{}", "B": "bool", "h": "float16", "b": "uint16", "F": "uint64"}


@dataclass(frozen=True)
class Buffer:
    """A stretch of memory that arguments lie in.

    Attributes:
        address, bytes: where it is.
        out: whether a parameter lets the kernel write to it.
        item: the bytes of a cell of the first array in it.
        arrays: the arguments in it, by their numbers.
        read_only: the name of one that NumPy must not write to; "" where there is none.
    """

    address: int
    bytes: int
    out: bool
    item: int
    arrays: tuple[int, ...]
    read_only: str


@dataclass(frozen=True)
class Arguments:
    """What is handed to a kernel: for each parameter a place (buffer, offset) or bytes, and the buffers."""

    places: tuple[tuple[int, int] | bytes, ...]
    buffers: tuple[Buffer, ...]


def taken(kernel: str, parameters: Sequence[Parameter], args: Sequence[object], *, strided: bool) -> Arguments:
    """The arguments of a launch.

    Raises:
        LaunchError: there are too few or too many, or one does not fit its parameter.
    """
    if len(args) != len(parameters):
        declared = ", ".join(p.declaration() for p in parameters)
        raise LaunchError(f"args: {len(args)} were given, but {kernel}({declared}) has {len(parameters)} parameters")
    arrays = {
        k: _array(parameter, argument, strided=strided)
        for k, (parameter, argument) in enumerate(zip(parameters, args, strict=True))
        if parameter.pointer and argument is not None
    }
    buffers = _buffers(parameters, arrays)
    where = {k: b for b, buffer in enumerate(buffers) for k in buffer.arrays}
    places: list[tuple[int, int] | bytes] = []
    for k, (parameter, argument) in enumerate(zip(parameters, args, strict=True)):
        if k in arrays:
            places.append((where[k], arrays[k].ctypes.data - buffers[where[k]].address if arrays[k].size else 0))
        else:
            places.append((NULL, 0) if parameter.pointer else value_bytes(parameter, argument))
    return Arguments(tuple(places), tuple(buffers))


def _array(parameter: Parameter, argument: object, *, strided: bool) -> Array:
    """An argument as the array that a pointer may point to."""
    shown = f"argument {parameter.name}"
    if not isinstance(argument, np.ndarray):
        raise LaunchError(
            f"{shown}={argument!r} is {type(argument).__name__}; {parameter.declaration()} takes a NumPy array or None"
        )
    if not fits(parameter, argument.dtype):
        nearest = _NUMPY[parameter.letter].format(8 * parameter.size)
        raise LaunchError(
            f"{shown} has dtype {argument.dtype}, but it is declared {parameter.declaration()}; "
            f"nearest legal: {nearest}"
        )
    if not (strided or argument.flags.c_contiguous or argument.flags.f_contiguous):
        raise LaunchError(
            f"{shown} has strides {argument.strides} and is not contiguous; nearest legal: numpy.ascontiguousarray(...)"
        )
    if not (parameter.constant or argument.flags.writeable):
        raise LaunchError(f"{shown} is read-only, but it is declared {parameter.declaration()}")
    if parameter.letter == "F" and (wrong := _outside_field(argument)) is not None:
        raise LaunchError(f"{shown} holds {wrong}, which is no element of the field: 0 to 2^61 - 2")
    return argument


def fits(parameter: Parameter, dtype: np.dtype[Any]) -> bool:
    """Whether an array of this dtype may be read through a pointer of this type.

    >>> fits(Parameter("x", True, True, "f", 4, "float"), np.dtype("float64"))
    False
    """
    if parameter.letter not in _KINDS:
        return not dtype.hasobject  # void *, or a structure such as float4: any storage
    same = dtype.itemsize == parameter.size and dtype.kind in _KINDS[parameter.letter] and dtype.isnative
    return same and (dtype.kind != "V" or dtype.name == "bfloat16")


def _outside_field(values: Array) -> int | None:
    from runtime.simt.poison import POISON_64

    wrong = values[(values >= P) & (values != POISON_64)]
    return int(wrong[0]) if wrong.size else None


def _buffers(parameters: Sequence[Parameter], arrays: dict[int, Array]) -> list[Buffer]:
    """One buffer for all arrays that overlap; an empty array has one to itself."""
    spans = sorted((*_bounds(a), k) for k, a in arrays.items())
    groups: list[tuple[int, int, list[int]]] = []
    for low, high, k in spans:
        if groups and low < groups[-1][1] and low < high:
            start, end, members = groups.pop()
            groups.append((start, max(end, high), [*members, k]))
        else:
            groups.append((low, high, [k]))
    return [
        Buffer(
            low, high - low, any(not parameters[k].constant for k in members), arrays[members[0]].itemsize,
            tuple(members), next((parameters[k].name for k in members if not arrays[k].flags.writeable), ""),
        )
        for low, high, members in groups
    ]  # fmt: skip


def _bounds(array: Array) -> tuple[int, int]:
    """The first byte of an array's memory and the one after its last."""
    at = array.ctypes.data
    if not array.size:
        return at, at
    steps = [(n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)]
    return at + sum(min(s, 0) for s in steps), at + sum(max(s, 0) for s in steps) + array.itemsize


def memory(buffer: Buffer) -> Any:
    """The bytes of a buffer, as they lie in the arrays."""
    return (ctypes.c_char * buffer.bytes).from_address(buffer.address)


# --- Numbers ------------------------------------------------------------------------------------------------


def value_bytes(parameter: Parameter, argument: object) -> bytes:
    r"""A number, or a structure as bytes, as the parameter's type.

    Raises:
        LaunchError: the type does not hold it.

    >>> value_bytes(Parameter("n", False, False, "i", 4, "int"), 7)
    b'\x07\x00\x00\x00'
    >>> value_bytes(Parameter("n", False, False, "i", 4, "int"), 2**31)
    Traceback (most recent call last):
    runtime.simt.errors.LaunchError: argument n=2147483648 does not fit int n: -2147483648 to 2147483647
    """
    letter, size = parameter.letter, parameter.size
    if isinstance(argument, np.ndarray) and argument.ndim == 0:
        argument = argument[()]
    if letter in "iuB" and isinstance(argument, (int, np.integer, np.bool_)):
        return _integer(parameter, int(argument))
    if letter in "fhb" and isinstance(argument, (int, float, np.integer, np.floating)):
        return _floating(parameter, float(argument))
    if letter == "F" and isinstance(argument, (int, float, np.integer, np.floating, Fraction, Element)):
        return struct.pack("<Q", _field(argument))
    raw = argument.tobytes() if isinstance(argument, np.generic) else argument
    if letter == "s" and isinstance(raw, (bytes, bytearray)) and len(raw) == size:
        return bytes(raw)
    wanted = f"{size} bytes" if letter == "s" else "a number"
    raise LaunchError(
        f"argument {parameter.name}={argument!r} is {type(argument).__name__}; {parameter.declaration()} takes {wanted}"
    )


def _integer(parameter: Parameter, value: int) -> bytes:
    low, high = (-(2 ** (8 * parameter.size - 1)), 2 ** (8 * parameter.size - 1) - 1)
    if parameter.letter != "i":
        low, high = 0, 1 if parameter.letter == "B" else 2 ** (8 * parameter.size) - 1
    if not low <= value <= high:
        raise LaunchError(f"argument {parameter.name}={value} does not fit {parameter.declaration()}: {low} to {high}")
    return value.to_bytes(parameter.size, "little", signed=parameter.letter == "i")


def _floating(parameter: Parameter, value: float) -> bytes:
    if parameter.letter == "b":
        bits = int(np.float32(value).view(np.uint32))
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 if math.isfinite(value) else bits >> 16
        return struct.pack("<H", rounded & 0xFFFF)
    with np.errstate(over="ignore"):
        taken = np.array(value, f"float{8 * parameter.size}")
    if math.isfinite(value) and not np.isfinite(taken):
        raise LaunchError(
            f"argument {parameter.name}={value} does not fit {parameter.declaration()}: its magnitude is at most "
            f"{np.finfo(taken.dtype).max}"
        )
    return bytes(taken.tobytes())


def _field(value: object) -> int:
    """A number as an element of the field; a floating-point number is the fraction it is exactly."""
    if isinstance(value, Element):
        return value.value % P
    exact = Fraction(value.item() if isinstance(value, np.generic) else value)  # type: ignore[arg-type]
    return exact.numerator * pow(exact.denominator, -1, P) % P
