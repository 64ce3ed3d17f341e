"""The main job, as `certiconv lenet` runs it: derive, emit, check, train, report.

Each phase is one function that takes a `LenetRun`, adds what it found, and returns one line that says what came of it.
What is trained is the very text that was checked, and the theorems are proved afresh, not read from a file.  The report
says only what the run holds.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import platform
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from derive import layers
from derive.legality import LayerError
from runtime.compile import PathLike, emit
from runtime.data import Digits, load_digits, load_idx_folder, standardise
from runtime.network import Network
from runtime.train import Epoch, History, Settings, confusion_matrix, train

if TYPE_CHECKING:
    from rich.console import Console

    from codegen import Emitted
    from codegen.certificate import Certificate
    from derive.derivation import Derivation
    from derive.render.formula import Notation
    from runtime.report import Milestone, Phase, ReportContent, TheoremCard, WeightPicture

Value = TypeVar("Value")

INPUT_SHAPE = (1, 1, 28, 28)
"""What LeNet is emitted for; the batch size stays free."""

DTYPE = "float32"
SHOWN_MISTAKES = 12
_WITH_PARAMETERS = ("weight", "bias")
_LONG = "Its steps carry the formulas of the whole network, megabytes of them, and are left out here."


@dataclass
class LenetRun:
    """What a run knows so far; each phase fills in its part.

    Attributes:
        settings, digits, backend, command: what the run was asked for; the digits are standardised.
        network: the layers.
        derivations: the theorems about layers, with their steps.
        plan_derivations: the theorems about the plan, whose steps unfold the whole network.
        trained, history: the network with its parameters, and how it came to them.
        confusion, predictions: of the held-out images; true labels are the rows.
    """

    settings: Settings
    digits: Digits
    backend: str = "auto"
    command: str = "certiconv lenet"
    network: layers.Sequential = field(default_factory=layers.lenet)
    derivations: list[Derivation] = field(default_factory=list)
    plan_derivations: list[Derivation] = field(default_factory=list)
    emitted: Emitted | None = None
    certificate: Certificate | None = None
    trained: Network | None = None
    history: History | None = None
    confusion: list[list[int]] = field(default_factory=list)
    predictions: list[int] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)

    @property
    def accuracy(self) -> float:
        """The share of held-out images named right; only after training."""
        right = sum(row[k] for k, row in enumerate(self.confusion))
        return right / sum(map(sum, self.confusion))


def prepare(
    settings: Settings, *, data: PathLike | None = None, backend: str = "auto", command: str = "certiconv lenet"
) -> LenetRun:
    """A run that has its data and has done nothing yet.  DataError where the folder holds no usable IDX files."""
    digits = load_digits() if data is None else load_idx_folder(data)
    return LenetRun(settings, standardise(digits), backend, command)


# --- The phases ---------------------------------------------------------------------------------------------


def derive_phase(run: LenetRun) -> str:
    """Prove, for all sizes, what layers and gradients are, and that the plan computes them; Refused if that fails."""
    run.derivations = list(derivations(run.network))
    run.plan_derivations = list(plan_derivations())
    return f"{len(run.derivations) + len(run.plan_derivations)} theorems, each proved for all sizes"


def derivations(network: layers.Sequential) -> Iterator[Derivation]:
    """The reduction of its convolutions, and the gradients of each kind of layer and of the loss."""
    kinds = {type(layer): layer for layer in reversed((*network.layers, layers.CrossEntropyLoss()))}
    for layer in reversed(kinds.values()):
        if isinstance(layer, layers.Conv):
            yield derivation(layer)
        for wrt in ("input", *(name for name in _WITH_PARAMETERS if name in layer.parameter_shapes())):
            yield derivation(layer, wrt)


def plan_derivations() -> Iterator[Derivation]:
    """That the stages of LeNet's plan compute its logits, its loss and the derivative of the loss by each parameter."""
    from codegen.prove import prove_lenet
    from derive.derivation import Derivation

    words = {"forward": "the logits", "loss": "the loss"}
    for name, theorem in prove_lenet().items():
        what = words.get(name, f"the derivative of the loss by {name.removeprefix('gradient ')}")
        yield Derivation(
            title=f"LeNet's plan computes {what}",
            introduction=f"The last stage of the plan is {what}, by unfolding the stages into one another.",
            proof=theorem,
            source="d2l 7.6",
        )


def derivation(layer: layers.Layer, wrt: str | None = None) -> Derivation:
    """The derivation of a layer from a dense one, or of its gradient in ``wrt``: "input", "weight" or "bias".

    LayerError where the layer is no convolution and ``wrt`` is not given, or where it has no such parameter.
    """
    if wrt is not None:
        if wrt != "input" and wrt not in layer.parameter_shapes():
            raise LayerError(f"wrt={wrt!r}: {layer} has no {wrt}; nearest legal: 'input'")
        from derive.gradients import gradient

        return gradient(layer, wrt)
    if not isinstance(layer, layers.Conv):
        raise LayerError(f"{layer}: only a convolution is derived from a dense layer; nearest legal: wrt='input'")
    from derive.reduction import reduction

    return reduction(layer)


def emit_phase(run: LenetRun) -> str:
    """Print the module of the network."""
    run.emitted = emit(run.network, backend=run.backend, input_shape=INPUT_SHAPE, dtype=DTYPE)
    lines = run.emitted.source.count("\n")
    return f"one module of {lines} lines, sha256 {run.emitted.digest[:12]}"


def check_phase(run: LenetRun) -> str:
    """Execute the printed text exactly, and make the certificate."""
    emitted = _there(run.emitted)
    certificate = check(emitted)
    run.certificate = certificate
    return f"{len(certificate.rows)} claims, each with how it is known"


def check(emitted: Emitted) -> Certificate:
    """The certificate of an emitted text, after it was executed exactly against its stages."""
    from codegen.check import check as execute

    return execute(emitted)


def train_phase(run: LenetRun, on_epoch: Callable[[Epoch], None] | None = None) -> str:
    """Train the checked text, then look at the held-out images once more with the final parameters."""
    source = _there(run.emitted).source
    network = Network(
        run.network, seed=run.settings.seed, dtype=DTYPE, backend=run.backend, input_shape=INPUT_SHAPE, source=source
    )
    run.trained = network
    run.history = train(network, run.digits, run.settings, on_epoch=on_epoch)
    predictions = network.predict(run.digits.test_images.astype(DTYPE))
    run.predictions = predictions.tolist()
    run.confusion = confusion_matrix(run.digits.test_labels, predictions).tolist()
    return run.history.message


def report_phase(run: LenetRun, path: PathLike) -> str:
    """Write the report."""
    from runtime.report import write_report

    write_report(content(run), path)
    return f"written to {path}"


def _there(value: Value | None) -> Value:
    if value is None:
        raise RuntimeError("a phase was run before the one it needs: derive, emit, check, train, report")
    return value


# --- One after the other, with progress ---------------------------------------------------------------------


def perform(run: LenetRun, out: Path, console: Console) -> None:
    """All phases in their order; ``report.html`` and ``lenet.npz`` go to the folder, progress to the console."""
    for name, phase in (("derive", derive_phase), ("emit", emit_phase), ("check", check_phase)):
        with console.status(f"{name} ...") if console.is_terminal else contextlib.nullcontext():
            done = timed(run, name, phase)
        _tell(console, done)
    with _training(console, run.settings.epochs) as on_epoch:
        done = timed(run, "train", functools.partial(train_phase, on_epoch=on_epoch))
    _tell(console, done)
    _there(run.trained).save(out / "lenet.npz")
    _tell(console, timed(run, "report", functools.partial(report_phase, path=out / "report.html")))


def timed(run: LenetRun, name: str, phase: Callable[[LenetRun], str]) -> Phase:
    """Do one phase, and note how long it took and what came of it."""
    from runtime.report import Phase

    start = time.perf_counter()
    result = phase(run)
    done = Phase(name, time.perf_counter() - start, result)
    run.phases.append(done)
    return done


def _tell(console: Console, done: Phase) -> None:
    console.print(f"{done.name:7} {done.seconds:6.1f} s  {done.result}", markup=False, soft_wrap=True)


@contextlib.contextmanager
def _training(console: Console, epochs: int) -> Iterator[Callable[[Epoch], None]]:
    """What to call after each epoch: a bar on a terminal, else a line for every tenth of the training."""
    if not console.is_terminal:
        every = max(1, epochs // 10)
        yield lambda e: None if e.number % every else console.print(f"  {_line(e, epochs)}", soft_wrap=True)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("train  "), BarColumn(), TextColumn("{task.fields[told]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("train", total=epochs, told="")
        yield lambda e: progress.update(task, completed=e.number, told=_line(e, epochs))


def _line(e: Epoch, epochs: int) -> str:
    number = f"{e.number:>{len(str(epochs))}}"
    return f"epoch {number} of {epochs}: loss {e.loss:.4f}, training accuracy {e.train_accuracy:.4f}"


# --- The content of the report ------------------------------------------------------------------------------


def content(run: LenetRun) -> ReportContent:
    """What the report says, in the plain words and numbers that `runtime.report` takes."""
    from runtime import report

    network, emitted, history = _there(run.trained), _there(run.emitted), _there(run.history)
    certificate = _there(run.certificate)
    rows = [
        report.CertificateRow(r.statement, r.scope, r.method, _chance(r.error_probability), "; ".join(r.trusted))
        for r in certificate.rows
    ]
    return report.ReportContent(
        title="LeNet, from a dense layer to a trained network",
        data_source=run.digits.source,
        training_images=len(run.digits.train_labels),
        phases=run.phases,
        milestones=_milestones(),
        weight_pictures=_weight_pictures(),
        theorems=[*map(_card, run.derivations), *(_card(d, steps=False) for d in run.plan_derivations)],
        modules=[report.EmittedModule("LeNet for NumPy", emitted.source, _plan(emitted))],
        executions=list(_executions(certificate)),
        certificate=rows,
        settings=_settings(run),
        history=_history(history),
        evaluation=_evaluation(run),
        kernels=_kernels(network),
        trusted=[report.Trusted(name, _rests_on(name, certificate)) for name in certificate.trusted],
        command=run.command,
        seed=run.settings.seed,
        versions=versions(),
        reproduction_notes=[f"The same seed gives the same bits on one machine with one BLAS; {history.threads}."],
    )


def versions() -> list[tuple[str, str]]:
    """What the run stood on: names and versions, without paths or hosts."""
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    packages = [("certiconv", "certiconv"), ("NumPy", "numpy"), ("SymPy", "sympy"), ("Z3", "z3-solver")]
    found = [(name, _version(package)) for name, package in packages]
    python = ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    return [*found, ("BLAS", f"{blas['name']} {blas['version']}"), python]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from its source
        return "not installed"


def _milestones() -> list[Milestone]:
    from derive.dense import one_channel
    from derive.derivation import Derivation
    from derive.reduction import book_counts, book_reduction, milestones
    from derive.render.html import Html
    from derive.render.text import Text
    from runtime import report

    shown = []
    names = book_reduction(2).names
    counts = zip(book_counts(n=4, reach=1), book_counts(), milestones(one_channel(2)), strict=True)
    for small, large, milestone in counts:
        told = Derivation(milestone.name, milestone.statement, milestone.theorem, names=names)
        numbers = [("n = 4, D = 1", f"{small.value:,}"), ("n = 1000, D = 10", f"{large.value:,}")]
        formula = _statement(told, Html())
        conditions = ", ".join(Text().conditions(told.record.facts, ()))
        symbolic = str(large.expression).replace("**", "^")
        shown.append(
            report.Milestone(
                milestone.name, milestone.statement, formula, conditions, report.ALL_SIZES, symbolic, numbers
            )
        )
    return shown


def _weight_pictures() -> list[WeightPicture]:
    from derive.reduction import weight_patterns
    from runtime.report import WeightPicture

    captions = {
        "dense": ("Dense", "Every entry is a parameter of its own."),
        "invariant": ("After translation invariance", "Pairs of pixels at the same offset share their parameter."),
        "local": ("After locality", "Offsets of more than one pixel have no weight."),
    }
    pictures = []
    for name, pattern in weight_patterns(4, 1).items():
        labels = [[0 if cell is None else cell + 1 for cell in row] for row in pattern]
        title, caption = captions[name]
        pictures.append(WeightPicture(title, f"{caption} Images of 4x4 pixels.", labels, block=4))
    return pictures


def _card(derivation: Derivation, *, steps: bool = True) -> TheoremCard:
    from derive.render.html import Html
    from derive.render.text import Text
    from derive.render.text_layout import by
    from derive.render.view import namer, proved_scope
    from runtime.report import ALL_SIZES, TheoremCard

    record = derivation.record
    text = Text().naming(namer(record, derivation.names))
    proofs = (record, *record.lemmas())
    methods = Counter(by(o.method) for proof in proofs for step in proof.steps for o in step.obligations)
    return TheoremCard(
        derivation.title,
        ALL_SIZES,
        derivation.theorem.theory,
        [*text.conditions(record.facts, ()), *derivation.theorem.conditions],
        _statement(derivation, Html()),
        derivation.to_html() if steps else f"<p>{escape(derivation.introduction)} {_LONG}</p>",
        proved_scope(record, text, True, facts=False).replace("conditions above", "conditions below"),
        "; ".join(f"{count:,} side conditions {method}" for method, count in methods.items()),
    )


def _statement(derivation: Derivation, notation: Notation) -> str:
    from derive.render.html import mathml
    from derive.render.view import free_scope, namer

    record = derivation.record
    n = notation.naming(namer(record, derivation.names))
    scope = free_scope(record, n)
    first, *rest = n.chunks(record.rhs, scope)
    return " ".join(mathml(f, display=True) for f in (*n.chunks(record.lhs, scope), f"{{}} = {first}", *rest))


def _history(history: History) -> Any:
    from runtime.report import TrainingHistory

    epochs = history.epochs
    accuracy = [("training images", [e.train_accuracy for e in epochs])]
    held_out = [e.test_accuracy for e in epochs if e.test_accuracy is not None]
    if len(held_out) == len(epochs):
        accuracy.append(("held-out images", held_out))
    return TrainingHistory(history.settings.epochs, [e.loss for e in epochs], accuracy, history.interrupted)


def _evaluation(run: LenetRun) -> Any:
    from runtime.report import Evaluation, MisclassifiedDigit

    labels = run.digits.test_labels.tolist()
    wrong = [k for k, (true, found) in enumerate(zip(labels, run.predictions, strict=True)) if true != found]
    mistakes = [
        MisclassifiedDigit(run.digits.test_images[k, 0].tolist(), labels[k], run.predictions[k])
        for k in wrong[:SHOWN_MISTAKES]
    ]
    return Evaluation(run.confusion, mistakes)


def _kernels(network: Network) -> list[Any]:
    from runtime.report import KernelPicture

    convolutions = [(k, layer) for k, layer in enumerate(network.sequential.layers) if isinstance(layer, layers.Conv)]
    caption = "A row for each output channel, a column for each input channel; not flipped: cross-correlation."
    return [
        KernelPicture(f"Layer {k}: {type(layer).__name__}", caption, network.params[f"{k}.weight"].tolist())
        for k, layer in convolutions
    ]


def _settings(run: LenetRun) -> list[tuple[str, str]]:
    s = run.settings
    return [
        ("optimiser", "plain stochastic gradient descent"),
        ("learning rate", f"{s.lr:g}, falling linearly to 0"),
        ("batch", str(s.batch)),
        ("epochs", str(s.epochs)),
        ("initial parameters", "Glorot uniform, gain 4 before a sigmoid, biases 0"),
        ("images", "standardised with mean and deviation of the training images"),
        ("dtype", DTYPE),
        ("chosen on", "a validation part of the training images"),
    ]


def _plan(emitted: Emitted) -> str:
    from codegen.module import formula

    return "\n".join(formula(stage) for stage in emitted.plan.stages)


def _executions(certificate: Certificate) -> Iterator[Any]:
    """The rows whose scope counts cases, as `codegen.certificate.cases` writes it."""
    from runtime.report import ExactExecution

    for row in certificate.rows:
        if found := re.fullmatch(r"(\d+)(?: of (\d+))? cases?", row.scope):
            yield ExactExecution(row.statement, int(found[1]), int(found[2]) if found[2] else None)


def _chance(probability: float | None) -> str:
    if probability is None:
        return "no bound is known"
    return "0" if probability == 0 else f"≤ {probability:.1e}"


def _rests_on(name: str, certificate: Certificate) -> str:
    numbers = [str(k) for k, row in enumerate(certificate.rows, 1) if name in row.trusted]
    return f"for claim{'' if len(numbers) == 1 else 's'} {', '.join(numbers)} of the certificate."
