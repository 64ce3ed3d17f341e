"""The command: what it prints where, its exit statuses, and the one message a user gets for each mistake.

Emission and derivations are real.  LeNet's certificate takes long to make, so a small one stands in for it in all tests
but those of `TestTheRealThing`, which run the whole command in a process of its own.
"""

import base64
import hashlib
import html
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import codegen
from codegen.certificate import Certificate, Row, certificate
from codegen.execution import Finding, Refuted
from derive.layers import Conv1d, lenet, symbolic
from derive.obligations import Refused
from derive.reduction import reduction
from runtime import lenet as job
from runtime.cli import main
from runtime.data import load_digits, standardise
from runtime.network import Network
from tests.runtime.emission import Emission

ROOT = Path(__file__).resolve().parents[2]
ROWS = (
    Row("The text computes its stages: all of them.", "4 cases", "Exact execution.", 1e-20, ("NumPy", "Python")),
    Row("Results are new arrays.", "4 cases", "Addresses compared.", None, ("Python",)),
)


def certify(monkeypatch: pytest.MonkeyPatch, check: Callable[[codegen.Emitted], Certificate]) -> None:
    """Let a function make the certificate of everything that is emitted."""
    monkeypatch.setattr(codegen.Emitted, "certificate", property(check))


@pytest.fixture
def small_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    certify(monkeypatch, lambda emitted: certificate("LeNet", emitted.source, ROWS))


@pytest.fixture
def short_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    told = reduction(symbolic(Conv1d)[0])
    monkeypatch.setattr(job, "derivations", lambda network: iter([told]))
    monkeypatch.setattr(job, "plan_derivations", lambda backend: {})
    monkeypatch.setattr(job, "agree", lambda run: None)


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
        (
            ("shape", "avgpool1d", "--input", "1,1,9", "--kernel-size", "2", "--groups", "2"),
            "for --groups: avgpool1d does",
        ),
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
        ((*CONV, "8,6,14,14", "--groups", "4"), "in_channels=6 is not legal: groups=4 has to divide in_channels"),
        (("derive", "conv1d", "--groups", "2"), "groups=2 has no reduction here"),
        ((*CONV, "8,3,14,14"), "the number of channels of the input is 3"),
        ((*CONV, "8,6,14,14", "--dtype", "float16"), "dtype='float16': only backend='cupy' computes in it; nearest"),
        ((*CONV, "8,6,14,14", "--backend", "cupy", "--algorithm", "gemm"), "it has to be one of 'auto', 'definition'"),
        ((*LENET, "--backend", "cuda"), "backend='cuda' is unknown; legal: 'auto', 'numpy', 'cupy'"),
        ((*LENET, "--input", "1,3,28,28"), "the number of channels of the input is 3"),
        ((*LENET, "--out", "no/such/folder/lenet.py"), "there is no folder"),
        (("derive", "sigmoid"), "only a convolution is derived from a dense layer; nearest legal: wrt='input'"),
        (("derive", "avgpool2d", "--wrt", "bias"), "wrt='bias': AvgPool2d"),
        (("lenet", "--data", "no/such/folder"), "no/such/folder: expected a folder with IDX files, found nothing"),
        (("lenet", "--epochs", "0"), "epochs=0 is less than 1; nearest legal: 1"),
        (("lenet", "--seed", "-1"), "seed=-1 is less than 0; nearest legal: 0"),
        (("lenet", "--backend", "cupy"), "backend='cupy' does not work here"),
    ],
)
def test_bad_input_gets_one_message_and_2(arguments: tuple[str, ...], words: str) -> None:
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


def test_a_text_that_is_refuted_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refute(_: object) -> Certificate:
        raise Refuted(Finding("forward: stage Z is wrong", "forward"))

    certify(monkeypatch, refute)
    result = certiconv(*CONV, "8,6,14,14", "--check")
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
        ("conv2d --input 8,6,14,14 --kernel-size 5 --groups 3", "(8, 3*M, 10, 10)"),
        ("conv1d --input N,4,n --kernel-size 3 --padding 1 --out-channels 4 --groups 4", "(N, 4, n)"),
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


def test_groups_are_passed_on(tmp_path: Path) -> None:
    told = certiconv("derive", "conv1d", "--groups", "2", "--wrt", "weight")
    assert "In this layer g = 2." in " ".join(told.stdout.split())
    path = tmp_path / "conv.py"
    arguments = "emit conv2d --in-channels 6 --out-channels 6 --kernel-size 3 --groups 6 --input 8,6,9,9 --out"
    assert certiconv(*arguments.split(), str(path)).exit_code == 0
    assert "groups=6" in path.read_text()


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


def test_text_goes_to_standard_output_or_whole_to_a_file(tmp_path: Path) -> None:
    printed = certiconv(*CONV, "8,6,14,14")
    assert (printed.exit_code, printed.stderr) == (0, "")
    compile(printed.stdout, "conv.py", "exec")
    written = certiconv(*CONV, "8,6,14,14", "--out", str(tmp_path / "conv.py"))
    assert (written.exit_code, written.stdout) == (0, "")
    assert "conv.py: sha256 " in written.stderr
    assert (tmp_path / "conv.py").read_text() == printed.stdout
    assert [f.name for f in tmp_path.iterdir()] == ["conv.py"]


def test_check_shows_the_certificate_beside_the_text() -> None:
    arguments = "--in-channels 1 --out-channels 4 --kernel-size 3 --input 8,1,20 --no-bias --check"
    result = certiconv("emit", "conv1d", *arguments.split())
    assert result.exit_code == 0
    emitted = codegen.emit(Conv1d(1, 4, 3, bias=False), input_shape=(8, 1, 20))
    assert result.stdout == emitted.source
    assert result.stderr == emitted.certificate.to_text()


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


@pytest.mark.usefixtures("emission", "small_certificate", "short_derivation", "few_digits")
class TestReport:
    """The main job on a few digits, up to the report that a user opens."""

    def test_the_report_holds_the_run(self, tmp_path: Path) -> None:
        certiconv("lenet", "--epochs", "1", "--seed", "7", "--out", str(tmp_path))
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        for words in (
            "A dense layer becomes Conv1d",
            "proved for all sizes",
            "The text computes its stages: all of them.",
            "in exact arithmetic on 4 cases: the text computes its stages (claim 1) on 4.",
            "Translation invariance",
            "certiconv lenet --epochs 1 --backend numpy --seed 7",
            "CC BY 4.0",
        ):
            assert words.lower() in " ".join(page.lower().split())
        assert "<script" not in page
        assert str(tmp_path) not in page

    def test_ctrl_c_before_the_first_epoch_still_reports(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        interrupt_after(0, monkeypatch)
        result = certiconv("lenet", "--epochs", "9", "--out", str(tmp_path))
        assert result.exit_code == 1
        assert "interrupted before the first epoch was finished" in result.stderr
        assert "interrupted" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("emission", "small_certificate", "short_derivation", "few_digits", "plain_report")
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
        def interrupted(_: object) -> Certificate:
            raise KeyboardInterrupt

        certify(monkeypatch, interrupted)
        result = certiconv("lenet", "--out", str(tmp_path))
        assert result.exit_code == 1
        assert result.stderr.endswith("certiconv: interrupted; finished: derive, emit\n")
        assert list(tmp_path.iterdir()) == []

    def test_a_folder_that_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        result = certiconv("lenet", "--out", str(tmp_path / "file"))
        assert result.exit_code == 2
        assert "File exists" in result.stderr

    def test_the_text_that_was_checked_is_trained(self, emission: Emission, tmp_path: Path) -> None:
        certiconv("lenet", "--epochs", "1", "--out", str(tmp_path))
        assert len(emission.asked) == 1


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


# --- Nothing is replaced ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """What a run left: its exit status, what it said where, and its folder."""

    status: int
    stdout: str
    stderr: str
    out: Path

    @property
    def page(self) -> str:
        return (self.out / "report.html").read_text(encoding="utf-8")


@pytest.fixture(scope="class")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """`certiconv lenet` for two epochs, as a user starts it."""
    out = tmp_path_factory.mktemp("lenet") / "out"
    code = "from runtime.cli import main; main()"
    ran = subprocess.run(
        [sys.executable, "-c", code, "lenet", "--epochs", "2", "--out", str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "XDG_CACHE_HOME": str(out.parent / "cache")},
    )
    return Finished(ran.returncode, ran.stdout, ran.stderr, out)


PHASE = re.compile(r"^(derive|emit|check|train|report) +\d+\.\d s  (.+)$", re.MULTILINE)
SECTIONS = ("summary", "reduction", "theorems", "code", "certificate", "training", "trusted", "reproduce")


class TestTheRealThing:
    """One run in which everything is real: derive, emit, check, train, report."""

    def test_results_go_to_standard_output_and_progress_to_standard_error(self, finished: Finished) -> None:
        assert finished.status == 0, finished.stderr
        accuracy, report, parameters = finished.stdout.splitlines()
        assert re.fullmatch(r"held-out accuracy 0\.\d{4} \(\d+ of 360\)", accuracy)
        assert report == f"report {finished.out / 'report.html'}"
        assert parameters == f"parameters {finished.out / 'lenet.npz'}"
        assert [name for name, _ in PHASE.findall(finished.stderr)] == ["derive", "emit", "check", "train", "report"]
        assert finished.stderr.count("  epoch ") == 2
        assert "\x1b" not in finished.stdout + finished.stderr

    def test_no_text_comes_from_or_goes_to_a_cache(self, finished: Finished) -> None:
        assert not (finished.out.parent / "cache" / "certiconv").exists()
        assert sorted(file.name for file in finished.out.iterdir()) == ["lenet.npz", "report.html"]

    def test_the_report_has_every_section(self, finished: Finished) -> None:
        page = finished.page
        assert re.findall(r'<section id="(\w+)"', page) == list(SECTIONS)
        assert [f'href="#{name}"' in page for name in SECTIONS[1:]] == [True] * 7
        for words in ("Confusion matrix", "Learned kernels", "LeNet&#39;s plan computes the loss", "CC BY 4.0"):
            assert words in page
        assert str(finished.out) not in page
        assert str(ROOT) not in page

    def test_the_report_shows_the_very_text_and_names_its_hash(self, finished: Finished, emission: Emission) -> None:
        emitted = emission.emit(lenet(), backend="numpy", input_shape=job.INPUT_SHAPE, dtype=job.DTYPE)
        (shown,) = re.findall(r'<pre class="code"[^>]*><code>(.*?)</code></pre>', finished.page, re.DOTALL)
        text = html.unescape(re.sub(r"</?span[^>]*>", "", shown)) + "\n"
        assert text == emitted.source
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert digest == emitted.digest
        assert digest in finished.page
        assert digest[:12] in dict(PHASE.findall(finished.stderr))["emit"]

    def test_nothing_is_claimed_that_was_not_done(self, finished: Finished) -> None:
        words = " ".join(re.sub(r"<[^>]+>", " ", finished.page).lower().split())
        for claim in ("replayed", "independently checked", "verified", "not proved"):
            assert claim not in words
        assert re.search(r"of (\d+) theorems, \1 are proved for all sizes", words)

    def test_exact_executions_are_counted_once(self, finished: Finished) -> None:
        words = " ".join(html.unescape(re.sub(r"<[^>]+>", " ", finished.page)).split())
        told = re.search(r"executed in exact arithmetic on (\d+) cases: (.*?)\. The run took", words)
        assert told
        parts = re.findall(r"\(claim (\d+)\) on (\d+)", told[2])
        assert int(told[1]) == sum(int(cases) for _, cases in parts) > 0
        for claim, cases in parts:
            row = re.search(rf'<th scope="row">{claim}\. .*?data-name="Scope">([^<]*)<', finished.page)
            assert row
            assert row[1].startswith(f"{cases} ")
        assert f'<dd class="figure">{told[1]}</dd><dd>cases of the emitted text</dd>' in finished.page

    def test_a_parameter_keeps_its_number_after_locality(self, finished: Finished) -> None:
        invariant, local = (numbers_in_cells(finished.page, f"After {what}") for what in WHAT)
        assert len(invariant) == 16 * 16
        assert len(local) == (4 + 3 + 3) ** 2  # along an axis, 4 + 3 + 3 pairs of pixels are at most one apart
        assert local.items() <= invariant.items()
        assert (len(set(invariant.values())), len(set(local.values()))) == (49, 9)

    def test_the_saved_network_is_the_one_reported(self, finished: Finished, tmp_path: Path) -> None:
        net = Network.load(finished.out / "lenet.npz", cache_dir=tmp_path)
        digits = standardise(load_digits())
        right = round(360 * net.accuracy(digits.test_images.astype(net.dtype), digits.test_labels))
        assert finished.stdout.startswith(f"held-out accuracy {right / 360:.4f} ({right} of 360)\n")
        assert f"{right} of 360 images, measured" in finished.page


WHAT = ("translation invariance", "locality")


def numbers_in_cells(page: str, title: str) -> dict[tuple[str, str], str]:
    """The numbers in the cells of a weight matrix, by where they are drawn: each is centred in its cell."""
    found = re.search(rf'<img src="data:image/svg\+xml;base64,([^"]+)" alt="{title}: ', page)
    assert found
    picture = base64.b64decode(found[1]).decode()
    cells = re.findall(r"<!-- (\d+) -->\s*<g [^>]*translate\(([\d.]+) ([\d.]+)\)", picture)
    return {(x, y): number for number, x, y in cells}
