"""The emitted training step of LeNet beside one written by hand: `python -m tests.benchmarks.by_hand`.

    python -m tests.benchmarks.by_hand [--batch 256,128] [--rounds 60] [--block 64]

Both start from the same parameters and take two steps; their parameters have to agree within rounding, and for a few
images with those of the reference, which computes in float64 and is slow, or nothing is timed.  Then they are timed in
turn, BLAS at one thread.  The ratio is that of the medians, emitted over by hand: 1.1 says that the emitted step takes
10 % longer.  The exit status is 1 when it takes more than LIMIT times as long at some batch size.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np

import codegen
import derive
from runtime import reference, roofline
from runtime.compile import load_text
from runtime.threads import blas_threads
from runtime.timing import Samples, interleave
from tests.benchmarks.lenet_by_hand import BLOCK, Array, Parameters, Step

LIMIT = 1.1
LR = 0.5
FEW = 6
TOLERANCE = 1e-6
"""How far parameters may be apart after two steps; they and what changes them are below 1 in size."""


def emitted(batch: int) -> ModuleType:
    """The module that is emitted for that batch size."""
    return load_text(codegen.emit(derive.lenet(), input_shape=(batch, 1, 28, 28)).source)


def drawn(batch: int, seed: int = 0) -> tuple[Array, Array, Parameters]:
    """Images, labels and parameters."""
    random = np.random.default_rng(seed)
    parameters = {
        f"{name}.{kind}": random.uniform(-bound, bound, shape).astype(np.float32)
        for name, weight, bound in SHAPES
        for kind, shape in (("weight", weight), ("bias", weight[:1]))
    }
    images = random.standard_normal((batch, 1, 28, 28)).astype(np.float32)
    return images, random.integers(0, 10, batch), parameters


SHAPES: tuple[tuple[str, tuple[int, ...], float], ...] = (
    ("0", (6, 1, 5, 5), 1 / 5),
    ("3", (16, 6, 5, 5), 150**-0.5),
    ("7", (120, 400), 1 / 20),
    ("9", (84, 120), 120**-0.5),
    ("11", (10, 84), 84**-0.5),
)
"""The layers with parameters, the shapes of their weights, and how far from 0 they are drawn."""


def distance(parameters: Parameters, truth: Parameters) -> float:
    """The greatest difference of any parameter."""
    return max(float(np.abs(parameters[name] - truth[name]).max()) for name in truth)


def after_two_steps(step: Callable[[Array, Array, Parameters, float], object], batch: int) -> Parameters:
    """The drawn parameters after two steps, for a step that changes float32 in place."""
    images, labels, parameters = drawn(batch)
    for _ in range(2):
        step(images, labels, parameters, LR)
    return parameters


def truth_after_two_steps(batch: int) -> Parameters:
    """The reference's, in float64."""
    images, labels, parameters = drawn(batch)
    truth = {name: value.astype(np.float64) for name, value in parameters.items()}
    for _ in range(2):
        reference.sgd_step(images, labels, truth, LR)
    return truth


def check(module: ModuleType, batch: int, block: int) -> str:
    """In words how far the parameters are from each other after two steps, and from the reference's for a few images.

    Raises:
        SystemExit: they are too far.
    """
    truth = truth_after_two_steps(FEW)
    found = {
        "emitted to float64": distance(after_two_steps(module.sgd_step, FEW), truth),
        "by hand to float64": distance(after_two_steps(Step(FEW, block=block), FEW), truth),
        "to each other": distance(
            after_two_steps(Step(batch, block=block), batch), after_two_steps(module.sgd_step, batch)
        ),
    }
    told = ", ".join(f"{name} {value:.0e}" for name, value in found.items())
    if not max(found.values()) <= TOLERANCE:
        raise SystemExit(f"batch {batch}: parameters differ after two steps: {told}; at most {TOLERANCE} is rounding")
    return told


def timed(module: ModuleType, batch: int, block: int, rounds: int) -> Samples:
    """The two steps in turn."""
    images, labels, parameters = drawn(batch)
    others = {name: value.copy() for name, value in parameters.items()}
    step, work = Step(batch, block=block), module.Workspace(batch, np.float32)
    calls = {
        "emitted": lambda: module.sgd_step(images, labels, parameters, LR, work),
        "by hand": lambda: step(images, labels, others, LR),
    }
    return interleave(calls, rounds=rounds, probe=roofline.probe())


def main() -> int:
    """Print a line for each batch size; 0 when the limit is kept at all of them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", default="256,128")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--block", type=int, default=BLOCK, help="images at a time by hand (default %(default)s)")
    given = parser.parse_args()
    batches = [int(size) for size in given.batch.split(",")]
    for name, values in (("batch", batches), ("rounds", [given.rounds]), ("block", [given.block])):
        if min(values) < 1:
            parser.error(f"--{name}={min(values)}: at least 1 is needed")
    worst = 0.0
    with blas_threads(1) as how:
        print(f"LeNet training step, float32, {how}; median of {given.rounds} rounds\n")
        print("| batch | emitted | by hand | emitted / by hand | rounds dropped | parameters after two steps |")
        print("|---|---|---|---|---|---|")
        for batch in batches:
            module = emitted(batch)
            told = check(module, batch, given.block)
            found = timed(module, batch, given.block, given.rounds)
            ratio = found.ratio("emitted", "by hand")
            worst = max(worst, ratio.median)
            times = " | ".join(f"{found.of(name).median * 1e3:.2f} ms" for name in ("emitted", "by hand"))
            between = f"{ratio.median:.3f} ({ratio.lower:.3f} to {ratio.upper:.3f})"
            print(f"| {batch} | {times} | {between} | {found.dropped} | {told} |", flush=True)
    print(f"\nthe greatest ratio is {worst:.3f} (at most {LIMIT})")
    return 0 if worst <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
