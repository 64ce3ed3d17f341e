"""A text executed exactly and compared with its own stages: what is asked of each call, and what is said when it fails.

A *trial* is a sequence of calls on one workspace with other data each time, so that what a call leaves behind is there
to be found by the next.  Every number that comes back has to be the number that the stages give; it has to lie in an
array of its own; and what was passed in has to be as it was.  ``Data`` is one set of arguments, as arrays for the text
and as tables for the stages; ``codegen.network_data`` and ``codegen.layer_data`` draw them.
"""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from codegen.plan import BATCH, Plan, number
from codegen.products import NUMPY
from codegen.trace import HOOK, Recorder, differs, failing_line, first_difference, stage_at, traced
from derive.evaluate import Evaluator, Undefined
from derive.terms import Tensor

Run = Callable[..., ModuleType]
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Finding:
    """What a text does that its stages do not say; ``text`` is the whole of it."""

    text: str
    function: str
    output: str | None = None
    index: tuple[int, ...] = ()
    stage: str | None = None


class Refuted(Exception):
    """A text that is not what its plan says."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.text)
        self.finding = finding


@dataclass(frozen=True)
class Trial:
    """Calls on one workspace, each with new data; ``block`` None lets the text make a workspace itself."""

    batch: int
    block: int | None
    calls: tuple[str, ...]

    def text(self) -> str:
        """For a certificate."""
        blocks = "no workspace given" if self.block is None else f"blocks of {self.block}"
        return f"batch {self.batch}, {blocks}: {', '.join(self.calls)}"


class Expected(NamedTuple):
    """What an output has to be, in the order of its cells."""

    shape: tuple[int, ...]
    values: list[Any]


class Data(ABC):
    """One set of arguments."""

    @property
    @abstractmethod
    def arguments(self) -> Arrays:
        """Every array that is passed in, by name."""

    @abstractmethod
    def expected(self, function: str) -> dict[str, Expected]:
        """What a function has to give, by the stages."""

    @abstractmethod
    def call(self, module: ModuleType, function: str, work: Any) -> dict[str, Any]:
        """What a function gives, under the same names."""

    @abstractmethod
    def workspace(self, module: ModuleType, function: str, trial: Trial) -> Any:
        """A workspace for this function and trial."""

    @abstractmethod
    def origin(self, function: str) -> tuple[Plan, Evaluator] | None:
        """The plan that a function was printed from, and the values of its stages for these arguments."""

    def written(self, function: str) -> frozenset[str]:
        """The arguments that a function writes: they are results too."""
        return frozenset()


def shape(t: Tensor, batch: int) -> tuple[int, ...]:
    """The sizes of a tensor for this batch."""
    return tuple(batch if hi - lo == BATCH else number(hi - lo) for lo, hi in t.box)


def stage_values(plan: Plan, stage: str, values: Evaluator) -> Expected:
    """The values of a stage."""
    table = values.table(plan.by_name[stage].tensor)
    return Expected(tuple(high - low for low, high in table.box), table.values)


def batch_first(e: Expected) -> Expected:
    """A stage has the batch as its last axis, a result as its first."""
    batch = e.shape[-1]
    return Expected((batch, *e.shape[:-1]), [e.values[k] for b in range(batch) for k in range(b, len(e.values), batch)])


# --- running a trial ----------------------------------------------------------------------------------------------


@contextmanager
def uncollected() -> Iterator[None]:
    """Without the search for cyclic garbage: it would visit millions of elements again and again, which make no cycles.

    A third of the time of a check went into it; what is left behind is collected afterwards.
    """
    searching = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if searching:
            gc.enable()


@dataclass(frozen=True)
class Text:
    """A text, how it is turned into a module, and what makes its rational constants (None: its own way).

    Where they are replaced, the text runs on elements of a field, and its matrix products are those of
    ``codegen.products``.
    """

    source: str
    run: Run
    ratio: Callable[[int, int, Any], Any] | None = None
    bands: frozenset[str] = frozenset()  # the functions whose stages are those of a band, not of the whole result

    def module(self, source: str | None = None) -> ModuleType:
        """The text as a module."""
        module = self.run(self.source if source is None else source, ratio=self.ratio)
        if self.ratio is not None and "np" in vars(module):
            module.__dict__["np"] = NUMPY
        return module


def run_calls(text: Text, trial: Trial, given: Sequence[Data]) -> None:
    """Run a trial on these data; raises Refuted at the first difference, Undefined where the data are unlucky."""
    wanted = [data.expected(function) for function, data in zip(trial.calls, given, strict=True)]
    module, work = _begun(text, trial, given[0])
    for k, (function, data) in enumerate(zip(trial.calls, given, strict=True)):
        before = {name: a.copy() for name, a in data.arguments.items()}
        where = f"{function}, call {k + 1} of the trial [{trial.text()}]"
        try:
            found = data.call(module, function, work)
        except Undefined:
            raise
        except Exception as error:  # whatever a wrong text may do is a finding
            raise Refuted(_crash(text, data, function, error, module, where)) from error
        wrong = _compare(found, wanted[k])
        if wrong is not None:
            raise Refuted(_blame(text, trial, given[: k + 1], wrong, before, where))
        _check_arrays(data, function, before, found, work, where)


def _begun(text: Text, trial: Trial, data: Data) -> tuple[ModuleType, Any]:
    """The module and a workspace of it."""
    module = None
    try:
        module = text.module()
        return module, data.workspace(module, trial.calls[0], trial)
    except Exception as error:  # whatever a wrong text may do is a finding
        where = f"{trial.calls[0]}, before the first call of the trial [{trial.text()}]"
        raise Refuted(_crash(text, data, trial.calls[0], error, module, where)) from error


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
            index = tuple(int(k) for k in np.unravel_index(place, e.shape))
            return name, index, f"is {values[index]}, by the stages {e.values[place]}"
    return None


def _check_arrays(data: Data, function: str, before: Arrays, found: Mapping[str, Any], work: Any, where: str) -> None:
    """Results lie in arrays of their own, arguments are as they were."""
    kept = dict(_buffers(work))
    for name, argument in data.arguments.items():
        if name in data.written(function):
            continue
        kept[f"the argument {name}"] = argument
        if not np.array_equal(argument, before[name]):
            raise Refuted(Finding(f"{where}: the argument {name} was changed", function, name))
    for name, result in found.items():
        if not isinstance(result, np.ndarray) or any(result is argument for argument in data.arguments.values()):
            continue
        shared = [key for key, buffer in kept.items() if np.may_share_memory(result, buffer)]
        if shared:
            text = f"{where}: the result {name} lies in {shared[0]}, not in an array of its own"
            raise Refuted(Finding(text, function, name))


def _buffers(owner: Any, prefix: str = "work") -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Every array of a workspace and its blocks."""
    if owner is None:
        return
    if isinstance(owner, tuple):
        for k, part in enumerate(owner):
            yield from _buffers(part, f"{prefix}[{k}]")
        return
    for name, value in vars(owner).items():
        if isinstance(value, np.ndarray):
            yield f"{prefix}.{name}", value
    for _, _, block in getattr(owner, "blocks", ()):
        yield from _buffers(block, "block")


# --- saying what is wrong -----------------------------------------------------------------------------------------


def _crash(text: Text, data: Data, function: str, error: Exception, module: ModuleType | None, where: str) -> Finding:
    line = None if module is None else failing_line(error, module)
    origin = data.origin(function)
    message = f"{where}: {type(error).__name__}: {error}"
    if line is None:
        return Finding(message, function)
    message += f" at line {line}: {text.source.splitlines()[line - 1].strip()!r}"
    plan = None if origin is None else origin[0]
    stage = None if plan is None else stage_at(text.source, line, list(plan.by_name))
    if plan is not None and stage is not None:
        message += f", in stage {stage} ({plan.by_name[stage].template})"
    return Finding(message, function, stage=stage)


def _blame(
    text: Text, trial: Trial, given: Sequence[Data], wrong: tuple[str, tuple[int, ...], str], before: Arrays, where: str
) -> Finding:
    """Run the calls again up to the wrong one with every stage watched, and name the first stage that is wrong."""
    output, index, how = wrong
    function, data = trial.calls[len(given) - 1], given[-1]
    origin = data.origin(function)
    at = f"[{', '.join(map(str, index))}]" if index else ""
    message = f"{where}: {output}{at} {how}"
    if function.partition(" ")[0] in text.bands:
        return Finding(f"{message}; it is formed in bands of rows, so no stage is named", function, output, index)
    if origin is None:
        return Finding(message, function, output, index)
    for name, argument in data.arguments.items():
        argument[...] = before[name]
    recorder = _watched(text, trial, given, origin[0])
    difference = first_difference(origin[0], recorder.seen, origin[1])
    if difference is None:
        message += "; every stage is its expression: what is around the stages is wrong"
        return Finding(message, function, output, index)
    message += f"; the first stage that is wrong is {difference.text()}"
    return Finding(message, function, output, index, difference.stage.name)


def _watched(text: Text, trial: Trial, given: Sequence[Data], plan: Plan) -> Recorder:
    """What every stage held in the last of these calls, or when the workspace was made."""
    recorder = Recorder()
    module = text.module(traced(text.source, plan.arrays))
    module.__dict__[HOOK] = recorder
    work = given[0].workspace(module, trial.calls[0], trial)
    made = dict(recorder.seen)
    for function, data in zip(trial.calls, given, strict=False):
        recorder.seen = {name: list(arrays) for name, arrays in made.items()}
        data.call(module, function, work)
    return recorder
