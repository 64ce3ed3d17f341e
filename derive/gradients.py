"""Vector-Jacobian products: the derivative of ``Sum_i G[i] Y[i]`` by what a layer reads, for any cotangent G.

The layer's definition is put in, the product rule leaves an equation ``[i s + a d - p == h]`` for every read of the
tensor that is differentiated by, and solving the equations removes sums.  That gives two forms.  The *scatter* form
keeps the equation: each element of G is added to the cells it came from.  The *gather* form solves it too, for the
output position: each cell collects what reached it, under the condition that the stride divides.

All theorems are about the layer with a symbol for every size; numbers are put in afterwards.
"""

from __future__ import annotations

from dataclasses import replace

from derive import kernel, tactics
from derive.derivation import Derivation, Note
from derive.indices import Index, symbol, variables
from derive.kernel import Theorem
from derive.layers import Activation, Applied, AvgPool, Conv, CrossEntropyLoss, Flatten, Layer, LayerError, Linear
from derive.layers import symbolic as symbolic_convolution
from derive.render.names import Names
from derive.terms import Derivative, Expr, Tensor, shift, tensor, term

FORMS = ("gather", "scatter")


def gradient(layer: Layer, wrt: str = "input", *, form: str = "gather") -> Derivation:
    """The derivation of a layer's vector-Jacobian product, for all sizes (of the loss: of its derivative).

    ``wrt`` is "input", "weight" or "bias"; ``form`` is "gather" or "scatter" (they differ for the input of a
    convolution or a pool).  Raises LayerError for a layer that has no such argument.

    >>> from derive.layers import Conv1d
    >>> gradient(Conv1d(1, 1, 3), "weight").theorem.rhs
    Sum{0<=$3<N,0<=$4<o0}*G[$3,$0,$4]*X[$3,$1,$2*d0+$4*s0-p0]
    """
    if form not in FORMS:
        raise LayerError(f"form={form!r}: the forms are {' and '.join(FORMS)}")
    theorem, opened, worked = _prove(_symbolic(layer), wrt, form)
    what = "the loss" if isinstance(layer, CrossEntropyLoss) else "its output, weighted with a cotangent G,"
    notes = (
        Note(1, "Put the layer in", "Each read of the output is replaced by its definition."),
        Note(opened, "Differentiate", "Each read of the tensor leaves an equation between indices."),
        Note(worked, "Solve the equations", "An equation with a bound variable in it removes that variable's sum."),
    )
    return Derivation(
        title=f"The derivative of {type(layer).__name__} by its {wrt}",
        introduction=f"The derivative of {what} by the {wrt}, for every cotangent and every size." + _numbers(layer),
        proof=theorem,
        source="d2l 7.2 to 7.6",
        convention="cross-correlation" if isinstance(layer, Conv) else "",
        notes=notes,
        names=Names(axes={"G": "bnij", "X": "bchl", "W": "ncae", "u": "n", "Z": "bnij"}),
    )


def _numbers(layer: Layer) -> str:
    """What the symbols of the theorem are in this layer, for the dimensions that are numbers."""
    if isinstance(layer, AvgPool):
        return f" Kernel size {layer.kernel_size} and stride {layer.stride} are those of this layer: 1/k is a number."
    if not isinstance(layer, (Conv, Linear)):
        return ""
    values: dict[str, object] = {}
    if isinstance(layer, Conv):
        values = _channels(layer)
        for letter, dims in zip("kspd", (layer.kernel_size, layer.stride, layer.padding, layer.dilation), strict=True):
            values |= {f"{letter}{axis}": d for axis, d in enumerate(dims if isinstance(dims, tuple) else (dims,))}
    else:
        values = {"K": layer.in_features, "M": layer.out_features}
    told = ", ".join(f"{name} = {value}" for name, value in values.items() if str(value) != name)
    return f" In this layer {told}." if told else ""


def _channels(layer: Conv) -> dict[str, object]:
    """The values of the symbols for channels: C to M, or C groups of one, or g groups of Cg to Og."""
    if layer.is_depthwise:
        return {"C": layer.in_channels}
    if layer.is_grouped:
        inputs, outputs = layer.group_sizes()
        return {"g": layer.groups, "Cg": inputs, "Og": outputs}
    return {"C": layer.in_channels, "M": layer.out_channels}


def target_of(applied: Applied, wrt: str) -> Tensor:
    """The tensor that ``wrt`` names.  Raises LayerError where the layer has none."""
    choices = {"input": applied.x, **{k: t for k, t in applied.parameters.items() if k != "target"}}
    if wrt not in choices:
        raise LayerError(f"wrt={wrt!r}: {type(applied.layer).__name__} has {', '.join(choices)}")
    return choices[wrt]


def _symbolic(layer: Layer) -> Applied:
    """A layer of the same kind on an input, with symbols for all sizes."""
    if isinstance(layer, Conv):
        general, shape = symbolic_convolution(type(layer), like=layer)
        if not layer.bias:
            general = replace(general, bias=False)
        return general.on(tensor("X", *shape))
    batch, channels = symbol("N"), symbol("C")
    if isinstance(layer, Linear):
        return Linear(symbol("K"), symbol("M"), layer.bias).on(tensor("X", batch, symbol("K")))
    if isinstance(layer, CrossEntropyLoss):
        return layer.on(tensor("Z", batch, symbol("K")))
    axes = layer.axes if isinstance(layer, AvgPool) else 2
    image: tuple[Index, ...] = tuple(symbol(f"n{axis}") for axis in range(axes))
    if isinstance(layer, (AvgPool, Activation, Flatten)):
        return layer.on(tensor("X", batch, channels, *image))
    raise LayerError(f"{layer}: its derivative is not one formula; ask for that of each layer in it")


def _prove(applied: Applied, wrt: str, form: str) -> tuple[Theorem, int, int]:
    """The theorem, and how many steps it had when the layer was put in and when it was differentiated."""
    target = target_of(applied, wrt)
    theorem = kernel.begin(_start(applied, target), facts=applied.facts, over=target.box)
    theorem = tactics.unfold_all(theorem, [applied.y.name])
    opened = len(theorem.steps)
    theorem = tactics.differentiate_all(theorem)
    worked = len(theorem.steps)
    theorem = tactics.contract_all(theorem) if form == "gather" else tactics.contract_simple(theorem)
    return tactics.tidy(theorem), opened, worked


def _start(applied: Applied, target: Tensor) -> Expr:
    """``d(Sum G Y)/dX[h]``, or ``d loss/dX[h]`` for a loss, which is a number already."""
    if applied.y.rank == 0:
        whole = shift(term(0, applied.y[()]), target.rank)
        return term(target.rank, Derivative(whole, target, variables(0, target.rank)))
    return kernel.vector_jacobian(Tensor("G", applied.y.box), applied.y, target)
