"""`certiconv bench`: the emitted modules beside PyTorch, SciPy and textbook NumPy, in one process.

For each case every peer's result is first compared with the right one (`runtime.bench_data`); one that is wrong ends
the run and is never timed.  Then all are timed in turn (`runtime.timing`, which also has the noise rule), with BLAS and
PyTorch at the number of threads that was asked for, and the emitted modules on as many (BLAS then held at one while a
batch is split, `runtime.parallel`), and the time is set against the roofline of this machine
(`runtime.roofline`).  The ratio is that of the medians, our better layout over PyTorch's better one; without PyTorch,
over the fastest other peer, which is then named.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import codegen
from derive.legality import LayerError
from runtime import roofline
from runtime.bench_cases import Case, Sweep
from runtime.bench_data import arrays, truth
from runtime.bench_peers import CERTICONV, PYTORCH, Contestant, Peer
from runtime.bench_peers import peers as everybody
from runtime.roofline import Roof
from runtime.threads import blas_threads
from runtime.timing import Samples, Spread, interleave

ROUNDS, QUICK_ROUNDS = 21, 5
REST = 0.04  # seconds: OpenBLAS and OpenMP threads spin less than that after their work


class BenchError(ValueError):
    """A request that cannot be met; the text names the argument, its value and the nearest legal one."""


@dataclass(frozen=True)
class Result:
    """What was found for a case.

    Attributes:
        case: what was timed.
        samples: the seconds of each peer; None where there is no emitted module.
        reason: why there is none; "" where there is one.
    """

    case: Case
    samples: Samples | None = None
    reason: str = ""

    def seconds(self, peer: str) -> Spread | None:
        """The seconds of a peer; None where it was not timed."""
        return self.samples.of(peer) if self.samples is not None and peer in self.samples.seconds else None

    @property
    def ours(self) -> str | None:
        """Our better layout here; None where there is no emitted module."""
        return self._fastest(CERTICONV)

    @property
    def pytorch(self) -> str | None:
        """PyTorch's better layout here; None where PyTorch was not timed."""
        return self._fastest(PYTORCH)

    @property
    def reference(self) -> str | None:
        """Whom the ratio is to: PyTorch's better layout, else the fastest other peer."""
        others = () if self.samples is None else tuple(name for name in self.samples.seconds if name not in CERTICONV)
        return self.pytorch or self._fastest(others)

    @property
    def ratio(self) -> Spread | None:
        """Our seconds over those of the reference: of the medians; the quartiles are of the ratios in each round."""
        if self.samples is None or self.reference is None or self.ours is None:
            return None
        return self.samples.ratio(self.ours, self.reference)

    def _fastest(self, names: Sequence[str]) -> str | None:
        found = {name: s.median for name in names if (s := self.seconds(name)) is not None}
        return min(found, key=found.__getitem__) if found else None


@dataclass(frozen=True)
class Growth:
    """How time grows along a sweep: a result for each size."""

    sweep: Sweep
    results: tuple[Result, ...]

    def exponents(self) -> list[float | None]:
        """For each size but the first, the exponent e of our time = size^e between the one before and this one."""
        found = [result.seconds(result.ours) if result.ours else None for result in self.results]
        medians = [None if spread is None else spread.median for spread in found]
        sizes = self.sweep.sizes
        return [
            None if a is None or b is None else math.log(b / a) / math.log(n / m)
            for (a, b), (m, n) in zip(itertools.pairwise(medians), itertools.pairwise(sizes), strict=True)
        ]


@dataclass(frozen=True)
class Bench:
    """Times cases with the same settings; to be made by `prepared`, which holds the threads.

    Attributes:
        roof: the rates of this machine.
        blas: in words, what was done about the threads of BLAS.
        rounds: samples of each peer for each case.
        threads: how many BLAS and PyTorch may use.
        peers: who is timed, those that are installed.
        measure: gives the rates.
        load: programs that wanted a CPU in the minute before, this one among them; None where the system does not tell.
        processes: whether ours are processes in place of threads.
    """

    roof: Roof
    blas: str
    rounds: int
    threads: int
    peers: tuple[Peer, ...]
    measure: Callable[[], Roof] = roofline.measure
    load: float | None = None
    processes: bool = False

    @property
    def rest(self) -> float:
        """Seconds to wait before a sample: none where nobody has threads that spin."""
        return 0.0 if self.threads == 1 else REST

    def measured_again(self) -> Bench:
        """With the rates measured once more, the better kept: to be asked when all is timed."""
        return replace(self, roof=self.roof.or_better(self.measure()))

    def run(self, case: Case) -> Result:
        """Check every peer's result, then time them.

        Raises:
            Disagreement: a peer's result is wrong.
        """
        try:
            contestants = self._contestants(case)
        except (LayerError, codegen.EmitError) as error:
            return Result(case, reason=str(error))
        calls = {name: contestant.call for name, contestant in contestants.items()}
        return Result(case, interleave(calls, rounds=self.rounds, probe=roofline.probe(), rest=self.rest))

    def grow(self, sweep: Sweep) -> Growth:
        """The cases of a sweep, one after another.

        Raises:
            Disagreement: a peer's result is wrong.
        """
        return Growth(sweep, tuple(self.run(case) for case in sweep.cases))

    def _contestants(self, case: Case) -> Mapping[str, Contestant]:
        """What each peer does for a case, found right."""
        case.work.layer()  # before arrays are made of its shapes
        data = arrays(case)
        built = ((peer.name, peer.build(case, data)) for peer in self.peers)
        contestants = {name: contestant for name, contestant in built if contestant is not None}
        right = truth(case, data)
        for name, contestant in contestants.items():
            right.check(f"{case.name}: {name}", contestant.outcome())
        return contestants


@contextlib.contextmanager
def prepared(
    *,
    rounds: int = ROUNDS,
    threads: int = 1,
    processes: bool = False,
    peers: Sequence[Peer] | None = None,
    measure: Callable[[], Roof] = roofline.measure,
) -> Iterator[Bench]:
    """A `Bench` with BLAS and PyTorch held at a number of threads while it is open.

    Args:
        rounds: samples of each peer for each case, at least 1.
        threads: 1 or 2.
        processes: whether ours are processes, of which there have to be 2 then.
        peers: who is timed, None for everybody; those whose package is not installed are left out.
        measure: gives the rates of this machine.

    Raises:
        BenchError: ``rounds`` or ``threads`` is not legal.
    """
    if rounds < 1:
        raise BenchError(f"rounds={rounds} is less than 1; nearest legal: 1")
    if threads not in (1, 2):
        raise BenchError(f"threads={threads} is neither 1 nor 2; nearest legal: {1 if threads < 1 else 2}")
    if processes and threads == 1:
        raise BenchError("processes=True with threads=1: nothing would be split; nearest legal: threads=2")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    present = tuple(
        peer for peer in (everybody(threads, processes=processes) if peers is None else peers) if peer.installed
    )
    for package in dict.fromkeys(peer.package for peer in present if peer.package):
        # Loaded first: threadpoolctl holds the libraries that it finds loaded.
        importlib.import_module("scipy.signal" if package == "scipy" else package)
    with _torch_threads(threads, present), blas_threads(threads) as blas:
        yield Bench(measure(), blas, rounds, threads, present, measure, load, processes)


@contextlib.contextmanager
def _torch_threads(threads: int, peers: Sequence[Peer]) -> Iterator[None]:
    if not any(peer.package == "torch" for peer in peers):
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
