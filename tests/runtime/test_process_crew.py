"""Parts in other processes: the bits of threads, and no worker, no memory and no parameter lost when something fails.

What a part has to take is put to almost nothing here, so that small batches are split.  No test asserts a time.
"""

import functools
import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import codegen
import derive
import runtime
from runtime import process_crew, threads
from runtime.arrays import channels_last, with_channels_last
from runtime.device import BackendError
from runtime.parallel import Convolution, Steps
from runtime.process_crew import Processes, WorkerError
from runtime.thread_crew import Threads
from tests.runtime.splitting import IMAGE, LAYER, LAYERS, NET, check_two_callers, digits, made, results, same


@pytest.fixture(scope="module", autouse=True)
def eager() -> Any:
    """Batches of two images are split; workers end with the tests."""
    with pytest.MonkeyPatch.context() as patch:
        for kind in (Threads, Processes):
            patch.setattr(kind, "least", 1e-12)
            patch.setattr(kind, "least_step", 1e-12)
        patch.setattr(threads, "_can_set", lambda: True)  # no warning: most tests do not care for the speed of BLAS
        patch.setattr(threads, "_libraries", lambda: None)
        yield
        compiled.cache_clear()


@functools.cache
def compiled(which: int, count: int, *, processes: bool) -> runtime.Operation:
    """An operation of ``splitting.LAYERS``, kept for its workers."""
    layer, image = LAYERS[which]
    counts = {"processes" if processes else "threads": count}
    return runtime.compile(layer, input_shape=(1, *image), dtype="float32", **counts)


def drawn(which: int, batch: int) -> list[Any]:
    """Numbers whose sums are rounded."""
    rng = np.random.default_rng(batch)
    arrays = made(*LAYERS[which], batch, "float32")
    return [None if a is None else rng.normal(size=a.shape).astype("f4") for a in arrays]


def team(operation: runtime.Operation) -> Any:
    """The workers of an operation that has computed something."""
    assert operation.parallel is not None
    assert isinstance(operation.parallel.crew, Processes)
    found = operation.parallel.crew._team
    assert found is not None
    return found


# --- What is computed ---------------------------------------------------------------------------------------


@given(which=st.integers(0, len(LAYERS) - 1), batch=st.integers(0, 7), count=st.sampled_from([2, 3]))
def test_the_bits_are_those_of_threads(which: int, batch: int, count: int) -> None:
    arguments = drawn(which, batch)
    by_threads = results(compiled(which, count, processes=False), *arguments)
    for _ in range(2):  # the second time on workspaces and memory that were used
        same(results(compiled(which, count, processes=True), *arguments), by_threads, exact=True)


def test_images_may_lie_in_any_way() -> None:
    operation, by_threads = (compiled(3, 2, processes=p) for p in (True, False))
    x, w, u, g = drawn(3, 5)
    for images in (np.repeat(x, 2, axis=0)[::2], x[::-1], with_channels_last(x)):
        for cotangent in (g, with_channels_last(g)):
            same(results(operation, images, w, u, cotangent), results(by_threads, images, w, u, cotangent), exact=True)


def test_results_follow_the_layout_of_the_images() -> None:
    layer, shape = derive.Conv2d(16, 16, 3, padding=1), (4, 16, 8, 8)
    layouts: dict[str, Any] = {"algorithm": "nhwc", "dtype": "float32"}
    operation = runtime.compile(layer, input_shape=shape, processes=2, **layouts)
    assert "forward" in operation.module.KEEPS_LAYOUT
    x = with_channels_last(np.ones(shape, "f4"))
    w, u = np.ones((16, 16, 3, 3), "f4"), np.zeros(16, "f4")
    found = operation.forward(x, w, u)
    assert channels_last(found)
    np.testing.assert_array_equal(found, runtime.compile(layer, input_shape=shape, **layouts).forward(x, w, u))


def test_results_are_kept_and_memory_is_used_again() -> None:
    operation = compiled(3, 2, processes=True)
    x, w, u, g = drawn(3, 5)
    first = results(operation, x, w, u, g)
    copies = [result.copy() for result in first]
    results(operation, 2 * x, 3 * w, u, 5 * g)
    same(first, copies, exact=True)
    results(operation, x, w, u, g)
    size = team(operation).memory.size
    for _ in range(30):
        results(operation, x, w, u, g)
    assert team(operation).memory.size == size


def test_two_threads_may_call_at_once() -> None:
    check_two_callers(compiled(3, 2, processes=True), [drawn(3, batch) for batch in (4, 5)])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_steps_have_the_bits_of_threads(dtype: str) -> None:
    networks = [
        runtime.Network(NET, input_shape=(1, 1, 6, 6), dtype=dtype, **by) for by in ({"threads": 3}, {"processes": 3})
    ]
    for batch in (7, 2, 7):
        x, y = digits(batch, dtype)
        one, other = (network.step(x[::-1], y, lr=0.5) for network in networks)
        assert one == other
    same(list(networks[0].params.values()), list(networks[1].params.values()), exact=True)
    assert networks[1].processes == 3


# --- What may go wrong --------------------------------------------------------------------------------------


def broken(text: str) -> Convolution:
    """A convolution whose ``forward`` does something else."""
    source = codegen.emit(LAYER, input_shape=(1, *IMAGE), dtype="float64").source
    return Convolution(Processes(codegen.load(f"{source}\n\n{text}\n"), "float64", 2), image=1.0)


def test_an_error_in_a_worker_arrives_with_its_traceback() -> None:
    text = """
right = forward
def forward(input, *rest):
    if len(input) == 2:
        raise ArithmeticError("no such part")
    return right(input, *rest)
"""
    convolution = broken(text)
    x, w, u, _ = made(LAYER, IMAGE, 5)
    with pytest.raises(ArithmeticError, match="no such part") as caught:
        convolution.forward(x, w, u)
    assert "in a worker process" in caught.value.__notes__[0]
    assert "forward" in caught.value.__notes__[0]
    x, w, u, _ = made(LAYER, IMAGE, 6)  # the same worker goes on
    np.testing.assert_array_equal(convolution.forward(x, w, u), convolution.crew.module.right(x, w, u))


def test_an_error_that_only_numpy_knows_arrives_as_one_of_pythons_own() -> None:
    convolution = broken("def forward(input, *rest):\n    if len(input) == 2:\n        np.empty(1 << 50)")
    x, w, u, _ = made(LAYER, IMAGE, 5)
    with pytest.raises(MemoryError, match="Unable to allocate"):
        convolution.forward(x, w, u)


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_an_error_in_the_own_part_leaves_nothing_unanswered(kind: type[BaseException], monkeypatch: Any) -> None:
    operation = compiled(3, 2, processes=True)
    x, w, u, g = drawn(3, 5)
    wanted = results(operation, x, w, u, g)

    def failing(*arguments: Any) -> Any:
        raise kind("in the first part")

    with monkeypatch.context() as patch:
        patch.setattr(operation.module, "forward", failing)
        with pytest.raises(kind, match="in the first part"):
            operation.forward(x, w, u)
    same(results(operation, x, w, u, g), wanted, exact=True)


@pytest.mark.parametrize("gone", [False, True], ids=["dying", "gone"])
def test_a_worker_that_is_killed_is_told_of_and_replaced(gone: bool) -> None:
    network = runtime.Network(NET, input_shape=(1, 1, 6, 6), dtype="float64", processes=2)
    x, y = digits(5)
    network.step(x, y)
    before = {name: array.copy() for name, array in network.params.items()}
    assert network._steps is not None
    crew: Any = network._steps.crew
    worker = crew._team.links[0].worker
    worker.kill()
    if gone:
        worker.wait()  # nobody is there to be asked; else nobody answers
    with pytest.raises(WorkerError, match="ended with status -9 before its part was done"):
        network.step(x, y)
    for name, array in network.params.items():
        np.testing.assert_array_equal(array, before[name])
    one = runtime.Network(NET, input_shape=(1, 1, 6, 6), dtype="float64")
    one.assign(before)
    assert network.step(x, y) == pytest.approx(one.step(x, y), rel=1e-13)
    assert crew._team.links[0].worker.pid != worker.pid


def test_a_second_ctrl_c_leaves_an_operation_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    operation = compiled(3, 2, processes=True)
    arguments = drawn(3, 5)
    wanted = results(operation, *arguments)
    workers = team(operation)

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(operation.module, "forward", interrupted)
        patch.setattr(workers, "end", interrupted)
        with pytest.raises(KeyboardInterrupt):
            operation.forward(*arguments[:3])
    workers.end()
    same(results(operation, *arguments), wanted, exact=True)


def test_numpy_does_in_a_worker_what_the_caller_has_set() -> None:
    operation = compiled(3, 2, processes=True)
    x, w, u, _ = drawn(3, 5)
    x[-1] = 3e38  # in the part of the worker
    with np.errstate(over="ignore", invalid="ignore"):
        operation.forward(x, 10 + abs(w), u)
    with np.errstate(over="raise"), pytest.raises(FloatingPointError, match="overflow"):
        operation.forward(x, 10 + abs(w), u)


def test_a_worker_leaves_ctrl_c_to_its_caller() -> None:
    operation = compiled(3, 2, processes=True)
    arguments = drawn(3, 5)
    wanted = results(operation, *arguments)
    worker = team(operation).links[0].worker
    worker.send_signal(signal.SIGINT)
    same(results(operation, *arguments), wanted, exact=True)
    assert team(operation).links[0].worker is worker


def test_workers_end_with_what_they_work_for() -> None:
    operation = runtime.compile(LAYER, input_shape=(1, *IMAGE), dtype="float64", processes=2)
    operation.forward(*made(LAYER, IMAGE, 4)[:3])
    worker = team(operation).links[0].worker
    assert worker.poll() is None
    del operation
    assert worker.wait(timeout=30) == 0


# A program without a guard on __main__: nothing of it may be run again in a worker.
PROGRAM = """
import os, sys
import numpy as np
import derive, runtime
from runtime.process_crew import Processes
Processes.least = 1e-12
print("begun", flush=True)
operation = runtime.compile(derive.Conv1d(1, 2, 3, bias=False), input_shape=(4, 1, 9), processes=2)
arguments = np.ones((4, 1, 9), "f4"), np.ones((2, 1, 3), "f4")
assert (operation.forward(*arguments) == 3).all()
worker = operation.parallel.crew._team.links[0].worker.pid
"""


def run(rest: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM + rest],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def gone(pid: int) -> bool:
    """Whether a process ends within some seconds."""
    for _ in range(300):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(("end", "status"), [("", 0), ("os.kill(os.getpid(), 9)", -signal.SIGKILL)])
def test_no_worker_outlives_its_program(end: str, status: int) -> None:
    done = run(f"print(worker, flush=True)\n{end}")
    begun, pid = done.stdout.split()
    assert done.returncode == status
    assert (begun, done.stderr) == ("begun", "")
    assert gone(int(pid))


def test_a_forked_process_has_workers_of_its_own() -> None:
    done = run("""
child = os.fork()
right = (operation.forward(*arguments) == 3).all()
if child == 0:
    other = operation.parallel.crew._team.links[0].worker.pid
    operation.parallel.crew._team.end()
    os._exit(0 if right and other != worker else 1)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
assert (operation.forward(*arguments) == 3).all()
sys.exit(status if right else 2)
""")
    assert done.returncode == 0, done.stderr


def test_a_process_that_is_forked_during_a_call_of_another_thread_can_call() -> None:
    done = run("""
import threading, time
crew = operation.parallel.crew
with crew._lock:  # as a call of another thread has it
    child = os.fork()
    if child == 0:
        right = (operation.forward(*arguments) == 3).all()
        crew._team.end()
        os._exit(0 if right else 1)
for _ in range(300):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        sys.exit(os.waitstatus_to_exitcode(status))
    time.sleep(0.1)
os.kill(child, 9)
sys.exit(3)
""")
    assert done.returncode == 0, done.stderr


def test_what_a_forked_process_sees_is_not_written_again() -> None:
    done = run("""
result = operation.forward(*arguments)
reader, writer = os.pipe()
child = os.fork()
if child == 0:
    os.read(reader, 1)
    os._exit(0 if (result == 3).all() else 1)
del result
others = [operation.forward(2 * arguments[0], arguments[1]) for _ in range(3)]
os.write(writer, b"!")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
""")
    assert done.returncode == 0, done.stderr


# --- What may be asked for ----------------------------------------------------------------------------------


def test_a_short_call_stays_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "least", 1e3)
    operation = runtime.compile(LAYER, input_shape=(1, *IMAGE), dtype="float64", processes=2)
    results(operation, *made(LAYER, IMAGE, 6))
    crew: Any = operation.parallel and operation.parallel.crew
    assert crew._team is None
    assert "processes=2" in repr(operation)
    assert runtime.compile(LAYER, input_shape=(1, *IMAGE), processes=1).parallel is None


def test_steps_that_are_short_stay_in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Processes, "least_step", 1e3)
    network = runtime.Network(NET, input_shape=(1, 1, 6, 6), processes=2)
    network.step(*digits(6, "float32"))
    steps: Any = network._steps
    assert isinstance(steps, Steps)
    assert steps.crew._team is None  # type: ignore[attr-defined]


def test_what_cannot_be_had_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    shape = (1, *IMAGE)
    with pytest.raises(ValueError, match="processes=0 is less than 1; nearest legal: 1"):
        runtime.compile(LAYER, input_shape=shape, processes=0)
    with pytest.raises(TypeError, match=r"processes=2\.0 is float; an integer of at least 1 is needed"):
        runtime.Network(NET, input_shape=(1, 1, 6, 6), processes=2.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads=2 and processes=3: a batch is split among the one or the other"):
        runtime.compile(LAYER, input_shape=shape, threads=2, processes=3)
    monkeypatch.setattr(process_crew, "AVAILABLE", False)
    with pytest.raises(BackendError, match=r"processes=2: .* POSIX .* use threads"):
        runtime.compile(LAYER, input_shape=shape, processes=2)
