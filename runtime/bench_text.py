"""What `certiconv bench` says: the table, the notes under it, and the same as JSON.

A time is a median with half the distance between its quartiles.  JSON has every number in full; the table has what fits
a line.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib import metadata
from typing import Any

from codegen.version import VERSION
from runtime.bench import Bench, Growth, Result
from runtime.bench_peers import PYTORCH, SCIPY, TEXTBOOK
from runtime.timing import LIMIT, Spread

Row = tuple[str, ...]
HEADER: Row = (
    "case", "certiconv ms", "ours in", "PyTorch ms", "theirs in", "SciPy ms", "textbook ms", "ratio", "quartiles",
    "goal", "GFLOP/s", "roof", "dropped",
)  # fmt: skip
GROWTH_HEADER: Row = ("size", "certiconv ms", "reference ms", "ratio", "exponent")
BUSY = 0.5  # the load average above which other programs ran
_NONE = "-"


def rows(results: Sequence[Result], bench: Bench) -> list[Row]:
    """The table, a row a case."""
    return [_row(result, bench) for result in results]


def _row(result: Result, bench: Bench) -> Row:
    name, goal = result.case.name, result.case.goal
    shown_goal = _NONE if goal is None else f"{goal:g}"
    ours = result.seconds(result.ours) if result.ours else None
    if ours is None or result.samples is None:
        return (name, "not emitted", *[_NONE] * 7, shown_goal, *[_NONE] * 3)
    best, cost, ratio = result.pytorch, result.case.work.cost(), result.ratio
    return (
        name,
        _milliseconds(ours),
        _layout(result.ours),
        _milliseconds(result.seconds(best) if best else None),
        _layout(best),
        _milliseconds(result.seconds(SCIPY)),
        _milliseconds(result.seconds(TEXTBOOK)),
        f"{ratio.median:.2f}" if ratio else _NONE,
        f"{ratio.lower:.2f}-{ratio.upper:.2f}" if ratio else _NONE,
        shown_goal,
        f"{cost.operations / ours.median / 1e9:.1f}",
        f"{bench.roof.share(cost, ours.median):.0%}",
        f"{result.samples.dropped}/{result.samples.rounds}",
    )


def _layout(peer: str | None) -> str:
    return _NONE if peer is None else peer.partition(" ")[2]


def _milliseconds(found: Spread | None) -> str:
    return _NONE if found is None else f"{1e3 * found.median:.2f} ±{1e3 * found.half:.2f}"


def notes(results: Sequence[Result], bench: Bench) -> list[str]:
    """What the table means and how it came about."""
    references = {result.reference for result in results if result.reference} - set(PYTORCH)
    roof = bench.roof
    ratio = (
        f"PyTorch is not installed; ratio: certiconv's median over that of {' or '.join(sorted(references))}."
        if references
        else "ratio: certiconv's median over PyTorch's, in the layouts named; quartiles: of the ratios in each round."
    )
    said = [
        f"ms: median ± half the distance of the quartiles, of whole calls in float32; {_packages()}; {bench.blas}.",
        "ours in, theirs in: the better layout of each, in which arrays lie before a convolution and after it.",
        "certiconv is timed in channels_last where its result keeps that layout; its changes of layout inside count.",
        ratio,
        f"dropped: rounds beside which a fixed matrix product took more than {LIMIT:g} times its median.",
        f"roof: {roof.gemm / 1e9:.3g} GFLOP/s (matrix product) and {roof.copy / 1e9:.3g} GB/s (copy), measured here.",
        "GFLOP/s: operations of the defining sum, products with padding included; an algorithm may do fewer.",
    ]
    if bench.threads > 1:
        by = "among processes " if bench.processes else ""
        said.append(
            f"certiconv splits the batch {by}where that pays, with BLAS at one thread if threadpoolctl is installed."
        )
    if bench.load is not None and bench.load > BUSY:
        said.append(f"The load average was {bench.load:.1f} before the start: other programs ran, and times are rough.")
    reasons: dict[str, list[str]] = {}
    for result in results:
        if result.reason:
            reasons.setdefault(result.reason, []).append(result.case.name)
    return said + [f"{', '.join(names)} not emitted: {reason}" for reason, names in reasons.items()]


def growth_rows(growth: Growth) -> list[Row]:
    """How one size grows, a row a size."""
    exponents = [None, *growth.exponents()]
    found: list[Row] = []
    for size, result, exponent in zip(growth.sweep.sizes, growth.results, exponents, strict=True):
        reference, ratio = result.reference, result.ratio
        found.append(
            (
                str(size),
                _milliseconds(result.seconds(result.ours) if result.ours else None),
                _milliseconds(result.seconds(reference) if reference else None),
                f"{ratio.median:.2f}" if ratio else _NONE,
                _NONE if exponent is None else f"{exponent:.2f}",
            )
        )
    return found


def growth_title(growth: Growth) -> str:
    """What grows, and how its multiply-adds do."""
    first = growth.sweep.cases[0].work.layer()
    axis, expected = growth.sweep.axis, growth.sweep.expected
    others = {"batch": "32 channels, 28x28", "channels": "batch 8, 28x28", "image": "batch 8, 32 channels"}[axis]
    kind = type(first).__name__
    return f"time as {axis} grows ({kind} 3x3, padding 1, forward, {others}; multiply-adds grow as size^{expected})"


def plain(header: Row, body: Sequence[Row]) -> str:
    """A table of text in columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    lines = []
    for row in (header, *body):
        first, *others = (
            cell.ljust(width) if k == 0 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join((first, *others)).rstrip())
    return "\n".join(lines)


# --- JSON ---------------------------------------------------------------------------------------------------


def as_json(results: Sequence[Result], growths: Sequence[Growth], bench: Bench) -> dict[str, Any]:
    """Everything that was found, in numbers; seconds, operations a second, bytes a second."""
    return {
        "certiconv": VERSION,
        "packages": _versions(),
        "machine": {"processor": platform.machine(), "system": platform.system(), "cpus": os.cpu_count()},
        "settings": {
            "dtype": "float32",
            "rounds": bench.rounds,
            "threads": bench.threads,
            "processes": bench.processes,
            "blas": bench.blas,
            "load_before": bench.load,
            "noise_limit": LIMIT,
        },
        "roof": {"gemm": bench.roof.gemm, "copy": bench.roof.copy, "ridge": bench.roof.ridge},
        "cases": [_case(result, bench) for result in results],
        "growth": [
            {
                "axis": growth.sweep.axis,
                "sizes": list(growth.sweep.sizes),
                "expected_exponent": growth.sweep.expected,
                "exponents": growth.exponents(),
                "cases": [_case(result, bench) for result in growth.results],
            }
            for growth in growths
        ],
    }


def _case(result: Result, bench: Bench) -> dict[str, Any]:
    case = result.case
    told: dict[str, Any] = {"name": case.name, "part": case.part, "goal": case.goal}
    told["input_shape"] = list(case.work.input_shape)
    if result.samples is None:
        return {**told, "not_emitted": result.reason}
    cost = case.work.cost()
    peers = {}
    for name in result.samples.seconds:
        found = result.samples.of(name)
        rates = {"rate": cost.operations / found.median, "share_of_roof": bench.roof.share(cost, found.median)}
        peers[name] = {**_spread(found), **rates}
    ratio = result.ratio
    return {
        **told,
        "layer": repr(case.work.layer()),
        "operations": cost.operations,
        "bytes": cost.bytes,
        "intensity": cost.intensity,
        "peers": peers,
        "ours": result.ours,
        "reference": result.reference,
        "ratio": None if ratio is None else _spread(ratio),
        "rounds": result.samples.rounds,
        "dropped": result.samples.dropped,
    }


def _spread(found: Spread) -> dict[str, float]:
    return {"median": found.median, "lower_quartile": found.lower, "upper_quartile": found.upper, "least": found.least}


def _versions() -> dict[str, str]:
    found = {}
    for name in ("numpy", "torch", "scipy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _packages() -> str:
    shown = {"numpy": "NumPy", "torch": "PyTorch", "scipy": "SciPy"}
    return ", ".join(f"{shown[name]} {version}" for name, version in _versions().items())
