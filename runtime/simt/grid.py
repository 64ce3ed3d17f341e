"""The sizes of a launch and the orders it runs under, refused where no GPU would take them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import index
from typing import SupportsIndex

from runtime.simt.errors import Index, LaunchError

SCHEDULES: Mapping[str, int] = {"forward": 0, "reverse": 1, "shuffled": 0x5EED}
"""Orders of blocks and threads: their names, and how the executor is told; a number of 2 or more is a seed."""

Dims = SupportsIndex | Sequence[SupportsIndex]

_STATIC_LIMIT, _SHARED_LIMIT = 48 << 10, 227 << 10
_GRID, _BLOCK = (2**31 - 1, 65535, 65535), (1024, 1024, 64)


def sizes(grid: Dims, block: Dims) -> tuple[Index, Index]:
    """Grid and block as three sizes each.

    Raises:
        LaunchError: they are not legal.

    >>> import numpy
    >>> sizes((4, 2), numpy.int64(64))
    ((4, 2, 1), (64, 1, 1))
    >>> sizes(1, (64, 32))
    Traceback (most recent call last):
    runtime.simt.errors.LaunchError: block=(64, 32, 1) has 2048 threads; a block has at most 1024
    """
    found = _dims("grid", grid, _GRID), _dims("block", block, _BLOCK)
    threads = found[1][0] * found[1][1] * found[1][2]
    if threads > 1024:
        raise LaunchError(f"block={found[1]} has {threads} threads; a block has at most 1024")
    return found


def _dims(name: str, given: Dims, limits: tuple[int, int, int]) -> tuple[int, int, int]:
    parts = tuple(index(n) for n in (given if isinstance(given, Sequence) else (given,)))
    if not 1 <= len(parts) <= 3:
        raise LaunchError(f"{name}={given!r} has {len(parts)} sizes; nearest legal: 1 to 3 of them")
    x, y, z = (*parts, 1, 1)[:3]
    for axis, size, limit in zip("xyz", (x, y, z), limits, strict=True):
        if not 1 <= size <= limit:
            raise LaunchError(
                f"{name}={given!r}: {axis}={size} is not between 1 and {limit}; "
                f"nearest legal: {min(max(size, 1), limit)}"
            )
    return x, y, z


def check_bound(kernel: str, block: Index, bound: int | None) -> None:
    """Refuse more threads than a kernel was made for.

    Args:
        kernel: its name.
        block: three sizes.
        bound: the first number of its ``__launch_bounds__``; None where there is none or it is not known.

    Raises:
        LaunchError: a block has more threads.

    >>> check_bound("f", (65, 1, 1), 64)
    Traceback (most recent call last):
    runtime.simt.errors.LaunchError: block=(65, 1, 1) has 65 threads, and f has __launch_bounds__(64); nearest legal: 64
    """
    threads = block[0] * block[1] * block[2]
    if bound is not None and threads > bound:
        raise LaunchError(
            f"block={block} has {threads} threads, and {kernel} has __launch_bounds__({bound}); nearest legal: {bound}"
        )


def check_shared(static: int, dynamic: int, *, widened: bool = False) -> None:
    """Refuse more shared memory than a block can have.

    Args:
        static, dynamic: bytes.
        widened: the elements are up to four times as wide as those of the text for a GPU (8 bytes of the field for 2
            of a half), so that its limits do not count.

    Raises:
        LaunchError: it is too much.
    """
    if widened:
        if not 0 <= dynamic <= 4 * _SHARED_LIMIT:
            raise LaunchError(f"shared_bytes={dynamic} is not between 0 and {4 * _SHARED_LIMIT}")
        return
    if static > _STATIC_LIMIT:
        raise LaunchError(f"static shared memory: {static} bytes are more than {_STATIC_LIMIT}")
    if not 0 <= dynamic <= _SHARED_LIMIT - static:
        raise LaunchError(
            f"shared_bytes={dynamic} with {static} bytes of static shared memory is not between 0 and "
            f"{_SHARED_LIMIT - static}"
        )


def orders(given: Sequence[str | int]) -> dict[str, int]:
    """The orders of a launch, each with what the executor is told.

    Raises:
        LaunchError: there are none, or one is unknown.

    >>> orders(["reverse", 7])
    {'reverse': 1, 'shuffled by 7': 7}
    """
    found = {}
    for order in given:
        if isinstance(order, str) and order in SCHEDULES:
            found[order] = SCHEDULES[order]
        elif isinstance(order, int) and 2 <= order < 2**64:
            found[f"shuffled by {order}"] = order
        else:
            legal = ", ".join(repr(n) for n in SCHEDULES)
            raise LaunchError(f"schedules: {order!r} is none of {legal} or a seed of at least 2")
    if not found:
        raise LaunchError("schedules: at least one order is needed; nearest legal: ('forward',)")
    return found
