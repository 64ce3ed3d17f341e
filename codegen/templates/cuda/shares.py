"""A sum over the batch in two kernels: shares of it by blocks side by side, then the shares added up.

Such a sum has few results and a great many terms, so one block a result would leave most of a GPU idle.  The host cuts
the terms into ``splits`` shares of ``share`` terms each; partial sums are added in an order that the sizes fix, so the
same batch gives the same bits.  No number is added by an atomic operation.  Where shares have few numbers, each is
added up by several threads, a part of the shares each (``codegen.templates.cuda.splitting``).

The second kernel may go on from there: a step of SGD takes what it added up off the parameters and stores no gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from codegen.contraction import TOTAL
from codegen.plan import BATCH, Plan, PlanError, Stage
from codegen.templates.cuda.declarations import flat_name, gathered, unflattened, used
from codegen.templates.cuda.kernels import BLOCK, Part, Pointer, pointers
from codegen.templates.cuda.locals import arrays_of, reads
from codegen.templates.cuda.splitting import threads_a_sum
from codegen.templates.cuda.text import Scope, cells
from codegen.templates.cuda.value import Printer
from derive.indices import var
from derive.terms import Expr


@dataclass(frozen=True)
class Shares:
    """The shares of a stage, and of its column if there is one, as the blocks of a part leave them.

    Numbers of a share lie in the order of ``outer`` and ``inner``; with a ``column``, one of that stage, which has the
    axes ``outer`` alone, comes after those along ``inner``.
    """

    part: Part
    stage: Stage
    epilogue: Expr
    scope: Scope
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    column: Stage | None = None

    @property
    def array(self) -> str:
        """The array they lie in."""
        return self.part.writes[-1]

    @property
    def count(self) -> str:
        """How many numbers a share has."""
        return self.part.results

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages that they are shares of."""
        return (self.stage,) if self.column is None else (self.stage, self.column)


def is_split(scope: Scope, depth: Sequence[int]) -> bool:
    """Whether the variables of a sum run over the batch."""
    return any(BATCH.symbols & e.symbols for level in depth for e in scope.intervals[level])


def adding(plan: Plan, shares: Shares, *, into: Mapping[str, str] | None = None) -> Part:
    """What a block does to add shares up: a thread a number; then what comes after the sum.

    ``into`` names, for stages whose result is not stored, the array that ``rate`` times the result is taken off.
    """
    names = [s.name for s in shares.stages]
    taken = {name: array for name, array in (into or {}).items() if name in names}
    targets = [taken.get(name, name) for name in names]
    said = f"The shares of {' and '.join(names)}, added up"
    said += f"; rate times that is taken off {' and '.join(targets)}." if taken else "."
    read = (Pointer("ACC", shares.array), *pointers(_read_after(plan, shares)))
    numbers = int(shares.count)
    threads = threads_a_sum(numbers)
    return Part(
        f"{'step' if taken else 'add'}_{shares.stage.name}", shares.stage.name, (said,),
        (*read, *pointers((), *targets)), (*_sum(shares, threads), *_stored(plan, shares, taken)),
        str(-(-numbers * threads // BLOCK)), scalars=("REAL rate",) if taken else (), numbers=("splits",),
        memory="Sums" if threads > 1 else "",
    )  # fmt: skip


def numbers_of(stage: Stage, results: str) -> int:
    """How many numbers a share of a stage has, from the text of that.

    Raises PlanError where they grow with the batch.
    """
    if not results.isdigit():
        raise PlanError(f"{stage.name}: {results} results; the number of results of a sum is a number")
    return int(results)


def _read_after(plan: Plan, shares: Shares) -> tuple[str, ...]:
    rest = {t.name for t in shares.epilogue.tensors} - {TOTAL.name}
    return tuple(t for t in reads(plan, shares.stage) if t in rest)


def _sum(shares: Shares, threads: int) -> list[str]:
    """The sum of a number over all shares: by a thread, or by one in each warp, of which the first goes on."""
    cell = _cell(shares)
    given = f"{shares.array}, splits, {shares.count}, {cell}"
    if threads == 1:
        return [
            f"const INDEX {cell} = block * {BLOCK} + threadIdx.x;",
            f"if ({cell} >= {shares.count}) return;",
            f"const ACC total = sum_of_shares({given}, 0, 1);",
        ]
    return [
        f"const INDEX {cell} = block * {BLOCK // threads} + threadIdx.x % {BLOCK // threads};",
        f"const ACC total = sum_by_warps({given}, memory);",
        f"if (threadIdx.x >= {BLOCK // threads} || {cell} >= {shares.count}) return;",
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
    return f"take_off({taken[stage.name]}[{place}], rate, {value});"
