"""What a CUDA template gives: the text of a kernel, and how the host launches it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from codegen.plan import Stage
from codegen.templates.cuda.text import grouped

LINE, ONE_LINE = 112, 56  # characters of a signature on a line of its own, and behind the words before it
BLOCK = 256  # threads of a block where nothing else decides


@dataclass(frozen=True)
class Kernel:
    """One kernel and its launch.

    Attributes:
        name: of the function in the text.
        text: CUDA C.
        arrays: the tensors whose arrays are passed, in order, after which comes the batch size ``N``.
        blocks: how many blocks, as Python in ``N``; where a sum is split, how many for each share.
        threads: of a block.
        terms: of the sum that is split into shares, as Python in ``N``; then the last array is that of the shares, and
            the length of a share and the number of shares are passed after ``N``.
        at_once: how many terms of a share are fetched together.
        results: how many numbers each share gives.
        adds: whether it adds up the shares of the kernel before it, whose number is passed after ``N``.
    """

    name: str
    text: str
    arrays: tuple[str, ...]
    blocks: str
    threads: int = BLOCK
    terms: str = ""
    at_once: int = 1
    results: str = ""
    adds: bool = False


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("codegen", "templates/cuda"), undefined=StrictUndefined, autoescape=False,
        keep_trailing_newline=False,
    )  # fmt: skip


def template(name: str) -> Template:
    """The text of a kernel or a module with gaps: ``product.cu``."""
    return _templates().get_template(f"{name}.j2")


def parameters(
    read: tuple[str, ...], *written: str, numbers: Sequence[str] = (), partial: bool = False,
    labels: Collection[str] = (),
) -> str:  # fmt: skip
    """The parameters of a kernel: what it reads, what it writes, and integers."""
    pointers = [f"const {'long long' if name in labels else 'REAL'}* __restrict__ {name}" for name in read]
    pointers += [f"{'ACC' if partial else 'REAL'}* __restrict__ {name}" for name in written]
    return ", ".join([*pointers, "INDEX N", *(f"INDEX {name}" for name in numbers)])


def signature(name: str, given: str) -> str:
    """A kernel's name and parameters, on as many lines as that takes."""
    if len(name) + len(given) < ONE_LINE:
        return f"{name}({given})"
    lines = [""]
    for part in given.split(", "):
        if len(lines[-1]) + len(part) > LINE:
            lines.append("")
        lines[-1] += f"{part}, "
    return f"{name}(\n    " + "\n    ".join(line.rstrip() for line in lines)[:-1] + ")"


def kernel_name(stage: Stage) -> str:
    """What the kernel of a stage is called."""
    return f"compute_{stage.name}"


def ceil_of(count: str, by: int) -> str:
    """Python for the quotient rounded up.

    >>> ceil_of("100 * N", 256), ceil_of("600", 256)
    ('-(-(100 * N) // 256)', '3')
    """
    return str(-(-int(count) // by)) if count.isdigit() else f"-(-{grouped(count)} // {by})"


def times(*counts: str) -> str:
    """Python for a product, ones left out.

    >>> times("1", "-(-N // 256)", "3")
    '-(-N // 256) * 3'
    """
    return " * ".join(grouped(c) if " + " in c else c for c in counts if c != "1") or "1"
