"""What no template may print: other names for arrays that hold other cells."""

from collections.abc import Callable

import pytest

from codegen.check import check
from codegen.emit import emit
from codegen.module import context, printed
from codegen.plan import BATCH, Plan, PlanError, Stage
from codegen.plans import gemm
from derive.indices import Index, index, variables
from derive.layers import Conv, Conv1d, Conv2d
from derive.terms import Expr, define, tensor, term

Patch = pytest.MonkeyPatch


X, W = tensor("X", BATCH, 2, 6), tensor("W", 3, 2)


def one_product(columns: Stage) -> Plan:
    """``Z[b,n,i] = Sum_c W[n,c] Col[b,c,i]``."""
    b, n, i, c = variables(0, 4)
    body = term(3, W[n, c], columns.tensor[b, c, i], over=[W.box[1]])
    z = Stage(define("Z", [BATCH, 3, 6], body), "matmul", "b n i c")
    return Plan("test", (X, W), (columns, z), {"forward": "Z"})


def alias(body: Callable[[Index, Index, Index], Expr]) -> Plan:
    """The product with a stage that should be another name for the input."""
    return one_product(Stage(define("Col", [BATCH, 2, 6], body(*variables(0, 3))), "alias", "b c i"))


def text(plan: Plan) -> str:
    """What is printed."""
    return "\n".join(printed(context(plan.check(), {t.name: t.name for t in plan.inputs}), plan.stages))


NO_ALIAS: dict[str, Callable[[Index, Index, Index], Expr]] = {
    "a shift": lambda b, c, i: term(3, X[b, c, i + 1]),
    "turned round": lambda b, c, i: term(3, X[b, c, 5 - i]),
    "channels exchanged": lambda b, c, i: term(3, X[b, 1 - c, i]),
    "twice the input": lambda b, c, i: term(3, X[b, c, i], coefficient=2),
    "a sum": lambda b, c, i: term(3, X[b, c, i], over=[(index(0), index(2))]),
    "a product": lambda b, c, i: term(3, X[b, c, i], W[index(0), c]),
    "one channel for all": lambda b, c, i: term(3, X[b, index(0), i]),
}


@pytest.mark.parametrize("body", NO_ALIAS.values(), ids=list(NO_ALIAS))
def test_an_alias_is_an_input_as_it_is(body: Callable[[Index, Index, Index], Expr]) -> None:
    with pytest.raises(PlanError, match=r"Col: .* is not an input with axes of one cell put in between"):
        text(alias(body))


def test_a_plain_alias_is_the_input_itself() -> None:
    product = text(alias(lambda b, c, i: term(3, X[b, c, i]))).splitlines()[-1]
    assert product == "np.matmul(W, X.reshape(-1, 2, 6), out=Z.reshape(-1, 3, 6))"


def test_axes_of_one_cell_may_be_anywhere_in_an_alias() -> None:
    """One channel, one position, a kernel of one cell: every axis but the batch has one cell."""
    for channels, size in ((1, 1), (2, 1), (1, 3)):
        layer = Conv1d(channels, 3, 1)
        assert check(emit(layer, input_shape=(2, channels, size), algorithm="im2col")).rows


@pytest.mark.parametrize(
    ("algorithm", "layer", "message"),
    [
        ("gemm", Conv2d(2, 3, 1, 2), "dIn cannot be a view of dCol: its 40 cells an image are not 12"),
        ("nhwc", Conv2d(2, 3, 2), "Col cannot be a view of In: its 96 cells an image are not 40"),
        ("nhwc", Conv2d(2, 3, 1, padding=1), "Col cannot be a view of In: a margin lies between its elements"),
    ],
)
def test_windows_are_no_view_of_an_image_unless_each_is_a_cell_of_it(
    algorithm: str, layer: Conv, message: str, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(gemm.conv, "is_product", lambda applied: True)
    with pytest.raises(PlanError, match=message):
        emit(layer, input_shape=(3, 2, 5, 4), algorithm=algorithm)
