"""Networks: initial parameters, the border of every call, steps in place, and files that hold a network or say why not.

The module is the emitted one; that it computes what the reference computes is looked at once here, and searched for
mistakes in `tests/codegen`.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import codegen
from derive.layers import Conv2d, Flatten, Linear, Sequential, Sigmoid, lenet
from derive.legality import LayerError
from runtime import reference
from runtime.arrays import ArrayError
from runtime.network import Network, NetworkError, glorot
from tests.runtime.emission import Emission


@pytest.fixture
def network(emission: Emission, tmp_path: Path) -> Network:
    return Network(lenet(), seed=1, dtype="float64", cache_dir=tmp_path / "cache")


def batch(size: int = 2, dtype: str = "float64") -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(size)
    return rng.normal(size=(size, 1, 28, 28)).astype(dtype), rng.integers(0, 10, size)


# --- Initial parameters -------------------------------------------------------------------------------------

BOUNDS = {  # gain sqrt(6 / (fan in + fan out)), worked out by hand for LeNet
    "0.weight": 4 * (6 / (25 + 150)) ** 0.5,
    "3.weight": 4 * (6 / (150 + 400)) ** 0.5,
    "7.weight": 4 * (6 / (400 + 120)) ** 0.5,
    "9.weight": 4 * (6 / (120 + 84)) ** 0.5,
    "11.weight": 1 * (6 / (84 + 10)) ** 0.5,
}


def test_weights_fill_glorots_interval_and_biases_are_zero() -> None:
    params = glorot(lenet(), seed=0, dtype="float64")
    assert list(params) == list(reference.PARAMETER_NAMES)
    for name, array in params.items():
        assert array.flags.c_contiguous
        if name in BOUNDS:
            assert 0.95 * BOUNDS[name] < abs(array).max() <= BOUNDS[name]
            assert abs(array.mean()) < 3 * BOUNDS[name] / (3 * array.size) ** 0.5  # three standard deviations
        else:
            assert not array.any()


def test_a_seed_decides_every_bit_and_the_dtype_only_rounds() -> None:
    first, again, other = (glorot(lenet(), seed=s, dtype="float64") for s in (3, 3, 4))
    rounded = glorot(lenet(), seed=3, dtype="float32")
    for name, array in first.items():
        assert array.tobytes() == again[name].tobytes()
        np.testing.assert_array_equal(rounded[name], array.astype("f4"))
    assert (first["0.weight"] != other["0.weight"]).all()
    with pytest.raises(ValueError, match="seed=-1 is negative; nearest legal: 0"):
        glorot(lenet(), seed=-1)


# --- Calls --------------------------------------------------------------------------------------------------


def test_the_module_computes_lenet(network: Network) -> None:
    x, y = batch()
    np.testing.assert_allclose(network.forward(x), reference.forward(x, network.params), rtol=1e-12)
    assert network.loss(x, y) == pytest.approx(reference.loss(x, y, network.params), rel=1e-12)
    wanted = reference.gradients(x, y, network.params)
    for name, found in network.gradients(x, y).items():
        np.testing.assert_allclose(found, wanted[name], rtol=1e-9, atol=1e-15)


def test_a_step_goes_down_the_gradient_in_place(network: Network) -> None:
    x, y = batch()
    held = dict(network.params)
    before = {name: array.copy() for name, array in held.items()}
    gradients, loss = network.gradients(x, y), network.loss(x, y)
    assert network.step(x, y, lr=0.25) == loss
    for name, array in network.params.items():
        assert array is held[name]
        np.testing.assert_allclose(array, before[name] - 0.25 * gradients[name], rtol=1e-13, atol=1e-16)
    assert network.loss(x, y) < loss


def test_an_empty_batch_changes_nothing(network: Network) -> None:
    x, y = batch(0)
    before = {name: array.copy() for name, array in network.params.items()}
    assert network.forward(x).shape == (0, 10)
    assert network.step(x, y) == 0.0
    assert all((before[name] == array).all() for name, array in network.params.items())
    assert network.predict(x).tolist() == []
    with pytest.raises(ArrayError, match="x has no image, and a share of none has no value"):
        network.accuracy(x, y)


def test_predictions_do_not_depend_on_how_images_are_grouped(network: Network) -> None:
    x, y = batch(300)
    wanted = network.forward(x).argmax(axis=1)
    np.testing.assert_array_equal(network.predict(x), wanted)
    np.testing.assert_array_equal(network.predict(np.asfortranarray(x)), wanted)
    assert network.accuracy(x, wanted) == 1.0
    assert network.accuracy(x, y) == (wanted == y).mean()


def test_of_equal_logits_the_first_is_predicted(network: Network) -> None:
    network.assign({name: np.zeros_like(array) for name, array in network.params.items()})
    assert network.predict(batch(3)[0]).tolist() == [0, 0, 0]


def test_buffers_are_kept_for_a_few_batch_sizes(network: Network) -> None:
    for size in (1, 2, 3, 4, 5, 6, 1):
        network.forward(batch(size)[0])
        assert len(network._work) <= 4
    assert 1 in network._work


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (np.ones((2, 28, 28)), [1, 2], "x has shape (2, 28, 28), expected (any, 1, 28, 28): it has 3 axes, not 4"),
        (np.ones((2, 1, 32, 32)), [1, 2], "expected (any, 1, 28, 28): axis 2 is 32, not 28"),
        (np.ones((2, 1, 28, 28), "f4"), [1, 2], "x has dtype float32, expected float64, and nothing is cast silently"),
        (np.ones((2, 1, 28, 28)), [1, 2, 3], "y has shape (3,), expected (2,)"),
        (np.ones((2, 1, 28, 28)), [1, 10], "y[1] = 10 is not in 0..9; nearest legal: 9"),
        (np.ones((2, 1, 28, 28)), [1.0, 2.0], "y has dtype float64; labels are integers in 0..9"),
    ],
)  # fmt: skip
def test_arguments_are_checked_before_the_module_sees_them(
    network: Network, x: np.ndarray, y: list[Any], words: str
) -> None:
    for call in (network.step, network.loss, network.gradients, network.accuracy):
        with pytest.raises(ArrayError) as refused:
            call(x, np.array(y))  # type: ignore[operator]
        assert words in str(refused.value)


@pytest.mark.parametrize("lr", [-0.1, float("nan"), float("inf")])
def test_a_learning_rate_is_finite_and_not_negative(network: Network, lr: float) -> None:
    with pytest.raises(ValueError, match="is not a finite number >= 0; nearest legal:"):
        network.step(*batch(), lr=lr)


def test_parameters_that_were_replaced_are_looked_at(network: Network) -> None:
    network.params["7.weight"] = network.params["7.weight"].T.copy().T
    with pytest.raises(ArrayError, match=r"params\['7.weight'\] is not C-contiguous"):
        network.step(*batch())


def test_assign_takes_all_or_nothing(network: Network) -> None:
    other = glorot(lenet(), seed=9, dtype="float64")
    before = {name: array.copy() for name, array in network.params.items()}
    with pytest.raises(ArrayError, match=r"params\['11.bias'\] has shape \(3,\), expected \(10,\)"):
        network.assign(other | {"11.bias": np.ones(3)})
    with pytest.raises(ArrayError, match=r"params lacks '0.weight'"):
        network.assign({name: array for name, array in other.items() if name != "0.weight"})
    assert all((before[name] == array).all() for name, array in network.params.items())
    network.assign({name: np.asfortranarray(array) for name, array in other.items()})
    assert all((other[name] == array).all() for name, array in network.params.items())


def test_what_is_no_network(emission: Emission) -> None:
    with pytest.raises(LayerError, match=r"its output has shape \(1, 4, 24, 24\); a network ends in logits"):
        Network(Sequential(Conv2d(1, 4, 5), Sigmoid()))
    with pytest.raises(LayerError, match="layer 1"):
        Network(Sequential(Flatten(), Linear(700, 10)))
    assert emission.asked == []


def test_text_that_was_emitted_before_is_run_as_it_is(emission: Emission) -> None:
    emitted = codegen.emit(lenet(), backend="numpy", input_shape=(1, 1, 28, 28), dtype="float64")
    network = Network(lenet(), dtype="float64", source=emitted.source + "\nMARK = 7\n")
    assert network.module.MARK == 7
    assert len(emission.asked) == 1


# --- Files --------------------------------------------------------------------------------------------------


def test_a_saved_network_is_the_same_to_the_bit(network: Network, tmp_path: Path) -> None:
    network.step(*batch())
    network.save(tmp_path / "a.npz")
    loaded = Network.load(tmp_path / "a.npz", cache_dir=tmp_path / "cache")
    assert loaded.sequential == network.sequential
    assert loaded.input_shape == network.input_shape
    assert loaded.dtype == network.dtype
    assert [a.tobytes() for a in loaded.params.values()] == [a.tobytes() for a in network.params.values()]
    loaded.save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["a.npz", "b.npz", "cache"]


def resaved(network: Network, path: Path, change: Any) -> Path:
    """A file of the network after its contents were changed."""
    network.save(path)
    with np.load(path) as held:
        contents = {name: held[name] for name in held.files}
    header = json.loads(bytes(contents.pop("certiconv")))
    change(header, contents)
    np.savez(path, certiconv=np.frombuffer(json.dumps(header).encode(), np.uint8), **contents)
    return path


NOT_ONE = "expected a file that Network.save wrote; its description is not one"
CHANGES = {
    "other format": (lambda h, c: h.update(format=2), "expected format 1, found 2"),
    "no layers": (lambda h, c: h.pop("layers"), NOT_ONE),
    "unknown layer": (lambda h, c: h["layers"][0].update(kind="Conv9d"), NOT_ONE),
    "no layer at all": (lambda h, c: h["layers"][0].update(kind="check"), NOT_ONE),
    "nested": (lambda h, c: h["layers"][0].update(kind="Sequential"), NOT_ONE),
    "wrong argument": (lambda h, c: h["layers"][0].update(strides=1), NOT_ONE),
    "illegal argument": (lambda h, c: h["layers"][0].update(stride=[0, 1]), NOT_ONE),
    "missing": (lambda h, c: c.pop("7.bias"), "params lacks '7.bias'; the parameters are '0.weight' (6, 1, 5, 5)"),
    "unknown": (lambda h, c: c.update(extra=np.ones(1)), "params has unknown 'extra'"),
    "shape": (lambda h, c: c.update({"7.bias": np.ones(3)}), "params['7.bias'] has shape (3,), expected (120,)"),
    "dtype": (lambda h, c: c.update({"7.bias": np.ones(120, "f4")}), "params['7.bias'] has dtype float32"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_a_file_that_holds_something_else_is_refused(network: Network, tmp_path: Path, case: str) -> None:
    change, words = CHANGES[case]
    path = resaved(network, tmp_path / "n.npz", change)
    with pytest.raises(NetworkError) as refused:
        Network.load(path, cache_dir=tmp_path / "cache")
    assert str(refused.value).startswith(f"{path}: ")
    assert words in str(refused.value)


def test_files_that_are_no_networks(network: Network, tmp_path: Path) -> None:
    network.save(tmp_path / "whole.npz")
    whole = (tmp_path / "whole.npz").read_bytes()
    array = io.BytesIO()
    np.save(array, np.ones(3))
    others = io.BytesIO()
    np.savez(others, weights=np.ones(3))
    pickled = io.BytesIO()
    np.savez(pickled, certiconv=np.array([{}], dtype=object))
    files = {
        "cut.npz": whole[: len(whole) // 2],
        "flipped.npz": whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:],
        "empty.npz": b"",
        "text.npz": b"not a network",
        "array.npz": array.getvalue(),
        "others.npz": others.getvalue(),
        "pickled.npz": pickled.getvalue(),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in (*files, "absent.npz"):
        with pytest.raises(NetworkError, match=f"{name}: expected a "):
            Network.load(tmp_path / name, cache_dir=tmp_path / "cache")
    with pytest.raises(NetworkError, match="expected a readable file"):
        Network.load(tmp_path, cache_dir=tmp_path / "cache")
