"""Measure the emitted CUDA beside PyTorch and cuDNN on this machine's GPU.

    python -m tests.benchmarks.gpu [--quick] [--case PREFIX] [--no-torch] [--out DIR]
    python -m tests.benchmarks.gpu --simt          # no GPU: every part once, at tiny shapes, on a CPU

The table and a JSON file with every sample are written to tests/benchmarks/results, or to DIR; with --simt only to
DIR, if it is given, since nothing was measured.  All contestants compute in one process, in turns.  Only those are
timed whose result was found right; the exit status is 1 where one was wrong.

Average pools and activations by themselves are a table of their own, whose roof is the copy alone (``passes``).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from codegen.files import write_atomically
from runtime.gpu_timing import Call, Clock
from tests.benchmarks.gpu import contestants, passes, roof, steps, truth
from tests.benchmarks.gpu.cases import FULL, NUMBERS, SHORT, SMALLEST, Case, Size, cases
from tests.benchmarks.gpu.machine import Machine, gpu, simt
from tests.benchmarks.gpu.report import WRONG, Report, Row

RESULTS = Path(__file__).resolve().parents[1] / "results"
STEP = "lenet-step"
REASONS = (ImportError, OSError, RuntimeError, TypeError, ValueError, truth.Disagreement)


def layer_row(case: Case, machine: Machine, clock: Clock, rounds: int, rates: roof.Rates) -> Row:
    """One case: every contestant checked, then timed."""
    missing: dict[str, str] = {}
    calls: dict[str, Call] = {}
    try:
        given = contestants.Arguments.of(case)
    except ImportError as error:
        return Row(case.name, {}, missing={"everybody": str(error)})
    sets, exact = clock.sets(contestants.moved(case)), given.exact()
    everybody = contestants.builders(case, given, machine.cupy, machine.load, machine.torch, machine.device, sets)
    for name, build in everybody:
        try:
            contestant = build()
            truth.check(case, name, contestant.outcome(), exact, strictly=name == contestants.OURS)
            calls[name] = contestant.call
        except REASONS as error:
            missing[name] = reason(error)
    samples = clock.interleave(calls, rounds=rounds) if calls else {}
    return Row(case.name, samples, roof.bound(case, rates), missing)


def pass_row(case: passes.Pass, machine: Machine, clock: Clock, rounds: int, rates: roof.Rates) -> Row:
    """One pool or activation: every contestant checked, then timed."""
    missing: dict[str, str] = {}
    calls: dict[str, Call] = {}
    try:
        given = passes.Given.of(case)
    except ImportError as error:
        return Row(case.name, {}, missing={"everybody": str(error)})
    sets = clock.sets(case.bytes)
    for name, build in passes.builders(case, given, machine.cupy, machine.load, machine.torch, machine.device, sets):
        try:
            contestant = build()
            passes.check(case, name, contestant.outcome(), given)
            calls[name] = contestant.call
        except REASONS as error:
            missing[name] = reason(error)
    samples = clock.interleave(calls, rounds=rounds) if calls else {}
    return Row(case.name, samples, 1e3 * case.bytes / rates[roof.COPY], missing)


def step_row(images: int, machine: Machine, clock: Clock, size: Size) -> Row:
    """LeNet's training step at a batch size."""
    given = steps.Batches.of(images, clock.sets(4 * 784 * images))
    found = list(steps.ours(given, machine.cupy, machine.load))
    missing: dict[str, str] = {}
    for build in (steps.torch_called, steps.torch_graph) if machine.torch is not None else ():
        try:
            found.append(build(given, machine.torch, machine.device))
        except REASONS as error:
            missing[build.__name__] = reason(error)
    try:
        steps.check(found, given)
    except truth.Disagreement as error:
        return Row(f"{STEP}-{images}", {}, missing={"everybody": reason(error)})
    samples = clock.interleave({s.name: s.call for s in found}, rounds=size.rounds, repeats=size.steps)
    return Row(f"{STEP}-{images}", samples, missing=missing)


def reason(error: Exception) -> str:
    """Why a contestant is left out, in a line."""
    first = (str(error).strip() or "no message").splitlines()[0]
    return WRONG + first if isinstance(error, truth.Disagreement) else f"{type(error).__name__}: {first}"


def measured(machine: Machine, size: Size, prefix: str) -> Report:
    """Everything whose name begins with ``prefix``."""
    clock = Clock.of(machine.cupy, size.lead)
    rates = roof.measure(machine.cupy, clock, size, machine.torch, machine.device)
    layers = []
    for case in cases(size, prefix):
        print(case.name, file=sys.stderr, flush=True)
        layers.append(layer_row(case, machine, clock, size.rounds, rates))
    passed = []
    for one in passes.passes(size.passes, prefix):
        print(one.name, file=sys.stderr, flush=True)
        passed.append(pass_row(one, machine, clock, size.rounds, rates))
    wanted = [images for images in size.images if f"{STEP}-{images}".startswith(prefix)]
    trained = [step_row(images, machine, clock, size) for images in wanted]
    settings = {
        "batch of the layers": size.batch,
        "rounds": size.rounds,
        "steps a sample": size.steps,
        "times": "milliseconds of a call: median (quartiles); the ratio is our median to the best of PyTorch's, of "
        "graphs and calls alike; the roof is the least time by the copy and the product over ours"
        if machine.real
        else "none; launches of kernels in a call: median (quartiles)",
        "numbers": f"{', '.join(NUMBERS)}: TF32 is off in float32, for PyTorch as for us, and on in tf32",
    }
    return Report(machine.described(), settings, rates, layers, trained, machine.real, passed)


def written(report: Report, folder: Path) -> list[Path]:
    """The files of a report."""
    folder.mkdir(parents=True, exist_ok=True)
    device = re.sub(r"[^a-z0-9]+", "-", report.machine["device"].lower()).strip("-") if report.real else "simt"
    stem = f"gpu-{device}-{report.machine['date']}"
    texts = {folder / f"{stem}.md": report.to_markdown(), folder / f"{stem}.json": report.to_json()}
    for path, text in texts.items():
        write_atomically(path, text.encode())
    return list(texts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, and write the files."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a few layers, fewer rounds")
    parser.add_argument("--simt", action="store_true", help="no GPU: run every part once, measure nothing")
    parser.add_argument("--case", default="", metavar="PREFIX", help="cases whose names begin so")
    parser.add_argument("--no-torch", action="store_true", help="leave PyTorch out")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the files go")
    given = parser.parse_args(arguments)
    size = SMALLEST if given.simt else SHORT if given.quick else FULL
    steps_ = any(f"{STEP}-{n}".startswith(given.case) for n in size.images)
    if not steps_ and not any(cases(size, given.case)) and not any(passes.passes(size.passes, given.case)):
        parser.error(f"--case {given.case}: no case begins so")
    try:
        machine = (simt if given.simt else gpu)(with_torch=not given.no_torch)
    except RuntimeError as error:
        parser.error(str(error))
    report = measured(machine, size, given.case)
    print(report.to_markdown(), end="")
    folder = given.out or (None if given.simt else RESULTS)
    for path in [] if folder is None else written(report, folder):
        print(f"written to {path}", file=sys.stderr)
    for told in report.wrong:
        print(told, file=sys.stderr)
    if report.wrong:
        sys.exit(1)


if __name__ == "__main__":
    main()
