"""What the device can do at most: a copy, reads and writes both counted, and a matrix product in each format.

Products are cuBLAS's, through PyTorch where it is there, else through CuPy, which has them in float32 and float16.
"""

from __future__ import annotations

from typing import Any

from runtime.gpu_timing import Call, Clock
from tests.benchmarks.gpu.cases import NUMBERS, Case, Size
from tests.benchmarks.gpu.contestants import allow_tf32

COPY = "copy"
Rates = dict[str, float]  # bytes a second of the copy, operations a second of the products


def measure(cupy: Any, clock: Clock, size: Size, torch: Any, device: str) -> Rates:
    """The rates, by the medians."""
    samples = clock.interleave({COPY: _copy(cupy, size.copied)}, rounds=size.rounds)
    rates = {COPY: 2 * size.copied / (samples[COPY].median * 1e-3)}
    for numbers in NUMBERS:
        product = _product(cupy, size.side, numbers, torch, device)
        if product is not None:
            taken = clock.interleave({numbers: product}, rounds=size.rounds)[numbers].median * 1e-3
            rates[numbers] = 2 * size.side**3 / taken
    return rates


def _copy(cupy: Any, size: int) -> Call:
    source, target = cupy.ones(size, cupy.uint8), cupy.zeros(size, cupy.uint8)
    return lambda _: cupy.copyto(target, source)


def _product(cupy: Any, side: int, numbers: str, torch: Any, device: str) -> Call | None:
    """A call that multiplies two matrices, or None where there is none in this format."""
    if torch is not None:
        allow_tf32(torch, allow=numbers == "tf32")
        kind = torch.float32 if numbers == "tf32" else getattr(torch, numbers)
        a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
        c = torch.empty_like(a)
        return lambda _: torch.matmul(a, b, out=c)
    if numbers not in ("float32", "float16"):
        return None
    x, y = (cupy.full((side, side), value, numbers) for value in (1, 2))
    z = cupy.empty_like(x)
    return lambda _: cupy.matmul(x, y, out=z)


def bound(case: Case, rates: Rates) -> float | None:
    """The least milliseconds for a case: its bytes as fast as a copy, or its operations as fast as a product."""
    if case.numbers not in rates:
        return None
    return 1e3 * max(case.bytes / rates[COPY], case.operations / rates[case.numbers])
