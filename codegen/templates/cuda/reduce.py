"""A sum over the batch of anything else than a product of two tensors: a block adds the terms of a share of one result.

Each of T threads adds every T-th term, so neighbouring threads read neighbouring terms.  Then the sums of the block are
added in pairs, by a function of the prelude.
"""

from __future__ import annotations

from codegen.contraction import TOTAL
from codegen.plan import Plan, PlanError, Stage
from codegen.templates.cuda.declarations import flat_name, gathered, unflattened, used
from codegen.templates.cuda.kernels import BLOCK, Part, kernel_name, pointers
from codegen.templates.cuda.locals import arrays_of, declared, reads
from codegen.templates.cuda.shares import Shares, is_split, numbers_of
from codegen.templates.cuda.splitting import ahead
from codegen.templates.cuda.text import Scope, cells
from codegen.templates.cuda.value import Printer
from derive.terms import Monomial, expression, term


def reduced(plan: Plan, stage: Stage, formula: list[str], threads: int = BLOCK) -> Shares:
    """The shares of a stage that is one sum over the batch."""
    rank = stage.tensor.rank
    if len(stage.body.monomials) != 1:
        raise PlanError(f"{stage.name}: {stage.body.text} is no single sum over the batch")
    (m,) = stage.body.monomials
    scope = Scope(stage.names[:rank], stage.tensor.box).inner(m.binders, stage.names)
    summed = tuple(range(rank, rank + len(m.binders)))
    if not is_split(scope, summed):
        raise PlanError(f"{stage.name}: {stage.body.text} is no single sum over the batch")
    depth, results = (scope.text(cells(scope.intervals[v] for v in group)) for group in (summed, range(rank)))
    shares, read = f"{stage.name}_shares", reads(plan, stage)
    inner = expression(len(scope.intervals), [Monomial(m.coefficient, (), m.guards, m.factors)])
    before = declared(plan, stage, scope)
    printer = Printer(stage, arrays_of(plan), known=before.known, labels=plan.labels)
    value = printer.expr(inner, scope)
    body = [*before.each, *printer.lines, f"sum += {value};"]
    cell, each = flat_name(scope, range(rank), "cell"), flat_name(scope, summed, "term")
    of_block = ["split = block"] if results == "1" else [f"{cell} = block / splits", "split = block % splits"]
    place = "split" if results == "1" else f"split * {results} + {cell}"
    lines = [
        f"const INDEX {', '.join(of_block)}, depth = {depth};",
        "const INDEX begin = split * share, end = begin + share < depth ? begin + share : depth;",
        *gathered(used(unflattened(scope, range(rank), cell), [*body, *before.once])),
        *before.once,
        "ACC sum = ACC(0);",
        f"for (INDEX {each} = begin + threadIdx.x; {each} < end; {each} += {threads}) {{",
        *(f"  {line}" for line in [*gathered(used(unflattened(scope, summed, each), body)), *body]),
        "}",
        f"sum = sum_of_block<{threads}>(sum);",
        f"if (threadIdx.x == 0) {shares}[{place}] = sum;",
    ]
    first = Part(
        kernel_name(stage), stage.name, tuple(formula), pointers(read, shares, partial=True, labels=plan.labels),
        tuple(lines), results, threads, numbers=("share", "splits"), terms=depth, at_once=threads,
        ahead=ahead(numbers_of(stage, results)), results=results,
    )  # fmt: skip
    return Shares(first, stage, term(rank, TOTAL[()]), scope, (), tuple(range(rank)))
