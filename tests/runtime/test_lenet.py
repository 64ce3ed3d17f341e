"""The main job's own promises: what it quotes is what it proved."""

from dataclasses import dataclass

import pytest

import codegen
from derive.obligations import Refused
from runtime import lenet as job
from runtime.data import load_digits
from runtime.train import Settings
from tests.runtime.emission import Emission


@dataclass(frozen=True)
class Told:
    """A theorem that was proved, as far as it is compared."""

    digest: str


def run_with(told: dict[str, str], emitted: codegen.Emitted) -> job.LenetRun:
    run = job.LenetRun(Settings(epochs=1), load_digits())
    run.emitted = emitted
    run.plan_derivations = {name: Told(digest) for name, digest in told.items()}  # type: ignore[misc]
    return run


def test_the_theorems_quoted_have_to_be_those_that_were_proved(emission: Emission) -> None:
    emitted = codegen.emit(job.layers.lenet(), input_shape=job.INPUT_SHAPE)
    quoted = dict(emitted.theorems)
    assert len(quoted) == 12
    job.agree(run_with(quoted, emitted))
    for wrong in ({**quoted, "loss": "0" * 64}, {k: v for k, v in quoted.items() if k != "forward"}, {}):
        with pytest.raises(Refused, match="is not the one that the text quotes"):
            job.agree(run_with(wrong, emitted))
