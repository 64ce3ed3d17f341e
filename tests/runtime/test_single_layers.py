"""``runtime.compile`` of pools, activations and dense layers, and the same on the command line."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import runtime
from derive.layers import AvgPool2d, Layer, Linear, ReLU, Sigmoid
from derive.legality import LayerError
from runtime import cli
from runtime import reference_layers as reference
from runtime.arrays import ArrayError
from runtime.cli import main
from tests.codegen.cupy_on_cpu import needs_compiler


def drawn(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def operation(layer: Layer, shape: tuple[int, ...], backend: str = "numpy", **options: Any) -> Any:
    return runtime.compile(layer, backend=backend, input_shape=shape, **options)


def agree(backend: str) -> None:
    x, g = drawn(3, 2, 5, 4), drawn(3, 2, 2, 2, seed=1)
    op = operation(AvgPool2d(2), (8, 2, 5, 4), backend)
    assert np.allclose(op.forward(x), reference.avg_pool2d(x, 2), atol=1e-6)
    gradients = op.backward(g, x)
    assert np.allclose(gradients.input, reference.avg_pool2d_gradient(g, x, 2), atol=1e-6)
    assert gradients.weight is gradients.bias is None
    op = operation(Sigmoid(), (8, 2, 5, 4), backend)
    assert np.allclose(op.forward(x[:, :, ::-1]), reference.sigmoid(x[:, :, ::-1]), atol=1e-6)
    assert np.allclose(op.backward(x, x).input, reference.sigmoid_gradient(x, x), atol=1e-6)
    assert op.forward(x[:0]).shape == (0, 2, 5, 4)
    x, w, b, g = drawn(3, 6), drawn(4, 6), drawn(4), drawn(3, 4)
    op = operation(Linear(6, 4), (8, 6), backend)
    assert np.allclose(op.forward(x, w, b), reference.linear(x, w, b), atol=1e-5)
    for ours, theirs in zip(op.backward(g, x, w), reference.linear_gradients(g, x, w), strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)
    op = operation(Linear(6, 4, bias=False), (8, 6), backend)
    assert op.backward(g[:0], x[:0], w).weight.tolist() == np.zeros((4, 6)).tolist()
    assert op.backward(g, x, w).bias is None


def test_operations_agree_with_plain_loops() -> None:
    agree("numpy")


@needs_compiler
@pytest.mark.usefixtures("gpu")
def test_operations_on_a_gpu_agree_with_plain_loops() -> None:
    agree("cupy")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda op, x: op.forward(x, x), LayerError, "weight is given, but AvgPool2d"),
        (lambda op, x: op.forward(x, None, x), LayerError, "bias is given, but AvgPool2d"),
        (lambda op, x: op.backward(x, x), ArrayError, "grad_output has shape (2, 2, 5, 4), expected (2, 2, 2, 2)"),
        (lambda op, x: op.forward(x[:, :1]), ArrayError, "nearest legal: (2, 2, 5, 4)"),
    ],
)
def test_arguments_that_a_pool_cannot_take(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call(operation(AvgPool2d(2), (8, 2, 5, 4)), drawn(2, 2, 5, 4))


def test_a_dense_layer_needs_its_weight() -> None:
    with pytest.raises(LayerError, match=r"weight=None, but Linear.* nearest legal: of shape \(4, 6\)"):
        operation(Linear(6, 4), (8, 6)).forward(drawn(2, 6))


@pytest.mark.parametrize(
    ("layer", "shape"), [(Sigmoid(), (2, 3)), (AvgPool2d(2), (2, 1, 4, 4)), (Linear(3, 2), (2, 3))]
)
def test_tuned_is_auto_where_nothing_is_measured(layer: Layer, shape: tuple[int, ...]) -> None:
    texts = [operation(layer, shape, algorithm=name).module.__doc__ for name in ("tuned", "auto")]
    assert texts[0] == texts[1]


def test_only_a_convolution_is_split() -> None:
    with pytest.raises(ValueError, match="threads=2, processes=1: only a convolution is split, and this is ReLU"):
        operation(ReLU(), (8, 6), threads=2)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("avgpool2d", "--kernel-size", "2", "--input", "2,2,5,4"), "AvgPool2d"),
        (("avgpool1d", "--kernel-size", "3", "--stride", "2", "--input", "2,1,8", "--dtype", "float64"), "AvgPool1d"),
        (("tanh", "--input", "2,3"), "Tanh"),
        (("linear", "--in-features", "4", "--out-features", "3", "--no-bias", "--input", "2,4"), "Linear"),
    ],
)
def test_emit_and_check_on_the_command_line(arguments: tuple[str, ...], name: str, tmp_path: Path) -> None:
    out = tmp_path / "layer.py"
    given = ["emit", *arguments, "--backend", "numpy", "--check", "--out", str(out)]
    result = CliRunner().invoke(main, given)
    assert result.exit_code == 0, result.stderr
    assert f"Certificate of {name}(" in result.stderr
    assert out.read_text().startswith(f'"""{name}')


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    [
        (ReLU(), (8, 64, 224, 224), "the exact check of 3,211,264 elements an image may take 11 minutes or more"),
        (Linear(4096, 4096), (8, 4096), "the exact check of 16,777,216 products an image may take 28 minutes or more"),
        (Linear(400, 120), (8, 400), ""),
        (AvgPool2d(2), (8, 16, 28, 28), ""),
    ],
    ids=["relu", "wide", "linear", "pool"],
)
def test_a_check_that_takes_long_is_announced(
    layer: Layer, shape: tuple[int, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    cli._told_effort(layer, shape)
    assert capsys.readouterr().err.strip() == words


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("avgpool2d", "--input", "2,2,5,4"), "avgpool2d needs it"),
        (("avgpool2d", "--kernel-size", "6", "--input", "2,2,5,4"), "the nearest legal value is 6"),
        (("relu", "--kernel-size", "2", "--input", "2,2"), "relu does not take it"),
        (("linear", "--in-features", "4", "--out-features", "3", "--input", "2,5"), "in_features"),
        (("linear", "--in-features", "4", "--input", "2,4"), "linear needs it"),
    ],
)
def test_bad_options_get_one_message_and_2(arguments: tuple[str, ...], words: str) -> None:
    result = CliRunner().invoke(main, ["emit", *arguments])
    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
