"""A dense layer by itself: three matrix products, one for each of output, input gradient and weight gradient.

    forward          S = X W',  Z = S + u
    input gradient   dX = G W
    weight gradient  dW = G' X        summed over blocks of the batch
    bias gradient    du = Sum G

For NumPy (``product``) every product is formed where the result lies, of as many rows as there are, since nothing but
the result needs memory.  For CUDA (``definition``) the bias is added where the product is.
"""

from __future__ import annotations

from collections.abc import Sequence

from codegen.plan import Plan, Stage
from codegen.plans import convolution as conv
from codegen.plans.convolution import Result
from codegen.plans.definition import result_of
from derive.indices import variables
from derive.layers import Applied
from derive.terms import Expr, Tensor, constant, define, term

ROWS = 1 << 16  # images of a block: a product of more is no faster


def product(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The plans of forward, input_gradient, weight_gradient and, with a bias, bias_gradient for NumPy.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Linear
    >>> from derive.terms import tensor
    >>> plans = product(Linear(400, 120).on(tensor("X", BATCH, 400)))
    >>> {name: [stage.name for stage in plan.stages] for name, plan in plans.items()}  # doctest: +ELLIPSIS
    {'forward': ['S', 'Z'], 'input_gradient': ['dX'], 'weight_gradient': ['dW'], 'bias_gradient': ['du']}
    """
    box = list(applied.y.box)
    bias = applied.parameters.get("bias")
    summed = Stage(define("S" if bias else "Z", box, _forward(applied, biased=False)), "matmul", "b n k")
    forward: tuple[Stage, ...] = (summed,)
    if bias is not None:
        b, n = variables(0, 2)
        body = term(2, summed.tensor[b, n]) + term(2, bias[n])
        forward = (summed, Stage(define("Z", box, body), "pointwise", "b n", into="S"))
    results = {
        "forward": Result(forward),
        "input_gradient": Result((Stage(_input_gradient(applied), "matmul", "b k n"),)),
        "weight_gradient": Result((Stage(_weight_gradient(applied), "matmul", "n k b"),)),
    }
    return conv.planned("product", applied, itemsize, results, block=_rows)


def _rows(inputs: Sequence[Tensor], stages: Sequence[Stage], itemsize: int) -> int:  # noqa: ARG001 - a rule's arguments
    return ROWS


def definition(applied: Applied, *, itemsize: int = 4) -> dict[str, Plan]:
    """The same for CUDA, one stage each.

    >>> from codegen.plan import BATCH
    >>> from derive.layers import Linear
    >>> from derive.terms import tensor
    >>> plans = definition(Linear(400, 120).on(tensor("X", BATCH, 400)))
    >>> [plan.stages[0].template for plan in plans.values()]
    ['product', 'product', 'product', 'reduce']
    """
    results = {
        "forward": result_of(define("Z", list(applied.y.box), _forward(applied, biased=True)), "b n k"),
        "input_gradient": result_of(_input_gradient(applied), "b k n"),
        "weight_gradient": result_of(_weight_gradient(applied), "n k b"),
    }
    return conv.planned("definition", applied, itemsize, results)


def _forward(applied: Applied, *, biased: bool) -> Expr:
    weight, bias = applied.parameters["weight"], applied.parameters.get("bias")
    b, n, k = variables(0, 3)
    body = term(2, weight[n, k], applied.x[b, k], over=weight.box[1:])
    return body + (term(2, bias[n]) if biased and bias is not None else constant(2, 0))


def _input_gradient(applied: Applied) -> Tensor:
    """``dX[b,k] = Sum_n G[b,n] W[n,k]``."""
    weight = applied.parameters["weight"]
    b, k, n = variables(0, 3)
    body = term(2, weight[n, k], conv.cotangent_of(applied)[b, n], over=weight.box[:1])
    return define("dX", list(applied.x.box), body)


def _weight_gradient(applied: Applied) -> Tensor:
    """``dW[n,k] = Sum_b G[b,n] X[b,k]``."""
    n, k, b = variables(0, 3)
    body = term(2, conv.cotangent_of(applied)[b, n], applied.x[b, k], over=applied.x.box[:1])
    return define("dW", list(applied.parameters["weight"].box), body)
