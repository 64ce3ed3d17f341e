"""What the plans of convolutions share: windows and tiles of them, and how stages become plans.

With a tile of t outputs an axis (for a pool of t that follows) the window of a whole tile is laid out once,
``e < (t-1) s + d (k-1) + 1`` cells, of which output r of the tile sees kernel cell a at ``e == a d + r s``.  That
multiplies some zeros and copies each input cell fewer times.  The tile index r is an axis of the result, so that
pooling is a sum of slabs.  With a tile of one output the window has the k cells that count, and there are no axes r.

Letters: b image, n output channel, c input channel, i output position (j tile, r within it), a kernel cell,
e window cell, h input cell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codegen.plan import Matrix, Plan, Stage
from codegen.plans.blocks import Rule, batch_innermost
from derive.indices import Index, Interval, index, variables
from derive.layers import Applied, Conv, Window
from derive.terms import Tensor, define, term


@dataclass(frozen=True)
class Windows:
    """One convolution in a plan: its windows, the tile and how many tiles there are an axis, and names' suffix."""

    windows: tuple[Window, ...]
    tile: int
    tiles: tuple[Index, ...]
    suffix: str

    @property
    def axes(self) -> int:
        """The number of spatial axes."""
        return len(self.windows)

    @property
    def slots(self) -> tuple[Interval, ...]:
        """The axes r of the outputs within a tile; none for a tile of one."""
        return ((index(0), index(self.tile)),) * (self.axes if self.tile > 1 else 0)

    @property
    def cells(self) -> tuple[Index, ...]:
        """How many cells of a window are laid out, an axis."""
        if self.tile == 1:
            return tuple(w.kernel for w in self.windows)
        return tuple(w.stride * (self.tile - 1) + w.extent for w in self.windows)

    @property
    def step(self) -> tuple[Index, ...]:
        """The distance of two laid-out cells in the input: the dilation for a single output, else one."""
        return tuple(w.dilation if self.tile == 1 else index(1) for w in self.windows)

    def read(self, axis: int, j: Index, e: Index) -> Index:
        """The input cell that is cell ``e`` of the window of tile ``j``."""
        w = self.windows[axis]
        return j * (w.stride * self.tile) + e * self.step[axis] - w.before

    def place(self, axis: int, r: Index, a: Index) -> Index:
        """The window cell under kernel cell ``a`` for output ``r`` of the tile."""
        w = self.windows[axis]
        return a if self.tile == 1 else a * w.dilation + r * w.stride

    def margin(self) -> tuple[tuple[Index, Index], ...]:
        """Zeros around channels, spatial axes and batch of the input that the windows reach."""
        none = (index(0), index(0))
        sides = []
        for axis, w in enumerate(self.windows):
            last = self.read(axis, self.tiles[axis] - 1, self.cells[axis] - 1)
            beyond = (last - (w.size - 1)).constant
            sides.append((w.before, index(max(0, beyond or 0))))
        return (none, *sides, none)

    def letters(self, name: str) -> str:
        """One letter an axis: ``j0 j1``; for r, one an axis of the tile."""
        return " ".join(self.loops(name))

    def loops(self, name: str) -> tuple[str, ...]:
        """The same as a tuple."""
        return tuple(f"{name}{axis}" for axis in range(len(self.slots) if name == "r" else self.axes))


def windows_of(applied: Applied, tile: int, tiles: tuple[Index, ...], suffix: str) -> Windows:
    """The windows of a convolution, for tiles of ``tile`` outputs an axis."""
    return Windows(applied.windows, tile, tiles, suffix)


# --- a convolution by itself --------------------------------------------------------------------------------------


def single(applied: Applied) -> Windows:
    """The windows of a convolution that nothing follows: a tile is one output."""
    return Windows(applied.windows, 1, tuple(w.output for w in applied.windows), "")


def is_grouped(applied: Applied) -> bool:
    """Whether the channels are cut into groups."""
    return isinstance(applied.layer, Conv) and applied.layer.is_grouped


def channel(applied: Applied, n: Index, c: Index) -> Index:
    """The input channel that is number ``c`` of those that output ``n`` reads."""
    layer = applied.layer
    if not (isinstance(layer, Conv) and layer.is_grouped):
        return c
    inputs, outputs = layer.group_sizes()
    return n // outputs * inputs + c


def cotangent_of(applied: Applied) -> Tensor:
    """A free tensor G of the shape of the output: the gradients are those of ``Sum G Z``."""
    return Tensor("G", applied.y.box)


def bias_gradient(applied: Applied, w: Windows) -> Stage:
    """``du[n] = Sum_{b,j} G[b,n,j]``, read where the cotangent lies."""
    g = cotangent_of(applied)
    n, b, js = variables(0, 1)[0], variables(1, 1)[0], variables(2, w.axes)
    body = term(1, g[(b, n, *js)], over=[g.box[0], *g.box[2:]])
    return Stage(define("du", [g.box[1]], body), "reduce", f"n b {w.letters('j')}")


def planned(
    algorithm: str, applied: Applied, itemsize: int, results: Mapping[str, Result], *, block: Rule = batch_innermost
) -> dict[str, Plan]:
    """A plan for each result, and for the bias gradient, which every algorithm sums alike.

    A plan reads the inputs it needs and works on a block of the batch at a time, of as many images as the rule says.
    """
    if "bias" in applied.parameters:
        results = {**results, "bias_gradient": Result((bias_gradient(applied, single(applied)),))}
    everything = (applied.x, *applied.parameters.values(), cotangent_of(applied))
    plans = {}
    for name, result in results.items():
        read = {t.name for s in result.stages for t in s.body.tensors}
        inputs = tuple(t for t in everything if t.name in read)
        parameters = {key: t.name for key, t in applied.parameters.items() if t.name in read}
        output = {name: result.stages[-1].name}
        images = block(inputs, result.stages, itemsize)
        plans[name] = Plan(algorithm, inputs, result.stages, output, result.matrices, parameters, images)
    return plans


@dataclass(frozen=True)
class Result:
    """The stages of one result, the last of which is the result, and the matrices they lie in."""

    stages: tuple[Stage, ...]
    matrices: tuple[Matrix, ...] = ()
