"""The functions of a layer's module: what each takes, what it gives, and the name of its workspace.

A layer with parameters, a convolution or a dense one, has four and ``backward``; one without, a pool or an activation,
has ``forward(input)`` and ``input_gradient(grad_output, input)``.  Whoever calls one of them with arrays by name - a
check, a measurement - asks here, so that the signatures stand in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "forward": ("input", "weight", "bias"),
    "input_gradient": ("grad_output", "weight"),
    "weight_gradient": ("grad_output", "input"),
    "bias_gradient": ("grad_output",),
    "backward": ("grad_output", "input", "weight"),
}
PLAIN_ARGUMENTS: Mapping[str, tuple[str, ...]] = {"forward": ("input",), "input_gradient": ("grad_output", "input")}
GIVES: Mapping[str, str] = {
    "forward": "output",
    "input_gradient": "input",
    "weight_gradient": "weight",
    "bias_gradient": "bias",
}
GRADIENTS = tuple(GIVES)[1:]


def arguments(function: str, *, weighted: bool) -> tuple[str, ...]:
    """The arrays that a function takes, of a layer with a weight or one without.

    >>> arguments("input_gradient", weighted=True), arguments("input_gradient", weighted=False)
    (('grad_output', 'weight'), ('grad_output', 'input'))
    """
    return (ARGUMENTS if weighted else PLAIN_ARGUMENTS)[function]


def passed(function: str, arrays: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a function takes of these arrays, None where there is no such array; by position, before ``work``.

    An input gradient of a layer with a weight takes the shape of the input besides.

    >>> passed("forward", {"input": "x", "weight": "w", "grad_output": "g"})
    ('x', 'w', None)
    >>> passed("input_gradient", {"input": "x", "grad_output": "g"})
    ('g', 'x')
    """
    weighted = "weight" in arrays or function not in PLAIN_ARGUMENTS
    given = tuple(arrays.get(name) for name in arguments(function, weighted=weighted))
    return (*given, arrays["input"].shape) if weighted and function == "input_gradient" else given


def workspace(function: str) -> str:
    """The name of the class that holds a function's buffers.

    >>> workspace("input_gradient")
    'InputGradient'
    """
    return "".join(word.capitalize() for word in function.split("_"))


__all__ = ["ARGUMENTS", "GIVES", "GRADIENTS", "PLAIN_ARGUMENTS", "arguments", "passed", "workspace"]
