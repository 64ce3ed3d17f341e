"""The emitted file of a network for CuPy: CUDA text, and the functions that launch its kernels in order.

The plan says what is done at once (``codegen.plans.device_network``): here its stages become kernels, each with its
local stages, epilogue and column, and the kernels become four functions of the file: forward, loss, backward, and what
adds up the shares of sums over the batch.  The last is printed three times: for the loss alone, for all gradients, and
for a step of SGD, which takes each gradient off its parameter and never stores it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from codegen.cupy_module import Printed, largest_narrow_batch
from codegen.module import shape_of
from codegen.plan import Plan, PlanError, Stage, cells_per_image, extent, reads_of
from codegen.templates.cuda import print_stage
from codegen.templates.cuda.kernels import Kernel, template
from codegen.templates.cuda.numbers import NUMBERS, Numbers
from codegen.templates.cuda.prelude import cuda_text
from codegen.templates.cuda.shares import Shares, added_up, alone
from codegen.templates.cuda.splitting import AHEAD, BLOCKS
from codegen.templates.cuda.spread import product_of
from codegen.templates.cuda.text import grouped
from codegen.wording import wrapped


@dataclass(frozen=True)
class Function:
    """One function of the module; ``counted`` where its lines name the batch size N."""

    name: str
    arguments: str
    doc: str
    lines: tuple[str, ...]
    counted: bool = True


@dataclass
class Kernels:
    """The kernels of a plan by the last stage that each computes, in order; shares where a sum is cut up."""

    plan: Plan
    numbers: Numbers
    made: dict[str, Kernel | Shares] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stages = self.plan.stages
        for k, stage in enumerate(stages):
            if stage.template in ("alias", "local", "epilogue", "column", "pooled", "spread"):
                continue
            then = next((s for s in stages if self._finishes(s, stage)), None)
            beside = stages[k + 1] if k + 1 < len(stages) and stages[k + 1].template == "column" else None
            pool = next((s for s in stages if s.template == "pooled" and stage.tensor in s.body.tensors), None)
            made = print_stage(self.plan, stage, self.numbers, then=then, column=beside, pool=pool)
            self.made[then.name if then else stage.name] = made

    def _finishes(self, stage: Stage, product: Stage) -> bool:
        """Whether a stage is what is stored in the place of a product."""
        if stage.template == "spread":
            return product_of(self.plan, stage) == product
        return stage.template == "epilogue" and stage.into == product.name

    @property
    def stored(self) -> tuple[Stage, ...]:
        """The stages that have an array."""
        alone_ = {name for name, made in self.made.items() if isinstance(made, Kernel)}
        return tuple(s for s in self.plan.stages if s.name in alone_ or s.template == "pooled")

    def shares(self, names: Iterable[str]) -> tuple[Shares, ...]:
        """The shares of these stages."""
        wanted = set(names)
        return tuple(made for name, made in self.made.items() if name in wanted and isinstance(made, Shares))


def network_source(plan: Plan, title: str, provenance: str, *, dtype: str) -> Printed:
    """The text of the module of a network, from its plan.

    Raises PlanError where a stage cannot be printed.
    """
    plan.check()
    numbers = NUMBERS[dtype]
    kernels = Kernels(plan, numbers)
    forward, loss = plan.outputs["forward"], plan.outputs["loss"]
    ahead, to_loss, every = plan.needed(forward), plan.needed(loss), set(kernels.made)
    sums = kernels.shares(every)
    adding = _adding(plan, kernels, sums)
    texts = _texts(plan, forward)
    inner = {**texts, forward: f"w.{forward}"}
    functions = [
        Function("_forward", "w, X, params, logits", "The logits of all images.",
                 _launched(kernels, every & ahead, texts)),
        Function("_loss", "w, T", "The loss, in shares.", _launched(kernels, (every & to_loss) - ahead, inner)),
        Function("_backward", "w, X, T, params", "The gradients, in shares.",
                 _launched(kernels, every - to_loss - ahead, inner)),
        *(Function(name, arguments, doc, (_added(kernel, own, into, rate),))
          for name, arguments, doc, kernel, own, into, rate in adding),
    ]  # fmt: skip
    printed = [made.kernel if isinstance(made, Shares) else made for made in kernels.made.values()]
    every_kernel = (*printed, *(entry[3] for entry in adding))
    by_name = {t.name: t for t in plan.inputs}
    cuda = cuda_text(numbers, every_kernel)
    source = template("network.py").render(
        title=title, provenance=provenance, dtype=dtype, accumulator=numbers.sum_dtype,
        blocks=BLOCKS, ahead=AHEAD,
        narrow=largest_narrow_batch({"network": plan}), kernels=every_kernel, launches=len(printed) + 1, source=cuda,
        parameters={key: shape_of(by_name[name]) for key, name in plan.parameters.items()},
        input=shape_of(by_name["X"])[1:], classes=shape_of(by_name["T"])[-1], logits=forward,
        buffers=_buffers(kernels, sums), functions=functions, legend=_legend(plan),
    )  # fmt: skip
    return Printed(source + "\n", cuda, every_kernel)


def _legend(plan: Plan) -> list[str]:
    """What the tensors are that the definitions speak of."""
    told = [(", ".join(names), meaning) for names, meaning in plan.legend]
    width = max((len(names) for names, _ in told), default=0)
    return [f"{names:{width}}  {meaning}" for names, meaning in told]


def _texts(plan: Plan, forward: str) -> dict[str, str]:
    """How the module names the array of every tensor."""
    found = {"X": "X", "T": "T", **{name: f'params["{key}"]' for key, name in plan.parameters.items()}}
    found |= {s.name: f"w.{_memory(plan, s)}" for s in plan.stages}
    return {**found, forward: "logits"}


def _memory(plan: Plan, stage: Stage) -> str:
    """The stage in whose array this one lies."""
    if stage.template != "alias":
        return stage.name
    (read,) = reads_of(stage.body)
    other = plan.by_name.get(read.tensor.name)
    if other is None or cells_per_image(other.tensor) != cells_per_image(stage.tensor):
        raise PlanError(f"{stage.name} is no other name for the cells of {read.tensor.name}")
    return _memory(plan, other)


def _buffers(kernels: Kernels, sums: Iterable[Shares]) -> list[str]:
    """The arrays of a workspace."""
    lines = []
    for stage in kernels.stored:
        shape = ", ".join("N" if extent(b) is None else str(extent(b)) for b in stage.tensor.box)
        lines.append(f"self.{stage.name} = cupy.empty(({shape}{',' if ',' not in shape else ''}), DTYPE)")
    for shares in sums:
        name = shares.stage.name
        lines += [
            f"sizes = {shares.kernel.blocks}, {shares.kernel.terms}, {shares.kernel.at_once}",
            f"self.{name}_cut = share(*sizes), splits(*sizes)",
            f"self.{shares.array} = cupy.empty(self.{name}_cut[1] * {grouped(shares.count)}, SUM)",
        ]
    return lines


def _launched(kernels: Kernels, names: set[str], texts: Mapping[str, str]) -> tuple[str, ...]:
    """The statements that launch the kernels of these stages, in the order of the plan."""
    lines = []
    for name, made in kernels.made.items():
        if name not in names:
            continue
        if isinstance(made, Kernel):
            lines.append(_call(made, made.blocks, [texts[a] for a in made.arrays], "N"))
            continue
        arrays = [*(texts[a] for a in made.kernel.arrays[:-1]), f"w.{made.array}"]
        blocks = f"{grouped(made.kernel.blocks)} * w.{name}_cut[1]"
        lines.append(_call(made.kernel, blocks, arrays, f"N, *w.{name}_cut"))
    return tuple(lines)


def _call(kernel: Kernel, blocks: str, arrays: Sequence[str], numbers: str) -> str:
    return f'_launch("{kernel.name}", {blocks}, {kernel.threads}, ({", ".join(arrays)}), {numbers})'


Adding = tuple[str, str, str, Kernel, Sequence[Shares], Mapping[str, str], bool]


def _adding(plan: Plan, kernels: Kernels, sums: Sequence[Shares]) -> list[Adding]:
    """The kernels that add up shares, each with the function that launches it."""
    loss = plan.outputs["loss"]
    public = {f"d{name}": key for key, name in plan.parameters.items()}
    (alone_,) = kernels.shares([loss])
    told = wrapped(f"The shares of {', '.join(s.name for shares in sums for s in shares.stages)}, added up.")
    rate = wrapped("The same, the gradients times rate taken off the parameters.")
    found = {loss: "result", **{name: f'found["{key}"]' for name, key in public.items()}}
    parameters = {name: plan.parameters[key] for name, key in public.items()}
    changed = {loss: "w.loss", **{name: f'params["{key}"]' for name, key in public.items()}}
    return [
        ("_add_loss", "w, result", "The loss, added up.", alone(plan, alone_), [alone_], found, False),
        ("_add_gradients", "w, result, found", "The loss and all gradients, added up.",
         added_up(plan, "add_gradients", sums, told), sums, found, False),
        ("_step", "w, params, rate", "The loss, added up, and a step from the gradients.",
         added_up(plan, "step", sums, [*told, *rate], into=parameters), sums, changed, True),
    ]  # fmt: skip


def _added(kernel: Kernel, sums: Sequence[Shares], into: Mapping[str, str], rate: bool) -> str:
    arrays = [f"w.{shares.array}" for shares in sums]
    arrays += [into[s.name] for shares in sums for s in shares.stages]
    if len(arrays) != len(kernel.arrays):
        raise PlanError(f"{kernel.name} reads more than shares: {', '.join(kernel.arrays)}")
    cuts = ", ".join(f"w.{shares.stage.name}_cut[1]" for shares in sums)
    return _call(kernel, kernel.blocks, [*arrays, *(["rate"] if rate else [])], f"N, {cuts}")
