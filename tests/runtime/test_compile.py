"""Compiled layers: the border of an operation, and a cache that saves time but never decides what is run.

The text is emitted for real; the fixture `emission` notes how often it was asked for.
"""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runtime
from codegen.emit import EmitError
from codegen.files import write_atomically
from derive.layers import Conv1d, Conv2d, Flatten, lenet, symbolic
from derive.legality import LayerError
from runtime import cache
from runtime import tune as tuning
from runtime.arrays import ArrayError, channels_last
from runtime.cache import generator, user_cache_dir
from runtime.compile import load_module
from runtime.device import BackendError
from runtime.operation import Operation
from runtime.thread_crew import Threads
from tests.runtime.emission import Emission

LAYER = Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2))
SHAPE = (2, 2, 7, 8)


@pytest.fixture
def operation(emission: Emission, tmp_path: Path) -> Operation:
    return runtime.compile(LAYER, input_shape=SHAPE, dtype="float64", cache_dir=tmp_path)


def arguments(batch: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(batch)
    return rng.normal(size=(batch, 2, 7, 8)), rng.normal(size=(3, 2, 3, 2)), rng.normal(size=3)


def by_definition(x: np.ndarray, w: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Z[b,n,i,j] = u[n] + Sum W[n,c,a,e] X[b,c,2i+a-1,j+2e]."""
    out = np.zeros((len(x), 3, 4, 6)) + u[None, :, None, None]
    for n, c, i, j, a, e in np.ndindex(3, 2, 4, 6, 3, 2):
        if 0 <= 2 * i + a - 1 < 7:
            out[:, n, i, j] += w[n, c, a, e] * x[:, c, 2 * i + a - 1, j + 2 * e]
    return out


# --- The border of an operation -----------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [0, 1, 5])
def test_the_batch_size_stays_free(operation: Operation, batch: int) -> None:
    x, w, u = arguments(batch)
    z = operation.forward(x, w, u)
    np.testing.assert_allclose(z, by_definition(x, w, u), rtol=1e-12, atol=1e-13)
    found = operation.backward(z, x, w)
    assert [g.shape for g in found if g is not None] == [x.shape, w.shape, u.shape]


def test_strides_change_nothing(operation: Operation) -> None:
    x, w, u = arguments()
    z = operation.forward(x, w, u)
    turned_x = np.asfortranarray(x)
    turned_w = w[::-1, :, ::-1].copy()[::-1, :, ::-1]
    turned_u = np.repeat(u, 2)[::2]
    np.testing.assert_array_equal(operation.forward(turned_x, turned_w, turned_u), z)
    turned = operation.backward(np.asfortranarray(z), turned_x, turned_w)
    for found, wanted in zip(turned, operation.backward(z, x, w), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_gradients_have_names(operation: Operation) -> None:
    x, w, u = arguments()
    z = operation.forward(x, w, u)
    found = operation.backward(np.ones_like(z), x, w)
    np.testing.assert_allclose(found.bias, np.full(3, 2 * 4 * 6))
    assert found.input.shape == x.shape
    assert found.weight.shape == w.shape


def test_a_layer_without_a_bias_takes_and_gives_none(emission: Emission, tmp_path: Path) -> None:
    layer = Conv1d(1, 2, 3, bias=False)
    operation = runtime.compile(layer, input_shape=(1, 1, 9), cache_dir=tmp_path)
    x, w = np.ones((1, 1, 9), "f4"), np.ones((2, 1, 3), "f4")
    assert operation.forward(x, w).tolist() == [[[3.0] * 7] * 2]
    assert operation.backward(operation.forward(x, w), x, w).bias is None
    with pytest.raises(LayerError, match=r"bias is given, but Conv1d\(.*\) has none; nearest legal: bias=None"):
        operation.forward(x, w, np.ones(2, "f4"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"input": np.ones((2, 2, 8, 7))}, "input has shape (2, 2, 8, 7), expected (any, 2, 7, 8): axis 2 is 8, not 7"),
        ({"weight": np.ones((3, 2, 2, 3))}, "weight has shape (3, 2, 2, 3), expected (3, 2, 3, 2): axis 2 is 2, not 3"),
        ({"bias": np.ones(4)}, "bias has shape (4,), expected (3,): axis 0 is 4, not 3; nearest legal: (3,)"),
        ({"bias": None}, "has one; nearest legal: zeros of shape (3,)"),
        ({"weight": np.ones((3, 2, 3, 2), "f4")}, "weight has dtype float32, expected float64"),
    ],
)
def test_arguments_that_do_not_fit(operation: Operation, change: dict[str, Any], words: str) -> None:
    x, w, u = arguments()
    with pytest.raises((ArrayError, LayerError)) as refused:
        operation.forward(**{"input": x, "weight": w, "bias": u} | change)
    assert words in str(refused.value)


def test_a_cotangent_has_the_shape_of_the_output(operation: Operation) -> None:
    x, w, _ = arguments()
    with pytest.raises(ArrayError, match=r"grad_output has shape \(1, 3, 4, 6\), expected \(2, 3, 4, 6\)"):
        operation.backward(np.ones((1, 3, 4, 6)), x, w)


def test_threads_may_share_an_operation(operation: Operation) -> None:
    x, w, u = arguments()
    wanted = operation.forward(x, w, u)
    found: list[np.ndarray] = []
    threads = [threading.Thread(target=lambda: found.append(operation.forward(x, w, u))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all((z == wanted).all() for z in found)


def test_a_depthwise_convolution_is_compiled(tmp_path: Path) -> None:
    layer = Conv1d(3, 3, 2, stride=2, padding=1, groups=3)
    operation = runtime.compile(layer, input_shape=(1, 3, 6), dtype="float64", cache_dir=tmp_path)
    rng = np.random.default_rng(0)
    x, w, u = rng.normal(size=(4, 3, 6)), rng.normal(size=(3, 1, 2)), rng.normal(size=3)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1)))
    wanted = u[:, None] + w[:, :, 0] * padded[..., 0:7:2] + w[:, :, 1] * padded[..., 1:8:2]
    np.testing.assert_allclose(operation.forward(x, w, u), wanted, rtol=1e-12)
    found = operation.backward(wanted, x, w)
    np.testing.assert_allclose(found.weight[:, 0, 1], (wanted * padded[..., 1:8:2]).sum(axis=(0, 2)), rtol=1e-12)
    with pytest.raises(ArrayError, match=r"weight has shape \(3, 3, 2\), expected \(3, 1, 2\)"):
        operation.forward(x, rng.normal(size=(3, 3, 2)), u)


# --- What can be compiled -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "error", "words"),
    [
        ({"layer": Flatten()}, LayerError, "are compiled by themselves; runtime.Network takes a Sequential"),
        ({"layer": lenet()}, LayerError, "runtime.Network takes a Sequential"),
        ({"layer": symbolic(Conv2d)[0]}, LayerError, "has a symbol; what runs needs a number for every dimension"),
        ({"input_shape": (2, 2, 7)}, LayerError, ""),
        ({"input_shape": (2, 3, 7, 8)}, LayerError, "the number of channels of the input"),
        (
            {"dtype": "float16"},
            ArrayError,
            "dtype='float16': only backend='cupy' computes in it; nearest legal: 'float32'",
        ),
        ({"backend": "cupy"}, BackendError, "backend='cupy' does not work here: "),
    ],
)
def test_what_cannot_be_compiled(
    emission: Emission, tmp_path: Path, asked: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error) as refused:
        runtime.compile(**{"layer": LAYER, "input_shape": SHAPE, "cache_dir": tmp_path} | asked)
    assert words in str(refused.value)
    assert emission.asked == []


def test_the_public_function_is_the_same_whoever_imported_the_file() -> None:
    code = (
        "import runtime.compile, runtime.train, runtime, importlib; "
        "print(callable(runtime.compile), callable(runtime.train), "
        "importlib.import_module('runtime.compile').compile is runtime.compile)"
    )
    for first in ("", "import runtime; runtime.compile; "):
        ran = subprocess.run([sys.executable, "-c", first + code], check=True, capture_output=True, text=True)
        assert ran.stdout.split() == ["True"] * 3


def test_every_public_name_is_there() -> None:
    assert {name for name in runtime.__all__ if getattr(runtime, name) is None} == set()
    assert set(runtime.__all__) <= set(dir(runtime))
    with pytest.raises(AttributeError, match="module 'runtime' has no attribute 'networks'"):
        _ = runtime.networks  # type: ignore[attr-defined]


# --- The choice of an algorithm -----------------------------------------------------------------------------


def told(operation: Operation) -> str:
    """What the text says that it was made with."""
    head = " ".join(str(operation.module.__doc__).split())
    return head[head.index(" with ") + 6 : head.index(" for any batch")]


def test_the_algorithm_that_is_named_is_taken_and_has_text_of_its_own(emission: Emission, tmp_path: Path) -> None:
    asked: list[dict[str, Any]] = [
        {}, {"algorithm": "gemm"}, {"algorithm": "direct"}, {"algorithm": {"forward": "gemm"}}, {"tolerance": 1e-2},
        {"tolerance": 1e-6}, {"layout": "channels_last"},
    ]  # fmt: skip
    for options in asked * 2:
        operation = runtime.compile(LAYER, input_shape=SHAPE, dtype="float64", cache_dir=tmp_path, **options)
        if isinstance(options.get("algorithm"), str):
            assert told(operation) == options["algorithm"]
        x, w, u = arguments()
        np.testing.assert_allclose(operation.forward(x, w, u), by_definition(x, w, u), rtol=1e-9, atol=1e-9)
    assert len(emission.asked) == len(list(tmp_path.iterdir())) == len(asked)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"algorithm": "winograd2"}, "algorithm='winograd2': it has no plan for Conv2d(2, 3, (3, 2)"),
        ({"algorithm": "fft"}, "algorithm='fft': it has to be one of 'auto', 'direct'"),
        ({"algorithm": {"weights": "gemm"}}, "algorithm='weights': it has to be one of 'forward', 'input_gradient'"),
        ({"algorithm": 3}, "algorithm=3: a name, or a mapping from results to names, such as 'auto', is needed"),
        ({"algorithm": None}, "algorithm=None: a name, or a mapping"),
        ({"algorithm": "gemm", "tolerance": 1e-3}, "nothing is chosen by it where the algorithm is fixed, to 'gemm'"),
        ({"tolerance": 0.0}, "tolerance=0.0: it has to be a finite number above 0"),
        ({"layout": "nhwc"}, "layout='nhwc': it has to be one of 'channels_first', 'channels_last'"),
    ],
)
def test_choices_that_cannot_be_met(tmp_path: Path, asked: dict[str, Any], words: str) -> None:
    for _ in range(2):
        with pytest.raises(EmitError) as refused:
            runtime.compile(LAYER, input_shape=SHAPE, cache_dir=tmp_path, **asked)
        assert words in str(refused.value)
    assert list(tmp_path.iterdir()) == []


def test_what_was_measured_is_used_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conv, shape = Conv2d(4, 4, 3, padding=1), (2, 4, 6, 6)
    before = runtime.compile(conv, input_shape=shape, algorithm="tuned", cache_dir=tmp_path)
    assert told(before) == told(runtime.compile(conv, input_shape=shape, cache_dir=tmp_path))

    medians = {"gemm": 2.0, "im2col": 1.0, "direct": 3.0}  # what no prediction takes
    monkeypatch.setattr(tuning, "_measured", lambda *_: dict.fromkeys(("forward", "input_gradient"), medians))
    tuning.tune(conv, shape, cache_dir=tmp_path)
    found = told(runtime.compile(conv, input_shape=shape, algorithm="tuned", cache_dir=tmp_path))
    assert found.startswith("forward im2col, input_gradient im2col, weight_gradient ")
    mixed = {"forward": "gemm", "input_gradient": "tuned"}
    found = told(runtime.compile(conv, input_shape=shape, algorithm=mixed, cache_dir=tmp_path))
    assert found.startswith("forward gemm, input_gradient im2col, weight_gradient ")
    for other in (
        {"tolerance": 1e-2},
        {"input_shape": (3, 4, 6, 6)},
        {"dtype": "float64"},
        {"layout": "channels_last"},
    ):
        options: dict[str, Any] = {"input_shape": shape, "cache_dir": tmp_path} | other
        assert told(runtime.compile(conv, algorithm="tuned", **options)) == told(runtime.compile(conv, **options))


@pytest.mark.parametrize("threads", [1, 2])
def test_images_that_lie_channels_last_give_results_that_lie_so(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Threads, "least", 1e-12)  # a batch of two is split
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    conv, shape = Conv2d(3, 4, 3, 2, 1), (2, 3, 7, 8)
    rng = np.random.default_rng(0)
    images, w, u = rng.normal(size=(2, 7, 8, 3)), rng.normal(size=(4, 3, 3, 3)), rng.normal(size=4)
    x = images.transpose(0, 3, 1, 2)
    plain = runtime.compile(conv, input_shape=shape, dtype="float64")
    there = runtime.compile(conv, input_shape=shape, dtype="float64", algorithm="nhwc", threads=threads)
    assert there.module.KEEPS_LAYOUT == ["forward", "input_gradient"]
    z = there.forward(x, w, u)
    assert channels_last(z)
    np.testing.assert_allclose(z, plain.forward(np.ascontiguousarray(x), w, u), rtol=1e-12, atol=1e-12)
    found, wanted = there.backward(z, x, w), plain.backward(np.ascontiguousarray(z), np.ascontiguousarray(x), w)
    assert channels_last(found.input)
    for ours, theirs in zip(found, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    assert there.forward(np.ascontiguousarray(x), w, u).flags.c_contiguous
    rows = runtime.compile(conv, input_shape=shape, dtype="float64", algorithm="im2col", threads=threads)
    assert rows.forward(x, w, u).flags.c_contiguous  # its product is formed in the result
    assert rows.backward(z, x, w).input.flags.c_contiguous
    np.testing.assert_allclose(rows.backward(z, x, w).input, wanted.input, rtol=1e-12, atol=1e-12)


# --- The cache ----------------------------------------------------------------------------------------------


def test_text_is_emitted_once_for_one_request(emission: Emission, tmp_path: Path) -> None:
    for _ in range(3):
        runtime.compile(LAYER, input_shape=SHAPE, cache_dir=tmp_path)
    assert emission.asked == [LAYER]
    runtime.compile(LAYER, input_shape=SHAPE, dtype="float64", cache_dir=tmp_path)
    runtime.compile(LAYER, input_shape=(2, 2, 9, 9), cache_dir=tmp_path)
    runtime.compile(Conv2d(2, 3, (3, 2)), input_shape=SHAPE, cache_dir=tmp_path)
    assert len(emission.asked) == 4
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content[:-20],
        lambda content: b"",
        lambda content: content.replace(b"forward", b"forwards"),
        lambda content: b"\xff\xfe" + content,
        lambda content: b"0" * 64 + content[64:],
    ],
    ids=["cut off", "empty", "changed", "not UTF-8", "other hash"],
)
def test_a_spoilt_entry_is_emitted_again(emission: Emission, tmp_path: Path, spoil: Any) -> None:
    load_module(LAYER, input_shape=SHAPE, cache_dir=tmp_path)
    (entry,) = tmp_path.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(spoil(whole))
    assert load_module(LAYER, input_shape=SHAPE, cache_dir=tmp_path).forward
    assert len(emission.asked) == 2
    assert entry.read_bytes() == whole


def test_text_of_another_version_is_not_found(
    emission: Emission, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_module(LAYER, input_shape=SHAPE, cache_dir=tmp_path)
    monkeypatch.setattr(cache, "generator", lambda: "another")
    load_module(LAYER, input_shape=SHAPE, cache_dir=tmp_path)
    assert len(emission.asked) == 2


def test_the_version_is_a_hash_of_every_file() -> None:
    assert len(generator()) == 64
    assert generator() == generator.__wrapped__()


@pytest.mark.parametrize("folder", ["a-file", "a-file/below"])
def test_a_cache_that_cannot_be_used_costs_time_only(emission: Emission, tmp_path: Path, folder: str) -> None:
    (tmp_path / "a-file").write_text("in the way")
    for _ in range(2):
        assert load_module(LAYER, input_shape=SHAPE, cache_dir=tmp_path / folder).forward
    assert len(emission.asked) == 2


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, emission: Emission) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    assert user_cache_dir() == tmp_path / "caches" / "certiconv"
    load_module(LAYER, input_shape=SHAPE)
    assert len(list(user_cache_dir().iterdir())) == 1
    if os.name == "posix":
        assert user_cache_dir().stat().st_mode & 0o077 == 0
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert user_cache_dir() == Path.home() / ".cache" / "certiconv"


# --- Writing ------------------------------------------------------------------------------------------------


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "kept.txt"
    write_atomically(target, b"first")

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(target, b"second")
    assert target.read_bytes() == b"first"
    assert list(tmp_path.iterdir()) == [target]


def test_a_link_is_followed_and_a_device_is_written_to(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    write_atomically(os.devnull, b"gone")
    assert not Path(os.devnull).is_file()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, b"a folder")
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "no" / "folder", b"")
