"""A few elements for each thread, of a stage that reads everything at the element that it writes.

All arrays have one shape, so an element is found by its place alone.  A block takes a run of elements, and a thread
every 256th of them: neighbours read and write side by side, whatever the alignment, and a thread has several reads on
their way before it needs the first.
"""

from __future__ import annotations

from codegen.plan import Plan, PlanError, Stage, reads_of
from codegen.templates.cuda.kernels import BLOCK, Part, ceil_of, kernel_name, pointers
from codegen.templates.cuda.locals import arrays_of, declared, locals_of, reads
from codegen.templates.cuda.text import Scope, cells
from codegen.templates.cuda.value import Printer, stored
from derive.indices import variables

EACH = 4  # elements of a thread


def flat_part(plan: Plan, stage: Stage, formula: list[str], threads: int = BLOCK) -> Part:
    """What a block does for a stage.  Raises PlanError where one of its reads is at another element."""
    rank, box = stage.tensor.rank, stage.tensor.box
    for cell in (cell for s in (stage, *locals_of(plan, stage)) for cell in reads_of(s.body)):
        if cell.at != variables(0, rank) or cell.tensor.box != box:
            raise PlanError(f"{stage.name}: {cell.text} is not read at the element that is written")
    scope = Scope(stage.names[:rank], box)
    read = reads(plan, stage)
    known = {name: f"ACC({name}_here[k])" for name in read}
    before = declared(plan, stage, scope, known=known)
    printer = Printer(stage, arrays_of(plan), known=before.known)
    text = printer.expr(stage.body, scope)
    count = scope.text(cells(box))
    lines = [
        f"const INDEX first = block * {EACH * threads} + threadIdx.x, cells = {count};",
        *(f"REAL {name}_here[{EACH}];" for name in read),
        "#pragma unroll",
        f"for (int k = 0; k < {EACH}; ++k) {{",
        f"  const INDEX cell = first + k * {threads};",
        "  if (cell < cells) {",
        *(f"    {name}_here[k] = {name}[cell];" for name in read),
        "  }",
        "}",
        "#pragma unroll",
        f"for (int k = 0; k < {EACH}; ++k) {{",
        f"  const INDEX cell = first + k * {threads};",
        "  if (cell < cells) {",
        *(f"    {line}" for line in [*before.lines, *printer.lines, *stored(f"{stage.name}[cell]", text)]),
        "  }",
        "}",
    ]
    return Part(
        kernel_name(stage), stage.name, tuple(formula), pointers(read, stage.name), tuple(lines),
        ceil_of(count, EACH * threads), threads,
    )  # fmt: skip
