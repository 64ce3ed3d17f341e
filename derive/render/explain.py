"""One sentence for each step: what the rule says, with the variables and indices it was applied to."""

from __future__ import annotations

from dataclasses import replace

from derive import rules
from derive.indices import Divides, Guard
from derive.render.formula import Notation
from derive.render.names import Namer, Scope, taken_names
from derive.render.places import Spot
from derive.render.record import Move, Record, StepRecord
from derive.terms import Expr, Read

_FIXED = {
    "differentiate": "Product rule and chain rule. The derivative of a read is 1 where its index is the one "
    "we differentiate by and lies in the box, and 0 elsewhere.",
    "drop": "No index satisfies the guards, so the term is empty.",
    "law exp-sum": "The exponential of a sum is the product of the exponentials.",
    "law sigmoid": "The sigmoid of x is 1 / (1 + exp(-x)).",
    "law recip-factor": "The reciprocal of a product is the product of the reciprocals.",
    "law recip-scale": "A number comes out of a reciprocal as its own reciprocal.",
    "law log-factor": "The logarithm of exp(a) x is a + log(x).",
    "law cancel": "A number times its reciprocal is 1.",
    "begin": "Start from the expression itself.",
    "sym": "Read the equation from right to left.",
    "trans": "The two chains of equations end in the same expression; join them.",
}


def explain(step: StepRecord, spot: Spot | None, after: Expr | None, notation: Notation) -> str:
    """The sentence for a step; ``after`` is what the fragment at ``spot`` became."""
    if isinstance(step.by, Move):
        return _explain_move(step.by, notation)
    if step.rule in _FIXED or spot is None:
        return notation.prose(_FIXED.get(step.rule, ""))
    return _explain_rule(step.by, spot, after, notation)


def _explain_rule(by: rules.Rule, spot: Spot, after: Expr | None, n: Notation) -> str:
    if isinstance(by, rules.Unfold):
        folded = n.inline(n.factor(spot.monomial.factors[by.factor], spot.inner))
        return f"{n.prose('Replace')} {folded} {n.prose('by its definition.')}"
    if isinstance(by, rules.Contract):
        return _contract(by, spot, n)
    if isinstance(by, rules.Reindex):
        return _reindex(by, spot, after, n)
    if isinstance(by, rules.Reguard):
        return _reguard(by, spot, n)
    if isinstance(by, rules.RewriteIndex):
        read = spot.monomial.factors[by.factor]
        old = read.at[by.axis] if isinstance(read, Read) else by.new
        left, right = (n.inline(n.index(e, spot.inner)) for e in (old, by.new))
        return f"{left} {n.prose('and')} {right} {n.prose('are equal here.')}"
    if isinstance(by, rules.Case):
        return f"{n.prose('Split the sum: either')} {_condition(by.guard, spot.inner, n)} {n.prose('or not.')}"
    if isinstance(by, rules.Count):
        v = n.inline(n.name(spot.inner[spot.depth + by.variable]))
        return f"{n.prose('The summand does not depend on')} {v}{n.prose(', so its sum is a multiple of it.')}"
    return n.prose((type(by).__doc__ or by.name).strip().splitlines()[0].replace("``", ""))


def _condition(guard: Guard, scope: Scope, n: Notation) -> str:
    return ", ".join(n.inline(c) for c in n.conditions([guard], scope))


def _contract(by: rules.Contract, spot: Spot, n: Notation) -> str:
    level = spot.depth + by.variable
    v = n.inline(n.name(spot.inner[level]))
    equation = _condition(by.guard, spot.inner, n)
    parts = by.guard.indices()[0].linear_in(level)
    assert parts is not None
    a, b = parts
    if a.terms[0][1] < 0:
        a, b = -a, -b
    solution = n.inline(n.operator("=").join((n.name(spot.inner[level]), n.index(-b // a, spot.inner))))
    divides = ""
    if a.constant != 1:
        needed = _condition(Divides(a, -b), spot.inner, n)
        divides = f"{n.prose(', and it is one only where')} {needed}"
    return (
        f"{equation} {n.prose('has at most one solution,')} {solution}{divides}{n.prose('.')} "
        f"{n.prose('The sum over')} {v} {n.prose('is that one term, where it is in range.')}"
    )


def _reindex(by: rules.Reindex, spot: Spot, after: Expr | None, n: Notation) -> str:
    factors = after.monomials[0].factors if after is not None and len(after.monomials) == 1 else ()
    inner = n.namer.extend(spot.scope, by.binders, factors)
    puts = []
    for name, e in zip(spot.inner[spot.depth :], by.forward, strict=True):
        old, new = n.name(name), n.index(e, inner)
        if old != new:
            puts.append(f"{n.inline(old)} {n.prose('becomes')} {n.inline(new)}")
    if not puts:
        return n.prose("The same sum with its variables in another order.")
    return f"{n.prose('The same sum in other variables:')} {', '.join(puts)}{n.prose('.')}"


def _reguard(by: rules.Reguard, spot: Spot, n: Notation) -> str:
    m = spot.monomial
    gone = [g for g in m.guards if g not in by.guards]
    new = [g for g in by.guards if g not in m.guards]
    if by.binders == m.binders and not new:
        listed = ", ".join(n.inline(c) for c in n.conditions(gone, spot.inner))
        reason = n.prose("follows from what remains and from the boxes of the tensors read here.")
        return f"{n.prose('Leave out')} {listed}{n.prose(': it')} {reason}"
    text = "Intervals and guards that admit the same indices, given the boxes of the tensors read here."
    return n.prose(text)


def _explain_move(by: Move, n: Notation) -> str:
    if by.name == "use" and by.lemma is not None:
        return f"{n.prose('Rewrite by the theorem')} {_equation(by.lemma, n)}{n.prose('.')}"
    if by.name == "specialise" and by.lemma is not None:
        puts = [n.inline(n.operator("=").join((n.name(k), n.index(e, ())))) for k, e in by.sizes]
        puts += [f"{n.inline(n.name(t.name))} {n.prose('for')} {n.inline(n.name(k))}" for k, t in by.tensors]
        listed = f"{n.prose(' with')} {', '.join(puts)}" if puts else ""
        return f"{n.prose('An instance of the theorem')} {_equation(by.lemma, n)}{listed}{n.prose('.')}"
    if by.name == "chain" and by.lemma is not None:
        start = n.prose("The chain rule: the loss depends on the target through one tensor only, whose derivative is")
        return f"{start} {_equation(by.lemma, n)}{n.prose('.')}"
    return n.prose(_FIXED.get(by.name, by.name))


def _equation(lemma: Record, n: Notation) -> str:
    """A theorem's equation, its variables named for itself."""
    taken = taken_names([lemma.lhs, lemma.rhs], lemma.facts, lemma.binders)
    own = n.naming(Namer(replace(n.namer.names, free=()), n.namer.taken | taken))
    scope = own.namer.free(lemma.binders, [lemma.lhs, lemma.rhs])
    return own.inline(own.operator("=").join((own.expr(lemma.lhs, scope), own.expr(lemma.rhs, scope))))
