"""A network's text, executed exactly: its public functions on elements of a prime field, against its own stages.

A *draw* is one set of images, labels and parameters, every number uniform in the field, given to the text as object
arrays and to ``derive.evaluate`` as tables.  A *trial* is a sequence of calls on one workspace with other data each
time, so that what a call leaves behind is there to be found by the next.  Every number that comes back has to be the
number that the stages give; it has to lie in an array of its own; and what was passed in has to be as it was, except
the parameters of an SGD step, which have to be ``parameter - lr * gradient``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from random import Random
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from codegen.field import Element, Objects, array, drawn
from codegen.plan import BATCH, Plan, number
from codegen.trace import HOOK, Recorder, differs, failing_line, first_difference, position, stage_at, traced
from derive.evaluate import Evaluator, Table, Undefined
from derive.terms import Tensor

Run = Callable[..., ModuleType]
FUNCTIONS = ("forward", "loss", "gradients", "sgd_step")


@dataclass(frozen=True)
class Finding:
    """What a text does that its stages do not say; ``text`` is the whole of it."""

    text: str
    function: str
    output: str | None = None
    index: tuple[int, ...] = ()
    stage: str | None = None


class Refuted(Exception):  # noqa: N818
    """A text that is not what its plan says."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


@dataclass(frozen=True)
class Trial:
    """Calls on one workspace, each with a new draw; ``block`` None lets the text make a workspace itself."""

    batch: int
    block: int | None
    calls: tuple[str, ...]

    def text(self) -> str:
        """For a certificate."""
        blocks = "no workspace given" if self.block is None else f"blocks of {self.block}"
        return f"batch {self.batch}, {blocks}: {', '.join(self.calls)}"


class Expected(NamedTuple):
    """What an output has to be: the stage it comes from, and its values in the order of the output's cells."""

    shape: tuple[int, ...]
    values: list[Any]


@dataclass
class Draw:
    """One set of data, as arrays for the text and, in ``values``, as tables for the stages."""

    x: Objects
    labels: npt.NDArray[np.int64]
    parameters: dict[str, Objects]
    rate: Element
    values: Evaluator
    _copies: dict[str, Objects] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, npt.NDArray[Any]]:
        """Every array that is passed in, by name."""
        return {"x": self.x, "y": self.labels, **self.parameters}


def draw(plan: Plan, kind: type[Element], batch: int, rng: Random) -> Draw:
    """Images, labels and parameters for a network's plan, uniform and independent."""
    inputs = {t.name: t for t in plan.inputs}
    shapes = {name: shape(t, batch) for name, t in inputs.items()}
    numbers = {name: drawn(rng, int(np.prod(s))) for name, s in shapes.items()}
    classes = shapes["T"][1]
    labels = [rng.randrange(classes) for _ in range(batch)]
    numbers["T"] = [int(c == label) for label in labels for c in range(classes)]
    tables = {name: Table(tuple((0, n) for n in shapes[name]), list(v)) for name, v in numbers.items()}
    return Draw(
        array(kind, numbers["X"], shapes["X"]),
        np.array(labels, dtype=np.int64),
        {public: array(kind, numbers[name], shapes[name]) for public, name in plan.parameters.items()},
        kind(rng.randrange(1, 2**61 - 1)),
        Evaluator({"N": batch}, tables, kind.numbers),
    )


def shape(t: Tensor, batch: int) -> tuple[int, ...]:
    """The sizes of a tensor for this batch."""
    return tuple(batch if hi - lo == BATCH else number(hi - lo) for lo, hi in t.box)


def expected(plan: Plan, function: str, data: Draw) -> dict[str, Expected]:
    """What a function has to give, by the stages; the parameters after a step are among its outputs."""
    names = {"forward": ["forward"], "loss": ["loss"], "sgd_step": ["loss"]}.get(function, [])
    outputs = {name: _stage_values(plan, plan.outputs[name], data) for name in names}
    if function == "forward":
        outputs["forward"] = _turned(outputs["forward"])
    gradients = {key: _stage_values(plan, plan.outputs[f"gradient {key}"], data) for key in plan.parameters}
    if function == "gradients":
        return gradients
    if function == "sgd_step":
        for key, gradient in gradients.items():
            pairs = zip(data.parameters[key].ravel(), gradient.values, strict=True)
            after = [p - data.rate * g for p, g in pairs]
            outputs[f"{key} after the step"] = Expected(gradient.shape, [p.value for p in after])
    return outputs


def _stage_values(plan: Plan, stage: str, data: Draw) -> Expected:
    table = data.values.table(plan.by_name[stage].tensor)
    return Expected(tuple(high - low for low, high in table.box), table.values)


def _turned(e: Expected) -> Expected:
    """Logits are stored a column an image and given a row an image."""
    rows, columns = e.shape
    return Expected((columns, rows), [e.values[n * columns + b] for b in range(columns) for n in range(rows)])


def call(module: ModuleType, function: str, data: Draw, work: object) -> dict[str, Any]:
    """What a function gives, under the names of ``expected``."""
    run = getattr(module, function)
    if function == "forward":
        return {"forward": run(data.x, data.parameters, work)}
    if function == "gradients":
        return dict(run(data.x, data.labels, data.parameters, work))
    if function == "loss":
        return {"loss": run(data.x, data.labels, data.parameters, work)}
    loss = run(data.x, data.labels, data.parameters, data.rate, work)
    return {"loss": loss, **{f"{key} after the step": array for key, array in data.parameters.items()}}


# --- running a trial ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Text:
    """A text with its plan, the field it runs in, and how it is turned into a module."""

    source: str
    plan: Plan
    kind: type[Element]
    run: Run

    def module(self, source: str | None = None) -> ModuleType:
        """The text as a module whose rational constants are elements."""
        return self.run(self.source if source is None else source, ratio=self.kind.ratio)


def run_trial(text: Text, trial: Trial, seed: str) -> None:
    """Run a trial and compare everything; raises Refuted at the first difference, Undefined for an unlucky draw."""
    draws = [draw(text.plan, text.kind, trial.batch, Random(f"{seed} {k}")) for k in range(len(trial.calls))]
    run_calls(text, trial, draws)


def run_calls(text: Text, trial: Trial, draws: list[Draw]) -> None:
    """Run a trial on these draws."""
    wanted = [expected(text.plan, function, data) for function, data in zip(trial.calls, draws, strict=True)]
    module = text.module()
    work = _workspace(module, trial)
    for k, (function, data) in enumerate(zip(trial.calls, draws, strict=True)):
        before = {name: a.copy() for name, a in data.arguments.items()}
        where = f"{function}, call {k + 1} of the trial [{trial.text()}]"
        try:
            found = call(module, function, data, work)
        except Exception as error:  # noqa: BLE001 - whatever a wrong text may do is a finding
            if isinstance(error, Undefined):
                raise
            raise Refuted(_crash(text, function, error, module, where)) from error
        wrong = _compare(found, wanted[k])
        if wrong is not None:
            raise Refuted(_blame(text, trial, draws, k, wrong, before, where))
        _check_arrays(function, data, before, found, work, where)


def _workspace(module: ModuleType, trial: Trial) -> Any:
    return None if trial.block is None else module.Workspace(trial.batch, object, block=trial.block)


def _compare(found: Mapping[str, Any], wanted: Mapping[str, Expected]) -> tuple[str, tuple[int, ...], str] | None:
    """The first output that differs, where, and how."""
    for name, e in wanted.items():
        values = np.empty((), dtype=object)
        if isinstance(found.get(name), np.ndarray):
            values = found[name]
        else:
            values[()] = found.get(name)
        if values.shape != e.shape:
            return name, (), f"has the shape {values.shape}, not {e.shape}"
        place = differs(values.ravel().tolist(), e.values)
        if place is not None:
            index = position(Table(tuple((0, n) for n in e.shape), e.values), place)
            return name, index, f"is {values[index]}, by the stages {e.values[place]}"
    return None


def _check_arrays(
    function: str, data: Draw, before: Mapping[str, npt.NDArray[Any]], found: Mapping[str, Any], work: Any, where: str
) -> None:
    """Results lie in arrays of their own, arguments are as they were."""
    kept = dict(_buffers(work))
    for name, argument in data.arguments.items():
        if function == "sgd_step" and name in data.parameters:
            continue
        kept[f"the argument {name}"] = argument
        if differs(argument.ravel().tolist(), [getattr(v, "value", v) for v in before[name].ravel().tolist()]) is not None:
            raise Refuted(Finding(f"{where}: the argument {name} was changed", function, name))
    for name, result in found.items():
        own = isinstance(result, np.ndarray) and not name.endswith(" after the step")
        shared = [key for key, buffer in kept.items() if own and np.may_share_memory(result, buffer)]
        if shared:
            raise Refuted(Finding(f"{where}: the result {name} lies in {shared[0]}, not in an array of its own", function, name))


def _buffers(owner: Any, prefix: str = "work") -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Every array of a workspace and its blocks."""
    for name, value in vars(owner).items() if owner is not None else ():
        if isinstance(value, np.ndarray):
            yield f"{prefix}.{name}", value
    for _, _, block in getattr(owner, "blocks", ()):
        yield from _buffers(block, "block")


# --- saying what is wrong -----------------------------------------------------------------------------------------


def _crash(text: Text, function: str, error: Exception, module: ModuleType, where: str) -> Finding:
    line = failing_line(error, module)
    names = list(text.plan.by_name)
    stage = None if line is None else stage_at(text.source, line, names)
    at = "" if line is None else f" at line {line}: {text.source.splitlines()[line - 1].strip()!r}"
    of = "" if stage is None else f", in stage {stage} ({text.plan.by_name[stage].template})"
    message = f"{where}: {type(error).__name__}: {error}{at}{of}"
    return Finding(message, function, stage=stage)


def _blame(
    text: Text, trial: Trial, draws: list[Draw], last: int, wrong: tuple[str, tuple[int, ...], str],
    before: Mapping[str, npt.NDArray[Any]], where: str,
) -> Finding:  # fmt: skip
    """Run the calls again up to the wrong one with every stage watched, and name the first stage that is wrong."""
    output, index, how = wrong
    recorder = Recorder()
    module = text.module(traced(text.source, arrays_of(text.plan)))
    module.__dict__[HOOK] = recorder
    work = _workspace(module, trial)
    _restore(draws[last], before)
    for function, data in zip(trial.calls[: last + 1], draws, strict=False):
        recorder.seen.clear()
        call(module, function, data, work)
    difference = first_difference(text.plan, recorder.seen, draws[last].values)
    at = f"[{', '.join(map(str, index))}]" if index else ""
    culprit = "every stage is its expression: the skeleton around them is wrong"
    if difference is not None:
        culprit = f"the first stage that is wrong is {difference.text()}"
    message = f"{where}: {output}{at} {how}; {culprit}"
    return Finding(message, trial.calls[last], output, index, None if difference is None else difference.stage.name)


def _restore(data: Draw, before: Mapping[str, npt.NDArray[Any]]) -> None:
    for name, argument in data.arguments.items():
        argument[...] = before[name]


def arrays_of(plan: Plan) -> dict[str, str]:
    """How a stage is reached in the functions of a network's text."""
    return {s.name: f"{'v' if plan.phases[s.name] == 'block' else 'w'}.{s.name}" for s in plan.stages}
