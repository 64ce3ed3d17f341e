"""The report of `certiconv lenet`: one HTML file that holds everything, and needs neither scripts nor a network.

A `ReportContent` is what the report says, in plain strings and numbers, so that this file knows nothing of theorems
or plans. Numbers that follow from others (accuracy from the confusion matrix, the count of theorems of each scope,
the hash of a text) are computed here, so that no two places of a report can differ. `render_report` puts pictures
(`runtime.pictures`) and text into `templates/report.html.j2`; the same content gives the same bytes.

Text is escaped. Only fields whose names end in `_mathml` or `_html` are put into the page as they are: they must
be fragments that the derivations themselves have printed.
"""

from __future__ import annotations

import hashlib
import io
import keyword
import os
import tokenize
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Literal

from codegen.files import write_atomically

Matrix = Sequence[Sequence[float]]
Texts = tuple[str, ...] | list[str]  # not Sequence[str], which a single string would be, too
Pairs = Sequence[tuple[str, str]]
Scope = Literal["proved for all sizes", "proved at this shape"]

ALL_SIZES: Scope = "proved for all sizes"
THIS_SHAPE: Scope = "proved at this shape"


@dataclass(frozen=True)
class Phase:
    """One part of the run: what it was called, how many seconds it took, and what came of it."""

    name: str
    seconds: float
    result: str = ""


@dataclass(frozen=True)
class Milestone:
    """One step of the way from a dense layer to a convolution.

    `condition` is what the step assumes, `known` how the formula is known. `count_symbolic` is the exact number of
    parameters as a formula, `count_numbers` pairs of (at which sizes, the number there).
    """

    name: str
    prose: str
    formula_mathml: str
    condition: str
    known: str
    count_symbolic: str
    count_numbers: Pairs = ()


@dataclass(frozen=True)
class WeightPicture:
    """A weight matrix as labels: equal labels are one parameter, 0 is an entry that is zero by structure.

    `names` says what some labels stand for; `block` asks for a heavier line after every so many rows and columns.
    """

    title: str
    caption: str
    labels: Sequence[Sequence[int]]
    names: Sequence[tuple[int, str]] = ()
    block: int = 0

    def __post_init__(self) -> None:
        _require_rectangle("labels", self.labels)
        low = min(map(min, self.labels))
        _require(low >= 0, f"labels: {low} is negative; a label is 0 (no parameter) or a positive integer")


@dataclass(frozen=True)
class TheoremCard:
    """One theorem. `scope_note` says which sizes are meant, `known_by` who discharged its side conditions.

    `statement_mathml` may be several formulas with words between them, `steps_html` is shown when unfolded.
    """

    title: str
    scope: Scope
    theory: str
    conditions: Texts
    statement_mathml: str
    steps_html: str
    scope_note: str = ""
    known_by: str = ""


@dataclass(frozen=True)
class EmittedModule:
    """An emitted text, the plan it was printed from as text, and a remark."""

    title: str
    source: str
    plan: str = ""
    note: str = ""


@dataclass(frozen=True)
class ExactExecution:
    """Something that was executed in exact arithmetic: on how many cases, and of how many (None: not a finite set)."""

    subject: str
    cases: int
    of: int | None = None


@dataclass(frozen=True)
class CertificateRow:
    """One claim about the emitted text, and how it is known."""

    statement: str
    scope: str
    method: str
    error_probability: str
    trusted: str


@dataclass(frozen=True)
class TrainingHistory:
    """What was measured after each epoch that ended; `accuracy` has a line of values for each set of images."""

    epochs_planned: int
    loss: Sequence[float] = ()
    accuracy: Sequence[tuple[str, Sequence[float]]] = ()
    interrupted: bool = False

    def __post_init__(self) -> None:
        epochs = len(self.loss)
        within = epochs <= self.epochs_planned
        _require(within, f"loss: {epochs} epochs, but epochs_planned={self.epochs_planned}")
        for name, values in self.accuracy:
            _require(len(values) == epochs, f"accuracy of {name!r}: {len(values)} values for {epochs} epochs of loss")


@dataclass(frozen=True)
class MisclassifiedDigit:
    """An image (rows of numbers, larger is darker) with the label it has and the label it was given."""

    image: Matrix
    true: int
    predicted: int


@dataclass(frozen=True)
class Evaluation:
    """Held-out images: counts by true label (rows) and predicted label (columns), and some that went wrong."""

    confusion: Sequence[Sequence[int]]
    misclassified: Sequence[MisclassifiedDigit] = ()

    def __post_init__(self) -> None:
        _require_rectangle("confusion", self.confusion)
        rows, columns = len(self.confusion), len(self.confusion[0])
        _require(rows == columns, f"confusion: {rows} rows and {columns} columns; it must be square")

    @property
    def total(self) -> int:
        """The number of images."""
        return sum(map(sum, self.confusion))

    @property
    def right(self) -> int:
        """The number of images whose predicted label is the true one."""
        return sum(row[k] for k, row in enumerate(self.confusion))


@dataclass(frozen=True)
class KernelPicture:
    """Learned weights of one convolution, of shape (output channels, input channels, height, width)."""

    title: str
    caption: str
    weights: Sequence[Sequence[Matrix]]


@dataclass(frozen=True)
class Trusted:
    """Something that the claims of the report rest on, and what for."""

    name: str
    why: str


@dataclass(frozen=True)
class ReportContent:
    """What a report says. `command`, `versions` and `seed` are what a reader needs to run it again.

    `computed_by` names the library and the device that trained, where that is known.

    The `evaluation` is that of the parameters which the run ends with, on images that neither training nor the choice
    of a setting has seen; None where there was none.
    """

    title: str
    data_source: str
    training_images: int
    phases: Sequence[Phase]
    milestones: Sequence[Milestone]
    weight_pictures: Sequence[WeightPicture]
    theorems: Sequence[TheoremCard]
    modules: Sequence[EmittedModule]
    executions: Sequence[ExactExecution]
    certificate: Sequence[CertificateRow]
    settings: Pairs
    history: TrainingHistory
    evaluation: Evaluation | None
    kernels: Sequence[KernelPicture]
    trusted: Sequence[Trusted]
    command: str
    seed: int
    versions: Pairs
    reproduction_notes: Texts = field(default=())
    computed_by: str = ""


def write_report(content: ReportContent, path: str | os.PathLike[str]) -> None:
    """Write the report to a file: whole, or not at all.

    The text goes to a new file in the same folder, which then takes the place of `path`. If anything fails or
    interrupts, a file that was there before is untouched and no other is left behind.

    Raises:
        OSError: the folder does not exist or cannot be written to.
    """
    write_atomically(path, render_report(content).encode())


def render_report(content: ReportContent) -> str:
    """The report as the text of an HTML page; the same content gives the same text."""
    import jinja2

    page = jinja2.Environment(
        loader=jinja2.PackageLoader("runtime", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page.filters.update(seconds=_seconds, grouped=_grouped, highlight=highlight, fraction=_fraction)
    return page.get_template("report.html.j2").render(
        content=content,
        scopes=list(Counter(card.scope for card in content.theorems).items()),
        count_columns=list(dict.fromkeys(at for m in content.milestones for at, _ in m.count_numbers)),
        hashes=[hashlib.sha256(module.source.encode()).hexdigest() for module in content.modules],
        cases=sum(run.cases for run in content.executions),
        **_pictures(content),
    )


# --- Pictures and what they show, in words ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Figure:
    address: str
    alt: str
    title: str = ""
    caption: str = ""
    legend: tuple[tuple[str, str], ...] = ()


def _pictures(content: ReportContent) -> dict[str, Any]:
    return {
        "weight_figures": [_weights(picture) for picture in content.weight_pictures],
        "curve_figures": list(_curves(content.history)),
        "confusion_figure": content.evaluation and _confusion(content.evaluation),
        "wrong_figures": [_wrong(digit) for digit in (content.evaluation.misclassified if content.evaluation else ())],
        "kernel_figures": [_kernels(picture) for picture in content.kernels],
    }


def _weights(picture: WeightPicture) -> _Figure:
    from runtime import pictures

    entries = [label for row in picture.labels for label in row]
    zeros = entries.count(0)
    parameters = len(set(entries) - {0})
    alt = (
        f"{picture.title}: weight matrix of {len(picture.labels)} rows and {len(picture.labels[0])} columns; "
        f"{len(entries) - zeros:,} entries hold {parameters:,} different parameters, {zeros:,} entries are zero."
    )
    legend = [(pictures.label_colour(label), name) for label, name in picture.names]
    legend.append(("", f"one colour and number: one parameter; {parameters:,} in {len(entries) - zeros:,} entries"))
    if zeros:
        legend.append((pictures.label_colour(0), f"white: zero by structure; {zeros:,} entries"))
    address = pictures.weight_matrix(picture.labels, picture.block)
    return _Figure(address, alt, picture.title, picture.caption, tuple(legend))


def _curves(history: TrainingHistory) -> Iterator[_Figure]:
    from runtime import pictures

    epochs = len(history.loss)
    if not epochs:
        return
    loss = pictures.curves({"training images": history.loss}, "mean loss")
    told = f"from {history.loss[0]:.4g} after epoch 1 to {history.loss[-1]:.4g} after epoch {epochs}"
    yield _Figure(loss, f"Loss by epoch: {told}.", "Loss", "Mean cross-entropy over the training images of each epoch.")
    if history.accuracy:
        lines = dict(history.accuracy)
        told = "; ".join(f"{name} from {v[0]:.1%} to {v[-1]:.1%}" for name, v in lines.items())
        address = pictures.curves(lines, "accuracy", percent=True)
        yield _Figure(address, f"Accuracy by epoch: {told}.", "Accuracy", "Images named right, after each epoch.")


def _confusion(evaluation: Evaluation) -> _Figure:
    from runtime import pictures

    alt = (
        f"Confusion matrix of {evaluation.total:,} held-out images: {evaluation.right:,} lie on the diagonal, "
        f"{evaluation.total - evaluation.right:,} off it. The table has every count."
    )
    return _Figure(pictures.confusion_matrix(evaluation.confusion), alt)


def _wrong(digit: MisclassifiedDigit) -> _Figure:
    from runtime import pictures

    alt = f"A handwritten {digit.true} that was taken for a {digit.predicted}."
    return _Figure(pictures.digit(digit.image), alt)


def _kernels(picture: KernelPicture) -> _Figure:
    from runtime import pictures

    outputs, inputs = len(picture.weights), len(picture.weights[0])
    height, width = len(picture.weights[0][0]), len(picture.weights[0][0][0])
    alt = (
        f"{picture.title}: {outputs * inputs} kernels of {height} by {width} for {inputs} input and {outputs} output "
        f"channels; values within ±{pictures.largest(picture.weights):.3g}, red positive, blue negative."
    )
    return _Figure(pictures.kernel_grid(picture.weights), alt, picture.title, picture.caption)


# --- Numbers ----------------------------------------------------------------------------------------------------------


_GAP = "\N{NO-BREAK SPACE}"  # between a number and its unit


def _grouped(count: int) -> str:
    return f"{count:,}"


def _seconds(seconds: float) -> str:
    """Seconds to three digits, or whole seconds from 100 on."""
    return f"{seconds:.0f}{_GAP}s" if seconds >= 99.95 else f"{seconds:#.3g}{_GAP}s"


def _fraction(part: int, whole: int) -> str:
    """A part in per cent, rounded down: only all of them are 100 %."""
    if whole == 0:
        return "none"
    digits = 1 if whole <= 1000 else 2
    return f"{100 * 10**digits * part // whole / 10**digits:.{digits}f}{_GAP}%"


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _require_rectangle(name: str, rows: Sequence[Sequence[object]]) -> None:
    widths = {len(row) for row in rows}
    _require(
        len(widths) == 1 and 0 not in widths, f"{name}: rows of lengths {sorted(widths)}; expected one, at least 1"
    )


# --- Colours for Python text ------------------------------------------------------------------------------------------


def highlight(source: str) -> Any:
    """Python text as HTML, each line in a `span`, with classes on keywords, strings, comments, numbers and definitions.

    Text that is no Python is shown without classes. Nothing but spans is added: the characters are those of `source`.
    """
    from markupsafe import Markup

    try:
        marks = list(_marks(source))
    except (tokenize.TokenError, SyntaxError):
        marks = []
    pieces: list[str] = []
    done = 0
    for start, end, kind in marks:
        pieces += [_spans(source[done:start]), _spans(source[start:end], kind)]
        done = end
    pieces.append(_spans(source[done:]))
    lines = "".join(pieces).removesuffix("\n").split("\n")
    return Markup("\n".join(f'<span class="line">{line}</span>' for line in lines))


def _spans(text: str, kind: str = "") -> str:
    from markupsafe import escape

    parts = [str(escape(part)) for part in text.split("\n")]
    # A span must not cross a line's end, where the span of the line itself ends.
    return "\n".join(f'<span class="{kind}">{part}</span>' if kind and part else part for part in parts)


def _marks(source: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, class) of every piece that gets a class, in order."""
    starts = list(accumulate(map(len, io.StringIO(source)), initial=0))
    opened = [0]  # where f-strings began: Python 3.12 splits them into tokens, 3.11 does not
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        start, end = (starts[row - 1] + column for row, column in (token.start, token.end))
        name = tokenize.tok_name[token.type]
        if name == "FSTRING_START":
            opened.append(start)
        elif name == "FSTRING_END":
            start, name = opened.pop(), "STRING"
        kind = "" if len(opened) > 1 else _kind(name, token.string, before)
        if kind:
            yield start, end, kind
        before = token.string


def _kind(name: str, text: str, before: str) -> str:
    if name == "NAME":
        defined = "def" if before in ("def", "class") else ""
        return "kw" if keyword.iskeyword(text) else defined
    return {"STRING": "str", "COMMENT": "com", "NUMBER": "num"}.get(name, "")
