"""This machine as the cost model sees it, and what is chosen for it."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from codegen.choose import choose
from codegen.cost import cost
from codegen.machine import REFERENCE
from codegen.plan import BATCH
from codegen.plans.winograd import planner
from derive.layers import Conv2d
from derive.terms import tensor
from runtime import machine
from runtime.cli import main
from runtime.machine import measured, second_level, told

LAYER = [
    "emit",
    "conv2d",
    "--in-channels",
    "4",
    "--out-channels",
    "4",
    "--kernel-size",
    "3",
    "--input",
    "2,4,9,9",
    "--backend",
    "numpy",
]


def test_rates_are_those_of_a_computer() -> None:
    found = measured(threads=2)
    assert found.threads == 2
    assert 0.5 < found.gemm < 5000
    assert 0.005 < found.copy < 20
    assert 0.05 < found.call < 200
    assert "2 threads" in told(found)


@pytest.mark.parametrize(
    ("text", "size"), [("512K\n", 1 << 19), ("2M", 2 << 20), ("", 1 << 19), ("K", 1 << 19), ("3X", 1 << 19)]
)
def test_the_cache_is_what_the_system_says(
    text: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "SECOND_LEVEL", tmp_path / "size")
    assert second_level() == REFERENCE.cache  # nothing is told
    (tmp_path / "size").write_text(text)
    assert second_level() == size


def test_with_two_threads_a_part_takes_half_but_for_what_depends_on_parameters() -> None:
    plan = planner(4)(Conv2d(64, 64, 3, padding=1).on(tensor("X", BATCH, 64, 8, 8)))["forward"]
    one, two = (cost(plan, replace(REFERENCE, threads=n)).total for n in (1, 2))
    assert 0.5 * one < two < 0.95 * one


def test_emit_chooses_for_the_machine_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = replace(REFERENCE, gemm=REFERENCE.gemm / 1e4)
    monkeypatch.setattr(machine, "measured", lambda: slow)
    assert choose(Conv2d(4, 4, 3), (2, 4, 9, 9), "float32", machine=slow)[0].algorithm == "direct"
    plain, here = (CliRunner().invoke(main, [*LAYER, *more]) for more in ((), ("--machine", "here")))
    assert (plain.exit_code, here.exit_code) == (0, 0)
    assert "with direct for any batch" in here.stdout.replace("\n", " ")
    assert "with direct for any batch" not in plain.stdout
    assert "This machine: 0.007 GFLOP/s" in here.stderr


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--machine", "there"], "'there' is not one of: reference, here"),
        (["--machine", "here", "--algorithm", "gemm"], "it is what a choice is predicted for, and --algorithm gemm is"),
    ],
)
def test_what_cannot_be_chosen_is_refused(more: list[str], words: str) -> None:
    refused = CliRunner().invoke(main, [*LAYER, *more])
    assert refused.exit_code == 2
    assert words in refused.stderr


def test_a_tolerance_that_no_algorithm_is_sure_to_meet_is_told() -> None:
    found = CliRunner().invoke(main, [*LAYER, "--tolerance", "1e-30"])
    assert found.exit_code == 0
    assert "forward: no algorithm is sure to be within --tolerance 1e-30; " in found.stderr
    assert "no algorithm" not in CliRunner().invoke(main, [*LAYER, "--tolerance", "1e-3"]).stderr
