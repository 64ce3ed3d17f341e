"""Whether there is a race, at random: the executor's few records a cell against the whole history of every cell.

A kernel interprets a script: in each step a thread reads, writes or updates a cell, or does nothing; some warps meet
at a __syncwarp after a step, and all threads at a __syncthreads after some steps.  The reference keeps every access
and looks at all pairs, by the rules and nothing else.
"""

import shutil
from functools import cache
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from runtime import simt
from runtime.simt import Program, SimtError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")

SOURCE = r"""
// op: 0 nothing, 1 read, 2 write, 3 atomic; in bits above: the cell, then its half, or both
extern "C" __global__ void play(const int *script, const int *meet, int steps, int threads, short *cells, int *sink) {
    __shared__ alignas(8) short local[16];
    const int t = threadIdx.x, me = blockIdx.x * threads + t;
    if (t == 0) for (int i = 0; i < 16; ++i) local[i] = 0;
    __syncthreads();
    int sum = 0;
    for (int s = 0; s < steps; ++s) {
        const int op = t < threads ? script[(blockIdx.x * steps + s) * threads + t] : 0;
        const int kind = op & 3, where = op >> 2 & 3, shape = op >> 4 & 3;
        short *place = (op >> 6 & 1 ? local : cells) + 2 * where;
        if (kind == 3) atomicAdd((int *)place, 1);
        else if (kind == 1 && shape == 2) sum += *(int *)place;
        else if (kind == 1) sum += place[shape & 1];
        else if (kind == 2 && shape == 2) *(int *)place = s;
        else if (kind == 2) place[shape & 1] = s;
        const int m = meet[blockIdx.x * steps + s];
        if (m & 4) __syncthreads();
        else if (m >> (t / 32) & 1) __syncwarp();
    }
    if (t < threads) sink[me] = sum;
}
"""
BLOCKS, STEPS = 2, 6
ACTIVE = [0, 1, 2, 32, 33]  # the threads that do something: three of one warp, two of another
THREADS = 64


class Event(NamedTuple):
    block: int
    thread: int
    interval: int
    epoch: int
    kind: int
    cell: tuple[bool, int, int]


@cache
def program() -> Program:
    return simt.compile(SOURCE)


@st.composite
def scripts(draw: st.DrawFn) -> tuple[Any, Any]:
    """A few accesses to few cells, by threads and at steps that are drawn."""
    script = np.zeros((BLOCKS, STEPS, THREADS), "i")
    bits = draw(st.integers(0, 2**64 - 1))
    rng = np.random.default_rng(bits)
    blocks = rng.integers(1, BLOCKS + 1)
    for _ in range(draw(st.integers(2, 9))):
        kind, where = rng.choice([1, 1, 2, 3]), rng.integers(0, 2)
        op = kind | where << 2 | rng.integers(0, 3) << 4 | rng.integers(0, 2) << 6
        script[rng.integers(0, blocks), rng.integers(0, STEPS), rng.choice(ACTIVE)] = op
    return script, rng.choice([0, 1, 2, 3, 3, 4], (BLOCKS, STEPS)).astype("i")


def history(script: Any, meet: Any) -> list[Event]:
    """Every access, in halves: a whole cell and an atomic are two."""
    events = []
    for block in range(BLOCKS):
        interval, epochs = 0, [0, 0]
        for step in range(STEPS):
            for thread in ACTIVE:
                op = int(script[block, step, thread])
                kind, where, shape, shared = op & 3, op >> 2 & 3, op >> 4 & 3, bool(op >> 6 & 1)
                for half in (0, 1) if shape == 2 or kind == 3 else (shape,):
                    if kind:
                        cell = (shared, where, half)
                        events.append(Event(block, thread, interval, epochs[thread // 32], kind, cell))
            m = int(meet[block, step])
            if m & 4:
                interval += 1
            else:
                epochs = [epochs[0] + (m & 1), epochs[1] + (m >> 1 & 1)]
    return events


def races(a: Event, b: Event) -> bool:
    if a.cell != b.cell or (a.block, a.thread) == (b.block, b.thread):
        return False
    if a.kind == b.kind == 1 or a.kind == b.kind == 3:
        return False
    if a.block != b.block:
        return not a.cell[0]
    if a.interval != b.interval:
        return False
    return a.thread // 32 != b.thread // 32 or a.epoch == b.epoch


def verdict(script: Any, meet: Any, order: str) -> str | None:
    cells, sink = np.zeros(16, "i2"), np.zeros(BLOCKS * THREADS, "i")
    args = [script, meet, STEPS, THREADS, cells, sink]
    try:
        program().launch("play", BLOCKS, THREADS, args, schedules=[order], reproducible=False)
    except SimtError as error:
        return error.kind
    return None


@given(scripts(), st.sampled_from(["forward", "reverse", "shuffled"]))
@settings(max_examples=150)
def test_a_race_is_found_exactly_where_there_is_one(case: tuple[Any, Any], order: str) -> None:
    script, meet = case
    expected = any(races(a, b) for a, b in combinations(history(script, meet), 2))
    event(f"race: {expected}")
    assert verdict(script, meet, order) == ("race" if expected else None)


ORDERED = (
    "readers of three intervals, all ordered",
    "a plain read after atomics that a barrier orders",
    "a half of a word beside a word, which is split",
)
READ, WRITE, ATOMIC = 1, 2, 3
WHOLE_FIRST, WHOLE_SECOND, UPPER_HALF = WRITE | 2 << 4, WRITE | 1 << 2 | 2 << 4, WRITE | 1 << 4
FULL, FIRST, SECOND = 4, 1, 2  # who meets: the block, the first warp, the second

SEQUENCES: dict[str, tuple[list[tuple[int, int, int, int]], list[tuple[int, int, int]]]] = {
    # accesses (block, step, thread, kind) to one cell of global memory, and meetings (block, step, who)
    "four readers of two warps, one warp meets": (
        [(0, 0, 0, READ), (0, 0, 1, READ), (0, 0, 32, READ), (0, 0, 33, READ), (0, 1, 32, WRITE)],
        [(0, 0, SECOND)],
    ),
    "a reader of the other warp between two of one": (
        [(0, 0, 0, READ), (0, 0, 32, READ), (0, 1, 1, READ), (0, 2, 0, WRITE)],
        [(0, 0, FIRST), (0, 1, FIRST)],
    ),
    "a reader of another block before two that a barrier orders": (
        [(0, 0, 0, READ), (1, 0, 0, READ), (1, 0, 32, READ), (1, 1, 0, WRITE)],
        [(1, 0, FULL)],
    ),
    "readers of three intervals, all ordered": (
        [(0, 0, 0, READ), (0, 1, 32, READ), (0, 2, 33, READ), (0, 3, 1, WRITE)],
        [(0, 0, FULL), (0, 1, FULL), (0, 2, FULL)],
    ),
    "a plain read after atomics of others and of its own thread": (
        [(0, 0, 32, ATOMIC), (0, 1, 0, ATOMIC), (0, 2, 0, READ)],
        [],
    ),
    "a half of a word beside a word, which is split": ([(0, 0, 0, WHOLE_SECOND), (0, 0, 1, UPPER_HALF)], []),
    "a half of a word that was written as a whole": ([(0, 0, 0, WHOLE_FIRST), (0, 0, 1, UPPER_HALF)], []),
    "a plain read after atomics that a barrier orders": (
        [(0, 0, 32, ATOMIC), (0, 0, 0, ATOMIC), (0, 1, 0, READ)],
        [(0, 0, FULL)],
    ),
}


@pytest.mark.parametrize("name", SEQUENCES)
@pytest.mark.parametrize("order", ["forward", "reverse", "shuffled", 5, 6])
def test_of_many_readers_those_that_matter_are_remembered(name: str, order: Any) -> None:
    accesses, meetings = SEQUENCES[name]
    script, meet = np.zeros((BLOCKS, STEPS, THREADS), "i"), np.zeros((BLOCKS, STEPS), "i")
    for block, step, thread, kind in accesses:
        script[block, step, thread] = kind
    for block, step, who in meetings:
        meet[block, step] = who
    expected = any(races(a, b) for a, b in combinations(history(script, meet), 2))
    assert expected == (name not in ORDERED)
    assert verdict(script, meet, order) == ("race" if expected else None)
