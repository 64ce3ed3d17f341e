"""Sums of products over windows as one einsum: ``D[v] = Sum_k A[..] B[.., i s + a d - p, ..]``.

An index with two variables is an axis of a *window view*: the cells under every window, without a copy.  The views are
made once, with the buffers.  NumPy puts the axes of a contraction in the order of their strides, and where two strides
are equal leaves them as they come.  A step to the next row of a window is a step to the next row of the image, so the
last two axes of an image are read as one wherever its rows follow each other: then that one axis, which is long, is the
inner loop, and a number of the kernel is multiplied with all positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from codegen.plan import PlanError, Stage, extent, number
from codegen.templates.numpy.scope import Scope, scope_of
from codegen.templates.numpy.text import Context, only_monomial
from codegen.templates.numpy.views import View, inside_box, read_view, stored_view
from derive.indices import Index, var
from derive.terms import Read

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def contract(ctx: Context, stage: Stage, *, accumulate: bool) -> list[str]:
    """The text of a stage that is a contraction of reads, some of them through windows."""
    m = only_monomial(stage)
    reads = [f for f in m.factors if isinstance(f, Read)]
    if len(reads) != len(m.factors) or not reads or m.guards or m.coefficient != 1 or stage.loops:
        raise PlanError(f"{stage.name}: the template contract prints a plain sum of products of reads, without loops")
    scope = scope_of(stage, m.binders)
    flat = not accumulate and _rows_follow(ctx, stage, reads, scope)
    operands = [_operand(ctx, stage, read, scope, flat=flat) for read in reads]
    met = {level for read in reads for e in read.at for level in e.variables}
    if any(level not in met for level in range(stage.tensor.rank, len(scope.letters))):
        raise PlanError(f"{stage.name}: a variable that is summed over occurs in no factor")
    target = _target(ctx, stage, met, scope, flat=flat)
    names = ",".join(_letters(view.axes) for view in operands)
    factors = ", ".join(view.text for view in operands)
    call = f'np.einsum("{names}->{_letters(target.axes)}", {factors}'
    if accumulate:
        return [f"np.add({target.text}, {call}), out={target.text})"]
    return [f"{call}, out={target.text})"]


def _letters(levels: Iterable[int]) -> str:
    return "".join(LETTERS[level] for level in levels)


def _rows_follow(ctx: Context, stage: Stage, reads: Sequence[Read], scope: Scope) -> bool:
    """Whether the last two axes of the result are one axis of every array they occur in."""
    u, v = stage.tensor.rank - 2, stage.tensor.rank - 1
    if u < 0 or stage.has_margin or None in stage.dims[-2:]:
        return False
    for read in reads:
        having = [axis for axis, e in enumerate(read.at) if {u, v} & e.variables]
        stored = ctx.plan.by_name.get(read.tensor.name)
        if not having:
            continue
        if stored is None or having != [len(read.at) - 2, len(read.at) - 1] or read.at[-1] != var(v):
            return False
        if read.at[-2].slope(u) != 1 or v in read.at[-2].variables:
            return False
        if stored.dims[-1] != _count(scope, v) or None in stored.dims[-2:]:
            return False
    return True


def _target(ctx: Context, stage: Stage, met: set[int], scope: Scope, *, flat: bool) -> View:
    """What is written: an axis that no factor has is one cell long, and is written at that cell."""
    at, rank = [], stage.tensor.rank
    for axis, bounds in enumerate(stage.tensor.box):
        if axis not in met and extent(bounds) != 1:
            raise PlanError(f"{stage.name}: no factor depends on axis {axis}, which is longer than one cell")
        at.append(var(axis) if axis in met else bounds[0])
    if flat and met >= set(range(rank)):
        owner, _, name = ctx.arrays[stage.name].partition(".")
        array = f"{owner}{_flattened(stage, f'len({owner})')}"
        if name:
            ctx.views[f"{name}_flat"] = (owner, f"self.{name}{_flattened(stage)}")
            array = f"{owner}.{name}_flat"
        return View(array, (*range(rank - 2), rank - 1))
    return stored_view(ctx.plan, ctx.arrays[stage.name], stage.tensor, at, scope, writes=True)


def _flattened(stage: Stage, images: str = "b") -> str:
    """The last two axes of an array as one; ``images`` is the size of the batch."""
    *lead, rows, columns = stage.dims
    sizes = [images if d is None else str(d) for d in (*lead, (rows or 0) * (columns or 0))]
    return f".reshape({', '.join(sizes)})"


# --- factors ------------------------------------------------------------------------------------------------------


def _operand(ctx: Context, stage: Stage, read: Read, scope: Scope, *, flat: bool) -> View:
    """A factor as an array and the variables of its axes."""
    flat = flat and stage.tensor.rank - 2 in read.at[-2].variables
    if not flat and all(len(e.variables) < 2 for e in read.at):
        return read_view(ctx.plan, ctx.arrays, read, scope)
    stored = ctx.plan.by_name.get(read.tensor.name)
    if stored is None:
        raise PlanError(f"{stage.name}: {read.text} is an input; windows are cut out of a buffer")
    if stored.has_margin and ctx.plan.by_name[ctx.plan.owner(stored.name)].accumulates:
        inside_box(stored.tensor, read.at, scope)
    axes = [_axis(stored, axis, e, scope) for axis, e in enumerate(read.at)]
    if flat:
        axes = [*axes[:-2], axes[-2].times(stored.dims[-1] or 0, axes[-1].level)]
    cut = [(k, axis) for k, axis in enumerate(axes) if axis.cell is not None]
    owner = ctx.arrays[stored.name].split(".")[0]
    array = f"self.{stored.name}{_flattened(stored) if flat else ''}"
    if cut:
        sides = f"{tuple(axis.width for _, axis in cut)}, axis={tuple(k for k, _ in cut)}"
        array = f"np.lib.stride_tricks.sliding_window_view({array}, {sides})"
    tokens = ", ".join([*(axis.token for axis in axes), *(axis.cells for _, axis in cut)])
    attribute = f"{stored.name}_{stage.name}"
    ctx.views[attribute] = (owner, f"{array}[{tokens}]")
    levels = [axis.level for axis in axes if axis.level is not None]
    return View(f"{owner}.{attribute}", (*levels, *(axis.cell for _, axis in cut if axis.cell is not None)))


@dataclass(frozen=True)
class _Axis:
    """One axis of what is read: the slice of a variable and, if there is a second variable, the window it runs over.

    A slice is its lowest cell, its step and the number of its cells; without a variable it is that lowest cell.
    """

    first: int
    step: int
    count: int
    level: int | None
    cell: int | None = None
    cell_step: int = 0
    cell_count: int = 0
    whole: bool = False

    def times(self, columns: int, level: int | None) -> _Axis:
        """The same in cells of an array whose rows, ``columns`` long, follow each other."""
        return _Axis(
            self.first * columns, 1, self.count * columns, level, self.cell, self.cell_step * columns, self.cell_count
        )

    @property
    def width(self) -> int:
        """How many cells a window spans."""
        return abs(self.cell_step) * (self.cell_count - 1) + 1

    @property
    def token(self) -> str:
        """The positions of windows."""
        if self.level is None:
            return str(self.first)
        return ":" if self.whole else _run(self.first, self.step, self.count)

    @property
    def cells(self) -> str:
        """The cells within a window."""
        return _run(0, self.cell_step, self.cell_count)


def _axis(stored: Stage, axis: int, e: Index, scope: Scope) -> _Axis:
    """The axis of a stage at an index of at most two variables."""
    size = stored.stored(axis)
    if size is None:
        (level,) = e.variables if len(e.variables) == 1 else (-1,)
        if e != var(level):
            raise PlanError(f"{stored.name}: the batch is read at {e.text}, not at its own variable")
        return _Axis(0, 1, 0, level, whole=True)
    shifted = e - stored.tensor.box[axis][0] + stored.margin[axis][0]
    first, last = scope.low(shifted), scope.high(shifted)
    if first < 0 or last >= size:
        raise PlanError(f"{stored.name}: cells {first}..{last} are read and 0..{size - 1} stored; it needs a margin")
    slopes = {level: _slope(stored, shifted, level) for level in sorted(e.variables)}
    if not slopes:
        return _Axis(first, 1, 1, None)
    if len(slopes) > 2:
        raise PlanError(f"{stored.name}: the index {e.text} has more than two variables")
    # Positions go forwards; of two variables that do, the outer one, which is an axis of the result or first summed.
    position = min(slopes, key=lambda level: (slopes[level] < 0, level))
    step, count = slopes.pop(position), _count(scope, position)
    if not slopes:
        return _Axis(first, step, count, position, whole=step == 1 and count == size)
    ((cell, cell_step),) = slopes.items()
    return _Axis(first, step, count, position, cell, cell_step, _count(scope, cell))


def _slope(stored: Stage, e: Index, level: int) -> int:
    slope = e.slope(level)
    if slope is None:
        raise PlanError(f"{stored.name}: the index {e.text} does not step by numbers of cells")
    return slope


def _count(scope: Scope, level: int) -> int:
    low, high = scope.intervals[level]
    return number(high - low)


def _run(first: int, step: int, count: int) -> str:
    """The slice of ``count`` cells, ``step`` apart, of which ``first`` is the lowest; backwards for a negative step."""
    start = first if step > 0 else first - step * (count - 1)
    end = start + step * (count - 1) + (1 if step > 0 else -1)
    return f"{start}:{'' if end < 0 else end}" + ("" if step == 1 else f":{step}")
