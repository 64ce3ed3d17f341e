"""A layer before it is any particular one: what it can be asked, and what it is once it stands on an input.

``derive.layers`` has the layers themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from derive.indices import Guard, Index, constant_truth
from derive.legality import Condition, Dim, LayerError, Window
from derive.terms import Tensor, tensor

AXES = {2: "(N, features)", 3: "(N, C, L)", 4: "(N, C, H, W)", 5: "(N, C, D, H, W)"}


@dataclass(frozen=True)
class Applied:
    """A layer on an input: its output as a defined tensor, its parameters, and the conditions of legality."""

    layer: Layer
    x: Tensor
    y: Tensor
    parameters: Mapping[str, Tensor]
    conditions: tuple[Condition, ...]
    windows: tuple[Window, ...] = ()

    @property
    def facts(self) -> tuple[Guard, ...]:
        """The guards of the conditions, each once and without those that are plainly true."""
        return tuple(dict.fromkeys(c.guard for c in self.conditions if constant_truth(c.guard) is not True))


@dataclass(frozen=True)
class Layer:
    """What every layer can be asked; shapes are (batch, channels, spatial axes...)."""

    def parameter_shapes(self) -> dict[str, tuple[Dim, ...]]:
        """The shapes of the parameters, named as ``torch.nn`` names them."""
        return {}

    def on(self, x: Tensor, name: str = "Y", parameters: Mapping[str, Tensor] | None = None) -> Applied:
        """The layer on an input tensor, its output called ``name``.  Raises LayerError where numbers are illegal."""
        raise LayerError(f"{self} has no defining equation")

    def parameters(self, suffix: str = "") -> dict[str, Tensor]:
        """Free tensors for the parameters: W for the weight, u for the bias."""
        letters = {"weight": "W", "bias": "u"}
        return {key: tensor(letters[key] + suffix, *shape) for key, shape in self.parameter_shapes().items()}

    def output_shape(self, input_shape: Sequence[Dim]) -> tuple[Index, ...]:
        """The shape of the output.  Raises LayerError where the shape is not legal."""
        return tuple(hi for _, hi in self.on(tensor("X", *input_shape)).y.box)

    def _shape(self, x: Tensor, rank: int) -> tuple[Index, ...]:
        if x.rank != rank:
            given = "(" + ", ".join(hi.text for _, hi in x.box) + ")"
            raise LayerError(f"{self}: the input {given} has {x.rank} axes, {rank} are needed: {AXES[rank]}")
        return tuple(hi for _, hi in x.box)
