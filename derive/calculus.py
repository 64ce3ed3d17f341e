"""Derivatives of expressions and the table of laws of scalar functions: the pure part of two kernel rules.

``differentiate`` is the product rule, the chain rule for scalar functions, and ``dT[e]/dT[h] = [e == h]`` *with the
guard that h lies in T's box*: outside it T is zero by definition and cannot vary.  It refuses an expression in which
something that depends on T is still folded, or in which a derivative is nested; both would lose terms silently.

A law is an equation of the reals between scalar functions.  Each one names the condition on values under which it
holds; ``discharged`` recognises the few that always do.  This file is part of what must be trusted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from derive.indices import Guard, Index, equal, inside
from derive.obligations import Refused
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
    expression,
    shift_factors,
    term,
    within,
    zero,
)

KINKED = ("relu", "step")


def scalar_derivative(function: str, x: Expr) -> Expr:
    """The derivative of a scalar function at ``x``, as an expression.

    At a kink (relu at 0) it is the convention of the frameworks, ``step(0) = 0``.  ``step`` is locally constant.
    """
    value = term(x.depth, Apply(function, x))
    match function:
        case "exp":
            return value
        case "log":
            return term(x.depth, Apply("recip", x))
        case "recip":
            return (value * value).scaled(-1)
        case "tanh":
            return constant(x.depth, 1) - value * value
        case "sigmoid":
            return value - value * value
        case "relu":
            return term(x.depth, Apply("step", x))
        case "step":
            return zero(x.depth)
        case _:
            raise Refused(f"function={function!r} has no derivative in the table")


def differentiate(e: Expr, target: Tensor, at: tuple[Index, ...]) -> Expr:
    """``d e / d target[at]`` in the scope of ``e``."""
    total: list[Monomial] = []
    for m in e.monomials:
        scope = e.depth + len(m.binders)
        for k, factor in enumerate(m.factors):
            inner = _factor_derivative(factor, scope, target, at)
            rest = replace(m, factors=m.factors[:k] + m.factors[k + 1 :])
            total.extend(within(e.depth, rest, inner))
    return expression(e.depth, total)


def _factor_derivative(factor: Factor, scope: int, target: Tensor, at: tuple[Index, ...]) -> Expr:
    if isinstance(factor, Read):
        if factor.tensor == target:
            same: list[Guard] = [equal(e, h) for e, h in zip(factor.at, at, strict=True)]
            boxed = [g for h, bounds in zip(at, target.box, strict=True) for g in inside(h, bounds)]
            return term(scope, guards=same + boxed)
        if target in factor.tensor.reads_of_body:
            raise Refused(f"{factor.tensor.name} depends on {target.name} and is still folded: unfold it first")
        return zero(scope)
    if isinstance(factor, Apply):
        inner = differentiate(factor.argument, target, at)
        return scalar_derivative(factor.function, factor.argument) * inner if inner.monomials else zero(scope)
    body = factor.body if isinstance(factor, Maximum) else factor.expr
    if body.depends_on(target):
        kind = "a maximum" if isinstance(factor, Maximum) else "a nested derivative"
        raise Refused(f"{kind} that depends on {target.name} cannot be differentiated by this rule")
    if isinstance(factor, Derivative) and target in factor.tensor.reads_of_body:
        raise Refused(f"a nested derivative with respect to {factor.tensor.name} depends on {target.name}")
    return zero(scope)


def conventions(e: Expr, target: Tensor) -> tuple[str, ...]:
    """What the derivative takes for granted at the kinks of relu and step that depend on the target."""
    found: list[str] = []
    for m in e.monomials:
        for f in m.factors:
            if isinstance(f, Apply) and f.argument.depends_on(target):
                found.extend(conventions(f.argument, target))
                if f.function in KINKED:
                    found.append(f"where {f.argument.text} is 0, {f.function} has the derivative 0 by convention")
    return tuple(dict.fromkeys(found))


# --- laws ---------------------------------------------------------------------------------------------------------


def discharged(x: Expr) -> bool:
    """Whether ``x > 0`` for all real values: one positive multiple of exponentials, sigmoids and their reciprocals."""
    return len(x.monomials) == 1 and not x.monomials[0].binders and positive_terms(x)


def positive_terms(x: Expr) -> bool:
    """Whether x is made of positive terms only: its value is positive as soon as one of its sums is not empty."""
    return all(
        m.coefficient > 0 and not m.guards and all(isinstance(f, Apply) and _positive_function(f) for f in m.factors)
        for m in x.monomials
    )


def _positive_function(f: Apply) -> bool:
    return f.function in ("exp", "sigmoid") or (f.function == "recip" and discharged(f.argument))


def law_exp_sum(factor: Factor, chosen: Sequence[int]) -> Expr:
    """exp(a + b) = exp(a) exp(b); ``chosen`` are the monomials of the argument that make up b."""
    argument = _argument(factor, "exp")
    if any(k not in range(len(argument.monomials)) for k in chosen):
        raise Refused(f"chosen={tuple(chosen)}: the argument has {len(argument.monomials)} monomials")
    b = expression(argument.depth, [argument.monomials[k] for k in chosen])
    a = argument - b
    return term(argument.depth, Apply("exp", a), Apply("exp", b))


def law_sigmoid(factor: Factor) -> Expr:
    """sigmoid(x) = recip(1 + exp(-x))."""
    x = _argument(factor, "sigmoid")
    return term(x.depth, Apply("recip", constant(x.depth, 1) + term(x.depth, Apply("exp", x.scaled(-1)))))


def law_sigmoid_tanh(factor: Factor) -> Expr:
    """sigmoid(x) = 1/2 + 1/2 tanh(x/2)."""
    x = _argument(factor, "sigmoid")
    half = Fraction(1, 2)
    return constant(x.depth, half) + term(x.depth, Apply("tanh", x.scaled(half)), coefficient=half)


def law_recip_factor(factor: Factor, common: Factor) -> Expr:
    """recip(c x) = recip(c) recip(x), for a factor c that every monomial of the argument has, wherever both exist."""
    x = _argument(factor, "recip")
    rest = remove_common(x, common)
    return term(x.depth, Apply("recip", term(x.depth, common)), Apply("recip", rest))


def law_recip_scale(factor: Factor, scale: Fraction) -> Expr:
    """recip(q x) = recip(x) / q for a rational number q that is not zero."""
    x = _argument(factor, "recip")
    if scale == 0:
        raise Refused("scale=0: a reciprocal cannot be divided by zero")
    return term(x.depth, Apply("recip", x.scaled(1 / scale)), coefficient=1 / scale)


def law_log_factor(factor: Factor, common: Factor) -> Expr:
    """log(exp(a) x) = a + log(x), for an exponential that every monomial of the argument has, where x > 0."""
    x = _argument(factor, "log")
    if not (isinstance(common, Apply) and common.function == "exp"):
        raise Refused(f"{common.text}: the common factor has to be an exponential")
    return common.argument + term(x.depth, Apply("log", remove_common(x, common)))


def remove_common(x: Expr, common: Factor) -> Expr:
    """``x / common`` for a factor in the scope of ``x`` that every monomial has."""
    if not x.monomials:
        raise Refused("the argument is 0: nothing can be taken out of it")
    monomials = []
    for m in x.monomials:
        (shifted,) = shift_factors([common], x.depth, x.depth + len(m.binders))
        if shifted not in m.factors:
            raise Refused(f"{common.text} is not a factor of every term of {x.text}")
        k = m.factors.index(shifted)
        monomials.append(replace(m, factors=m.factors[:k] + m.factors[k + 1 :]))
    return expression(x.depth, monomials)


def _argument(factor: Factor, function: str) -> Expr:
    if not (isinstance(factor, Apply) and factor.function == function):
        raise Refused(f"{factor.text} is no {function} of something")
    return factor.argument


def reciprocal_pair(first: Factor, second: Factor) -> Expr:
    """The x of a pair ``x``, ``recip(x)``: their product is 1 where x is not zero."""
    x = _argument(second, "recip")
    if x != term(x.depth, first):
        raise Refused(f"{second.text} is not the reciprocal of {first.text}")
    return x
