"""What a call of an emitted module is where it is split, and who can run its parts.

`Call` says which function, with which arguments; a crew runs it on each part of the batch: threads of this process,
which share its memory (`runtime.thread_crew`), or other processes (`runtime.process_crew`).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from runtime.arrays import Array
from runtime.device import BackendError
from runtime.threads import remedy

Part = tuple[int, int]


@dataclass(frozen=True)
class Batched:
    """An argument with an entry for each image: a part gets its own."""

    array: Array


@dataclass(frozen=True)
class BatchOf:
    """An argument that is a shape: that of a part, with as many images as the part has."""

    image: tuple[int, ...]


@dataclass(frozen=True)
class Call:
    """A function of an emitted module, to be called on parts of a batch.

    Attributes:
        function: its name.
        workspace: the name of the class of its workspaces.
        arguments: those before the workspace: `Batched`, `BatchOf`, or the same for every part.
    """

    function: str
    workspace: str
    arguments: tuple[Any, ...]

    def given(self, low: int, high: int) -> list[Any]:
        """The arguments of a part."""
        return [_of_part(argument, low, high) for argument in self.arguments]


def _of_part(argument: Any, low: int, high: int) -> Any:
    if isinstance(argument, Batched):
        return argument.array[low:high]
    if isinstance(argument, BatchOf):
        return (high - low, *argument.image)
    return argument


class Crew(Protocol):
    """Who runs the parts of a call.

    Attributes:
        module: the emitted module.
        dtype: of all arrays.
        count: how many parts can run at once.
        least, least_step: seconds that a part has to be foretold to take for a split to pay, of a convolution and of a
            step of a network.
    """

    module: ModuleType
    dtype: np.dtype[Any]
    count: int
    least: float
    least_step: float

    def part(self, call: Call, low: int, high: int, out: Array | None = None) -> Any:
        """What the function gives for one part, on the calling thread."""

    def joined(self, call: Call, parts: Sequence[Part], like: Array, image: tuple[int, ...], *, follows: bool) -> Array:
        """The result of a function that takes the array to write to: each part writes the rows of its images.

        ``image`` is the shape of a row; the result lies as ``like`` does if it ``follows``, else it is C-contiguous.
        """

    def sums(self, call: Call, parts: Sequence[Part]) -> list[Array]:
        """What a function gives for each part: an array that may be written to, for as long as it is kept."""

    def steps(self, call: Call, parts: Sequence[Part]) -> list[tuple[float, dict[str, Array]]]:
        """The same, of a function that gives a loss and gradients by name."""


def checked_parts(threads: int, processes: int, backend: str) -> int:
    """In how many parts a batch may be split, at least 1: so many threads, or so many processes.

    Warns where BLAS cannot be held at one thread, which several parts need.

    >>> checked_parts(0, 1, "numpy")
    Traceback (most recent call last):
    ValueError: threads=0 is less than 1; nearest legal: 1
    >>> checked_parts(2, 1, "cupy")
    Traceback (most recent call last):
    ValueError: threads=2: a GPU is not shared out among threads; nearest legal: 1
    >>> checked_parts(2, 2, "numpy")
    Traceback (most recent call last):
    ValueError: threads=2 and processes=2: a batch is split among the one or the other; nearest legal: threads=1
    """
    for name, count in (("threads", threads), ("processes", processes)):
        if type(count) is not int:
            raise TypeError(f"{name}={count!r} is {type(count).__name__}; an integer of at least 1 is needed")
        if count < 1:
            raise ValueError(f"{name}={count} is less than 1; nearest legal: 1")
        if count > 1 and backend != "numpy":
            raise ValueError(f"{name}={count}: a GPU is not shared out among {name}; nearest legal: 1")
    if threads > 1 and processes > 1:
        raise ValueError(
            f"threads={threads} and processes={processes}: a batch is split among the one or the other; nearest legal: "
            f"threads=1"
        )
    asked = f"threads={threads}" if threads > 1 else f"processes={processes}"
    if max(threads, processes) > 1 and (told := remedy(1)) is not None:
        warnings.warn(f"{asked}: right, but probably much slower than one: {told}", RuntimeWarning, stacklevel=3)
    return max(threads, processes)


def crew_for(module: ModuleType, dtype: npt.DTypeLike, threads: int, processes: int) -> Crew:
    """Who runs the parts of a call of the module: threads, or processes if there are to be several.

    Raises:
        BackendError: processes that share memory cannot be had here.
    """
    if processes == 1:
        from runtime.thread_crew import Threads  # here and below, since most programs need one thread

        return Threads(module, dtype, threads)
    from runtime.process_crew import AVAILABLE, Processes

    if not AVAILABLE:
        raise BackendError(
            f"processes={processes}: they share memory in a way that only POSIX systems have; use threads"
        )
    return Processes(module, dtype, processes)
