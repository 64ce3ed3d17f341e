"""Is it right?  Cells of a result, drawn at random, computed on the host in float64 by the definition.

No contestant is timed before its result lies within the bound of rounding at every drawn cell: K terms, summed in the
precision of the sums, stored in that of the result (``codegen.rounding``).  It shares nothing with the stages.  A peer
may round on the way as it likes: it may be off by some units of its format in the sum of the terms' sizes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.benchmarks.gpu.cases import Case
from tests.gpu.formats import CORES, STORING

CELLS = 24
UNITS = 4  # of a peer
Array = Any


class Disagreement(AssertionError):
    """A contestant's result is not right."""


def terms(case: Case, x: Array, w: Array, g: Array, cell: tuple[int, ...]) -> Array:
    """The terms of the sum that defines a cell of the result."""
    ((s, _), (p, _), (d, _)) = case.layer.stride, case.layer.padding, case.layer.dilation
    kernel, per_group, inputs = case.weight_shape[-1], case.weight_shape[0] // case.layer.groups, case.weight_shape[1]
    rows, columns = case.output_shape[2:]
    sides = range(kernel)
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p))) if case.part != "input" else x
    if case.part == "forward":
        b, n, i, j = cell
        first = n // per_group * inputs
        window = padded[b, first : first + inputs, i * s : i * s + d * kernel : d, j * s : j * s + d * kernel : d]
        return (window * w[n]).ravel()
    if case.part == "weight":
        n, c, a, e = cell
        channel = n // per_group * inputs + c
        seen = padded[:, channel, a * d : a * d + (rows - 1) * s + 1 : s, e * d : e * d + (columns - 1) * s + 1 : s]
        return (seen * g[:, n]).ravel()
    b, c, h, v = cell
    first = c // inputs * per_group
    found = []
    for a in sides:
        for e in sides:
            (i, left), (j, over) = divmod(h + p - a * d, s), divmod(v + p - e * d, s)
            if left == over == 0 and 0 <= i < rows and 0 <= j < columns:
                found.append(g[b, first : first + per_group, i, j] * w[first : first + per_group, c % inputs, a, e])
    return np.concatenate([np.zeros(1), *found])


def check(case: Case, name: str, result: Array, arguments: tuple[Array, Array, Array], *, strictly: bool) -> None:
    """Compare drawn cells of a result with the definition; arguments are what the device was given, in float64.

    ``strictly``: within the bound of our sums; otherwise as a peer.

    Raises Disagreement with the first cell that is too far off.
    """
    shape = {"forward": case.output_shape, "input": case.shape, "weight": case.weight_shape}[case.part]
    if result.shape != shape:
        raise Disagreement(f"{name} gives the shape {result.shape}, not {shape}")
    rng = np.random.default_rng(5)
    unit, smallest = STORING.get(case.numbers, (2.0**-24, 2.0**-150))
    factors = 2.0**-10 + 2.0**-22 if case.numbers == "tf32" else 0.0  # both rounded to 11 bits
    for _ in range(CELLS):
        cell = tuple(int(rng.integers(n)) for n in shape)
        summed = terms(case, *arguments, cell)
        exact, size = float(summed.sum()), float(abs(summed).sum())
        allowed = (len(summed) * float(CORES.unit) + factors) * size * 1.001
        allowed += 0.0 if strictly else UNITS * unit * size
        allowed += unit * (abs(exact) + allowed) + smallest
        if not abs(float(result[cell]) - exact) <= allowed:
            raise Disagreement(
                f"{name} gives {float(result[cell])!r} at {cell}, the definition {exact!r} +- {allowed:.3g}"
            )
