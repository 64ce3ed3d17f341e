"""A sum over the batch in two kernels: shares of it by blocks side by side, then the shares added up.

Such a sum has few results and a great many terms, so one block a result would leave most of a GPU idle.  The host cuts
the terms into ``splits`` shares of ``share`` terms each; partial sums are added in the order of the shares, so the same
batch gives the same bits.  No number is added by an atomic operation.

The second kernel may add up the shares of many stages at once, a range of its blocks each, and may go on from there: a
step of SGD takes what it added up off the parameters and stores no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codegen.contraction import TOTAL
from codegen.plan import BATCH, Plan, PlanError, Stage
from codegen.templates.cuda.kernels import BLOCK, Kernel, signature
from codegen.templates.cuda.locals import arrays_of, reads
from codegen.templates.cuda.text import Scope, cells, flat_name, gathered, grouped, unflattened, used
from codegen.templates.cuda.value import Printer
from derive.indices import var
from derive.terms import Expr


@dataclass(frozen=True)
class Shares:
    """The shares of a stage, and of its column if there is one, as a kernel leaves them.

    Numbers of a share lie in the order of ``outer`` and ``inner``; with a ``column``, one of that stage, which has the
    axes ``outer`` alone, comes after those along ``inner``.
    """

    kernel: Kernel
    stage: Stage
    epilogue: Expr
    scope: Scope
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    column: Stage | None = None

    @property
    def array(self) -> str:
        """The array they lie in."""
        return self.kernel.arrays[-1]

    @property
    def count(self) -> str:
        """How many numbers a share has."""
        return self.kernel.results

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that they are shares of."""
        return (self.stage,) if self.column is None else (self.stage, self.column)


def is_split(scope: Scope, depth: Sequence[int]) -> bool:
    """Whether the variables of a sum run over the batch."""
    return any(BATCH.symbols & e.symbols for level in depth for e in scope.intervals[level])


def added_up(
    plan: Plan, name: str, every: Sequence[Shares], formula: Sequence[str], *, into: Mapping[str, str] | None = None
) -> Kernel:
    """The second kernel: a thread a number; then what comes after the sum.

    ``into`` names, for stages whose result is not stored, the array that ``rate`` times the result is taken off.
    """
    taken = into or {}
    targets = [taken.get(s.name, s.name) for shares in every for s in shares.stages]
    after = tuple(dict.fromkeys(name for shares in every for name in _read_after(plan, shares)))
    splits = ["splits"] if len(every) == 1 else [f"splits_{shares.stage.name}" for shares in every]
    pointers = [
        *(f"const ACC* __restrict__ {shares.array}" for shares in every),
        *(f"const REAL* __restrict__ {name}" for name in after),
        *(f"REAL* __restrict__ {name}" for name in targets),
        *(["REAL rate"] if taken else []),
        *(f"INDEX {number}" for number in ("N", *splits)),
    ]
    blocks = [_blocks(shares) for shares in every]
    lines = [
        *(f"// {line}" for line in formula),
        f'extern "C" __global__ void __launch_bounds__({BLOCK}, 1) {signature(name, ", ".join(pointers))}',
        "{",
    ]
    if len(every) == 1:
        lines += [
            f"  {line}" for line in [*_sum(every[0], splits[0], "(INDEX)blockIdx.x"), *_stored(plan, every[0], taken)]
        ]
    else:
        lines.append("  INDEX block = blockIdx.x;")
        for shares, number, count in zip(every, splits, blocks, strict=True):
            body = [*_sum(shares, number, "block"), *_stored(plan, shares, taken)]
            lines += [f"  if (block < {count}) {{", *(f"    {line}" for line in body), "    return;", "  }"]
            lines += [f"  block -= {count};"]
        lines.pop()
    arrays = (*(shares.array for shares in every), *after, *targets)
    return Kernel(name, "\n".join([*lines, "}"]), arrays, str(sum(blocks)), adds=True)


def _blocks(shares: Shares) -> int:
    if not shares.count.isdigit():
        raise PlanError(f"{shares.stage.name}: {shares.count} results; the number of results of a sum is a number")
    return -(-int(shares.count) // BLOCK)


def _read_after(plan: Plan, shares: Shares) -> tuple[str, ...]:
    rest = {t.name for t in shares.epilogue.tensors} - {TOTAL.name}
    return tuple(t for t in reads(plan, shares.stage) if t in rest)


def _sum(shares: Shares, splits: str, block: str) -> list[str]:
    """The sum of a thread's number over all shares."""
    if shares.count == "1":
        return [
            "if (threadIdx.x != 0) return;",
            f"const ACC total = sum_of_shares({shares.array}, {splits}, 1, 0);",
        ]
    cell = _cell(shares)
    return [
        f"const INDEX {cell} = {block} * {BLOCK} + threadIdx.x;",
        f"if ({cell} >= {shares.count}) return;",
        f"const ACC total = sum_of_shares({shares.array}, {splits}, {shares.count}, {cell});",
    ]


def _cell(shares: Shares) -> str:
    """What the place of a number in a share is called."""
    return "cell" if shares.column is not None else flat_name(shares.scope, (*shares.outer, *shares.inner), "cell")


def _stored(plan: Plan, shares: Shares, taken: Mapping[str, str]) -> list[str]:
    """Where a thread's number goes."""
    scope, stage = shares.scope, shares.stage
    printer = Printer(stage, arrays_of(plan), known={TOTAL.name: "total"}, labels=plan.labels)
    value = printer.expr(shares.epilogue, scope)
    place = scope.offset(stage.tensor, [var(v) for v in range(stage.tensor.rank)])
    stored = [*printer.lines, _store(stage, place, value, taken)]
    if shares.column is None:
        return [*gathered(used(unflattened(scope, (*shares.outer, *shares.inner), _cell(shares)), stored)), *stored]
    columns = int(scope.text(cells(scope.intervals[v] for v in shares.inner)))
    beside = scope.offset(shares.column.tensor, [var(v) for v in shares.outer])
    last = [_store(shares.column, beside, "total", taken)]
    row, column = flat_name(scope, shares.outer, "row"), flat_name(scope, shares.inner, "column")
    return [
        f"const int {row} = cell / {columns + 1}, {column} = cell % {columns + 1};",
        *gathered(used(unflattened(scope, shares.outer, row), [*stored, *last])),
        f"if ({column} < {columns}) {{",
        *(f"  {line}" for line in [*gathered(used(unflattened(scope, shares.inner, column), stored)), *stored]),
        "} else {",
        *(f"  {line}" for line in last),
        "}",
    ]


def _store(stage: Stage, place: str, value: str, taken: Mapping[str, str]) -> str:
    if stage.name not in taken:
        return f"{stage.name}[{place}] = REAL({value});"
    array = taken[stage.name]
    return f"{array}[{place}] = REAL(ACC({array}[{place}]) - ACC(rate) * {grouped(value)});"


def alone(plan: Plan, shares: Shares) -> Kernel:
    """The second kernel of one stage by itself."""
    return added_up(plan, f"add_{shares.stage.name}", [shares], [f"The shares of {shares.stage.name}, added up."])
