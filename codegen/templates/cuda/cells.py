"""A thread for each element: what any expression can be printed as.

Neighbouring threads write neighbouring elements, so what is read along the innermost axis is read side by side.  This
is the template of element-wise stages, of pools, and of sums too short or too lean for a matrix product: few channels,
one kernel a channel.
"""

from __future__ import annotations

from codegen.plan import Plan, Stage
from codegen.templates.cuda.kernels import BLOCK, Kernel, ceil_of, kernel_name, parameters, signature
from codegen.templates.cuda.locals import arrays_of, declared, reads
from codegen.templates.cuda.text import Scope, cells, flat_name, gathered, unflattened, used
from codegen.templates.cuda.value import Printer


def cells_kernel(plan: Plan, stage: Stage, formula: list[str]) -> Kernel:
    """The kernel of a stage."""
    rank = stage.tensor.rank
    scope = Scope(stage.names[:rank], stage.tensor.box)
    read = reads(plan, stage)
    before = declared(plan, stage, scope)
    printer = Printer(stage, arrays_of(plan), known=before.known, labels=plan.labels)
    text = printer.expr(stage.body, scope)
    count = cells(stage.tensor.box)
    cell = flat_name(scope, range(rank), "cell")
    body = [*before.lines, *printer.lines, f"{stage.name}[{cell}] = REAL({text});"]
    said = signature(kernel_name(stage), parameters(read, stage.name, labels=plan.labels))
    lines = [
        *(f"// {line}" for line in formula),
        f'extern "C" __global__ void __launch_bounds__({BLOCK}, 1) {said}',
        "{",
        f"  const INDEX {cell} = (INDEX)blockIdx.x * {BLOCK} + threadIdx.x;",
        f"  if ({cell} >= {scope.text(count)}) return;",
        *(f"  {line}" for line in [*gathered(used(unflattened(scope, range(rank), cell), body)), *body]),
        "}",
    ]
    return Kernel(kernel_name(stage), "\n".join(lines), (*read, stage.name), ceil_of(scope.text(count), BLOCK))
