"""What the report of `certiconv lenet` says: a finished `LenetRun` in the plain words and numbers of `runtime.report`.

Nothing is computed here that the run does not hold; a figure that the run lacks is not in the report.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

from derive import layers
from runtime.lenet import DTYPE, there
from runtime.network import Network
from runtime.train import History, Settings

if TYPE_CHECKING:
    from codegen import Emitted
    from codegen.certificate import Certificate
    from derive.derivation import Derivation
    from derive.render.formula import Notation
    from runtime.lenet import LenetRun
    from runtime.report import EmittedModule, Milestone, ReportContent, TheoremCard, WeightPicture

SHOWN_MISTAKES = 12
_ROUNDED = {
    "fully connected": "10^12",
    "re-indexed": "10^12",
    "translation invariant": "4 * 10^6",
    "local": "4 D^2 = 400",
}
_LONG = "Its steps carry the formulas of the whole network, megabytes of them, and are left out here."


def content(run: LenetRun) -> ReportContent:
    """What the report says, in the plain words and numbers that `runtime.report` takes."""
    from runtime import report

    network, emitted, history = there(run.trained), there(run.emitted), there(run.history)
    certificate = there(run.certificate)
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
        theorems=[*map(_card, run.derivations), *(_card(d, steps=False) for d in run.plan_derivations.values())],
        modules=[_module(emitted, network)],
        executions=list(_executions(certificate)),
        certificate=rows,
        settings=_settings(run),
        history=_history(history),
        evaluation=_evaluation(run),
        kernels=_kernels(network),
        trusted=[report.Trusted(name, _rests_on(name, certificate)) for name in certificate.trusted],
        command=run.command,
        seed=run.settings.seed,
        versions=versions(network),
        reproduction_notes=[_repeated(network, history)],
        computed_by=network.border.where,
    )


def _module(emitted: Emitted, network: Network) -> EmittedModule:
    """The text; where it holds CUDA, also who ran it when."""
    from runtime.report import EmittedModule

    if emitted.backend == "numpy":
        return EmittedModule("LeNet for NumPy", emitted.source, _plan(emitted))
    note = (
        f"The string SOURCE in this text is CUDA C++, with {len(emitted.kernels)} kernels. For the check every thread "
        "of them was run on the CPU by runtime.simt, which watches every access; the training was computed by "
        f"{network.border.where}."
    )
    return EmittedModule("LeNet for CuPy", emitted.source, _plan(emitted), note)


def _repeated(network: Network, history: History) -> str:
    """What it takes for the same bits."""
    if network.backend == "numpy":
        return f"The same seed gives the same bits on one machine with one BLAS; {history.threads}."
    return (
        "The same seed gives the same bits on one GPU with one version of CUDA: sums over the batch are formed in "
        "shares, which are added in order."
    )


def versions(network: Network) -> list[tuple[str, str]]:
    """What the run stood on: names and versions, without paths or hosts."""
    packages = [("certiconv", "certiconv"), ("NumPy", "numpy"), ("SymPy", "sympy"), ("Z3", "z3-solver")]
    found = [(name, _version(package)) for name, package in packages]
    python = ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    if network.backend == "cupy":
        from runtime.simt.toolchain import version

        found.append(("g++, for the check", version()))
    return [*found, *network.border.versions, python]


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
        numbers = [
            ("n = 4, D = 1", f"{small.value:,}"),
            ("n = 1000, D = 10", f"{large.value:,}"),
            ("d2l rounds to", _ROUNDED.get(milestone.name, "")),
        ]
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
    patterns = weight_patterns(4, 1)
    # An offset that stays keeps the number, and so the colour, that it had before locality.
    shared = zip(patterns["local"], patterns["invariant"], strict=True)
    local = [[None if near is None else any_ for near, any_ in zip(*rows, strict=True)] for rows in shared]
    for name, pattern in {**patterns, "local": local}.items():
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
        ("computed by", there(run.trained).border.where),
        *([("chosen on", "five parts of the training images, each held back in turn")] if _as_chosen(run) else []),
    ]


def _as_chosen(run: LenetRun) -> bool:
    """Whether these are the settings, and the digits, that the choice was about."""
    return "--data" not in run.command and replace(run.settings, seed=0) == Settings()


def _plan(emitted: Emitted) -> str:
    from codegen.wording import formula

    return "\n".join(formula(stage) for stage in emitted.plan.stages)


def _executions(certificate: Certificate) -> Iterator[Any]:
    """The rows known by exact execution, with their cases as `codegen.certificate.cases` writes them.

    Other rows may count cases, too: those of the same calls, looked at for another reason, which are no further ones.
    """
    from runtime.report import ExactExecution

    for number, row in enumerate(certificate.rows, 1):
        found = re.fullmatch(r"(\d+)(?: of (\d+))? cases?", row.scope)
        if found and row.method.startswith("Exact execution"):
            clause = re.split(r"[:.]", row.statement)[0]
            subject = f"{clause[:1].lower()}{clause[1:]} (claim {number})"
            yield ExactExecution(subject, int(found[1]), int(found[2]) if found[2] else None)


def _chance(probability: float | None) -> str:
    if probability is None:
        return "no bound is known"
    return "0" if probability == 0 else f"≤ {probability:.1e}"


def _rests_on(name: str, certificate: Certificate) -> str:
    numbers = [str(k) for k, row in enumerate(certificate.rows, 1) if name in row.trusted]
    return f"for claim{'' if len(numbers) == 1 else 's'} {', '.join(numbers)} of the certificate."
