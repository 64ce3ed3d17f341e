"""The convolution theorem of the discrete Fourier transform, exactly: over the field of the n-th roots of unity.

A primitive n-th root zeta lives in the field of numbers ``x_0 + x_1 zeta + ... + x_(f-1) zeta^(f-1)`` with rational
x_u, where f is the degree of the n-th cyclotomic polynomial.  A number of that field is its f rational coordinates,
``Zeta[k,u]`` are those of zeta^k and ``Mul[u,v,z]`` those of zeta^u zeta^v; for n = 4 they are real and imaginary part.
With ^ for the transform, ``^w[j] = Sum_a zeta^(j a) w[a]``, the theorem says for all batches and channels

    1/n Sum_j zeta^(-j k) Sum_c ^w[j,c] ^x[j,c]  =  Sum_{c,a} w[c,a] x[c, (k - a) mod n]      for k < n

in all coordinates: the first is the right side, the others are 0.  What it rests on are two identities of the root, at
this n by computation and then for all: zeta^k zeta^l = zeta^((k+l) mod n) (``powers_multiply``), and that
1/n Sum_j zeta^(j c) is 1 where n divides c and 0 elsewhere (``orthogonality``).  A fast Fourier transform computes the
same numbers in another order, in floating point with roots that are rounded: that is not claimed here.

Of every n at once ``derive.roots`` has the theorem with what a root has to satisfy left over as remainders.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

from derive import kernel, tactics
from derive.cells import reguard, split
from derive.indices import Divides, Index, Zero, equal, index, interval, symbols, var, variables
from derive.kernel import Theorem, Where
from derive.matching import match
from derive.obligations import Refused
from derive.rules import Contract, Drop, Reguard, RewriteIndex, Rule, Unfold
from derive.terms import Expr, Monomial, Read, Tensor, define, expression, instantiate, tensor, term

MOST = 8


def cyclotomic(n: int) -> tuple[int, ...]:
    """The coefficients of the n-th cyclotomic polynomial, lowest first.

    >>> cyclotomic(4), cyclotomic(6)
    ((1, 0, 1), (1, -1, 1))
    """
    rest = [-1] + [0] * (n - 1) + [1]
    for d in range(1, n):
        if n % d == 0:
            rest = _divided(rest, cyclotomic(d))
    return tuple(rest)


def _divided(a: list[int], b: tuple[int, ...]) -> list[int]:
    """The quotient of two polynomials, the second one monic."""
    a, quotient = list(a), [0] * (len(a) - len(b) + 1)
    for k in reversed(range(len(quotient))):
        quotient[k] = a[k + len(b) - 1]
        for j, c in enumerate(b):
            a[k + j] -= quotient[k] * c
    return quotient


@lru_cache(maxsize=16)
def _powers(n: int) -> tuple[tuple[int, ...], ...]:
    """The coordinates of 1, zeta, .., zeta^(n-1)."""
    *low, _ = cyclotomic(n)
    rows = [tuple(int(u == 0) for u in range(len(low)))]
    while len(rows) < n:
        last = rows[-1]
        shifted = (0, *last[:-1])
        rows.append(tuple(s - last[-1] * c for s, c in zip(shifted, low, strict=True)))
    return tuple(rows)


def zeta(n: int) -> Tensor:
    """``Zeta[k,u]``, the coordinates of the powers of a primitive n-th root of unity, as a defined tensor."""
    rows = _powers(n)
    entries = [
        Monomial(Fraction(x), (), (equal(var(0), k), equal(var(1), u)), ())
        for k, row in enumerate(rows)
        for u, x in enumerate(row)
    ]
    return tensor(f"Zeta_{n}", n, len(rows[0]), body=expression(2, entries))


def table(n: int) -> Tensor:
    """``Mul[u,v,z]``, the multiplication of the field: ``zeta^u zeta^v = Sum_z Mul[u,v,z] zeta^z``."""
    rows = _powers(n)
    f = len(rows[0])
    entries = [
        Monomial(Fraction(x), (), tuple(equal(var(k), v) for k, v in enumerate((a, b, z))), ())
        for a in range(f)
        for b in range(f)
        for z, x in enumerate(rows[(a + b) % n])
    ]
    return tensor(f"Mul_{n}", f, f, f, body=expression(3, entries))


def product(n: int) -> Tensor:
    """``Prod[k,l,z] := Sum_{u,v} Mul[u,v,z] Zeta[k,u] Zeta[l,v]``, the coordinates of zeta^k zeta^l."""
    z_, m = zeta(n), table(n)
    k, l, z, u, v = variables(0, 5)  # noqa: E741
    body = term(3, m[u, v, z], z_[k, u], z_[l, v], over=[m.box[0], m.box[1]])
    return define(f"Prod_{n}", [n, n, m.box[2]], body)


def mean(n: int) -> Tensor:
    """``Mean[c,z] := 1/n Sum_j Zeta[j c mod n, z]`` for the c that are a sum of two indices less a third."""
    z_ = zeta(n)
    c, z, j = variables(0, 3)
    body = term(2, z_[_mod(j * c, n), z], over=[interval(0, n)], coefficient=Fraction(1, n))
    return define(f"Mean_{n}", [interval(1 - n, 2 * n - 1), z_.box[1]], body)


def _mod(e: Index, n: int) -> Index:
    return e - n * (e // n)


# --- the two identities -------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def powers_multiply(n: int) -> Theorem:
    """``zeta^k zeta^l = zeta^((k+l) mod n)`` in coordinates.  Raises ValueError for n below 1 or above 8.

    >>> powers_multiply(4).lhs, powers_multiply(3).theory
    (Prod_4[$0,$1,$2], 'commutative ring')
    """
    _check(n)
    prod, k, l, z = product(n), *variables(0, 3)  # noqa: E741
    below = kernel.begin(term(3, prod[k, l, z]), over=prod.box)
    below = tactics.contract_simple(tactics.unfold_all(below, [prod.name, zeta(n).name]))
    below = tactics.unfold_all(below, [table(n).name])
    above = kernel.begin(term(3, zeta(n)[_mod(k + l, n), z]), over=prod.box)
    above, rows = split(above, above.rhs.monomials[0], 0, range(n))
    for row in rows:
        above, _ = split(above, row, 1, range(n))
        above = _at_numbers(above, n)
    return kernel.trans(below, kernel.sym(above))


@lru_cache(maxsize=16)
def orthogonality(n: int) -> Theorem:
    """``1/n Sum_j zeta^(j c)`` is 1 where n divides c, and 0 elsewhere.  Raises ValueError for n below 1 or above 8.

    >>> orthogonality(4)
    |- Mean_4[$0,$1] = [$1==0][4 | $0]
    """
    _check(n)
    m, c, z = mean(n), *variables(0, 2)
    numbers = range(1 - n, 2 * n - 1)
    below = tactics.unfold_all(kernel.begin(term(2, m[c, z]), over=m.box), [m.name])
    below, rows = split(below, below.rhs.monomials[0], 0, numbers)
    for row in rows:
        below, cells = split(below, row, 2, range(n))
        for cell, j in zip(cells, reversed(range(n)), strict=True):
            where = tactics.locate(below, 2, cell)
            below = kernel.rewrite(below, where, Contract(0, equal(var(2), j)))
        below = _at_numbers(below, n)
    above = kernel.begin(term(2, guards=[Divides(index(n), c), equal(z, 0)]), over=m.box)
    above, rows = split(above, above.rhs.monomials[0], 0, numbers)
    for row, c0 in zip(rows, reversed(numbers), strict=True):
        if c0 % n == 0:
            above = reguard(above, row, (equal(c, c0), equal(z, 0)))
        else:
            above = kernel.rewrite(above, tactics.locate(above, 2, row), Drop())
    return kernel.trans(below, kernel.sym(above))


def _at_numbers(theorem: Theorem, n: int) -> Theorem:
    """Every ``Zeta[e, z]`` as numbers, where guards ``variable == number`` say what e is."""
    while (step := _next_number(theorem, zeta(n))) is not None:
        theorem = kernel.rewrite(theorem, *step)
    return theorem


def _next_number(theorem: Theorem, powers: Tensor) -> tuple[Where, Rule] | None:
    """Unfold a read at a number, or put the number for an index."""
    for where, m, depth in tactics.scopes(theorem.rhs):
        fixed = _numbers(m)
        for k, f in enumerate(m.factors):
            if not isinstance(f, Read) or f.tensor != powers or not f.at[0].variables <= set(fixed):
                continue
            values = tuple(fixed.get(level, 0) for level in range(depth + len(m.binders)))
            number = index(f.at[0].evaluate({}, values))
            return where, Unfold(k) if f.at[0] == number else RewriteIndex(k, 0, number)
    return None


def _numbers(m: Monomial) -> dict[int, int]:
    """What variables are by guards ``variable == number``."""
    found = {}
    for g in m.guards:
        if isinstance(g, Zero) and len(g.e.variables) == 1:
            (level,) = g.e.variables
            found[level] = -g.e.evaluate({}, (0,) * (level + 1))
    return found


# --- the convolution theorem --------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def convolution_theorem(n: int) -> Theorem:
    """Transform, multiply, transform back: circular convolution of length n, for all batches and channels.

    The free variables are the batch b, the output channel o, the position k < n and the coordinate y.  Raises
    ValueError for n below 1 or above 8.

    >>> convolution_theorem(3).rhs
    Sum{0<=$4<C,0<=$5<3}[$3==0]*W[$1,$4,$5]*X[$0,$4,$2-$5-3*(($2-$5)//(3))]
    """
    _check(n)
    theorem = _transformed(n)
    b, o, k, y = variables(0, 4)
    w, x, z_, m = _weight(n), _input(n), zeta(n), table(n)
    channels, f = interval(0, symbols("C")[0]), m.box[0]

    # ^w ^x as a sum over Prod[ja, je], which is zeta^(j (a + e)).
    j, s, z, c, a, e = variables(4, 6)
    over = [interval(0, n), f, f, channels, interval(0, n), interval(0, n)]
    rest = (w[o, c, a], x[b, c, e])
    whole = product(n)[_mod(j * a, n), _mod(j * e, n), z]
    start = term(4, z_[_mod(-1 * j * k, n), s], m[s, z, y], whole, *rest, over=over, coefficient=Fraction(1, n))
    theorem = _through(theorem, start, powers_multiply(n), _mod(j * (a + e), n))

    # zeta^(-j k) zeta^(j (a + e)) as Prod again.
    j, c, a, e = variables(4, 4)
    over = [interval(0, n), channels, interval(0, n), interval(0, n)]
    rest = (w[o, c, a], x[b, c, e])
    whole = product(n)[_mod(-1 * j * k, n), _mod(j * (a + e), n), y]
    start = term(4, whole, *rest, over=over, coefficient=Fraction(1, n))
    theorem = _through(theorem, start, powers_multiply(n), _mod(j * (a + e - k), n))

    # The sum over j is a mean of powers.
    c, a, e = variables(4, 3)
    start = term(4, mean(n)[a + e - k, y], w[o, c, a], x[b, c, e], over=over[1:])
    theorem = _through(theorem, start, orthogonality(n), None)
    return _circular(theorem, n)


def _weight(n: int) -> Tensor:
    out, channels = symbols("M C")
    return tensor("W", out, channels, n)


def _input(n: int) -> Tensor:
    batch, channels = symbols("N C")
    return tensor("X", batch, channels, n)


def _transformed(n: int) -> Theorem:
    """The left side of the convolution theorem, its stages unfolded."""
    w, x, z_, m = _weight(n), _input(n), zeta(n), table(n)
    (out, channels), batch, f = symbols("M C"), symbols("N")[0], m.box[0]
    j, u, b, c, e = variables(0, 5)
    cells = [interval(0, n)]
    wh = define("FW", [n, f, out, channels], term(4, z_[_mod(j * e, n), u], w[b, c, e], over=cells))
    xh = define("FX", [n, f, batch, channels], term(4, z_[_mod(j * e, n), u], x[b, c, e], over=cells))
    j, z, o, b, c, u, v = variables(0, 7)
    p = term(4, m[u, v, z], wh[j, u, o, c], xh[j, v, b, c], over=[interval(0, channels), f, f])
    ph = define("FP", [n, f, out, batch], p)
    b, o, k, y, j, s, z = variables(0, 7)
    back = z_[_mod(-1 * j * k, n), s]
    total = term(4, back, m[s, z, y], ph[j, z, o, b], over=[interval(0, n), f, f], coefficient=Fraction(1, n))
    over = [interval(0, batch), interval(0, out), interval(0, n), f]
    return tactics.unfold_all(kernel.begin(total, over=over), ["FP", "FW", "FX"])


def _through(theorem: Theorem, start: Expr, lemma: Theorem, at: Index | None) -> Theorem:
    """The theorem with ``start``, which unfolds to its right side, and that by the lemma; with the index ``at``."""
    (whole,) = lemma.lhs.tensors
    opened = tactics.unfold_all(kernel.begin(start, over=theorem.binders), [whole.name])
    theorem = kernel.trans(theorem, kernel.sym(match(opened, theorem.rhs)))
    where, factor = tactics.find(theorem.rhs, lambda f: isinstance(f, Read) and f.tensor == whole) or ((), 0)
    read = kernel.place(theorem, where).factor(factor)
    if not isinstance(read, Read):
        raise Refused(f"{read.text} is no read of {whole.name}")
    theorem = kernel.use(theorem, where, lemma, read.at)
    if at is not None:
        nested = instantiate(lemma.rhs, read.at, theorem.rhs.depth).monomials[0].factors[0]
        where, factor = tactics.find(theorem.rhs, lambda f: f == nested) or ((), 0)
        theorem = kernel.rewrite(theorem, where, RewriteIndex(factor, 0, at))
    return theorem


def _circular(theorem: Theorem, n: int) -> Theorem:
    """``[n | a + e - k]`` solved for e < n."""
    k, y, a, e = var(2), var(3), var(5), var(6)
    (m,) = theorem.rhs.monomials
    solved = equal(e, _mod(k - a, n))
    theorem = kernel.rewrite(theorem, (0,), Reguard(m.binders, (equal(y, 0), solved)))
    return tactics.tidy(kernel.rewrite(theorem, (0,), Contract(2, solved)))


def _check(n: int) -> None:
    if type(n) is not int or not 1 <= n <= MOST:
        near = min(max(n, 1), MOST) if type(n) is int else 1
        raise ValueError(
            f"n={n!r}: the theorem is proved at one n at a time, for 1 <= n <= {MOST}; the nearest is {near}"
        )


__all__ = ["convolution_theorem", "cyclotomic", "mean", "orthogonality", "powers_multiply", "product", "table", "zeta"]
