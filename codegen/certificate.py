"""A certificate: what is known about an emitted text, each row with its scope, its method and what it rests on.

A row never says more than was done.  ``all sizes`` is for theorems; ``this shape, any batch`` for what does not depend
on the batch; anything that was run says how many cases there were, and where a run could have missed a difference the
row bounds the probability of that.  The bytes depend on the text and on nothing else, so two machines that check the
same text write the same certificate.
"""

from __future__ import annotations

import hashlib
import json
import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass

ALL_SIZES = "all sizes"


def cases(count: int, of: int | None = None) -> str:
    """The scope of something that was run: ``4 cases``, ``4 of 10 cases``."""
    return f"{count} case{'' if count == 1 else 's'}" if of is None else f"{count} of {of} cases"


@dataclass(frozen=True)
class Row:
    """One statement and how it is known.

    ``error_probability`` bounds the chance that a text for which the statement is false passed: 0.0 where nothing was
    left to chance, None where the method has no such bound.
    """

    statement: str
    scope: str
    method: str
    error_probability: float | None
    trusted: tuple[str, ...]


@dataclass(frozen=True)
class Certificate:
    """Rows about one text, which is named by the SHA-256 of its bytes."""

    subject: str
    sha256: str
    rows: tuple[Row, ...]

    @property
    def trusted(self) -> tuple[str, ...]:
        """Everything that some row rests on, in the order of its first mention."""
        return tuple(dict.fromkeys(name for row in self.rows for name in row.trusted))

    def to_json(self) -> str:
        """The certificate as JSON, the same bytes for the same certificate."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def to_text(self) -> str:
        """The certificate for a reader."""
        lines = [*_wrapped("Certificate of ", self.subject), f"sha256 {self.sha256}"]
        for number, row in enumerate(self.rows, 1):
            lines += ["", *_wrapped(f"{number}. ", row.statement)]
            lines += _wrapped("   scope:   ", row.scope)
            lines += _wrapped("   method:  ", row.method)
            lines += _wrapped("   missed:  ", _chance(row.error_probability))
            lines += _wrapped("   trusted: ", "; ".join(row.trusted) or "nothing")
        return "\n".join(lines) + "\n"


def digest(source: str) -> str:
    """The SHA-256 of a text."""
    return hashlib.sha256(source.encode()).hexdigest()


def certificate(subject: str, source: str, rows: Iterable[Row]) -> Certificate:
    """The certificate of a text."""
    return Certificate(subject, digest(source), tuple(rows))


def _chance(probability: float | None) -> str:
    if probability is None:
        return "no bound is known for the chance that a fault passes"
    return "nothing is left to chance" if probability == 0 else f"a fault passes with probability <= {probability:.1e}"


def _wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, 116, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False)
