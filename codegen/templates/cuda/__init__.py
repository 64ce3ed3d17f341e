"""CUDA templates: one stage of a plan in, the CUDA C of what a block does for it out.

Nothing here is proved.  What is printed is executed exactly against the stages by ``codegen.check``, every thread of
every block, on a CPU (``runtime.simt``); since no address or barrier depends on data, nor a branch around one, one run
at a shape sees every access there is.
"""

from __future__ import annotations

import re

from codegen.grouping import by_groups, groups_of
from codegen.plan import Plan, PlanError, Stage
from codegen.templates.cuda.cells import cells_part
from codegen.templates.cuda.flat import flat_part
from codegen.templates.cuda.kernels import BLOCK, Kernel, Part, whole
from codegen.templates.cuda.locals import locals_of
from codegen.templates.cuda.numbers import NUMBERS, Numbers
from codegen.templates.cuda.product import is_sum_over_batch, product_part, product_shares
from codegen.templates.cuda.reduce import reduced
from codegen.templates.cuda.shares import Shares, adding
from codegen.templates.cuda.spread import between
from codegen.wording import formula, wrapped


def print_kernels(plan: Plan, stage: Stage, numbers: Numbers = NUMBERS["float32"]) -> list[Kernel]:
    """The kernels of a stage, in the order of their launch."""
    made = print_stage(plan, stage, numbers)
    return [whole(made.part), whole(adding(plan, made))] if isinstance(made, Shares) else [whole(made)]


def print_stage(
    plan: Plan,
    stage: Stage,
    numbers: Numbers = NUMBERS["float32"],
    *,
    then: Stage | None = None,
    pool: Stage | None = None,
    column: Stage | None = None,
    threads: int | None = None,
) -> Part | Shares:
    """What a block does for a stage, or for its shares where a sum runs over the batch.

    ``then`` is a stage that is done as the epilogue of a product, ``pool`` the mean over its tiles, ``column`` one that
    is a column of it; ``threads`` is how many a block has to have, None where that is free.
    """
    tiles = tuple(tile for tile in numbers.tiles if threads in (None, tile.threads))
    names = between(plan, then) if then is not None and then.template == "spread" else ()
    every = (*locals_of(plan, stage), stage, *names, then, pool, column)
    said = [line for s in every if s for line in wrapped(plain(formula(s)))]
    if stage.template == "product" and (groups := groups_of(stage)) is not None:
        said.append(f"Here {stage.names[groups.axis]} is {groups.size} * g + m: number m of group g.")
        stage = by_groups(stage)
    match stage.template:
        case "cells" | "local":
            return cells_part(plan, stage, said, threads or BLOCK)
        case "flat":
            return flat_part(plan, stage, said, threads or BLOCK)
        case "product" if is_sum_over_batch(stage):
            return product_shares(plan, stage, said, numbers, tiles=tiles, column=column)
        case "product":
            return product_part(plan, stage, said, numbers, tiles=tiles, then=then, pool=pool)
        case "reduce":
            return reduced(plan, stage, said, threads or BLOCK)
        case _:
            raise PlanError(f"{stage.name}: there is no CUDA template {stage.template}")


def plain(text: str) -> str:
    """A definition without the parentheses around a name or a number that is divided, or divides.

    >>> plain("dX[b,n,((i0)//(2)),((h-a+1)//(2))]")
    'dX[b,n,i0//2,(h-a+1)//2]'
    """
    text = re.sub(r"\((\w+)\)//", r"\1//", text)
    text = re.sub(r"//\((\w+)\)", r"//\1", text)
    return re.sub(r"(?<=[,\[])\(((?:\w+|\([^()]*\))//\w+)\)(?=[,\]])", r"\1", text)
