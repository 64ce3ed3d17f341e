r"""A derivation as LaTeX: a fragment that needs amsmath and amssymb, or a document.

Long formulas are broken between the pieces of a formula, by the width of the same piece in plain text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from derive.render.latex import Latex
from derive.render.steps import CONTRADICTION, ShownStep
from derive.render.text_layout import by, by_method, credit
from derive.render.view import View

_LINE = 72  # letters of plain text that fit on a line of an article
_HEAD = r"""\documentclass{article}
\usepackage{amsmath,amssymb}
\usepackage[T1]{fontenc}
\allowdisplaybreaks
\begin{document}
"""


def latex_layout(view: View, plain: View, *, document: bool) -> str:
    """The derivation; ``plain`` is the same in plain text, by which the length of formulas is judged."""
    prose = Latex().prose
    lines = [rf"\section*{{{prose(view.title)}}}", prose(view.introduction), "", prose(credit(view)), ""]
    lines += [r"\paragraph{Statement.}" + _conditions(view), *_equation(view, plain)]
    lines += _definitions(view, plain)
    for chapter, same in zip(view.chapters, plain.chapters, strict=True):
        lines += ["", rf"\subsection*{{{prose(chapter.title)}}}"] if chapter.title else [""]
        lines += [prose(chapter.prose)] if chapter.prose else []
        lines.append(r"\begin{enumerate}\setcounter{enumi}{" + str(chapter.steps[0].number - 1) + "}")
        for step, text in zip(chapter.steps, same.steps, strict=True):
            remark = chapter.remarks.get(step.number, "")
            lines += [*([prose(remark), ""] if remark else []), *_step(step, text)]
        lines.append(r"\end{enumerate}")
    lines += ["", r"\paragraph{Scope.} " + prose(view.scope)]
    lines += [f"On the condition that {c}." for c in view.conditions]
    lines += [prose(f"Trusted: {'; '.join(view.trusted)}."), ""]
    body = "\n".join(lines)
    return f"{_HEAD}{body}\\end{{document}}\n" if document else body


def latex_statement(view: View) -> str:
    """The equation alone."""
    return Latex.space.join(view.lhs) + " = " + Latex.space.join(view.rhs)


def _conditions(view: View) -> str:
    facts = f" For all sizes with {_listed(view.facts)}" if view.facts else ""
    ranges = f" {'and all' if facts else 'For all'} {_listed(view.ranges)}" if view.ranges else ""
    return f"{facts}{ranges}," if facts or ranges else ""


def _listed(formulas: Iterable[str]) -> str:
    """Formulas one after the other, each by itself so that a line can be broken between them."""
    return ", ".join(f"${f}$" for f in formulas)


def broken(pieces: Sequence[str], plain: Sequence[str], width: int = _LINE) -> list[str]:
    """The pieces in lines that are about as long as ``width`` letters of plain text."""
    lines: list[list[str]] = []
    used = 0
    for piece, text in zip(pieces, plain, strict=True):
        if not lines or used + len(text) > width:
            lines.append([])
            used = 0
        lines[-1].append(piece)
        used += len(text) + 1
    return [Latex.space.join(line) for line in lines]


def _equation(view: View, plain: View) -> Iterator[str]:
    left = broken(view.lhs, plain.lhs)
    yield r"\begin{align*}"
    yield from (rf"& {line} \\" if k == 0 else rf"& \qquad {{}} {line} \\" for k, line in enumerate(left))
    yield from _lines("= ", view.rhs, plain.rhs)
    yield r"\end{align*}"


def _lines(sign: str, pieces: Sequence[str], plain: Sequence[str]) -> Iterator[str]:
    found = broken(pieces, plain)
    for k, line in enumerate(found):
        start = rf"& \quad {sign}" if k == 0 else r"& \qquad\quad {} "
        yield start + line + (r" \\" if k + 1 < len(found) else "")


def _definitions(view: View, plain: View) -> Iterator[str]:
    made = [(d, t) for d, t in zip(view.definitions, plain.definitions, strict=True) if d.body]
    if made:
        yield "where, zero outside the box,"
        yield r"\begin{align*}"
        for k, (d, t) in enumerate(made):
            yield rf"& {d.head} :=" + r" \\"
            body = list(_lines("", d.body, t.body))
            ranges = rf" \qquad ({', '.join(d.box)})" if d.box else ""
            yield from [*body[:-1], body[-1] + ranges + (r" \\" if k + 1 < len(made) else "")]
        yield r"\end{align*}"
    given = [f"${d.head}$" + (f" on {_listed(d.box)}" if d.box else "") for d in view.definitions if not d.body]
    if given:
        yield f"Given, zero outside the box: {'; '.join(given)}."


def _step(step: ShownStep, plain: ShownStep) -> Iterator[str]:
    prose = Latex().prose
    yield rf"\item \textbf{{{prose(step.rule)}.}} {step.explanation}"
    if step.where != step.before:
        yield f"In ${'$ $'.join(broken(step.fragment, plain.fragment))}$:"
    yield r"\begin{align*}"
    yield from _lines("= ", step.pieces, plain.pieces)
    yield r"\end{align*}"
    for method, goals in by_method(step).items():
        listed = ", ".join(g if g == CONTRADICTION else f"${g}$" for g in goals)
        yield f"{{\\small Shown {prose(by(method))}: {listed}.}}\n"
    yield from (f"Provided that {c}.\n" for c in step.conditions)
