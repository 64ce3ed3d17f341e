"""Theorems that were proved beforehand: their derivations as JSON in ``codegen/plans/proofs``, one file a plan.

Emitting code proves nothing and never imports Z3.  It computes the *statement* of a plan's theorem anew, looks its
digest up here, and quotes it; only a statement with the digest of a committed derivation is called proved.  A file
holds every rule that was applied, with its arguments, and every lemma once; obligations are not stored, because
whoever replays a derivation has to state them himself.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from derive.indices import Guard, Index, Interval
from derive.kernel import Theorem
from derive.render.json import (
    Definitions,
    arguments_to_json,
    dumps,
    expr_to_json,
    guard_to_json,
    index_to_json,
    interval_to_json,
    statement_digest,
)
from derive.render.record import Move, Record, StepRecord
from derive.terms import Expr

FORMAT = 1


@dataclass(frozen=True)
class Claim:
    """A statement without its proof: what a theorem would say."""

    facts: tuple[Guard, ...]
    binders: tuple[Interval, ...]
    lhs: Expr
    rhs: Expr
    theory: str = ""
    conditions: tuple[str, ...] = ()

    def as_proved(self, entry: Mapping[str, Any]) -> Claim:
        """The same in the theory, and under the conditions, in which a committed derivation proved it."""
        return Claim(self.facts, self.binders, self.lhs, self.rhs, entry["theory"], tuple(entry["conditions"]))


@dataclass(frozen=True)
class Committed:
    """One file: the digest, theory and conditions of each output's theorem, and the hash of the whole file."""

    name: str
    outputs: Mapping[str, Mapping[str, Any]]
    file_digest: str

    def proves(self, output: str, claim: Claim) -> bool:
        """Whether the file holds a derivation of just this statement."""
        entry = self.outputs.get(output)
        return entry is not None and statement_digest(claim.as_proved(entry)) == entry["digest"]


def file_text(title: str, theorems: Mapping[str, Theorem]) -> str:
    """The file for these theorems: canonical JSON, the same bytes whenever the derivations are the same."""
    records = {output: Record.of(t) for output, t in theorems.items()}
    every: dict[str, Record] = {}
    for record in records.values():
        for lemma in (*record.lemmas(), record):
            every.setdefault(statement_digest(lemma), lemma)
    sides = [e for record in every.values() for e in _expressions(record)]
    definitions = Definitions.of(sides, [t for record in every.values() for t in record.tensors()])
    facts: list[tuple[Guard, ...]] = []
    whole = {
        "format": FORMAT,
        "title": title,
        "outputs": {output: _summary(record) for output, record in records.items()},
        "theorems": {digest: _theorem(record, definitions, facts) for digest, record in sorted(every.items())},
        "definitions": definitions.to_json(),
        "facts": [[guard_to_json(g) for g in group] for group in facts],
    }
    return dumps(whole) + "\n"


def _expressions(record: Record) -> Iterator[Expr]:
    """What is written of a record: both sides, and the left sides its moves introduce."""
    yield from (record.lhs, record.rhs)
    for step in record.steps:
        if isinstance(step.by, Move) and step.by.lhs is not None:
            yield step.by.lhs
        elif not isinstance(step.by, Move):
            yield step.result


def _summary(record: Record) -> dict[str, Any]:
    by_method: dict[str, int] = {}
    for r in (*record.lemmas(), record):
        for step in r.steps:
            for shown in step.obligations:
                by_method[shown.method] = by_method.get(shown.method, 0) + 1
    return {
        "digest": statement_digest(record),
        "theory": record.theory,
        "conditions": list(record.conditions),
        "obligations": dict(sorted(by_method.items())),
    }


def _theorem(record: Record, definitions: Definitions, facts: list[tuple[Guard, ...]]) -> dict[str, Any]:
    if record.facts not in facts:
        facts.append(record.facts)
    return {
        "facts": facts.index(record.facts),
        "intervals": [interval_to_json(b) for b in record.binders],
        "lhs": expr_to_json(record.lhs, definitions),
        "rhs": expr_to_json(record.rhs, definitions),
        "theory": record.theory,
        "conditions": list(record.conditions),
        "steps": [_step(step, definitions) for step in record.steps],
    }


def _step(step: StepRecord, definitions: Definitions) -> dict[str, Any]:
    by = step.by
    entry: dict[str, Any] = {"rule": by.name}
    if step.where:
        entry["where"] = list(step.where)
    if not isinstance(by, Move):
        entry["arguments"] = arguments_to_json(by, definitions)
        return entry
    if by.lemma is not None:
        entry["lemma"] = statement_digest(by.lemma)
    if by.lhs is not None:
        entry["lhs"] = expr_to_json(by.lhs, definitions)
    if by.at:
        entry["at"] = [index_to_json(e) for e in by.at]
    if by.sizes or by.tensors:
        entry["sizes"] = _sizes(by.sizes)
        entry["tensors"] = {name: definitions.key(t) for name, t in by.tensors}
    return entry


def _sizes(sizes: Iterable[tuple[str, Index]]) -> dict[str, Any]:
    return {name: index_to_json(e) for name, e in sizes}


@cache
def committed(name: str) -> Committed | None:
    """The committed file of that name, or None where there is none."""
    path = resources.files("codegen") / "plans" / "proofs" / f"{name}.json"
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    data = json.loads(text)
    return Committed(name, data["outputs"], hashlib.sha256(text.encode()).hexdigest())
