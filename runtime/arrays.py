"""The border: what an array must be before generated code may touch it, and which copies are ever made of it.

Generated code trusts its arguments, so each is looked at here first: its type, its dtype, its shape, where it lies.
Nothing is cast, and nothing is cut to size; what does not fit is an `ArrayError` that names the argument, what it
is, the condition that failed, and the nearest thing that would do.

Strides never change a result, and a copy is never a surprise, because the copy policy is this table:

| policy | for | what happens to an array that is flipped, transposed, sliced, broadcast or in Fortran order |
|---|---|---|
| ``"as it is"`` | images and other large inputs | passed on without a copy; generated text reads it by its strides |
| ``"packed"`` | weights, biases | read through one C-ordered copy, made for this call |
| ``"either layout"`` | cotangents | the same, but one that lies channels last is passed on as it is |
| ``"in place"`` | parameters that a step updates | refused, for a step on a copy would be lost |

A C-contiguous array is not copied under any of the four.  What is passed on may still be copied by the generated text
where an algorithm needs its axes in their order; a function's docstring lists that among its changes of layout.

Arrays of other libraries come in by DLPack, without a copy, if they lie in the memory of the CPU; results are NumPy
arrays that share memory with no argument.
"""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = Sequence[int | None]
Policy = Literal["as it is", "packed", "either layout", "in place"]
Scalar = TypeVar("Scalar", bound=np.generic)

FLOATS = ("float32", "float64")
"""The dtypes that layers are generated for."""


class ArrayError(ValueError):
    """An array that generated code cannot take; the text names the argument, what failed and what would do."""


def float_dtype(dtype: npt.DTypeLike) -> np.dtype[Any]:
    """The dtype to compute in.

    Raises:
        ArrayError: it is neither float32 nor float64, in the byte order of this machine.

    >>> float_dtype("float32").name
    'float32'
    >>> float_dtype("float16")
    Traceback (most recent call last):
    runtime.arrays.ArrayError: dtype='float16': layers are generated for float32 and float64; nearest legal: 'float32'
    """
    try:
        found = np.dtype(dtype)
    except TypeError:
        found = None
    if found is None or found.str not in {np.dtype(name).str for name in FLOATS}:
        nearest = "float64" if found is not None and found.kind in "fiu" and found.itemsize > 4 else "float32"
        raise ArrayError(
            f"dtype={dtype!r}: layers are generated for {' and '.join(FLOATS)}; nearest legal: {nearest!r}"
        )
    return found


def checked(name: str, value: object, *, shape: Shape, dtype: npt.DTypeLike, policy: Policy = "as it is") -> Array:
    """An argument as a NumPy array of exactly this dtype and shape.

    Args:
        name: what the argument is called, for the error.
        value: a NumPy array, or an array of another library that exports DLPack from CPU memory.
        shape: the size of each axis; None stands for any size, zero included.
        dtype: the dtype it must have.
        policy: how its strides are treated, see the head of this file.

    Returns:
        The array: the same object for a NumPy array that needs no copy.

    Raises:
        ArrayError: it is no array, lies on another device, or has another dtype or shape; or, in place, it is not
            C-contiguous, aligned and writable.

    >>> x = np.zeros((2, 3), np.float32)
    >>> checked("x", x, shape=(None, 3), dtype="float32") is x
    True
    >>> checked("x", x.T, shape=(None, 3), dtype="float32")
    Traceback (most recent call last):
    runtime.arrays.ArrayError: x has shape (3, 2), expected (any, 3): axis 1 is 2, not 3; nearest legal: (3, 3)
    """
    array = _as_numpy(name, value)
    wanted = np.dtype(dtype)
    if array.dtype != wanted:
        raise ArrayError(
            f"{name} has dtype {array.dtype}, expected {wanted}, and nothing is cast silently; "
            f"nearest legal: {name}.astype({wanted.name!r})"
        )
    check_shape(name, array.shape, shape)
    if policy == "in place":
        _check_in_place(name, array)
    if policy == "packed" or (policy == "either layout" and not channels_last(array)):
        return np.ascontiguousarray(array) if array.ndim else array
    return array


def channels_last(array: Array) -> bool:
    """Whether the channels, the second axis, are innermost in memory, and the others in their order.

    >>> images = np.zeros((2, 28, 28, 3))  # as image files have them
    >>> channels_last(images), channels_last(images.transpose(0, 3, 1, 2))
    (False, True)
    """
    if array.ndim < 3 or array.flags.c_contiguous:
        return False
    return bool(np.moveaxis(array, 1, -1).flags.c_contiguous)


def with_channels_last(array: Array) -> Array:
    """A copy that lies channels last in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)


def laid_as(leader: Array, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """A new array, channels last in memory where the leader is, else C-contiguous."""
    if not channels_last(leader):
        return np.empty(shape, dtype)
    batch, channels, *spatial = shape
    return np.moveaxis(np.empty((batch, *spatial, channels), dtype), -1, 1)


def checked_labels(name: str, value: object, *, count: int, classes: int = 10) -> Array:
    """Labels: integers of any width, one for each image, each in 0..classes-1.

    Args:
        name: what the argument is called, for the error.
        value: the labels, shape (count,).
        count: how many images there are.
        classes: how many labels there are.

    Returns:
        The labels, neither cast nor copied.

    Raises:
        ArrayError: not an integer array, another shape, or a label out of range.

    >>> checked_labels("y", np.array([0, 12]), count=2)
    Traceback (most recent call last):
    runtime.arrays.ArrayError: y[1] = 12 is not in 0..9; nearest legal: 9
    """
    labels = _as_numpy(name, value)
    if labels.dtype.kind not in "iu":
        raise ArrayError(
            f"{name} has dtype {labels.dtype}; labels are integers in 0..{classes - 1}, and nothing is cast silently; "
            f"nearest legal: {name}.astype('int64')"
        )
    check_shape(name, labels.shape, (count,))
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        at = int(wrong[0])
        nearest = min(max(int(labels[at]), 0), classes - 1)
        raise ArrayError(f"{name}[{at}] = {labels[at]} is not in 0..{classes - 1}; nearest legal: {nearest}")
    return labels


def checked_parameters(
    params: Mapping[str, object], shapes: Mapping[str, Sequence[int]], *, dtype: npt.DTypeLike
) -> dict[str, Array]:
    """The parameters of a network, fit to be updated in place.

    Args:
        params: an array for each name.
        shapes: the names and their shapes.
        dtype: the one dtype of all of them.

    Returns:
        The same arrays, in the order of ``shapes``.

    Raises:
        ArrayError: a name is missing or unknown, an array does not fit (see `checked`, policy "in place"), or two of
            them share memory, so that a step on one would change the other.

    >>> checked_parameters({"bias": np.zeros(3)}, {"weight": (3, 2), "bias": (3,)}, dtype="float64")
    Traceback (most recent call last):
    runtime.arrays.ArrayError: params lacks 'weight'; the parameters are 'weight' (3, 2), 'bias' (3,)
    """
    missing = [repr(name) for name in shapes if name not in params]
    unknown = [repr(name) for name in params if name not in shapes]
    if missing or unknown:
        faults = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(unknown)
        known = ", ".join(f"{name!r} {tuple(shape)}" for name, shape in shapes.items())
        raise ArrayError(f"params {' and '.join(faults)}; the parameters are {known}")
    arrays = {
        name: checked(f"params[{name!r}]", params[name], shape=shape, dtype=dtype, policy="in place")
        for name, shape in shapes.items()
    }
    _check_disjoint(arrays)
    return arrays


def _check_disjoint(arrays: Mapping[str, Array]) -> None:
    # Contiguous arrays overlap exactly if, sorted by address, two neighbours do.
    spans = sorted((a.ctypes.data, a.ctypes.data + a.nbytes, name) for name, a in arrays.items() if a.nbytes)
    for (_, end, first), (start, _, second) in pairwise(spans):
        if start < end:
            raise ArrayError(
                f"params[{first!r}] and params[{second!r}] share memory, so a step on one would change the other; "
                f"nearest legal: params[{second!r}].copy()"
            )


def _as_numpy(name: str, value: object) -> Array:
    """A NumPy view of an array, whichever library it comes from."""
    if isinstance(value, np.ndarray):
        if isinstance(value, np.ma.MaskedArray | np.matrix):
            raise ArrayError(
                f"{name} is a {type(value).__name__}, whose meaning a plain array would lose; "
                f"nearest legal: np.asarray({name})"
            )
        return value
    if not hasattr(value, "__dlpack__"):
        raise ArrayError(
            f"{name} is {described(value)}; expected a NumPy array, or one that exports DLPack; "
            f"nearest legal: np.asarray({name}) with the dtype you mean"
        )
    device, index = dlpack_device(value)
    if device not in _HOST_MEMORY:
        raise ArrayError(
            f"{name} lies on {_DEVICES.get(device, f'DLPack device {device}')} {index}, and nothing is moved between "
            f"devices silently; nearest legal: a copy of it in the memory of the CPU"
        )
    try:
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise ArrayError(f"{name} is a {kind} that cannot be shared with NumPy: {error}") from error


# Numbers of DLPack's DLDeviceType.
_DEVICES = {2: "CUDA device", 4: "OpenCL device", 7: "Vulkan device", 8: "Metal device", 10: "ROCm device"}
_HOST_MEMORY = {1, 3, 11}  # the CPU's own memory, and memory of the CPU that CUDA or ROCm has pinned


def dlpack_device(value: Any) -> tuple[int, int]:
    """Where an array that exports DLPack lies: DLPack's number of the kind of device, and which one."""
    device, index = value.__dlpack_device__() if hasattr(value, "__dlpack_device__") else (1, 0)
    return int(device), int(index)


def described(value: object) -> str:
    """A value in an error message."""
    return f"a {type(value).__name__} ({reprlib.repr(value)})"


def check_shape(name: str, found: tuple[int, ...], expected: Shape) -> None:
    """Raise ArrayError unless a shape is the expected one, with the first axis that differs."""
    fits = [want is None or want == size for want, size in zip(expected, found, strict=False)]
    if len(found) == len(expected) and all(fits):
        return
    stated = shape_text(expected)
    if len(found) != len(expected):
        hint = _reshaped(found, expected)
        raise ArrayError(
            f"{name} has shape {found}, expected {stated}: it has {len(found)} axes, not {len(expected)}{hint}"
        )
    axis = fits.index(False)
    nearest = tuple(size if want is None else want for want, size in zip(expected, found, strict=True))
    raise ArrayError(
        f"{name} has shape {found}, expected {stated}: axis {axis} is {found[axis]}, not {expected[axis]}; "
        f"nearest legal: {nearest}"
    )


def _reshaped(found: tuple[int, ...], expected: Shape) -> str:
    """The shape that is meant if only axes of size 1 are missing or too many."""
    sizes = [size for size in found if size != 1]
    wanted = [want for want in expected if want != 1]
    if len(sizes) != len(wanted) or any(w not in (None, s) for w, s in zip(wanted, sizes, strict=True)):
        return ""
    rest = iter(sizes)
    return f"; nearest legal: {tuple(1 if want == 1 else next(rest) for want in expected)}"


def shape_text(shape: Shape) -> str:
    """A shape in words of Python, ``any`` for a free axis.

    >>> shape_text((None, 1, 28, 28)), shape_text((None,))
    ('(any, 1, 28, 28)', '(any,)')
    """
    sizes = ["any" if size is None else str(size) for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def _check_in_place(name: str, array: Array) -> None:
    flags = array.flags
    if not flags.c_contiguous:
        raise ArrayError(
            f"{name} is not C-contiguous (shape {array.shape}, strides {array.strides} bytes), and a step in place on "
            f"a copy would be lost; nearest legal: np.ascontiguousarray({name})"
        )
    if not flags.writeable:
        raise ArrayError(f"{name} is read-only, and a step writes to it; nearest legal: {name}.copy()")
    if not flags.aligned:
        raise ArrayError(
            f"{name} is not aligned (address {array.ctypes.data} for items of {array.itemsize} bytes); "
            f"nearest legal: {name}.copy()"
        )
