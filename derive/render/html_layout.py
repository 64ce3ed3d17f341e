"""A derivation as HTML: a fragment with its own style, readable without scripts, side conditions folded away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from derive.render.html import mathml
from derive.render.steps import CONTRADICTION, ShownObligation, ShownStep
from derive.render.text_layout import by, credit
from derive.render.view import Chapter, Definition, View

STYLE = """
.derivation { max-width: 60rem; margin: 1.5rem auto; padding: 0 1rem; color: #1c2430; background: #fff;
  font: 1rem/1.55 Georgia, 'Times New Roman', serif; }
.derivation h2 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .4rem; }
.derivation h3 { font-size: 1.2rem; margin: 2rem 0 .3rem; }
.derivation .credit, .derivation .small { color: #5a6472; font-size: .9rem; }
.derivation .box { background: #f4f7fb; border-left: 4px solid #2f6db3; padding: .7rem 1rem; margin: 1rem 0; }
.derivation .formula { margin: .45rem 0 .45rem 1.2rem; text-indent: -1.2rem; padding-left: 1.2rem; }
.derivation .formula math { text-indent: 0; margin: .15rem .12em; font-size: 1.08rem; }
.derivation math { font-family: 'Latin Modern Math', 'STIX Two Math', 'Cambria Math', 'DejaVu Math TeX Gyre', math; }
.derivation .formula { line-height: 1.9; }
.derivation .rhs { margin-left: 2.4rem; }
.derivation ol { list-style: none; padding: 0; margin: 0; }
.derivation li { border-top: 1px solid #dde3ea; padding: .6rem 0 .5rem; }
.derivation .rule { font: 600 .8rem/1 system-ui, sans-serif; color: #2f6db3; background: #e8f0fa;
  border-radius: .6em; padding: .25em .6em; margin-right: .5em; white-space: nowrap; }
.derivation .number { color: #5a6472; margin-right: .5em; font-size: .9rem; }
.derivation .remark { font-style: italic; margin: .3rem 0; }
.derivation details { color: #46505e; font-size: .9rem; margin-left: 1.2rem; }
.derivation summary { cursor: pointer; }
.derivation table { border-collapse: collapse; margin: .3rem 0; }
.derivation td { padding: .1rem .8rem .1rem 0; vertical-align: baseline; }
.derivation td + td:not(:last-child) { white-space: nowrap; }
.derivation .proof { overflow-wrap: anywhere; }
""".strip()


def html_page(title: str, fragment: str) -> str:
    """A page that holds the fragment."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{fragment}</body></html>\n'


def html_layout(view: View) -> str:
    """The derivation as one ``section`` element."""
    lines = ['<section class="derivation">', f"<style>{STYLE}</style>", f"<h2>{escape(view.title)}</h2>"]
    lines += [f"<p>{escape(view.introduction)}</p>", f'<p class="credit">{escape(credit(view))}</p>']
    lines += ['<div class="box">', *_statement(view), "</div>"]
    for chapter in view.chapters:
        lines += _chapter(chapter)
    lines += ['<div class="box proof">', f"<p>{escape(view.scope)}</p>"]
    lines += [f"<p>On the condition that {c}.</p>" for c in view.conditions]
    lines += [f'<p class="small">Trusted: {escape("; ".join(view.trusted))}.<br/>']
    lines += [f"Statement sha256: {view.digest}</p>", "</div>", "</section>", ""]
    return "\n".join(lines)


def _maths(pieces: Iterable[str]) -> str:
    return " ".join(mathml(piece, display=True) for piece in pieces)


def _inline(formulas: Iterable[str]) -> str:
    return ", ".join(mathml(formula) for formula in formulas)


def _statement(view: View) -> Iterator[str]:
    facts = f"For all sizes with {_inline(view.facts)}" if view.facts else ""
    ranges = f"{' and all ' if facts else 'For all '}{_inline(view.ranges)}" if view.ranges else ""
    if facts or ranges:
        yield f"<p>{facts}{ranges}:</p>"
    yield f'<p class="formula">{_maths(view.lhs)}</p>'
    yield f'<p class="formula rhs">{_maths(_after("=", view.rhs))}</p>'
    made = [d for d in view.definitions if d.body]
    if made:
        yield "<p>where, zero outside the box,</p>"
        yield from map(_definition, made)
    given = [mathml(d.head) + (f" on {_inline(d.box)}" if d.box else "") for d in view.definitions if not d.body]
    if given:
        yield f'<p class="small">Given, zero outside the box: {"; ".join(given)}.</p>'


def _after(sign: str, pieces: Sequence[str]) -> tuple[str, ...]:
    return (f"{{}} {sign} {pieces[0]}", *pieces[1:])


def _definition(d: Definition) -> str:
    ranges = f' <span class="small">for {_inline(d.box)}</span>' if d.box else ""
    body = _maths(_after(r"\coloneqq", d.body))
    return f'<p class="formula">{mathml(d.head)} {body}{ranges}</p>'


def _chapter(chapter: Chapter) -> Iterator[str]:
    if chapter.title:
        yield f"<h3>{escape(chapter.title)}</h3>"
    if chapter.prose:
        yield f"<p>{escape(chapter.prose)}</p>"
    yield "<ol>"
    for step in chapter.steps:
        remark = chapter.remarks.get(step.number, "")
        said = f'<p class="remark">{escape(remark)}</p>' if remark else ""
        yield f"<li>{said}{_step(step)}</li>"
    yield "</ol>"


def _step(step: ShownStep) -> str:
    head = f'<span class="number">{step.number}</span><span class="rule">{escape(step.rule)}</span>'
    text = f"<div>{head}{step.explanation}</div>"
    if step.where != step.before:
        text += f'<p class="formula small">in {" ".join(map(mathml, step.fragment))}</p>'
    text += f'<p class="formula">{_maths(_after("=", step.pieces))}</p>'
    text += "".join(f'<p class="small">Provided that {c}.</p>' for c in step.conditions)
    return text + _obligations(step)


def _obligations(step: ShownStep) -> str:
    if not step.obligations:
        return ""
    counts: dict[str, int] = {}
    for o in step.obligations:
        counts[o.by] = counts.get(o.by, 0) + 1
    told = ", ".join(f"{count} {escape(by(method))}" for method, count in counts.items())
    count = len(step.obligations)
    noun = "side condition" if count == 1 else "side conditions"
    rows = "".join(_row(o) for o in step.summary)
    return f"<details><summary>{count} {noun} shown: {told}</summary><table>{rows}</table></details>"


def _row(o: ShownObligation) -> str:
    given = f"given the facts and {_inline(o.given)}" if o.given else "given the facts"
    goal = o.goal if o.goal == CONTRADICTION else mathml(o.goal)
    return f"<tr><td>{goal}</td><td>{escape(by(o.by))}</td><td>{given}</td></tr>"
