"""``check_layer``: the text of a pool or an activation for NumPy executed, exactly and in its own dtype.

In the integers modulo p exp and tanh are pseudo-random functions, as for a network, and relu and step compare, so that
each has about half of the elements on either side of its kink.  In the dtype itself a mean whose share is a power of
two has to be exact on integers; everything else lies within the bound on rounding (``codegen.nearness``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from random import Random

from codegen import layer_data, nearness
from codegen.certificate import Certificate, Row, cases, certificate, digest
from codegen.chance import ARITHMETIC, EVALUATOR, FIELD, HASH, applications, bounded, lucky, survival
from codegen.execution import Data, Run, Text, Trial, run_calls, uncollected
from codegen.field import keyed
from codegen.growth import bounds
from codegen.layer_data import LayerData, Plans
from codegen.loading import load
from codegen.plan import Plan

INTEGERS = (3, 2)  # the batch and the block of the runs in the dtype
BLOCK = 2


@uncollected()
def check_layer(
    source: str,
    plans: Plans,
    trials: Sequence[Trial],
    *,
    dtype: str,
    subject: str,
    proofs: Iterable[Row] = (),
    arrays: Row,
    run: Run = load,
) -> Certificate:
    """Execute the text of a layer without parameters against its own stages.

    Args:
        source: the text of the module.
        plans: the plans of ``forward`` and ``input_gradient``.
        trials: the calls modulo p.
        dtype: "float32" or "float64".
        subject: what the certificate calls it.
        proofs: rows of what is proved about the plans.
        arrays: the row about where results lie.
        run: ``run(source, ratio=...)`` gives the module.

    Returns:
        The certificate.

    Raises:
        Refuted: a function of the text does not give what the stages say.
        PlanError: a plan breaks a rule of layout.
    """
    for plan in plans.values():
        plan.check()
    seed = digest(source)
    kind = keyed(int(seed[:12], 16))
    text = Text(source, run, kind.ratio)
    for k, trial in enumerate(trials):
        lucky(partial(_exactly, text, trial, plans, kind), f"{seed} trial {k}")
    real = Text(source, run)
    exact = {name: b for name, plan in plans.items() if (b := largest_integer(plan, dtype))}
    for name, bound in exact.items():
        batch, block = INTEGERS
        drawn = layer_data.draw_integers(plans, dtype, bound, batch, Random(f"{seed} integers {name}"))
        run_calls(real, Trial(batch, block, (name,)), [drawn])
    rounded = [name for name in plans if name not in exact]
    for name in rounded:
        for k in range(nearness.RUNS):
            _nearly(real, plans, name, dtype, f"{seed} {name} {k}")
    rows = [_executed(plans, trials), *_in_dtype(dtype, exact, rounded), arrays]
    return certificate(subject, source, [*proofs, *rows])


def largest_integer(plan: Plan, dtype: str) -> int:
    """The largest B so that from integers up to B nothing is rounded; 0 where there is none."""
    if nearness.has_functions(plan):
        return 0
    known = bounds(plan, layer_data.PRECISIONS[dtype], batch=INTEGERS[0])
    return layer_data.largest(known, dtype)


def _exactly(text: Text, trial: Trial, plans: Plans, kind: type, seed: str) -> None:
    given: list[Data] = [
        layer_data.draw(plans, kind, trial.batch, Random(f"{seed} call {k}")) for k in range(len(trial.calls))
    ]
    run_calls(text, trial, given)


def _nearly(text: Text, plans: Plans, name: str, dtype: str, seed: str) -> None:
    arrays = nearness.draw(plans, dtype, seed)
    data, trial, module = (
        LayerData(plans, arrays, {}, dtype),
        Trial(nearness.BATCH, BLOCK, (name,)),
        text.module(),
    )
    found = data.call(module, name, data.workspace(module, name, trial))
    nearness.compare(found, plans[name], arrays, dtype, dtype, f"{name}, [{trial.text()}] in {dtype}")


def _executed(plans: Plans, trials: Sequence[Trial]) -> Row:
    most = max(applications(plan, trial.batch) for plan in plans.values() for trial in trials)
    listed = "; ".join(trial.text() for trial in trials)
    functions = any(map(nearness.has_functions, plans.values()))
    return Row(
        "The printed text computes its stages: the output and the gradient are, number for number, what the "
        "expressions of the plans give, also on a workspace that other data went through before.",
        cases(sum(len(trial.calls) for trial in trials)),
        f"{FIELD} Run: {listed}. Other batch sizes and blocks were not run. {bounded(most, compares=functions)}",
        survival(most),
        (EVALUATOR, ARITHMETIC, *((HASH,) if functions else ())),
    )


def _in_dtype(dtype: str, exact: dict[str, int], rounded: list[str]) -> list[Row]:
    here = ("CPython, and NumPy of this machine at other sizes, batches and numbers than those run",)
    rows = [nearness.row(dtype, rounded, here)] if rounded else []
    if not exact:
        return rows
    batch, block = INTEGERS
    listed = ", ".join(f"{name} with B = {bound}" for name, bound in exact.items())
    whole = Row(
        f"In {dtype}, with NumPy as it is here, the results of {', '.join(exact)} are exact where no rounding occurs.",
        cases(len(exact)),
        f"Integers uniform from -B to B, with which nothing is rounded; batch {batch}, blocks of {block}; {listed}; "
        "every element compared with the stages in exact numbers.",
        max(2 / (2 * bound + 1) for bound in exact.values()),
        (EVALUATOR, *here),
    )
    return [whole, *rows]
