"""Overlapping windows, from an image and back to it, by views that are made once, with the buffers.

``windows`` prints ``D[v] = S[affine(v)]``, where several variables may move along one axis of S.  No slice is such a
view, but an array with strides of its own is: each variable steps over the cells by the sum of its coefficients times
the strides of S.  So a window matrix is a single statement instead of one for each cell of a window.

``overlaps`` prints the way back, ``D[h] = Sum [h == affine(v, loops)] S[v]``, as ``scatter`` does; but one cell of D is
met several times, so there is one addition a cell of a window, and its two slices are kept.

That nothing leaves the stored cells is checked here, with the numbers.
"""

from __future__ import annotations

import re

from codegen.plan import PlanError, Stage, extent
from codegen.templates.numpy.clipping import looped
from codegen.templates.numpy.scatter import scattered
from codegen.templates.numpy.scope import Scope, scope_of
from codegen.templates.numpy.text import Context, only_monomial
from codegen.templates.numpy.views import inside, target_view
from derive.indices import Index, var
from derive.terms import Read


def windows(ctx: Context, stage: Stage) -> list[str]:
    """The text of a stage that copies one read, whatever affine indices it has."""
    m = only_monomial(stage)
    scope = scope_of(stage, m.binders)
    read = m.factors[0] if len(m.factors) == 1 else None
    if not isinstance(read, Read) or m.guards or m.binders or m.coefficient != 1 or scope.loops:
        raise PlanError(f"{stage.name}: the template windows prints a copy of one read, without loops")
    owner, source = _beside(ctx, stage, read)
    ctx.kept[stage.name, "from"] = _view(stage, source, read, scope)
    return [f"np.copyto({target_view(ctx.plan, ctx.arrays, stage, scope).text}, {owner}.{stage.name}_from)"]


def overlaps(ctx: Context, stage: Stage) -> list[str]:
    """The text of a stage that adds slices up where they overlap."""
    m, scope, target, moved = scattered(ctx, stage)
    if m.coefficient != 1 or len(m.factors) != 1 or not isinstance(m.factors[0], Read):
        raise PlanError(f"{stage.name}: the template overlaps adds up slices of one read as they are")
    owner, _ = _beside(ctx, stage, m.factors[0])
    loops = "\n".join(f"    {line[:-1].strip()}" for line in looped(scope, sorted(scope.loops), []))
    pair = re.sub(rf"(?<![\w.]){owner}\.", "self.", f"({target.text}, {moved.source})")
    ctx.kept[stage.name, "moves"] = f"[\n    {pair}\n{loops}\n]"
    array = ctx.arrays[stage.name]
    return [f"{array}.fill(0)", f"for target, source in {array}_moves:", "    np.add(target, source, out=target)"]


def _beside(ctx: Context, stage: Stage, read: Read) -> tuple[str, Stage]:
    """Where the buffer of a stage is made, and the stage it reads, whose buffer has to be made there too."""
    source = ctx.plan.by_name.get(read.tensor.name)
    owner = ctx.arrays[stage.name].split(".")[0]
    if source is None or ctx.arrays[source.name].split(".")[0] != owner or "." not in ctx.arrays[stage.name]:
        raise PlanError(f"{stage.name}: {read.tensor.name} is not made beside it, so no view of it is kept")
    return owner, source


def _view(stage: Stage, source: Stage, read: Read, scope: Scope) -> str:
    """The call that makes the view: the first cell, the sizes, and for each variable its steps along every axis."""
    first: list[int] = []
    steps: list[list[int]] = [[] for _ in range(stage.tensor.rank)]
    for axis, e in enumerate(read.at):
        shifted = e - source.tensor.box[axis][0] + source.margin[axis][0]
        along = slopes(stage, shifted)
        if extent(source.tensor.box[axis]) is None:
            batch = [level for level in range(stage.tensor.rank) if extent(stage.tensor.box[level]) is None]
            if len(batch) != 1 or shifted != var(batch[0]):
                raise PlanError(f"{stage.name}: the batch is read at {e.text}, not at its own variable")
            first.append(0)
        else:
            inside(source.name, shifted, source.stored(axis), scope)
            first.append(scope.low(shifted))
        for level, slope in enumerate(along):
            steps[level].append(slope)
    sizes = ", ".join("b" if size is None else str(size) for size in (extent(box) for box in stage.tensor.box))
    table = ", ".join(str(tuple(row)) for row in steps)
    return f"windows(\n    self.{source.name}, {tuple(first)}, ({sizes}),\n    ({table}),\n)"


def slopes(stage: Stage, e: Index) -> list[int]:
    """The coefficient of each variable in an affine index."""
    found = []
    for level in range(stage.tensor.rank):
        slope = e.slope(level)
        if slope is None or slope < 0:
            raise PlanError(f"{stage.name}: the index {e.text} does not step forwards by numbers of cells")
        found.append(slope)
    return found
