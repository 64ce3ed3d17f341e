"""A derivation laid out for reading, in any notation: statement, definitions, chapters of steps, scope and trust.

The layouts (``text_layout``, ``latex_layout``, ``html_layout``) only arrange what a ``View`` holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from derive.render.formula import Notation
from derive.render.names import Namer, Names, Scope, taken_names
from derive.render.record import Record
from derive.render.steps import ShownStep
from derive.terms import Expr, Tensor
from derive.trusted import KERNEL, LAYERS

_THEORIES = {
    "commutative ring": "values in any commutative ring",
    "field": "values in any field in which the numbers divided by are not 0",
    "ordered field": "values in any ordered field",
    "reals with elementary functions": "real values, with exp, log and their like as functions of the reals",
}
RECORD_ONLY = (
    "This is a record read from a file: it shows what a derivation did, and nothing in it was proved or checked here."
)


@dataclass(frozen=True)
class Definition:
    """A tensor: what it reads like, its body in pieces (none for a given tensor), and its box."""

    head: str
    body: tuple[str, ...]
    box: tuple[str, ...]


@dataclass(frozen=True)
class Chapter:
    """Steps that belong together, with the author's words; remarks are by number of step."""

    title: str
    prose: str
    steps: tuple[ShownStep, ...]
    remarks: dict[int, str]


@dataclass(frozen=True)
class View:
    """Everything a layout needs, formulas in its notation and prose as written."""

    title: str
    introduction: str
    source: str
    convention: str
    facts: tuple[str, ...]
    ranges: tuple[str, ...]
    lhs: tuple[str, ...]
    rhs: tuple[str, ...]
    definitions: tuple[Definition, ...]
    chapters: tuple[Chapter, ...]
    scope: str
    conditions: tuple[str, ...]
    trusted: tuple[str, ...]
    digest: str


def namer(record: Record, names: Names) -> Namer:
    """Names for a whole record: none hides a size symbol or a tensor of any step."""
    sides = list(record.expressions())
    questions = [o.question for step in record.steps for o in step.obligations]
    guards = [g for q in questions for g in (*q.hypotheses, q.goal)]
    return Namer(names, taken_names(sides, [*record.facts, *guards], record.binders))


def free_scope(record: Record, notation: Notation) -> Scope:
    """Names for the free variables of the record's statement."""
    return notation.namer.free(record.binders, [record.lhs, record.rhs])


def definitions(record: Record, notation: Notation) -> Iterator[Definition]:
    """Every tensor of the record: the defined ones first, each before those it is made from."""
    ordered = sorted(_reachable([record.lhs, record.rhs, *record.expressions()]), key=lambda t: t.body is None)
    for t in ordered:
        scope = notation.namer.axes(t)
        head = notation.read(notation.name(t.name), [notation.name(v) for v in scope])
        body = () if t.body is None else tuple(notation.chunks(t.body, scope))
        yield Definition(head, body, tuple(notation.intervals(t.box, scope, 0)))


def _reachable(sides: Sequence[Expr]) -> list[Tensor]:
    """The tensors in the order in which a reader meets them."""
    found: dict[Tensor, None] = {}
    waiting = list(sides)
    while waiting:
        fresh = sorted(waiting.pop(0).tensors - set(found), key=lambda t: (t.body is None, t.name))
        found.update(dict.fromkeys(fresh))
        waiting = [t.body for t in fresh if t.body is not None] + waiting
    return list(found)


def proved_scope(record: Record, notation: Notation, proved: bool, *, facts: bool = True) -> str:
    """For which sizes and values the statement is proved, in words."""
    if not proved:
        return RECORD_ONLY
    listed = f": {', '.join(notation.conditions(record.facts, ()))}," if facts else " the conditions above,"
    sizes = f"Proved for all sizes that satisfy{listed}" if record.facts else "Proved"
    ranges = " for all indices in their ranges" if record.binders else ""
    return f"{sizes}{ranges}{' and' if ranges else ''} for {_THEORIES[record.theory]}."


def trusted_of(record: Record) -> tuple[str, ...]:
    """What has to be trusted for the statement to be believed."""
    every = [record, *record.lemmas()]
    methods = [o.method for r in every for step in r.steps for o in step.obligations]
    solver = sum(method != "by inspection" for method in methods)
    trusted = ["the definitions listed with the statement", LAYERS, KERNEL]
    if solver:
        trusted.append(f"Z3, which discharged {solver} of the {len(methods)} integer side conditions")
    return tuple(trusted)
