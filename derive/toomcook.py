"""Toom-Cook: m outputs of a kernel of r cells with m + r - 1 multiplications, and the proof that it is so.

A product of polynomials of degree below m and r is known from its values at t = m + r - 1 points, infinity being one.
With E_j the matrix that evaluates a polynomial of degree below j there (at infinity: its leading coefficient) and
C = E_t, which is square and invertible for distinct points, transposing that says

    A^T = E_m^T,   G = E_r,   B^T = C^-T :     Sum_t A[i,t] G[t,a] B[t,e] = [e == i + a]     for i < m, a < r, e < t,

since E_m[t,i] E_r[t,a] = C[t,i+a] and C^-1 C = 1.  Put between a kernel w and a tile d of the input it reads

    Sum_a w[a] d[i+a] = Sum_t A[i,t] (Sum_a G[t,a] w[a]) (Sum_e B[t,e] d[e]).

The rows of B and the columns of A may be scaled, where the row of G takes up the inverse: so scaled that A and B hold
integers, every division sits in G, and a kernel is transformed once.  (Toom 1963; Cook 1966; for convolutional
networks Lavin and Gray 2016.)

The matrices are *tensors with a definition*, ``A[i,t] := Sum of numbers [i == i0] [t == t0]``, so that the identity is
a theorem of the kernel like any other: unfold them, solve for t, and collect; nothing here is trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from hashlib import sha256
from math import gcd, lcm

from derive import kernel, tactics
from derive.cells import reguard, split
from derive.indices import equal, var
from derive.kernel import Theorem
from derive.points import Matrix, amplification, best_points, lagrange, powers
from derive.terms import Monomial, Tensor, define, expression, tensor, term

SCALES = ("integer", "none")
MOST = 1000


@dataclass(frozen=True, repr=False)
class ToomCook:
    """F(m, r): what computes m outputs of a kernel of r cells with t = m + r - 1 multiplications.

    ``points`` are the m + r - 2 finite ones; infinity is always the last.  ``output`` is A^T (m x t), ``kernel`` is G
    (t x r) and ``input`` is B^T (t x t).  That they do what they should is for ``theorem`` to say.
    """

    m: int
    r: int
    points: tuple[Fraction, ...]
    output: Matrix
    kernel: Matrix
    input: Matrix

    def __post_init__(self) -> None:
        t = self.m + self.r - 1
        shapes = {"output": (self.output, self.m, t), "kernel": (self.kernel, t, self.r), "input": (self.input, t, t)}
        for name, (matrix, rows, columns) in shapes.items():
            if len(matrix) != rows or any(len(row) != columns for row in matrix):
                raise ValueError(f"{name}: a matrix of {rows} x {columns} is needed for F({self.m}, {self.r})")

    def __repr__(self) -> str:
        return f"F({self.m}, {self.r}) at {', '.join(map(str, self.points))} and infinity"

    @property
    def multiplications(self) -> int:
        """How many multiplications a tile of one axis takes, t = m + r - 1; direct it takes m r."""
        return self.m + self.r - 1

    @property
    def multiplications_2d(self) -> int:
        """How many multiplications a tile of two axes takes, t^2; direct it takes (m r)^2."""
        return self.multiplications**2

    @property
    def direct(self) -> int:
        """How many multiplications the definition takes for a tile of one axis, m r."""
        return self.m * self.r

    @property
    def direct_2d(self) -> int:
        """How many multiplications the definition takes for a tile of two axes, (m r)^2."""
        return self.direct**2

    @cached_property
    def amplification(self) -> Fraction:
        """The largest of ``Sum_t |A[i,t]| (Sum_a |G[t,a]|) (Sum_e |B[t,e]|)`` over i.

        What the stages make of absolute values at most 1: every rounding error is bounded by a multiple of it. The
        definition itself has r here.  It does not depend on how rows are scaled.
        """
        return amplification(self.output, self.kernel, self.input)

    @property
    def amplification_2d(self) -> Fraction:
        """The same for the nesting of two axes, its square; the definition itself has r^2 here."""
        return self.amplification**2

    @cached_property
    def label(self) -> str:
        """What the names of its tensors end in: m, r and the points, and a digest where the matrices are others."""
        parts = [str(self.m), str(self.r), *map(_point_name, self.points)]
        if self != _standard(self.m, self.r, self.points, SCALES[0]):
            told = repr((self.output, self.kernel, self.input))
            parts.append(sha256(told.encode()).hexdigest()[:8])
        return "_".join(parts)

    @cached_property
    def A(self) -> Tensor:
        """The matrix A^T as a defined tensor, ``A[i,t]``."""
        return _constant(f"A_{self.label}", self.output)

    @cached_property
    def G(self) -> Tensor:
        """The matrix G as a defined tensor, ``G[t,a]``."""
        return _constant(f"G_{self.label}", self.kernel)

    @cached_property
    def B(self) -> Tensor:
        """The matrix B^T as a defined tensor, ``B[t,e]``."""
        return _constant(f"B_{self.label}", self.input)

    @cached_property
    def K(self) -> Tensor:
        """The three together: ``K[i,a,e] := Sum_t A[i,t] G[t,a] B[t,e]``."""
        i, a, e, t = (var(k) for k in range(4))
        body = term(3, self.A[i, t], self.G[t, a], self.B[t, e], over=self.A.box[1:])
        return define(f"K_{self.label}", [self.m, self.r, self.multiplications], body)

    def theorem(self) -> Theorem:
        """``K[i,a,e] = [e == i + a]`` for i < m, a < r, e < t.  Raises Refused where the matrices are wrong.

        >>> from derive.toomcook import toom_cook
        >>> toom_cook(2, 3, points=(0, 1, -1)).theorem()
        |- K_2_3_0_1_m1[$0,$1,$2] = [$0+$1-$2==0]
        """
        return _prove(self)


def toom_cook(m: int, r: int, *, points: Sequence[Fraction | int] | None = None, scale: str = "integer") -> ToomCook:
    """F(m, r) at these m + r - 2 distinct finite points, and infinity; see the head of this file.

    Without ``points`` those of least amplification among small rational numbers.  ``scale="integer"`` makes A and B
    hold integers without a common divisor, ``"none"`` gives the matrices as they stand in the formula.  Raises
    ValueError for sizes below one, points of the wrong number or repeated, and another scale.

    >>> f = toom_cook(2, 3, points=(0, 1, -1))
    >>> f.multiplications, f.direct, f.amplification
    (4, 6, Fraction(8, 1))
    >>> [[str(x) for x in row] for row in f.kernel]
    [['1', '0', '0'], ['1/2', '1/2', '1/2'], ['1/2', '-1/2', '1/2'], ['0', '0', '1']]
    """
    for name, size in (("m", m), ("r", r)):
        if type(size) is not int or size < 1:
            nearest = max(1, round(size)) if isinstance(size, float) and abs(size) < MOST else 1
            raise ValueError(f"{name}={size!r}: F(m, r) is for integers m, r >= 1; the nearest is {name}={nearest}")
    if scale not in SCALES:
        raise ValueError(f"scale={scale!r}: the scales are {' and '.join(SCALES)}")
    chosen = best_points(m, r) if points is None else _given(m, r, points)
    return _standard(m, r, chosen, scale)


def winograd(m: int, r: int, *, points: Sequence[Fraction | int] | None = None) -> ToomCook:
    """F(m, r), and by nesting F(m x m, r x r): see ``toom_cook``, whose matrices hold integers but for G.

    >>> f = winograd(4, 3)
    >>> f.multiplications_2d, f.direct_2d, [str(p) for p in f.points]
    (36, 144, ['0', '1/2', '-1/2', '2', '-2'])
    """
    return toom_cook(m, r, points=points)


def _given(m: int, r: int, points: Sequence[Fraction | int]) -> tuple[Fraction, ...]:
    if any(type(p) not in (int, Fraction) for p in points):
        raise ValueError(f"points={tuple(points)!r}: points are integers and Fractions, a float is no exact number")
    chosen = tuple(Fraction(p) for p in points)
    told = ", ".join(map(str, chosen))
    if len(chosen) != m + r - 2:
        raise ValueError(f"points=({told}): F({m}, {r}) has m + r - 2 = {m + r - 2} finite points, not {len(chosen)}")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"points=({told}): the points have to be distinct, and one of them is there twice")
    return chosen


# --- matrices -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _standard(m: int, r: int, points: tuple[Fraction, ...], scale: str) -> ToomCook:
    """The matrices of the formula, scaled."""
    out, ker, inp = powers(points, m), powers(points, r), lagrange(points)
    if scale == "none":
        return ToomCook(m, r, points, tuple(zip(*out, strict=True)), ker, inp)
    a, g, b = [], [], []
    for row_a, row_g, row_b in zip(out, ker, inp, strict=True):
        by_a, by_b = _to_integers(row_a), _to_integers(row_b)
        a.append(tuple(x * by_a for x in row_a))
        b.append(tuple(x * by_b for x in row_b))
        g.append(tuple(x / (by_a * by_b) for x in row_g))
    return ToomCook(m, r, points, tuple(zip(*a, strict=True)), tuple(g), tuple(b))


def _to_integers(row: Sequence[Fraction]) -> Fraction:
    """The positive number that makes a row, which is not 0, integers without a common divisor."""
    return Fraction(lcm(*(x.denominator for x in row)), gcd(*(x.numerator for x in row)))


def _point_name(p: Fraction) -> str:
    """A rational number inside an identifier: 1/2 is ``1d2``, -2 is ``m2``."""
    return ("m" if p < 0 else "") + str(abs(p.numerator)) + (f"d{p.denominator}" if p.denominator > 1 else "")


def _constant(name: str, matrix: Matrix) -> Tensor:
    """A matrix of numbers as a defined tensor: each entry under the guards that say where it stands."""
    entries = [
        Monomial(value, (), (equal(var(0), k), equal(var(1), j)), ())
        for k, row in enumerate(matrix)
        for j, value in enumerate(row)
    ]
    return tensor(name, len(matrix), len(matrix[0]), body=expression(2, entries))


# --- the proof ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _prove(f: ToomCook) -> Theorem:
    """Both sides as the same sum of ``[i == i0] [a == a0] [e == i0 + a0]``."""
    start = term(3, f.K[var(0), var(1), var(2)])
    return kernel.trans(_multiplied_out(kernel.begin(start, over=f.K.box), f), kernel.sym(_cell_by_cell(f)))


def _multiplied_out(theorem: Theorem, f: ToomCook) -> Theorem:
    """``K[i,a,e]`` as numbers under guards.  Solved for t, entries of G and B at a number t are numbers."""
    theorem = tactics.unfold_all(theorem, [f.K.name])
    theorem = tactics.unfold_all(theorem, [f.A.name])
    theorem = tactics.contract_simple(theorem)
    return tactics.unfold_all(tactics.unfold_all(theorem, [f.G.name]), [f.B.name])


def _cell_by_cell(f: ToomCook) -> Theorem:
    """``[e == i + a]`` split into the cells (i0, a0)."""
    i, a, e = (var(k) for k in range(3))
    theorem = kernel.begin(term(3, guards=[equal(e, i + a)]), over=f.K.box)
    theorem, rows = split(theorem, theorem.rhs.monomials[0], 0, range(f.m))
    for i0, row in zip(reversed(range(f.m)), rows, strict=True):
        theorem, cells = split(theorem, row, 1, range(f.r))
        for a0, cell in zip(reversed(range(f.r)), cells, strict=True):
            theorem = reguard(theorem, cell, (equal(i, i0), equal(a, a0), equal(e, i0 + a0)))
    return theorem


__all__ = ["ToomCook", "toom_cook", "winograd"]
