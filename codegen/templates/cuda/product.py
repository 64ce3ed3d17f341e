"""A sum of products as a tiled matrix product, windows formed on the way into shared memory.

The matrix of windows is never stored: an element of it is fetched from the image when a block needs it, by the index
that the stage says (implicit im2col).  A block keeps two slices of each factor in shared memory, one in use and one
being filled; a thread keeps a small tile of sums in registers.

A sum over the batch has few results and a great many terms.  It is *split*: blocks sum a share of the terms each into
an array of partial sums, and a second kernel adds those up, always in the same order.

A product can do its neighbours' work: an *epilogue* is an element-wise stage that is stored in its place; a *column* of
ones beside the right factor sums the left one, as a bias gradient does beside that of the weight; the mean over tiles
of a result is formed where they lie in registers (``codegen.templates.cuda.pooled``), and a result may be handed on to
the cells of a tile (``codegen.templates.cuda.spread``).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from codegen.contraction import TOTAL, Contraction, Side, contraction
from codegen.plan import Plan, PlanError, Stage, reads_of
from codegen.templates.cuda.kernels import Kernel, ceil_of, kernel_name, parameters, template, times
from codegen.templates.cuda.locals import arrays_of, reads
from codegen.templates.cuda.pooled import Tiled, pool_of, tiled
from codegen.templates.cuda.pooled import lines as pooled_lines
from codegen.templates.cuda.shares import Shares, is_split
from codegen.templates.cuda.spread import between
from codegen.templates.cuda.spread import lines as spread_lines
from codegen.templates.cuda.text import Scope, cells, grouped, kind_of, unflattened, used
from codegen.templates.cuda.tiling import IMAGES, TILES, AnyTile, best_tile
from codegen.templates.cuda.value import Printer
from derive.indices import var, variables
from derive.terms import Read, Substitution


def scope_of(c: Contraction) -> Scope:
    """Every variable of the stage, those of the sum last."""
    names = c.stage.names
    box = (*c.stage.tensor.box, *c.monomial.binders)
    return Scope(names[: len(box)], box)


def product_kernel(
    plan: Plan, stage: Stage, formula: list[str], *, itemsize: int = 4, tiles: Sequence[AnyTile] = TILES,
    then: Stage | None = None, pool: Stage | None = None,
) -> Kernel:  # fmt: skip
    """The kernel of a stage whose sum does not run over the batch.

    ``then`` is its epilogue, or a stage that it is spread to; ``pool`` the mean over its tiles.
    """
    c, scope = _contraction(stage)
    tile = best_tile(tiles, *_sizes(c, scope), splits=False, itemsize=itemsize)
    target = then or stage
    read = reads(plan, *_both(plan, stage, then))
    printer = Printer(stage, arrays_of(plan), known={TOTAL.name: "total"})
    value = printer.expr(c.epilogue, scope)
    place = scope.offset(stage.tensor, [var(v) for v in range(stage.tensor.rank)])
    lines = [*printer.lines, f"{target.name}[{place}] = REAL({value});"]
    if then is not None and then.template == "spread":
        lines = [*printer.lines, *spread_lines(plan, stage, then, value)]
    elif then is not None:
        after = Printer(stage, arrays_of(plan), known={stage.name: stage.name}, part=f"{then.name}_part")
        last = after.expr(then.body, scope)
        lines = [
            *printer.lines,
            f"const ACC {stage.name} = {value};",
            *after.lines,
            f"{then.name}[{place}] = REAL({last});",
        ]
    name, written, columns = kernel_name(target), [target.name], None
    if pool is not None and then is None:
        found = pool_of(pool, stage)
        if found is None:
            raise PlanError(f"{pool.name}: {pool.body.text} is no mean over tiles of {stage.name} that a thread has")
        columns = tiled(c, found, scope)
        written.append(pool.name)
        lines = [*printer.lines, *pooled_lines(c, found, columns, value, place)]
    signature = parameters(read, *written)
    text, blocks = _printed(c, tile, lines, name=name, formula=formula, signature=signature, tiles=columns)
    return Kernel(name, text, (*read, *written), blocks, tile.threads)


def product_shares(
    plan: Plan, stage: Stage, formula: list[str], *, itemsize: int = 4, tiles: Sequence[AnyTile] = TILES,
    column: Stage | None = None,
) -> Shares:  # fmt: skip
    """The shares of a stage whose sum runs over the batch, and of the sum of its left factor, if that is asked for."""
    c, scope = _contraction(stage)
    if column is not None and not _is_column(column, c):
        raise PlanError(f"{column.name}: {column.body.text} is not the sum of the left factor of {stage.name}")
    tile = best_tile(tiles, *_sizes(c, scope, further=int(column is not None)), splits=True, itemsize=itemsize)
    factors = {c.left.read.tensor.name, c.right.read.tensor.name}
    read = tuple(t for t in reads(plan, stage) if t in factors)
    name, target = kernel_name(stage), f"{stage.name}_shares"
    rows, columns, depth, batches = (
        cells(scope.intervals[v] for v in g) for g in (c.rows, c.columns, c.depth, c.batch)
    )
    columns = columns + int(column is not None)
    outer = f"(split * {scope.text(batches)} + block)" if c.batch else "split"
    place = f"({outer} * {scope.text(rows)} + row) * {grouped(scope.text(columns))} + column"
    signature = parameters(read, target, numbers=("share", "splits"), partial=True)
    lines = [f"{target}[{place}] = total;"]
    text, blocks = _printed(c, tile, lines, name=name, formula=formula, signature=signature, ones=column is not None)
    results = scope.text(rows * columns * batches)
    kernel = Kernel(name, text, (*read, target), blocks, tile.threads, terms=scope.text(depth), results=results)
    return Shares(kernel, stage, c.epilogue, scope, (*c.batch, *c.rows), c.columns, column)


def _sizes(c: Contraction, scope: Scope, *, further: int = 0) -> tuple[int, int, int]:
    """Rows, columns with ``further`` ones, and depth, for a batch of ``IMAGES``."""
    rows, columns, depth = (
        cells(scope.intervals[v] for v in group).evaluate({"N": IMAGES}) for group in (c.rows, c.columns, c.depth)
    )
    return rows, columns + further, depth


def is_sum_over_batch(stage: Stage) -> bool:
    """Whether the sum of a product runs over the batch, so that it is split."""
    c, scope = _contraction(stage)
    return is_split(scope, c.depth)


def _contraction(stage: Stage) -> tuple[Contraction, Scope]:
    c = contraction(stage)
    if c is None:
        raise PlanError(f"{stage.name}: {stage.body.text} is no sum of products of two tensors with rows and columns")
    return c, scope_of(c)


def _both(plan: Plan, stage: Stage, then: Stage | None) -> tuple[Stage, ...]:
    """A product and its epilogue, which reads it at its own element and has its box; or what it is spread to."""
    if then is None:
        return (stage,)
    if then.template == "spread":
        return (stage, *between(plan, then), then)
    own = variables(0, stage.tensor.rank)
    same = all(read.at == own for read in reads_of(then.body) if read.tensor == stage.tensor)
    if not same or then.tensor.box != stage.tensor.box:
        raise PlanError(f"{then.name} is no epilogue of {stage.name}: it reads it at another element")
    return stage, then


def _is_column(column: Stage, c: Contraction) -> bool:
    """Whether a stage sums the left factor of a product over the terms of its sum, a result a row."""
    rank = len(c.rows)
    levels = (*c.rows, *c.depth)
    there = Substitution(rank + len(c.depth), tuple(var(v) for v in levels), c.depth[-1] + 1)
    box = tuple(c.stage.tensor.box[v] for v in c.rows)
    if c.batch or column.tensor.box != box or len(column.body.monomials) != 1:
        return False
    (m,) = column.body.monomials
    if m.coefficient != 1 or (m.binders, m.guards, len(m.factors)) != (c.monomial.binders, c.left.guards, 1):
        return False
    return there.factor(m.factors[0]) == c.left.read


def _printed(
    c: Contraction, tile: AnyTile, epilogue: list[str], *, name: str, formula: list[str], signature: str,
    ones: bool = False, tiles: Tiled | None = None,
) -> tuple[str, str]:  # fmt: skip
    """The text of a kernel, and how many blocks it takes."""
    scope = scope_of(c)
    split = is_split(scope, c.depth)
    rows, columns, depth, batches = (
        cells(scope.intervals[v] for v in g) for g in (c.rows, c.columns, c.depth, c.batch)
    )
    columns = tiles.total if tiles else columns + int(ones)
    places = [*tiles.places, *tiles.tiles] if tiles else unflattened(scope, c.columns, "column")
    row_tiles = ceil((rows.constant or 0) / tile.rows)
    text = template(tile.template).render(
        name=name, formula=formula, tile=tile, split=split, row_tiles=row_tiles,
        rows=scope.text(rows), columns=scope.text(columns), depth=scope.text(depth),
        depth_kind=kind_of(depth), batch_text=f", {scope.text(batches)} times" if c.batch else "", parameters=signature,
        batch=unflattened(scope, c.batch, "block"),
        left=_fetched(c.left, c, scope, tile, "left", split=split),
        right=_fetched(c.right, c, scope, tile, "right", split=split, ones=ones, tiles=tiles),
        row_places=used(unflattened(scope, c.rows, "row"), epilogue),
        column_places=used(places, epilogue), epilogue=epilogue, pooled=tiles is not None,
    )  # fmt: skip
    return text, times(str(row_tiles), ceil_of(scope.text(columns), tile.columns), scope.text(batches))


def _fetched(
    side: Side, c: Contraction, scope: Scope, tile: AnyTile, name: str, *, split: bool, ones: bool = False,
    tiles: Tiled | None = None,
) -> dict[str, object]:  # fmt: skip
    """How a block fetches its part of one factor, as the pieces of text that the template puts together.

    With ``ones`` there is a column of ones after the last; beyond the last term the left factor makes it nothing.
    ``tiles`` says of another order of the columns.
    """
    group, flat = (c.rows, "row") if name == "left" else (c.columns, "column")
    side_length = tile.rows if name == "left" else tile.columns
    scope = scope.knowing(side.guards)
    value = f"{side.read.tensor.name}[{scope.offset(side.read.tensor, side.read.at)}]"
    depth = cells(scope.intervals[v] for v in c.depth)
    total = tiles.total if tiles else cells(scope.intervals[v] for v in group)
    places = tiles.places if tiles else unflattened(scope, group, flat)
    conditions = []
    if ones or total.constant is None or total.constant % side_length:
        conditions.append(f"{flat} < {scope.text(total)}")
    if split or depth.constant is None or depth.constant % tile.depth:
        conditions.append("term < end")
    conditions += tiles.conditions if tiles else []
    conditions += [text for g in side.guards if (text := scope.guard(g)) is not None]
    conditions += dict.fromkeys(scope.inside(side.read))
    fetched = [*conditions, value]
    count, own, term = tile.places(side_length, deep=_along_depth(side.read, scope, group, c.depth))
    return {
        "name": name, "flat": flat, "kind": kind_of(total), "own": own, "term": term,
        "count": ceil(count / tile.threads), "cells": count, "uneven": count % tile.threads > 0,
        "own_places": used(places, fetched),
        "term_places": used(unflattened(scope, c.depth, "term"), fetched),
        "conditions": " && ".join(conditions), "value": value,
        "otherwise": f"REAL({flat} == {scope.text(total)} ? 1 : 0)" if ones else "REAL(0)",
    }  # fmt: skip


def _along_depth(read: Read, scope: Scope, group: tuple[int, ...], depth: tuple[int, ...]) -> bool:
    """Whether neighbours in memory are terms of the sum, so that neighbouring threads should fetch those."""

    def run(levels: tuple[int, ...]) -> int:
        last = read.at[-1]
        near = [v for v in levels if (parts := last.linear_in(v)) and parts[0].constant not in (0, None)]
        return max((cells([scope.intervals[v]]).evaluate({"N": IMAGES}) for v in near), default=0)

    return run(depth) > run(group)
