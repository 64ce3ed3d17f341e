"""The functions of a convolution's module: what each takes, what it gives, and the name of its workspace.

Whoever calls one of them with arrays by name - a check, a measurement - asks here, so that the four signatures stand in
one place.
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
GIVES: Mapping[str, str] = {
    "forward": "output",
    "input_gradient": "input",
    "weight_gradient": "weight",
    "bias_gradient": "bias",
}
GRADIENTS = tuple(GIVES)[1:]


def passed(function: str, arrays: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a function takes of these arrays, None where there is no such array; by position, before ``work``.

    An input gradient takes the shape of the input besides.

    >>> passed("forward", {"input": "x", "weight": "w", "grad_output": "g"})
    ('x', 'w', None)
    """
    given = tuple(arrays.get(name) for name in ARGUMENTS[function])
    return (*given, arrays["input"].shape) if function == "input_gradient" else given


def workspace(function: str) -> str:
    """The name of the class that holds a function's buffers.

    >>> workspace("input_gradient")
    'InputGradient'
    """
    return "".join(word.capitalize() for word in function.split("_"))


__all__ = ["ARGUMENTS", "GIVES", "GRADIENTS", "passed", "workspace"]
