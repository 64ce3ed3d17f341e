"""The main job, as `certiconv lenet` runs it: derive, emit, check, train, report.

Each phase is one function that takes a `LenetRun`, adds what it found, and returns one line that says what came of it.
What is trained is the very text that was checked, and the theorems are proved afresh, not read from a file.  The report
says only what the run holds.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from derive import layers
from derive.legality import LayerError
from derive.obligations import Refused
from runtime.cache import PathLike
from runtime.compile import certificate_of, emit
from runtime.data import Digits, load_digits, load_idx_folder, standardise
from runtime.device import printed_for
from runtime.network import Network
from runtime.train import Epoch, History, Settings, confusion_matrix, train

if TYPE_CHECKING:
    from rich.console import Console

    from codegen import Emitted
    from codegen.certificate import Certificate
    from derive.derivation import Derivation
    from runtime.report import Phase

Value = TypeVar("Value")

INPUT_SHAPE = (1, 1, 28, 28)
"""What LeNet is emitted for; the batch size stays free."""

DTYPE = "float32"
_WITH_PARAMETERS = ("weight", "bias")


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
    plan_derivations: dict[str, Derivation] = field(default_factory=dict)
    emitted: Emitted | None = None
    certificate: Certificate | None = None
    trained: Network | None = None
    history: History | None = None
    confusion: list[list[int]] = field(default_factory=list)
    predictions: list[int] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    saved: Path | None = None

    @property
    def accuracy(self) -> float:
        """The share of held-out images named right; only after training."""
        right = sum(row[k] for k, row in enumerate(self.confusion))
        return right / sum(map(sum, self.confusion))


def prepare(
    settings: Settings, *, data: PathLike | None = None, backend: str = "auto", command: str = "certiconv lenet"
) -> LenetRun:
    """A run that has its data and has done nothing yet.

    Raises:
        DataError: the folder holds no usable IDX files.
        SimtUnavailable: for CuPy, where there is no g++ for the check; before anything is proved.
    """
    if backend == "cupy":
        from runtime.simt.toolchain import compiler

        compiler()
    digits = load_digits() if data is None else load_idx_folder(data)
    return LenetRun(settings, standardise(digits), backend, command)


# --- The phases ---------------------------------------------------------------------------------------------


def derive_phase(run: LenetRun) -> str:
    """Prove, for all sizes, what layers and gradients are, and that the plan computes them; Refused if that fails."""
    run.derivations = list(derivations(run.network))
    run.plan_derivations = plan_derivations(printed_for(run.backend))
    return f"{len(run.derivations) + len(run.plan_derivations)} theorems, each proved for all sizes"


def derivations(network: layers.Sequential) -> Iterator[Derivation]:
    """The reduction of its convolutions, and the gradients of each kind of layer and of the loss."""
    kinds = {type(layer): layer for layer in reversed((*network.layers, layers.CrossEntropyLoss()))}
    for layer in reversed(kinds.values()):
        if isinstance(layer, layers.Conv):
            yield derivation(layer)
        for wrt in ("input", *(name for name in _WITH_PARAMETERS if name in layer.parameter_shapes())):
            yield derivation(layer, wrt)


def plan_derivations(backend: str = "numpy") -> dict[str, Derivation]:
    """That the stages of LeNet's plan compute its logits, its loss and each derivative of it, by output of the plan."""
    from codegen.prove import prove_lenet, prove_lenet_device
    from derive.derivation import Derivation

    words = {"forward": "the logits", "loss": "the loss"}
    told: dict[str, Derivation] = {}
    for name, theorem in (prove_lenet_device() if backend == "cupy" else prove_lenet()).items():
        what = words.get(name, f"the derivative of the loss by {name.removeprefix('gradient ')}")
        told[name] = Derivation(
            title=f"LeNet's plan computes {what}",
            introduction=f"The last stage of the plan is {what}, by unfolding the stages into one another.",
            proof=theorem,
            source="d2l 7.6",
        )
    return told


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
    agree(run)
    run.certificate = certificate_of(there(run.emitted))
    how = "" if there(run.emitted).backend == "numpy" else "every thread of the CUDA text was run on the CPU; "
    return (
        f"{len(run.certificate.rows)} claims, each with how it is known; {how}"
        f"the theorems quoted are those proved above"
    )


def agree(run: LenetRun) -> None:
    """The theorems that the text quotes are the very ones that this run proved, by the digests of their statements.

    Raises:
        derive.obligations.Refused: one is missing, or says something else.
    """
    quoted = there(run.emitted).theorems
    for output in there(run.emitted).plan.outputs:
        told = run.plan_derivations.get(output)
        if told is None or quoted.get(output) != told.digest:
            raise Refused(f"the theorem about {output} that was just proved is not the one that the text quotes")


def train_phase(run: LenetRun, on_epoch: Callable[[Epoch], None] | None = None, out: Path = Path()) -> str:
    """Train the checked text and save its parameters, then look at the held-out images once more with them."""
    source = there(run.emitted).source
    network = Network(
        run.network, seed=run.settings.seed, dtype=DTYPE, backend=run.backend, input_shape=INPUT_SHAPE, source=source
    )
    run.trained = network
    run.history = train(network, run.digits, run.settings, on_epoch=on_epoch)
    network.save(out / "lenet.npz")
    run.saved = out / "lenet.npz"
    predictions = network.predict(network.border.place(run.digits.test_images.astype(DTYPE)))
    run.predictions = predictions.tolist()
    run.confusion = confusion_matrix(run.digits.test_labels, predictions).tolist()
    return run.history.message


def report_phase(run: LenetRun, path: PathLike) -> str:
    """Write the report."""
    from runtime.lenet_report import content
    from runtime.report import write_report

    write_report(content(run), path)
    return f"written to {path}"


def there(value: Value | None) -> Value:
    """What an earlier phase left; raises RuntimeError where it was not run."""
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
        done = timed(run, "train", functools.partial(train_phase, on_epoch=on_epoch, out=out))
    _tell(console, done)
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
