"""A thread for each element: what any expression can be printed as.

Neighbouring threads write neighbouring elements, so what is read along the innermost axis is read side by side.  This
is the template of element-wise stages, of pools, and of sums too short or too lean for a matrix product: few channels,
one kernel a channel.
"""

from __future__ import annotations

from codegen.plan import Plan, Stage
from codegen.templates.cuda.declarations import flat_name, gathered, unflattened, used
from codegen.templates.cuda.kernels import BLOCK, Part, ceil_of, kernel_name, pointers
from codegen.templates.cuda.locals import arrays_of, declared, reads
from codegen.templates.cuda.text import Scope, cells
from codegen.templates.cuda.value import Printer, stored


def cells_part(plan: Plan, stage: Stage, formula: list[str], threads: int = BLOCK) -> Part:
    """What a block does for a stage."""
    rank = stage.tensor.rank
    scope = Scope(stage.names[:rank], stage.tensor.box)
    read = reads(plan, stage)
    before = declared(plan, stage, scope)
    printer = Printer(stage, arrays_of(plan), known=before.known, labels=plan.labels)
    text = printer.expr(stage.body, scope)
    count = cells(stage.tensor.box)
    cell = flat_name(scope, range(rank), "cell")
    body = [*before.lines, *printer.lines, *stored(f"{stage.name}[{cell}]", text)]
    lines = [
        f"const INDEX {cell} = block * {threads} + threadIdx.x;",
        f"if ({cell} >= {scope.text(count)}) return;",
        *gathered(used(unflattened(scope, range(rank), cell), body)),
        *body,
    ]
    return Part(
        kernel_name(stage), stage.name, tuple(formula), pointers(read, stage.name, labels=plan.labels), tuple(lines),
        ceil_of(scope.text(count), threads), threads,
    )  # fmt: skip
