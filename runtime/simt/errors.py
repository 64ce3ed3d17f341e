"""What can go wrong: the kernel (`SimtError`), its text, a launch or the machine; each has its own exception."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runtime.device import BackendError

KINDS: Mapping[str, str] = {
    "race": "two accesses to one cell that nothing orders, one of them a write, not both atomic",
    "out-of-bounds": "an access beyond an array, or an index beyond the bounds that an array's type states",
    "uninitialised": "a read of shared memory before this block wrote there, or of an array made by `empty`",
    "misaligned": "an access at an address that its type does not allow, such as a float4 at 4 bytes",
    "divergent-barrier": "a __syncthreads() that not all threads of the block reach, or that they reach at two lines",
    "shuffle-mask": "a warp operation whose mask lacks the caller or names lanes that never come to it; what a shuffle "
    "from a lane that is not there gave, stored as it is",
    "overflow": "a sum or product of signed integers that does not fit its type",
    "order-dependent": "two orders of threads and blocks with different results",
    "trap": "__trap()",
    "crash": "a failed assertion, an integer division by zero, a full stack",
    "timeout": "a launch that does not end",
}
"""What a `SimtError` can be, and what each means."""

Index = tuple[int, int, int]


class SimtUnavailable(BackendError):
    """This machine cannot run kernels on its CPU: no g++, or no x86-64 Linux."""


class SimtCompileError(ValueError):
    """g++ does not compile the kernel's text; the message is g++'s, with the lines of that text."""


class LaunchError(ValueError):
    """A launch that no GPU would take, or arguments that the kernel's parameters do not fit."""


@dataclass(frozen=True)
class Site:
    """One side of an error.

    Attributes:
        access: "read", "write", "atomic", "asynchronous copy", "barrier", "warp operation", "end" or "".
        file, line, text: the place in the source, 0 and "" where it is not known.
        block, thread: as ``blockIdx`` and ``threadIdx``, (x, y, z).
    """

    access: str
    file: str
    line: int
    text: str
    block: Index
    thread: Index

    def __str__(self) -> str:
        what = f"{self.access} by " if self.access else ""
        who = f"{what}thread {self.thread} of block {self.block}"
        return f"{who}\n    {self.file}:{self.line}: {self.text}" if self.line else f"{who}, at an unknown line"


class SimtError(Exception):
    """A mistake of a kernel, found while it ran.

    Attributes:
        kind: one of ``KINDS``.
        what: the mistake in one line.
        here: where it was found.
        there: the other side, such as the earlier access of a race; None where there is none.
        array: the name of the array: a parameter's, a shared array's, or "".
        offset: where in the array, in bytes; negative before its start.
        schedule: the order of threads and blocks it was found under, such as "forward".
    """

    def __init__(
        self, kind: str, what: str, here: Site | None, there: Site | None, array: str, offset: int, schedule: str
    ) -> None:
        super().__init__(kind, what, here, there, array, offset, schedule)
        self.kind, self.what, self.here, self.there = kind, what, here, there
        self.array, self.offset, self.schedule = array, offset, schedule

    @property
    def line(self) -> int:
        """The line where it was found; 0 where it is not known."""
        return 0 if self.here is None else self.here.line

    def __str__(self) -> str:
        sides = [f"{self.kind}: {self.what}"]
        if self.here is not None:
            sides.append(f"  {self.here}")
        if self.there is not None:
            sides.append(f"  and {self.there}")
        return "\n".join(sides)
