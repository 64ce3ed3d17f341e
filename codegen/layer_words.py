"""What an emitted module says of its layer, in NumPy or CUDA: arrays, functions, and what their letters stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from codegen.plan import number
from derive.indices import Interval
from derive.layers import Activation, Applied, AvgPool, Conv, Linear

AXES = {0: "features", 1: "channels, positions", 2: "channels, rows, columns", 3: "channels, planes, rows, columns"}
WEIGHTED = {
    "forward": "input, weight, bias=None",
    "input_gradient": "grad_output, weight, input_shape",
    "weight_gradient": "grad_output, input",
    "bias_gradient": "grad_output",
}
SIGNATURES: Mapping[bool, Mapping[str, str]] = {
    True: WEIGHTED,
    False: {"forward": "input", "input_gradient": "grad_output, input"},
}
"""What the functions of a layer take, with a weight or without."""

GRADIENTS = {
    "input_gradient": "The gradient of ``Sum grad_output * output`` by the input, shape {input}.",
    "weight_gradient": "The gradient of ``Sum grad_output * output`` by the weight, shape {weight}.",
    "bias_gradient": "The gradient of ``Sum grad_output * output`` by the bias, shape {bias}.",
}
FORWARD = {
    Conv: "The output: the cross-correlation of the input with the weight{bias}, shape {output}.",
    Linear: "The output: the input times the transposed weight{bias}, shape {output}.",
    AvgPool: "The output: the mean of the input over every window, shape {output}.",
    Activation: "The output: {function} of every element of the input, shape {output}.",
}
NO_BIAS = (
    "if bias is not None:",
    '    raise ValueError("bias is given; it has to be None, since this layer has none")',
)
INPUT_SHAPE = (
    'needed = (len(grad_output), *SHAPES["input"])',
    "if not isinstance(input_shape, (tuple, list)) or tuple(input_shape) != needed:",
    '    raise ValueError(f"input_shape is {input_shape!r}; {needed} is needed for this grad_output")',
)


@dataclass(frozen=True)
class Words:
    """The axes of images after the batch, what is to be known of the layer, and what its letters stand for."""

    axes: str
    remark: str
    letters: str


def is_weighted(applied: Applied) -> bool:
    """Whether a layer has a weight, and so a gradient by it."""
    return "weight" in applied.parameters


def words(applied: Applied) -> Words:
    """What a module says of its layer."""
    letters = "X is the input, "
    if is_weighted(applied):
        letters += f"W the weight, {'u the bias, ' if 'bias' in applied.parameters else ''}"
    letters += "G the cotangent grad_output"
    if isinstance(applied.layer, Activation):
        return Words(_any_axes(applied.x.rank - 1), _remark(applied.layer), letters)
    axes = AXES[len(applied.windows)]
    return Words(axes, _remark(applied.layer), letters)


def _any_axes(count: int) -> str:
    """The axes after the batch of an array of any rank."""
    return AXES.get(count - 1, ", ".join(f"axis {k}" for k in range(1, count + 1))) if count else ""


def _remark(layer: object) -> str:
    if isinstance(layer, Conv):
        return "Kernels are not flipped: this is cross-correlation."
    if isinstance(layer, AvgPool):
        return "Cells that fill no window have no part in the output, and the gradient 0."
    if isinstance(layer, Activation) and layer.function == "relu":
        return "The slope at 0 is 0, by convention.  It multiplies the cotangent, which is to be finite."
    return ""


def described(name: str, applied: Applied) -> str:
    """What a function of a layer's module gives, with the shape."""
    told = {key: str(sizes(t.box)) for key, t in applied.parameters.items()}
    told["output"], told["input"] = (_batch_shape(t.box) for t in (applied.y, applied.x))
    if name != "forward":
        return GRADIENTS[name].format(**told)
    told["bias"] = " plus the bias" if "bias" in applied.parameters else ""
    told["function"] = applied.layer.function if isinstance(applied.layer, Activation) else ""
    kind = next(kind for kind in FORWARD if isinstance(applied.layer, kind))
    return FORWARD[kind].format(**told)


def _batch_shape(box: Iterable[Interval]) -> str:
    _, *rest = box
    return str(("batch", *sizes(rest))).replace("'", "")


def sizes(box: Iterable[Interval]) -> tuple[int, ...]:
    """The numbers of cells of some axes."""
    return tuple(number(hi - lo) for lo, hi in box)
