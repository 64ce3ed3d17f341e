"""A LeNet training step: the emitted NumPy module beside PyTorch eager, interleaved in one process, one thread each.

    python -m tests.benchmarks.lenet_step [--rounds 41] [--batches 128,256]

Each line gives the median and the least time in milliseconds of a whole step, from images (batch, 1, 28, 28) to new
parameters, and the ratio of the median to that of PyTorch's better layout (below 1: faster than PyTorch).  It also says
how far the parameters are apart after five float64 steps.  Install the extras ``oracle`` and ``threads`` first.
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import codegen
import derive

Step = Callable[[], object]


def torch_net(dtype: torch.dtype) -> torch.nn.Sequential:
    """d2l's LeNet in PyTorch."""
    nn = torch.nn
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.Sigmoid(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10),
    ).to(dtype)  # fmt: skip


def torch_step(x: np.ndarray, y: np.ndarray, layout: torch.memory_format, lr: float) -> tuple[Step, torch.nn.Module]:
    """One eager step in a layout; the input is brought into it within the step."""
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    net = torch_net(images.dtype).to(memory_format=layout)
    optimiser = torch.optim.SGD(net.parameters(), lr=lr)
    loss = torch.nn.CrossEntropyLoss()

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(net(images.contiguous(memory_format=layout)), labels).backward()
        optimiser.step()

    return step, net


def emitted():  # a module
    """The emitted module of LeNet."""
    return codegen.load(codegen.emit(derive.lenet(), input_shape=(1, 1, 28, 28), dtype="float32").source)


def medians(steps: dict[str, Step], rounds: int) -> dict[str, tuple[float, float]]:
    """Median and least time of each step in milliseconds, taken in turn so that drift hits all alike."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for name in list(steps) * 3:
        steps[name]()
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: (statistics.median(t), min(t)) for name, t in times.items()}


def compare(batch: int, rounds: int, seed: int = 0) -> None:
    """Print the table for one batch size."""
    rng = np.random.default_rng(seed)
    x = rng.random((batch, 1, 28, 28), dtype=np.float32)
    y = rng.integers(0, 10, batch)
    module = emitted()
    first, net = torch_step(x, y, torch.contiguous_format, 0.1)
    params = {name: p.detach().numpy().copy() for name, p in net.state_dict().items()}
    work = module.Workspace(batch, np.float32)
    steps: dict[str, Step] = {
        "PyTorch NCHW": first,
        "PyTorch channels_last": torch_step(x, y, torch.channels_last, 0.1)[0],
        "certiconv NumPy": lambda: module.sgd_step(x, y, params, 0.1, work),
    }
    found = medians(steps, rounds)
    best = min(found["PyTorch NCHW"][0], found["PyTorch channels_last"][0])
    for name, (median, least) in found.items():
        print(f"batch {batch:4d}  {name:22s} median {median:8.3f} ms  least {least:8.3f} ms  ratio {median / best:.3f}")


def distance(batch: int = 32, steps: int = 5) -> float:
    """The largest difference of parameters after some float64 steps, relative to the largest parameter of each."""
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((batch, 1, 28, 28)), rng.integers(0, 10, batch)
    step, net = torch_step(x, y, torch.contiguous_format, 0.5)
    params = {name: p.detach().numpy().copy() for name, p in net.state_dict().items()}
    module = emitted()
    for _ in range(steps):
        step()
        module.sgd_step(x, y, params, 0.5)
    after = {name: p.detach().numpy() for name, p in net.state_dict().items()}
    return max(float(abs(params[name] - p).max() / abs(p).max()) for name, p in after.items())


def main() -> None:
    """Print versions, tables and the distance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--batches", default="128,256")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"NumPy {np.__version__}, PyTorch {torch.__version__}, {platform.machine()}, one thread each")
    for batch in given.batches.split(","):
        compare(int(batch), given.rounds)
    print(f"parameters after 5 float64 steps: relative distance {distance():.1e}")


if __name__ == "__main__":
    main()
