"""A product's element handed on to the cells of a tile, as a cotangent is on its way back through a pool.

    dZ[b, n, i..] = f(dP[b, n, i // t, ..], A[b, n, i..])        for i = t h + r, all r < t

The thread that has dP[b,n,h..] in a register writes the whole tile; no cell lies outside the tiles.  The product may
have fewer axes than dP, which then is another name for its cells.
"""

from __future__ import annotations

from dataclasses import dataclass

from codegen.plan import Plan, PlanError, Stage, reads_of
from codegen.templates.cuda.declarations import unflattened
from codegen.templates.cuda.locals import arrays_of
from codegen.templates.cuda.text import Scope, kind_of
from codegen.templates.cuda.value import Printer, at_hand, stored
from derive.indices import index, var, variables
from derive.terms import Read, Tensor


@dataclass(frozen=True)
class Spread:
    """A stage that is written tile by tile, what it reads of the product under which name, and the tiles' sides."""

    stage: Stage
    source: Stage
    sides: tuple[int, ...]


def spread_of(plan: Plan, stage: Stage) -> Spread | None:
    """A stage as one that hands on elements; None where it is none."""
    at = variables(0, stage.tensor.rank)
    sources = {r.tensor for r in reads_of(stage.body) if r.at != at}
    if len(sources) != 1:
        return None
    (tensor,) = sources
    source = plan.by_name.get(tensor.name)
    sides = _sides(stage.tensor, tensor)
    if source is None or sides is None:
        return None
    there = (*at[:2], *(v // t for v, t in zip(at[2:], sides, strict=True)))
    return Spread(stage, source, sides) if _all_at(stage, tensor, there) else None


def _sides(whole: Tensor, tiles: Tensor) -> tuple[int, ...] | None:
    """How many cells a tile has on each axis; None where tiles leave some over."""
    if whole.rank != tiles.rank or whole.rank < 3 or whole.box[:2] != tiles.box[:2]:
        return None
    sizes = [
        (high.constant or 0, count.constant or 0)
        for (_, high), (_, count) in zip(whole.box[2:], tiles.box[2:], strict=True)
    ]
    return None if any(count == 0 or high % count for high, count in sizes) else tuple(h // n for h, n in sizes)


def _all_at(stage: Stage, tensor: Tensor, at: tuple[object, ...]) -> bool:
    return all(read.at == at for read in reads_of(stage.body) if read.tensor == tensor)


def product_of(plan: Plan, stage: Stage) -> Stage:
    """The product whose elements a stage hands on, under its own name or another.

    Raises PlanError where there is none.
    """
    spread = spread_of(plan, stage)
    source = None if spread is None else spread.source
    if source is not None and source.template == "alias":
        (read,) = reads_of(source.body)
        source = plan.by_name.get(read.tensor.name)
    if source is None or source.template != "product":
        raise PlanError(f"{stage.name}: {stage.body.text} hands on no product, tile by tile")
    return source


def between(plan: Plan, stage: Stage) -> tuple[Stage, ...]:
    """The other name, if there is one, under which a stage reads the product whose elements it hands on."""
    spread = spread_of(plan, stage)
    return () if spread is None or spread.source.template != "alias" else (spread.source,)


def lines(plan: Plan, product: Stage, stage: Stage) -> list[str]:
    """What a thread does with an element of the product, which lies in a number of the product's name."""
    spread = spread_of(plan, stage)
    if spread is None or product_of(plan, stage) != product:
        raise PlanError(f"{stage.name} hands on no element of {product.name}")
    rank, source = stage.tensor.rank, spread.source
    names, theirs = (stage.names[0], source.names[1], *stage.names[2:rank]), source.names[:rank]
    own = Scope(names, stage.tensor.box)
    text = _named(product, source) if source != product else []
    indent = ""
    for axis, t in enumerate(spread.sides, 2):
        kind = kind_of(stage.tensor.box[axis][1])
        first = Scope(theirs, source.tensor.box).text(var(axis) * t)
        if t == 1:
            text.append(f"{indent}const {kind} {names[axis]} = {first};")
            continue
        text += [
            f"{indent}#pragma unroll",
            f"{indent}for ({kind} {names[axis]} = {first}; {names[axis]} < {first} + {t}; ++{names[axis]}) {{",
        ]
        indent += "  "
    before, known = at_hand(stage.body, own, arrays_of(plan), {source.name: product.name})
    printer = Printer(stage, arrays_of(plan), known=known, prefix=f"{stage.name}_")
    body = printer.expr(stage.body, own)
    place = own.offset(stage.tensor, [var(v) for v in range(rank)])
    last = stored(f"{stage.name}[{place}]", body)
    text += [f"{indent}{line}" for line in [*before, *printer.lines, *last]]
    return [*text, *("  " * k + "}" for k in reversed(range(len(indent) // 2)))]


def _named(product: Stage, source: Stage) -> list[str]:
    """The variables of another name for a product's cells, from those of the product."""
    rank = source.tensor.rank
    at = variables(0, rank)
    flat = index(0)
    for v, (_, high) in zip(at[1:], source.tensor.box[1:], strict=True):
        flat = flat * high + v
    (read,) = reads_of(source.body)
    if read != Read(product.tensor, (at[0], flat)) or source.names[0] != product.names[0]:
        raise PlanError(f"{source.name} is no other name for the cells of {product.name}")
    places = unflattened(Scope(source.names[:rank], source.tensor.box), range(1, rank), product.names[1])
    return [place.text for place in places]
