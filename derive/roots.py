"""The convolution theorem of the discrete Fourier transform for every n at once, what a root has to satisfy left over.

Let R[m] be any numbers of a commutative ring, for integers m.  That they are the powers of a primitive n-th root of
unity says two things, and by how much they fail to be is two tensors:

    Product[m,l] := R[m] R[l] - R[m+l]                         0 for all m, l: powers multiply
    Mean[c] := Sum_{j<n} R[j c] - Sum_{j<n} [n | c]            0 for all c: their sums are n or 0

With the transforms ``^w[j,c] = Sum_a R[j a] w[c,a]``, for all n >= 1, batches and channels, in any commutative ring,

    Sum_j R[-j k] Sum_c ^w[j,c] ^x[j,c]  =  n Sum_{c,a} w[c,a] x[c, (k - a) mod n]
        + Sum_{j,c,a,e} R[-j k] Product[j a, j e] w[c,a] x[c,e]
        + Sum_{j,c,a,e} Product[-j k, j (a + e)] w[c,a] x[c,e]
        + Sum_{c,a,e} Mean[a + e - k] w[c,a] x[c,e]

(n as a sum of ones).  Where both tensors are 0 this is the convolution theorem.  What is missing to write it so is a
hypothesis about values: the facts of a theorem speak of integers alone, so ``Product = 0`` cannot be assumed of a free
tensor.  Nor is there a definition of R for a symbolic n from which it would follow, since the coordinates of a root
depend on the divisors of n and terms have neither complex numbers nor sines; ``derive.fourier`` has one for each n up
to 8.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from derive import kernel, tactics
from derive.indices import Divides, Index, at_least, equal, interval, symbols, var, variables
from derive.kernel import Theorem
from derive.matching import match
from derive.rules import Contract, Reguard
from derive.terms import Expr, Tensor, define, tensor, term

SIZE, CHANNELS, OUTPUTS, IMAGES = symbols("n C M N")
CELLS, DEPTH = interval(0, SIZE), interval(0, CHANNELS)
ROOT = tensor("R", interval(-SIZE * SIZE, 3 * SIZE * SIZE))
WEIGHT, INPUT = tensor("W", OUTPUTS, CHANNELS, SIZE), tensor("X", IMAGES, CHANNELS, SIZE)


def product() -> Tensor:
    """``Product[m,l] := R[m] R[l] - R[m+l]``, by how much two powers do not multiply.

    >>> product().body
    -1*R[$0+$1] + R[$0]*R[$1]
    """
    m, l = variables(0, 2)  # noqa: E741
    body = term(2, ROOT[m], ROOT[l]) + term(2, ROOT[m + l], coefficient=-1)
    return define("Product", [interval(-SIZE * SIZE, SIZE * SIZE), interval(0, 2 * SIZE * SIZE)], body)


def mean() -> Tensor:
    """``Mean[c] := Sum_{j<n} R[j c] - Sum_{j<n} [n | c]``, for the c that are a sum of two indices less a third."""
    c, j = variables(0, 2)
    ones = term(1, over=[CELLS], guards=[Divides(SIZE, c)], coefficient=-1)
    return define("Mean", [interval(1 - SIZE, 2 * SIZE - 1)], term(1, ROOT[j * c], over=[CELLS]) + ones)


@lru_cache(maxsize=1)
def convolution_with_remainders() -> Theorem:
    """See the head of this file; the free variables are the batch b, the output channel o and the position k < n.

    >>> theorem = convolution_with_remainders()
    >>> [g.text for g in theorem.facts], theorem.theory
    (['n-1>=0'], 'commutative ring')
    >>> theorem.lhs
    Sum{0<=$3<n,0<=$4<C}*FW[$3,$1,$4]*FX[$3,$0,$4]*R[-$2*$3]
    """
    return proved(transformed(), circular() + remainders())


def proved(left: Expr, right: Expr) -> Theorem:
    """``left = right`` for all sizes, both opened down to R, W and X.  Raises Refused where they do not meet."""
    facts, over = [at_least(SIZE, 1)], [interval(0, IMAGES), interval(0, OUTPUTS), CELLS]
    below = tactics.unfold_all(kernel.begin(left, facts=facts, over=over))
    above = tactics.unfold_all(kernel.begin(right, facts=facts, over=over))
    above = _solved(_in_order(above))
    return kernel.trans(match(below, above.rhs), kernel.sym(above))


def _in_order(theorem: Theorem) -> Theorem:
    """Every sum over c, a, e and j as one over j, c, a and e: what is the same then, but for its sign, cancels."""
    for where, m in tactics.positions(theorem.rhs):
        if m.binders == (DEPTH, CELLS, CELLS, CELLS):
            return _in_order(tactics.reorder(theorem, where, (3, 0, 1, 2)))
    return theorem


def _solved(theorem: Theorem) -> Theorem:
    """``[n | a + e - k]`` solved for e < n: what is left cancels the circular convolution."""
    k, a, e = var(2), var(5), var(6)
    for where, m in tactics.positions(theorem.rhs):
        if m.guards == (Divides(SIZE, a + e - k),):
            solved = equal(e, _mod(k - a))
            theorem = kernel.rewrite(theorem, where, Reguard(m.binders, (solved,)))
            where = tactics.locate(theorem, 3, replace(m, guards=(solved,)))
            return tactics.tidy(kernel.rewrite(theorem, where, Contract(3, solved)))
    return theorem


def transformed() -> Expr:
    """``Sum_j R[-j k] Sum_c ^w[j,c] ^x[j,c]``."""
    j, u, c, a = variables(0, 4)
    spectra = []
    for t, first in ((WEIGHT, OUTPUTS), (INPUT, IMAGES)):
        body = term(3, ROOT[j * a], t[u, c, a], over=[CELLS])
        spectra.append(define(f"F{t.name}", [SIZE, first, CHANNELS], body))
    w, x = spectra
    b, o, k, j, c = variables(0, 5)
    return term(3, ROOT[-j * k], w[j, o, c], x[j, b, c], over=[CELLS, DEPTH])


def circular() -> Expr:
    """``Sum_j Sum_{c,a} w[c,a] x[c, (k - a) mod n]``."""
    b, o, k, _, c, a = variables(0, 6)
    return term(3, WEIGHT[o, c, a], INPUT[b, c, _mod(k - a)], over=[CELLS, DEPTH, CELLS])


def remainders() -> Expr:
    """What is left over, a sum for every use of what a root satisfies."""
    b, o, k, j, c, a, e = variables(0, 7)
    pair, over = (WEIGHT[o, c, a], INPUT[b, c, e]), [CELLS, DEPTH, CELLS, CELLS]
    first = term(3, ROOT[-j * k], product()[j * a, j * e], *pair, over=over)
    second = term(3, product()[-j * k, j * (a + e)], *pair, over=over)
    c, a, e = variables(3, 3)
    return first + second + term(3, mean()[a + e - k], WEIGHT[o, c, a], INPUT[b, c, e], over=over[1:])


def _mod(e: Index) -> Index:
    return e - e // SIZE * SIZE
