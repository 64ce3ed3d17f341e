"""Deliberate faults in the algorithms for a single convolution, as in ``test_faults``: planted, and killed.

A fault in a plan changes its stages, so its theorem is refused, whatever the text does.  A fault in a template leaves
the stages as they are, so exact execution finds the first stage that the text gets wrong.  What no template may print
is refused when it is printed.
"""

import importlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from codegen.check import check
from codegen.emit import emit
from codegen.execution import Refuted
from codegen.module import context, printed
from codegen.plan import BATCH, Plan, PlanError, Stage
from codegen.plans import claims, gemm, im2col, nested, nhwc, phases, shift, toeplitz, winograd
from codegen.plans.algorithms import UNIT_STEPS, UNIT_STRIDE, Kind, with_kernel
from codegen.plans.convolution import Windows
from codegen.templates import numpy as templates
from codegen.templates.numpy import clipping
from derive.indices import Index, index, var, variables
from derive.layers import Conv, Conv1d, Conv2d
from derive.obligations import Refused
from derive.terms import Expr, Tensor, define, expression, tensor, term
from derive.toomcook import ToomCook, toom_cook

Patch = pytest.MonkeyPatch
SQUARE = Conv2d(2, 2, 3, padding=1)


# --- the checks ---------------------------------------------------------------------------------------------------


def prove(algorithm: str, results: Iterable[str], axes: int = 1) -> None:
    """The theorems about some results, for all sizes."""
    limits = {"winograd2": with_kernel(3), "nested": UNIT_STEPS, "shift": UNIT_STRIDE}.get(algorithm, ())
    known = claims.claims(Kind(algorithm, axes, limits=limits))
    for result in results:
        known[result].prove()


def execute(algorithm: str, layer: Conv = SQUARE, shape: tuple[int, ...] = (3, 2, 5, 4)) -> None:
    """Exact execution of every result, on outputs that are no whole tiles, in blocks that do not divide the batch."""
    check(emit(layer, input_shape=shape, algorithm=algorithm))


# --- the faults: in plans -----------------------------------------------------------------------------------------


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


# --- the faults: in templates -------------------------------------------------------------------------------------


def wrong_matrix_in_the_text(patch: Patch) -> None:
    """One entry of the first printed matrix of numbers has the other sign."""
    original = templates.numbers

    def numbers(stage: Stage) -> list[str]:
        head, *rows = original(stage)
        return [head, *(row.replace("-1", "1") for row in rows)] if rows else [head]

    patch.setattr(templates, "numbers", numbers)


def last_tile_dropped(patch: Patch) -> None:
    """What is left of the last tile is not put into the result: right where tiles are whole."""
    scatter = importlib.import_module("codegen.templates.numpy.scatter")
    original = scatter.clips_of

    def clips_of(*arguments: Any, **more: Any) -> clipping.Clips:
        found = original(*arguments, **more)
        return {level: replace(clip, cells=clip.cells // clip.step * clip.step) for level, clip in found.items()}

    patch.setattr(scatter, "clips_of", clips_of)


def clip_off_by_one(patch: Patch) -> None:
    """What is cut off at the front of a copy is one cell too little of the one and too much of the other."""
    original = clipping.Clip.of_variable

    def of_variable(self: clipping.Clip, scope: Any) -> str:
        low, high = original(self, scope).split(":")
        return f"{low} + 1:{high} + 1" if high != str(self.length) else f"{low}:{high}"

    patch.setattr(clipping.Clip, "of_variable", of_variable)


def last_block_only(patch: Patch) -> None:
    """A sum over the batch keeps the last block: right for every batch that fits into one."""
    for name in ("matmul", "reduce", "dot"):
        original = getattr(templates, name)
        patch.setattr(templates, name, _overwriting(original))


def _overwriting(original: Callable[..., list[str]]) -> Callable[..., list[str]]:
    return lambda ctx, stage, **_: original(ctx, stage, accumulate=False)


def factors_not_turned(patch: Patch) -> None:
    """In a batch of products, a factor that is stored the other way round is not transposed: the shapes may fit."""
    matmul = importlib.import_module("codegen.templates.numpy.matmul")
    original = matmul._operand
    patch.setattr(matmul, "_operand", lambda *a: original(*a).replace(".transpose(0, 2, 1)", ""))


def batch_turned(patch: Patch) -> None:
    """The products of a batch are taken in another order on the left than on the right."""
    original = templates.matmul

    def matmul(ctx: Any, stage: Stage, **more: Any) -> list[str]:
        return [
            re.sub(r"np\.matmul\(([^,]+), ", r"np.matmul(\1[::-1], ", line) if stage.name == "M" else line
            for line in original(ctx, stage, **more)
        ]

    patch.setattr(templates, "matmul", matmul)


def shifted_module() -> Any:
    """The template's module; its name in the package is the function."""
    return importlib.import_module("codegen.templates.numpy.shifted")


def shifted_by_one_more(patch: Patch) -> None:
    """Every shift passes one cell more than its rows have: an image wraps round."""
    original = shifted_module()._tail
    patch.setattr(shifted_module(), "_tail", lambda stored, axis: original(stored, axis) + (stored.name == "Go"))


def never_shifted(patch: Patch) -> None:
    """Every kernel row multiplies the rows of the first: right for kernels of one row."""
    original = shifted_module()._cells

    def cells(stored: Stage, turn: Any, here: Any, *rest: Any) -> str:
        return original(stored, turn, here.written_out({turn.level: 0}), *rest)

    patch.setattr(shifted_module(), "_cells", cells)


def products_not_added(patch: Patch) -> None:
    """The product of the last kernel row is kept, and not the sum of all."""
    original = templates.shifted

    def shifted(ctx: Any, stage: Stage) -> list[str]:
        return [re.sub(r"np\.add\(([^,]+), ([^,]+), out.*", r"np.copyto(\1, \2)", s) for s in original(ctx, stage)]

    patch.setattr(templates, "shifted", shifted)


def bias_left_out_of_the_text(patch: Patch) -> None:
    """What is added to every cell where tiles are put together is not added."""
    scatter = importlib.import_module("codegen.templates.numpy.scatter")
    patch.setattr(scatter, "_plus", lambda c, p, at, moved, target, s: f"np.copyto({target.text}, {moved.source})")


def the_last_slice_counts(patch: Patch) -> None:
    """Slices that meet are copied over one another: right where strides and dilations have no divisor in common."""
    scatter = importlib.import_module("codegen.templates.numpy.scatter")
    patch.setattr(scatter, "_met", lambda *_: "at most once")


def nothing_where_no_slice_goes(patch: Patch) -> None:
    """Cells of the result that no slice meets are left as they were."""
    scatter = importlib.import_module("codegen.templates.numpy.scatter")
    patch.setattr(scatter, "_met", lambda *_: "once")


def result_of_the_first_block(patch: Patch) -> None:
    """Every block is put where the first one lies: right where there is one block."""
    module = importlib.import_module("codegen.convolution_module")
    original = module._placed
    patch.setattr(module, "_placed", lambda plan: [s.replace("low:high", "0:high - low") for s in original(plan)])


def layout_not_kept(patch: Patch) -> None:
    """An array that lies channels last is refused for a result that promises to keep that layout."""
    module = importlib.import_module("codegen.convolution_module")
    original = module._function

    def function(*given: Any) -> Any:
        made = original(*given)
        return replace(made, before=tuple(re.sub(r", like=\w+", "", line) for line in made.before))

    patch.setattr(module, "_function", function)


# --- the table ----------------------------------------------------------------------------------------------------

GRADIENTS = ("input_gradient", "weight_gradient")


@dataclass(frozen=True)
class InPlan:
    """A fault in a plan, and the theorems it takes away."""

    plant: Callable[[Patch], None]
    algorithm: str
    results: tuple[str, ...]


IN_PLANS = (
    InPlan(wrong_tile_origin, "winograd2", ("forward", *GRADIENTS)),
    InPlan(wrong_matrix_in_the_plan, "winograd2", ("forward", *GRADIENTS)),
    InPlan(kernel_not_flipped, "winograd2", ("input_gradient",)),
    InPlan(bias_twice, "winograd2", ("forward",)),
    InPlan(cotangent_one_tile_too_far, "toeplitz2", GRADIENTS),
    InPlan(windows_without_padding, "im2col", ("forward", "weight_gradient")),
    InPlan(rows_shifted_back, "shift", ("forward", "weight_gradient")),
    InPlan(cotangent_of_the_next_row, "shift", ("input_gradient",)),
    InPlan(pieces_the_wrong_way_round, "nested", ("input_gradient",)),
    InPlan(residues_not_turned_on, "phases", ("forward", "weight_gradient")),
    InPlan(residues_exchanged, "phases", ("input_gradient",)),
    InPlan(phases_not_dilated, "phases", ("input_gradient",)),
    InPlan(phases_put_side_by_side, "phases", ("input_gradient",)),
    InPlan(kernel_the_wrong_way_round, "nhwc", ("forward", "input_gradient")),
    InPlan(added_back_a_cell_too_far, "nhwc", ("input_gradient",)),
    InPlan(channels_and_outputs_exchanged, "nhwc", ("weight_gradient",)),
)


@pytest.mark.parametrize("fault", IN_PLANS, ids=lambda fault: f"{fault.plant.__name__}")
def test_a_fault_in_a_plan_is_refused_by_the_proof(fault: InPlan, monkeypatch: Patch) -> None:
    prove(fault.algorithm, fault.results)
    fault.plant(monkeypatch)
    for result in fault.results:
        with pytest.raises(Refused):
            prove(fault.algorithm, [result])


STRIDED, WIDE = Conv2d(2, 3, 3, 2, 1), (3, 2, 5, 6)
LONG, SIGNAL = Conv1d(2, 3, 7, padding=2), (3, 2, 8)
IN_TEXTS: list[tuple[Callable[[Patch], None], str, tuple[Any, ...], str]] = [
    (wrong_matrix_in_the_text, "winograd2", (), r"the first stage that is wrong is stage GG "),
    (last_tile_dropped, "winograd2", (), "forward.* is stage Z "),
    (clip_off_by_one, "im2col", (), "wrong is stage Col |broadcast"),
    (last_block_only, "winograd2", (), "weight_gradient.* is stage dU "),
    (last_block_only, "im2col", (), "weight_gradient.* is stage dW "),
    (last_block_only, "nhwc", (), "weight_gradient.* is stage dV "),
    (last_block_only, "phases", (STRIDED, WIDE), "weight_gradient.* is stage dW "),
    (layout_not_kept, "nhwc", (STRIDED, WIDE), "out"),
    (the_last_slice_counts, "phases", (Conv1d(2, 2, 5, 2, dilation=4), (2, 2, 20)), "input_gradient.* is stage dX "),
    (nothing_where_no_slice_goes, "phases", (Conv1d(2, 2, 3, 2, dilation=5), (2, 2, 14)), "input_gradient.* stage dX "),
    (last_block_only, "shift", (), "weight_gradient.* is stage dT "),
    (never_shifted, "shift", (), "forward.* is stage S "),
    (products_not_added, "shift", (), "forward.* is stage S "),
    (shifted_by_one_more, "shift", (), "input_gradient.*(stage dCol|ValueError)"),
    (last_block_only, "toeplitz2", (), "weight_gradient.* is stage dT "),
    (factors_not_turned, "winograd2", (), "weight_gradient.*(mismatch|is stage dU )"),
    (batch_turned, "winograd2", (), "is stage M "),
    (bias_left_out_of_the_text, "nested", (LONG, SIGNAL), "forward.* is stage Z "),
    (result_of_the_first_block, "winograd2", (), "forward"),
    (result_of_the_first_block, "im2col", (STRIDED, WIDE), "forward"),
    (result_of_the_first_block, "nhwc", (STRIDED, WIDE), "forward"),
]


@pytest.mark.parametrize(
    ("plant", "algorithm", "arguments", "says"), IN_TEXTS, ids=[f"{p.__name__}-{a}" for p, a, *_ in IN_TEXTS]
)
def test_a_fault_in_a_template_is_killed_by_execution(
    plant: Callable[[Patch], None], algorithm: str, arguments: tuple[Any, ...], says: str, monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    with pytest.raises(Refuted, match=says):
        execute(algorithm, *arguments)


@pytest.mark.parametrize("algorithm", ["im2col", "nhwc", "shift", "toeplitz2", "winograd2"])
def test_without_a_fault_the_same_checks_pass(algorithm: str) -> None:
    execute(algorithm)
    execute("im2col", STRIDED, WIDE)


@pytest.mark.parametrize("plant", [wrong_tile_origin, kernel_not_flipped])
def test_execution_does_not_replace_the_proof(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """A text that computes wrong stages faithfully is what its plan says; it quotes no theorem for what is wrong."""
    right = emit(SQUARE, input_shape=(3, 2, 5, 4), algorithm="winograd2").theorems
    claims._general.cache_clear()
    plant(monkeypatch)
    execute("winograd2")
    wrong = emit(SQUARE, input_shape=(3, 2, 5, 4), algorithm="winograd2").theorems
    claims._general.cache_clear()
    assert set(wrong) < set(right)


# --- what is not printed ------------------------------------------------------------------------------------------

X, W = tensor("X", BATCH, 2, 6), tensor("W", 3, 2)


def one_product(columns: Stage) -> Plan:
    """``Z[b,n,i] = Sum_c W[n,c] Col[b,c,i]``."""
    b, n, i, c = variables(0, 4)
    body = term(3, W[n, c], columns.tensor[b, c, i], over=[W.box[1]])
    z = Stage(define("Z", [BATCH, 3, 6], body), "matmul", "b n i c")
    return Plan("test", (X, W), (columns, z), {"forward": "Z"})


def alias(body: Callable[[Index, Index, Index], Expr]) -> Plan:
    """The product with a stage that should be another name for the input."""
    return one_product(Stage(define("Col", [BATCH, 2, 6], body(*variables(0, 3))), "alias", "b c i"))


def text(plan: Plan) -> str:
    """What is printed."""
    return "\n".join(printed(context(plan.check(), {t.name: t.name for t in plan.inputs}), plan.stages))


NO_ALIAS: dict[str, Callable[[Index, Index, Index], Expr]] = {
    "a shift": lambda b, c, i: term(3, X[b, c, i + 1]),
    "turned round": lambda b, c, i: term(3, X[b, c, 5 - i]),
    "channels exchanged": lambda b, c, i: term(3, X[b, 1 - c, i]),
    "twice the input": lambda b, c, i: term(3, X[b, c, i], coefficient=2),
    "a sum": lambda b, c, i: term(3, X[b, c, i], over=[(index(0), index(2))]),
    "a product": lambda b, c, i: term(3, X[b, c, i], W[index(0), c]),
    "one channel for all": lambda b, c, i: term(3, X[b, index(0), i]),
}


@pytest.mark.parametrize("body", NO_ALIAS.values(), ids=list(NO_ALIAS))
def test_an_alias_is_an_input_as_it_is(body: Callable[[Index, Index, Index], Expr]) -> None:
    with pytest.raises(PlanError, match=r"Col: .* is not an input with axes of one cell put in between"):
        text(alias(body))


def test_a_plain_alias_is_the_input_itself() -> None:
    product = text(alias(lambda b, c, i: term(3, X[b, c, i]))).splitlines()[-1]
    assert product == "np.matmul(W, X.reshape(-1, 2, 6), out=Z.reshape(-1, 3, 6))"


def test_axes_of_one_cell_may_be_anywhere_in_an_alias() -> None:
    """One channel, one position, a kernel of one cell: every axis but the batch has one cell."""
    for channels, size in ((1, 1), (2, 1), (1, 3)):
        layer = Conv1d(channels, 3, 1)
        assert check(emit(layer, input_shape=(2, channels, size), algorithm="im2col")).rows


@pytest.mark.parametrize(
    ("algorithm", "layer", "message"),
    [
        ("gemm", Conv2d(2, 3, 1, 2), "dIn cannot be a view of dCol: its 40 cells an image are not 12"),
        ("nhwc", Conv2d(2, 3, 2), "Col cannot be a view of In: its 96 cells an image are not 40"),
        ("nhwc", Conv2d(2, 3, 1, padding=1), "Col cannot be a view of In: a margin lies between its elements"),
    ],
)
def test_windows_are_no_view_of_an_image_unless_each_is_a_cell_of_it(
    algorithm: str, layer: Conv, message: str, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(gemm.conv, "is_product", lambda applied: True)
    with pytest.raises(PlanError, match=message):
        emit(layer, input_shape=(3, 2, 5, 4), algorithm=algorithm)


def test_there_are_fifteen_faults_and_more() -> None:
    assert len({fault.plant for fault in IN_PLANS} | {plant for plant, *_ in IN_TEXTS}) >= 15
