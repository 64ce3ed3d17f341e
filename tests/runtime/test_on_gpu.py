"""Operations and networks on a GPU, played by the stand-in for CuPy: what users call, get, and are refused."""

import shutil
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import derive
import runtime
from derive.layers import AvgPool2d, Conv2d, Flatten, Linear, Sequential, Sigmoid
from runtime import device
from runtime.arrays import ArrayError
from runtime.data import Digits
from runtime.train import Settings, train

compiling = sys.modules["runtime.compile"]  # the name of the module is that of its function
pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SMALL = Sequential(Conv2d(1, 2, 3), Sigmoid(), AvgPool2d(2), Flatten(), Linear(18, 5), Sigmoid(), Linear(5, 3))
SHAPE = (4, 1, 8, 8)


def drawn(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.usefixtures("gpu")
def test_an_operation_agrees_with_that_of_numpy() -> None:
    layer, shape = Conv2d(2, 5, 3, stride=2, padding=1), (3, 2, 7, 6)
    there, here = (runtime.compile(layer, backend=name, input_shape=shape) for name in ("cupy", "numpy"))
    assert there.backend == "cupy"
    x, w, u = drawn(*shape), drawn(5, 2, 3, 3), drawn(5)
    z = there.forward(x, w, u)
    assert np.allclose(z, here.forward(x, w, u), atol=1e-5)
    for ours, theirs in zip(there.backward(z, x, w), here.backward(z, x, w), strict=True):
        assert np.allclose(ours, theirs, atol=1e-4)
    assert np.allclose(there.forward(x[:, :, ::-1], w, u), here.forward(x[:, :, ::-1], w, u), atol=1e-5)


@pytest.mark.usefixtures("gpu")
def test_auto_takes_the_gpu_where_one_works() -> None:
    assert runtime.compile(Conv2d(1, 1, 2), input_shape=(1, 1, 3, 3)).backend == "cupy"
    assert runtime.compile(Conv2d(1, 1, 2), input_shape=(1, 1, 3, 3), dtype="float16").dtype == "float16"


@pytest.mark.parametrize(
    ("dtype", "name"),
    [
        (np.float16, "float16"),
        (np.dtype("f2"), "float16"),
        ("bfloat16", "bfloat16"),
        (ml_dtypes.bfloat16, "bfloat16"),
        (np.float32, "float32"),
    ],
)
def test_a_dtype_may_be_named_as_numpy_has_it(dtype: Any, name: str) -> None:
    assert compiling.dtype_name(dtype, "cupy") == name
    if name != "float32":
        with pytest.raises(ArrayError, match="only backend='cupy' computes in it; nearest legal: 'float32'"):
            compiling.dtype_name(dtype, "numpy")


@pytest.mark.parametrize(("dtype", "near"), [("int8", "float32"), (np.longdouble, "float32"), ("bfloat", "bfloat16")])
def test_a_dtype_that_no_gpu_computes_in_is_refused_with_the_nearest(dtype: Any, near: str) -> None:
    with pytest.raises(
        ArrayError, match=f"it has to be one of 'float32', .* for backend='cupy'; nearest legal: '{near}'"
    ):
        compiling.dtype_name(dtype, "cupy")


@pytest.mark.usefixtures("gpu")
def test_what_an_operation_on_a_gpu_cannot_take_is_refused_in_words() -> None:
    op = runtime.compile(Conv2d(1, 2, 3), backend="cupy", input_shape=(1, 1, 5, 5))
    x, w, u = drawn(1, 1, 5, 5), drawn(2, 1, 3, 3), drawn(2)
    with pytest.raises(ArrayError, match=r"input has dtype float64, expected float32.*nearest legal: input\.astype"):
        op.forward(x.astype("d"), w, u)
    with pytest.raises(ArrayError, match=r"weight has shape \(2, 1, 3\), expected \(2, 1, 3, 3\)"):
        op.forward(x, w[..., 0], u)
    with pytest.raises(
        ArrayError, match=r"input is a list .*expected an array on the GPU; nearest legal: cupy\.asarray"
    ):
        op.forward([1.0], w, u)
    with pytest.raises(ValueError, match=r"threads=2: a GPU is not shared out among threads; nearest legal: 1"):
        runtime.compile(Conv2d(1, 2, 3), backend="cupy", input_shape=(1, 1, 5, 5), threads=2)


@pytest.mark.usefixtures("gpu")
def test_a_network_steps_as_that_of_numpy_and_is_saved_and_loaded(tmp_path: Path) -> None:
    there, here = (
        runtime.Network(SMALL, backend=name, input_shape=SHAPE, dtype="float64") for name in ("cupy", "numpy")
    )
    x, y = drawn(*SHAPE).astype("d"), np.array([0, 2, 1, 1])
    for _ in range(2):
        assert there.step(x, y, lr=0.5) == pytest.approx(here.step(x, y, lr=0.5), abs=1e-12)
    for name, array in here.params.items():
        assert np.allclose(there.params[name], array, atol=1e-12)
    assert (there.predict(x) == here.predict(x)).all()
    assert there.accuracy(x, y) == here.accuracy(x, y)
    there.save(tmp_path / "net.npz")
    again = runtime.Network.load(tmp_path / "net.npz", backend="numpy")
    assert np.allclose(again.forward(x), here.forward(x), atol=1e-12)
    assert np.allclose(runtime.Network.load(tmp_path / "net.npz", backend="cupy").forward(x), again.forward(x))


@pytest.mark.usefixtures("gpu")
def test_what_a_network_on_a_gpu_cannot_take_is_refused_in_words() -> None:
    net = runtime.Network(SMALL, backend="cupy", input_shape=SHAPE)
    x = drawn(*SHAPE)
    with pytest.raises(ArrayError, match=r"y\[1\] = 3 is not in 0\.\.2; nearest legal: 2"):
        net.step(x, np.array([0, 3, 1, 1]))
    with pytest.raises(ArrayError, match=r"y has dtype float32; labels are integers in 0\.\.2"):
        net.step(x, np.zeros(4, "f"))
    net.params["0.bias"] = net.params["0.bias"][::-1]
    with pytest.raises(ArrayError, match=r"params\['0\.bias'\] is not C-contiguous, and a step in place on a copy"):
        net.step(x, np.array([0, 1, 1, 1]))
    del net.params["0.bias"]
    with pytest.raises(ArrayError, match=r"params lacks '0\.bias'"):
        net.forward(x)


@pytest.mark.usefixtures("gpu")
def test_a_network_on_a_gpu_is_trained() -> None:
    images = np.random.default_rng(1).standard_normal((6, 1, 8, 8))
    digits = Digits(images, np.array([0, 1, 2, 0, 1, 2]), images[:3], np.array([0, 1, 2]), "drawn")
    settings = Settings(lr=0.5, batch=4, epochs=1)
    losses = []
    for name in ("cupy", "numpy"):
        history = train(runtime.Network(SMALL, backend=name, input_shape=SHAPE), digits, settings)
        losses.append(history.epochs[0].loss)
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


def test_a_text_for_a_gpu_is_printed_where_there_is_none() -> None:
    assert device.printed_for("cupy") == "cupy"
    emitted = compiling.emit(derive.Conv2d(1, 1, 2), backend="cupy", input_shape=(1, 1, 3, 3), dtype="bfloat16")
    assert emitted.backend == "cupy"
    assert "import ml_dtypes" in emitted.source
