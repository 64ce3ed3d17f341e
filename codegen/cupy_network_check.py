"""``check_cupy_network``: a network's module for CuPy executed exactly, its kernels by an executor that is handed in.

Over the integers modulo p, with exp, log and sigmoid as fixed pseudo-random functions, forward, loss, every gradient
and a step of SGD have to be what the stages of the plan give, number for number: on a workspace that other data went
through before as on none, with places of 32 bits and of 64, sums over the batch cut into short shares.  The executor
watches every access (``codegen.cupy_check``).  The loss has a maximum in it, which is no rational function: each class
is once the largest.  What exact numbers leave out, exp, log and sigmoid as a GPU compiles them and NaN, is run in the
dtype itself (``codegen.cupy_network_real``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from codegen import cupy_network_real, network_data
from codegen.certificate import Certificate, Row, cases, certificate, digest
from codegen.chance import (
    ARITHMETIC,
    DEGREE,
    EVALUATOR,
    FIELD,
    HASH,
    applications,
    lucky,
    survival,
    with_largest,
)  # fmt: skip
from codegen.cupy_check import APART, CUT, EXECUTOR, Executor, elements, made, representatives
from codegen.execution import Arrays, Data, Expected, Finding, Refuted, Text, Trial, run_calls
from codegen.field import Element, Objects, P, keyed
from codegen.network_data import AFTER, NetworkData
from codegen.plan import Plan
from derive.evaluate import Evaluator, Table

NARROW_TRIALS = (Trial(3, 3, ("loss_and_gradients", "sgd_step")), Trial(2, None, ("loss",)))
WIDE_TRIALS = (Trial(2, 2, ("sgd_step", "forward")), Trial(1, None, ("gradients",)))
"""With places of 32 and of 64 bits; a trial with a block works on a workspace, one without makes its own."""
REAL_BATCH = 2


@dataclass
class DeviceNetworkData(Data):
    """Network data as arrays of representatives modulo p: what the executor takes for elements of the field."""

    exact: NetworkData
    kind: type[Element]

    def __post_init__(self) -> None:
        self.passed = {name: representatives(a) for name, a in self.exact.arguments.items() if name != "y"}

    @property
    def arguments(self) -> Arrays:
        """See ``Data``."""
        return {**self.passed, "y": self.exact.labels}

    def expected(self, function: str) -> dict[str, Expected]:
        """See ``Data``."""
        return self.exact.expected(function)

    def call(self, module: ModuleType, function: str, work: Any) -> dict[str, Any]:
        """See ``Data``; the loss of a step alone may lie in the workspace."""
        x, params = self.passed["x"], {name: a for name, a in self.passed.items() if name != "x"}
        run = getattr(module, function)
        if function == "forward":
            found = {"forward": run(x, params, work)}
        elif function == "loss":
            found = {"loss": run(x, self.exact.labels, params, work)}
        elif function == "gradients":
            found = dict(run(x, self.exact.labels, params, work))
        elif function == "loss_and_gradients":
            loss, gradients = run(x, self.exact.labels, params, work)
            found = {"loss": loss, **gradients}
        else:
            rate = module.DTYPE.type(self.exact.rate.value % P)
            loss = run(x, self.exact.labels, params, rate, work)
            return {"loss": self._taken(loss), **{key + AFTER: self._taken(a) for key, a in params.items()}}
        _check_apart(found, work, function)
        return {name: self._taken(a) for name, a in found.items()}

    def workspace(self, module: ModuleType, function: str, trial: Trial) -> Any:
        """See ``Data``."""
        return None if trial.block is None else module.Workspace(trial.batch)

    def origin(self, function: str) -> tuple[Plan, Evaluator] | None:
        """Nothing is told of stages: several share a kernel."""
        return None

    def written(self, function: str) -> frozenset[str]:
        """See ``Data``."""
        return self.exact.written(function)

    def _taken(self, a: npt.NDArray[Any]) -> Objects:
        return elements(self.kind, a)


def _check_apart(found: Arrays, work: Any, function: str) -> None:
    """Results lie in no array of the workspace."""
    buffers = {} if work is None else {k: v for k, v in vars(work).items() if isinstance(v, np.ndarray)}
    for name, result in found.items():
        shared = [key for key, buffer in buffers.items() if np.may_share_memory(result, buffer)]
        if shared:
            raise Refuted(Finding(f"{function}: the result {name} lies in work.{shared[0]}", function, name))


def check_cupy_network(
    source: str,
    plan: Plan,
    run: Executor,
    *,
    subject: str = "a network",
    proofs: Iterable[Row] = (),
    narrow: Sequence[Trial] = NARROW_TRIALS,
    wide: Sequence[Trial] = WIDE_TRIALS,
    real: int | None = REAL_BATCH,
) -> Certificate:
    """Execute the text of a network for CuPy against its own stages, exactly and then in its dtype.

    Args:
        source: the text of the module.
        plan: the plan that it was printed from.
        run: makes a module of the text.
        subject: what the certificate calls it.
        proofs: rows of what is proved about the plan.
        narrow, wide: batch sizes and calls, with places of 32 and of 64 bits.
        real: the batch size of the run in the dtype; None leaves it out, and the certificate says nothing of it.

    Returns:
        The certificate.

    Raises:
        Refuted: a function does not give what its stages say, or a kernel does what no kernel may.
    """
    plan.check()
    seed = digest(source)
    key, kind = network_key(source)
    for places, trials in (("narrow", narrow), ("wide", wide)):
        for k, trial in enumerate(trials):
            text = Text(source, partial(made, run, key, turn=k + (places == "wide"), wide=places == "wide"))
            lucky(partial(_run_trial, text, trial, plan, kind), f"{seed} {places} {k}")
    if narrow:
        module = made(run, key, source, turn=0, wide=False)
        lucky(partial(_each_class_wins, module, plan, kind), f"{seed} maximum")
    rows = _rows(plan, (*narrow, *wide), _classes(plan) if narrow else 0)
    if real is not None:
        module = made(run, None, source, turn=0, wide=False)
        rows.append(cupy_network_real.row(cupy_network_real.compare(module, plan, real, key)))
    return certificate(subject, source, [*proofs, *rows])


def network_key(source: str) -> tuple[int, type[Element]]:
    """The key of the field that a text is run over, and its elements."""
    key = int(digest(source)[:12], 16)
    return key, keyed(key)


def _run_trial(text: Text, trial: Trial, plan: Plan, kind: type[Element], seed: str) -> None:
    drawn = [network_data.draw(plan, kind, trial.batch, Random(f"{seed} call {k}")) for k in range(len(trial.calls))]
    run_calls(text, trial, [DeviceNetworkData(data, kind) for data in drawn])


def _classes(plan: Plan) -> int:
    target = next(t for t in plan.inputs if t.name in plan.labels)
    return (target.box[1][1] - target.box[1][0]).constant or 0


def _each_class_wins(module: ModuleType, plan: Plan, kind: type[Element], seed: str) -> None:
    """The loss from the logits on, with each class once the largest logit: an image a class."""
    rng = Random(seed)
    logits, loss = (plan.by_name[plan.outputs[name]].tensor for name in ("forward", "loss"))
    classes = _classes(plan)
    values = [v for winner in range(classes) for v in with_largest(rng, kind, classes, winner)]
    labels = [rng.randrange(classes) for _ in range(classes)]
    hits = [int(c == label) for label in labels for c in range(classes)]
    box = ((0, classes), (0, classes))
    tables = {logits.name: Table(box, list(values)), plan.labels[0]: Table(box, hits)}
    (wanted,) = Evaluator({"N": classes}, tables, kind.numbers).table(loss).values
    work = module.Workspace(classes)
    getattr(work, logits.name)[...] = np.array(values, dtype=np.uint64).reshape(classes, classes)
    module._loss(work, np.array(labels))  # noqa: SLF001 - the parts of a network's module are this package's own
    module._add_loss(work, work.loss)  # noqa: SLF001
    if int(work.loss) != wanted % P:
        where = "the loss of images of which each has another class the largest logit"
        raise Refuted(Finding(f"{where} is {work.loss}, by the stages {wanted}", "loss", "loss"))


def _rows(plan: Plan, trials: Sequence[Trial], classes: int) -> list[Row]:
    most = max((applications(plan, trial.batch) for trial in trials), default=0)
    told = "; ".join(f"batch {t.batch}{', one workspace' if t.block else ''}: {', '.join(t.calls)}" for t in trials)
    count = sum(len(trial.calls) for trial in trials)
    rows = [
        Row(
            "The CUDA text computes its stages: forward, loss, every gradient and the step of SGD are, number for "
            "number, what the expressions of the plan give, also on a workspace that other data went through before.",
            cases(count),
            f"{FIELD} Run: {told}; {CUT}, places of 32 and of 64 "
            f"bits. The bound is (2 q^2 + 1) D/p, for a text that applies at most q = {most} functions in a call, to "
            f"values of degree at most D = {DEGREE}. Other batch sizes were not run.",
            survival(most),
            (EVALUATOR, ARITHMETIC, HASH, EXECUTOR),
        ),
        Row(
            "At this shape and these batch sizes no kernel reads or writes outside an array, reads what nobody wrote, "
            "or writes an element that another thread reads or writes without a barrier between; all threads of a "
            "block reach the same barriers.",
            cases(count),
            f"Every access of every thread watched in these runs. {APART}",
            0.0,
            (EXECUTOR,),
        ),
    ]
    if classes:
        rows.append(
            Row(
                "The row's maximum in the loss is that of all classes.",
                cases(classes),
                "One run from the logits on, with an image for each class in which that class is the largest.",
                survival(most),
                (EVALUATOR, HASH, EXECUTOR),
            )
        )
    return rows
