"""Faults to plant in the plans of single convolutions: each changes stages, so its theorem has to be refused."""

from dataclasses import replace
from typing import Any

import pytest

from codegen.plan import Stage
from codegen.plans import im2col, nested, nhwc, phases, shift, toeplitz, winograd
from codegen.plans.convolution import Windows
from derive.indices import Index, index, var, variables
from derive.terms import Expr, Tensor, define, expression, term
from derive.toomcook import ToomCook, toom_cook

Patch = pytest.MonkeyPatch


def with_body(stage: Stage, body: Expr) -> Stage:
    """A stage that is defined otherwise."""
    return replace(stage, tensor=define(stage.name, list(stage.tensor.box), body))


def wrong_tile_origin(patch: Patch) -> None:
    """Tiles of the input begin as far apart as they are long, not as far as their outputs."""
    original = winograd._transformed_tiles

    def tiles(tiling: winograd.Tiling, *rest: Any) -> tuple[tuple[Stage, ...], Stage]:
        (inner, gathered, *matrices), v = original(tiling, *rest)
        (m,) = gathered.body.monomials
        (read,) = m.factors
        rank, axes = gathered.tensor.rank, tiling.axes
        b, *cells, c = read.at
        moved = [e + (f.r - 1) * var(axes + 1 + k) for k, (e, f) in enumerate(zip(cells, tiling.schemes, strict=True))]
        wrong = with_body(gathered, term(rank, read.tensor[(b, *moved, c)]))
        return (inner, wrong, *matrices), winograd._times(matrices[-1], wrong, "V", v.letters)

    patch.setattr(winograd, "_transformed_tiles", tiles)


def wrong_matrix_in_the_plan(patch: Patch) -> None:
    """One entry of the matrix that transforms the outputs has the other sign."""

    def wrong(m: int, r: int) -> ToomCook:
        right = toom_cook(m, r)
        (first, *row), *rows = right.output
        return replace(right, output=((-first, *row), *rows))

    patch.setattr(winograd, "toom_cook", wrong)


def kernel_not_flipped(patch: Patch) -> None:
    """The gradient of the input runs through the kernel as the forward pass does."""
    original = winograd._flipped

    def flipped(tiling: winograd.Tiling, weight: Any) -> tuple[Stage, ...]:
        *_, turned, _u = original(tiling, weight)
        *a, n, c = variables(0, turned.tensor.rank)
        straight = with_body(turned, term(turned.tensor.rank, weight[(n, c, *a)]))
        return winograd._transformed_kernel(tiling, straight, "n c")

    patch.setattr(winograd, "_flipped", flipped)


def bias_twice(patch: Patch) -> None:
    """The bias is added twice."""
    original = winograd._biased

    def twice(tiling: winograd.Tiling, y: Stage, bias: Tensor) -> Stage:
        stage = original(tiling, y, bias)
        tiles, added = sorted(stage.body.monomials, key=lambda m: m.factors[0].tensor.name != y.name)
        body = expression(stage.body.depth, [tiles, replace(added, coefficient=added.coefficient * 2)])
        return replace(stage, tensor=replace(stage.tensor, body=body))

    patch.setattr(winograd, "_biased", twice)


def cotangent_one_tile_too_far(patch: Patch) -> None:
    """The tiles of the cotangent begin at the second one."""
    original = toeplitz._cotangent

    def cotangent(*arguments: Any) -> Stage:
        stage = original(*arguments)
        (m,) = stage.body.monomials
        (read,) = m.factors
        moved = (*read.at[:-1], read.at[-1] + 2)
        return with_body(stage, term(stage.tensor.rank, read.tensor[moved]))

    patch.setattr(toeplitz, "_cotangent", cotangent)


def windows_without_padding(patch: Patch) -> None:
    """Windows begin at the first cell of the image, wherever the padding begins: right without padding."""
    original = im2col._cells
    patch.setattr(
        im2col,
        "_cells",
        lambda w, a, i: [e + v.before for e, v in zip(original(w, a, i), w.windows, strict=True)],
    )


def pieces_the_wrong_way_round(patch: Patch) -> None:
    """The kernel of the gradient of the input is that of the forward pass: its pieces are not turned."""
    patch.setattr(nested, "_flipped", nested._kernel)


def rows_shifted_back(patch: Patch) -> None:
    """Kernel rows shift the image the other way, from the last one on: right for kernels that read the same upwards."""

    def row(w: Any, i: Index, a: Index) -> Index:
        (v, *_) = w.windows
        return i * v.stride + (v.kernel - 1 - a) * v.dilation - v.before

    patch.setattr(shift, "_row", row)


def cotangent_of_the_next_row(patch: Patch) -> None:
    """The gradient of the input reads the cotangent one row too low."""
    original = shift._cotangent

    def cotangent(applied: Any, w: Any) -> Stage:
        stage = original(applied, w)
        b, n, row, *i = variables(0, stage.tensor.rank)
        (m,) = stage.body.monomials
        return with_body(stage, term(stage.tensor.rank, m.factors[0].tensor[(b, n, row + 1, *i)]))

    patch.setattr(shift, "_cotangent", cotangent)


def residues_not_turned_on(patch: Patch) -> None:
    """Every kernel cell reads the first cell of its residue: right for kernels no longer than the stride."""
    original = phases._columns

    def columns(split: Tensor, w: Any) -> Stage:
        stage = original(split, w)
        (m,) = stage.body.monomials
        (read,) = m.factors
        *before, _ = read.at
        return with_body(stage, term(stage.tensor.rank, split[(*before, var(stage.tensor.rank - 1))]))

    patch.setattr(phases, "_columns", columns)


def residues_exchanged(patch: Patch) -> None:
    """The kernel of a residue is put together from the cells of another: right for stride 1."""
    original = phases._kernel_by_phases

    def kernel(weight: Tensor, w: Any) -> Stage:
        stage = original(weight, w)
        (m,) = stage.body.monomials
        (read,) = m.factors
        n, c, *cells = read.at
        wrong = [
            v.stride - 1 - var(k) + cell - var(k) for k, (v, cell) in enumerate(zip(w.windows, cells, strict=True))
        ]
        return with_body(stage, term(stage.tensor.rank, weight[(n, c, *wrong)]))

    patch.setattr(phases, "_kernel_by_phases", kernel)


def phases_not_dilated(patch: Patch) -> None:
    """Each kernel cell of a phase reads the next cell of the cotangent: right without dilation."""
    original = phases._shifted
    patch.setattr(phases, "_shifted", lambda g, kernel, w: original(g, kernel, undilated(w)))


def phases_put_side_by_side(patch: Patch) -> None:
    """The phases of the image follow each other cell by cell: right without dilation."""
    original = phases._together
    patch.setattr(phases, "_together", lambda x, each, w: original(x, each, undilated(w)))


def undilated(w: Windows) -> Windows:
    return replace(w, windows=tuple(replace(v, dilation=index(1)) for v in w.windows))


def kernel_the_wrong_way_round(patch: Patch) -> None:
    """Convolution instead of cross-correlation: the first cell of a window meets the last of the kernel."""
    original = nhwc._kernel

    def kernel(weight: Tensor, *rest: Any, **how: Any) -> Stage:
        stage = original(weight, *rest, **how)
        (m,) = stage.body.monomials
        (read,) = m.factors
        n, c, *a = read.at
        turned = [size - 1 - cell for (_, size), cell in zip(weight.box[2:], a, strict=True)]
        return with_body(stage, term(stage.tensor.rank, weight[(n, c, *turned)]))

    patch.setattr(nhwc, "_kernel", kernel)


def added_back_a_cell_too_far(patch: Patch) -> None:
    """Windows of ``nhwc`` are added back one cell after where they were cut out."""
    original = nhwc._added

    def added(dcol: Tensor, w: Any, image: Stage) -> Stage:
        return original(dcol, replace(w, windows=tuple(replace(v, before=v.before - 1) for v in w.windows)), image)

    patch.setattr(nhwc, "_added", added)


def channels_and_outputs_exchanged(patch: Patch) -> None:
    """What is summed up as (output, cell, channel) is read as if the channel came first."""
    original = nhwc._weight_gradient

    def gradient(applied: Any, w: Any, col: Stage) -> tuple[Stage, ...]:
        go, each, last = original(applied, w, col)
        n, c, *a = variables(0, last.tensor.rank)
        return go, each, with_body(last, term(last.tensor.rank, each.tensor[(c, *a, n)]))

    patch.setattr(nhwc, "_weight_gradient", gradient)
