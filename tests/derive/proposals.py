"""Random applications of every rule: a term in which the rule has something to do, and the rule with its arguments.

Each strategy builds a *host* monomial around what its rule needs (an equation to contract, a box that makes a guard
idle, a read of a defined tensor), puts it somewhere - at the top, under an outer sum, inside a function, a maximum or
a derivative, beside other monomials - and proposes the rule.  About one in four proposals is *spoiled*: an argument is
changed so that the step may be wrong; whether it is, is for the kernel to say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

from hypothesis import strategies as st

from derive import kernel, tactics
from derive.indices import (
    Divides,
    Guard,
    Index,
    Interval,
    NonNegative,
    Zero,
    at_least,
    equal,
    index,
    inside,
    interval,
    symbols,
    var,
)
from derive.kernel import Theorem, Where, begin
from derive.rules import (
    Cancel,
    Case,
    Contract,
    Count,
    Differentiate,
    Drop,
    ExpSum,
    LogFactor,
    RecipFactor,
    RecipScale,
    Reguard,
    Reindex,
    RewriteIndex,
    Rule,
    Sigmoid,
    SigmoidTanh,
    Unfold,
)
from derive.terms import (
    Apply,
    Derivative,
    Expr,
    Factor,
    Maximum,
    Monomial,
    Read,
    Tensor,
    constant,
    define,
    expression,
    tensor,
    term,
)

n, s = symbols("n s")
FACTS = (at_least(n, 1), at_least(s, 1))
X, Z = tensor("X", n), tensor("Z", n)
A = tensor("A", 4)
V = tensor("V", s, (-1, 2))
c = tensor("c")
D = define("D", [n], term(1, X[var(0) + var(1)], A[var(1)], over=[interval(0, 2)]))
E = define("E", [(-1, 2), s], term(2, V[var(1), var(0)], A[var(1) - 1], guards=[at_least(var(0), 0)]))
R = define("R", [n], term(1, Apply("relu", term(1, X[var(0)]) - term(1, A[var(0)]))))
P = define("P", [n], term(1, X[var(0)], c[()]))
Q = define("Q", [(-1, n)], term(1, guards=[Divides(s, var(0) + 1)]) + term(1, D[var(0)], X[n - 1 - var(0)]))
FREE = (X, A, V, c)
DEFINED = (D, E, R, P, Q)


class NoProposal(Exception):
    """The pieces cancelled or melted together: there is nothing to propose."""


@dataclass(frozen=True)
class Proposal:
    """Something to be tried; ``apply`` gives the theorem or raises Refused."""

    text: str
    apply: Callable[[], Theorem]
    ready: Theorem | None = field(default=None, compare=False)


# --- pieces -------------------------------------------------------------------------------------------------------


def choose(draw: st.DrawFn, *options: Any) -> Any:
    """One of these."""
    return options[draw(st.integers(0, len(options) - 1))]


def often(draw: st.DrawFn) -> bool:
    """True three times out of four; what is not, is spoiled."""
    return draw(st.integers(0, 3)) > 0


def some_index(draw: st.DrawFn, scope: int, avoid: tuple[int, ...] = ()) -> Index:
    """An index that is mostly in the boxes above."""
    levels = [v for v in range(scope) if v not in avoid]
    if not levels or draw(st.integers(0, 4)) == 0:
        return choose(draw, index(0), index(1), n - 1, s - 1)
    v = var(choose(draw, *levels))
    return choose(draw, v, v, v + 1, v - 1, n - 1 - v, 2 * v - 1, v // 2, (v + 1) // s)


def some_read(draw: st.DrawFn, scope: int, tensors: tuple[Tensor, ...] = (X, A, V, c, D), avoid: Any = ()) -> Read:
    """A read somewhere."""
    t = choose(draw, *tensors)
    return Read(t, tuple(some_index(draw, scope, avoid) for _ in t.box))


def some_guard(draw: st.DrawFn, scope: int, avoid: tuple[int, ...] = ()) -> Guard:
    """A guard of any kind."""
    e = some_index(draw, scope, avoid)
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return Divides(choose(draw, index(2), s), e)
    return Zero(e - 1) if kind == 1 else choose(draw, at_least(e, 1), at_least(2, e), at_least(n - 1, e))


def some_interval(draw: st.DrawFn, scope: int = 0) -> Interval:
    """A short interval."""
    ends = [interval(0, n), interval(0, n), interval(0, 2), interval(-1, 2), interval(0, s)]
    if scope:
        ends.append(interval(0, var(scope - 1) + 1))
    return choose(draw, *ends)


def some_factor(draw: st.DrawFn, scope: int, avoid: tuple[int, ...] = ()) -> Factor:
    """A read, or a function of one."""
    read = some_read(draw, scope, avoid=avoid)
    name = choose(draw, None, None, "relu", "step", "tanh")
    return read if name is None else Apply(name, term(scope, read) + constant(scope, choose(draw, 0, 1)))


def whole_sum(draw: st.DrawFn, scope: int, count: int) -> Expr:
    """A sum of reads of free tensors with whole coefficients."""
    total = constant(scope, choose(draw, 0, 1))
    for _ in range(count):
        total = total + term(scope, some_read(draw, scope, (X, A, c)), coefficient=choose(draw, 1, -1))
    return total


def host(
    draw: st.DrawFn,
    depth: int,
    factors: tuple[Factor, ...] = (),
    over: tuple[Interval, ...] = (),
    guards: tuple[Guard, ...] = (),
    avoid: tuple[int, ...] = (),
) -> Monomial:
    """A monomial with these parts and perhaps a factor and a guard more; the one that ``expression`` keeps."""
    scope = depth + len(over)
    more = tuple(some_factor(draw, scope, avoid) for _ in range(draw(st.integers(0, 1))))
    extra = (some_guard(draw, scope, avoid),) if draw(st.integers(0, 3)) == 0 else ()
    coefficient = choose(draw, Fraction(1), Fraction(-2), Fraction(1, 2))
    return only(expression(depth, [Monomial(coefficient, over, guards + extra, factors + more)]))


def only(e: Expr) -> Monomial:
    """The one monomial of an expression."""
    if len(e.monomials) != 1:
        raise NoProposal
    return e.monomials[0]


# --- places -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Surroundings:
    """Where a host will stand: its depth, and how to get from the host to the whole expression and its address."""

    over: tuple[Interval, ...]
    depth: int
    wrap: Callable[[Expr], tuple[Expr, Where]]

    def propose(self, m: Monomial, rule: Rule) -> Proposal:
        """The rule at the host's place."""
        whole, prefix, at = self.place(m)
        text = f"{rule!r} at {(*prefix, at)} of {whole.text}"
        return Proposal(text, lambda: kernel.rewrite(self.start(whole), (*prefix, at), rule), self.start(whole))

    def place(self, m: Monomial) -> tuple[Expr, Where, int]:
        """The whole expression, the address of the sum that the host is in, and its number there."""
        whole, prefix = self.wrap(expression(self.depth, [m]))
        inner = whole
        for k in range(0, len(prefix), 2):
            f = inner.monomials[prefix[k]].factors[prefix[k + 1]]
            inner = f.argument if isinstance(f, Apply) else f.body if isinstance(f, Maximum) else f.expr
        keys = [one.body_key for one in inner.monomials]
        if m.body_key not in keys:
            raise NoProposal
        return whole, prefix, keys.index(m.body_key)

    def start(self, whole: Expr) -> Theorem:
        """``whole = whole``."""
        return begin(whole, facts=FACTS, over=self.over)


def surroundings(draw: st.DrawFn, simple: bool = False) -> Surroundings:
    """Somewhere for a host: beside another monomial or in a factor of one."""
    over = choose(draw, (), (interval(0, n),), (interval(-1, 3),))
    kind = "plain" if simple else choose(draw, "plain", "plain", "function", "maximum", "derivative")
    beside = draw(st.booleans())
    if kind == "plain":
        other = term(len(over), some_read(draw, len(over))) if beside else Expr(len(over), ())
        return Surroundings(over, len(over), lambda inner: (inner + other, ()))
    return _inside_a_factor(draw, kind, over, beside)


def _inside_a_factor(draw: st.DrawFn, kind: str, over: tuple[Interval, ...], beside: bool) -> Surroundings:
    binders = (some_interval(draw),) if draw(st.integers(0, 2)) == 0 else ()
    scope = len(over) + len(binders)
    guards = (some_guard(draw, scope),) if draw(st.integers(0, 2)) == 0 else ()
    depth = scope + int(kind == "maximum")
    other = term(depth, some_read(draw, depth)) if beside else Expr(depth, ())
    function = choose(draw, "relu", "tanh", "step")
    target = some_read(draw, scope, (*FREE, D))
    more = (some_read(draw, scope),) if draw(st.booleans()) else ()

    def wrap(inner: Expr) -> tuple[Expr, Where]:
        factor: Factor = Apply(function, inner + other)
        if kind == "maximum":
            factor = Maximum((interval(0, 2),), (), inner + other)
        elif kind == "derivative":
            factor = Derivative(inner + other, target.tensor, target.at)
        outer = only(expression(len(over), [Monomial(Fraction(1), binders, guards, (factor, *more))]))
        return Expr(len(over), (outer,)), (0, outer.factors.index(factor))

    return Surroundings(over, depth, wrap)


# --- one strategy for each rule -----------------------------------------------------------------------------------

PROPOSALS: dict[str, st.SearchStrategy[Proposal]] = {}


def proposes(name: str) -> Callable[[Callable[[st.DrawFn], Proposal]], Callable[[st.DrawFn], Proposal]]:
    """Register a strategy under the name of the rule it is for."""

    def register(function: Callable[[st.DrawFn], Proposal]) -> Callable[[st.DrawFn], Proposal]:
        PROPOSALS[name] = st.composite(function)()
        return function

    return register


def sum_host(draw: st.DrawFn, depth: int) -> tuple[tuple[Interval, ...], int]:
    """Intervals of one or two variables, and the number of one of them that no other depends on."""
    first = some_interval(draw)
    if draw(st.booleans()):
        return (first,), 0
    return (first, some_interval(draw, depth + 1)), 1


@proposes("unfold")
def unfold(draw: st.DrawFn) -> Proposal:
    around = surroundings(draw)
    over = (some_interval(draw),) if draw(st.booleans()) else ()
    read = some_read(draw, around.depth + len(over), DEFINED)
    m = host(draw, around.depth, (read,), over)
    position = m.factors.index(read) if often(draw) else draw(st.integers(0, len(m.factors)))
    return around.propose(m, Unfold(position))


@proposes("reindex")
def reindex(draw: st.DrawFn) -> Proposal:
    around = surroundings(draw)
    d = around.depth
    kind = choose(draw, "shift", "flip", "tile", "stretch", "skew", "swap", "symbolic tile")
    lo, hi = choose(draw, interval(0, n), interval(0, 4), interval(-1, 2), interval(1, n + 2))
    k, u = var(d), var(d + 1)
    over: tuple[Interval, ...] = ((lo, hi),)
    if kind == "shift":
        by = choose(draw, index(1), index(-2), n)
        rule = Reindex(((lo + by, hi + by),), (k - by,), (k + by,))
    elif kind == "flip":
        rule = Reindex(((n - hi, n - lo),), (n - 1 - k,), (n - 1 - k,))
    elif kind == "tile":
        q = choose(draw, 2, 3)
        rule = Reindex(((lo // q, (hi - 1) // q + 1), interval(0, q)), (q * k + u,), (k // q, k - q * (k // q)))
    elif kind == "symbolic tile":
        over = (interval(0, n),)
        rule = Reindex((interval(0, n), interval(0, s)), (s * k + u,), (k // s, k - s * (k // s)))
    elif kind == "stretch":
        rule = Reindex(((2 * lo, 2 * hi - 1),), (k // 2,), (2 * k,), (Divides(index(2), k),))
    elif kind == "skew":
        over = ((lo, hi), interval(0, 2))
        rule = Reindex(((lo, hi), (k, k + 2)), (k, u - k), (k, k + u))
    else:
        over = ((lo, hi), interval(0, 2))
        rule = Reindex((interval(0, 2), (lo, hi)), (u, k), (u, k))
    m = host(draw, d, (some_read(draw, d + len(over)),), over)
    return around.propose(m, rule if often(draw) else spoiled_reindex(draw, rule))


def spoiled_reindex(draw: st.DrawFn, rule: Reindex) -> Reindex:
    """Something in it moved by one."""
    by = choose(draw, 1, -1, n, -n)
    match choose(draw, "forward", "inverse", "low", "high", "guard"):
        case "forward":
            return Reindex(rule.binders, (rule.forward[0] + by, *rule.forward[1:]), rule.inverse, rule.guards)
        case "inverse":
            return Reindex(rule.binders, rule.forward, (rule.inverse[0] + by, *rule.inverse[1:]), rule.guards)
        case "low":
            lo, hi = rule.binders[0]
            return Reindex(((lo + by, hi), *rule.binders[1:]), rule.forward, rule.inverse, rule.guards)
        case "high":
            lo, hi = rule.binders[-1]
            return Reindex((*rule.binders[:-1], (lo, hi + by)), rule.forward, rule.inverse, rule.guards)
    return Reindex(rule.binders, rule.forward, rule.inverse)


@proposes("contract")
def contract(draw: st.DrawFn) -> Proposal:
    around = surroundings(draw)
    over, variable = sum_host(draw, around.depth)
    level = around.depth + variable
    scope = around.depth + len(over)
    offset = some_index(draw, scope, (level,))
    slope = choose(draw, index(1), index(-1), index(2), index(-3), s, -s)
    guard = Zero(slope * var(level) - offset)
    if not often(draw):
        guard = choose(draw, Zero(n * var(level) - s * offset), Zero(var(level) // 2 - offset), at_least(offset, 1))
        variable = choose(draw, variable, 0)
    m = host(draw, around.depth, (some_read(draw, scope),), over, (guard,))
    return around.propose(m, Contract(variable, guard))


@proposes("reguard")
def reguard(draw: st.DrawFn) -> Proposal:
    around = surroundings(draw)
    d = around.depth
    k = var(d)
    kinds: list[tuple[Interval, tuple[Guard, ...], tuple[Factor, ...], Interval, tuple[Guard, ...]]] = [
        (interval(-2, n + 1), (), (X[k],), interval(0, n), ()),
        (interval(0, n), (), (X[k],), interval(-1, n + 2), ()),
        (interval(0, n), (), (D[k],), interval(-1, n + 1), ()),
        (interval(0, n), inside(k + 1, interval(0, n)), (X[k + 1],), interval(0, n), ()),
        (interval(0, n), (), (X[n - 2 - k],), interval(-1, n), (at_least(n - 2, k),)),
        (interval(0, n), (at_least(k, 1),), (A[k],), interval(1, n), ()),
        (interval(-1, 3), (at_least(2 * k, 1),), (), interval(1, 3), ()),
        (interval(0, 4), (equal(k, 2),), (), interval(1, 9), (at_least(k, 2), at_least(2, k))),
        (interval(0, 4), (Divides(index(2), k),), (A[k],), interval(0, 4), (Divides(index(2), k + 2),)),
        (interval(0, n), (at_least(k // 2, 1),), (), interval(2, n), ()),
        (interval(0, s), (), (V[k, 1],), interval(0, s), (at_least(s * s, k),)),
        (interval(0, 2), (equal(k, n),), (X[0],), interval(1, 2), (equal(n, 1),)),
    ]
    interval_before, before, factors, interval_after, after = choose(draw, *kinds)
    m = host(draw, d, factors, (interval_before,), before)
    kept = tuple(g for g in m.guards if g not in before)
    if not often(draw):
        lo, hi = interval_after
        by = choose(draw, 1, -1)
        interval_after = choose(draw, (lo + by, hi), (lo, hi + by), interval_after)
        after = choose(draw, after, (), (*after, some_guard(draw, d + 1)))
        kept = choose(draw, kept, ())
    return around.propose(m, Reguard((interval_after,), after + kept))


@proposes("rewrite index")
def rewrite_index(draw: st.DrawFn) -> Proposal:
    around = surroundings(draw)
    d = around.depth
    k, u = var(d), var(d + 1)
    e = some_index(draw, d)
    kinds: list[tuple[tuple[Interval, ...], tuple[Guard, ...], Index, Index]] = [
        ((interval(0, n),), (equal(k, e),), k, e),
        ((interval(0, n),), (equal(2 * k, e),), 2 * k + 1, e + 1),
        ((interval(0, 2),), (), k // 2, index(0)),
        ((interval(0, n),), (), (2 * k + 1) // 2, k),
        ((interval(0, n), interval(0, s)), (), (s * k + u) // s, k),
        ((interval(0, n), interval(0, s)), (), s * k + u - s * ((s * k + u) // s), u),
        ((interval(0, n),), (Divides(index(2), k),), 2 * (k // 2), k),
        ((interval(0, n),), (at_least(1, k), at_least(k, 1)), k, index(1)),
    ]
    over, guards, old, new = choose(draw, *kinds)
    if draw(st.booleans()) and not new.variables - {d, d + 1}:
        old, new = (new, old) if not any(v >= d + len(over) for v in old.variables) else (old, new)
    t = choose(draw, X, A, D)
    m = host(draw, d, (t[old],), over, guards)
    position = m.factors.index(t[old])
    if not often(draw):
        new = choose(draw, new + 1, some_index(draw, d + len(over)), var(d + len(over)))
        position = draw(st.integers(0, len(m.factors) - 1))
    return around.propose(m, RewriteIndex(position, 0, new))


@proposes("case")
def case(draw: st.DrawFn) -> Proposal:
    around = surroundings(draw)
    over = (some_interval(draw),) if draw(st.booleans()) else ()
    scope = around.depth + len(over)
    m = host(draw, around.depth, (some_read(draw, scope),), over)
    e = some_index(draw, scope) - choose(draw, 0, 1, 2)
    guard: Guard = NonNegative(e)
    if not often(draw):
        guard = choose(draw, Zero(e), Divides(index(2), e), NonNegative(var(scope)), NonNegative(e // (n - 1)))
    return around.propose(m, Case(guard))  # type: ignore[arg-type]


@proposes("drop")
def drop(draw: st.DrawFn) -> Proposal:
    around = surroundings(draw)
    d = around.depth
    k = var(d)
    kinds: list[tuple[Interval, tuple[Guard, ...], tuple[Factor, ...]]] = [
        (interval(0, n), (at_least(k, 2), at_least(1, k)), ()),
        (interval(0, n), (), (X[n + k],)),
        (interval(0, 4), (), (A[-1 - k],)),
        (interval(1, s), (), (D[n * s + k - 1],)),
        (interval(0, n), (Zero(2 * k - 1),), ()),
        (interval(0, n), (Divides(index(2), k), Divides(index(2), k + 1)), ()),
        (interval(3, 2), (), ()),
        (interval(0, n), (at_least(k // 2, k + 1),), (X[k],)),
    ]
    spoiled: list[tuple[Interval, tuple[Guard, ...], tuple[Factor, ...]]] = [
        (interval(0, n), (at_least(k, 1), at_least(1, k)), ()),
        (interval(0, n), (), (X[n + k - 1],)),
        (interval(0, 4), (), (Apply("exp", term(d + 1, A[-1 - k])),)),
        (interval(0, s), (), (D[k],)),
    ]
    binder, guards, factors = choose(draw, *(kinds if often(draw) else spoiled))
    return around.propose(host(draw, d, factors, (binder,), guards), Drop())


@proposes("count")
def count(draw: st.DrawFn) -> Proposal:
    around = surroundings(draw)
    d = around.depth
    legal = often(draw)
    binder = choose(draw, interval(0, 3), interval(-1, 1), interval(2, 2), interval(1, -2))
    first = draw(st.booleans())
    over = (binder, some_interval(draw)) if first else (some_interval(draw), binder)
    own = d if first else d + 1
    avoid = (own,) if legal else ()
    m = host(draw, d, (some_factor(draw, d + 2, avoid),), over, avoid=avoid)
    return around.propose(m, Count(own - d if legal else choose(draw, 0, 1, 2)))


@proposes("differentiate")
def differentiate(draw: st.DrawFn) -> Proposal:
    around = surroundings(draw)
    over = (some_interval(draw),) if draw(st.booleans()) else ()
    scope = around.depth + len(over)
    target = choose(draw, X, A, V, c, D)
    readable = tuple(t for t in (X, A, V, c, D) if t == target or target not in t.reads_of_body or not often(draw))
    binders = (some_interval(draw),) if draw(st.booleans()) else ()
    inner = scope + len(binders)
    read = Read(target, tuple(some_index(draw, inner) for _ in target.box))
    factors: tuple[Factor, ...] = (read, some_read(draw, inner, readable))
    name = choose(draw, None, "relu", "tanh", "exp", "recip", "sigmoid", "log", "step")
    if name is not None:
        factors = (Apply(name, term(inner, read) + term(inner, factors[1])), some_read(draw, inner, readable))
    guards = (some_guard(draw, inner),) if draw(st.booleans()) else ()
    body = term(scope, *factors, over=binders, guards=guards) + term(scope, some_read(draw, scope, readable))
    d = Derivative(body, target, tuple(some_index(draw, scope) for _ in target.box))
    m = host(draw, around.depth, (d,), over)
    return around.propose(m, Differentiate(m.factors.index(d)))


# --- laws ---------------------------------------------------------------------------------------------------------


def law(draw: st.DrawFn, make: Callable[[int], Factor], spoil: bool = True) -> tuple[Surroundings, Monomial, int]:
    """A host with a function in it; no derivative around it, so that values stay small."""
    around = surroundings(draw, simple=draw(st.booleans()))
    over = (some_interval(draw),) if draw(st.booleans()) else ()
    factor = make(around.depth + len(over))
    m = host(draw, around.depth, (factor,), over)
    position = draw(st.integers(0, len(m.factors))) if spoil and not often(draw) else m.factors.index(factor)
    return around, m, position


@proposes("law exp-sum")
def exp_sum(draw: st.DrawFn) -> Proposal:
    around, m, position = law(draw, lambda scope: Apply("exp", whole_sum(draw, scope, 3)))
    chosen = tuple(draw(st.lists(st.integers(0, 2), max_size=3, unique=True)))
    return around.propose(m, ExpSum(position, chosen))


@proposes("law sigmoid")
def sigmoid(draw: st.DrawFn) -> Proposal:
    around, m, position = law(draw, lambda scope: Apply("sigmoid", whole_sum(draw, scope, 2)))
    return around.propose(m, Sigmoid(position))


@proposes("law sigmoid-tanh")
def sigmoid_tanh(draw: st.DrawFn) -> Proposal:
    around, m, position = law(draw, lambda scope: Apply("sigmoid", whole_sum(draw, scope, 2)))
    return around.propose(m, SigmoidTanh(position))


def multiples(draw: st.DrawFn, scope: int, common: Factor) -> Expr:
    """A sum of terms that all have the factor, one of them under a sum of its own."""
    total = term(scope, common, coefficient=choose(draw, 1, 3))
    if draw(st.booleans()):
        total = total + term(scope, common, some_read(draw, scope, (A, c)))
    if draw(st.booleans()):
        (binder,) = (some_interval(draw),)
        inner = term(scope + 1, some_read(draw, scope + 1, (A, X)))
        total = total + expression(scope, [Monomial(Fraction(1), (binder,), (), (shifted(common, scope), *f))
                                           for f in (one.factors for one in inner.monomials)])  # fmt: skip
    return total if often(draw) else total + constant(scope, 1)


def shifted(f: Factor, scope: int) -> Factor:
    """A factor under one more variable."""
    return only(term(scope + 1, f)).factors[0] if isinstance(f, Read) else Apply(f.function, deeper(f.argument))


def deeper(e: Expr) -> Expr:
    """An expression of reads under one more variable."""
    return Expr(e.depth + 1, e.monomials)


@proposes("law recip-factor")
def recip_factor(draw: st.DrawFn) -> Proposal:
    common: list[Factor] = []

    def make(scope: int) -> Factor:
        plain = some_read(draw, scope, (A, c, X))
        common.append(plain if draw(st.booleans()) else Apply("exp", term(scope, plain)))
        return Apply("recip", multiples(draw, scope, common[0]))

    around, m, position = law(draw, make, spoil=False)
    return around.propose(m, RecipFactor(position, common[0]))


@proposes("law recip-scale")
def recip_scale(draw: st.DrawFn) -> Proposal:
    around, m, position = law(draw, lambda scope: Apply("recip", whole_sum(draw, scope, 2)))
    scale = choose(draw, Fraction(2), Fraction(-1), Fraction(2, 3), Fraction(-5, 2), Fraction(0))
    return around.propose(m, RecipScale(position, scale))


@proposes("law log-factor")
def log_factor(draw: st.DrawFn) -> Proposal:
    common: list[Factor] = []

    def make(scope: int) -> Factor:
        common.append(Apply("exp", whole_sum(draw, scope, 1)))
        return Apply("log", multiples(draw, scope, common[0]))

    around, m, position = law(draw, make, spoil=False)
    return around.propose(m, LogFactor(position, common[0]))


@proposes("law cancel")
def cancel(draw: st.DrawFn) -> Proposal:
    around = surroundings(draw, simple=draw(st.booleans()))
    over = (some_interval(draw),) if draw(st.booleans()) else ()
    scope = around.depth + len(over)
    x = some_read(draw, scope, (A, c, X, D))
    factor: Factor = x if draw(st.booleans()) else Apply(choose(draw, "exp", "tanh", "sigmoid"), term(scope, x))
    recip = Apply("recip", term(scope, factor, coefficient=1 if often(draw) else 2))
    m = host(draw, around.depth, (factor, recip), over)
    pair = (m.factors.index(factor), m.factors.index(recip))
    if not often(draw):
        pair = (draw(st.integers(0, len(m.factors))), pair[1])
    return around.propose(m, Cancel(*pair))


# --- rules of the kernel itself -----------------------------------------------------------------------------------


@cache
def equations() -> tuple[Theorem, ...]:
    """Equations whose left side is a product of factors."""
    i = var(0)
    unfolded = []
    for t in (D, E, P, R):
        start = begin(term(t.rank, Read(t, tuple(map(var, range(t.rank))))), facts=FACTS, over=t.box)
        unfolded.append(kernel.rewrite(start, (0,), Unfold(0)))
    folded = kernel.sym(unfolded[2])
    narrow = begin(term(1, D[i]), facts=FACTS, over=[interval(0, 2)])
    exponent = Apply("exp", term(2, X[i]) + term(2, A[var(1)]))
    split = begin(term(2, exponent), facts=FACTS, over=[interval(-1, n + 1), interval(0, 9)])
    square = begin(term(1, X[i], X[i], A[i], coefficient=2), facts=FACTS, over=[interval(-1, n)])
    return (
        *unfolded,
        folded,
        kernel.rewrite(narrow, (0,), Unfold(0)),
        kernel.rewrite(split, (0,), ExpSum(0, (0,))),
        kernel.rewrite(square, (0,), Case(at_least(i, 1))),
    )


@proposes("use")
def use(draw: st.DrawFn) -> Proposal:
    equation = choose(draw, *equations())
    around = surroundings(draw)
    over = (some_interval(draw),) if draw(st.booleans()) else ()
    scope = around.depth + len(over)
    at = tuple(some_index(draw, scope) for _ in equation.binders)
    left = kernel.instantiate(equation.lhs, at, scope)
    m = host(draw, around.depth, only(left).factors, over)
    if not often(draw):
        at = tuple(choose(draw, e, e + 1, var(scope), e // (n - 1)) for e in at)
    whole, prefix, number = around.place(m)
    text = f"use {equation!r} with {at} in {whole.text}"
    start = around.start(whole)
    return Proposal(text, lambda: kernel.use(start, (*prefix, number), equation, at), start)


RULES_FOR_A_THEOREM = ("unfold", "reindex", "contract", "reguard", "differentiate", "case", "law cancel", "drop")


def some_theorem(draw: st.DrawFn) -> Theorem:
    """A theorem that took a step, where the step was allowed."""
    proposal = draw(PROPOSALS[choose(draw, *RULES_FOR_A_THEOREM)])
    try:
        return proposal.apply()
    except ValueError:
        if proposal.ready is None:
            raise NoProposal from None
        return proposal.ready


@proposes("sym")
def sym(draw: st.DrawFn) -> Proposal:
    t = some_theorem(draw)
    return Proposal(f"sym of {t!r}", lambda: kernel.sym(t))


@proposes("trans")
def trans(draw: st.DrawFn) -> Proposal:
    first = some_theorem(draw)
    numbers = range(len(first.rhs.monomials))
    second = begin(first.rhs, facts=first.facts, over=first.binders)
    if numbers and draw(st.booleans()):
        second = kernel.rewrite(second, (choose(draw, *numbers),), Case(at_least(n, 2)))
    if not often(draw):
        other = begin(first.rhs.scaled(2), over=first.binders, facts=first.facts)
        second = choose(draw, other, begin(first.rhs, over=first.binders, facts=(*FACTS, at_least(n, 2))))
    if draw(st.booleans()):
        second, first = kernel.sym(first), kernel.sym(second)
    return Proposal(f"trans of {first!r} and {second!r}", lambda: kernel.trans(first, second))


@proposes("specialise")
def specialise(draw: st.DrawFn) -> Proposal:
    t = some_theorem(draw)
    new_n = choose(draw, n, n + 1, 2 * s, s * s, index(3), n // s + 1)
    new_s = choose(draw, s, s + 1, index(2), n)
    sizes = {"n": new_n, "s": new_s}
    facts = FACTS if often(draw) else choose(draw, FACTS[:1], FACTS[1:], (at_least(n, 0), at_least(s, 0)))
    spoiled = () if often(draw) else ("folded", "longer", "dependent", "dependent", "merged")
    i = var(0)
    own = choose(draw, tensor("Z", new_n), tensor("X", new_n))
    body = choose(draw, term(1, own[i]), term(1, coefficient=2), term(1, A[i + 1]), term(1, own[i], c[()]))
    put = {
        "none": {},
        "renamed": {"X": tensor("Z", new_n)},
        "defined": {"X": define("U", [new_n], body)},
        "number": {"c": define("w", (), term(0, A[1], A[2], coefficient=choose(draw, 1, -3)))},
        "folded": {"D": tensor("D", new_n)},
        "longer": {"X": tensor("Z", new_n + 1)},
        "dependent": {"c": define("w", (), term(0, own[0]) + term(0, A[1]))},
        "merged": {"X": define("U", [new_n], term(1, A[i])), "A": define("W", [4], term(1, own[i]))},
    }[choose(draw, "none", "renamed", "defined", "number", *spoiled)]
    text = f"specialise {t!r} to {sizes}, {put}"
    return Proposal(text, lambda: kernel.specialise(t, facts=facts, sizes=sizes, tensors=put))


@cache
def products() -> tuple[tuple[Theorem, Tensor], ...]:
    """Vector-Jacobian products that are worked out, each with its output."""
    i, j = var(0), var(1)
    outputs: list[tuple[Tensor, tuple[Tensor, ...]]] = [
        (define("Y", [n], term(1, X[i])), (X,)),
        (define("Y", [n], term(1, X[i], X[n - 1 - i])), (X,)),
        (define("Y", [n], term(1, X[i + j], A[j], over=[interval(0, 3)])), (X, A)),
        (define("Y", [n], term(1, X[i * s + j - 1], A[j], over=[interval(0, 2)]) + term(1, c[()])), (X, c)),
        (define("Y", [(-1, n)], term(1, Apply("relu", term(1, X[i + 1]) - term(1, c[()])))), (X, c)),
        (define("Y", (), term(0, X[i], Apply("tanh", term(1, A[i])), over=[interval(0, n)])), (X, A)),
        (define("Y", [n], term(1, D[i], D[i])), (D, X)),
        (define("Y", [n], term(1, A[i // s], X[i])), (A, X)),
    ]
    made = []
    for output, targets in outputs:
        for target in targets:
            start = begin(kernel.vector_jacobian(Tensor("G", output.box), output, target), facts=FACTS, over=target.box)
            names = ["Y", "D"] if target is X else ["Y"]
            made.append((tactics.derivative(start, names), output))
    return (*made, *unfit_products())


def unfit_products() -> tuple[tuple[Theorem, Tensor], ...]:
    """A cotangent that is the variable, and a variable that is defined from the output: both say nothing of a loss."""
    output = define("Y", [n], term(1, Z[var(0)]))
    later = define("L", [n], term(1, output[var(0)]))
    pairs = ((X, X), (tensor("G", n), later))
    starts = [begin(kernel.vector_jacobian(g, output, x), facts=FACTS, over=x.box) for g, x in pairs]
    return tuple((tactics.derivative(start, ()), output) for start in starts)


@proposes("chain")
def chain(draw: st.DrawFn) -> Proposal:
    product, output = choose(draw, *products())
    rank = output.rank
    over = output.box
    read = Read(output, tuple(map(var, range(rank))))
    through = define("T", [n], term(1, Read(output, (var(0),) * rank), Read(A, (var(0),))))
    kinds: list[Expr] = [
        term(0, read, read, over=over),
        term(0, Apply("relu", term(rank, read)), over=over),
        term(0, Read(output, (index(0),) * rank), some_read(draw, 0, (A, c)) if not often(draw) else Z[0]),
        term(0, Apply("tanh", term(0, read, over=over))),
        term(0, through[n - 1], through[0]),
        term(0, Apply("recip", term(rank, read) + constant(rank, 7)), over=over, guards=[Divides(s, n)]),
        term(0, read, over=over, coefficient=Fraction(2, 3)),
    ]
    loss = choose(draw, *kinds) + term(0, Z[n - 1])
    if not often(draw):
        later = define("L", [n], term(1, output[var(0)])) if rank == 1 else D
        loss = loss + term(0, some_read(draw, 0, (X, D, c, later)))
    name = "dY" if often(draw) else choose(draw, "X", "Z", "Y", "g")
    facts = FACTS if often(draw) else choose(draw, FACTS[:1], FACTS)
    text = f"chain of {loss.text} through {product!r}"
    return Proposal(text, lambda: kernel.chain(loss, name, product, facts=facts))
