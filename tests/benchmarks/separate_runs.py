"""`certiconv bench` in separate processes: the ratio of each run, and their median.

    python -m tests.benchmarks.separate_runs [--runs 5] [--threads 1,2] [ARGUMENTS OF certiconv bench ...]

One process has one layout of memory and one neighbourhood of other programs; a claim about speed rests on several.
Each line is a case: the median of the ratios of our better layout to PyTorch's, every one of them, the goal, the median
share of the roof, and in which layouts these were.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = "import sys; from runtime.cli import main; main(['bench', '--json', *sys.argv[1:]])"


def one_run(arguments: list[str]) -> dict[str, Any]:
    """What a fresh process finds."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(runs: list[dict[str, Any]]) -> str:
    """A line for each case that was timed in every run."""
    lines = ["| case | median ratio | each run | goal | roof | layouts, ours / theirs |", "|---|---|---|---|---|---|"]
    for cases in zip(*(run["cases"] for run in runs), strict=True):
        if any(case.get("ratio") is None for case in cases):
            continue
        ratios = [case["ratio"]["median"] for case in cases]
        shares = [case["peers"][case["ours"]]["share_of_roof"] for case in cases]
        goal = "" if cases[0]["goal"] is None else f"{cases[0]['goal']:g}"
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        name, middle, share = cases[0]["name"], statistics.median(ratios), statistics.median(shares)
        layouts = " / ".join(_layouts(cases, who) for who in ("ours", "reference"))
        lines.append(f"| {name} | {middle:.2f} | {each} | {goal} | {share:.0%} | {layouts} |")
    return "\n".join(lines)


def _layouts(cases: Sequence[dict[str, Any]], who: str) -> str:
    """The layouts that were the better one in some run."""
    return " or ".join(sorted({case[who].removeprefix("certiconv ").removeprefix("PyTorch ") for case in cases}))


def main() -> None:
    """Run, and print a table for each number of threads."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", default="1")
    given, arguments = parser.parse_known_args()
    if given.runs < 1:
        parser.error(f"--runs={given.runs}: at least 1 is needed")
    for threads in given.threads.split(","):
        runs: list[dict[str, Any]] = []
        for k in range(given.runs):
            print(f"run {k + 1} of {given.runs}, threads {threads}", file=sys.stderr, flush=True)
            runs.append(one_run(["--threads", threads, *arguments]))
        first = runs[0]
        packages = ", ".join(f"{name} {version}" for name, version in first["packages"].items())
        print(
            f"threads {threads}; {packages}; {first['settings']['blas']}; {first['settings']['rounds']} rounds a run\n"
        )
        for run in runs:
            print(f"roof: {run['roof']['gemm'] / 1e9:.3g} GFLOP/s, {run['roof']['copy'] / 1e9:.3g} GB/s")
        print(f"\n{table(runs)}\n", flush=True)


if __name__ == "__main__":
    main()
