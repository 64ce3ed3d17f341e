"""A derivation: a theorem told to a reader, step by step, with a title, names for its variables and chapters.

The theorem is the kernel's and its steps are the computation itself; what is added here is words.  A derivation is
shown as text, LaTeX or HTML and saved as JSON.  Read back from JSON it is a *record*: it shows the same steps and
writes the same bytes, but it holds no theorem, because a theorem is made only by proving it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from derive.kernel import Theorem
from derive.render.document import document_from_json, document_to_json
from derive.render.formula import Notation
from derive.render.html import Html
from derive.render.html_layout import html_layout, html_page
from derive.render.json import dumps, loads, statement_digest
from derive.render.latex import Latex
from derive.render.latex_layout import latex_layout, latex_statement
from derive.render.names import Names
from derive.render.record import Record
from derive.render.steps import ShownStep, show
from derive.render.text import Text
from derive.render.text_layout import text_layout
from derive.render.view import (
    Chapter,
    View,
    definitions,
    free_scope,
    namer,
    proved_scope,
    trusted_of,
)

FORMAT = "certiconv derivation 1"


@dataclass(frozen=True)
class Note:
    """The author's words before step ``step``: with a title they open a chapter, without one they are a remark.

    While a proof is being built, ``len(theorem.steps)`` is the number of its next step.
    """

    step: int
    title: str = ""
    prose: str = ""


@dataclass(frozen=True)
class Derivation:
    """A proved statement with its steps; see the head of this file.

    ``source`` says where the formula is taught (``"d2l 7.1.1"``), ``convention`` which of the two
    operations called convolution is meant (``"cross-correlation"``).
    ``proof`` is the theorem, or the record of one that was read from a file.
    """

    title: str
    introduction: str
    proof: Theorem | Record
    source: str = ""
    convention: str = ""
    notes: Sequence[Note] = ()
    names: Names = field(default_factory=Names)

    def __post_init__(self) -> None:
        last = len(self.record.steps)
        for note in self.notes:
            if not 0 <= note.step <= last:
                raise ValueError(f"notes: step={note.step} of a derivation whose steps are 0 to {last - 1}")
        object.__setattr__(self, "notes", tuple(sorted(self.notes, key=lambda n: n.step)))

    @property
    def theorem(self) -> Theorem:
        """The theorem; a derivation that was read from a file has none and says so."""
        if isinstance(self.proof, Record):
            raise ValueError(
                f"{self.title!r} was read from a file: it is a record of a derivation, not a theorem. "
                "A theorem is made only by deriving it again."
            )
        return self.proof

    @property
    def is_record(self) -> bool:
        """Whether it was read from a file and holds no theorem."""
        return isinstance(self.proof, Record)

    @cached_property
    def record(self) -> Record:
        """Statement and steps as data."""
        return self.proof if isinstance(self.proof, Record) else Record.of(self.proof)

    @cached_property
    def steps(self) -> tuple[ShownStep, ...]:
        """The steps in plain text."""
        notation = self._notation(Text())
        return show(self.record, notation, free_scope(self.record, notation))

    @property
    def digest(self) -> str:
        """SHA-256 of the statement: equal for equal statements, whatever their proofs, titles and names."""
        return statement_digest(self.record)

    @property
    def scope(self) -> str:
        """For which sizes and values the statement is proved, what it assumes of values, and what is trusted."""
        notation = self._notation(Text())
        lines = [proved_scope(self.record, notation, not self.is_record)]
        lines += [f"On the condition that {c}." for c in self.view(notation).conditions]
        return " ".join([*lines, f"Trusted: {'; '.join(self.trusted)}."])

    @property
    def trusted(self) -> tuple[str, ...]:
        """What has to be trusted for the statement to be believed."""
        return trusted_of(self.record)

    def to_text(self, *, width: int = 100, ascii_only: bool = False) -> str:
        """Plain text, laid out for a terminal."""
        return text_layout(self.view(Text(ascii_only=ascii_only)), width, ascii_only=ascii_only)

    def to_latex(self, *, document: bool = False) -> str:
        """LaTeX for amsmath and amssymb: a fragment, or a document of its own."""
        return latex_layout(self.view(Latex()), self.view(Text()), document=document)

    def to_html(self, *, page: bool = False) -> str:
        """HTML with MathML, without scripts: a fragment with its own style, or a page of its own."""
        fragment = html_layout(self.view(Html()))
        return html_page(self.title, fragment) if page else fragment

    def to_json(self) -> str:
        """Canonical JSON: the same bytes on every run; ``derive.render.json`` describes it."""
        whole = {
            "format": FORMAT,
            "title": self.title,
            "introduction": self.introduction,
            "source": self.source,
            "convention": self.convention,
            "notes": [{"step": n.step, "title": n.title, "prose": n.prose} for n in self.notes],
            "names": {
                "free": list(self.names.free),
                "axes": {key: list(names) for key, names in self.names.axes.items()},
                "sizes": {key: list(names) for key, names in self.names.sizes.items()},
                "bound": list(self.names.bound),
            },
            **document_to_json(self.record),
        }
        return dumps(whole)

    @staticmethod
    def from_json(text: str) -> Derivation:
        """The record of a derivation: it can be shown and saved again, and holds no theorem.

        Raises ValueError where the text is no such file or contradicts itself.
        """
        data = loads(text)
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise ValueError(f"not a derivation: the text has to be JSON with format={FORMAT!r}")
        try:
            return _from_json(data)
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError) as error:
            raise ValueError(f"not a derivation: {type(error).__name__} at {error}") from error

    def view(self, notation: Notation) -> View:
        """Everything there is to lay out, its formulas in this notation."""
        record = self.record
        n = self._notation(notation)
        scope = free_scope(record, n)
        steps = show(record, n, scope)
        return View(
            self.title,
            self.introduction,
            self.source,
            self.convention,
            tuple(n.conditions(record.facts, ())),
            tuple(n.intervals(record.binders, scope, 0)),
            tuple(n.chunks(record.lhs, scope)),
            tuple(n.chunks(record.rhs, scope)),
            tuple(definitions(record, n)),
            self._chapters(steps),
            proved_scope(record, self._notation(Text()), not self.is_record, facts=False),
            tuple(dict.fromkeys(c for step in steps for c in step.conditions)),
            self.trusted,
            self.digest,
        )

    def _notation(self, notation: Notation) -> Notation:
        return notation.naming(namer(self.record, self.names))

    def _chapters(self, steps: tuple[ShownStep, ...]) -> tuple[Chapter, ...]:
        heads = [n for n in self.notes if n.title]
        if not heads or heads[0].step > 0:
            heads.insert(0, Note(0))
        ends = [n.step for n in heads[1:]] + [len(steps)]
        remarks = {n.step: n.prose for n in self.notes if not n.title}
        return tuple(
            Chapter(head.title, head.prose, steps[head.step : end], remarks)
            for head, end in zip(heads, ends, strict=True)
        )

    def __repr__(self) -> str:
        what = "record read from a file, no theorem" if self.is_record else "theorem"
        n = self._notation(Text())
        scope = free_scope(self.record, n)
        equation = f"{n.expr(self.record.lhs, scope)} = {n.expr(self.record.rhs, scope)}"
        return f"<Derivation {self.title!r} ({what}, {len(self.record.steps)} steps): {equation}>"

    def _repr_latex_(self) -> str:
        return f"${latex_statement(self.view(Latex()))}$"

    def _repr_html_(self) -> str:
        return self.to_html()


def _from_json(data: Mapping[str, Any]) -> Derivation:
    names = data["names"]
    return Derivation(
        str(data["title"]),
        str(data["introduction"]),
        document_from_json(data),
        str(data["source"]),
        str(data["convention"]),
        tuple(Note(int(n["step"]), str(n["title"]), str(n["prose"])) for n in data["notes"]),
        Names(tuple(names["free"]), dict(names["axes"]), dict(names["sizes"]), tuple(names["bound"])),
    )
