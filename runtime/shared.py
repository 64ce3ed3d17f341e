"""Arrays in memory that worker processes see too, handed out in blocks and taken back when nobody has them any more.

The memory is a file without a name, in RAM where the system has such files, so nothing is left behind however a process
ends.  A block is whole pages, mapped by itself, its size a power of two.  An array keeps its block for as long as it or
a view of it lives; then the block is free for the next array of that size.  So results are formed where they will stay,
and no memory is cleared by the system from call to call, which for fresh memory takes as long as a copy.
"""

from __future__ import annotations

import itertools
import math
import mmap
import os
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.arrays import Array, channels_last
from runtime.worker import Place, array_at

_ALIGNED = 64  # bytes: a line of the cache


class Form(NamedTuple):
    """What an array is like: shape, dtype, and whether its channels come last in memory."""

    shape: tuple[int, ...]
    dtype: npt.DTypeLike
    channels_last: bool = False

    @classmethod
    def of(cls, array: Array) -> Form:
        """The form of a copy of an array: its layout if that is channels last, else C-contiguous."""
        return cls(array.shape, array.dtype, channels_last(array))

    @property
    def nbytes(self) -> int:
        """Bytes, up to the next line of the cache."""
        return -(-math.prod(self.shape) * np.dtype(self.dtype).itemsize // _ALIGNED) * _ALIGNED

    def at(self, start: int) -> Place:
        """Where an array of this form lies that begins there."""
        name, axes = np.dtype(self.dtype).str, tuple(range(len(self.shape)))
        if not self.channels_last:
            return start, self.shape, name, axes
        batch, channels, *spatial = self.shape
        return start, (batch, *spatial, channels), name, (0, axes[-1], *axes[1:-1])


class Memory:
    """Memory that grows as it is needed, and goes as a whole, when nobody has it or an array in it any more.

    Attributes:
        file: the descriptor of its file, for a process that is to see it.
        size: bytes, so far.
    """

    def __init__(self) -> None:
        self.file = _nameless()
        self.size = 0
        self._lock = threading.Lock()
        self._free: dict[int, deque[_Block]] = {}
        self._rest: tuple[int, mmap.mmap | None] = 0, None  # how much of the last mapping is not handed out
        weakref.finalize(self, os.close, self.file)

    def arrays(self, forms: Iterable[Form]) -> tuple[list[Array], list[Place]]:
        """New arrays of these forms in one block, with anything in them, and where they lie."""
        asked = list(forms)
        starts = list(itertools.accumulate((form.nbytes for form in asked), initial=0))
        block, taken = self._taken(starts.pop())
        found = [array_at(taken, form.at(at)) for form, at in zip(asked, starts, strict=True)]
        return found, [form.at(block.start + at) for form, at in zip(asked, starts, strict=True)]

    def keep(self) -> None:
        """Never hand out again what is handed out now: a process that is forked sees it."""
        self._free = {}

    def _taken(self, needed: int) -> tuple[_Block, Array]:
        """A block, and its bytes as an array for as long as which it is not free."""
        size = mmap.PAGESIZE
        while size < needed:
            size *= 2
        free = self._free.setdefault(size, deque())
        try:
            block = free.pop()
        except IndexError:
            block = self._new(size)
        whole = np.frombuffer(block.mapped, np.uint8, size, block.offset)
        # Every view has this array for its base.  The collector may call back at any point, so no lock is taken then.
        weakref.finalize(whole, free.append, block).atexit = False
        return block, whole

    def _new(self, size: int) -> _Block:
        """A block of the last mapping, or of a new one, as large as all before: a mapping holds the file open, and a
        process has few files."""
        with self._lock:
            rest, mapped = self._rest
            if mapped is None or rest < size:
                length = max(size, self.size, mmap.ALLOCATIONGRANULARITY)
                start = -(-self.size // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
                os.ftruncate(self.file, start + length)
                rest, mapped = length, mmap.mmap(self.file, length, offset=start)
                self.size = start + length
            self._rest = rest - size, mapped
            return _Block(self.size - rest, mapped, len(mapped) - rest)


class _Block(NamedTuple):
    """Part of a mapping: its first byte in the file, and in the mapping."""

    start: int
    mapped: mmap.mmap
    offset: int


def _nameless() -> int:
    """A file without a name, in RAM if the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("certiconv")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
