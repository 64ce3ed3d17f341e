"""The mathematics: layers, what they compute, and theorems about it that hold for all sizes.

A layer is described by its arguments and defined by one equation. The rules of the kernel rewrite that
equation step by step, each step with its side condition discharged, into the formula that `codegen` turns
into text: the steps shown to a reader are the computation itself. Nothing here holds an array.

    >>> import derive
    >>> conv = derive.Conv2d(6, 16, 5)
    >>> derive.output_shape(conv, (8, 6, 14, 14))
    (8, 16, 10, 10)
    >>> derive.reduction(conv).theorem.rhs  # every size is a symbol
    Sum{0<=$4<C,0<=$5<k0,0<=$6<k1}*W[$1,$4,$5,$6]*X[$0,$4,$2*s0+$5*d0-p0,$3*s1+$6*d1-p1] + u[$1]

Importing this package is quick: SymPy and Z3 are loaded by the first call that needs them.
"""

from derive.derivation import Derivation
from derive.fourier import convolution_theorem
from derive.gradients import gradient
from derive.identities import commutativity, flipped_kernel, tiled_convolution
from derive.indices import symbol, symbols
from derive.kernel import Theorem
from derive.layers import (
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    Conv1d,
    Conv2d,
    Conv3d,
    CrossEntropyLoss,
    Flatten,
    Linear,
    ReLU,
    Sequential,
    Sigmoid,
    Tanh,
    lenet,
)
from derive.legality import LayerError
from derive.obligations import Refused
from derive.reduction import reduction  # the function: `derive.reduction` is never the module of that name
from derive.roots import convolution_with_remainders
from derive.shapes import output_shape
from derive.toomcook import ToomCook, winograd

__all__ = [
    "AvgPool1d",
    "AvgPool2d",
    "AvgPool3d",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "CrossEntropyLoss",
    "Derivation",
    "Flatten",
    "LayerError",
    "Linear",
    "ReLU",
    "Refused",
    "Sequential",
    "Sigmoid",
    "Tanh",
    "Theorem",
    "ToomCook",
    "commutativity",
    "convolution_theorem",
    "convolution_with_remainders",
    "flipped_kernel",
    "gradient",
    "lenet",
    "output_shape",
    "reduction",
    "symbol",
    "symbols",
    "tiled_convolution",
    "winograd",
]
