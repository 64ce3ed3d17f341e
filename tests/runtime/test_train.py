"""Training: every image once an epoch, a rate that falls linearly, the same bits again, and nothing lost on Ctrl-C.

The held-out images decide nothing: training with other held-out images gives the same parameters to the bit.
"""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from derive.layers import lenet
from runtime.data import DataError, Digits, load_digits, standardise
from runtime.network import Network
from runtime.train import Epoch, History, Settings, SettingsError, TrainingError, confusion_matrix, train

pytestmark = pytest.mark.usefixtures("emission")


@pytest.fixture(scope="module")
def digits() -> Digits:
    """50 training images and 20 held out."""
    whole = standardise(load_digits())
    return replace(
        whole,
        train_images=whole.train_images[:50],
        train_labels=whole.train_labels[:50],
        test_images=whole.test_images[:20],
        test_labels=whole.test_labels[:20],
    )


def network(tmp_path: Path, seed: int = 0) -> Network:
    return Network(lenet(), seed=seed, cache_dir=tmp_path)


def bits(net: Network) -> bytes:
    return b"".join(array.tobytes() for array in net.params.values())


class Spy:
    """Every step a network takes: how many images, which labels, at which learning rate."""

    def __init__(self, net: Network, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[tuple[list[int], float]] = []
        take = net.step

        def step(x: Any, y: Any, *, lr: float) -> float:
            assert x.dtype == net.dtype
            assert len(x) == len(y)
            self.steps.append((y.tolist(), lr))
            return take(x, y, lr=lr)

        monkeypatch.setattr(net, "step", step)


# --- One run ------------------------------------------------------------------------------------------------


def test_every_image_is_used_once_an_epoch(digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = network(tmp_path)
    spy = Spy(net, monkeypatch)
    history = train(net, digits, Settings(epochs=3, batch=16))
    assert [len(y) for y, _ in spy.steps] == [16, 16, 16, 2] * 3
    epochs = [list(chain.from_iterable(y for y, _ in spy.steps[k : k + 4])) for k in (0, 4, 8)]
    assert all(sorted(y) == sorted(digits.train_labels.tolist()) for y in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert history.message == "trained for 3 epochs"


def test_the_learning_rate_falls_linearly_to_zero(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(tmp_path)
    spy = Spy(net, monkeypatch)
    history = train(net, digits, Settings(epochs=2, batch=25, lr=0.4))
    assert [lr for _, lr in spy.steps] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert [e.lr for e in history.epochs] == pytest.approx([0.3, 0.1])


def test_the_history_is_what_was_measured(digits: Digits, tmp_path: Path) -> None:
    net = network(tmp_path)
    start = net.loss(digits.train_images.astype("f4"), digits.train_labels)
    heard: list[Epoch] = []
    history = train(net, digits, Settings(epochs=2, batch=50), on_epoch=heard.append)
    assert list(history.epochs) == heard
    assert [e.number for e in heard] == [1, 2]
    assert heard[0].loss == pytest.approx(start, rel=1e-5)  # one step an epoch: its loss is that before the step
    assert heard[1].train_accuracy == net.accuracy(digits.train_images.astype("f4"), digits.train_labels)
    assert heard[1].test_accuracy == net.accuracy(digits.test_images.astype("f4"), digits.test_labels)
    assert history.threads


def test_training_learns(digits: Digits, tmp_path: Path) -> None:
    history = train(network(tmp_path), digits, Settings(epochs=40, batch=5))
    assert history.epochs[-1].train_accuracy == 1.0
    assert history.epochs[-1].loss < 0.1 * history.epochs[0].loss


# --- Repeatable ---------------------------------------------------------------------------------------------


def test_a_seed_repeats_every_bit(digits: Digits, tmp_path: Path) -> None:
    nets = [network(tmp_path) for _ in range(3)]
    for net, seed in zip(nets, (0, 0, 1), strict=True):
        train(net, digits, Settings(epochs=2, seed=seed))
    assert bits(nets[0]) == bits(nets[1])
    assert bits(nets[0]) != bits(nets[2])


def test_the_held_out_images_decide_nothing(digits: Digits, tmp_path: Path) -> None:
    nets = [network(tmp_path) for _ in range(3)]
    flipped = replace(digits, test_images=-digits.test_images)
    none = replace(digits, test_images=digits.test_images[:0], test_labels=digits.test_labels[:0])
    histories = [train(net, d, Settings(epochs=2)) for net, d in zip(nets, (digits, flipped, none), strict=True)]
    assert bits(nets[0]) == bits(nets[1]) == bits(nets[2])
    assert [e.test_accuracy for e in histories[2].epochs] == [None, None]


def test_the_images_are_not_changed(digits: Digits, tmp_path: Path) -> None:
    before = digits.train_images.copy()
    train(network(tmp_path), digits, Settings(epochs=1))
    np.testing.assert_array_equal(digits.train_images, before)


# --- Stopped ------------------------------------------------------------------------------------------------


def interrupt_in(net: Network, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of one step: some parameters are updated, others are not."""
    taken = 0
    whole = net.module.sgd_step

    def sgd_step(x: Any, y: Any, params: dict[str, Any], lr: float, work: Any) -> float:
        nonlocal taken
        taken += 1
        if taken == step:
            params["0.weight"] += 1
            raise KeyboardInterrupt
        return float(whole(x, y, params, lr, work))

    monkeypatch.setattr(net.module, "sgd_step", sgd_step)


def test_ctrl_c_keeps_the_last_finished_epoch(digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(epochs=5, batch=25)
    after: list[bytes] = []
    net = network(tmp_path)
    train(net, digits, settings, on_epoch=lambda _: after.append(bits(net)))

    stopped = network(tmp_path)
    interrupt_in(stopped, 6, monkeypatch)  # the second of two steps in epoch 3
    history = train(stopped, digits, settings)
    assert history.interrupted
    assert len(history.epochs) == 2
    assert history.message == "interrupted: the parameters are those after epoch 2 of 5"
    assert bits(stopped) == after[1]


def test_ctrl_c_in_the_first_epoch_keeps_the_initial_parameters(
    digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(tmp_path)
    before = bits(net)
    interrupt_in(net, 2, monkeypatch)
    history = train(net, digits, Settings(epochs=5, batch=25))
    assert history.epochs == ()
    assert history.message == "interrupted before the first epoch was finished: the parameters are the initial ones"
    assert bits(net) == before


def test_ctrl_c_while_progress_is_shown(digits: Digits, tmp_path: Path) -> None:
    net = network(tmp_path)
    shown: list[bytes] = []

    def on_epoch(epoch: Epoch) -> None:
        shown.append(bits(net))
        if epoch.number == 2:
            raise KeyboardInterrupt

    history = train(net, digits, Settings(epochs=4), on_epoch=on_epoch)
    assert history.interrupted
    assert len(history.epochs) == 2
    assert bits(net) == shown[-1]


def test_a_loss_that_is_not_finite_ends_the_training(digits: Digits, tmp_path: Path) -> None:
    net = network(tmp_path)
    spoilt = replace(digits, train_images=np.full_like(digits.train_images, np.nan))
    before = bits(net)
    with pytest.raises(TrainingError) as stopped, np.errstate(all="ignore"):
        train(net, spoilt, Settings(epochs=1))
    assert str(stopped.value) == (
        "the loss is nan in epoch 1, step 1 of 4, at learning rate 0.5; a smaller one may do: lr=0.25"
    )
    assert bits(net) == before


def test_no_training_image(digits: Digits, tmp_path: Path) -> None:
    empty = replace(digits, train_images=digits.train_images[:0], train_labels=digits.train_labels[:0])
    with pytest.raises(DataError, match="the digits have no training image; expected at least one"):
        train(network(tmp_path), empty)


# --- Settings and counts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"batch": 0}, "batch=0 is less than 1; nearest legal: 1"),
        ({"epochs": -3}, "epochs=-3 is less than 1; nearest legal: 1"),
        ({"seed": -1}, "seed=-1 is less than 0; nearest legal: 0"),
        ({"lr": 0.0}, "lr=0.0 is not a finite number > 0; nearest legal: 0.5"),
        ({"lr": float("nan")}, "lr=nan is not a finite number > 0; nearest legal: 0.5"),
    ],
)
def test_settings_that_are_not_legal(given: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings(**given)
    assert str(refused.value) == words


def test_the_settings_are_those_chosen_on_a_validation_part() -> None:
    assert Settings() == Settings(lr=0.5, batch=16, epochs=60, seed=0)
    assert History(Settings()).message == "trained for 0 epochs"


def test_a_confusion_matrix_counts_labels_by_predictions() -> None:
    labels, predictions = [3, 3, 3, 0], [3, 5, 5, 0]
    counts = confusion_matrix(labels, predictions)
    assert counts.shape == (10, 10)
    assert counts.sum() == 4
    assert (counts[3, 3], counts[3, 5], counts[0, 0], counts[5, 3]) == (1, 2, 1, 0)
