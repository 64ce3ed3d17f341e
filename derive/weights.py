"""Which parameters a formula has, how many there are, and where the same one is used again.

The parameters of a formula are the *free* tensors it is made from, through all definitions; how many there are is read
off their boxes.  Sharing weights is defining one tensor by another, ``F[i,k] := v[k-i]``, so following the definitions
from a weight matrix tells which of its entries are the same parameter: ``pattern`` draws that as a matrix of numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from derive.indices import Index, index
from derive.kernel import Theorem
from derive.shapes import as_sympy
from derive.terms import Expr, Read, Tensor

Pattern = list[list[int | None]]


def cells(t: Tensor) -> Index:
    """How many elements a tensor has: the product of the lengths of its intervals.

    >>> from derive.indices import symbols
    >>> from derive.terms import tensor
    >>> n, D = symbols("n D")
    >>> cells(tensor("v", (1 - n, n), (-D, D + 1)))
    -2*D+4*D*n+2*n-1
    """
    total = index(1)
    for lo, hi in t.box:
        total = total * (hi - lo)
    return total


def parameters(e: Expr, data: Sequence[str] = ("X",)) -> tuple[Tensor, ...]:
    """The free tensors that an expression is made from, those named in ``data`` aside; larger ranks first."""
    made_from = {t for read in e.tensors for t in read.reads_of_body}
    free = (t for t in made_from if t.body is None and t.name not in data)
    return tuple(sorted(free, key=lambda t: (-t.rank, t.name)))


@dataclass(frozen=True)
class Milestone:
    """A theorem on the way of a derivation, with a name and a sentence for the reader."""

    name: str
    statement: str
    theorem: Theorem

    @property
    def parameters(self) -> tuple[Tensor, ...]:
        """The free tensors that the left side is made from, the image X aside."""
        return parameters(self.theorem.lhs)

    @property
    def count(self) -> Index:
        """How many parameters there are."""
        return sum((cells(t) for t in self.parameters), index(0))

    @property
    def expression(self) -> Any:
        """The count as a SymPy expression, one product for each parameter tensor."""
        import sympy

        lengths = ([as_sympy(hi - lo) for lo, hi in t.box] for t in self.parameters)
        return sympy.Add(*(sympy.Mul(*each) for each in lengths))


@dataclass(frozen=True)
class ParameterCount:
    """The exact number of parameters at a milestone: a SymPy expression, the same with sizes put in, a book's rounding.

    ``value`` and ``rounded`` are integers, or SymPy expressions where sizes are left open.
    """

    name: str
    expression: Any
    value: Any
    rounded: Any = None

    @staticmethod
    def of(milestone: Milestone, sizes: Mapping[str, Index], rounded: Any = None) -> ParameterCount:
        """The count of a milestone at these sizes."""
        at_sizes = milestone.count.substitute(lambda atom: sizes.get(atom.text))
        value = as_sympy(at_sizes) if at_sizes.constant is None else at_sizes.constant
        return ParameterCount(milestone.name, milestone.expression, value, rounded)


def source(t: Tensor, at: Sequence[int], sizes: Mapping[str, int]) -> tuple[Tensor, tuple[int, ...]] | None:
    """The free element that a tensor holds at an index, through definitions that only rename; None for a zero."""
    place = tuple(at)
    while True:
        bounds = [(lo.evaluate(sizes), hi.evaluate(sizes)) for lo, hi in t.box]
        if not all(lo <= e < hi for e, (lo, hi) in zip(place, bounds, strict=True)):
            return None
        if t.body is None:
            return t, place
        read = _renaming(t)
        t, place = read.tensor, tuple(e.evaluate(sizes, place) for e in read.at)


def _renaming(t: Tensor) -> Read:
    """The read that the body of a tensor is."""
    terms = () if t.body is None else t.body.monomials
    if len(terms) == 1 and terms[0].coefficient == 1 and not terms[0].binders and not terms[0].guards:
        factors = terms[0].factors
        if len(factors) == 1 and isinstance(factors[0], Read):
            return factors[0]
    raise ValueError(f"{t.name} is not defined as one element of another tensor")


def pattern(t: Tensor, rows: int, sizes: Mapping[str, int]) -> Pattern:
    """A tensor as a matrix, its first ``rows`` axes against the others: which parameter stands where.

    Equal numbers are one parameter, None is a zero that is no parameter.  Numbers are row-major in the parameter's box.
    """
    axes = [range(lo.evaluate(sizes), hi.evaluate(sizes)) for lo, hi in t.box]
    return [
        [_label(source(t, (*row, *column), sizes), sizes) for column in product(*axes[rows:])]
        for row in product(*axes[:rows])
    ]


def _label(found: tuple[Tensor, tuple[int, ...]] | None, sizes: Mapping[str, int]) -> int | None:
    if found is None:
        return None
    number = 0
    for e, (lo, hi) in zip(found[1], found[0].box, strict=True):
        first, end = lo.evaluate(sizes), hi.evaluate(sizes)
        number = number * (end - first) + e - first
    return number


__all__ = ["Milestone", "ParameterCount", "Pattern", "cells", "parameters", "pattern", "source"]
