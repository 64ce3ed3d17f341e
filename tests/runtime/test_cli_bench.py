"""`certiconv bench`: what it prints where, what it refuses, and what is left after Ctrl-C."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner
from typer.testing import Result as Ran

from runtime import bench as job
from runtime import bench_cases, cli_bench, roofline
from runtime.bench import Bench, Result
from runtime.bench_cases import Case, Convolution
from runtime.bench_data import Disagreement
from runtime.bench_peers import CERTICONV, TEXTBOOK, Peer
from runtime.cli import main
from runtime.threads import VARIABLES

pytestmark = pytest.mark.usefixtures("emission", "tiny")

SMALL = Convolution(2, 1, 2, (6, 5), 3)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small cases, small matrices for the rates, the base install, and an environment that is put back."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "1")
    cases = (Case("tiny-forward", SMALL, "forward", goal=0.5), Case("tiny-input", SMALL, "input"))
    monkeypatch.setattr(bench_cases, "CASES", cases)
    monkeypatch.setattr(bench_cases.find, "__defaults__", (cases,))
    monkeypatch.setattr(bench_cases, "QUICK", ("tiny-forward",))
    monkeypatch.setattr(Peer, "installed", property(lambda peer: not peer.package))
    monkeypatch.setattr(roofline, "_SIDE", 16)
    monkeypatch.setattr(roofline, "_PROBE_SIDE", 16)
    monkeypatch.setattr(roofline, "_COPIED", 1000)


def certiconv(*arguments: str) -> Ran:
    return CliRunner().invoke(main, ["bench", *arguments])


def test_help_shows_examples() -> None:
    ran = certiconv("--help")
    assert ran.exit_code == 0
    assert "Examples:" in ran.stdout


def test_list_prints_the_cases_and_times_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "prepared", lambda **_: pytest.fail("it was asked to time"))
    ran = certiconv("--list")
    assert ran.exit_code == 0
    assert ran.stdout.splitlines() == [
        "case            input     part  goal",
        "tiny-forward  2x1x6x5  forward   0.5",
        "tiny-input    2x1x6x5    input     -",
    ]
    assert certiconv("--list", "--case", "tiny-i").stdout.count("\n") == 2


def test_a_table_goes_to_stdout_and_words_to_stderr() -> None:
    ran = certiconv("--quick", "--rounds", "2")
    assert ran.exit_code == 0, ran.output
    header, row = ran.stdout.splitlines()
    assert header.split()[0] == "case"
    assert row.split()[0] == "tiny-forward"
    assert row.endswith("0/2") or "/2" in row
    assert "\x1b" not in ran.stdout
    assert f"of {TEXTBOOK}" in ran.stderr
    assert "PyTorch is not installed; ratio" in ran.stderr


def test_json_is_all_of_stdout() -> None:
    ran = certiconv("--rounds", "1", "--json", "--growth", "--quick")
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.stdout)
    assert [case["name"] for case in told["cases"]] == ["tiny-forward"]
    assert set(told["cases"][0]["peers"]) == {*CERTICONV, TEXTBOOK}
    assert [growth["axis"] for growth in told["growth"]] == ["batch", "channels", "image"]
    assert told["settings"]["rounds"] == 1


def test_growth_prints_a_table_for_each_size() -> None:
    ran = certiconv("--rounds", "1", "--growth", "--quick")
    assert ran.exit_code == 0, ran.output
    assert ran.stdout.count("time as ") == 3
    assert ran.stdout.count("exponent") == 3


def test_quick_takes_few_rounds_and_a_named_case(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = certiconv("--quick", "--case", "tiny-input", "--json")
    told = json.loads(ran.stdout)
    assert [case["name"] for case in told["cases"]] == ["tiny-input"]
    assert told["settings"]["rounds"] == job.QUICK_ROUNDS


def test_the_roofline_is_drawn(tmp_path: Path) -> None:
    ran = certiconv("--quick", "--rounds", "1", "--plot", str(tmp_path / "roof.png"))
    assert ran.exit_code == 0, ran.output
    assert (tmp_path / "roof.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--case", "tiny-foward"), "case 'tiny-foward' is unknown; nearest: tiny-forward"),
        (("--rounds", "0"), "rounds=0 is less than 1; nearest legal: 1"),
        (("--threads", "3"), "threads=3 is neither 1 nor 2; nearest legal: 2"),
        (("--plot", "roof.pdf"), "roof.pdf does not end in .png; nearest: roof.png"),
        (("--plot", "no-such-folder/roof.png"), "make it first"),
        (("--rounds", "many"), "Invalid value for '--rounds'"),
    ],
)
def test_bad_usage_ends_with_2_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.setattr(Bench, "run", lambda *_: pytest.fail("it was timed"))
    ran = certiconv(*arguments)
    assert ran.exit_code == 2
    assert ran.stdout == ""
    assert words in " ".join(ran.stderr.split())
    assert "Traceback" not in ran.stderr


def test_a_wrong_result_ends_with_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def disagree(*_: object) -> Result:
        raise Disagreement("tiny-forward: somebody is wrong; it is not timed")

    monkeypatch.setattr(Bench, "run", disagree)
    ran = certiconv("--quick")
    assert ran.exit_code == 1
    assert "certiconv: tiny-forward: somebody is wrong" in ran.stderr


@pytest.mark.parametrize("arguments", [("--rounds", "1"), ("--rounds", "1", "--json")])
def test_ctrl_c_keeps_what_was_timed(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    run = Bench.run

    def interrupted(self: Bench, case: Case) -> Result:
        if case.name == "tiny-input":
            raise KeyboardInterrupt
        return run(self, case)

    monkeypatch.setattr(Bench, "run", interrupted)
    ran = certiconv(*arguments)
    assert ran.exit_code == 1
    assert "tiny-forward" in ran.stdout
    assert "interrupted; 1 of 2 cases were timed" in ran.stderr


def test_without_a_hold_on_blas_a_warning_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.threads._can_set", lambda: False)
    for name in VARIABLES:
        monkeypatch.setenv(name, "2")  # as the command asks for where the user did not
    ran = certiconv("--quick", "--rounds", "1", "--threads", "2")
    assert ran.exit_code == 0
    assert "warning: the number of BLAS threads is not known to be 1" in ran.stderr
    assert "install the extra `threads`" in ran.stderr


def test_nothing_timed_no_picture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Bench, "run", lambda self, case: Result(case, reason="groups=2: not derived"))
    ran = certiconv("--quick", "--plot", str(tmp_path / "roof.png"))
    assert ran.exit_code == 0
    assert "tiny-forward not emitted: groups=2: not derived" in ran.stderr
    assert "not written, since nothing was timed" in ran.stderr
    assert not (tmp_path / "roof.png").exists()


@pytest.mark.parametrize(("columns", "through_rich"), [("120", True), ("20", False)])
def test_a_terminal_gets_rules_where_they_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: str, through_rich: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", columns)
    body: list[Any] = [("lenet1-forward", "1.00 ±0.10")]
    cli_bench._table("title", ("case", "certiconv ms"), body)
    printed = capsys.readouterr().out
    assert ("─" in printed) == through_rich
    assert "lenet1-forward" in printed
    assert "1.00 ±0.10" in printed
