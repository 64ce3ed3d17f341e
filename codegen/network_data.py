"""What a network's text is executed on: images, labels and parameters, every number uniform in a prime field.

Besides what its stages give, a step of SGD has to leave ``parameter - lr * gradient`` in every parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from codegen.execution import Arrays, Data, Expected, Trial, batch_first, shape, stage_values
from codegen.field import Element, Objects, P, array, drawn
from codegen.plan import Plan, is_batch
from derive.evaluate import Evaluator, Table

AFTER = " after the step"


@dataclass
class NetworkData(Data):
    """One set of data; ``values`` are those of the stages of ``plan``."""

    plan: Plan
    x: Objects
    labels: npt.NDArray[np.int64]
    parameters: dict[str, Objects]
    rate: Element
    values: Evaluator

    @property
    def arguments(self) -> Arrays:
        """Every array that is passed in, by name."""
        return {"x": self.x, "y": self.labels, **self.parameters}

    def expected(self, function: str) -> dict[str, Expected]:
        """Logits, loss, gradients; after a step the loss before it and the parameters."""
        if function == "forward":
            found = self._stage("forward")
            first = is_batch(self.plan.by_name[self.plan.outputs["forward"]].tensor.box[0])
            return {"forward": found if first else batch_first(found)}
        outputs = {} if function == "gradients" else {"loss": self._stage("loss")}
        if function == "loss":
            return outputs
        gradients = {key: self._stage(f"gradient {key}") for key in self.plan.parameters}
        if function.endswith("gradients"):
            return outputs | gradients
        for key, gradient in gradients.items():
            pairs = zip(self.parameters[key].ravel(), gradient.values, strict=True)
            outputs[key + AFTER] = Expected(gradient.shape, [(p - self.rate * g).value % P for p, g in pairs])
        return outputs

    def _stage(self, output: str) -> Expected:
        return stage_values(self.plan, self.plan.outputs[output], self.values)

    def call(self, module: ModuleType, function: str, work: Any) -> dict[str, Any]:
        """See ``Data``."""
        run = getattr(module, function)
        if function == "forward":
            return {"forward": run(self.x, self.parameters, work)}
        if function == "gradients":
            return dict(run(self.x, self.labels, self.parameters, work))
        if function == "loss":
            return {"loss": run(self.x, self.labels, self.parameters, work)}
        if function == "loss_and_gradients":
            loss, gradients = run(self.x, self.labels, self.parameters, work)
            return {"loss": loss, **gradients}
        loss = run(self.x, self.labels, self.parameters, self.rate, work)
        return {"loss": loss, **{key + AFTER: parameter for key, parameter in self.parameters.items()}}

    def workspace(self, module: ModuleType, function: str, trial: Trial) -> Any:
        """See ``Data``."""
        return None if trial.block is None else module.Workspace(trial.batch, object, block=trial.block)

    def origin(self, function: str) -> tuple[Plan, Evaluator]:
        """See ``Data``."""
        return self.plan, self.values

    def written(self, function: str) -> frozenset[str]:
        """The parameters, in a step of SGD."""
        return frozenset(self.parameters) if function == "sgd_step" else frozenset()


def draw(plan: Plan, kind: type[Element], batch: int, rng: Random) -> NetworkData:
    """Images, labels and parameters for a network's plan, uniform and independent."""
    shapes = {t.name: shape(t, batch) for t in plan.inputs}
    numbers = {name: drawn(rng, int(np.prod(s))) for name, s in shapes.items()}
    classes = shapes["T"][1]
    labels = [rng.randrange(classes) for _ in range(batch)]
    numbers["T"] = [int(c == label) for label in labels for c in range(classes)]
    tables = {name: Table(tuple((0, n) for n in shapes[name]), list(v)) for name, v in numbers.items()}
    return NetworkData(
        plan,
        array(kind, numbers["X"], shapes["X"]),
        np.array(labels, dtype=np.int64),
        {public: array(kind, numbers[name], shapes[name]) for public, name in plan.parameters.items()},
        kind(rng.randrange(1, P)),
        Evaluator({"N": batch}, tables, kind.numbers),
    )
