"""What a plan may not be: every rule of layout has a plan that breaks it, and is refused with the stage's name."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

import codegen
from codegen.module import context, printed
from codegen.plan import BATCH, Plan, PlanError, Stage
from codegen.plans.claims import Kind
from codegen.plans.direct import direct
from derive.indices import Index, at_least, equal, index, var, variables
from derive.layers import Conv2d, Flatten, Linear, Sequential, Sigmoid
from derive.terms import Expr, Tensor, constant, define, tensor, term
from runtime import reference

X = tensor("X", BATCH, 6)
B, H, K = variables(0, 3)


def stage(name: str, body: Expr, *sizes: int | Index, template: str = "strided", **more: object) -> Stage:
    """A stage with these sizes; its letters are h, b, then k."""
    return Stage(define(name, sizes, body), template, "h b k m", **more)  # type: ignore[arg-type]


def c(body: Expr, *sizes: int | Index, **more: object) -> Stage:
    """A stage called C, of the sizes of A unless told otherwise."""
    return stage("C", body, *(sizes or (6, BATCH)), **more)


def copied(name: str = "A", **more: object) -> Stage:
    """``A[h,b] = X[b,h]``."""
    return stage(name, term(2, X[var(1), var(0)]), 6, BATCH, **more)


def plan(*stages: Stage, output: str = "", inputs: tuple[Tensor, ...] = (X,)) -> Plan:
    return Plan("test", inputs, stages, {"out": output or stages[-1].name})


def lines(*stages: Stage, inputs: tuple[Tensor, ...] = (X,)) -> list[str]:
    """The statements of a plan."""
    made = plan(*stages, inputs=inputs).check()
    return [line for line in printed(context(made, {t.name: t.name for t in inputs}), made.stages) if line[0] != "#"]


A = copied()
AT = A.tensor
PLAIN = term(2, AT[B, H])


def over(first: Stage, body: Expr, **more: object) -> Plan:
    """A plan whose second stage, C, takes over the first one's buffer."""
    return plan(first, c(body, into=first.name, template="pointwise", **more))


UNKNOWN = tensor("Q", 6, BATCH)
X1 = term(2, X[H, B])
MARGIN = ((index(1), index(0)), (index(0), index(0)))
REFUSED: list[tuple[str, Callable[[], object], str]] = [
    ("unknown read", lambda: plan(c(term(2, UNKNOWN[B, H]))), "C reads Q, which is no input"),
    ("other tensor of that name", lambda: plan(A, c(term(2, tensor("A", 6, BATCH)[B, H]))), "C reads A"),
    ("later stage", lambda: plan(c(PLAIN), A), "C reads A, which is no input and no earlier stage"),
    ("defined twice", lambda: plan(A, A), "A: defined twice"),
    (
        "read after take-over",
        lambda: replace(over(A, PLAIN), stages=(*over(A, PLAIN).stages, stage("D", PLAIN, 6, BATCH))),
        "D reads A after C took its buffer over",
    ),
    ("output taken over", lambda: replace(over(A, PLAIN), outputs={"out": "A"}), "output out: no stage A, or C took"),
    ("no such output", lambda: plan(A, output="Q"), "output out: no stage Q"),
    ("takes over no stage", lambda: plan(A, c(PLAIN, into="Q")), "C takes over Q, which is not a stage"),
    ("takes over an input", lambda: plan(A, c(PLAIN, into="X")), "C takes over X, which is not a stage"),
    ("another size", lambda: plan(A, c(PLAIN, 5, BATCH, into="A", template="pointwise")), "C cannot take over"),
    (
        "another margin",
        lambda: over(A, PLAIN, margin=((index(1), index(0)), (index(0), index(0)))),
        "C cannot take over",
    ),
    ("another element", lambda: over(A, term(2, AT[B - 1, H])), "C reads A at another element than the one it writes"),
    (
        "what is written once",
        lambda: plan(stage("A", constant(2, 1), 6, BATCH, template="constant"), c(X1, into="A", template="pointwise")),
        "C cannot take over the buffer of A, part of which is written only once",
    ),
    (
        "a margin that is written",
        lambda: plan(copied(margin=MARGIN), c(X1, into="A", template="scatter", margin=MARGIN)),
        "C cannot take over the buffer of A: it would write into its margin",
    ),
    (
        "view with a margin",
        lambda: plan(copied(margin=((index(1), index(0)), (index(0), index(0)))), c(PLAIN, into="A", template="view")),
        "a margin lies between",
    ),
]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_a_plan_that_breaks_a_rule_is_refused(make: Callable[[], Plan], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        make().check()
    assert message in str(caught.value)


WIDE = term(2, AT[B + 1, H])
TWICE = term(2, AT[B, H], AT[B, H])
SUMMED = [(index(0), index(6))]
PUT = term(2, AT[K, H], over=SUMMED, guards=[equal(B, K)])
UNPRINTABLE: list[tuple[str, Callable[[], object], str]] = [
    (
        "outside, at a loop",
        lambda: lines(A, c(WIDE, loops=("h",))),
        "A: cells 1..6 are read and 0..5 are stored; it needs a margin",
    ),
    ("outside, an input", lambda: lines(c(term(2, X[H, B - 1]), loops=("h",))), "X: cells -1..4 are read"),
    ("batch elsewhere", lambda: lines(c(term(2, X[H + 1, B]))), "the batch is read at"),
    ("guard", lambda: lines(c(term(2, X[H, B], guards=[at_least(B, 2)]))), "cannot be printed as slices"),
    ("two slices", lambda: lines(A, c(TWICE)), "C: the template strided prints one read by slices"),
    ("sum over a vector", lambda: lines(A, c(term(2, AT[K, H], over=SUMMED))), "has to be a loop"),
    ("a diagonal", lambda: lines(c(term(1, tensor("S", 6, 6)[B, B]), 6), inputs=(tensor("S", 6, 6),)), "diagonal"),
    (
        "windows of two reads",
        lambda: lines(A, c(TWICE, template="windows")),
        "C: the template windows prints a copy of one read, without loops",
    ),
    ("windows of an input", lambda: lines(c(X1, template="windows")), "C: X is not made beside it"),
    ("windows outside", lambda: lines(A, c(WIDE, template="windows")), "A: cells 1..6 are read and 0..5 are stored"),
    ("windows backwards", lambda: lines(A, c(term(2, AT[5 - B, H]), template="windows")), "does not step forwards"),
    (
        "windows over the batch",
        lambda: lines(A, c(term(2, AT[B, H + 1]), template="windows")),
        "C: the batch is read at $1+1, not at its own variable",
    ),
    (
        "overlaps with a coefficient",
        lambda: lines(A, c(PUT.scaled(2), template="overlaps", loops=("k",))),
        "C: the template overlaps adds up slices of one read as they are",
    ),
    ("backwards", lambda: lines(A, c(term(2, AT[5 - B, H]))), "not a slice with a positive step"),
    ("two monomials", lambda: lines(A, c(PLAIN + constant(2, 1))), "prints one monomial"),
    (
        "scatter without an equation",
        lambda: lines(A, c(term(2, AT[K, H], over=SUMMED, guards=[at_least(B, K)]), template="scatter")),
        "is not an equation for the index of an axis",
    ),
    (
        "scatter with a free sum",
        lambda: lines(A, c(term(2, AT[B, H], over=SUMMED), template="scatter")),
        "C: the template scatter reads and sums over variables that are written, or loops",
    ),
    (
        "dot without loops",
        lambda: lines(A, c(term(1, AT[B, H], AT[B, H], over=[(index(0), BATCH)]), 6, template="dot")),
        "C: the axes of the result have to be loops",
    ),
    (
        "dot of one variable in one factor",
        lambda: lines(A, c(term(1, AT[B, H], AT[B, K], over=[(index(0), BATCH)] * 2), 6, template="dot", loops=("h",))),
        "do not both have every variable summed over",
    ),
    (
        "operands not side by side",
        lambda: lines(*sum_of_products("h b k m", lambda k, m: (k, m), lambda k, m: (m, k))),
        "side by side",
    ),
    (
        "summed over blocks",
        lambda: lines(A, c(term(1, AT[B, H], over=[(index(0), BATCH)]), 6, loops=("b",))),
        "C: a strided stage cannot be summed over blocks of the batch",
    ),
]


def sum_of_products(
    letters: str,
    left: Callable[[Index, Index], tuple[Index, Index]],
    right: Callable[[Index, Index], tuple[Index, Index]],
) -> tuple[Stage, ...]:
    """``C[h,b] = Sum_{k,m} P[h, left(k,m)] R[right(k,m), b]``, which is one GEMM if both have k and m in one order."""
    p = stage("P", constant(3, 1), 6, 2, 2, template="constant")
    r = stage("R", constant(3, 1), 2, 2, BATCH, template="constant")
    k, m = variables(2, 2)
    body = term(2, p.tensor[(B, *left(k, m))], r.tensor[(*right(k, m), H)], over=[(index(0), index(2))] * 2)
    return p, r, Stage(define("C", [6, BATCH], body), "matmul", letters)


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in UNPRINTABLE], ids=[case[0] for case in UNPRINTABLE])
def test_a_stage_that_no_template_prints_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(PlanError) as caught:
        make()
    assert message in str(caught.value)


def test_operands_side_by_side_are_one_product() -> None:
    same = lambda k, m: (k, m)  # noqa: E731
    assert lines(*sum_of_products("h b k m", same, same)) == ["np.matmul(w.P_m1, v.R_m2, out=v.C)"]


def test_a_read_outside_the_box_moves_what_is_there_or_a_margin() -> None:
    none = (index(0), index(0))
    assert lines(A, c(WIDE))[-1] == "np.copyto(v.C[0:5], v.A[1:6])"
    assert lines(copied(margin=((index(0), index(1)), none)), c(WIDE))[-1] == "np.copyto(v.C, v.A[1:7])"


def test_what_is_put_outside_the_box_is_left_out_or_lies_in_the_margin_of_a_sum() -> None:
    put = stage("S", term(2, X[H, K], over=SUMMED, guards=[equal(B, K + 1)]), 6, BATCH, template="scatter",
                margin=((index(0), index(1)), (index(0), index(0))))  # fmt: skip
    assert lines(put) == ["np.copyto(v.S[1:6], X[:, 0:5].transpose(1, 0))"]
    summed = [(index(0), index(2)), (index(0), index(5))]
    twice = term(2, X[H, var(3)], over=summed, guards=[equal(B, var(3) + K + 1)])
    add = replace(put, tensor=define("S", [6, BATCH], twice), loops=("k",))
    assert lines(add)[-1] == "    np.add(v.S[k + 1:k + 6], X[:, 0:5].transpose(1, 0), out=v.S[k + 1:k + 6])"
    with pytest.raises(PlanError, match=r"S: cells 1\.\.6 are read and 0\.\.5 are stored"):
        lines(add, c(term(2, add.tensor[B + 1, H])))


def test_a_slice_times_a_number_needs_loops_for_the_number() -> None:
    w = tensor("W", 6)
    scaled = term(2, X[H, B], w[K], over=SUMMED)
    text = lines(c(scaled, loops=("k",)), inputs=(X, w))
    assert text == [
        "v.C.fill(0)",
        "for k in range(6):",
        "    np.multiply(X.transpose(1, 0), W[k], out=v.C_part)",
        "    np.add(v.C, v.C_part, out=v.C)",
    ]
    once = term(2, X[H, B], w[B])
    assert lines(c(once, loops=("h",)), inputs=(X, w))[-1] == "    np.multiply(X[:, h], W[h], out=v.C[h])"


def test_a_plan_at_symbols_is_for_proofs_only() -> None:
    plans = direct(Kind("direct", 1).applied)
    with pytest.raises(PlanError, match="is not a number; only the batch size N stays free"):
        plans["forward"].check()


# --- a network without pooling ------------------------------------------------------------------------------------


def test_a_convolution_and_a_sigmoid_need_no_pooling() -> None:
    sides = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
    net = Sequential(
        Conv2d(1, 2, (3, 2), **sides), Sigmoid(), Conv2d(2, 3, 2, padding=1), Sigmoid(), Flatten(), Linear(90, 4)
    )  # fmt: skip
    module = codegen.load(codegen.emit(net, input_shape=(1, 1, 7, 3)).source)
    rng = np.random.default_rng(0)
    params = {name: rng.normal(size=shape) for name, shape in module.PARAMETERS.items()}
    x, labels = rng.normal(size=(5, 1, 7, 3)), np.array([0, 3, 1, 2, 2])
    z0 = reference.conv2d(x, params["0.weight"], params["0.bias"], **sides)
    z2 = reference.conv2d(reference.sigmoid(z0), params["2.weight"], params["2.bias"], padding=1)
    flat = reference.sigmoid(z2).reshape(5, -1)
    logits = reference.linear(flat, params["5.weight"], params["5.bias"])
    np.testing.assert_allclose(module.forward(x, params), logits, rtol=1e-12)
    found = module.gradients(x, labels, params, module.Workspace(5, float, block=2))
    wanted = {}
    g, wanted["5.weight"], wanted["5.bias"] = reference.linear_gradients(
        reference.cross_entropy_gradient(logits, labels), flat, params["5.weight"]
    )
    g = reference.sigmoid_gradient(g.reshape(z2.shape), z2)
    a0 = reference.sigmoid(z0)
    g, wanted["2.weight"], wanted["2.bias"] = reference.conv2d_gradients(g, a0, params["2.weight"], padding=1)
    g = reference.sigmoid_gradient(g, z0)
    _, wanted["0.weight"], wanted["0.bias"] = reference.conv2d_gradients(g, x, params["0.weight"], **sides)
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, wanted[name], rtol=1e-10, atol=1e-14, err_msg=name)
