"""Random pieces of the term language, for Hypothesis: indices, guards, expressions, and numbers for what is in them.

Divisors are at least one wherever they stand: a number, the size ``s`` (drawn from 1 upwards), or a square plus one.
Expressions are of every shape, also those about which the kernel can prove nothing.
"""

from fractions import Fraction

from hypothesis import strategies as st

from derive.indices import Divides, Guard, Index, Interval, NonNegative, Zero, index, interval, symbols, var
from derive.terms import Apply, Derivative, Expr, Factor, Maximum, Monomial, Read, define, expression, tensor
from derive.terms import term as one_term

n, m, s = symbols("n m s")
SIZES = st.fixed_dictionaries({"n": st.integers(-4, 6), "m": st.integers(-4, 6), "s": st.integers(1, 4)})


def points(count: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Values of the variables 0, 1, ... ."""
    return st.tuples(*(st.integers(-5, 5) for _ in range(count)))


@st.composite
def indices(draw: st.DrawFn, scope: int, depth: int = 2) -> Index:
    """An index in the scope of so many variables: sums and products, with floor divisions up to the depth."""
    leaves = [n, m, s, *(var(v) for v in range(scope))]
    total = index(draw(st.integers(-3, 3)))
    for _ in range(draw(st.integers(0, 3))):
        piece = draw(st.sampled_from(leaves))
        match draw(st.sampled_from(["leaf", "leaf", "product", "floor"])):
            case "product":
                piece = piece * draw(st.sampled_from(leaves))
            case "floor" if depth:
                piece = draw(indices(scope, depth - 1)) // draw(divisors(scope))
        total = total + piece * draw(st.integers(-3, 3))
    return total


@st.composite
def divisors(draw: st.DrawFn, scope: int) -> Index:
    """An index that is at least one at all sizes of ``SIZES``."""
    squares = [v * v + 1 for v in (n, *(var(v) for v in range(scope)))]
    return draw(st.sampled_from([index(1), index(2), index(3), s, 2 * s, *squares]))


@st.composite
def guards(draw: st.DrawFn, scope: int) -> Guard:
    """A guard of any of the three kinds."""
    e = draw(indices(scope, 1))
    match draw(st.integers(0, 3)):
        case 0:
            return Zero(e)
        case 1:
            return Divides(draw(divisors(scope)), e)
    return NonNegative(e)


# --- expressions --------------------------------------------------------------------------------------------------

A = tensor("A", 3)
B = tensor("B", s, (-1, n))
C = tensor("C")
D = define("D", [(0, m)], one_term(1, A[var(0) - var(1)], B[var(1), var(0)], over=[interval(0, s)]))
TENSORS = (A, B, C, D)
FUNCTIONS = ("recip", "relu", "step", "exp")


@st.composite
def intervals(draw: st.DrawFn, scope: int) -> Interval:
    """A short interval; its ends may depend on sizes and on the variables in scope."""
    low = draw(st.sampled_from([index(0), index(-1), s - 2, *(var(v) for v in range(scope))]))
    return low, low + draw(st.integers(0, 2))


@st.composite
def factors(draw: st.DrawFn, scope: int, nest: int) -> Factor:
    """A factor of any kind, mostly a read."""
    kind = draw(st.sampled_from(["read", "read", "apply", "maximum", "derivative"])) if nest else "read"
    if kind == "apply":
        return Apply(draw(st.sampled_from(FUNCTIONS)), draw(expressions(scope, nest - 1)))
    if kind == "maximum":
        low, high = draw(intervals(scope))
        return Maximum(((low, high + 1),), (), draw(expressions(scope + 1, nest - 1)))
    t = draw(st.sampled_from(TENSORS))
    at = tuple(draw(indices(scope, 1)) for _ in t.box)
    return Read(t, at) if kind == "read" else Derivative(draw(expressions(scope, nest - 1)), t, at)


@st.composite
def monomials(draw: st.DrawFn, depth: int, nest: int) -> Monomial:
    """A monomial with up to two variables of its own, two guards and two factors."""
    binders: tuple[Interval, ...] = ()
    for _ in range(draw(st.integers(0, 2 if nest else 1))):
        binders += (draw(intervals(depth + len(binders))),)
    scope = depth + len(binders)
    inside = draw(st.lists(factors(scope, nest), max_size=2))
    coefficient = draw(st.sampled_from([Fraction(1), Fraction(-2), Fraction(1, 2)]))
    return Monomial(coefficient, binders, tuple(draw(st.lists(guards(scope), max_size=2))), tuple(inside))


@st.composite
def expressions(draw: st.DrawFn, depth: int, nest: int = 2) -> Expr:
    """A sum of up to three monomials in the scope of so many variables."""
    return expression(depth, draw(st.lists(monomials(depth, nest), max_size=2)))


def datum(salt: int):
    """Small entries for free tensors, that depend on name and index."""

    def entry(name: str, at: tuple[int, ...]) -> int:
        return (hash((salt, *at)) + sum(map(ord, name))) % 7 - 2

    return entry
