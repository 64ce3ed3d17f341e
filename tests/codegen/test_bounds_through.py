"""Bounds carried through a whole plan: what a network computes in float32 lies within them, and they add up."""

import numpy as np
import pytest

from codegen.bounds import bound, through
from codegen.loading import load
from codegen.rounding import FLOAT32
from tests.codegen.small import emitted_small, numbers


@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_in_float32_lies_within_the_bound_carried_through_its_stages(seed: int) -> None:
    emitted = emitted_small()
    plan, module = emitted.plans["network"], load(emitted.source)
    rng = np.random.default_rng(seed)
    params = {name: numbers(rng, shape, 1.0).astype(np.float32) for name, shape in module.PARAMETERS.items()}
    x, y = rng.normal(size=(3, *module.INPUT)).astype(np.float32), rng.integers(0, module.CLASSES, 3)
    inputs = {"X": x, "T": np.eye(module.CLASSES)[y], **{plan.parameters[key]: a for key, a in params.items()}}
    found = through(plan, inputs, FLOAT32, sizes={"N": 3})
    values = {**inputs, **{name: bounded.value for name, bounded in found.items()}}
    loss, gradients = module.loss_and_gradients(x, y, params)
    for output, computed in {"loss": loss, **{f"gradient {key}": a for key, a in gradients.items()}}.items():
        stage = plan.by_name[plan.outputs[output]]
        value, error = found[stage.name]
        assert np.all(np.abs(computed - value) <= error), output
        assert np.all(error < np.inf)
        assert np.all(error > bound(stage, values, FLOAT32, sizes={"N": 3}).error), "nothing was carried"


def test_what_an_input_is_off_by_reaches_the_stage_that_reads_it() -> None:
    plan = emitted_small().plans["network"]
    stage = plan.by_name[plan.outputs["forward"]]
    reads = {t.name: np.ones([(hi - lo).evaluate({"N": 2}) for lo, hi in t.box]) for t in stage.body.tensors}
    exact = bound(stage, reads, FLOAT32, sizes={"N": 2}).error
    for name, array in reads.items():
        off = bound(stage, reads, FLOAT32, sizes={"N": 2}, errors={name: np.full_like(array, 1e-3)}).error
        assert np.all(off >= exact + 1e-3)
