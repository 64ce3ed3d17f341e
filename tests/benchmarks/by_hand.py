"""The emitted training step of LeNet beside one written by hand: `python -m tests.benchmarks.by_hand`.

    python -m tests.benchmarks.by_hand [--batch 256,128] [--rounds 60] [--block 64]

Both start from the same parameters and take two steps; their parameters and the reference's, which computes in float64,
have to agree within rounding, or nothing is timed.  Then they are timed in turn, BLAS at one thread.  The ratio is that
of the medians, emitted over by hand: 1.1 says that the emitted step takes 10 % longer.  The exit status is 1 when it
takes more than LIMIT times as long at some batch size.
"""

from __future__ import annotations

import argparse
import sys
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
TOLERANCE = 1e-6
"""How far a parameter may be from that of float64 after two steps; parameters and steps are below 1 in size."""


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


def after_two_steps(batch: int, *, block: int = BLOCK) -> tuple[Parameters, Parameters]:
    """The parameters by hand and the reference's."""
    images, labels, parameters = drawn(batch)
    truth = {name: value.astype(np.float64) for name, value in parameters.items()}
    step = Step(batch, block=block)
    for _ in range(2):
        step(images, labels, parameters, LR)
        reference.sgd_step(images, labels, truth, LR)
    return parameters, truth


def check(module: ModuleType, batch: int, block: int) -> str:
    """In words how far both are from the reference after two steps.

    Raises:
        SystemExit: one of them is too far.
    """
    by_hand, truth = after_two_steps(batch, block=block)
    images, labels, parameters = drawn(batch)
    for _ in range(2):
        module.sgd_step(images, labels, parameters, LR)
    found = {"emitted": distance(parameters, truth), "by hand": distance(by_hand, truth)}
    told = ", ".join(f"{name} {value:.1e}" for name, value in found.items())
    if not max(found.values()) <= TOLERANCE:
        raise SystemExit(f"batch {batch}: parameters after two steps differ from float64's: {told}; limit {TOLERANCE}")
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
        print("| batch | emitted | by hand | emitted / by hand | rounds dropped | off float64 after two steps |")
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
