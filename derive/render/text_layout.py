"""A derivation as plain text: the statement, then one equation after the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from textwrap import wrap

from derive.render.steps import ShownStep
from derive.render.text import fill
from derive.render.view import Chapter, Definition, View


def text_layout(view: View, width: int, *, ascii_only: bool) -> str:
    """The whole derivation in lines of at most ``width`` where its longest piece allows."""
    lines = [view.title, "=" * len(view.title), *wrap(view.introduction, width)]
    lines += wrap(credit(view), width)
    lines += ["", *_statement(view, width, ":=")]
    for chapter in view.chapters:
        lines += _chapter(chapter, width)
    lines += ["", *wrap(view.scope, width)]
    for condition in view.conditions:
        lines += wrap(f"On the condition that {condition}.", width, subsequent_indent="  ")
    lines += wrap(f"Trusted: {'; '.join(view.trusted)}.", width, subsequent_indent="  ")
    lines += [f"Statement sha256: {view.digest}"]
    text = "\n".join(lines) + "\n"
    return text.replace("—", "-") if ascii_only else text


def credit(view: View) -> str:
    """Source and convention in one line."""
    parts = [f"Source: {view.source}."] if view.source else []
    return " ".join([*parts, *([f"Convention: {view.convention}."] if view.convention else [])])


def _statement(view: View, width: int, defined: str) -> Iterator[str]:
    yield "Statement"
    for head, items in (("for sizes with", view.facts), ("and indices", view.ranges)):
        if items:
            yield from fill([f"  {head}", *(f"{x}," for x in items[:-1]), items[-1]], width, "      ")
    yield from fill(["    " + view.lhs[0], *view.lhs[1:]], width, "      ")
    yield from fill(["      = " + view.rhs[0], *view.rhs[1:]], width, "        ")
    made = [d for d in view.definitions if d.body]
    if made:
        yield "  where, zero outside the box,"
        for d in made:
            yield from _definition(d, width, defined)
    given = [d.head + (f" on {', '.join(d.box)}" if d.box else "") for d in view.definitions if not d.body]
    if given:
        yield from fill(["  given, zero outside the box:", *(f"{g};" for g in given[:-1]), given[-1]], width, "      ")


def _definition(d: Definition, width: int, defined: str) -> Iterator[str]:
    pieces = [f"    {d.head} {defined} {d.body[0]}", *d.body[1:]]
    yield from fill([*pieces, f"  for {', '.join(d.box)}"] if d.box else pieces, width, "        ")


def _chapter(chapter: Chapter, width: int) -> Iterator[str]:
    if chapter.title:
        yield from ("", f"{chapter.title}", "-" * len(chapter.title))
    yield from wrap(chapter.prose, width)
    for step in chapter.steps:
        yield ""
        yield from wrap(chapter.remarks.get(step.number, ""), width)
        yield from _step(step, width)


def _step(step: ShownStep, width: int) -> Iterator[str]:
    label = f"{step.number:>3}  {step.rule}: "
    yield from fill([label + step.explanation.split(" ")[0], *step.explanation.split(" ")[1:]], width, "     ")
    if step.where != step.before:
        yield from fill([f"     in {step.fragment[0]}", *step.fragment[1:]], width, "         ")
    yield from fill(["     = " + step.pieces[0], *step.pieces[1:]], width, "         ")
    for method, goals in by_method(step).items():
        yield from fill([f"       shown {by(method)}:", *_listed(goals)], width, "           ")
    for condition in step.conditions:
        yield from wrap(f"provided that {condition}", width, initial_indent="       ", subsequent_indent=" " * 11)


def by_method(step: ShownStep) -> dict[str, list[str]]:
    """The goals of a step by who discharged them."""
    found: dict[str, list[str]] = {}
    for o in step.summary:
        goals = found.setdefault(o.by, [])
        if o.goal not in goals:
            goals.append(o.goal)
    return found


def by(method: str) -> str:
    """Who discharged a side condition."""
    return method if method.startswith("by ") else f"by {method}"


def _listed(goals: Sequence[str]) -> list[str]:
    return [*(f"{g};" for g in goals[:-1]), *goals[-1:]]
