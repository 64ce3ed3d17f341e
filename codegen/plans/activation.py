"""Scalar functions of every element by themselves: the function, and its slope times the cotangent.

    sigmoid   A = recip(1 + exp(-X))          dX = (A - A^2) G
    tanh      A = tanh(X)                     dX = (1 - A^2) G
    relu      A = max(X, 0)                   dX = [X > 0] G, so 0 at a kink, as in the frameworks

The slope is formed from the input, which is all that a gradient is given.  For NumPy (``chain``) every step goes on in
the place of the one before, which is the result where that is possible; a sigmoid is a reciprocal of an exponential, a
law of its theorem, since NumPy's exp takes half the time of its tanh.  A CUDA kernel (``definition``) does all of it in
a thread, in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from codegen.plan import Plan, Stage
from codegen.plans import convolution as conv
from codegen.plans.blocks import in_cache
from codegen.plans.convolution import Result
from derive.indices import variables
from derive.layers import Activation, Applied
from derive.terms import Apply, Expr, Tensor, constant, define, term

LETTERS = "b c h0 h1 h2 h3"


def function_of(applied: Applied) -> str:
    """The name of the function.  Raises TypeError for a layer that is none."""
    if not isinstance(applied.layer, Activation):
        raise TypeError(f"layer={applied.layer!r}: an activation is needed")
    return applied.layer.function


# --- NumPy ----------------------------------------------------------------------------------------------------------


def chain(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward and input_gradient for NumPy.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Sigmoid
    >>> from derive.terms import tensor
    >>> plans = chain(Sigmoid().on(tensor("X", BATCH, 6, 28, 28)))
    >>> {name: [stage.name for stage in plan.stages] for name, plan in plans.items()}
    {'forward': ['Xm', 'A'], 'input_gradient': ['Xm', 'A', 'Q', 'dX']}
    """
    forward, slope = CHAINS[function_of(applied)]
    to_slope = slope(applied.x)
    last = to_slope[-1]
    g = conv.cotangent_of(applied)
    at = variables(0, applied.x.rank)
    gradient = _stage("dX", applied.x, term(len(at), last.tensor[at], g[at]), into=last.name)
    results = {"forward": Result(tuple(forward(applied.x))), "input_gradient": Result((*to_slope, gradient))}
    return conv.planned("chain", applied, itemsize, results, block=in_cache)


def _stage(name: str, x: Tensor, body: Expr, into: str = "") -> Stage:
    return Stage(define(name, list(x.box), body), "pointwise", LETTERS, into=into)


def _applied(function: str, name: str) -> Callable[[Tensor], list[Stage]]:
    """The one stage of a function that NumPy has."""

    def stages(x: Tensor) -> list[Stage]:
        at = variables(0, x.rank)
        return [_stage(name, x, term(len(at), Apply(function, term(len(at), x[at]))))]

    return stages


def _sigmoid(x: Tensor) -> list[Stage]:
    """``Xm = -X`` and ``A = recip(1 + exp(Xm))``."""
    at = variables(0, x.rank)
    negated = _stage("Xm", x, term(len(at), x[at], coefficient=-1))
    power = term(len(at), Apply("exp", term(len(at), negated.tensor[at])))
    body = term(len(at), Apply("recip", constant(len(at), 1) + power))
    return [negated, _stage("A", x, body, into=negated.name)]


def _sigmoid_slope(x: Tensor) -> list[Stage]:
    """``Q = A - A^2``, which is near 0 as exactly as A is."""
    stages = _sigmoid(x)
    return [*stages, _difference(stages[-1])]


def _difference(value: Stage) -> Stage:
    at = variables(0, value.tensor.rank)
    a = value.tensor[at]
    return _stage("Q", value.tensor, term(len(at), a) - term(len(at), a, a))


def _tanh_slope(x: Tensor) -> list[Stage]:
    """``Q = 1 - A^2``."""
    at = variables(0, x.rank)
    (value,) = _applied("tanh", "A")(x)
    a = value.tensor[at]
    return [value, _stage("Q", x, constant(len(at), 1) - term(len(at), a, a), into=value.name)]


CHAINS: Mapping[str, tuple[Callable[[Tensor], list[Stage]], Callable[[Tensor], list[Stage]]]] = {
    "sigmoid": (_sigmoid, _sigmoid_slope),
    "tanh": (_applied("tanh", "A"), _tanh_slope),
    "relu": (_applied("relu", "A"), _applied("step", "Q")),
}
"""The stages of the value and of the slope, by function."""


# --- CUDA -----------------------------------------------------------------------------------------------------------


def definition(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward and input_gradient for CUDA text, a kernel each.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import ReLU
    >>> from derive.terms import tensor
    >>> plans = definition(ReLU().on(tensor("X", BATCH, 6)))
    >>> {name: [(stage.name, stage.template) for stage in plan.stages] for name, plan in plans.items()}
    {'forward': [('A', 'flat')], 'input_gradient': [('Q', 'local'), ('dX', 'flat')]}
    """
    function, x = function_of(applied), applied.x
    at = variables(0, x.rank)
    (forward,) = _applied(function, "A")(x)
    slope = _slope(function, x)
    gradient = term(len(at), slope[-1].tensor[at], conv.cotangent_of(applied)[at])
    results = {
        "forward": Result((replace(forward, template="flat"),)),
        "input_gradient": Result((
            *(replace(stage, template="local", into="") for stage in slope),
            replace(_stage("dX", x, gradient), template="flat"),
        )),
    }  # fmt: skip
    return conv.planned("definition", applied, itemsize, results)


def _slope(function: str, x: Tensor) -> list[Stage]:
    """The slope, from the value that the function itself gives."""
    if function != "sigmoid":
        return CHAINS[function][1](x)
    (value,) = _applied(function, "A")(x)
    return [value, _difference(value)]
