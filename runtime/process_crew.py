"""Parts of a call in other processes, whose interpreters wait for nobody.

For calls of NumPy that are short, of which a training step has hundreds, handing the interpreter over from thread to
thread costs part of what the second core gains, for small batches all of it.  A worker process (`runtime.worker`) has
the same emitted module; a call tells it a function and where the arrays lie in shared memory (`runtime.shared`), and
waits for the word "done".  The calling thread computes the first part itself, with its own arrays; those of the others
are copied into shared memory, and what comes of them lies there.  A result that all parts write to lies there whole,
and nothing is copied.

Workers are started by the first call that is split, and end with this process or when nobody has the crew any more.
One call at a time has them.  Memory stays at what the largest calls took for as long as the crew is kept.  What NumPy
is to do about an overflow holds in a worker too (`numpy.errstate`); a warning there is printed, and no filter of the
caller sees it.  A forked process has workers of its own, and memory that it can see is not written again.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

import runtime.worker
from codegen.functions import GIVES
from runtime.arrays import Array, channels_last
from runtime.crew import Call, Part
from runtime.shared import Form, Memory
from runtime.thread_crew import Threads, blas_at_one_thread
from runtime.threads import VARIABLES
from runtime.worker import Place

T = TypeVar("T")
AVAILABLE = os.name == "posix"
"""Whether processes can be had here: memory is shared by handing over an open file, which Windows does otherwise."""


class WorkerError(RuntimeError):
    """A worker process ended before it answered."""


class Processes:
    """Parts in processes, the first one on the calling thread.

    Args:
        module: the emitted module, as `codegen.load` makes it.
        dtype: of all arrays.
        count: how many parts at most, at least 1; one worker fewer is started.

    Raises:
        WorkerError: from a call, if a worker ended, as one does for which the system has no memory left.  The next call
            starts workers anew.
    """

    least = 1e-3
    """Handing over takes half a millisecond: of batches of 64 of LeNet's convolutions, 0.5 ms a part, none gained; of
    256 those that add many slices did, and 3x3 ones of 128 channels more than by threads."""
    least_step = 4e-3
    """A step of LeNet for 32 images, foretold 4.2 ms a part, took 0.84 and 1.04 of one process's time in two runs, and
    on threads 0.99 and 1.05; for 16 images it took 1.2."""

    def __init__(self, module: ModuleType, dtype: Any, count: int) -> None:
        self.module = module
        self.dtype = np.dtype(dtype)
        self.count = count
        self._own = Threads(module, dtype, 1)
        self._lock = threading.Lock()
        self._team: _Team | None = None
        _CREWS.add(self)

    def renew(self) -> None:
        """Begin anew in a forked process: the workers are its parent's, and so may be whoever holds a lock."""
        self._own = Threads(self.module, self.dtype, 1)
        self._lock = threading.Lock()
        self._team = None

    def keep(self) -> None:
        """Before this process is forked: what the child will see is not handed out again."""
        if self._team is not None:
            self._team.memory.keep()

    def __str__(self) -> str:
        return f"processes={self.count}"

    def part(self, call: Call, low: int, high: int, out: Array | None = None) -> Any:
        """See `runtime.crew.Crew`."""
        return self._own.part(call, low, high, out)

    def joined(self, call: Call, parts: Sequence[Part], like: Array, image: tuple[int, ...], *, follows: bool) -> Array:
        """See `runtime.crew.Crew`; the result lies in shared memory, unless there is one part.

        A process that is forked later shares it: what the one writes into the array, the other sees.
        """
        if len(parts) == 1:
            return self._own.joined(call, parts, like, image, follows=follows)
        form = Form((len(like), *image), self.dtype, follows and channels_last(like))
        with self._at_work() as team:
            (result,), (place,) = team.memory.arrays([form])
            wanted = [("array", _rows(place, result, *part)) for part in parts[1:]]
            team.run(call, parts[1:], wanted, lambda: self._own.part(call, *parts[0], result[slice(*parts[0])]))
        return result

    def sums(self, call: Call, parts: Sequence[Part]) -> list[Array]:
        """See `runtime.crew.Crew`."""
        if len(parts) == 1:
            return self._own.sums(call, parts)
        shape = self.module.SHAPES[GIVES[call.function]]
        with self._at_work() as team:
            arrays, places = team.memory.arrays([Form(shape, self.dtype)] * (len(parts) - 1))
            wanted = [("sum", place) for place in places]
            own, _ = team.run(call, parts[1:], wanted, lambda: self._own.part(call, *parts[0]))
        return [own, *arrays]

    def steps(self, call: Call, parts: Sequence[Part]) -> list[tuple[float, dict[str, Array]]]:
        """See `runtime.crew.Crew`."""
        if len(parts) == 1:
            return self._own.steps(call, parts)
        shapes = self.module.PARAMETERS
        with self._at_work() as team:
            made = [team.memory.arrays(Form(shape, self.dtype) for shape in shapes.values()) for _ in parts[1:]]
            wanted = [("arrays", dict(zip(shapes, places, strict=True))) for _, places in made]
            (loss, gradients), losses = team.run(call, parts[1:], wanted, lambda: self._own.part(call, *parts[0]))
        others = [dict(zip(shapes, arrays, strict=True)) for arrays, _ in made]
        return [(float(loss), gradients), *zip(losses, others, strict=True)]

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[_Team]:
        """The workers, for one call; they are not used again if it was broken off or one of them ended."""
        with self._lock, blas_at_one_thread():
            if self._team is None:
                self._team = _Team(self.module, self.dtype, self.count - 1)
            try:
                yield self._team
            finally:
                if not self._team.whole:
                    team, self._team = self._team, None  # first: a second Ctrl-C may end the waiting
                    team.end()


_CREWS: weakref.WeakSet[Processes] = weakref.WeakSet()


def _keep_all() -> None:
    for crew in list(_CREWS):
        crew.keep()


def _renew_all() -> None:
    for crew in list(_CREWS):
        crew.renew()


if AVAILABLE:
    os.register_at_fork(before=_keep_all, after_in_child=_renew_all)


def _rows(place: Place, whole: Array, low: int, high: int) -> Place:
    """Where some rows of an array lie: batches come first in memory in every layout."""
    start, shape, dtype, axes = place
    return start + low * (whole.nbytes // max(1, len(whole))), (high - low, *shape[1:]), dtype, axes


# --- Workers ------------------------------------------------------------------------------------------------


@dataclass
class _Link:
    """A worker, and this end of the connection to it."""

    worker: subprocess.Popen[bytes]
    connection: Connection


class _Team:
    """Workers of one module and the memory that they share with this process, which alone speaks to them.

    Attributes:
        whole: whether every question was answered.
    """

    def __init__(self, module: ModuleType, dtype: np.dtype[Any], count: int) -> None:
        self.whole = True
        self.memory = Memory()
        self.links: list[_Link] = []
        self.end: Callable[[], object] = weakref.finalize(self, _end, self.links, os.getpid())
        for _ in range(count):
            self.links.append(_started(self.memory.file))
            self.links[-1].connection.send((module.__source__, dtype.str))

    def run(
        self, call: Call, parts: Sequence[Part], wanted: Sequence[tuple[str, Any]], own: Callable[[], T]
    ) -> tuple[T, list[Any]]:
        """What ``own`` gives, which runs meanwhile, and the losses of the parts, each run by a worker."""
        self.whole = False
        kept, asked = [], []
        try:
            for link, part, result in zip(self.links, parts, wanted, strict=False):
                arrays, arguments = self._laid_out(call.given(*part))
                kept.append(arrays)
                message = (call.function, call.workspace, part[1] - part[0], arguments, result)
                _ask(link, (self.memory.size, np.geterr(), *message))
                asked.append(link)
            done = own()
        except WorkerError:
            raise
        except Exception:
            for link in asked:
                _answer(link)
            self.whole = True
            raise
        answers = [_answer(link) for link in asked]
        self.whole = True
        for answer in answers:
            _refuse(answer)
        return done, [answer[1] for answer in answers]

    def _laid_out(self, arguments: Sequence[Any]) -> tuple[list[Array], list[tuple[str, Any]]]:
        """The arguments as a worker gets them, and the arrays in shared memory, to be kept until it has answered."""
        given = [_named(argument) for argument in arguments]
        forms = [Form.of(array) for _, arrays in given for array in arrays.values()]
        copies, places = self.memory.arrays(forms)
        left = iter(zip(copies, places, strict=True))
        told: list[tuple[str, Any]] = []
        for (kind, arrays), argument in zip(given, arguments, strict=True):
            found = {}
            for name, array in arrays.items():
                copy, found[name] = next(left)
                np.copyto(copy, array)
            told.append((kind, argument if kind == "value" else found if kind == "arrays" else found[""]))
        return copies, told


def _named(argument: Any) -> tuple[str, Mapping[str, Array]]:
    """What kind of argument it is, and its arrays by name."""
    if isinstance(argument, np.ndarray):
        return "array", {"": argument}
    if isinstance(argument, Mapping):
        return "arrays", argument
    return "value", {}


def _started(file: int) -> _Link:
    """A worker that sees the file; BLAS has one thread there."""
    here, there = Pipe()
    with there:
        worker = subprocess.Popen(
            [sys.executable, "-P", str(Path(runtime.worker.__file__)), str(there.fileno()), str(file)],
            pass_fds=(there.fileno(), file),
            stdin=subprocess.DEVNULL,
            env={**os.environ, **dict.fromkeys(VARIABLES, "1")},
        )
    return _Link(worker, here)


def _ask(link: _Link, message: tuple[Any, ...]) -> None:
    """Send a worker its part."""
    with _ended_is_told(link):
        link.connection.send(message)


def _answer(link: _Link) -> tuple[Any, ...]:
    """What a worker says of its part, when it is done."""
    with _ended_is_told(link):
        answer: tuple[Any, ...] = link.connection.recv()
    return answer


@contextlib.contextmanager
def _ended_is_told(link: _Link) -> Iterator[None]:
    """Raise WorkerError where a connection breaks off."""
    try:
        yield
    except (EOFError, ConnectionError) as error:
        status = link.worker.wait()
        raise WorkerError(
            f"a worker process ended with status {status} before its part was done, and the call has no result; "
            f"parameters are as they were, and the next call starts workers anew"
        ) from error


def _refuse(answer: tuple[Any, ...]) -> None:
    """Raise the error that a worker tells."""
    if answer[0] == "failed":
        _, error, told = answer
        error.add_note(f"in a worker process:\n{told}")
        raise error


def _end(links: Sequence[_Link], process: int) -> None:
    """Close the connections, upon which the workers end; a forked process leaves them to the one that started them."""
    for link in links:
        link.connection.close()
        if process == os.getpid():
            link.worker.wait()
