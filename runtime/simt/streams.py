"""Streams, events and graphs of the stand-in for CuPy: launches end before they return, so order is all there is.

A stream that *captures* keeps what is launched, runs none of it, and gives a graph: each launch with its arrays, which
are used as they are when the graph is launched, and its numbers, which stay as they were (CUDA C++ Programming Guide,
"CUDA Graphs").  Here every launch goes to the one stream that captures, as to a GPU's current stream.  What a capture
must not do is refused: to make an array, whose memory the graph would keep using after it is given back, and to wait.

Time is not measured: an *event* counts, and a millisecond passes with every launch and every event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from runtime.simt.errors import LaunchError

Launch = Callable[[], None]


@dataclass
class Graph:
    """What a stream captured."""

    launches: tuple[Launch, ...]
    _home: Streams = field(repr=False)

    def launch(self, stream: object = None) -> None:
        """Run all of it, in the order of its capture."""
        for launch in self.launches:
            self._home.launch(launch)

    def upload(self, stream: object = None) -> None:
        """Nothing is to be brought anywhere."""


@dataclass
class Stream:
    """A stream of CuPy, as far as emitted modules and their users need one."""

    home: Streams = field(repr=False)
    null: bool = False
    ptr: int = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def use(self) -> Self:
        """Make it current: nothing is different here."""
        return self

    def synchronize(self) -> None:
        """Wait for what has ended."""
        self.home.check_waits_for_nothing()

    def begin_capture(self, mode: object = None) -> None:
        """Keep what is launched from now on.

        Raises:
            LaunchError: it is the null stream, or a capture is going on.
        """
        if self.null:
            raise LaunchError("the null stream cannot capture; nearest legal: cupy.cuda.Stream(non_blocking=True)")
        if self.home.captured is not None:
            raise LaunchError("begin_capture: a stream captures already; end_capture has to come first")
        self.home.captured = []

    def end_capture(self) -> Graph:
        """The graph of what was launched.

        Raises:
            LaunchError: nothing was being captured.
        """
        if self.home.captured is None:
            raise LaunchError("end_capture: no stream captures; begin_capture has to come first")
        graph = Graph(tuple(self.home.captured), self.home)
        self.home.captured = None
        return graph

    def is_capturing(self) -> bool:
        """Whether what is launched is kept."""
        return self.home.captured is not None


@dataclass
class Event:
    """A moment in the count of launches and events; ``at`` is None until it is recorded."""

    home: Streams = field(repr=False)
    at: int | None = None

    def record(self, stream: object = None) -> None:
        """Now."""
        self.home.passed += 1
        self.at = self.home.passed

    def synchronize(self) -> None:
        """Wait for what has ended."""
        self.home.check_waits_for_nothing()


@dataclass
class Streams:
    """All streams of a stand-in; called, as ``cupy.cuda.Stream``, it makes one.

    >>> streams = Streams()
    >>> start, stop = streams.event(), streams.event()
    >>> start.record(); streams.launch(lambda: None); stop.record()
    >>> streams.elapsed(start, stop)
    2.0
    """

    captured: list[Launch] | None = None
    passed: int = 0
    null: Stream = field(init=False)

    def __post_init__(self) -> None:
        self.null = Stream(self, null=True)

    def __call__(self, null: bool = False, non_blocking: bool = False, **_: object) -> Stream:
        """A stream, as ``cupy.cuda.Stream(...)``."""
        return Stream(self, null=null)

    def event(self, **_: object) -> Event:
        """An event that was not recorded yet."""
        return Event(self)

    def launch(self, run: Launch) -> None:
        """Run a launch, or keep it."""
        if self.captured is not None:
            self.captured.append(run)
            return
        self.passed += 1
        run()

    @staticmethod
    def elapsed(start: Event, stop: Event) -> float:
        """The count between two events, as milliseconds.

        Raises:
            LaunchError: one of them was not recorded.
        """
        if start.at is None or stop.at is None:
            raise LaunchError("get_elapsed_time: an event was not recorded")
        return float(stop.at - start.at)

    def check_makes_nothing(self, name: str) -> None:
        """Refuse a new array during a capture."""
        if self.captured is not None:
            raise LaunchError(
                f"cupy.{name} makes an array while a stream captures; its memory would be given back, and the graph "
                "use it; make it before begin_capture"
            )

    def check_waits_for_nothing(self) -> None:
        """Refuse to wait during a capture."""
        if self.captured is not None:
            raise LaunchError("synchronize: nothing can be waited for while a stream captures")
