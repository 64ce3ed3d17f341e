"""How long `import derive` takes against `import sympy`: `python -m tests.benchmarks.import_time`.

Each import is timed in a fresh interpreter, the two in turn so that a busy moment hits both; the medians are
compared. The exit status is 1 when `derive` takes more than LIMIT times as long as SymPy, on which it rests.
"""

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 1.4


def import_seconds(module: str) -> float:
    """The seconds that `import module` takes in an interpreter that has just started."""
    program = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> int:
    """Print the table; 0 when the limit is kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11, help="fresh interpreters for each module (default 11)")
    runs = parser.parse_args().runs
    if runs < 1:
        parser.error(f"--runs={runs}: at least 1 is needed")
    modules = ("sympy", "derive")
    for module in modules:  # compile and cache what is imported, once
        import_seconds(module)
    samples: dict[str, list[float]] = {module: [] for module in modules}
    for _ in range(runs):
        for module in modules:
            samples[module].append(import_seconds(module))
    print(f"{'import':<8} {'median':>9} {'least':>9}   of {runs} fresh interpreters")
    for module in modules:
        print(f"{module:<8} {statistics.median(samples[module]):>7.3f} s {min(samples[module]):>7.3f} s")
    ratio = statistics.median(samples["derive"]) / statistics.median(samples["sympy"])
    print(f"derive / sympy = {ratio:.2f} (at most {LIMIT})")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
