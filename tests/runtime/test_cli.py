"""The command: what it prints where, its exit statuses, and the one message a user gets for each mistake.

Emission and exact execution are played by `tests.runtime.standin`; derivations are real.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from codegen.certificate import Row, certificate
from codegen.execution import Finding, Refuted
from derive.layers import Conv1d, symbolic
from derive.obligations import Refused
from derive.reduction import reduction
from runtime import lenet as job
from runtime.cli import main
from runtime.data import load_digits
from runtime.network import Network
from tests.runtime.standin import Standin, install

ROOT = Path(__file__).resolve().parents[2]


ROW = Row("the text computes the stages", "4 cases", "executed exactly", 1e-20, ("NumPy", "Python"))


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch) -> Standin:
    monkeypatch.setattr(job, "check", lambda emitted: certificate("LeNet", emitted.source, [ROW]))
    return install(monkeypatch)


@pytest.fixture
def short_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    told = reduction(symbolic(Conv1d)[0])
    monkeypatch.setattr(job, "derivations", lambda network: iter([told]))
    monkeypatch.setattr(job, "plan_derivations", lambda: iter([]))


def certiconv(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


# --- Help and usage -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), ("lenet",), ("emit",), ("derive",), ("shape",)])
def test_help_explains_itself(command: tuple[str, ...]) -> None:
    result = certiconv(*command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")
    assert "\x1b" not in result.stdout
    if command:
        assert "Examples:" in result.stdout
    else:
        assert {"lenet", "emit", "derive", "shape"} <= set(result.stdout.split())
        assert "Exit status: 0 holds" in result.stdout


def test_help_imports_nothing_slow() -> None:
    slow = ("numpy", "sympy", "z3", "matplotlib", "jinja2", "rich.progress")
    code = (
        "import sys\n"
        "from runtime.cli import main\n"
        "try: main(['--help'])\n"
        f"finally: print([m for m in {slow} if m in sys.modules], file=sys.stderr)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stderr.strip() == "[]"
    assert "Usage:" in ran.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("shape",), "Missing argument"),
        (("shape", "conv4d"), "'conv4d' is not one of conv1d, conv2d, conv3d, avgpool1d, avgpool2d, avgpool3d, lenet."),
        (("shape", "conv2d", "--kernel-size", "5"), "the shape of the input is needed, such as 8,6,14,14."),
        (("shape", "conv2d", "--input", "8,6,14,14"), "Invalid value for --kernel-size: conv2d needs it."),
        (("shape", "conv2d", "--input", "8,6,1x,14", "--kernel-size", "5"), "'1x' is neither a number nor a name."),
        (("shape", "conv2d", "--input", "8,6,9,9", "--kernel-size", "5;5"), "'5;5' is not a list of integers"),
        (("shape", "lenet", "--input", "8,1,28,28", "--stride", "2"), "for --stride: lenet does not take it."),
        (("emit", "conv2d", "--kernel-size", "3"), "the shape of the input is needed"),
        (("emit", "conv2d", "--input", "1,1,9,9", "--kernel-size", "3"), "for --in-channels: conv2d needs it."),
        (("emit", "lenet", "--no-bias"), "Invalid value for --no-bias: lenet does not take it."),
        (("derive", "conv2d", "--format", "pdf"), "'pdf' is not one of text, latex, html, json."),
        (("derive", "conv2d", "--wrt", "output"), "'output' is not one of input, weight, bias."),
        (("lenet", "--epochs", "many"), "Invalid value for '--epochs'"),
        (("trane",), "No such command 'trane'"),
    ],
)
def test_bad_usage_ends_with_2_and_says_what_is_legal(arguments: tuple[str, ...], words: str) -> None:
    result = certiconv(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


LENET = ("emit", "lenet")
CONV = ("emit", "conv2d", "--in-channels", "6", "--out-channels", "16", "--kernel-size", "5", "--input")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("shape", "conv2d", "--input", "8,6,4,14", "--kernel-size", "5"), "the nearest legal value is 5"),
        ((*CONV, "8,6,4,14"), "no window fits on spatial axis 0"),
        ((*CONV, "8,3,14,14"), "the number of channels of the input is 3"),
        ((*CONV, "8,6,14,14", "--dtype", "float16"), "dtype='float16': layers are generated for float32 and float64"),
        ((*CONV, "8,6,14,14", "--backend", "cupy"), "backend='cupy' does not work here: this version of certiconv"),
        ((*LENET, "--backend", "cuda"), "backend='cuda' is unknown; legal: 'auto', 'numpy', 'cupy'"),
        ((*LENET, "--input", "1,3,28,28"), "the number of channels of the input is 3"),
        ((*LENET, "--out", "no/such/folder/lenet.py"), "No such file or directory"),
        (("derive", "sigmoid"), "only a convolution is derived from a dense layer; nearest legal: wrt='input'"),
        (("derive", "avgpool2d", "--wrt", "bias"), "wrt='bias': AvgPool2d"),
        (("lenet", "--data", "no/such/folder"), "no/such/folder: expected a folder with IDX files, found nothing"),
        (("lenet", "--epochs", "0"), "epochs=0 is less than 1; nearest legal: 1"),
        (("lenet", "--seed", "-1"), "seed=-1 is less than 0; nearest legal: 0"),
        (("lenet", "--backend", "cupy"), "backend='cupy' does not work here"),
    ],
)
def test_bad_input_gets_one_message_and_2(standin: Standin, arguments: tuple[str, ...], words: str) -> None:
    result = certiconv(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("certiconv: ")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_refusal_of_the_kernel_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Refused("unfold: index 3 is not shown to lie in its box")

    monkeypatch.setattr(job, "derivation", refuse)
    result = certiconv("derive", "conv2d")
    assert result.exit_code == 1
    assert result.stderr == "certiconv: unfold: index 3 is not shown to lie in its box\n"


def test_a_text_that_is_refuted_is_a_failure(standin: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    def refute(_: object) -> None:
        raise Refuted(Finding("forward: stage Z is wrong", "forward"))

    monkeypatch.setattr(job, "check", refute)
    result = certiconv("emit", "lenet", "--check")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith("certiconv: ")
    assert "Z" in result.stderr


def test_a_fault_of_the_program_is_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise ValueError("a shape that nobody checked")

    monkeypatch.setattr(job, "derivation", fault)
    result = certiconv("derive", "conv2d")
    assert isinstance(result.exception, ValueError)


# --- shape, derive, emit ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ("conv2d --input 8,6,14,14 --kernel-size 5 --out-channels 16", "(8, 16, 10, 10)"),
        ("conv2d --input 8,6,14,14 --kernel-size 5", "(8, M, 10, 10)"),
        ("conv2d --input 8,6,14,15 --kernel-size 5,4 --stride 2,3 --padding 1 --dilation 1,2", "(8, M, 6, 4)"),
        ("conv1d --input N,2,n --kernel-size 3 --padding 1 --out-channels 4", "(N, 4, n)"),
        ("avgpool2d --input 8,6,28,27 --kernel-size 2", "(8, 6, 14, 13)"),
        ("lenet --input 32,1,28,28", "(32, 10)"),
    ],
)
def test_shapes(arguments: str, shape: str) -> None:
    result = certiconv("shape", *arguments.split())
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"{shape}\n", "")


def test_a_derivation_is_printed_in_every_format() -> None:
    texts = {form: certiconv("derive", "conv1d", "--format", form) for form in ("text", "latex", "html", "json")}
    assert {form: (result.exit_code, result.stderr) for form, result in texts.items()} == dict.fromkeys(texts, (0, ""))
    assert texts["text"].stdout.startswith("A dense layer becomes Conv1d\n")
    assert "\\begin{document}" in texts["latex"].stdout
    assert texts["html"].stdout.startswith("<!DOCTYPE html>")
    assert json.loads(texts["json"].stdout)["title"] == "A dense layer becomes Conv1d"


def test_sizes_that_are_given_are_those_of_the_layer() -> None:
    result = certiconv("derive", "conv1d", "--kernel-size", "7", "--stride", "2")
    assert "kernel_size=(7,), stride=(2,)" in " ".join(result.stdout.split())


def test_a_gradient_is_derived() -> None:
    result = certiconv("derive", "conv1d", "--wrt", "weight")
    assert result.exit_code == 0
    assert "Conv1d" in result.stdout


def test_a_terminal_without_unicode_gets_ascii() -> None:
    code = "from runtime.cli import main; main(['derive', 'conv1d'])"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert b"Sum" in ran.stdout


def test_text_goes_to_standard_output_or_whole_to_a_file(standin: Standin, tmp_path: Path) -> None:
    printed = certiconv(*CONV, "8,6,14,14")
    assert (printed.exit_code, printed.stderr) == (0, "")
    compile(printed.stdout, "conv.py", "exec")
    written = certiconv(*CONV, "8,6,14,14", "--out", str(tmp_path / "conv.py"))
    assert (written.exit_code, written.stdout) == (0, "")
    assert "conv.py: sha256 " in written.stderr
    assert (tmp_path / "conv.py").read_text() == printed.stdout
    assert [f.name for f in tmp_path.iterdir()] == ["conv.py"]


def test_check_shows_the_certificate_beside_the_text(standin: Standin) -> None:
    result = certiconv("emit", "lenet", "--check")
    assert result.exit_code == 0
    assert result.stdout.lstrip().startswith("import numpy")
    told = " ".join(result.stderr.split())
    assert "1. the text computes the stages scope: 4 cases method: executed exactly" in told
    assert "trusted: NumPy; Python" in told


# --- lenet --------------------------------------------------------------------------------------------------


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_digits()
    few = replace(
        whole,
        train_images=whole.train_images[:40],
        train_labels=whole.train_labels[:40],
        test_images=whole.test_images[:20],
        test_labels=whole.test_labels[:20],
    )
    monkeypatch.setattr(job, "load_digits", lambda: few)


@pytest.fixture
def plain_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """A report without pictures, where a test does not read it: they take seconds."""
    monkeypatch.setattr(job, "report_phase", lambda run, path: f"{path.write_text('a report')} bytes")


@pytest.mark.usefixtures("standin", "short_derivation", "few_digits")
class TestReport:
    """The main job on a few digits, up to the report that a user opens."""

    def test_the_report_holds_the_run(self, tmp_path: Path) -> None:
        certiconv("lenet", "--epochs", "1", "--seed", "7", "--out", str(tmp_path))
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        for words in (
            "A dense layer becomes Conv1d",
            "proved for all sizes",
            "the text computes the stages",
            "Translation invariance",
            "certiconv lenet --epochs 1 --backend numpy --seed 7",
            "CC BY 4.0",
        ):
            assert words.lower() in page.lower()
        assert "<script" not in page
        assert str(tmp_path) not in page

    def test_ctrl_c_before_the_first_epoch_still_reports(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        interrupt_after(0, monkeypatch)
        result = certiconv("lenet", "--epochs", "9", "--out", str(tmp_path))
        assert result.exit_code == 1
        assert "interrupted before the first epoch was finished" in result.stderr
        assert "interrupted" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("standin", "short_derivation", "few_digits", "plain_report")
class TestLenet:
    """The main job on a few digits."""

    def test_it_goes_through_all_phases(self, tmp_path: Path) -> None:
        out = tmp_path / "made" / "here"
        result = certiconv("lenet", "--epochs", "2", "--out", str(out))
        assert result.exit_code == 0, result.stderr
        phases = [line.split()[0] for line in result.stderr.splitlines() if not line.startswith(" ")]
        assert phases == ["derive", "emit", "check", "train", "report"]
        assert "epoch 2 of 2: loss " in result.stderr
        accuracy, report, parameters = result.stdout.splitlines()
        assert accuracy.startswith("held-out accuracy 0.")
        assert accuracy.endswith("of 20)")
        assert report == f"report {out / 'report.html'}"
        assert parameters == f"parameters {out / 'lenet.npz'}"
        assert sorted(f.name for f in out.iterdir()) == ["lenet.npz", "report.html"]
        assert "\x1b" not in result.stderr

    def test_the_saved_network_is_the_one_reported(self, tmp_path: Path) -> None:
        result = certiconv("lenet", "--epochs", "2", "--out", str(tmp_path))
        net = Network.load(tmp_path / "lenet.npz", cache_dir=tmp_path / "cache")
        run = job.prepare(job.Settings(epochs=2))
        found = net.accuracy(run.digits.test_images.astype("f4"), run.digits.test_labels)
        assert result.stdout.startswith(f"held-out accuracy {found:.4f} ")

    def test_a_seed_repeats_the_parameters_to_the_bit(self, tmp_path: Path) -> None:
        for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
            assert certiconv("lenet", "--epochs", "1", "--seed", seed, "--out", str(tmp_path / name)).exit_code == 0
        a, b, c = ((tmp_path / name / "lenet.npz").read_bytes() for name in "abc")
        assert a == b
        assert a != c

    def test_ctrl_c_in_training_keeps_the_last_epoch_and_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        interrupt_after(2, monkeypatch)
        result = certiconv("lenet", "--epochs", "9", "--out", str(tmp_path))
        assert result.exit_code == 1
        words = "interrupted: the parameters are those after epoch 2 of 9"
        assert result.stderr.endswith(f"certiconv: {words}\n")
        assert "held-out accuracy" in result.stdout
        assert sorted(f.name for f in tmp_path.iterdir()) == ["lenet.npz", "report.html"]

    def test_ctrl_c_elsewhere_writes_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupted(_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(job, "check", interrupted)
        result = certiconv("lenet", "--out", str(tmp_path))
        assert result.exit_code == 1
        assert result.stderr.endswith("certiconv: interrupted; finished: derive, emit\n")
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        result = certiconv("lenet", "--out", str(tmp_path / "file"))
        assert result.exit_code == 2
        assert "File exists" in result.stderr

    def test_the_text_that_was_checked_is_trained(self, standin: Standin, tmp_path: Path) -> None:
        certiconv("lenet", "--epochs", "1", "--out", str(tmp_path))
        assert len(standin.emitted) == 1


def interrupt_after(epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the first step after so many epochs of 40 images in batches of 16."""
    taken = 0
    step = Network.step

    def stopped(self: Network, x: Any, y: Any, *, lr: float = 0.5) -> float:
        nonlocal taken
        taken += 1
        if taken > 3 * epochs:
            raise KeyboardInterrupt
        return step(self, x, y, lr=lr)

    monkeypatch.setattr(Network, "step", stopped)
