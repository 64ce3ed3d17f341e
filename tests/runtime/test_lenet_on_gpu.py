"""``certiconv lenet --backend cupy`` from its first theorem to its report, the GPU played by the stand-in for CuPy.

The network is of LeNet's architecture, with fewer channels and features: of it the same theorems speak, which are
proved here as the command proves them, and its text goes the same way, in less time.  Nothing else is replaced but
the derivations of single layers, which say nothing of a backend.  LeNet itself takes a minute, for ``-m campaign``.
"""

import html
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import codegen
from derive.layers import AvgPool2d, Conv1d, Conv2d, Flatten, Linear, Sequential, Sigmoid, symbolic
from derive.reduction import reduction
from runtime import lenet as job
from runtime.cli import main
from runtime.data import load_digits
from runtime.network import Network
from runtime.simt import SimtUnavailable

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
SMALL = Sequential(
    Conv2d(1, 5, 5, padding=2), Sigmoid(), AvgPool2d(2), Conv2d(5, 5, 5), Sigmoid(), AvgPool2d(2), Flatten(),
    Linear(125, 7), Sigmoid(), Linear(7, 6), Sigmoid(), Linear(6, 10),
)  # fmt: skip
TRAINING, HELD_OUT = 20, 5


def idx(a: np.ndarray) -> bytes:
    """An array as an IDX file of unsigned bytes."""
    return bytes((0, 0, 8, a.ndim)) + b"".join(n.to_bytes(4, "big") for n in a.shape) + a.astype(np.uint8).tobytes()


def few_digits(folder: Path) -> Path:
    """The first of the shipped digits as a user's own."""
    d = load_digits()
    parts = (("train", d.train_images, d.train_labels, TRAINING), ("t10k", d.test_images, d.test_labels, HELD_OUT))
    for name, images, labels, count in parts:
        (folder / f"{name}-images-idx3-ubyte").write_bytes(idx((images[:count, 0] * 255).round()))
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels[:count]))
    return folder


@dataclass(frozen=True)
class Finished:
    """What the command printed, and its page as plain words."""

    status: int
    stdout: str
    stderr: str
    page: str
    out: Path

    @property
    def words(self) -> str:
        return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", self.page)).split())


def run(folder: Path, out: Path) -> Finished:
    command = ["lenet", "--backend", "cupy", "--epochs", "1", "--data", str(folder), "--out", str(out)]
    done = CliRunner().invoke(main, command)
    assert done.exception is None, done.stderr
    return Finished(done.exit_code, done.stdout, done.stderr, (out / "report.html").read_text(encoding="utf-8"), out)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The command is about the small network."""
    prepare, told = job.prepare, reduction(symbolic(Conv1d)[0])

    def prepared(*arguments: object, **options: object) -> job.LenetRun:
        made = prepare(*arguments, **options)  # type: ignore[arg-type]
        made.network = SMALL
        return made

    monkeypatch.setattr(job, "prepare", prepared)
    monkeypatch.setattr(job, "derivations", lambda network: iter([told]))
    return


@needs_compiler
@pytest.mark.campaign
@pytest.mark.usefixtures("gpu", "small")
def test_the_whole_command(tmp_path: Path) -> None:
    """One run, looked at from every side: it takes too long for a run a test."""
    finished = run(few_digits(tmp_path), tmp_path / "out")
    assert finished.status == 0, finished.stderr
    check_what_is_printed(finished)
    check_the_report(finished)
    check_the_certificate(finished)
    net = Network.load(finished.out / "lenet.npz", backend="numpy")
    assert net.sequential == SMALL
    x = job.standardise(job.load_idx_folder(tmp_path))
    right = round(HELD_OUT * net.accuracy(x.test_images.astype("f"), x.test_labels))
    assert f"({right} of {HELD_OUT})" in finished.stdout


def check_what_is_printed(finished: Finished) -> None:
    told = dict(re.findall(r"^(\w+) +[\d.]+ s  (.*)$", finished.stderr, re.MULTILINE))
    assert list(told) == ["derive", "emit", "check", "train", "report"]
    assert told["derive"] == "13 theorems, each proved for all sizes"
    assert "16 claims" in told["check"]
    assert "every thread of the CUDA text was run on the CPU" in told["check"]
    assert "the theorems quoted are those proved above" in told["check"]
    assert told["train"] == "trained for 1 epoch"
    assert re.search(rf"^held-out accuracy 0\.\d+ \(\d of {HELD_OUT}\)$", finished.stdout, re.MULTILINE)


def check_the_report(finished: Finished) -> None:
    """It names the backend wherever it speaks of what computed."""
    where = "CuPy on no GPU: runtime.simt on the CPU"
    for words in (
        f"trained on {TRAINING} images, by {where}.",
        "LeNet for CuPy",
        "For the check every thread of them was run on the CPU by runtime.simt, which watches every access;",
        f"the training was computed by {where}.",
        f"computed by {where}",
        "certiconv lenet --epochs 1 --backend cupy --seed 0 --data FOLDER",
        "the same bits on one GPU with one version of CUDA",
        "g++, for the check",
        "import cupy",
        'extern "C" __global__ void',
        "LeNet's plan computes the loss",
    ):
        assert words in finished.words, words
    for words in ("NumPy on the CPU", "BLAS", "LeNet for NumPy", "not proved"):
        assert words not in finished.words, words
    emitted = codegen.emit(SMALL, backend="cupy", input_shape=job.INPUT_SHAPE, dtype=job.DTYPE)
    assert emitted.digest in finished.page
    assert f"is CUDA C++, with {len(emitted.kernels)} kernels" in finished.words


def check_the_certificate(finished: Finished) -> None:
    """Twelve theorems by their digests, and how the text was executed."""
    assert len(re.findall(r"Theorem with the SHA-256 [0-9a-f]{64}", finished.words)) == 12
    for words in (
        "The CUDA text computes its stages: forward, loss, every gradient and the step of SGD",
        "Exact execution in the integers modulo p = 2^61 - 1",
        "no kernel reads or writes outside an array",
        "the executor (runtime.simt): its model of CUDA, and g++, whose flags keep it from merging or copying",
        "that NVRTC and the GPU do as the model does",
    ):
        assert words in finished.words, words


def test_without_a_compiler_nothing_is_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check needs one, and comes after a minute of proofs."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SimtUnavailable, match="needs g"):
        job.prepare(job.Settings(epochs=1), backend="cupy")
    job.prepare(job.Settings(epochs=1), backend="numpy")


@needs_compiler
@pytest.mark.campaign
@pytest.mark.usefixtures("gpu")
def test_lenet_itself(tmp_path: Path) -> None:
    finished = run(few_digits(tmp_path), tmp_path / "out")
    assert finished.status == 0, finished.stderr
    assert "23 theorems, each proved for all sizes" in finished.stderr
    check_the_certificate(finished)
