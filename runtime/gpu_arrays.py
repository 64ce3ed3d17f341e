"""The border of the GPU: what an array must be before a generated kernel may touch it.

As `runtime.arrays` for NumPy: nothing is cast and nothing is moved between devices.  Kernels read C-contiguous arrays,
so one that is flipped, transposed or sliced is read through a packed copy on the GPU, made for this call.  So is
one that begins where a kernel, which reads several elements in one access, may not: a module says in
``ALIGNED`` which arrays have to begin at a multiple of how many bytes.  What CuPy allocates does, a view of
it need not.
"""

from __future__ import annotations

from typing import Any

from runtime.arrays import ArrayError, Shape, check_shape, described, dlpack_device

CUDA = 2  # DLPack's kDLCUDA


def checked_on_gpu(cupy: Any, name: str, value: Any, *, shape: Shape, dtype: str, multiple: int = 1) -> Any:
    """An argument as a C-contiguous CuPy array of exactly this dtype and shape.

    Args:
        cupy: the module CuPy.
        name: what the argument is called, for the error.
        value: a CuPy array, or an array of another library in the memory of the GPU that exports
            ``__cuda_array_interface__`` or DLPack: it is shared, not copied.
        shape: the size of each axis; None stands for any size.
        dtype: the dtype it must have.
        multiple: the bytes that its address has to be a multiple of; an array elsewhere is copied.

    Raises:
        ArrayError: it is no array on a GPU, or has another dtype or shape.
    """
    array = on_gpu(cupy, name, value)
    if str(array.dtype) != dtype:
        raise ArrayError(
            f"{name} has dtype {array.dtype}, expected {dtype}, and nothing is cast silently; "
            f"nearest legal: {name}.astype({dtype!r})"
        )
    check_shape(name, array.shape, shape)
    packed = cupy.ascontiguousarray(array) if array.ndim else array
    return packed.copy() if beyond(packed, multiple) else packed


def beyond(array: Any, multiple: int) -> int:
    """By how many bytes an array begins behind a multiple of so many; 0 for what tells no address of the GPU."""
    return int(getattr(array.data, "ptr", 0)) % multiple


def on_gpu(cupy: Any, name: str, value: Any) -> Any:
    """An argument as a CuPy array, of any dtype and shape, without a copy; raises ArrayError where it is on no GPU."""
    if isinstance(value, cupy.ndarray):
        return value
    if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):  # first: it names every dtype
        device, _ = dlpack_device(value)
        if device == CUDA:
            return cupy.from_dlpack(value)
        raise ArrayError(
            f"{name} is {described(value)}, which does not lie on a GPU, and nothing is moved between devices "
            f"silently; nearest legal: cupy.asarray({name})"
        )
    if hasattr(value, "__cuda_array_interface__"):
        return cupy.asarray(value)
    raise ArrayError(f"{name} is {described(value)}; expected an array on the GPU; nearest legal: cupy.asarray({name})")
