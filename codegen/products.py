"""Exact matrix products of field elements in object arrays, by 64-bit integers instead of two Python calls a term.

Under exact execution nearly all the time of a text goes into its matrix products: millions of products and sums of
``Element``.  The same numbers come from machine integers.  A number below 2^61 is cut into three *limbs* of 21 bits,
``x = x0 + x1 2^21 + x2 2^42``, and ``A B`` is then the sum of ``Ai Bj 2^(21 (i + j))`` over the nine pairs.  A product
of limbs is below 2^42, so a sum of three times K of them is below 2^63 as long as K is at most ``LONGEST``: NumPy's
matrix product of int64 arrays is exact (it is NumPy's own loop, not BLAS).  The sums are put together modulo p from
the highest power down, where 2^61 = 1: to multiply by 2^21 is to rotate 61 bits.

``NUMPY`` is what a text gets as its ``np``: NumPy, but for ``matmul``.  It decides nothing about a text: which arrays
are multiplied and where the product is put is done by the text, on the same object arrays and the same views.

>>> NUMPY.matmul(np.array([[Element(-1), 2]]), np.array([[5], [Element(3)]]))
array([[Element(1)]], dtype=object)
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from codegen.field import Element, Objects, P, array

LIMBS, BITS = 3, 21
HIGH = 61 - BITS  # where the bits of a number begin that a multiplication by 2^BITS carries round
LONGEST = (2**63 - 1) // (LIMBS * (2**BITS - 1) ** 2)
Integers = npt.NDArray[np.int64]


def matmul(a: Objects, b: Objects, out: Objects | None = None) -> Any:
    """What ``np.matmul`` gives for these arrays.

    Args:
        a, b: arrays as ``np.matmul`` takes them; where one entry is an ``Element``, all are elements or integers.
        out: where the product is put, of its very shape.

    Returns:
        ``out``, or a new array; entries of a product of elements are elements, between 0 and p - 1.

    Raises:
        TypeError: an entry is neither an element nor an integer: a floating-point number, or None in an array that was
            never written.
        ValueError: shapes that do not fit.
    """
    left, right = _cells(a), _cells(b)
    kinds = {type(x) for cells in (left, right) for x in cells}
    fields = [kind for kind in kinds if issubclass(kind, Element)]
    if not fields:
        return np.matmul(a, b, out=out)
    other = [kind.__name__ for kind in kinds if not issubclass(kind, (Element, int, np.integer))]
    if other or len(fields) > 1:
        names = ", ".join(other or [f"{len(fields)} fields"])
        raise TypeError(f"matmul: elements of one field and integers are multiplied, not {names}")
    found = multiplied(_residues(left, np.shape(a)), _residues(right, np.shape(b)))
    result = array(fields[0], found.ravel().tolist(), found.shape)
    if out is None:
        return result[()]
    if out.shape != result.shape:
        raise ValueError(f"matmul: out has the shape {out.shape}, the product {result.shape}")
    out[...] = result
    return out


def multiplied(a: Integers, b: Integers) -> Integers:
    """The product modulo p of arrays of numbers from 0 to p - 1."""
    if a.shape[-1] > LONGEST:
        raise ValueError(f"matmul: {a.shape[-1]} terms in a sum; at most {LONGEST} stay below 2^63")
    left, right = _limbs(a), _limbs(b)
    sums: list[Any] = [0] * (2 * LIMBS - 1)
    for i, j in product(range(LIMBS), repeat=2):
        sums[i + j] = sums[i + j] + np.matmul(left[i], right[j])
    total = np.zeros_like(sums[0])
    for weighted in reversed(sums):
        total = ((total >> HIGH) + ((total & (2**HIGH - 1)) << BITS) + weighted % P) % P
    return np.asarray(total)


def _limbs(a: Integers) -> list[Integers]:
    return [(a >> (BITS * i)) & (2**BITS - 1) for i in range(LIMBS)]


def _cells(a: Any) -> list[Any]:
    cells: list[Any] = np.asarray(a).ravel().tolist()
    return cells


def _residues(cells: list[Any], shape: tuple[int, ...]) -> Integers:
    values = [(x.value if isinstance(x, Element) else int(x)) % P for x in cells]
    return np.array(values, dtype=np.int64).reshape(shape)


class _Numpy:
    """NumPy, but for its matrix product."""

    matmul = staticmethod(matmul)

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


NUMPY = _Numpy()
