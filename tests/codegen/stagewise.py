"""Running an emitted network one stage at a time, so that each is compared on the very numbers it read.

Stages take over one another's buffers, so what a stage reads is copied right before its lines run, and what it wrote
is copied right after.  The statements are those of the emitted module, on that module's workspace.
"""

from collections.abc import Callable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from codegen import module
from codegen.bounds import Bounded, bound
from codegen.loading import load
from codegen.plan import Plan, Stage, number
from codegen.rounding import FLOAT32, Precision
from codegen.templates.numpy import print_stage
from derive.terms import Tensor

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Step:
    """A stage that ran: what it wrote in its box, whether its margin is zero, and what the expression gives."""

    stage: Stage
    phase: str
    computed: Array
    clean_margin: bool
    exact: Bounded

    @property
    def kind(self) -> str:
        """How the stage is computed: its template, or the function it applies if there is one."""
        if "recip(1 + exp(" in self.stage.body.text:
            return "sigmoid"
        functions = [f for f in ("exp", "log", "tanh", "recip") if f"{f}(" in self.stage.body.text]
        return functions[0] if functions else self.stage.template

    @cached_property
    def distance(self) -> Array:
        """|computed - exact|."""
        return np.asarray(abs(self.computed - self.exact.value))

    @property
    def within(self) -> bool:
        """Whether every cell lies within the bound."""
        return bool(np.all(self.distance <= self.exact.error))


class Stagewise:
    """An emitted network whose stages run one by one."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.emitted: ModuleType = load(module.network_source(plan, "Network", "by stages"))
        names = {name: f'params["{public}"]' for public, name in plan.parameters.items()}
        ctx = module.context(plan, {"X": "X", "T": "T", **names})
        self.where = dict(ctx.arrays)
        self.text = {s.name: "\n".join(print_stage(ctx, s)) for s in plan.stages}
        self.code = {name: compile(text, f"<{name}>", "exec") for name, text in self.text.items()}

    def spoiled(self, name: str, edit: Callable[[str], str]) -> "Stagewise":
        """The same network, but for the text of one stage."""
        other, text = copy(self), edit(self.text[name])
        assert text != self.text[name], f"the text of {name} is as it was: {text}"
        other.text, other.code = self.text | {name: text}, self.code | {name: compile(text, f"<{name}>", "exec")}
        return other

    def parameters(self, rng: np.random.Generator, scale: float, dtype: Any = np.float32) -> dict[str, Array]:
        """Parameters with entries around 0: ``scale`` 1 keeps sums over k cells as large as the cells."""
        made = {}
        for name, shape in self.emitted.PARAMETERS.items():
            made[name] = np.asarray(rng.normal(size=shape) * scale / max(1, np.prod(shape[1:])) ** 0.5, dtype)
        return made

    def run(
        self,
        x: Array,
        labels: Array,
        params: Mapping[str, Array],
        *,
        block: int | None = None,
        precision: Precision = FLOAT32,
    ) -> Iterator[Step]:
        """Every stage of forward, loss and gradients, in the order of the plan."""
        w = self.emitted.Workspace(len(x), x.dtype, block or max(len(x), 1))
        targets = self.emitted._targets(labels, w)
        for array in w.sums:
            array.fill(0)
        names = {"np": np, "w": w, "params": params}
        whole = names | {"v": None, "X": x, "T": targets}
        yield from self._phase(whole, ("prologue",), len(x), precision)
        for low, high, v in w.blocks:
            here = names | {"v": v, "X": x[low:high], "T": targets[low:high]}
            yield from self._phase(here, ("block", "accumulate"), high - low, precision)
        yield from self._phase(whole, ("epilogue",), len(x), precision)

    def _phase(
        self, names: dict[str, Any], phases: tuple[str, ...], batch: int, precision: Precision
    ) -> Iterator[Step]:
        chosen = [s for s in self.plan.stages if self.plan.phases[s.name] in phases]
        summed = {s.name: self._inside(s, names) for s in chosen if self.plan.phases[s.name] == "accumulate"}
        for s in chosen:
            reads = {t.name: self._read(t, names) for t in s.body.tensors}
            exec(self.code[s.name], dict(names))
            exact = bound(s, reads, precision, sizes={"N": batch}, onto=summed.get(s.name))
            yield Step(s, self.plan.phases[s.name], self._inside(s, names), self._clean(s, names), exact)

    def _read(self, t: Tensor, names: Mapping[str, Any]) -> Array:
        stage = self.plan.by_name.get(t.name)
        if stage is not None:
            return self._inside(stage, names)
        return np.array(eval(self.where[t.name], dict(names)), dtype=np.float64)

    def _buffer(self, s: Stage, names: Mapping[str, Any]) -> Array:
        array: Array = eval(self.where[s.name], dict(names))
        return array

    def _inside(self, s: Stage, names: Mapping[str, Any]) -> Array:
        """A copy of the stage's cells, without the margin."""
        return np.array(self._buffer(s, names)[self._box(s)], dtype=np.float64)

    def _clean(self, s: Stage, names: Mapping[str, Any]) -> bool:
        around = np.array(self._buffer(s, names))
        around[self._box(s)] = 0
        return not around.any()

    @staticmethod
    def _box(s: Stage) -> tuple[slice, ...]:
        sides = [(number(low), number(high)) for low, high in s.margin]
        return tuple(slice(low, -high if high else None) for low, high in sides)
