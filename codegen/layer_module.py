"""The emitted file of a layer by itself: a function for each result, each with a workspace of its own.

A convolution, or a dense layer, has four and ``backward``; a layer without parameters has ``forward`` and
``input_gradient``.

Every result has a small plan, so a call makes only the buffers that it needs.  A function's text is its stages by
phase: first what depends on parameters only, then what is done for each block of the batch, at whose end the result is
put with its batch first; a gradient by a parameter is what was summed over the blocks.  A result in bands of rows has
the stages of one band, in a loop over the first rows (``codegen.plans.bands``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from codegen.functions import arguments, workspace
from codegen.layer_words import INPUT_SHAPE, NO_BIAS, SIGNATURES, described, is_weighted, sizes, words
from codegen.module import (
    BATCHED,
    changes_of_layout,
    chosen,
    constants,
    context,
    formed_once,
    helper,
    overflowing,
    printed,
    sums,
    template,
)
from codegen.plan import Plan, Stage, number
from codegen.plans.bands import Bands, Reading
from codegen.templates.numpy import buffers
from codegen.templates.numpy.scope import Scope
from codegen.templates.numpy.text import Context
from codegen.templates.numpy.views import stored_view
from derive.indices import variables
from derive.layers import Applied, Linear

TILED = ("toeplitz2", "winograd2", "winograd4", "nested")
BLOCKS = {"X": "input", "G": "grad_output"}


@dataclass(frozen=True)
class Function:
    """One function of the module and its workspace, as the pieces of text that the template puts together."""

    name: str
    arguments: str
    doc: str
    checked: str
    before: tuple[str, ...]
    lines: tuple[str, ...]
    after: tuple[str, ...]
    workspace: str
    batched: bool
    leader: str  # the argument that the result lies as; "" where the result is always C-contiguous
    block: int
    buffers: tuple[str, ...]
    block_buffers: tuple[str, ...]
    constants: tuple[tuple[str, int, int], ...]


def layer_source(
    applied: Applied,
    plans: Mapping[str, Plan],
    title: str,
    provenance: str,
    *,
    dtype: str = "float32",
    bands: Mapping[str, Bands] | None = None,
) -> str:
    """The text of the module of a layer, from the plans of its results.

    ``applied`` has numbers for all sizes but the batch; ``title`` and ``provenance`` are quoted at the head of the
    module; ``dtype`` is the one that a workspace has unless told otherwise.  A result in ``bands`` is printed in them.
    Raises PlanError for a plan that breaks a rule of layout or that no template can print.
    """
    cut = {} if bands is None else bands
    functions = [_function(name, plan.check(), applied, cut.get(name)) for name, plan in plans.items()]
    shapes = {
        "input": sizes(applied.x.box[1:]),
        "grad_output": sizes(applied.y.box[1:]),
        **{key: sizes(t.box) for key, t in applied.parameters.items()},
    }
    return template("layer").render(
        title=title, provenance=provenance, words=words(applied), bias="bias" in applied.parameters,
        weighted=is_weighted(applied), dense=isinstance(applied.layer, Linear), shapes=shapes, dtype=dtype,
        functions=functions,
        rational=any(map(_is_rational, functions)),
        following=[f.name for f in functions if f.leader], shared=_sharing(plans),
        windows=helper() if any(map(_has_windows, functions)) else "", bands=list(cut),
        beyond=not all(own.band.reading.is_inside for own in cut.values()),
    )  # fmt: skip


def _function(name: str, plan: Plan, applied: Applied, bands: Bands | None = None) -> Function:
    plan = plan if bands is None else bands.plan.check()
    ctx = context(
        plan, {**{block: block for block in BLOCKS}, **{t.name: key for key, t in applied.parameters.items()}}
    )
    every = set(plan.by_name)
    output = plan.by_name[plan.outputs[name]]
    batched = plan.phases[output.name] == "block"
    once = formed_once(ctx, plan)
    prologue = printed(ctx, chosen(plan, every - plan.numbers, ["prologue"]))
    before = [*prologue, *(_zeroed(text) for text in sums(plan))]
    head = [_slices(plan), *_placed(plan)] if bands is None else _rows(bands)
    lines = [*head, *_printed(ctx, chosen(plan, every, BATCHED))]
    if bands is not None:
        lines = [_every_band(bands), *(f"    {line}" for line in lines)]
    after = [*printed(ctx, chosen(plan, every, ["epilogue"]))]
    weighted = is_weighted(applied)
    checked = [key for key in arguments(name, weighted=weighted) if key != "bias" or "bias" in applied.parameters]
    leader = checked[0] if batched and (plan.follows or (not weighted and applied.x.rank > 2)) else ""
    if batched:
        like = f", like={leader}" if leader else ""
        before.append(f"result = _result(out, {_result_shape(name)}, w.dtype, {', '.join(checked)}{like})")
        if not plan.placed:
            lines.append(f"result[low:high] = {_batch_first(ctx, output)}")
    made = buffers(ctx, plan)
    layout = changes_of_layout(plan) if weighted else "Changes of layout: none."  # it is written through views alone
    return Function(
        name, SIGNATURES[weighted][name], f"{described(name, applied)}\n\n    {layout}",
        ", ".join(f"{key}={key}" for key in checked),
        (*_conditions(name, applied), *before), tuple(lines),
        (*after, "return result" if batched else f"return w.{output.name}.copy()"),
        workspace(name), batched, leader, plan.block,
        (*made["w"], *once), (*made["v"], *_beyond(bands)), tuple(constants(ctx)),
    )  # fmt: skip


def _printed(ctx: Context, stages: list[Stage]) -> tuple[str, ...]:
    """The statements of these stages, where exp may overflow in silence: a reciprocal of it is then the right 0."""
    lines = printed(ctx, stages)
    return overflowing(lines) if any("np.exp(" in line for line in lines) else lines


def _sharing(plans: Mapping[str, Plan]) -> str:
    """The results that are computed for tiles of several outputs at once, as the beginning of a sentence."""
    names = [name for name, plan in plans.items() if name != "bias_gradient" and plan.algorithm in TILED]
    return f"{', '.join(names)} {'computes' if len(names) == 1 else 'compute'}" if names else ""


def _has_windows(f: Function) -> bool:
    """Whether it keeps views of overlapping windows."""
    return any("windows(" in line for line in f.block_buffers)


def _is_rational(f: Function) -> bool:
    """Whether it makes rational numbers in the dtype of its workspace."""
    return bool(f.constants) or any("ratio(" in line for line in f.buffers)


def _zeroed(text: str) -> str:
    return f"{text.replace('self.', 'w.', 1)}.fill(0)"


def _slices(plan: Plan) -> str:
    """The blocks of the inputs that have a batch."""
    read = [t.name for t in plan.inputs if t.name in BLOCKS]
    return f"{', '.join(read)} = {', '.join(f'{BLOCKS[name]}[low:high]' for name in read)}"


def _placed(plan: Plan) -> list[str]:
    """The part of the result in which a block's output is formed, where it is formed there."""
    return [f"{name} = result[low:high]" for name in sorted({plan.owner(s) for s in plan.placed})]


# --- bands of rows --------------------------------------------------------------------------------------------------


def _every_band(bands: Bands) -> str:
    """The loop over the first rows; the last band ends where the result does."""
    *_, last = bands.starts
    return f"for row in (*range(0, {last}, {bands.rows}), {last}):"


def _rows(bands: Bands) -> list[str]:
    """The rows that a band reads and those that it is, under the formulas for both."""
    reading, (output,) = bands.band.reading, bands.plan.outputs.values()
    public, first = BLOCKS[reading.tensor.name], _first(reading)
    others = "".join(f",h{axis}" for axis in range(1, reading.tensor.rank - 2))
    read, formed = ("c", "n") if reading.tensor.name == "X" else ("n", "c")
    comment = (
        f"# {reading.tensor.name}[b,{read},h0{others}] = {public}[b,{read},h0 + {first}{others}], "
        f"{output}[b,{formed},h0{others}] = result[b,{formed},h0 + row{others}]"
    )
    images, span = f"{public}[low:high]", number(reading.span)
    taken = f"_rows({images}, {first}, v.{reading.tensor.name}_rows)"
    if reading.is_inside:
        taken = f"{public}[low:high, :, {first}:{first} + {span}]"
    placed = sorted({bands.plan.owner(s) for s in bands.plan.placed})
    parts = [f"{name} = result[low:high, :, row:row + {bands.rows}]" for name in placed]
    return [comment, f"{reading.tensor.name} = {taken}", *parts]


def _first(reading: Reading) -> str:
    """The first row that the band from ``row`` on reads."""
    step, before = number(reading.step), number(reading.before)
    scaled = "row" if step == 1 else f"{step} * row"
    return scaled if not before else f"{scaled} {'-' if before > 0 else '+'} {abs(before)}"


def _beyond(bands: Bands | None) -> list[str]:
    """A buffer for rows some of which are outside of the image, channels last as those that are read from it."""
    if bands is None or bands.band.reading.is_inside:
        return []
    reading = bands.band.reading
    channels, *spatial = (number(hi) for _, hi in reading.box()[1:])
    sides = ", ".join(map(str, (*spatial, channels)))
    return [f"self.{reading.tensor.name}_rows = np.moveaxis(np.empty((b, {sides}), dtype), -1, 1)"]


def _result_shape(name: str) -> str:
    own, leader = ("grad_output", "input") if name == "forward" else ("input", "grad_output")
    return f'(len({leader}), *SHAPES["{own}"])'


def _batch_first(ctx: Context, stage: Stage) -> str:
    """A stage without its margins, the batch put first."""
    rank, batch = stage.tensor.rank, stage.dims.index(None)
    scope = Scope(stage.names[:rank], stage.tensor.box, frozenset())
    view = stored_view(ctx.plan, ctx.arrays[stage.name], stage.tensor, variables(0, rank), scope)
    return view.aligned((batch, *(axis for axis in range(rank) if axis != batch)))


def _conditions(name: str, applied: Applied) -> tuple[str, ...]:
    """What is checked besides the arrays."""
    if not is_weighted(applied):
        return ()
    if name == "forward" and "bias" not in applied.parameters:
        return NO_BIAS
    return INPUT_SHAPE if name == "input_gradient" else ()
