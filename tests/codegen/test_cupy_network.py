"""A network's module for CuPy, its kernels run on a CPU: exactly against its stages, in float64 against NumPy's module.

What is compiled is compiled once for many tests: a text, over the field or in float64, with places of 32 bits.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from codegen.bounds import through
from codegen.check import check
from codegen.cupy_check import cut_short
from codegen.cupy_network_check import check_cupy_network
from codegen.emit import Emitted, emit
from codegen.execution import Refuted, Trial
from codegen.loading import load
from codegen.plan import Plan, Stage
from codegen.rounding import FLOAT64
from derive.layers import AvgPool1d, AvgPool2d, Conv1d, Conv2d, Flatten, Linear, Sequential, Sigmoid, lenet
from derive.terms import Substitution, Tensor
from tests.codegen.cupy_on_cpu import needs_compiler, on_cpu
from tests.codegen.small import SMALL_SHAPE, numbers, small_network

Array = npt.NDArray[Any]
LENET_SHAPE = (2, 1, 28, 28)
ONE_STEP = (Trial(3, 3, ("sgd_step",)),)


@cache
def emitted(net: Sequential, shape: tuple[int, ...], backend: str = "cupy", dtype: str = "float64") -> Emitted:
    return emit(net, backend=backend, input_shape=shape, dtype=dtype)


def small() -> Emitted:
    """Few channels: a thread an element, and sums in pairs."""
    return emitted(small_network(), SMALL_SHAPE)


def tiled() -> Emitted:
    """As many channels as make matrix products, with epilogues and columns; no size divides a tile."""
    net = Sequential(
        Conv2d(1, 5, 3, padding=1), Sigmoid(), AvgPool2d(2),
        Conv2d(5, 9, (3, 2)), Sigmoid(), AvgPool2d(2),
        Flatten(),
        Linear(9, 11), Sigmoid(),
        Linear(11, 9), Sigmoid(),
        Linear(9, 7),
    )  # fmt: skip
    return emitted(net, (3, 1, 9, 7))


@pytest.fixture(scope="module")
def module() -> ModuleType:
    """The small network in float64, its sums in many shares."""
    return cut_short(on_cpu(small().source))


def arguments(m: ModuleType, batch: int = 3, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    params = {name: numbers(rng, shape, 2.0) for name, shape in m.PARAMETERS.items()}
    return {"x": rng.normal(size=(batch, *m.INPUT)), "y": rng.integers(0, m.CLASSES, batch), "params": params}


# --- exactly ------------------------------------------------------------------------------------------------------


@needs_compiler
def test_the_text_of_a_small_network_is_its_stages() -> None:
    certificate = check(tiled(), executor=on_cpu)
    assert [row.scope for row in certificate.rows] == ["all sizes"] * 12 + ["6 cases", "6 cases", "7 cases", "4 cases"]
    assert certificate.rows[12].error_probability is not None
    assert certificate.rows[12].error_probability < 1e-8


@needs_compiler
def test_a_batch_beyond_the_tiles_of_dense_layers() -> None:
    plan = tiled().plans["network"]
    kinds = {"product", "epilogue", "column", "pooled", "spread", "cells", "local", "reduce", "alias"}
    assert {s.template for s in plan.stages} == kinds
    check_cupy_network(tiled().source, plan, on_cpu, narrow=(Trial(33, None, ("loss_and_gradients",)),), wide=())


@needs_compiler
def test_the_text_of_a_network_with_few_channels_is_its_stages() -> None:
    assert {s.template for s in small().plans["network"].stages} >= {"cells", "reduce", "local", "alias"}
    certificate = check_cupy_network(small().source, small().plans["network"], on_cpu, narrow=ONE_STEP, wide=())
    assert [row.scope for row in certificate.rows] == ["1 case", "1 case", "4 cases", "4 cases"]


@needs_compiler
def test_the_text_of_lenet_is_its_stages() -> None:
    e = emitted(lenet(), LENET_SHAPE, dtype="float32")
    certificate = check_cupy_network(
        e.source, e.plans["network"], on_cpu, narrow=(Trial(2, 2, ("sgd_step",)), Trial(1, None, ("loss",))), wide=()
    )
    assert certificate.rows[0].scope == "2 cases"


@needs_compiler
def test_the_text_of_a_network_on_one_axis_is_its_stages() -> None:
    net = Sequential(
        Conv1d(2, 5, 4), Sigmoid(), AvgPool1d(4),
        Conv1d(5, 6, 2), Sigmoid(), AvgPool1d(2),
        Flatten(),
        Linear(6, 9),
    )  # fmt: skip
    e = emitted(net, (3, 2, 15))
    kinds = {s.name: s.template for s in e.plans["network"].stages}
    assert [kinds[name] for name in ("P0", "P3", "dZ3", "dZ0")] == ["pooled", "pooled", "spread", "spread"]
    check_cupy_network(e.source, e.plans["network"], on_cpu, narrow=ONE_STEP, wide=())


def exchanged(plan: Plan, name: str, body: Any) -> Plan:
    """The plan with another body for one stage; what reads it reads the changed one."""
    new: dict[str, Tensor] = {}
    put = Substitution(0, (), 0, {}, lambda t: new.get(t.name, t))
    stages = []
    for s in plan.stages:
        own = put.expr(s.body)
        own = body(replace(s, tensor=Tensor(s.name, s.tensor.box, own))) if s.name == name else own
        new[s.name] = Tensor(s.name, s.tensor.box, own)
        stages.append(replace(s, tensor=new[s.name]))
    return replace(plan, stages=tuple(stages))


def twice(s: Stage) -> Any:
    return s.body.scaled(2)


def without(name: str) -> Any:
    def body(s: Stage) -> Any:
        kept = [m for m in s.body.monomials if name not in {getattr(f, "tensor", s.tensor).name for f in m.factors}]
        return type(s.body)(s.body.depth, tuple(kept))

    return body


@needs_compiler
@pytest.mark.parametrize(
    ("stage", "change"),
    [
        ("A3", twice), ("P0", twice), ("M", twice), ("Share", twice), ("Le", without("T")), ("dL", without("T")),
        ("dZ7", twice), ("dZ0", twice), ("du9", twice), ("dW3", twice), ("dX3", twice), ("Z11", without("u11")),
    ],
)  # fmt: skip
def test_a_text_that_is_not_its_stages_is_refuted(stage: str, change: Any) -> None:
    """The text is right and the plan is not, which is the same difference, and compiles once."""
    plan = tiled().plans["network"]
    with pytest.raises(Refuted, match="by the stages"):
        check_cupy_network(tiled().source, exchanged(plan, stage, change), on_cpu, narrow=ONE_STEP, wide=())


@needs_compiler
def test_a_barrier_left_out_is_found() -> None:
    e = emitted(Sequential(Conv1d(1, 1, 3), Sigmoid(), Flatten(), Linear(2, 2)), (2, 1, 4))
    barrier, after = "  __syncthreads();\n", "  if (thread >= 32) return sum;\n"
    assert barrier + after in e.source
    broken = e.source.replace(barrier + after, after)
    with pytest.raises(Refuted, match=r"race|nothing has been written there"):
        check_cupy_network(broken, e.plans["network"], on_cpu, narrow=(Trial(2, None, ("loss",)),), wide=())


# --- in float64 ---------------------------------------------------------------------------------------------------


def errors(e: Emitted, x: Array, y: Array, params: Mapping[str, Array], classes: int) -> dict[str, Array]:
    """The bound of codegen on what each output of a plan may be off by, from its stages."""
    plan = e.plans["network"]
    inputs = {"X": x, "T": np.eye(classes)[y], **{plan.parameters[key]: a for key, a in params.items()}}
    found = through(plan, inputs, FLOAT64, sizes={"N": len(x)})
    by_output = {output: found[stage].error for output, stage in plan.outputs.items()}
    by_output["forward"] = np.broadcast_to(by_output["forward"].max(), (len(x), classes))
    return by_output


def compared(e: Emitted, other: Emitted, found: ModuleType, batch: int, seed: int) -> None:
    """The device module and NumPy's on the same data: no further apart than the two bounds together."""
    wanted = load(other.source)
    given = arguments(wanted, batch, seed)
    x, y, params = given["x"], given["y"], given["params"]
    mine, theirs = (errors(one, x, y, params, wanted.CLASSES) for one in (e, other))
    limit = {output: mine[output] + theirs[output] for output in mine}

    def agree(output: str, a: Array, b: Array, more: Array | float = 0.0) -> None:
        scale = float(np.abs(b).max())
        assert float(limit[output].max()) < 0.05 * scale, f"{output}: a bound that says nothing"
        assert np.all(np.abs(a - b) <= limit[output] + more), output

    work = found.Workspace(batch)
    agree("forward", found.forward(x, params, work), wanted.forward(x, params))
    loss, gradients = found.loss_and_gradients(x, y, params, work)
    wanted_loss, wanted_gradients = wanted.loss_and_gradients(x, y, params)
    agree("loss", loss, wanted_loss)
    assert list(gradients) == list(wanted_gradients)
    for name, gradient in wanted_gradients.items():
        agree(f"gradient {name}", gradients[name], gradient)
    after = {name: a.copy() for name, a in params.items()}
    agree("loss", found.sgd_step(x, y, after, 0.5, work), wanted_loss)
    for name, gradient in wanted_gradients.items():
        expected = params[name] - 0.5 * gradient
        rounding = 4 * float(FLOAT64.unit) * (np.abs(params[name]) + np.abs(gradient))
        assert np.all(np.abs(after[name] - expected) <= 0.5 * limit[f"gradient {name}"] + rounding), name


@needs_compiler
@pytest.mark.parametrize("batch", [1, 5])
def test_float64_agrees_with_numpy_within_the_bound(module: ModuleType, batch: int) -> None:
    compared(small(), emitted(small_network(), SMALL_SHAPE, "numpy"), module, batch, seed=batch)


@needs_compiler
def test_float64_of_lenet_agrees_with_numpy_within_the_bound() -> None:
    e = emitted(lenet(), LENET_SHAPE)
    compared(e, emitted(lenet(), LENET_SHAPE, "numpy"), on_cpu(e.source), batch=2, seed=3)


@needs_compiler
def test_a_batch_of_no_images(module: ModuleType) -> None:
    given = arguments(module, batch=0)
    loss, gradients = module.loss_and_gradients(**given)
    assert float(loss) == 0
    assert all(not gradient.any() for gradient in gradients.values())
    assert module.forward(given["x"], given["params"]).shape == (0, 4)


@needs_compiler
def test_a_label_that_is_no_class_is_seen_in_the_loss(module: ModuleType) -> None:
    given = arguments(module)
    for label in (-1, module.CLASSES, 2**40):
        given["y"][1] = label
        assert np.isnan(module.loss(**given))


# --- what a step does ---------------------------------------------------------------------------------------------


@needs_compiler
def test_a_step_on_a_workspace_allocates_nothing_and_launches_as_often_as_the_module_says(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = arguments(module)
    work = module.Workspace(3)

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("a step on a workspace allocates")

    for name in ("empty", "zeros", "array", "asarray", "empty_like"):
        monkeypatch.setattr(module.cupy, name, refused, raising=False)
    before = len(module.cupy.launches)
    loss = module.sgd_step(**given, lr=0.1, work=work)
    launched = [launch.kernel for launch in module.cupy.launches[before:]]
    assert loss is work.loss
    assert loss.shape == ()
    assert f"a step of SGD launches {len(launched)} of them" in small().source
    assert launched[-1] == "step"
    assert len(set(launched)) == len(launched)


def test_a_step_of_lenet_is_12_launches() -> None:
    assert "a step of SGD launches 12 of them" in emitted(lenet(), LENET_SHAPE).source


@needs_compiler
@pytest.mark.parametrize("dtype", [np.int32, np.uint8])
def test_labels_may_be_any_integers(module: ModuleType, dtype: Any) -> None:
    given = arguments(module)
    expected = module.loss(**given)
    assert module.loss(**given | {"y": given["y"].astype(dtype)}) == expected
    assert module.loss(**given | {"y": np.repeat(given["y"], 2).astype(dtype)[::2]}) == expected


def test_the_same_request_gives_the_same_text() -> None:
    again = emit(small_network(), backend="cupy", input_shape=SMALL_SHAPE, dtype="float64")
    assert again.source == small().source
    assert again.cuda in again.source


# --- what is refused ----------------------------------------------------------------------------------------------

REFUSED = [
    (lambda m: {"x": [1, 2]}, TypeError, "x is list; an array on the GPU of shape (batch, 1, 13, 11) is needed"),
    (lambda m: {"x": np.zeros((3, 9))}, ValueError, "x has the shape (3, 9); (batch, 1, 13, 11) is needed"),
    (lambda m: {"x": np.zeros((3, 1, 13, 11), "f4")}, ValueError, "x is float32; float64 is needed"),
    (lambda m: {"x": np.zeros((3, 1, 11, 13)).swapaxes(2, 3)}, ValueError, "a C-contiguous array is needed"),
    (lambda m: {"params": {}}, ValueError, "params has no '0.weight'; it needs 0.weight, 0.bias"),
    (lambda m: {"params": arguments(m)["params"] | {"0.bias": np.zeros(1)}}, ValueError, "params['0.bias'] has the"),
    (lambda m: {"y": np.zeros(2, int)}, ValueError, "y is (2,) int64; (3,) integers are needed"),
    (lambda m: {"y": np.zeros(3)}, ValueError, "y is (3,) float64; (3,) integers are needed"),
    (lambda m: {"y": [0, 1, 2]}, TypeError, "y is list; an array on the GPU of 3 integers is needed"),
    (lambda m: {"work": 7}, TypeError, "work=7: Workspace(3) or None is needed"),
    (lambda m: {"work": m.Workspace(2)}, ValueError, "work is for 2 images; x holds 3: Workspace(3) or None"),
    (
        lambda m: {"work": m.Workspace(2.6)},
        ValueError,
        "batch=2.6: an integer of at least 0 is needed; the nearest is 3",
    ),
    (lambda m: {"work": m.Workspace(3, "f4")}, ValueError, "dtype='f4': this module is made for float64"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED, ids=[str(k) for k in range(len(REFUSED))])
def test_what_does_not_fit_is_refused_in_words(
    module: ModuleType, change: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        module.loss(**arguments(module) | change(module))
