"""What the kernels of emitted CUDA text take, told by NVRTC, which needs no GPU: registers, spills, shared memory.

    python -m tests.benchmarks.registers [--arch sm_90]

Prints a table: for each layer and numbers, of each kernel the registers of a thread and the bytes of shared memory of a
block; bytes spilled to memory are told where there are any.
"""

from __future__ import annotations

import argparse

from codegen.emit import Emitted, emit
from runtime.nvrtc import ARCHITECTURES, Usage, include_folders, nvrtc
from tests.codegen.cuda_layers import LAYERS, NUMBERS

RESULTS = ("forward", "input_gradient", "weight_gradient", "bias_gradient")


def told(usage: Usage) -> str:
    """One kernel in a few words."""
    spilled = f", {usage.spilled} bytes spilled" if usage.spilled else ""
    return f"{usage.registers} ({usage.shared / 1024:.1f} KB{spilled})"


def row(emitted: Emitted, usages: dict[str, Usage]) -> list[str]:
    """For each result its kernels, in the order of their launches; without those that add up shares."""
    cells = []
    for result in RESULTS:
        stages = emitted.plans[result].by_name if result in emitted.plans else {}
        own = [k.name for k in emitted.kernels if k.parts[0].stage in stages and not k.parts[0].adds]
        cells.append(", ".join(told(usages[name]) for name in own))
    return cells


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default=ARCHITECTURES[-1])
    arch = parser.parse_args().arch
    compiler = nvrtc()
    folders = [f"-I{folder}" for folder in include_folders()]
    print(f"Registers of a thread (shared memory of a block), {arch}, NVRTC {'.'.join(map(str, compiler.version))}.\n")
    print("| layer | numbers | forward | input gradient | weight gradient | bias gradient |")
    print("|---|---|---|---|---|---|")
    for name, (layer, shape) in LAYERS.items():
        for dtype, algorithm in NUMBERS:
            emitted = emit(layer, backend="cupy", input_shape=shape, dtype=dtype, algorithm=algorithm)
            found = compiler.compile(emitted.cuda, arch=arch, options=("-DINDEX=int", *folders))
            cells = row(emitted, {usage.kernel: usage for usage in found})
            numbers = dtype if algorithm == "auto" else algorithm
            print(f"| {name} | {numbers} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
