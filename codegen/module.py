"""The emitted file: a plan printed as one standalone Python module, the same bytes on every machine and run.

The skeleton of a module is a jinja2 template; the statements are the stages, each under a comment with its definition,
sorted into functions by phase: what depends on parameters only, what is done for each block of the batch, what is
summed over blocks, what is left at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from codegen.plan import Phase, Plan, Stage, is_batch, number
from codegen.templates.numpy import buffers, print_stage
from codegen.templates.numpy.text import Context, constant_name
from codegen.wording import formula, wrapped
from derive.indices import symbol, var
from derive.terms import Read

BATCHED: tuple[Phase, ...] = ("block", "accumulate")
MERGING = ("matmul", "grouped", "shifted")  # templates that print a product of merged axes


@dataclass(frozen=True)
class Function:
    """One function of an emitted module: what it is called, what it takes, what it says and what it does."""

    name: str
    arguments: str
    doc: str
    lines: tuple[str, ...]


def printed(ctx: Context, stages: Iterable[Stage]) -> tuple[str, ...]:
    """The statements of these stages, each under its definition."""
    lines: list[str] = []
    for stage in stages:
        text = print_stage(ctx, stage)
        if stage.template == "constant" and len(stage.body.monomials) > 1:
            continue  # a matrix of numbers: they stand where the buffers are made
        lines.extend(f"# {line}" for line in wrapped(formula(stage)))
        lines.extend(text)
    return tuple(lines)


def context(plan: Plan, inputs: Mapping[str, str]) -> Context:
    """Where every tensor of the plan is found: inputs as given, stages as ``Plan.arrays`` says."""
    return Context(plan, {**inputs, **plan.arrays})


def changes_of_layout(plan: Plan) -> str:
    """The copies of arrays from outside into another order of axes, by name, and that of a result."""
    names = [s.name for s in plan.conversions]
    if len(plan.outputs) == 1:
        (output,) = (plan.by_name[name] for name in plan.outputs.values())
        turned = output.name not in plan.placed or output.template == "scatter" or _reads_across(output)
        names += ["the result"] if None in output.dims and turned else []
    names += [f"{name} where it is not C-contiguous" for name in _merged(plan)]
    return f"Changes of layout: {', '.join(names) or 'none'}."


def _merged(plan: Plan) -> list[str]:
    """The arguments with a batch whose axes a product merges, which takes a copy unless they lie in their order."""
    aliases = {s.name: s.body.tensors for s in plan.stages if s.template == "alias"}
    read = {t.name for s in plan.stages if s.template in MERGING for t in s.body.tensors}
    read |= {t.name for name in read & set(aliases) for t in aliases[name]}
    return [t.name for t in plan.inputs if t.name in read and any(map(is_batch, t.box)) and t.rank > 2]


def _reads_across(stage: Stage) -> bool:
    """Whether it reads an array of its own rank with a batch in another order of axes."""
    rank = stage.tensor.rank
    reads = [f for m in stage.body.monomials for f in m.factors if isinstance(f, Read) and f.tensor.rank == rank]
    return any(read.at[-1] != var(rank - 1) for read in reads if any(map(is_batch, read.tensor.box)))


def chosen(plan: Plan, names: set[str], phases: Iterable[str]) -> list[Stage]:
    """The stages of these names and phases, in the order of the plan."""
    wanted = set(phases)
    return [s for s in plan.stages if s.name in names and plan.phases[s.name] in wanted]


def formed_once(ctx: Context, plan: Plan) -> list[str]:
    """The lines that form what is made of numbers alone, such as products of constant matrices, with the buffers."""
    stages = chosen(plan, set(plan.numbers), ["prologue"])
    return [re.sub(r"\bw\.", "self.", line) for line in printed(ctx, stages)]


def constants(ctx: Context) -> list[tuple[str, int, int]]:
    """The rational constants that were printed: attribute, numerator, denominator."""
    return [(constant_name(c), c.numerator, c.denominator) for c in sorted(ctx.constants)]


def sums(plan: Plan) -> list[str]:
    """The arrays that a gradient sums into, zeroed before the first block."""
    found: dict[str, None] = {}
    for s in plan.stages:
        if plan.phases[s.name] == "accumulate":
            matrix = plan.part_of.get(s.name)
            found[f"self.{matrix.name if matrix else s.name}"] = None
    return list(found)


def network_source(plan: Plan, title: str, provenance: str) -> str:
    """The text of a network's module."""
    forward, loss, *gradients = plan.outputs.values()
    public = {key: f'params["{key}"]' for key in plan.parameters}
    inputs = {"X": "X", "T": "T", **{plan.parameters[key]: text for key, text in public.items()}}
    ctx = context(plan, inputs)
    ahead, to_loss, every = plan.needed(forward), plan.needed(loss), {s.name for s in plan.stages}
    functions = [
        _prologue(ctx, chosen(plan, every, ["prologue"])),
        Function("_forward", "w, v, params, X", "One block of images, up to the logits.",
                 overflowing(printed(ctx, chosen(plan, ahead, BATCHED)))),
        Function("_loss", "w, v, T", "The loss of one block, added to that of the blocks before.",
                 printed(ctx, chosen(plan, to_loss - ahead, BATCHED))),
        Function("_backward", "w, v, params", "The gradients of one block, added to those of the blocks before.",
                 printed(ctx, chosen(plan, every - to_loss - ahead, BATCHED))),
        Function("_finish_loss", "w", "What is left of the loss after the last block.",
                 printed(ctx, chosen(plan, to_loss, ["epilogue"]))),
        Function("_finish_gradients", "w", "From sums over the batch to the gradients of the parameters.",
                 printed(ctx, chosen(plan, every - to_loss, ["epilogue"]))),
    ]  # fmt: skip
    made = buffers(ctx, plan)
    by_name = {t.name: t for t in plan.inputs}
    return template("network").render(
        title=title, provenance=provenance, block=plan.block, functions=functions,
        layout=changes_of_layout(plan), windows=helper(),
        parameters={key: shape_of(by_name[name]) for key, name in plan.parameters.items()},
        input=shape_of(by_name["X"])[1:], classes=shape_of(by_name["T"])[-1],
        logits=forward, loss=loss, block_buffers=made["v"], buffers=made["w"], constants=constants(ctx),
        sums=sums(plan), gradients=dict(zip(plan.parameters, gradients, strict=True)),
    )  # fmt: skip


def overflowing(lines: Iterable[str]) -> tuple[str, ...]:
    """The same where exp may overflow in silence: a sigmoid recip(1 + exp(-z)) is then the 0 that it should be."""
    return 'with np.errstate(over="ignore"):', *(f"    {line}" for line in lines)


def _prologue(ctx: Context, stages: list[Stage]) -> Function:
    lines = (*printed(ctx, stages), "for array in w.sums:", "    array.fill(0)")
    doc = "What depends on the parameters only; sums over blocks start at 0."
    return Function("_prologue", "w, params", doc, lines)


def shape_of(t: Any) -> tuple[int, ...]:
    """The sizes of a tensor; -1 for the batch."""
    sizes = [hi - lo for lo, hi in t.box]
    return tuple(-1 if s == symbol("N") else number(s) for s in sizes)


@cache
def helper() -> str:
    """The function of an emitted module that makes a view of overlapping windows."""
    return (resources.files("codegen") / "templates" / "numpy" / "windows.py.j2").read_text(encoding="utf-8").rstrip()


@cache
def template(name: str) -> Template:
    """The skeleton of a module: ``network`` or ``convolution``."""
    loader = PackageLoader("codegen", "templates/numpy")
    environment = Environment(loader=loader, undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.get_template(f"{name}.py.j2")
