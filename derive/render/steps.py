"""The steps of a record as a reader sees them: where each applies, what it does, and what it had to show.

A kernel's step knows an address and a rule with its arguments.  Here the address becomes the fragment of the formula
that changed, and the rule a sentence that says with which variables and indices it was applied.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from derive.indices import Guard, Interval, constant_truth
from derive.render.explain import explain
from derive.render.formula import Notation
from derive.render.names import Scope
from derive.render.places import Spot, change, inside, locate
from derive.render.record import Record, Shown, StepRecord
from derive.solver import FALSE
from derive.terms import Apply, Derivative, Expr, Maximum, ranges

CONTRADICTION = "the guards contradict each other"


@dataclass(frozen=True)
class ShownObligation:
    """An integer side condition: the goal, what was given besides the facts, and by what it was discharged."""

    goal: str
    given: tuple[str, ...]
    by: str

    @property
    def text(self) -> str:
        """Goal and givens in one line."""
        return f"{self.goal}  (given {', '.join(self.given)})" if self.given else self.goal


@dataclass(frozen=True)
class ShownStep:
    """One step.  ``where`` is the fragment that changed and ``became`` what stands there now.

    Steps that change no fragment have the whole right side for it.  ``pieces`` is ``after`` and ``fragment`` is
    ``where`` in parts between which a line may be broken; ``summary`` has the obligations with the
    same givens together.
    """

    number: int
    rule: str
    explanation: str
    before: str
    after: str
    where: str
    became: str
    obligations: tuple[ShownObligation, ...]
    conditions: tuple[str, ...]
    pieces: tuple[str, ...]
    fragment: tuple[str, ...]
    summary: tuple[ShownObligation, ...]


def show(record: Record, notation: Notation, scope: Scope) -> tuple[ShownStep, ...]:
    """Every step in a notation; ``scope`` names the free variables."""
    return tuple(_show(record, k, notation, scope) for k in range(len(record.steps)))


def _show(record: Record, number: int, notation: Notation, scope: Scope) -> ShownStep:
    step = record.steps[number]
    spot = locate(step.before, step.where, notation, scope) if step.where else None
    before, pieces = (tuple(notation.chunks(e, scope)) for e in (step.before, step.result))
    fragment, became = before, notation.space.join(pieces)
    after: Expr | None = None
    if spot is not None:
        changed, after = change(step.before, step.result, step.where, notation, scope)
        fragment = tuple(notation.fragment(changed.depth, changed.monomial, changed.scope))
        became = notation.expr(after, changed.scope)
    candidates = [] if spot is None else [_Candidate.of(spot)]
    candidates += [c for e in (step.result, step.before) for c in _scopes(e, notation, scope, ())]
    return ShownStep(
        number,
        step.rule,
        explain(step, spot, after, notation),
        notation.space.join(before),
        notation.space.join(pieces),
        notation.space.join(fragment),
        became,
        tuple(_obligation(o, record.facts, candidates, notation) for o in open_questions(step)),
        tuple(_condition(c, spot.inner if spot else scope, notation) for c in step.conditions),
        pieces,
        fragment,
        _summary(step, record.facts, candidates, notation),
    )


# --- side conditions ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Candidate:
    """Names for variables, and the guards that say where those range: a question that has these speaks of them."""

    scope: Scope
    known: frozenset[Guard]

    @staticmethod
    def of(spot: Spot) -> _Candidate:
        return _Candidate(spot.inner, frozenset(ranges(spot.monomial.binders, spot.depth)))


def _scopes(e: Expr, notation: Notation, scope: Scope, known: tuple[Guard, ...]) -> Iterator[_Candidate]:
    for m in e.monomials:
        inner = notation.namer.extend(scope, m.binders, m.factors)
        here = known + ranges(m.binders, e.depth)
        yield _Candidate(inner, frozenset(here))
        for f in m.factors:
            if isinstance(f, (Apply, Maximum, Derivative)):
                argument, below = inside(f, notation, inner)
                more: tuple[Interval, ...] = f.binders if isinstance(f, Maximum) else ()
                yield from _scopes(argument, notation, below, here + ranges(more, len(inner)))


def open_questions(step: StepRecord) -> list[Shown]:
    """The side conditions that say something: not those between numbers."""
    return [o for o in step.obligations if constant_truth(o.question.goal) is not True]


def _name_question(o: Shown, candidates: Sequence[_Candidate], notation: Notation) -> Scope:
    """Names for the variables of a question: those of the place whose intervals it speaks of."""
    guards = (*o.question.hypotheses, o.question.goal)
    count = 1 + max((level for g in guards for e in g.indices() for level in e.variables), default=-1)
    given = set(o.question.hypotheses)
    fitting = [c for c in candidates if len(c.scope) >= count]
    best = max(fitting, key=lambda c: len(c.known & given), default=None)
    return notation.namer.generic(best.scope if best else (), count)


def _obligation(
    o: Shown, facts: Sequence[Guard], candidates: Sequence[_Candidate], notation: Notation
) -> ShownObligation:
    scope = _name_question(o, candidates, notation)
    given = [h for h in o.question.hypotheses if h not in facts]
    goal = CONTRADICTION if o.question.goal == FALSE else notation.conditions([o.question.goal], scope)[0]
    return ShownObligation(goal, tuple(notation.conditions(given, scope)), o.method)


def _summary(
    step: StepRecord, facts: Sequence[Guard], candidates: Sequence[_Candidate], notation: Notation
) -> tuple[ShownObligation, ...]:
    """The goals with the same givens and the same proof together, bounds of one quantity in chains."""
    found: dict[tuple[Scope, tuple[Guard, ...], str], list[Guard]] = {}
    for o in open_questions(step):
        key = _name_question(o, candidates, notation), o.question.hypotheses, o.method
        goals = found.setdefault(key, [])
        if o.question.goal not in goals:
            goals.append(o.question.goal)
    merged = []
    for (scope, hypotheses, method), goals in found.items():
        given = tuple(notation.conditions([h for h in hypotheses if h not in facts], scope))
        plain = [g for g in goals if g != FALSE]
        lines = [*notation.conditions(plain, scope), *([CONTRADICTION] if len(plain) < len(goals) else [])]
        merged += [ShownObligation(goal, given, method) for goal in lines]
    return tuple(merged)


def _condition(text: str, scope: Scope, notation: Notation) -> str:
    """A condition on values with names for its variables; the kernel writes it with positions."""
    levels = [int(k) for k in re.findall(r"\$(\d+)", text)]
    names = notation.namer.generic(scope, 1 + max(levels, default=-1))
    return notation.prose(re.sub(r"\$(\d+)", lambda found: names[int(found[1])], text))
