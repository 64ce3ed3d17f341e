"""What planning and emission cost, beside the limits set for them: `python -m tests.benchmarks.planning`.

    python -m tests.benchmarks.planning [--batch 8] [--layers 6]

Three questions, each asked of interpreters that have just started, so that nothing is known from before:

- How many seconds of CPU do the 53 convolutions of a ResNet-50 take, with the imports?  At most 30.
- How do the seconds grow with the number of layers?  A stack of 3x3 convolutions with 64 to 128 channels, no two of the
  same shape, is emitted with the given number of layers, twice and four times as many; a layer before them, which
  loads what is needed once, is not counted.  The exponent is the slope in logarithms: at most 1.1, where 1 is linear.
- How many milliseconds does a module take whose text is in the cache on disk?  At most 50, the first one of a process
  too, imports aside; loaded as a module and by `runtime.compile`.

The exit status is 1 when a limit is not kept.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import codegen
import derive
import runtime
from derive.layers import Conv
from runtime.compile import load_module

ROOT = Path(__file__).resolve().parents[2]
SECONDS, EXPONENT, MILLISECONDS = 30.0, 1.1, 50.0
STAGES = ((3, 64), (4, 128), (6, 256), (3, 512))
"""The blocks of each stage of a ResNet-50, and the channels inside them (He et al., 2016, table 1)."""
EXPANSION = 4
WIDEST = 128
REPEATS = 5

Shaped = tuple[Conv, tuple[int, ...]]


def convolution(channels: int, out: int, kernel: int, stride: int, side: int, batch: int) -> Shaped:
    """A convolution without bias that keeps the size but for its stride, and the shape of what it takes."""
    layer = derive.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, bias=False)
    return layer, (batch, channels, side, side)


def resnet50(batch: int) -> list[Shaped]:
    """The convolutions for images of 224x224, in order; the 3x3 layers stride, as torchvision has them."""
    found = [convolution(3, 64, 7, 2, 224, batch)]
    channels, side = 64, 56  # after the max pooling
    for stage, (blocks, width) in enumerate(STAGES):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            found.append(convolution(channels, width, 1, 1, side, batch))
            found.append(convolution(width, width, 3, stride, side, batch))
            found.append(convolution(width, EXPANSION * width, 1, 1, side // stride, batch))
            if not block:
                found.append(convolution(channels, EXPANSION * width, 1, stride, side, batch))
            channels, side = EXPANSION * width, side // stride
    return found


def stack(layers: int, batch: int) -> list[Shaped]:
    """That many 3x3 convolutions and one before them, all different; channels cover the same range for any number."""
    widths = [WIDEST * (layers + k) // (2 * layers) for k in range(layers)]
    return [convolution(WIDEST, WIDEST, 3, 1, 28, batch)] + [convolution(c, c, 3, 1, 28, batch) for c in widths]


def emit_all(shaped: Sequence[Shaped]) -> float:
    """The seconds of CPU to plan and emit layers for NumPy."""
    start = time.process_time()
    for layer, shape in shaped:
        codegen.emit(layer, input_shape=shape)
    return time.process_time() - start


def resnet_seconds(batch: int) -> float:
    """The seconds of CPU that this interpreter has used when all of a ResNet-50 is emitted."""
    emit_all(resnet50(batch))
    return time.process_time()


def stack_seconds(layers: int, batch: int) -> float:
    """The seconds of CPU of a stack but for its first layer."""
    first, *others = stack(layers, batch)
    emit_all([first])
    return emit_all(others)


def cached_seconds(folder: str, batch: int) -> float:
    """The seconds to load the module of a layer, its text in that folder or not."""
    layer, shape = resnet50(batch)[2]
    start = time.perf_counter()
    load_module(layer, backend="numpy", input_shape=shape, cache_dir=folder)
    return time.perf_counter() - start


def compiled_seconds(folder: str, batch: int) -> float:
    """The same by `runtime.compile`."""
    layer, shape = resnet50(batch)[2]
    start = time.perf_counter()
    runtime.compile(layer, backend="numpy", input_shape=shape, cache_dir=folder)
    return time.perf_counter() - start


def fresh(call: str) -> float:
    """What a function of this file returns in an interpreter that has just started, and may keep compiled imports."""
    program = f"from tests.benchmarks import planning; print(planning.{call})"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout)


def exponent(counts: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of the line through the logarithms, by least squares."""
    return statistics.linear_regression([math.log(n) for n in counts], [math.log(s) for s in seconds]).slope


def second_emission(batch: int) -> dict[str, float]:
    """Milliseconds: with an empty cache, and the median of fresh interpreters that find the text."""
    with tempfile.TemporaryDirectory() as folder:
        found = {"not in the cache": fresh(f"cached_seconds({folder!r}, {batch})")}
        for name, call in (("runtime.compile.load_module", "cached_seconds"), ("runtime.compile", "compiled_seconds")):
            found[name] = statistics.median(fresh(f"{call}({folder!r}, {batch})") for _ in range(REPEATS))
    return {name: 1e3 * seconds for name, seconds in found.items()}


def main() -> int:
    """Print what was found; 0 when every limit is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--layers", type=int, default=6, help="in the smallest stack (default %(default)s)")
    given = parser.parse_args()
    for name, value in vars(given).items():
        if value < 1:
            parser.error(f"--{name}={value}: at least 1 is needed")
    if 4 * given.layers > WIDEST // 2:
        parser.error(f"--layers={given.layers}: at most {WIDEST // 8} are different four times over")
    layers = resnet50(given.batch)
    fresh(f"resnet_seconds({given.batch})")  # so that what is imported is compiled
    seconds = fresh(f"resnet_seconds({given.batch})")
    shapes = len(set(layers))
    told = f"{len(layers)} convolutions, {shapes} of them different"
    print(f"ResNet-50: {told}: {seconds:.1f} s of CPU (at most {SECONDS:g})")
    counts = [given.layers * times for times in (1, 2, 4)]
    stacks = [fresh(f"stack_seconds({count}, {given.batch})") for count in counts]
    slope = exponent(counts, stacks)
    told = ", ".join(f"{count} layers {spent:.2f} s" for count, spent in zip(counts, stacks, strict=True))
    print(f"a stack of 3x3 layers: {told}: like the power {slope:.2f} of their number (at most {EXPONENT})")
    emission = second_emission(given.batch)
    told = ", ".join(f"{name} {spent:.1f} ms" for name, spent in emission.items())
    print(f"a second emission: {told} (at most {MILLISECONDS:g} from the cache)")
    cached = max(spent for name, spent in emission.items() if name != "not in the cache")
    return 0 if seconds <= SECONDS and slope <= EXPONENT and cached <= MILLISECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
