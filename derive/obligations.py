"""What a rule still owes: integer side conditions for the solver, and conditions on values for the reader.

A rule states what it needs to a ``Ledger``; the ledger asks ``derive.solver`` and keeps each question with its answer,
so that a derivation can show who discharged what.  The first condition that is not *proved* refuses the rule.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from derive.indices import Guard
from derive.solver import Answer, Question, ask, ask_near, question


class Refused(ValueError):
    """A rule was asked for something it does not allow; the message says what and why."""


@dataclass(frozen=True)
class Obligation:
    """An integer side condition and how it was discharged."""

    question: Question
    answer: Answer


@dataclass
class Ledger:
    """Collects the obligations and conditions of one application of a rule."""

    obligations: list[Obligation] = field(default_factory=list)
    conditions: list[str] = field(default_factory=list)

    def holds(self, hypotheses: Sequence[Guard], goal: Guard) -> bool:
        """Whether the goal is proved without a long search; recorded only when it is."""
        q = question(hypotheses, goal)
        return self._record(q, ask_near(q))

    def require(self, hypotheses: Sequence[Guard], goals: Iterable[Guard], why: str) -> None:
        """Prove every goal or refuse with the goal, and the numbers that make it false where there are some."""
        for goal in goals:
            q = question(hypotheses, goal)
            answer = ask(q)
            if not self._record(q, answer):
                model = ", ".join(f"{name}={value}" for name, value in answer.model)
                found = f"false at {model}" if answer.status == "refuted" else answer.method
                raise Refused(f"{why}: {goal.text} is not proved ({found})")

    def _record(self, q: Question, answer: Answer) -> bool:
        if answer.status == "proved":
            self.obligations.append(Obligation(q, answer))
        return answer.status == "proved"
