"""The emitted file of a network for CuPy: CUDA text, and the functions that launch its kernels in order.

The plan says what is done at once (``codegen.plans.device_network``): here its stages become parts of kernels, each
with its local stages, epilogue and column, and ``codegen.launches`` says which of them share a launch.  The kernels
become functions of the file: forward; the loss by itself; loss and gradients; and what adds up the shares of sums over
the batch.  The last is printed three times: for the loss alone, for all gradients, and for a step of SGD, which takes
each gradient off its parameter and never stores it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from codegen.cupy_module import Printed, largest_narrow_batch
from codegen.module import shape_of
from codegen.network_parts import Launch, Parts, memory, parts_of
from codegen.plan import Plan, extent
from codegen.templates.cuda.kernels import Kernel, Part, aligned, listed, side_by_side, template, times, whole
from codegen.templates.cuda.numbers import NUMBERS
from codegen.templates.cuda.prelude import cuda_text
from codegen.templates.cuda.shares import adding
from codegen.templates.cuda.splitting import BLOCKS

LINE = 112  # characters of a statement of the host on one line


@dataclass(frozen=True)
class Function:
    """One function of the module; ``counted`` where its lines name the batch size N."""

    name: str
    arguments: str
    doc: str
    lines: tuple[str, ...]
    counted: bool = True


@dataclass(frozen=True)
class Adding:
    """A kernel that adds up shares, and the function that launches it.

    ``into`` is how the module calls arrays that are written, by the stages whose shares they are.
    """

    function: str
    arguments: str
    doc: str
    kernel: Kernel
    into: Mapping[str, str]


def network_source(plan: Plan, title: str, provenance: str, *, dtype: str) -> Printed:
    """The text of the module of a network, from its plan.

    Raises PlanError where a stage cannot be printed.
    """
    plan.check()
    numbers = NUMBERS[dtype]
    parts = parts_of(plan, numbers)
    logits = plan.outputs["forward"]
    forward, backward, loss = (
        [_kernel(parts, launch) for launch in some] for some in (parts.forward, parts.backward, parts.loss)
    )
    sums = _adding(parts)
    texts = _texts(plan, logits)
    inner = {**texts, logits: f"w.{logits}"}
    functions = [
        Function("_forward", "w, X, params, logits", "The logits of all images.", _launched(forward, texts)),
        Function("_loss", "w, T", "The loss by itself, in shares.", _launched(loss, inner)),
        Function("_backward", "w, X, T, params", "The loss and the gradients, in shares.", _launched(backward, inner)),
        *(Function(a.function, a.arguments, a.doc, _launched([a.kernel], {**inner, **a.into})) for a in sums),
    ]
    kernels = tuple(dict.fromkeys([*forward, *loss, *backward, *(a.kernel for a in sums)]))
    by_name = {t.name: t for t in plan.inputs}
    given = {"X": '"x"', **{name: f'"params[{key!r}]"' for key, name in plan.parameters.items()}}
    multiples = aligned(kernels)
    cuda = cuda_text(numbers, kernels)
    source = template("network.py").render(
        title=title, provenance=provenance, dtype=dtype, accumulator=numbers.sum_dtype,
        blocks=BLOCKS,
        narrow=largest_narrow_batch({"network": plan}), kernels=kernels, launches=len(forward) + len(backward) + 1,
        source=cuda, parameters={key: shape_of(by_name[name]) for key, name in plan.parameters.items()},
        input=shape_of(by_name["X"])[1:], classes=shape_of(by_name["T"])[-1], logits=logits,
        aligned={text: multiples[name] for name, text in given.items() if name in multiples},
        buffers=_buffers(parts), functions=functions, legend=_legend(plan),
    )  # fmt: skip
    return Printed(source + "\n", cuda, kernels)


def _kernel(parts: Parts, launch: Launch) -> Kernel:
    """The kernel of a launch."""
    if len(launch) == 1 and launch[0].stage not in parts.called:
        return whole(launch[0])
    return side_by_side("_".join(["compute", *(part.stage for part in launch)]), launch, [_said(launch)])


def _said(launch: Launch) -> str:
    names = [part.stage for part in launch]
    if len(names) == 1:
        return f"{names[0]} by itself."
    return f"{', '.join(names[:-1])} and {names[-1]}, none of which needs another: a range of the blocks for each."


def _legend(plan: Plan) -> list[str]:
    """What the tensors are that the definitions speak of."""
    told = [(", ".join(names), meaning) for names, meaning in plan.legend]
    width = max((len(names) for names, _ in told), default=0)
    return [f"{names:{width}}  {meaning}" for names, meaning in told]


def _texts(plan: Plan, logits: str) -> dict[str, str]:
    """How the module names the array of every tensor."""
    found = {"X": "X", "T": "T", **{name: f'params["{key}"]' for key, name in plan.parameters.items()}}
    found |= {s.name: f"w.{memory(plan, s.name)}" for s in plan.stages}
    return {**found, logits: "logits"}


def _buffers(parts: Parts) -> list[str]:
    """The arrays of a workspace."""
    lines = []
    for stage in parts.stored:
        shape = ", ".join("N" if extent(b) is None else str(extent(b)) for b in stage.tensor.box)
        lines.append(f"self.{stage.name} = cupy.empty(({shape}{',' if ',' not in shape else ''}), DTYPE)")
    for shares in parts.shares:
        name = shares.stage.name
        lines += [
            f"sizes = {shares.part.blocks}, {shares.part.terms}, {shares.part.at_once}, {shares.part.ahead}",
            f"self.{name}_cut = share(*sizes), splits(*sizes)",
            f"self.{shares.array} = cupy.empty({times(f'self.{name}_cut[1]', shares.count)}, SUM)",
        ]
    return lines


# --- launches -----------------------------------------------------------------------------------------------------


def _launched(kernels: Iterable[Kernel], texts: Mapping[str, str]) -> tuple[str, ...]:
    """The statements that launch these kernels; arrays that ``texts`` does not name are those of the workspace."""
    lines: list[str] = []
    for kernel in kernels:
        arrays = [texts.get(name, f"w.{name}") for name in kernel.arrays]
        arrays += [text.split()[-1] for text in kernel.scalars]
        numbers = ["N", *(number for part in kernel.parts for number in _numbers(part))]
        blocks = [_blocks(part) for part in kernel.parts]
        if kernel.counted:
            lines += _statement("_side_by_side", kernel, f"({', '.join(blocks)})", arrays, numbers)
        else:
            total = blocks[0] if len(blocks) == 1 else str(sum(map(int, blocks)))
            lines += _statement("_launch", kernel, total, arrays, numbers)
    return tuple(lines)


def _numbers(part: Part) -> list[str]:
    """What a part is passed after the batch size: the length and the number of its shares, or their number only."""
    if part.terms:
        return [f"*w.{part.stage}_cut"]
    return [f"w.{part.stage}_cut[1]"] if part.adds else []


def _blocks(part: Part) -> str:
    """How many blocks a part has."""
    return times(part.blocks, f"w.{part.stage}_cut[1]") if part.terms else part.blocks


def _statement(function: str, kernel: Kernel, blocks: str, arrays: Sequence[str], numbers: Sequence[str]) -> list[str]:
    """The call of a function that launches a kernel, on as many lines as that takes."""
    first, last = f'"{kernel.name}", {blocks}, {kernel.threads}', ", ".join(numbers)
    text = f"{function}({first}, ({', '.join(arrays)}{',' if len(arrays) == 1 else ''}), {last})"
    if len(text) <= LINE:
        return [text]
    opened, *more = listed(arrays, "),", LINE - 6)
    rest = listed(numbers, ",", LINE - 4)
    return [
        f"{function}(",
        f"    {first},",
        f"    ({opened}",
        *(f"     {line}" for line in more),
        *(f"    {line}" for line in rest),
        ")",
    ]


def _adding(parts: Parts) -> list[Adding]:
    """The kernels that add up shares."""
    plan, sums = parts.plan, parts.shares
    loss = plan.outputs["loss"]
    public = {f"d{name}": key for key, name in plan.parameters.items()}
    parameters = {name: plan.parameters[key] for name, key in public.items()}
    added = {shares.stage.name: adding(plan, shares) for shares in sums}
    taken = [adding(plan, shares, into=parameters) for shares in sums]
    told = "The shares of all sums, added up"
    found = {loss: "result", **{name: f'found["{key}"]' for name, key in public.items()}}
    return [
        Adding("_add_loss", "w, result", "The loss, added up.",
               side_by_side(f"add_{loss}", [added[loss]], [f"The shares of {loss} by themselves, added up."]), found),
        Adding("_add_gradients", "w, result, found", "The loss and all gradients, added up.",
               side_by_side("add_gradients", [*added.values()], [f"{told}: a range of the blocks for each."]), found),
        Adding("_step", "w, params, rate", "The loss, added up, and a step from the gradients.",
               side_by_side("step", taken, [f"{told}, and a step from the gradients."]), {loss: "w.loss"}),
    ]  # fmt: skip
