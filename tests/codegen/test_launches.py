"""Launches that several stages share: what is done at once may be, no launch could be saved, and a wrong one is seen.

On lists of arrays that are read and written, any order within a launch gives what the given order gives; on networks,
no stage needs another one of its launch; of texts, the executor finds a race where stages share one that should not.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegen import launches as launching
from codegen import network_parts
from codegen.cupy_network_check import check_cupy_network
from codegen.emit import Emitted, emit
from codegen.execution import Refuted, Trial
from codegen.launches import launches, threads_for
from codegen.network_parts import Launch, Parts, parts_of, together
from codegen.plan import PlanError
from codegen.plans.device_network import device_network
from codegen.templates.cuda.kernels import Kernel, Part, pointers, side_by_side
from codegen.templates.cuda.numbers import NUMBERS
from codegen.templates.cuda.prelude import cuda_text
from codegen.templates.cuda.shares import Shares
from derive.layers import AvgPool2d, Conv1d, Conv2d, Flatten, Linear, Sequential, Sigmoid, lenet
from runtime.nvrtc import NvrtcError, nvrtc
from runtime.simt import compile  # noqa: A004 - as runtime.compile
from tests.codegen.cupy_on_cpu import needs_compiler, on_cpu
from tests.codegen.networks import LENET, NETWORKS, sizes

# --- what may be done at once -------------------------------------------------------------------------------------

ARRAYS = "abcd"


@dataclass(frozen=True)
class Work:
    """Reads some arrays and gives each of others a new value."""

    number: int
    reads: frozenset[str]
    writes: frozenset[str]


@st.composite
def works(draw: st.DrawFn) -> list[Work]:
    some = st.frozensets(st.sampled_from(ARRAYS), max_size=2)
    return [Work(k, draw(some), draw(some)) for k in range(draw(st.integers(0, 7)))]


def after(every: Sequence[Work]) -> dict[str, object]:
    """What each array holds once all is done in this order: who wrote it, from what."""
    state: dict[str, object] = dict.fromkeys(ARRAYS)
    for work in every:
        found = (work.number, tuple(state[name] for name in sorted(work.reads)))
        state |= dict.fromkeys(work.writes, found)
    return state


def overlap(a: Work, b: Work) -> bool:
    """Whether the two orders of two things differ in what they give."""
    return after([a, b]) != after([b, a])


@given(works())
def test_any_order_within_launches_gives_the_same(every: list[Work]) -> None:
    found = launches(every)
    assert sorted(work.number for launch in found for work in launch) == list(range(len(every)))
    for order in permutations(range(3)):
        turned = [w for launch in found for w in sorted(launch, key=lambda w: order[w.number % 3] * 10 + w.number)]
        assert after(turned) == after(every)
    for launch in found:
        assert not any(overlap(a, b) for a in launch for b in launch if a != b)


@given(works())
def test_there_are_as_many_launches_as_the_longest_chain_has_members(every: list[Work]) -> None:
    chain: list[int] = []
    for k, work in enumerate(every):
        before = [chain[j] for j, other in enumerate(every[:k]) if launching.depends(work, other)]
        chain.append(1 + max(before, default=0))
    assert len(launches(every)) == max(chain, default=0)


# --- on networks --------------------------------------------------------------------------------------------------


@st.composite
def networks(draw: st.DrawFn, side: int) -> tuple[Sequential, tuple[int, ...]]:
    """A convolution or two with pools or without, then dense layers; few channels or enough for matrix products."""
    shape, read = (1, side, side), 1
    channels = draw(st.lists(st.sampled_from([1, 3, 8, 17]), min_size=1, max_size=2))
    layers: list[object] = []
    for number in channels:
        layers += [Conv2d(read, number, 3), Sigmoid()]
        side, read = side - 2, number
        if draw(st.booleans()):
            layers.append(AvgPool2d(2))
            side //= 2
    widths = draw(st.lists(st.sampled_from([2, 9, 70]), min_size=1, max_size=3))
    layers.append(Flatten())
    features = read * side**2
    for k, width in enumerate(widths):
        layers += [Linear(features, width), *([Sigmoid()] if k + 1 < len(widths) else [])]
        features = width
    return Sequential(*layers), shape  # type: ignore[arg-type]


def planned(net: Sequential, shape: tuple[int, ...], dtype: str = "float32") -> Parts:
    return parts_of(device_network(net, sizes(*shape)), NUMBERS[dtype])


def check_launches(parts: Parts) -> None:
    """No stage of a launch needs one of another part of it, and what it needs was launched before."""
    every = {t.name: t for t in together(parts.plan)}
    own = {name: {s.name for s in (t.stage, t.then, t.column, t.pool) if s is not None} for name, t in every.items()}
    for sequence in ((*parts.forward, *parts.backward), (*parts.forward, *parts.loss)):
        done: set[str] = {s.name for s in parts.plan.stages if s.template in ("local", "alias")}
        for launch in sequence:
            for part in launch:
                assert parts.plan.needed(*own[part.stage]) - own[part.stage] <= done, part.stage
            assert len({part.threads for part in launch}) == 1
            done |= {name for part in launch for name in own[part.stage]}
    launched = [part.stage for launch in (*parts.forward, *parts.backward) for part in launch]
    assert sorted(launched) == sorted(every)


def longest(parts: Parts) -> int:
    """How many parts the longest chain has, each reading what the one before it writes; read off the plan alone."""
    every = {t.name: t for t in together(parts.plan)}
    maker = {s.name: name for name, t in every.items() for s in (t.stage, t.then, t.column, t.pool) if s is not None}
    chain: dict[str, int] = {}
    for name, t in every.items():
        stages = [s.name for s in (t.stage, t.then, t.column, t.pool) if s is not None]
        needed = {maker[s] for s in parts.plan.needed(*stages) if s in maker} - {name}
        chain[name] = 1 + max((chain[other] for other in needed), default=0)
    return max(chain.values())


@settings(max_examples=15, deadline=None)
@given(networks(16), st.sampled_from(["float32", "float64"]))
def test_no_stage_of_a_network_needs_another_of_its_launch(
    network: tuple[Sequential, tuple[int, ...]], dtype: str
) -> None:
    parts = planned(*network, dtype)
    check_launches(parts)
    assert len(parts.forward) + len(parts.backward) == longest(parts)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_launched_as_often_as_its_longest_chain_asks_for(name: str) -> None:
    net, shape = NETWORKS[name]
    parts = parts_of(device_network(net, shape), NUMBERS["float32"])
    check_launches(parts)
    assert len(parts.forward) + len(parts.backward) == longest(parts)


def names(some: Sequence[Launch]) -> list[str]:
    return [" ".join(part.stage for part in launch) for launch in some]


def test_the_launches_of_lenet() -> None:
    parts = parts_of(device_network(*LENET), NUMBERS["float32"])
    assert names(parts.forward) == ["A0", "A3", "A7", "A9", "Z11"]
    assert names(parts.backward) == ["L dL", "dW11 dZ9", "dW9 dZ7", "dW7 dZ3", "dW3 dZ0", "dW0"]
    assert names(parts.loss) == ["L"]
    assert longest(parts) == 11  # and what adds the shares up makes twelve


def test_the_rows_of_a_loss_with_many_classes_share_launches_too() -> None:
    parts = planned(Sequential(Conv1d(1, 8, 3), Sigmoid(), Flatten(), Linear(56, 100)), (1, 9))
    assert names(parts.backward) == ["M", "Se", "Le dL", "L dW3 dX3", "dZ0", "dW0"]
    assert names(parts.loss) == ["M", "Se", "Le", "L"]
    check_launches(parts)


# --- threads ------------------------------------------------------------------------------------------------------


def made(stage: str, *reads: str, threads: int = 256, costs: dict[int, float] | None = None) -> Part:
    body = f"{stage}[0] = REAL(1);"
    return Part(f"compute_{stage}", stage, (), pointers(reads, stage), (body,), "1", threads, costs=costs or {})


def test_parts_get_the_threads_with_which_they_cost_least_together() -> None:
    a, b = made("a", costs={32: 1.0, 64: 3.0, 128: 9.0}), made("b", costs={64: 3.0, 128: 1.0, 256: 0.5})
    assert threads_for([a, b]) == 64
    assert threads_for([a, made("c")]) == 32
    assert threads_for([made("c"), made("d")]) == 256
    with pytest.raises(PlanError, match="no number of threads in common: a: 32, 64, 128; d: 256"):
        threads_for([a, made("d", costs={256: 1.0})])


def test_blocks_of_one_kernel_are_of_one_size() -> None:
    with pytest.raises(
        PlanError, match="both: the blocks of a kernel are of one size; threads of its parts: a 32, b 64"
    ):
        side_by_side("both", [made("a", threads=32), made("b", threads=64)], [])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_threads_cost_little_more_than_each_part_s_own(dtype: str) -> None:
    """By the model: for LeNet less than half as much again, and no other number costs less."""
    plan, numbers = device_network(*LENET), NUMBERS[dtype]
    free = {t.name: t.printed(plan, numbers) for t in together(plan)}
    costs = {name: (made.part if isinstance(made, Shares) else made).costs for name, made in free.items()}
    shared = [launch for launch in parts_of(plan, numbers).backward if len(launch) > 1 and costs[launch[0].stage]]
    assert len(shared) == 4
    for launch in shared:
        own = [costs[part.stage] for part in launch]
        at_once = {threads: sum(cost[threads] for cost in own) for threads in own[0] if all(threads in c for c in own)}
        assert len(at_once) > 1
        assert at_once[launch[0].threads] == min(at_once.values())
        assert min(at_once.values()) <= 1.5 * sum(min(cost.values()) for cost in own), names([launch])


@needs_compiler
@pytest.mark.parametrize("threads", [32, 64, 128, 256])
def test_a_block_of_any_number_of_warps_adds_up_its_numbers(threads: int) -> None:
    body = f"""
extern "C" __global__ void add(const REAL* x, REAL* y)
{{
  const ACC sum = sum_of_block<{threads}>(x[threadIdx.x]);
  if (threadIdx.x == 0) y[0] = sum;
}}"""
    program = compile(cuda_text(NUMBERS["float64"], [Kernel("add", body)]))
    x, y = np.arange(1.0, threads + 1), np.zeros(1)
    program.launch("add", 1, threads, [x, y])
    assert y[0] == threads * (threads + 1) / 2


@needs_compiler
def test_shares_are_added_up_by_all_warps_however_many_there_are() -> None:
    body = """
extern "C" __global__ void add(const ACC* shares, ACC* y, INDEX splits, INDEX count)
{
  __shared__ Sums memory;
  const INDEX cell = blockIdx.x * 32 + threadIdx.x % 32;
  const ACC total = sum_by_warps(shares, splits, count, cell, memory);
  if (threadIdx.x >= 32 || cell >= count) return;
  y[cell] = total;
}"""
    program = compile(cuda_text(NUMBERS["float64"], [Kernel("add", body)]))

    @settings(max_examples=25, deadline=None)
    @given(st.sampled_from([0, 1, 7, 8, 9, 63, 64, 65, 72, 73, 130]), st.sampled_from([1, 31, 32, 33, 65]))
    def added(splits: int, count: int) -> None:
        shares = np.arange(3.0, splits * count + 3)
        y = np.full(count, np.nan)
        program.launch("add", -(-count // 32), 256, [shares, y, splits, count])
        assert (y == shares.reshape(splits, count).sum(0)).all()

    added()


# --- the text -----------------------------------------------------------------------------------------------------


@cache
def emitted(dtype: str = "float32") -> Emitted:
    return emit(lenet(), backend="cupy", input_shape=(2, 1, 28, 28), dtype=dtype)


def test_a_kernel_of_several_parts_calls_a_function_for_each_and_has_one_shared_memory() -> None:
    text = emitted().cuda
    for kernel in emitted().kernels:
        called = re.findall(r"\b(\w+_block)\(", kernel.text)
        assert called == [part.function for part in kernel.parts] or not called
        assert len(kernel.parts) == 1 or called
        assert kernel.text.count("__shared__") == any(part.memory for part in kernel.parts)
        assert ("__shared__ union {" in kernel.text) == (len(kernel.parts) > 1 and bool(kernel.parts[0].memory))
        assert all(text.count(f"void {part.function}(") == 1 for part in kernel.parts if called)
        assert all(text.index(f"void {name}(") < text.index(f" {kernel.name}(") for name in called)


def test_a_part_that_is_a_function_may_be_called_by_a_kernel_of_its_own() -> None:
    part = next(p for kernel in emitted().kernels for p in kernel.parts if p.stage == "dW9")
    kernel = side_by_side("alone", [part], ["dW9 by itself."])
    _, _, body = kernel.text.partition("{\n")
    assert body == (
        f"  __shared__ {part.memory} memory;\n"
        "  compute_dW9_block(A7, dZ9, dW9_shares, N, share, splits, (INDEX)blockIdx.x, memory);\n}"
    )
    assert kernel.text.split("{")[0].split()[-6:] == ["INDEX", "N,", "INDEX", "share,", "INDEX", "splits)"]


def test_no_line_of_a_text_is_long_and_no_function_either() -> None:
    lines = emitted().source.splitlines()
    assert max(map(len, lines[lines.index("import functools") :])) <= 120
    bodies = re.findall(r"\n\{\n(.*?)\n\}\n", emitted().cuda, re.DOTALL)
    assert len(bodies) > 30
    assert max(len(body.splitlines()) for body in bodies) <= 45


@pytest.mark.nvrtc
def test_the_parts_of_a_kernel_use_the_same_shared_memory() -> None:
    try:
        compiler = nvrtc()
    except NvrtcError as error:
        pytest.fail(str(error))
    for dtype in ("float32", "float64"):
        usages = compiler.compile(emitted(dtype).cuda, options=("-DINDEX=int",))
        assert max(u.shared for u in usages) <= 48 << 10  # what a kernel can have without asking for more
        assert not any(u.spilled for u in usages)
    text = emitted("float64").cuda.replace("__shared__ union", "__shared__ struct")
    with pytest.raises(NvrtcError, match="does not compile"):  # side by side they are too much
        compiler.compile(text, options=("-DINDEX=int",))


# --- what goes wrong ----------------------------------------------------------------------------------------------

TINY, TINY_SHAPE = Sequential(Conv1d(1, 1, 3), Sigmoid(), Flatten(), Linear(2, 3), Sigmoid(), Linear(3, 2)), (2, 1, 4)
ONE_STEP = (Trial(2, 2, ("sgd_step",)),)


def checked(pattern: str = "", put: str = "") -> Emitted:
    """The text of the tiny network, changed where it says so, after its check."""
    found = emit(TINY, backend="cupy", input_shape=TINY_SHAPE, dtype="float64")
    source, count = re.subn(pattern, put, found.source) if pattern else (found.source, 1)
    assert count, f"{pattern} is not in the text"
    check_cupy_network(source, found.plans["network"], on_cpu, narrow=ONE_STEP, wide=(), real=None)
    return found


@needs_compiler
def test_the_text_of_a_tiny_network_is_its_stages() -> None:
    assert "a step of SGD launches 10 of them" in checked().source


@needs_compiler
def test_the_text_of_a_network_with_three_parts_in_a_launch_is_its_stages() -> None:
    net = Sequential(Conv1d(1, 8, 3), Sigmoid(), Flatten(), Linear(56, 70))
    found = emit(net, backend="cupy", input_shape=(2, 1, 9), dtype="float64")
    parts = {kernel.name: (len(kernel.parts), kernel.threads) for kernel in found.kernels}
    assert parts["compute_L_dW3_dX3"][0] == 3
    assert parts["compute_L"][1] == parts["compute_L_dW3_dX3"][1] < 256
    calls = (Trial(2, 2, ("sgd_step", "loss")),)
    check_cupy_network(found.source, found.plans["network"], on_cpu, narrow=ONE_STEP, wide=calls, real=None)


@pytest.mark.campaign
@needs_compiler
@settings(max_examples=25, deadline=None)
@given(networks(10))
def test_the_text_of_a_network_is_its_stages(network: tuple[Sequential, tuple[int, ...]]) -> None:
    net, shape = network
    found = emit(net, backend="cupy", input_shape=(2, *shape))
    check_cupy_network(found.source, found.plans["network"], on_cpu, narrow=ONE_STEP, wide=(), real=None)


FAULTS = {
    "a block too many for the first part": (r"block < blocks_dW5\b", "block <= blocks_dW5"),
    "a block too few for the first part": (r"block < blocks_dW5\b", "block + 1 < blocks_dW5"),
    "blocks of the last part that are not counted from 0": (r"  block -= blocks_dW3;\n", ""),
    "two ranges exchanged": (r"blocks_dW3, INDEX blocks_du3", "blocks_du3, INDEX blocks_dW3"),
    "a range that is not told": (r"\*numbers, \*blocks\[:-1\]", "*numbers, *([1] * (len(blocks) - 1))"),
    "blocks of the first part alone": (r"sum\(blocks\)", "blocks[0]"),
    "shares of another part": (r"step_du0_block\(du0_shares", "step_du0_block(dW0_shares"),
}


@needs_compiler
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_in_the_handing_out_of_blocks_is_found(name: str) -> None:
    with pytest.raises(Refuted):
        checked(*FAULTS[name])


@needs_compiler
def test_stages_that_need_one_another_in_one_launch_do_not_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but what is written twice is kept apart: a kernel has an array that is only read, and written too."""
    monkeypatch.setattr(launching, "depends", lambda later, earlier: not set(later.writes).isdisjoint(earlier.writes))
    with pytest.raises(Refuted, match=r"conflicting declaration .*A3.*\n.*previous declaration as .*const .*A3"):
        checked()


@needs_compiler
def test_another_name_for_an_array_that_is_taken_for_another_array_is_a_race(monkeypatch: pytest.MonkeyPatch) -> None:
    """What reads the flattened image shares a launch with what makes the image."""
    monkeypatch.setattr(network_parts, "_placed", lambda _, part: network_parts.Placed(part, part.reads, part.writes))
    with pytest.raises(Refuted, match=r"race|nothing has been written there"):
        checked()
