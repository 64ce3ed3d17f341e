"""The training loop: plain stochastic gradient descent, repeatable to the bit, that can be stopped at any time.

The settings were chosen by their median accuracy on five parts of the training images, each held back in turn
(`tests/benchmarks/settings.py` in a checkout; `runtime.data.validation_split`).  The held-out images are looked at
after each epoch for the curve alone; no setting, no epoch and no parameter is chosen by them: what counts is the
network after the last epoch.

Repeatable means: same machine, same NumPy and BLAS, same number of BLAS threads, same seed, same bits.  The order of
the images comes from PCG64 and a stream of the seed of its own, and BLAS is held at one thread where threadpoolctl is
installed, since its sums may depend on the number of threads.

Ctrl-C ends the training and loses nothing that was finished: the parameters go back to where the last whole epoch left
them, so a step that was cut off in the middle of its update leaves no trace.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from runtime.arrays import Array
from runtime.data import DataError, Digits, Labels
from runtime.network import Network
from runtime.threads import blas_threads


class SettingsError(ValueError):
    """A setting that is not legal; the text names it, its value and the nearest legal one."""


class TrainingError(RuntimeError):
    """Training that cannot go on; the text says at which step and what to change."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to train.

    Attributes:
        lr: the learning rate of the first step; it falls linearly, and would reach 0 at the step after the last.
        batch: images a step; the last step of an epoch takes what is left.
        epochs: how often every training image is seen.
        seed: of the initial parameters and of the order of the images.

    Raises:
        SettingsError: a value is not legal.

    >>> Settings(epochs=0)
    Traceback (most recent call last):
    runtime.train.SettingsError: epochs=0 is less than 1; nearest legal: 1
    """

    lr: float = 0.5
    batch: int = 16
    epochs: int = 60
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("batch", 1), ("epochs", 1), ("seed", 0)):
            value = getattr(self, name)
            if value < least:
                raise SettingsError(f"{name}={value} is less than {least}; nearest legal: {least}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise SettingsError(f"lr={self.lr!r} is not a finite number > 0; nearest legal: {Settings.lr}")

    def learning_rate(self, step: int, steps: int) -> float:
        """The learning rate of one step of all, counted from 0.

        >>> [Settings(lr=0.5).learning_rate(step, 4) for step in range(4)]
        [0.5, 0.375, 0.25, 0.125]
        """
        return self.lr * (1 - step / steps)


@dataclass(frozen=True)
class Epoch:
    """One finished epoch.

    Attributes:
        number: counted from 1.
        loss: mean over the epoch's images of the loss before the step that used them.
        train_accuracy: share of training images that are predicted right after the epoch.
        test_accuracy: the same for the held-out images; None where there are none.
        lr: the learning rate of its last step.
        seconds: how long it took.
    """

    number: int
    loss: float
    train_accuracy: float
    test_accuracy: float | None
    lr: float
    seconds: float


@dataclass(frozen=True)
class History:
    """What happened: the settings, every finished epoch, and whether the training was interrupted.

    ``threads`` says what was done about the threads of BLAS.
    """

    settings: Settings
    epochs: tuple[Epoch, ...] = ()
    interrupted: bool = False
    threads: str = ""

    @property
    def message(self) -> str:
        """One sentence for the user.

        >>> History(Settings(epochs=60), interrupted=True).message
        'interrupted before the first epoch was finished: the parameters are the initial ones'
        """
        done, wanted = len(self.epochs), self.settings.epochs
        if not self.interrupted:
            return f"trained for {done} epoch{'' if done == 1 else 's'}"
        if not done:
            return "interrupted before the first epoch was finished: the parameters are the initial ones"
        return f"interrupted: the parameters are those after epoch {done} of {wanted}"


@dataclass(frozen=True)
class _Kept:
    """The last finished state; replaced in one assignment, so that an interrupt finds the old one or the new one."""

    history: History
    params: dict[str, Array]


@dataclass(frozen=True)
class _Images:
    """The digits in the dtype of the network and where it computes: the one place where images are cast or moved."""

    train: Array
    labels: Labels
    test: Array
    test_labels: Labels

    @staticmethod
    def of(digits: Digits, network: Network) -> _Images:
        train, test = (images.astype(network.dtype) for images in (digits.train_images, digits.test_images))
        labels = digits.train_labels, digits.test_labels
        place = network.border.place
        return _Images(place(train), place(labels[0]), place(test), place(labels[1]))


def train(
    network: Network,
    digits: Digits,
    settings: Settings | None = None,
    *,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> History:
    """Train a network in place.

    Args:
        network: its parameters are the starting point; they are updated in place.
        digits: the images, which are rounded once to the network's dtype.
        settings: how; None: `Settings`' defaults.  Its seed orders the images here.
        on_epoch: called after each finished epoch, to show progress.

    Returns:
        The history.  After Ctrl-C its ``interrupted`` is True, and the network is as its last finished epoch left it.

    Raises:
        TrainingError: the loss is no longer finite; the network is as its last finished epoch left it.
        DataError: there is no training image.
        ArrayError: the images or labels do not fit the network.
    """
    settings = settings or Settings()
    if not len(digits.train_labels):
        raise DataError("the digits have no training image; expected at least one")
    images = _Images.of(digits, network)
    with blas_threads(1) as threads:
        kept = _Kept(History(settings, threads=threads), _copies(network))
        try:
            for number, order in enumerate(_orders(len(images.train), settings), start=1):
                epoch = _epoch(network, images, settings, number, order)
                history = replace(kept.history, epochs=(*kept.history.epochs, epoch))
                kept = _Kept(history, _copies(network))
                if on_epoch is not None:
                    on_epoch(epoch)
        except KeyboardInterrupt:
            network.assign(kept.params)
            return replace(kept.history, interrupted=len(kept.history.epochs) < settings.epochs)
        except TrainingError:
            network.assign(kept.params)
            raise
    return kept.history


def confusion_matrix(labels: npt.ArrayLike, predictions: npt.ArrayLike, *, classes: int = 10) -> npt.NDArray[np.int64]:
    """How often each label (row) was predicted as each label (column).

    Args:
        labels, predictions: integers in 0..classes-1, shape (N,) both.
        classes: how many labels there are.

    Returns:
        Counts, shape (classes, classes), N in all.

    >>> confusion_matrix([0, 1, 1], [0, 1, 0], classes=2).tolist()
    [[1, 0], [1, 1]]
    """
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (np.asarray(labels), np.asarray(predictions)), 1)
    return counts


def _orders(count: int, settings: Settings) -> Iterator[npt.NDArray[np.int64]]:
    """The order of the images in each epoch."""
    # A stream of its own: drawing more or fewer initial parameters does not change the order.
    stream = np.random.SeedSequence(settings.seed, spawn_key=(1,))
    generator = np.random.Generator(np.random.PCG64(stream))
    for _ in range(settings.epochs):
        yield generator.permutation(count)


def _epoch(network: Network, images: _Images, settings: Settings, number: int, order: npt.NDArray[np.int64]) -> Epoch:
    start = time.perf_counter()
    count, size = len(order), settings.batch
    per_epoch = -(-count // size)
    total, lr = 0.0, settings.lr
    for k in range(per_epoch):
        lr = settings.learning_rate((number - 1) * per_epoch + k, settings.epochs * per_epoch)
        chosen = network.border.place(order[k * size : (k + 1) * size])
        loss = network.step(images.train[chosen], images.labels[chosen], lr=lr)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} in epoch {number}, step {k + 1} of {per_epoch}, at learning rate {lr:.4g}; "
                f"a smaller one may do: lr={settings.lr / 2:.4g}"
            )
        total += loss * len(chosen)
    train_accuracy = network.accuracy(images.train, images.labels)
    held_out = network.accuracy(images.test, images.test_labels) if len(images.test) else None
    return Epoch(number, total / count, train_accuracy, held_out, lr, time.perf_counter() - start)


def _copies(network: Network) -> dict[str, Array]:
    return {name: array.copy() for name, array in network.params.items()}
