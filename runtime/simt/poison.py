"""Storage that nothing has been written to, marked so that reading it shows.

An array of `empty` is full of one pattern, which is a NaN as float32, float64, float16 and bfloat16 and no element of
the field.  A kernel that reads a cell with this pattern before it wrote there is reported as reading what is
uninitialised; NumPy's code sees NaN.  (An integer array may hold the pattern by chance: 2147319805 as int32.)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

POISON_32 = 0x7FFD7FFD
POISON_64 = 0x7FFD7FFD7FFD7FFD


def empty(shape: int | tuple[int, ...], dtype: npt.DTypeLike = "float64", order: Any = "C") -> npt.NDArray[Any]:
    """A new array whose cells count as uninitialised, as ``numpy.empty``.

    >>> empty(2, "float32")
    array([nan, nan], dtype=float32)
    """
    wanted = np.dtype(dtype)
    cells = (shape,) if isinstance(shape, int) else tuple(shape)
    size = math.prod(cells) * wanted.itemsize
    raw = np.full(-(-size // 4), POISON_32, "<u4").view(np.uint8)[:size]
    return np.ndarray(cells, wanted, raw.data if raw.size else None, order=order)
