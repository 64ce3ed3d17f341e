"""The sizes of a layer as plain numbers: what runs needs one for every dimension, where a derivation takes symbols."""

from __future__ import annotations

from collections.abc import Sequence

from derive import shapes
from derive.layers import Layer
from derive.legality import LayerError


def numbers(layer: Layer, dims: Sequence[object]) -> tuple[int, ...]:
    """Dimensions that are all numbers.

    Raises:
        LayerError: one of them is a symbol.
    """
    found = [d if isinstance(d, int) else getattr(d, "constant", None) for d in dims]
    if any(d is None for d in found):
        shown = ", ".join(getattr(d, "text", str(d)) for d in dims)
        raise LayerError(f"{layer}: ({shown}) has a symbol; what runs needs a number for every dimension")
    return tuple(int(d) for d in found if d is not None)


def numeric_output_shape(layer: Layer, input_shape: Sequence[int]) -> tuple[int, ...]:
    """The output shape of a layer, after its parameters and the shape were found to be legal numbers.

    Raises:
        LayerError: they are not.

    >>> from derive.layers import Conv2d
    >>> numeric_output_shape(Conv2d(6, 16, 5), (8, 6, 14, 14))
    (8, 16, 10, 10)
    """
    for shape in layer.parameter_shapes().values():
        numbers(layer, shape)
    return tuple(int(size) for size in shapes.output_shape(layer, numbers(layer, input_shape)))
