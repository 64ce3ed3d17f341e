"""Records of theorems as JSON, with the theorems they rest on.

A record is written with its own table of definitions.  A step that rests on another theorem names it by the digest of
its statement; the document lists those under ``lemmas``, each with its own steps.
"""

from __future__ import annotations

from typing import Any

from derive.render.json import (
    Definitions,
    Json,
    arguments_from_json,
    arguments_to_json,
    expr_from_json,
    expr_to_json,
    guard_from_json,
    guard_to_json,
    index_from_json,
    index_to_json,
    interval_from_json,
    statement_digest,
    statement_to_json,
)
from derive.render.record import Move, Record, Shown, StepRecord, right_sides_before
from derive.rules import RULES, Rule
from derive.solver import Question

_RULES: dict[str, Any] = {rule.name: rule for rule in RULES}


def document_to_json(record: Record) -> Json:
    """The record and, by digest, every theorem it rests on."""
    lemmas = {statement_digest(lemma): lemma for lemma in record.lemmas()}
    return {
        **_record_to_json(record),
        "lemmas": {digest: _record_to_json(lemma) for digest, lemma in lemmas.items()},
    }


def document_from_json(data: Json) -> Record:
    """The record again; raises ValueError where the file contradicts itself."""
    made: dict[str, Record] = {}

    def lemma(digest: str, above: tuple[str, ...]) -> Record:
        if digest in above or digest not in data["lemmas"]:
            raise ValueError(f"lemma {digest[:12]}...: not in the file, or rests on itself")
        if digest not in made:
            entry = data["lemmas"][digest]
            for needed in _needed(entry):
                lemma(needed, (*above, digest))
            made[digest] = _record_from_json(entry, made)
            if statement_digest(made[digest]) != digest:
                raise ValueError(f"lemma {digest[:12]}...: its statement has another digest")
        return made[digest]

    for needed in _needed(data):
        lemma(needed, ())
    return _record_from_json(data, made)


def _needed(entry: Json) -> list[str]:
    return [step["lemma"] for step in entry["steps"] if "lemma" in step]


def _record_to_json(record: Record) -> Json:
    definitions = Definitions.of(record.expressions(), record.tensors())
    return {
        "definitions": definitions.to_json(),
        "statement": statement_to_json(record, definitions),
        "digest": statement_digest(record),
        "steps": [_step_to_json(step, definitions) for step in record.steps],
    }


def _record_from_json(data: Json, lemmas: dict[str, Record]) -> Record:
    definitions = Definitions.from_json(data["definitions"])
    s = data["statement"]
    results = [expr_from_json(step["result"], definitions) for step in data["steps"]]
    befores = right_sides_before([(step["rule"], r) for step, r in zip(data["steps"], results, strict=True)])
    steps = tuple(
        StepRecord(
            _by_from_json(step, definitions, lemmas),
            tuple(int(k) for k in step["where"]),
            tuple(_shown_from_json(o) for o in step["obligations"]),
            tuple(step["conditions"]),
            before,
            result,
        )
        for step, before, result in zip(data["steps"], befores, results, strict=True)
    )
    record = Record(
        tuple(guard_from_json(g) for g in s["facts"]),
        tuple(interval_from_json(b) for b in s["intervals"]),
        expr_from_json(s["lhs"], definitions),
        expr_from_json(s["rhs"], definitions),
        str(s["theory"]),
        tuple(s["conditions"]),
        steps,
    )
    if statement_digest(record) != data["digest"]:
        raise ValueError("digest: the statement in the file is not the one its digest was made from")
    return record


def _step_to_json(step: StepRecord, definitions: Definitions) -> Json:
    shown = [
        {
            "hypotheses": [guard_to_json(h) for h in o.question.hypotheses],
            "goal": guard_to_json(o.question.goal),
            "by": o.method,
        }
        for o in step.obligations
    ]
    by = step.by
    if isinstance(by, Move):
        given = _move_to_json(by, definitions)
    else:
        given = {"arguments": arguments_to_json(by, definitions)}
    return {
        "rule": by.name,
        "where": list(step.where),
        "obligations": shown,
        "conditions": list(step.conditions),
        "result": expr_to_json(step.result, definitions),
        **given,
    }


def _move_to_json(move: Move, definitions: Definitions) -> dict[str, Json]:
    given: dict[str, Json] = {"arguments": {}}
    if move.lemma is not None:
        given["lemma"] = statement_digest(move.lemma)
    if move.lhs is not None:
        given["lhs"] = expr_to_json(move.lhs, definitions)
    if move.name == "use":
        given["arguments"] = {"at": [index_to_json(e) for e in move.at]}
    if move.name == "specialise":
        sizes = {name: index_to_json(e) for name, e in move.sizes}
        tensors = {name: definitions.key(t) for name, t in move.tensors}
        given["arguments"] = {"sizes": sizes, "tensors": tensors}
    return given


def _by_from_json(step: Json, definitions: Definitions, lemmas: dict[str, Record]) -> Rule | Move:
    name, arguments = str(step["rule"]), step["arguments"]
    if name in _RULES:
        rule = _RULES[name]
        made: Rule = rule(**arguments_from_json(rule, arguments, definitions))
        return made
    if name not in ("begin", "sym", "trans", "use", "specialise", "chain"):
        raise ValueError(f"rule={name!r}: no rule of that name is known")
    return Move(
        name,
        lemmas[step["lemma"]] if "lemma" in step else None,
        tuple(index_from_json(e) for e in arguments.get("at", ())),
        tuple((k, index_from_json(e)) for k, e in arguments.get("sizes", {}).items()),
        tuple((k, definitions.tensor(key)) for k, key in arguments.get("tensors", {}).items()),
        expr_from_json(step["lhs"], definitions) if "lhs" in step else None,
    )


def _shown_from_json(data: Json) -> Shown:
    hypotheses = tuple(guard_from_json(h) for h in data["hypotheses"])
    return Shown(Question(hypotheses, guard_from_json(data["goal"])), str(data["by"]))
