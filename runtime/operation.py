"""A compiled layer: the functions of an emitted module behind the border that every argument has to pass.

`runtime.compile` makes one.  Arguments are looked at in the order in which they are passed, and what a layer lacks, a
weight or a bias, is refused where it is given.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from derive.layers import Layer
from derive.legality import LayerError
from runtime.arrays import Array, Policy, Shape, checked
from runtime.gpu_arrays import checked_on_gpu
from runtime.sizes import numbers

if TYPE_CHECKING:
    from runtime.parallel import Convolution


class Gradients(NamedTuple):
    """Vector-Jacobian products of a layer; ``weight`` and ``bias`` are None for a layer without them."""

    input: Array
    weight: Any = None
    bias: Array | None = None


@dataclass(frozen=True)
class Operation:
    """A compiled layer.  Shapes are those it was compiled for, with any batch size; results are new arrays.

    Any strides will do: ``input`` is read where it lies, the other arguments are packed first if they are not
    C-contiguous, a cotangent unless it lies channels last and so will the gradient (`runtime.arrays` has the policy).
    A call that is split among processes raises a WorkerError (`runtime.process_crew`) if one of them ends, as when the
    system has no memory left; the next call starts them anew.
    Results are C-contiguous; where ``module.KEEPS_LAYOUT`` names the
    result, it lies channels last in memory if the input, or the cotangent, does: images of shape (batch, rows, columns,
    channels) are passed as ``images.transpose(0, 3, 1, 2)``.  Calls share no state, so threads may share an operation.

    Attributes:
        layer: the layer.
        input_shape, output_shape: with the batch size it was compiled for.
        dtype: "float32" or "float64", on a GPU also "float16" or "bfloat16".
        module: the emitted module.
        parallel: its functions on parts of a batch; None where one thread and one process were asked for.
        backend: "numpy" or "cupy"; with "cupy" arguments and results are arrays on the GPU (`runtime.gpu_arrays`).
    """

    layer: Layer
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: str
    module: ModuleType
    parallel: Convolution | None = None
    backend: str = "numpy"

    def forward(self, input: object, weight: object = None, bias: object = None) -> Array:
        """What the layer gives: of a convolution the cross-correlation of the input with the weight, plus the bias.

        Args:
            input: (batch, channels, spatial axes...), for a dense layer (batch, in_features).
            weight: (out_channels, in_channels // groups, kernel axes...), for a dense layer (out_features,
                in_features); None exactly if the layer has no parameters.
            bias: (out_channels,), exactly if the layer has one.

        Returns:
            (batch, out_channels, output axes...); for a layer without parameters as `output_shape`.

        Raises:
            ArrayError: an argument has another dtype, shape or device.
            LayerError: a parameter is missing, or given to a layer without it.
        """
        x = self._input(input)
        if not self._needs(weight):
            if bias is not None:
                raise LayerError(f"bias is given, but {self.layer} has none; nearest legal: bias=None")
            return self._run(x)
        w = self._parameter("weight", weight)
        if "bias" not in self.layer.parameter_shapes():
            if bias is not None:
                raise LayerError(f"bias is given, but {self.layer} has none; nearest legal: bias=None")
            return self._run(x, w)
        if bias is None:
            raise LayerError(
                f"bias=None, but {self.layer} has one; nearest legal: zeros of shape {self._shape('bias')}"
            )
        return self._run(x, w, self._parameter("bias", bias))

    def backward(self, grad_output: object, input: object, weight: object = None) -> Gradients:
        """The gradients of <grad_output, forward(input, weight, bias)>.

        Args:
            grad_output: the cotangent, of the shape of the output.
            input, weight: as for `forward`.

        Returns:
            The gradients, each of the shape of its argument.

        Raises:
            ArrayError, LayerError: as `forward`.
        """
        x, weighted = self._input(input), self._needs(weight)
        shape = (len(x), *self.output_shape[1:])
        keeps = self.backend == "numpy" and "input_gradient" in self.module.KEEPS_LAYOUT
        policy: Policy = "either layout" if keeps else "packed"
        cotangent = self._checked("grad_output", grad_output, shape, policy=policy)
        if not weighted:
            return Gradients(self.module.input_gradient(cotangent, x))
        w = self._parameter("weight", weight)
        run = self.module.backward if self.parallel is None else self.parallel.backward
        grad_input, grad_weight, grad_bias = run(cotangent, x, w)
        return Gradients(grad_input, grad_weight, grad_bias)

    def _needs(self, weight: object) -> bool:
        """Whether the layer has a weight; raises LayerError where one is given and it has none, or is missing."""
        shapes = self.layer.parameter_shapes()
        if weight is None and shapes:
            raise LayerError(f"weight=None, but {self.layer} has one; nearest legal: of shape {self._shape('weight')}")
        if weight is not None and not shapes:
            raise LayerError(f"weight is given, but {self.layer} has none; nearest legal: weight=None")
        return bool(shapes)

    def _run(self, *arguments: Array) -> Array:
        run = self.module.forward if self.parallel is None else self.parallel.forward
        output: Array = run(*arguments)
        return output

    def _input(self, value: object) -> Array:
        return self._checked("input", value, (None, *self.input_shape[1:]))

    def _parameter(self, name: str, value: object) -> Array:
        return self._checked(name, value, self._shape(name), policy="packed")

    def _checked(self, name: str, value: object, shape: Shape, *, policy: Policy = "as it is") -> Array:
        if self.backend == "numpy":
            return checked(name, value, shape=shape, dtype=self.dtype, policy=policy)
        multiple = getattr(self.module, "ALIGNED", {}).get(name, 1)
        found: Array = checked_on_gpu(self.module.cupy, name, value, shape=shape, dtype=self.dtype, multiple=multiple)
        return found

    def _shape(self, name: str) -> tuple[int, ...]:
        return numbers(self.layer, self.layer.parameter_shapes()[name])

    def __repr__(self) -> str:
        by = "" if self.parallel is None else f", {self.parallel.crew}"
        return f"Operation({self.layer!r}, input_shape={self.input_shape}, dtype={self.dtype!r}{by})"
