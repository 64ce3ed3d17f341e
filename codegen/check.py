"""``check``: what can be known about an emitted text without trusting its templates, and the certificate that says it.

Templates are not proved.  What they print is executed exactly: in the integers modulo p = 2^61 - 1, with exp, log and
tanh as fixed pseudo-random functions, every public function of the text has to give what the stages of its plan give.
That the stages are the layer is another matter, a theorem for all sizes; its rows come from outside.

How likely it is that a difference is missed is the subject of ``codegen.chance``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from random import Random

import numpy as np

from codegen import layer_data, network_data
from codegen.certificate import ALL_SIZES, Certificate, Row, cases, certificate, digest
from codegen.chance import ARITHMETIC, DEGREE, EVALUATOR, FIELD, HASH, applications, lucky, survival, with_largest
from codegen.committed import committed
from codegen.cupy_check import Executor, check_cupy
from codegen.cupy_network_check import check_cupy_network
from codegen.emit import Emitted
from codegen.execution import Data, Finding, Refuted, Run, Text, Trial, run_calls, shape, uncollected
from codegen.field import Element, P, array, keyed
from codegen.growth import Bounds, bounds
from codegen.layer_check import check_layer
from codegen.layer_data import BATCHED_RESULTS, INTO, Plans
from codegen.loading import load
from codegen.plan import Plan
from codegen.plans.bands import theorem
from codegen.plans.layer_claims import kind_of
from codegen.provenance import spec
from derive.evaluate import Evaluator, Table
from derive.layers import AvgPool
from derive.trusted import KERNEL, LAYERS

COMMITTED = (
    "that codegen/plans/proofs holds what codegen.prove wrote (python -m codegen.prove --check proves it again), the "
    "comparison of this plan with the theorem's in codegen.architecture and codegen.plans.claims, and SHA-256"
)
COMPARED = "codegen.plans.layer_claims, which makes that comparison for a layer other than a convolution"
WORKED_OUT = ", and puts a number for each reciprocal of a number of cells in the theorem"
NUMPY = "NumPy and its BLAS, which do with floating-point arrays, up to rounding, what they do with object arrays"

OTHER_BATCHES = (
    "Other batch sizes and blocks were not run: the text names the batch axis only as a whole axis, which is a reason "
    "to expect them to agree and no check."
)

NETWORK_TRIALS = (
    Trial(3, 2, ("loss_and_gradients", "sgd_step")),
    Trial(2, 1, ("loss", "forward")),
    Trial(1, None, ("gradients",)),
)
INTEGERS = (3, 2)  # the batch and the block of the runs in small integers
ROUNDED, DRAWN = 3, 100  # runs of a result that is rounded, and the largest integer in them
MISSED = 1e-6


def check(
    emitted: Emitted, *, proofs: Iterable[Row] | None = None, run: Run = load, executor: Executor | None = None
) -> Certificate:
    """Check an emitted text.

    Args:
        emitted: what ``codegen.emit`` gave.
        proofs: rows of what is proved; by default one for each theorem that ``emitted`` quotes.
        run: ``run(source, ratio=...)`` gives the module; ``ratio`` makes its rational constants, None leaves them.
        executor: what runs text for CuPy, which cannot be checked without one (``runtime.simt.on_cpu``).

    Returns:
        The certificate.

    Raises:
        Refuted: a function of the text does not give what the stages say; names the first stage that is wrong.
        PlanError: a plan breaks a rule of layout.
        ValueError: the text is for CuPy, and there is no executor.
    """
    rows = proof_rows(emitted) if proofs is None else tuple(proofs)
    subject = f"{spec(emitted.layer)} for the input {emitted.input_shape}, {emitted.algorithm}, {emitted.dtype}"
    if emitted.backend == "cupy":
        if executor is None:
            raise ValueError("executor=None: text for CuPy is run by one; runtime.certificate_of(emitted) takes one")
        if "network" in emitted.plans:
            return check_cupy_network(emitted.source, emitted.plans["network"], executor, subject=subject, proofs=rows)
        return check_cupy(
            emitted.source,
            emitted.plans,
            executor,
            dtype=emitted.dtype,
            tf32=emitted.algorithm == "tf32",
            subject=subject,
            proofs=rows,
        )
    if "network" in emitted.plans:
        return check_network(emitted.source, emitted.plans["network"], subject=subject, proofs=rows, run=run)
    if "weight_gradient" not in emitted.plans:
        trials = layer_trials(emitted.plans)
        return check_layer(
            emitted.source,
            emitted.plans,
            trials,
            dtype=emitted.dtype,
            subject=subject,
            proofs=rows,
            arrays=_arrays(trials),
            run=run,
        )
    return check_bilinear(
        emitted.source, emitted.plans, dtype=emitted.dtype, subject=subject, proofs=rows, run=run, bands=emitted.bands
    )  # fmt: skip


@uncollected()
def check_network(
    source: str,
    plan: Plan,
    *,
    subject: str = "a network",
    proofs: Iterable[Row] = (),
    run: Run = load,
    trials: Sequence[Trial] = NETWORK_TRIALS,
) -> Certificate:
    """Execute a network's text exactly against its own stages.

    Args:
        source: the text of the module.
        plan: the plan it was printed from, every size a number but the batch.
        subject: what the certificate calls it.
        proofs: rows of what is proved about the plan.
        run: ``run(source, ratio=...)`` gives the module; ``ratio`` makes its rational constants.
        trials: batch sizes, blocks and calls.

    Returns:
        The certificate: the rows of ``proofs``, then those of what was executed.

    Raises:
        Refuted: a function of the text does not give what the stages say; names the first stage that is wrong.
        PlanError: the plan breaks a rule of layout.
    """
    plan.check()
    kind = keyed(int(digest(source)[:12], 16))
    text = Text(source, run, kind.ratio)
    for k, trial in enumerate(trials):
        draw = partial(network_data.draw, plan, kind, trial.batch)
        lucky(partial(_run_trial, text, trial, draw), f"{digest(source)} trial {k}")
    classes = lucky(partial(_each_class_wins, text, plan, kind), f"{digest(source)} maximum")
    rows = [_executed_network(plan, trials), _maximum(classes), _arrays(trials)]
    return certificate(subject, source, [*proofs, *rows])


@uncollected()
def check_bilinear(
    source: str,
    plans: Plans,
    *,
    dtype: str,
    subject: str = "a layer",
    proofs: Iterable[Row] = (),
    run: Run = load,
    bands: Collection[str] = (),
) -> Certificate:
    """Execute the text of a convolution or a dense layer exactly against its own stages, and on integers in its dtype.

    Args:
        source: the text of the module.
        plans: the plans of ``forward``, ``input_gradient``, ``weight_gradient`` and, with a bias, ``bias_gradient``.
        dtype: "float32" or "float64".
        subject: what the certificate calls it.
        proofs: rows of what is proved about the plans.
        run: ``run(source, ratio=...)`` gives the module; ``ratio`` makes its rational constants, None leaves them.
        bands: the results that the text forms in bands of rows; what they have to be are the stages of the whole plans.

    Returns:
        The certificate.

    Raises:
        Refuted: a function of the text does not give what the stages say; names the first stage that is wrong, but in
            bands.
        PlanError: a plan breaks a rule of layout.
    """
    for plan in plans.values():
        plan.check()
    kind = keyed(int(digest(source)[:12], 16))
    text = Text(source, run, kind.ratio, frozenset(bands))
    trials = layer_trials(plans)
    for k, trial in enumerate(trials):
        draw = partial(layer_data.draw, plans, kind, trial.batch)
        lucky(partial(_run_trial, text, trial, draw), f"{digest(source)} trial {k}")
    precision = layer_data.PRECISIONS[dtype]
    known = {name: bounds(plan, precision, batch=INTEGERS[0]) for name, plan in plans.items()}
    real, seed = Text(source, run, bands=frozenset(bands)), digest(source)
    for name, own in known.items():
        exact = layer_data.largest(own, dtype)
        for k in range(_times(exact)):
            _small_integers(real, plans, name, dtype, exact, f"{seed} integers {k}")
        for k in range(0 if exact else ROUNDED):
            _within_bound(real, plans, name, dtype, own, f"{seed} rounded {k}")
    rows = [_executed_bilinear(trials), *_in_dtype(dtype, known), _arrays(trials)]
    return certificate(subject, source, [*proofs, *rows])


def layer_trials(plans: Plans) -> tuple[Trial, ...]:
    """Every result twice on one workspace with uneven blocks, without a workspace, and ``backward``, if there is one.

    A result with a batch is the second time put in a given array, channels last in memory where the text keeps that.
    """
    into = {name: name + INTO if name in BATCHED_RESULTS else name for name in plans}
    alone = tuple(trial for name in plans for trial in (Trial(3, 2, (name, into[name])), Trial(1, None, (name,))))
    if "weight" not in layer_data.inputs(plans):
        return alone
    return (*alone, Trial(2, 1, ("backward",)), Trial(1, None, ("backward",)))


def _run_trial(text: Text, trial: Trial, draw: Callable[[Random], Data], seed: str) -> None:
    run_calls(text, trial, [draw(Random(f"{seed} call {k}")) for k in range(len(trial.calls))])


def _small_integers(text: Text, plans: Plans, name: str, dtype: str, bound: int, seed: str) -> None:
    """A result once from integers that the dtype adds and multiplies without rounding."""
    batch, block = INTEGERS
    data = layer_data.draw_integers(plans, dtype, bound, batch, Random(f"{seed} {name}"))
    run_calls(text, Trial(batch, block, (name,)), [data])


def _within_bound(text: Text, plans: Plans, name: str, dtype: str, known: Bounds, seed: str) -> None:
    """A result once from integers up to ``DRAWN``: no element further from the exact one than rounding explains."""
    batch, block = INTEGERS
    data = layer_data.draw_integers(plans, dtype, DRAWN, batch, Random(f"{seed} {name}"))
    trial, module = Trial(batch, block, (name,)), text.module()
    found = data.call(module, name, data.workspace(module, name, trial))
    bound = known.error * DRAWN**2
    for output, wanted in data.expected(name).items():
        exact = np.array([float(v) for v in wanted.values]).reshape(wanted.shape)
        off = float(np.abs(found[output].astype(np.float64) - exact).max(initial=0.0))
        if not off <= bound:
            where = f"{name}, [{trial.text()}] in {dtype}"
            raise Refuted(
                Finding(f"{where}: {output} is off by {off:.3g}, and rounding explains {bound:.3g}", name, output)
            )


def _times(bound: int) -> int:
    """How many trials bring the chance of missing a wrong bilinear form below ``MISSED``."""
    if bound < 1:
        return 0
    times = 1
    while (2 / (2 * bound + 1)) ** times > MISSED:
        times += 1
    return times


def _each_class_wins(text: Text, plan: Plan, kind: type[Element], seed: str) -> int:
    """The loss from the logits on, with each class the largest logit, and the label, in turn; how many classes.

    The logits are put where the forward pass leaves them, so the pass itself is not repeated for every class.
    """
    rng = Random(seed)
    module = text.module()
    logits, loss = (plan.by_name[plan.outputs[name]].tensor for name in ("forward", "loss"))
    parameters = network_data.draw(plan, kind, 1, rng).parameters
    classes = shape(logits, 1)[0]
    work = module.Workspace(1, object, block=1)
    ((_, _, block),) = work.blocks
    for winner in range(classes):
        values = with_largest(rng, kind, classes, winner)
        hits = Table(((0, 1), (0, classes)), [int(c == winner) for c in range(classes)])
        tables = {logits.name: Table(((0, classes), (0, 1)), values), "T": hits}
        wanted = Evaluator({"N": 1}, tables, kind.numbers).table(loss).values[0]
        module._prologue(work, parameters)  # noqa: SLF001 - the parts of a network's module are this package's own
        getattr(block, logits.name)[...] = array(kind, values, (classes, 1))
        module._loss(work, block, module._targets(np.array([winner]), work))  # noqa: SLF001
        module._finish_loss(work)  # noqa: SLF001
        found = getattr(work, loss.name)[()]
        if found != wanted:
            where = f"the loss of one image whose largest logit is that of class {winner}"
            raise Refuted(Finding(f"{where} is {found}, by the stages {wanted}", "loss", "loss"))
    return classes


# --- rows ---------------------------------------------------------------------------------------------------------


def proof_rows(emitted: Emitted) -> tuple[Row, ...]:
    """A row for each theorem that an emitted text quotes, and one that says so where there is none."""
    missing = [name for name in emitted.plans if name not in emitted.theorems and name != "network"]
    unproved: tuple[Row, ...] = ()
    if missing or not emitted.theorems:
        of = f" of {', '.join(missing)}" if emitted.theorems else ""
        statement = (
            f"That the stages{of} compute the layer is not proved: no theorem that comes with this version says so."
        )
        unproved = (Row(statement, "not proved", "None.", None, ()),)
    whole = {name: digest for name, digest in emitted.theorems.items() if name not in map(theorem, emitted.bands)}
    is_single = kind_of(emitted.layer, len(emitted.input_shape), emitted.backend) is not None
    beside = (COMPARED + (WORKED_OUT if isinstance(emitted.layer, AvgPool) else ""),) if is_single else ()
    proved = tuple(
        Row(
            f"The stages of {result} compute what the definition of the layer, or its derivative, says.",
            ALL_SIZES,
            f"Theorem with the SHA-256 {digest}, proved beforehand; its statement was made anew for this plan and has "
            f"that digest. The derivation is committed in codegen/plans/proofs.{_conditions(emitted, result)}",
            0.0,
            (LAYERS, KERNEL, "Z3", COMMITTED, *beside, "CPython"),
        )
        for result, digest in whole.items()
    )
    return (*unproved, *proved, *(_in_bands(emitted, result) for result in emitted.bands))


def _conditions(emitted: Emitted, result: str) -> str:
    """What the theorem about a result of a layer without parameters takes for granted, such as the slope at a kink."""
    kind = kind_of(emitted.layer, len(emitted.input_shape), emitted.backend)
    file = None if kind is None else committed(kind.file)
    if kind is None or file is None:
        return ""
    return "".join(f" It holds so: {text}." for text in file.outputs[kind.key(result)]["conditions"])


def _in_bands(emitted: Emitted, result: str) -> Row:
    """A row about a result that the text forms in bands."""
    cut, digest = emitted.bands[result], emitted.theorems.get(theorem(result))
    statement = (
        f"The text forms {result} in {len(cut.starts)} bands of {cut.rows} rows: each is the same result of a "
        "convolution by itself, whose stages are printed, and has the rows of the whole result."
    )
    if digest is None:
        return Row(statement, "not proved", "None.", None, ())
    known = (
        f"Theorem with the SHA-256 {digest}, for every first row and number of rows, proved beforehand; its facts hold "
        "at the first row of each band."
    )
    return Row(statement, ALL_SIZES, known, 0.0, (LAYERS, KERNEL, "Z3", COMMITTED, "CPython"))


def _executed_network(plan: Plan, trials: Sequence[Trial]) -> Row:
    most = max(applications(plan, trial.batch) for trial in trials)
    listed = "; ".join(trial.text() for trial in trials)
    return Row(
        "The printed text computes its stages: forward, loss, every gradient and the step of SGD are, number for "
        "number, what the expressions of the plan give, also on a workspace that other data went through before.",
        cases(sum(len(trial.calls) for trial in trials)),
        f"{FIELD} Run: {listed}; what goes into out lies channels last in memory where the text keeps that layout, "
        f"else C-contiguous. {OTHER_BATCHES} The bound is (2 q^2 + 1) D/p, for a text that applies at most "
        f"q = {most} functions in a call, to values of degree at most D = {DEGREE}.",
        survival(most),
        (EVALUATOR, ARITHMETIC, HASH, NUMPY),
    )


def _executed_bilinear(trials: Sequence[Trial]) -> Row:
    listed = "; ".join(trial.text() for trial in trials)
    return Row(
        "The printed text computes its stages: the output and every gradient are, number for number, what the "
        "expressions of the plans give, also on a workspace that other data went through before.",
        cases(sum(len(trial.calls) for trial in trials)),
        f"{FIELD} Run: {listed}. {OTHER_BATCHES} The bound is D/p, for a text that computes polynomials of degree at "
        f"most D = {DEGREE}.",
        DEGREE / P,
        (EVALUATOR, ARITHMETIC, NUMPY),
    )


def _in_dtype(dtype: str, known: Mapping[str, Bounds]) -> list[Row]:
    """Rows about the runs in the dtype itself: those that are exact, and those that are rounded."""
    exact = {name: largest for name, own in known.items() if (largest := layer_data.largest(own, dtype))}
    rounded = {name: own for name, own in known.items() if name not in exact}
    rows = [_exact(dtype, exact)] if exact else []
    return [*rows, _rounded(dtype, rounded)] if rounded else rows


def _exact(dtype: str, bounds: Mapping[str, int]) -> Row:
    batch, block = INTEGERS
    digits = layer_data.DIGITS[dtype]
    runs = {name: _times(bound) for name, bound in bounds.items()}
    listed = ", ".join(f"{runs[name]} of {name} with B = {bound}" for name, bound in bounds.items())
    return Row(
        f"In {dtype}, with NumPy and BLAS as they are here, the results of {', '.join(bounds)} are exact where no "
        "rounding occurs.",
        cases(sum(runs.values())),
        "Integers uniform from -B to B, with which no number of a stage, nor a sum on the way to it, needs more than "
        f"{digits} digits; batch {batch}, blocks of {block}; {listed} runs; every element compared with the stages in "
        "exact numbers. A wrong bilinear form passes a run with probability at most 2/(2B+1).",
        max((2 / (2 * bound + 1)) ** runs[name] for name, bound in bounds.items()),
        (EVALUATOR, "CPython, and NumPy and BLAS of this machine at other sizes and batches than those run"),
    )


def _rounded(dtype: str, known: Mapping[str, Bounds]) -> Row:
    batch, block = INTEGERS
    listed = ", ".join(f"{own.relative:.1e} for {name}" for name, own in known.items())
    return Row(
        f"In {dtype} the results of {', '.join(known)} lie within the bound that follows from the stages and their "
        "constants.",
        cases(ROUNDED * len(known)),
        f"Integers uniform from -{DRAWN} to {DRAWN}; batch {batch}, blocks of {block}; every element compared with the "
        f"stages in exact numbers. The bound (codegen.growth), relative to the largest value there can be: {listed}.",
        None,
        (EVALUATOR, "CPython, and NumPy and BLAS of this machine at other sizes, batches and numbers than those run"),
    )


def _maximum(classes: int) -> Row:
    return Row(
        "The loss takes its maximum over every class.",
        cases(classes, classes),
        "Exact execution from the logits on, for one image, each class the largest logit and the label in turn: a "
        "maximum of reads is fixed by these runs.",
        survival(2 * classes),
        (EVALUATOR, ARITHMETIC, HASH),
    )


def _arrays(trials: Sequence[Trial]) -> Row:
    steps = any("sgd_step" in trial.calls for trial in trials)
    exception = ", but for the parameters in a step of SGD" if steps else ""
    return Row(
        "Results are arrays of their own: none shares memory with the workspace or an argument, and no argument is "
        f"written{exception}.",
        cases(sum(len(trial.calls) for trial in trials)),
        "Addresses of every result, buffer and argument compared after each call of the runs modulo p.",
        None,
        (ARITHMETIC,),
    )


__all__ = ["Certificate", "Finding", "Refuted", "Row", "Trial", "check", "check_bilinear", "check_network"]
