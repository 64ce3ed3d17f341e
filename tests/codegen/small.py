"""Small networks with the layers of LeNet, for tests that run a whole check many times."""

from functools import cache

import numpy as np
import numpy.typing as npt

from codegen.emit import Emitted, emit
from derive.layers import AvgPool2d, Conv2d, Flatten, Linear, Sequential, Sigmoid

SMALL_SHAPE = (3, 1, 13, 11)


def small_network() -> Sequential:
    """LeNet in small, with an odd image, a kernel that is not square, and a pool that leaves a remainder."""
    return Sequential(
        Conv2d(1, 2, 3, padding=1), Sigmoid(), AvgPool2d(2),
        Conv2d(2, 3, (3, 2)), Sigmoid(), AvgPool2d(2),
        Flatten(),
        Linear(12, 5), Sigmoid(),
        Linear(5, 4),
    )  # fmt: skip


def emit_small() -> Emitted:
    """Its text, printed afresh."""
    return emit(small_network(), input_shape=SMALL_SHAPE, dtype="float64")


@cache
def emitted_small() -> Emitted:
    """Its text."""
    return emit_small()


def numbers(rng: np.random.Generator, shape: tuple[int, ...], gain: float) -> npt.NDArray[np.float64]:
    """A parameter: normal, with the deviation gain / sqrt(fan in); a bias as if it had a fan in of one."""
    fan_in = int(np.prod(shape[1:]))
    return np.asarray(rng.normal(size=shape) * gain / np.sqrt(fan_in))
