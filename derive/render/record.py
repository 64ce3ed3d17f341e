"""What a theorem and a file of one have in common: the statement, the steps, and what each step had to show.

A ``Record`` can be displayed and saved.  It proves nothing: anybody can write one, and only ``derive.kernel`` makes
theorems.  ``Record.of`` takes one down from a theorem.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import cast
from weakref import WeakKeyDictionary

from derive.indices import Guard, Index, Interval
from derive.kernel import Step, Theorem
from derive.rules import Rule
from derive.solver import Question
from derive.terms import Expr, Tensor


@dataclass(frozen=True)
class Move:
    """A step of the kernel itself, such as ``begin`` or ``use``, with what it was given.

    ``lemma`` is the theorem it rests on.  A step that starts a chain of equations (``begin``, ``specialise``,
    ``chain``) tells the chain's left side, since nothing else may.
    """

    name: str
    lemma: Record | None = None
    at: tuple[Index, ...] = ()
    sizes: tuple[tuple[str, Index], ...] = ()
    tensors: tuple[tuple[str, Tensor], ...] = ()
    lhs: Expr | None = None


@dataclass(frozen=True)
class Shown:
    """A side condition and by what it was discharged."""

    question: Question
    method: str


@dataclass(frozen=True)
class StepRecord:
    """One step: the rule with its arguments, where, what it had to show, and the right side before and after."""

    by: Rule | Move
    where: tuple[int, ...]
    obligations: tuple[Shown, ...]
    conditions: tuple[str, ...]
    before: Expr
    result: Expr

    @property
    def rule(self) -> str:
        """The name of the rule."""
        return self.by.name


@dataclass(frozen=True)
class Record:
    """A statement and its steps; see the head of this file."""

    facts: tuple[Guard, ...]
    binders: tuple[Interval, ...]
    lhs: Expr
    rhs: Expr
    theory: str
    conditions: tuple[str, ...]
    steps: tuple[StepRecord, ...]

    @staticmethod
    def of(theorem: Theorem) -> Record:
        """What a theorem says and how it was proved."""
        if theorem not in _TAKEN:
            _TAKEN[theorem] = Record._of(theorem)
        return _TAKEN[theorem]

    @staticmethod
    def _of(theorem: Theorem) -> Record:
        steps = [_step(step) for step in theorem.steps]
        lefts = left_sides([(s.rule, s.result) for s in theorem.steps], theorem.lhs)
        befores = right_sides_before([(s.rule, s.result) for s in theorem.steps])
        filled = tuple(
            replace(s, before=before, by=replace(s.by, lhs=lefts[k]) if isinstance(s.by, Move) else s.by)
            for k, (s, before) in enumerate(zip(steps, befores, strict=True))
        )
        return Record(
            theorem.facts, theorem.binders, theorem.lhs, theorem.rhs, theorem.theory, theorem.conditions, filled
        )

    def expressions(self) -> Iterator[Expr]:
        """Every expression of the statement and the steps, lemmas not included."""
        yield from (self.lhs, self.rhs)
        for step in self.steps:
            yield step.result
            if isinstance(step.by, Move) and step.by.lhs is not None:
                yield step.by.lhs

    def lemmas(self) -> Iterator[Record]:
        """The theorems that steps rest on, theirs first, each once."""
        seen: set[int] = set()
        for step in self.steps:
            if isinstance(step.by, Move) and step.by.lemma is not None:
                for lemma in (*step.by.lemma.lemmas(), step.by.lemma):
                    if id(lemma) not in seen:
                        seen.add(id(lemma))
                        yield lemma

    def tensors(self) -> Iterator[Tensor]:
        """Tensors that steps were given."""
        for step in self.steps:
            if isinstance(step.by, Move):
                yield from (t for _, t in step.by.tensors)


_TAKEN: WeakKeyDictionary[Theorem, Record] = WeakKeyDictionary()


def _step(step: Step) -> StepRecord:
    by = _move(step.by) if isinstance(step.by, tuple) else step.by
    shown = tuple(Shown(o.question, o.answer.method) for o in step.obligations)
    return StepRecord(by, step.where, shown, step.conditions, step.result, step.result)


def _move(by: tuple[object, ...]) -> Move:
    name = str(by[0])
    if name in ("begin", "sym", "trans"):  # the second chain of trans is among the steps already
        return Move(name)
    lemma = Record.of(cast(Theorem, by[1]))
    if name == "use":
        return Move(name, lemma, at=cast(tuple[Index, ...], by[2]))
    if name == "specialise":
        sizes = cast(tuple[tuple[str, Index], ...], by[2])
        return Move(name, lemma, sizes=sizes, tensors=cast(tuple[tuple[str, Tensor], ...], by[3]))
    return Move(name, lemma)


STARTS = ("begin", "specialise", "chain")


def right_sides_before(steps: list[tuple[str, Expr]]) -> list[Expr]:
    """The right side before each step; a step that starts a chain has its own.

    The steps of two chains that ``trans`` joins stand one after the other, so the chains form a stack.
    """
    stack: list[Expr] = []
    found: list[Expr] = []
    for rule, result in steps:
        if rule in STARTS:
            stack.append(result)
        elif rule == "trans":
            stack.pop()
        found.append(stack[-1])
        stack[-1] = result
    return found


def left_sides(steps: list[tuple[str, Expr]], lhs: Expr) -> dict[int, Expr | None]:
    """The left side of each chain, by the number of the step that starts it; None for the other steps.

    A chain that is turned around by ``sym`` shows its left side; one that ``trans`` appends starts where the
    other ends; the first one has the theorem's.
    """
    known: dict[int, Expr | None] = dict.fromkeys(range(len(steps)))
    stack: list[tuple[int, Expr | None, Expr]] = []
    for k, (rule, result) in enumerate(steps):
        if rule in STARTS:
            stack.append((k, result if rule == "begin" else None, result))
            continue
        start, left, right = stack.pop()
        if rule == "sym":
            known[start] = known[start] or result
            left = right
        elif rule == "trans":
            known[start] = known[start] or (left if left is not None else stack[-1][2])
            start, left, _ = stack.pop()
        stack.append((start, left, result))
    start, left, _ = stack[0]
    known[start] = known[start] or lhs
    for k, (rule, result) in enumerate(steps):
        if rule == "begin":
            known[k] = result
    return known
