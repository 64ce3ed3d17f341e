"""Where the time of an emitted convolution goes: each stage by itself, with its rate beside what the machine can do.

    python -m tests.benchmarks.stages [--layout channels_last] [--rounds 15] CASE ...

The text runs as it is, with a clock read at each stage's comment; the least of several rounds counts, since what is
asked is what bounds it.  A product is shown with its operations a second, anything else with the bytes that it writes
a second and as many read, under the rates of a large matrix product and a large copy measured first.
"""

from __future__ import annotations

import argparse
import itertools
import re
import time
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from codegen.emit import Emitted
from codegen.functions import passed, workspace
from codegen.layout import FIRST, LAST, LAYOUTS, Layout
from codegen.plan import Plan, extent
from runtime.arrays import with_channels_last
from runtime.bench_cases import Case, find
from runtime.bench_data import LayerData, arrays
from runtime.bench_peers import RESULTS
from runtime.compile import emit
from runtime.roofline import measure
from runtime.threads import blas_threads

PRODUCTS = ("matmul", "grouped", "shifted", "contract", "dot")
STAGE = re.compile(r"^( +)# (\w+)\[.*\] = ")


def clocked(source: str, function: str) -> str:
    """The text with a clock read before each stage of a function and at its end."""
    start = source.index(f"\ndef {function}(")
    end = source.index("\n\n\n", start)
    lines = []
    for line in source[start:end].split("\n"):
        if found := STAGE.match(line):
            lines.append(f"{found[1]}_clock({found[2]!r})")
        elif line.startswith("    return "):
            lines.append('    _clock("")')
        lines.append(line)
    return source[:start] + "\n".join(lines) + source[end:]


def times(call: Callable[[], object], read: list[tuple[str, float]], rounds: int) -> dict[str, float]:
    """The least seconds of each stage, and under "" of the whole call."""
    least: dict[str, float] = {}
    for _ in range(rounds):
        read.clear()
        start = time.perf_counter()
        call()
        found = {"": time.perf_counter() - start}
        for (name, began), (_, ended) in itertools.pairwise(read):
            if name:
                found[name] = found.get(name, 0.0) + ended - began
        least = {name: min(value, least.get(name, value)) for name, value in found.items()}
    return least


def rate(plan: Plan, name: str, batch: int, seconds: float) -> str:
    """A stage's operations, or bytes, a second; ``batch`` counts every band of an image."""
    stage = plan.by_name[name]

    def cells(bounds: Any) -> int:
        return prod(batch if (size := extent(b)) is None else size for b in bounds)

    if stage.template in PRODUCTS:
        operations = sum(2 * cells(stage.tensor.box) * cells(m.binders) for m in stage.body.monomials if m.binders)
        return f"{operations / seconds / 1e9:6.1f} GFLOP/s"
    return f"{2 * 4 * cells(stage.tensor.box) / seconds / 1e9:6.1f} GB/s"


def report(case: Case, layout: Layout, rounds: int) -> str:
    """The stages of one case."""
    result = RESULTS[case.part]
    emitted: Emitted = emit(
        case.work.layer(), backend="numpy", input_shape=case.work.input_shape, dtype="float32", layout=layout
    )
    data = arrays(case)
    assert isinstance(data, LayerData)
    x, g = (with_channels_last(a) if layout == LAST else a for a in (data.x, data.g))
    read: list[tuple[str, float]] = []
    module: dict[str, Any] = {"_clock": lambda name: read.append((name, time.perf_counter()))}
    exec(compile(clocked(emitted.source, result), case.name, "exec"), module)
    given = passed(result, {"input": x, "weight": data.w, "bias": data.b, "grad_output": g})
    call = partial(module[result], *given, module[workspace(result)](len(x), np.float32))
    least, plan, cut = times(call, read, rounds), emitted.plans[result], emitted.bands.get(result)
    plan, images = (plan, len(x)) if cut is None else (cut.plan, len(x) * len(cut.starts))
    lines = [f"{case.name}, {layout}, {plan.algorithm}: {1e3 * least.pop(''):.2f} ms"]
    for name, seconds in least.items():
        comment = next(line for line in emitted.source.split("\n") if line.lstrip().startswith(f"# {name}["))
        lines.append(f"  {1e3 * seconds:7.2f} ms  {rate(plan, name, images, seconds):>16}  {comment.strip()[2:80]}")
    return "\n".join(lines)


def main() -> None:
    """Print the stages of the cases that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="+", metavar="CASE")
    parser.add_argument("--layout", default=FIRST, choices=LAYOUTS)
    parser.add_argument("--rounds", type=int, default=15)
    given = parser.parse_args()
    with blas_threads(1) as blas:
        roof = measure()
        print(f"{blas}; roof: {roof.gemm / 1e9:.3g} GFLOP/s, {roof.copy / 1e9:.3g} GB/s")
        for case in find(given.cases):
            if case.part != "step":
                print(report(case, given.layout, given.rounds), flush=True)


if __name__ == "__main__":
    main()
