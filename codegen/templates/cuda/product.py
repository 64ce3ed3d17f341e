"""A sum of products as a tiled matrix product, windows formed on the way into shared memory.

The matrix of windows is never stored: an element of it is fetched from the image when a block needs it, by the index
that the stage says (implicit im2col).  How a block goes about it stands once in the prelude (``tile.cu``, for tensor
cores ``tensor_tile.cu``); a kernel hands over what is its own: the factors as functions of row or column and term, the
terms of its sum, and what is done with a result.

A sum over the batch has few results and a great many terms.  It is *split*: blocks sum a share of the terms each into
an array of partial sums, and a second kernel adds those up, always in the same order.

A product can do its neighbours' work: an *epilogue* is an element-wise stage that is stored in its place; a *column* of
ones beside the right factor sums the left one, as a bias gradient does beside that of the weight; the mean over tiles
of a result is formed where they lie in registers (``codegen.templates.cuda.pooled``), and a result may be handed on to
the cells of a tile (``codegen.templates.cuda.spread``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from codegen.contraction import TOTAL, Contraction, Side, contraction
from codegen.plan import Plan, PlanError, Stage, reads_of
from codegen.templates.cuda.choice import BATCHES, Product, best_tile, costs
from codegen.templates.cuda.declarations import LINE, gathered, unflattened, used
from codegen.templates.cuda.kernels import Part, kernel_name, pointers, template
from codegen.templates.cuda.layout import Layout, SideName, of_block, scope_of, told
from codegen.templates.cuda.locals import arrays_of, reads
from codegen.templates.cuda.numbers import Numbers
from codegen.templates.cuda.pooled import lines as pooled_lines
from codegen.templates.cuda.pooled import mean_over_tiles, tiled
from codegen.templates.cuda.shares import Shares, is_split, numbers_of
from codegen.templates.cuda.splitting import ahead
from codegen.templates.cuda.spread import between
from codegen.templates.cuda.spread import lines as spread_lines
from codegen.templates.cuda.text import Scope, cells, grouped, kind_of
from codegen.templates.cuda.tiling import AnyTile
from codegen.templates.cuda.value import Printer, at_hand, stored
from derive.indices import Index, var, variables
from derive.terms import Substitution


@dataclass
class Result:
    """What is done with a sum: a function of the column, which declares ``places``, of one of the row and the sum."""

    lines: list[str]
    places: list[str] = field(default_factory=list)
    total: str = "total"


def product_part(
    plan: Plan, stage: Stage, formula: list[str], numbers: Numbers, *, tiles: Sequence[AnyTile],
    then: Stage | None = None, pool: Stage | None = None,
) -> Part:  # fmt: skip
    """What a block does for a stage whose sum does not run over the batch.

    ``then`` is its epilogue, or a stage that it is spread to; ``pool`` the mean over its tiles.
    """
    c, scope = _contraction(stage)
    sizes = _sizes(c, scope)
    layout = Layout(c, scope, best_tile(tiles, sizes, itemsize=numbers.itemsize), size=numbers.stored)
    target = then or stage
    read = reads(plan, *_both(plan, stage, then))
    written = [target.name]
    if pool is None or then is not None:
        results, store = {"store": _finished(plan, layout, stage, then)}, "store"
    else:
        found = mean_over_tiles(pool, stage)
        if found is None:
            raise PlanError(f"{pool.name}: {pool.body.text} is no mean over tiles of {stage.name} that a thread has")
        columns = tiled(c, found, scope)
        layout = replace(layout, total=columns.total, places=columns.places, inside=columns.conditions)
        written.append(pool.name)
        printer, value = _value(plan, stage, c, scope, "total")
        whole, pooled = pooled_lines(c, found, columns, value, scope.offset(stage.tensor, _own(stage)))
        results = {"store": Result([*printer.lines, *whole]), "pool": Result(pooled)}
        store = f"store_pooled<{found.cells}>"
    return Part(
        kernel_name(target), target.name, (*formula, *told(layout)), pointers(read, *written),
        _printed(layout, results, store=store), layout.blocks, layout.tile.threads,
        memory=f"{layout.tile.cuda()}::Memory", costs=costs(tiles, sizes, itemsize=numbers.itemsize),
        aligned=_aligned(layout),
    )  # fmt: skip


def _finished(plan: Plan, layout: Layout, stage: Stage, then: Stage | None) -> Result:
    """A sum becomes an element of the stage, or of ``then``."""
    c, scope = layout.c, layout.scope
    place = scope.offset(stage.tensor, _own(stage))
    is_sum = then is not None and _value(plan, stage, c, scope, "total")[1] == "total"
    total = stage.name if is_sum else "total"
    printer, value = _value(plan, stage, c, scope, total)
    if then is None:
        return Result([*printer.lines, f"{stage.name}[{place}] = REAL({value});"])
    before = [*printer.lines, *([] if is_sum else [f"const ACC {stage.name} = {value};"])]
    if then.template == "spread":
        return Result([*before, *spread_lines(plan, stage, then)], total=total)
    own, known = at_hand(then.body, scope, arrays_of(plan), {stage.name: stage.name})
    after = Printer(stage, arrays_of(plan), known=known, prefix=f"{then.name}_")
    last = after.expr(then.body, scope)
    return Result([*before, *own, *after.lines, *stored(f"{then.name}[{place}]", last)], total=total)


def _value(plan: Plan, stage: Stage, c: Contraction, scope: Scope, total: str) -> tuple[Printer, str]:
    """The statements and the text of a result, from the sum."""
    printer = Printer(stage, arrays_of(plan), known={TOTAL.name: total})
    return printer, printer.expr(c.epilogue, scope)


def _own(stage: Stage) -> list[Index]:
    """The place of a stage's own element."""
    return [var(v) for v in range(stage.tensor.rank)]


def product_shares(
    plan: Plan, stage: Stage, formula: list[str], numbers: Numbers, *, tiles: Sequence[AnyTile],
    column: Stage | None = None,
) -> Shares:  # fmt: skip
    """The shares of a stage whose sum runs over the batch, and of the sum of its left factor, if that is asked for."""
    c, scope = _contraction(stage)
    ones = column is not None
    if column is not None and not _is_column(column, c):
        raise PlanError(f"{column.name}: {column.body.text} is not the sum of the left factor of {stage.name}")
    sizes = _sizes(c, scope, further=int(ones))
    tile = best_tile(tiles, sizes, itemsize=numbers.itemsize)
    layout = Layout(c, scope, tile, ones, size=numbers.stored)
    factors = {c.left.read.tensor.name, c.right.read.tensor.name}
    read = tuple(t for t in reads(plan, stage) if t in factors)
    target = f"{stage.name}_shares"
    rows, columns, batches = (scope.text(n) for n in (layout.count(c.rows), layout.columns, layout.count(c.batch)))
    results = scope.text(layout.count(c.rows) * layout.columns * layout.count(c.batch))
    outer = f"(split * {batches} + {layout.which})" if c.batch and batches != "1" else "split"
    place = f"({outer} * {rows} + {layout.row}) * {grouped(columns)} + {layout.column}"
    stored = {"store": Result([f"{target}[{place}] = total;"])}
    part = Part(
        kernel_name(stage), stage.name, (*formula, *told(layout)), pointers(read, target, partial=True),
        _printed(layout, stored, store="store"), layout.blocks, tile.threads, numbers=("share", "splits"),
        memory=f"{tile.cuda()}::Memory", terms=scope.text(layout.count(c.depth)), at_once=tile.depth,
        ahead=ahead(numbers_of(stage, results)), results=results,
        costs=costs(tiles, sizes, itemsize=numbers.itemsize),
        aligned=_aligned(layout),
    )  # fmt: skip
    return Shares(part, stage, c.epilogue, scope, (*c.batch, *c.rows), c.columns, column)


def _sizes(c: Contraction, scope: Scope, *, further: int = 0) -> list[Product]:
    """The product, with ``further`` columns of ones, for each batch that is expected."""
    found = []
    for batch in BATCHES:
        rows, columns, terms, times = (
            cells(scope.intervals[v] for v in group).evaluate({"N": batch})
            for group in (c.rows, c.columns, c.depth, c.batch)
        )
        found.append(Product(rows, columns + further, terms, times, is_split(scope, c.depth)))
    return found


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


def _printed(layout: Layout, results: Mapping[str, Result], *, store: str) -> tuple[str, ...]:
    """What a block does."""
    c, scope, tile = layout.c, layout.scope, layout.tile
    head, first_row, first_column = of_block(layout)
    left, right = _factor(layout, "left"), _factor(layout, "right")
    row_places = unflattened(scope, c.rows, layout.row)
    for result in results.values():
        result.lines = [*gathered(used(row_places, result.lines)), *result.lines]
        result.places = gathered(used(layout.column_places, result.lines))
    depth = layout.count(c.depth)
    begin = "begin" if layout.split else "0" if kind_of(depth) == "int" else "INDEX(0)"
    text = template("product.cu").render(
        tile=tile, head=head, left=left, right=right, term=layout.term, depth_kind=kind_of(depth),
        results=list(results.items()), store=store, along=tile.along(layout.fetch("left"), layout.fetch("right")),
        first_row=first_row, first_column=first_column, terms=f"{begin}, {layout.end}",
        rows=scope.text(layout.count(c.rows)), columns=layout.columns_text,
    )  # fmt: skip
    return tuple(text.strip().splitlines())


def _aligned(layout: Layout) -> dict[str, int]:
    """The bytes of an access, for the factors of which several elements are one."""
    found: dict[str, int] = {}
    sides: tuple[tuple[SideName, Side], ...] = (("left", layout.c.left), ("right", layout.c.right))
    for name, side in sides:
        tensor, width = side.read.tensor.name, layout.fetch(name).width
        if width > 1:
            found[tensor] = max(width * layout.size, found.get(tensor, 0))
    return found


def _factor(layout: Layout, name: SideName) -> dict[str, object]:
    """One factor as a function, which gives one element or, where that is legal, a group of neighbours.

    With ``ones`` there is a column of ones after the last; beyond the last term the left factor makes it nothing.
    """
    c, tile = layout.c, layout.tile
    side, group, flat, length = (
        (c.left, c.rows, layout.row, tile.rows) if name == "left" else (c.right, c.columns, layout.column, tile.columns)
    )
    scope = layout.scope.knowing(side.guards)
    depth, total = layout.count(c.depth), layout.count(c.rows) if name == "left" else layout.columns
    ones = layout.ones and name == "right"
    conditions = []
    if ones or total.constant is None or total.constant % length:
        count = total - 1 if ones else total
        conditions.append(
            f"{flat} < {scope.text(count)}" if not count.symbols else f"int({flat} - first_column) < here"
        )
    if layout.split or depth.constant is None or depth.constant % tile.depth:
        conditions.append(f"{layout.term} < {layout.end}")
    conditions += layout.inside if name == "right" else []
    conditions += [text for g in side.guards if (text := scope.guard(g)) is not None]
    conditions += dict.fromkeys(scope.inside(side.read))
    value = f"{side.read.tensor.name}[{scope.offset(side.read.tensor, side.read.at)}]"
    places = unflattened(scope, group, flat) if name == "left" else layout.column_places
    fetched = [*conditions, value]
    declared = gathered([*used(places, fetched), *used(unflattened(scope, c.depth, layout.term), fetched)])
    otherwise = f"REAL({flat} == {scope.text(total - 1)} ? 1 : 0)" if ones else "REAL(0)"
    fetch = layout.fetch(name)
    if fetch.width > 1:
        value = f"load<{fetch.width}>(&{value})"
        if ones:
            declared.append(f"const REAL one = {otherwise};")
        given = "one" if ones and not fetch.deep else ", ".join(["one"] * fetch.width)
        otherwise = f"vector<{fetch.width}>{{{given if ones else ''}}}"
    if conditions:
        value = _chosen(conditions, value, otherwise)
    return {"flat": flat, "kind": kind_of(total), "value": value, "places": declared}


def _chosen(conditions: Sequence[str], value: str, otherwise: str) -> str:
    """A choice, on as many lines as that takes."""
    choice = f"? {value} : {otherwise}"
    if len(" && ".join(conditions)) + len(choice) < LINE:
        return f"{' && '.join(conditions)} {choice}"
    lines = [""]
    for k, condition in enumerate(conditions):
        part = condition if k == 0 else f" && {condition}"
        if len(lines[-1]) + len(part) > LINE:
            lines.append("    ")
        lines[-1] += part.lstrip() if lines[-1].isspace() else part
    return "\n".join([*lines, f"      {choice}"])
