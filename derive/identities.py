"""Identities that fast algorithms rest on, put to use: a sum in the form of the algorithm becomes the definition.

Toom-Cook for tiles of a convolution with stride 1, for all batches, channels, kernels beside, tiles and offsets p:

    Sum_{c,a} W[n,c,a] X[b,c,m j + i + a - p]
        = Sum_t A[i,t] Sum_c (Sum_a G[t,a] W[n,c,a]) (Sum_e B[t,e] X[b,c,m j + e - p])     for i < m

and the same on two axes, where the three matrices stand once for each.  The proof (``through_identity``) starts from
the sum S0 with ``K[i,a,e]`` in place of the matrices.  To unfold K gives the right side; to use the theorem
``K[i,a,e] = [e == i + a]`` and to solve for e gives the left one.  The tactic finds the matrices by their names in
whatever else is summed, in functions and beside other terms, and so it serves every plan that is opened down to its
inputs: forward, transposed for gradients, with any padding and position of the tile.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from derive import kernel, tactics
from derive.indices import Zero, equal, interval, symbols, var, variables
from derive.kernel import Theorem, Where
from derive.obligations import Refused
from derive.rules import Contract, Reguard, Reindex, Unfold
from derive.terms import Apply, Expr, Factor, Maximum, Monomial, Read, Substitution, define, expression, tensor, term
from derive.toomcook import ToomCook


def through_identity(theorem: Theorem, *identities: ToomCook) -> Theorem:
    """The theorem with ``Sum_t A[i,t] G[t,a] B[t,e]`` on its right side replaced by ``[e == i + a]``, and that solved.

    Every sum over t of such products is found, one for each axis, also inside functions; what else stands in a sum
    stays.  The equation is solved for a bound variable of the index e, else of a, else of i; where none of them is
    bound it stays a guard.  Raises Refused where there is no such product.
    """
    found = 0
    for f in identities:
        while (spot := _find(theorem, f)) is not None:
            theorem = _fold(theorem, f, *spot)
            found += 1
    if not found:
        names = ", ".join(f.label for f in identities)
        raise Refused(f"through_identity: no sum over t of A[i,t] G[t,a] B[t,e] is there for {names}")
    return tactics.tidy(theorem)


# --- finding a product of the three matrices ----------------------------------------------------------------------


def _find(theorem: Theorem, f: ToomCook) -> tuple[Where, int] | None:
    """The address of a monomial, and which of its own variables is the t of A[i,t] G[t,a] B[t,e] and of nothing else."""
    for where, m, depth in tactics.scopes(theorem.rhs):
        for k in range(len(m.binders)):
            if _matrices(m, f, depth + k) is not None:
                return where, k
    return None


def _matrices(m: Monomial, f: ToomCook, level: int) -> tuple[Read, Read, Read] | None:
    """The reads A[i,t], G[t,a] and B[t,e] for the variable t at this level, where it occurs in nothing else."""
    t = var(level)
    speaking = [g for g in m.factors if _speaks_of(g, level)]
    others = [e for bounds in m.binders for e in bounds] + [e for g in m.guards for e in g.indices()]
    if len(speaking) != 3 or any(level in e.variables for e in others):
        return None
    reads = [g for g in speaking if isinstance(g, Read)]
    a = next((g for g in reads if g.tensor == f.A and g.at[1] == t and level not in g.at[0].variables), None)
    g = next((g for g in reads if g.tensor == f.G and g.at[0] == t and level not in g.at[1].variables), None)
    b = next((g for g in reads if g.tensor == f.B and g.at[0] == t and level not in g.at[1].variables), None)
    return None if a is None or g is None or b is None else (a, g, b)


def _speaks_of(f: Factor, level: int) -> bool:
    """Whether the variable at this level occurs in a factor."""
    values = tuple(var(v) + int(v == level) for v in range(level + 1))
    return Substitution(level + 1, values, level + 1).factor(f) != f


# --- one product replaced -----------------------------------------------------------------------------------------


def _fold(theorem: Theorem, f: ToomCook, where: Where, variable: int) -> Theorem:
    """The theorem with one such product gone: from S0, see the head of this file, both ways."""
    at = kernel.place(theorem, where)
    reads = _matrices(at.monomial, f, at.depth + variable)
    if reads is None:
        raise Refused(f"{expression(at.depth, [at.monomial]).text}: not a sum over t of A[i,t] G[t,a] B[t,e]")
    folded = _with_k(at.depth, at.monomial, variable, f, reads)
    start = kernel.begin(_put(theorem.rhs, where, folded), facts=theorem.facts, over=theorem.binders)
    algorithm = _unfolded(start, f, at.depth, at.monomial, variable)
    return kernel.trans(theorem, kernel.trans(kernel.sym(algorithm), _solved(start, f)))


def _with_k(depth: int, m: Monomial, variable: int, f: ToomCook, reads: tuple[Read, Read, Read]) -> Monomial:
    """The monomial with K[i,a,e] for the three reads, and without the variable t."""
    a, g, b = reads
    whole = Read(f.K, (a.at[0], g.at[1], b.at[1]))
    rest = list(m.factors)
    for read in reads:
        rest.remove(read)
    scope, level = depth + len(m.binders), depth + variable
    gone = Substitution(scope, tuple(var(v - int(v > level)) for v in range(scope)), scope - 1)
    binders = m.binders[:variable] + m.binders[variable + 1 :]
    return gone.monomial(replace(m, binders=binders, factors=(*rest, whole)))


def _put(e: Expr, where: Where, new: Monomial) -> Expr:
    """The expression with another monomial at that address."""
    m = e.monomials[where[0]]
    others = e.monomials[: where[0]] + e.monomials[where[0] + 1 :]
    if len(where) > 1:
        f = m.factors[where[1]]
        if isinstance(f, Apply):
            inner: Factor = replace(f, argument=_put(f.argument, where[2:], new))
        elif isinstance(f, Maximum):
            inner = replace(f, body=_put(f.body, where[2:], new))
        else:
            raise Refused(f"{f.text}: a sum inside a derivative is worked out first")
        new = replace(m, factors=m.factors[: where[1]] + (inner,) + m.factors[where[1] + 1 :])
    return expression(e.depth, (*others, new))


def _unfolded(start: Theorem, f: ToomCook, depth: int, wanted: Monomial, variable: int) -> Theorem:
    """S0 with K unfolded, and t brought to the place it has in the monomial that is wanted."""
    where, factor = _read_of_k(start, f)
    opened = kernel.rewrite(start, where, Unfold(factor))
    count = len(wanted.binders)
    # Variable number p of the wanted monomial stands at order[p] while t is the last one.
    order = [count - 1 if p == variable else p - int(p > variable) for p in range(count)]
    values = (*variables(0, depth), *(var(depth + k) for k in order))
    last = Substitution(depth + count, values, depth + count).monomial(wanted)
    binders = tuple(last.binders[order.index(k)] for k in range(count))
    (last,) = expression(depth, [replace(last, binders=binders)]).monomials
    there = _locate(opened, depth, last)
    back = tuple(var(depth + order.index(k)) for k in range(count))
    forth = tuple(var(depth + k) for k in order)
    moved = kernel.rewrite(opened, there, Reindex(wanted.binders, back, forth))
    return kernel.rewrite(moved, _locate(moved, depth, wanted), Reguard(wanted.binders, wanted.guards))


def _solved(start: Theorem, f: ToomCook) -> Theorem:
    """S0 by the identity, and the equation it brings solved for a variable that is bound."""
    where, factor = _read_of_k(start, f)
    at = kernel.place(start, where)
    i, a, e = at.monomial.factors[factor].at
    theorem = kernel.use(start, where, f.theorem(), (i, a, e))
    equation = equal(i + a, e)
    left = at.without(factor)
    (left,) = expression(at.depth, [replace(left, guards=(*left.guards, equation))]).monomials or (None,)
    if left is None or equation not in left.guards:
        return theorem
    bound = range(at.depth, at.scope)
    for chosen in (e, a, i):
        for level in sorted(chosen.variables & set(bound)):
            if _slope(equation, level) in (1, -1):
                there = _locate(theorem, at.depth, left)
                return kernel.rewrite(theorem, there, Contract(level - at.depth, equation))
    return theorem


def _slope(equation: Zero, level: int) -> int | None:
    parts = equation.e.linear_in(level)
    return None if parts is None else parts[0].constant


def _read_of_k(theorem: Theorem, f: ToomCook) -> tuple[Where, int]:
    found = tactics.find(theorem.rhs, lambda g: isinstance(g, Read) and g.tensor == f.K)
    if found is None:
        raise Refused(f"{f.K.name} is not read on the right side")
    return found


def _locate(theorem: Theorem, depth: int, wanted: Monomial) -> Where:
    """The address of the monomial with these variables and factors whose guards are these and the fewest others."""
    best: tuple[int, Where] | None = None
    for where, m, own in tactics.scopes(theorem.rhs):
        same = own == depth and (m.binders, m.factors, m.coefficient) == (wanted.binders, wanted.factors, wanted.coefficient)
        if same and set(m.guards) >= set(wanted.guards):
            more = len(m.guards) - len(wanted.guards)
            best = (more, where) if best is None or more < best[0] else best
    if best is None:
        raise Refused(f"{expression(depth, [wanted]).text} is not on the right side")
    return best[1]


# --- tiled convolution, for all sizes -----------------------------------------------------------------------------


@lru_cache(maxsize=32)
def tiled(f: ToomCook, axes: int = 1) -> Theorem:
    """Toom-Cook on tiles equals convolution with stride 1, on one axis or nested on two, for all sizes.

    The left side is the algorithm and the right side the definition; the free variables are the batch b, the output
    channel n, for each axis the tile j, and for each axis the position i in the tile.  Sizes are N, C, M (output
    channels), T0 and T1 (tiles), n0 and n1 (input), and the padding p0 and p1, all symbols, on which nothing is
    assumed.  Raises ValueError for another number of axes.

    >>> from derive.toomcook import toom_cook
    >>> tiled(toom_cook(2, 3, points=(0, 1, -1))).rhs
    Sum{0<=$4<C,0<=$5<3}*W[$1,$4,$5]*X[$0,$4,2*$2+$3+$5-p0]
    """
    if axes not in (1, 2):
        raise ValueError(f"axes={axes}: the identity is nested on 1 or 2 axes")
    return through_identity(_algorithm(f, axes), f)


def _algorithm(f: ToomCook, axes: int) -> Theorem:
    """The output transformed from products of transformed tiles and kernels, down to the inputs."""
    batch, channels, out = symbols("N C M")
    tiles, sizes, pads = (symbols(" ".join(f"{letter}{k}" for k in range(axes))) for letter in ("T", "n", "p"))
    w = tensor("W", out, channels, *[f.r] * axes)
    x = tensor("X", batch, channels, *sizes)
    t = f.multiplications

    # U[t..,n,c] := Sum_a G[t,a] .. W[n,c,a..], the kernel transformed
    at_t, (n, c), a = variables(0, axes), variables(axes, 2), variables(axes + 2, axes)
    gs = [f.G[at_t[k], a[k]] for k in range(axes)]
    u = define("U", [*[t] * axes, out, channels], term(axes + 2, *gs, w[(n, c, *a)], over=w.box[2:]))

    # V[t..,c,b,j..] := Sum_e B[t,e] .. X[b,c,m j + e - p..], the input transformed tile by tile
    (c, b), j, e = variables(axes, 2), variables(axes + 2, axes), variables(2 * axes + 2, axes)
    bs = [f.B[at_t[k], e[k]] for k in range(axes)]
    read = x[(b, c, *(f.m * j[k] + e[k] - pads[k] for k in range(axes)))]
    v = define("V", [*[t] * axes, channels, batch, *tiles], term(2 * axes + 2, *bs, read, over=[interval(0, t)] * axes))

    # P[t..,n,b,j..] := Sum_c U V, one multiplication of matrices for each t
    (n, b), j, c = variables(axes, 2), variables(axes + 2, axes), var(2 * axes + 2)
    product = term(2 * axes + 2, u[(*at_t, n, c)], v[(*at_t, c, b, *j)], over=[interval(0, channels)])
    p = define("P", [*[t] * axes, out, batch, *tiles], product)

    # Y[b,n,j..,i..] := Sum_t A[i,t] .. P[t..,n,b,j..]
    (b, n), j, i, at_t = variables(0, 2), variables(2, axes), variables(2 + axes, axes), variables(2 + 2 * axes, axes)
    outs = [f.A[i[k], at_t[k]] for k in range(axes)]
    y = term(2 + 2 * axes, *outs, p[(*at_t, n, b, *j)], over=[interval(0, t)] * axes)
    over = [interval(0, s) for s in (batch, out, *tiles, *[f.m] * axes)]
    return tactics.unfold_all(kernel.begin(y, over=over), ["P", "U", "V"])


__all__ = ["through_identity", "tiled"]
