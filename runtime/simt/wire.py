"""The border to the executor: a launch as bytes, and its result.  executor/launch.h has the same structures in C++."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

VALUE, NULL = 2**64 - 1, 2**64 - 2

_LAUNCH = struct.Struct("<23Q")
_SITE = struct.Struct("<5Q")
_RESULT = struct.Struct("<2Q10Q4Q4Q4Q256s")
_BUFFER = struct.Struct("<6Q")
_PAIR = struct.Struct("<2Q")
_SHARED = struct.Struct("<3Q")
RESULT_AT = _LAUNCH.size
HEAD = _LAUNCH.size + _RESULT.size

KINDS = (
    "", "race", "out-of-bounds", "uninitialised", "misaligned", "divergent-barrier", "shuffle-mask", "overflow",
    "crash", "timeout", "order-dependent", "undefined", "trap",
)  # fmt: skip
ACCESSES = ("", "read", "write", "atomic", "asynchronous copy", "barrier", "warp operation", "end")


class RawSite(NamedTuple):
    """One side of an error as the executor knows it; zeros where it knows nothing."""

    access: int
    pc: int
    line: int
    block: int
    thread: int


class Result(NamedTuple):
    """What became of a launch."""

    finished: bool
    kind: str
    here: RawSite
    there: RawSite
    space: int
    array: int
    offset: int
    bytes: int
    schedule: int
    accesses: int
    floating_atomics: int
    undefined_shuffles: int
    numbers: tuple[int, ...]
    text: str


class Request(NamedTuple):
    """A launch, but for the contents of its buffers."""

    kernel: int
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int
    dynamic_offset: int
    check: bool
    timeout_ms: int
    reproducible: int
    arguments: Sequence[tuple[int, int] | bytes]
    """Each a place (buffer, offset) or a value's bytes."""
    buffers: Sequence[tuple[int, bool, bool, int]]
    """Each: bytes, whether a kernel may write to it, whether poison in it counts as unwritten, bytes of an item."""
    shared: Sequence[tuple[int, int]]
    schedules: Sequence[int]
    key: bytes


def pack(request: Request) -> tuple[bytes, list[int], int]:
    """The head of the shared memory, where each buffer starts in it, and how many bytes there are in all."""
    body = bytearray()

    def place(content: bytes, align: int = 64) -> int:
        body.extend(bytes(-(HEAD + len(body)) % align))
        body.extend(content)
        return HEAD + len(body) - len(content)

    places = [(VALUE, place(a)) if isinstance(a, bytes) else a for a in request.arguments]
    argument_at = place(b"".join(_PAIR.pack(*p) for p in places))
    shared_at = place(b"".join(_SHARED.pack(*s, 0) for s in request.shared))
    schedule_at = place(struct.pack(f"<{len(request.schedules)}Q", *request.schedules))
    key_at = place(request.key)
    buffer_at = place(bytes(_BUFFER.size * len(request.buffers)))
    end, starts = HEAD + len(body), []
    for size, *_ in request.buffers:
        end += -end % 64
        starts.append(end)
        end += size
    table = b"".join(
        _BUFFER.pack(start, size, out, poisoned, item, 0)
        for start, (size, out, poisoned, item) in zip(starts, request.buffers, strict=True)
    )
    body[buffer_at - HEAD : buffer_at - HEAD + len(table)] = table
    head = _LAUNCH.pack(
        end, request.kernel, *request.grid, *request.block, request.shared_bytes, request.dynamic_offset,
        request.check, request.timeout_ms, request.reproducible, len(places), argument_at, len(starts), buffer_at,
        len(request.shared), shared_at, len(request.schedules), schedule_at, len(request.key), key_at,
    )  # fmt: skip
    return head + bytes(_RESULT.size) + bytes(body), starts, end


def written(content: memoryview, count: int) -> list[bool]:
    """Which buffers came back changed, after a run."""
    at = _LAUNCH.unpack_from(content)[16]
    return [bool(_BUFFER.unpack_from(content, at + k * _BUFFER.size)[5]) for k in range(count)]


def shared_used(content: memoryview, count: int) -> list[bool]:
    """Which shared arrays the kernel wrote to, after a run with checks."""
    at = _LAUNCH.unpack_from(content)[18]
    return [bool(_SHARED.unpack_from(content, at + k * _SHARED.size)[2]) for k in range(count)]


def result(content: memoryview) -> Result:
    """What the executor left."""
    v = _RESULT.unpack_from(content, RESULT_AT)
    offset = v[14] - 2**64 if v[14] >= 2**63 else v[14]
    text = v[24].split(b"\0", 1)[0].decode("utf-8", "replace")
    return Result(
        bool(v[0]), KINDS[v[1]], RawSite(*v[2:7]), RawSite(*v[7:12]), v[12], v[13], offset, v[15], v[16], v[17],
        v[18], v[19], v[20:24], text,
    )  # fmt: skip
