"""What a CUDA template gives: what a block of threads does for a stage, and the kernels that are made of that.

A *part* computes a stage, or a few at once.  Its text says what one block does; the number of the block is ``block``,
counted from 0 for each part, and shared memory, where it needs any, is ``memory``.  A kernel of one part runs it in all
of its blocks.  A kernel of several parts hands its blocks out, a range to each part, and calls a function for each; the
shared memory of all parts is one union, since a block does no more than one of them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from codegen.plan import PlanError, Stage
from codegen.templates.cuda.declarations import words_of
from codegen.templates.cuda.text import grouped

LINE, ONE_LINE = 112, 56  # characters of a signature on a line of its own, and behind the words before it
BLOCK = 256  # threads of a block where nothing else decides


class Pointer(NamedTuple):
    """An array that is passed: the C type of its elements, the tensor, and whether it is written."""

    kind: str
    name: str
    written: bool = False

    @property
    def text(self) -> str:
        """As a parameter."""
        return f"{'' if self.written else 'const '}{self.kind}* __restrict__ {self.name}"


@dataclass(frozen=True)
class Part:
    """What a block of threads does for a stage.

    Attributes:
        name: of the kernel that does this alone.
        stage: the stage that it computes, the last of them if it computes several.
        said: what it computes, in lines of a comment.
        pointers: the arrays that are passed; then come ``scalars``, the batch size ``N``, and ``numbers``.
        body: what a block does, in lines of C.
        blocks: how many blocks, as Python in ``N``; where a sum is split, how many for each share.
        threads: of a block.
        scalars, numbers: further parameters: declarations, and names of integers.
        memory: the C type of its shared memory, if it has any.
        terms: of the sum that is split into shares, as Python in ``N``; then the last array is that of the shares, and
            ``numbers`` are the length of a share and the number of shares.
        at_once: how many terms of a share are fetched together.
        ahead: how many shares are, when they are added up.
        results: how many numbers each share gives.
        costs: by the number of threads, what a model says of a block with so many; empty where any number will do.
        aligned: by tensor, the bytes that the address of its array has to be a multiple of, where they are more than
            those of an element: several are read in one access.
    """

    name: str
    stage: str
    said: tuple[str, ...]
    pointers: tuple[Pointer, ...]
    body: tuple[str, ...]
    blocks: str
    threads: int = BLOCK
    scalars: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    memory: str = ""
    terms: str = ""
    at_once: int = 1
    ahead: int = 1
    results: str = ""
    costs: Mapping[int, float] = field(default_factory=dict, compare=False)
    aligned: Mapping[str, int] = field(default_factory=dict, compare=False)

    @property
    def reads(self) -> tuple[str, ...]:
        """The tensors whose arrays are read, and not written."""
        return tuple(p.name for p in self.pointers if not p.written)

    @property
    def writes(self) -> tuple[str, ...]:
        """The tensors whose arrays are written."""
        return tuple(p.name for p in self.pointers if p.written)

    @property
    def adds(self) -> bool:
        """Whether it adds up the shares of another part, whose number is passed."""
        return self.numbers == ("splits",)

    @property
    def is_fixed(self) -> bool:
        """Whether it takes as many blocks for any batch."""
        return self.blocks.isdigit() and not self.terms

    @property
    def function(self) -> str:
        """What the function of a block is called, where kernels call one."""
        return f"{self.name}_block"


@dataclass(frozen=True)
class Kernel:
    """A kernel: its text, its parts, each with a range of its blocks, and the texts of the functions that it calls."""

    name: str
    text: str
    parts: tuple[Part, ...] = ()
    functions: tuple[str, ...] = ()

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.parts[0].threads

    @property
    def pointers(self) -> tuple[Pointer, ...]:
        """The arrays that are passed, those first that are only read."""
        every = dict.fromkeys(p for part in self.parts for p in part.pointers)
        return tuple(sorted(every, key=lambda p: p.written))

    @property
    def arrays(self) -> tuple[str, ...]:
        """The tensors whose arrays are passed, in order; then come scalars, the batch size ``N``, and numbers."""
        return tuple(p.name for p in self.pointers)

    @property
    def scalars(self) -> tuple[str, ...]:
        """What is passed after the arrays."""
        return tuple(dict.fromkeys(text for part in self.parts for text in part.scalars))

    @property
    def counted(self) -> bool:
        """Whether the numbers of blocks of all parts but the last are passed, after everything else."""
        return len(self.parts) > 1 and not all(part.is_fixed for part in self.parts)


def whole(part: Part) -> Kernel:
    """The kernel that does one part."""
    lines = _memory([part])
    if "block" in words_of(part.body):
        lines.append("const INDEX block = blockIdx.x;")
    return _kernel(part.name, [part], part.said, [*lines, *part.body], ())


def side_by_side(name: str, parts: Sequence[Part], said: Iterable[str]) -> Kernel:
    """The kernel that calls the functions of these parts, of which each has a range of its blocks.

    Raises PlanError where they differ in the number of threads of a block.
    """
    if len({part.threads for part in parts}) > 1:
        told = ", ".join(f"{part.stage} {part.threads}" for part in parts)
        raise PlanError(f"{name}: the blocks of a kernel are of one size; threads of its parts: {told}")
    if len(parts) == 1:
        lines = [*_memory(parts), *_call(parts[0], "(INDEX)blockIdx.x", "memory", "")]
        return _kernel(name, parts, said, lines, (function(parts[0]),))
    fixed = all(part.is_fixed for part in parts)
    lines = [*_memory(parts), "INDEX block = blockIdx.x;"]
    for part in parts[:-1]:
        count = part.blocks if fixed else f"blocks_{part.stage}"
        lines += [
            f"if (block < {count}) {{",
            *(f"  {line}" for line in _call(part, "block", f"memory.{part.stage}", f"_{part.stage}")),
            "  return;",
            "}",
            f"block -= {count};",
        ]
    last = parts[-1]
    lines += _call(last, "block", f"memory.{last.stage}", f"_{last.stage}")
    return _kernel(name, parts, said, lines, tuple(function(part) for part in parts))


def _kernel(
    name: str, parts: Sequence[Part], said: Iterable[str], body: Iterable[str], functions: tuple[str, ...]
) -> Kernel:
    made = Kernel(name, "", tuple(parts), functions)
    numbers = [f"{number}_{part.stage}" if len(parts) > 1 else number for part in parts for number in part.numbers]
    numbers += [f"blocks_{part.stage}" for part in parts[:-1]] if made.counted else []
    given = [*(p.text for p in made.pointers), *made.scalars, *(f"INDEX {n}" for n in ("N", *numbers))]
    head = f'extern "C" __global__ void __launch_bounds__({made.threads}, 1) {signature(name, given)}'
    return Kernel(name, _function(said, head, body), made.parts, functions)


def function(part: Part) -> str:
    """The text of the function that does a part."""
    numbers = [f"INDEX {name}" for name in ("N", *part.numbers, "block")]
    given = [*(p.text for p in part.pointers), *part.scalars, *numbers]
    given += [f"{part.memory}& memory"] if part.memory else []
    return _function(part.said, f"__device__ __forceinline__ void {signature(part.function, given)}", part.body)


def _function(said: Iterable[str], head: str, body: Iterable[str]) -> str:
    return "\n".join([*(f"// {line}" for line in said), head, "{", *(f"  {line}" for line in body), "}"])


def _memory(parts: Sequence[Part]) -> list[str]:
    """The declaration of shared memory, if any part needs it."""
    needed = [part for part in parts if part.memory]
    if not needed:
        return []
    if len(parts) == 1:
        return [f"__shared__ {parts[0].memory} memory;"]
    return ["__shared__ union {", *(f"  {part.memory} {part.stage};" for part in needed), "} memory;"]


def aligned(kernels: Iterable[Kernel]) -> dict[str, int]:
    """By tensor, the bytes that the address of its array has to be a multiple of for these kernels."""
    found: dict[str, int] = {}
    for name, size in (pair for kernel in kernels for part in kernel.parts for pair in part.aligned.items()):
        found[name] = max(size, found.get(name, 0))
    return found


def _call(part: Part, block: str, memory: str, suffix: str) -> list[str]:
    """The call of a part's function."""
    given = [*(p.name for p in part.pointers), *(text.split()[-1] for text in part.scalars), "N"]
    given += [*(f"{number}{suffix}" for number in part.numbers), block, *([memory] if part.memory else [])]
    text = f"{part.function}({', '.join(given)});"
    return [text] if len(text) <= LINE else [f"{part.function}(", *(f"    {line}" for line in listed(given, ");"))]


@cache
def _templates() -> Environment:
    return Environment(
        loader=PackageLoader("codegen", "templates/cuda"), undefined=StrictUndefined, autoescape=False,
        keep_trailing_newline=False,
    )  # fmt: skip


def template(name: str) -> Template:
    """The text of a kernel or a module with gaps: ``product.cu``."""
    return _templates().get_template(f"{name}.j2")


def pointers(
    read: Iterable[str], *written: str, partial: bool = False, labels: Collection[str] = ()
) -> tuple[Pointer, ...]:
    """What is read and what is written, the latter in the type of sums if ``partial``."""
    return (
        *(Pointer("long long" if name in labels else "REAL", name) for name in read),
        *(Pointer("ACC" if partial else "REAL", name, written=True) for name in written),
    )


def signature(name: str, given: Sequence[str]) -> str:
    """The name and the parameters of a function, on as many lines as that takes."""
    text = f"{name}({', '.join(given)})"
    return text if len(text) < ONE_LINE else "\n    ".join([f"{name}(", *listed(given, ")")])


def listed(items: Sequence[str], end: str, line: int = LINE) -> list[str]:
    """Items with commas between them, on lines of at most so many characters; ``end`` follows the last.

    >>> listed(["a", "b", "c"], ")", 5)
    ['a, b,', 'c)']
    """
    lines = [""]
    for item in [*(f"{item}," for item in items[:-1]), f"{items[-1]}{end}"]:
        if lines[-1] and len(lines[-1]) + len(item) >= line:
            lines.append("")
        lines[-1] += f" {item}" if lines[-1] else item
    return lines


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
