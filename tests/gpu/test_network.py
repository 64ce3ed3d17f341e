"""An emitted network on a device: LeNet's training step beside NumPy's, always the same bits, and as a CUDA graph.

Both backends compute the same loss and gradients by different plans.  Each lies within the bound carried through its
own plan (``codegen.bounds.through``), so in float64 they lie within the sum of the two of one another.
"""

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import codegen
from codegen.bounds import through
from codegen.emit import Emitted
from codegen.loading import load
from codegen.rounding import FLOAT64
from derive.layers import lenet
from runtime.network import glorot
from tests.codegen.small import SMALL_SHAPE, small_network
from tests.gpu.machines import Machine, emitted

NETWORKS = {"LeNet": (lenet(), (3, 1, 28, 28)), "small": (small_network(), SMALL_SHAPE)}
USUAL = 1e-12  # no bound, but far above what rounding does here; the bounds of early layers are far above that
Arrays = dict[str, Any]


@lru_cache
def drawn(name: str, dtype: str) -> tuple[Any, Any, Arrays]:
    """Images, labels, and parameters without a zero among them."""
    network, shape = NETWORKS[name]
    rng = np.random.default_rng(7)
    params = {
        key: a + 0.1 * rng.standard_normal(a.shape) for key, a in glorot(network, seed=1, dtype="float64").items()
    }
    classes = len(params[list(params)[-1]])
    return (
        rng.standard_normal(shape).astype(dtype),
        rng.integers(0, classes, shape[0]),
        {key: a.astype(dtype) for key, a in params.items()},
    )


def made(machine: Machine, name: str, dtype: str) -> tuple[ModuleType, Emitted]:
    text = emitted(*NETWORKS[name], dtype)
    return machine.module(text), text


def on(module: ModuleType, arrays: Arrays) -> Arrays:
    """Copies on the machine."""
    return {key: module.cupy.asarray(a.copy()) for key, a in arrays.items()}


def off(module: ModuleType, arrays: Arrays) -> Arrays:
    return {key: module.cupy.asnumpy(a) for key, a in arrays.items()}


def rounding(text: Emitted, x: Any, y: Any, params: Arrays) -> Arrays:
    """For the loss and each gradient how far what is computed may lie from the exact one."""
    (plan,) = text.plans.values()
    T = np.eye(len(params[list(params)[-1]]))[y]
    inputs = {"X": x, "T": T, **{plan.parameters[key]: a for key, a in params.items()}}
    found = through(plan, inputs, FLOAT64, sizes={"N": len(x)})
    return {key: found[name].error for key, name in plan.outputs.items() if key != "forward"}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_agrees_with_numpys_within_the_bound(machine: Machine, name: str) -> None:
    network, shape = NETWORKS[name]
    x, y, params = drawn(name, "float64")
    module, text = made(machine, name, "float64")
    numpy_text = codegen.emit(network, input_shape=shape, dtype="float64")
    numpy_module = load(numpy_text.source)
    wanted_loss, wanted = numpy_module.loss_and_gradients(x, y, params)
    X, Y, P = module.cupy.asarray(x), module.cupy.asarray(y), on(module, params)
    loss, gradients = module.loss_and_gradients(X, Y, P)
    within = rounding(text, x, y, params)
    of_numpy = rounding(numpy_text, x, y, params)
    found = {"loss": loss, **{f"gradient {key}": g for key, g in gradients.items()}}
    right = {"loss": wanted_loss, **{f"gradient {key}": g for key, g in wanted.items()}}
    for key, a in off(module, found).items():
        allowed = within[key] + of_numpy[key]
        largest = np.max(abs(right[key]))
        assert np.max(allowed) < 0.1 * largest, f"{key}: the bound says nothing"
        assert np.all(abs(a - right[key]) <= allowed), key
        assert np.max(abs(a - right[key])) <= USUAL * largest, key
    stepped = module.sgd_step(X, Y, P, 0.25)
    assert module.cupy.asnumpy(stepped) == module.cupy.asnumpy(loss)
    for key, a in off(module, P).items():
        exact = params[key] - 0.25 * right[f"gradient {key}"]
        allowed = 0.25 * (within[f"gradient {key}"] + of_numpy[f"gradient {key}"]) + 2.0**-50 * (1 + abs(params[key]))
        assert np.all(abs(a - exact) <= allowed), key
        assert np.any(a != params[key]), key


def test_a_captured_step_does_what_a_call_does(machine: Machine) -> None:
    """The graph of a step trains as calls of it do, bit by bit, on images that are put in the same array."""
    x, y, params = drawn("small", "float64")
    module, _ = made(machine, "small", "float64")
    cupy = module.cupy
    called, captured = on(module, params), on(module, params)
    X, Y = cupy.asarray(x.copy()), cupy.asarray(y)
    losses = [float(cupy.asnumpy(module.sgd_step(cupy.asarray(x * k), Y, called, 0.5))) for k in (1, 2, 3)]
    work = module.Workspace(len(x))
    module.sgd_step(X, Y, {key: a.copy() for key, a in captured.items()}, 0.5, work)  # compiles
    cupy.cuda.get_current_stream().synchronize()
    stream = cupy.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        loss = module.sgd_step(X, Y, captured, 0.5, work)
        graph = stream.end_capture()
    for k, wanted in zip((1, 2, 3), losses, strict=True):
        X[...] = cupy.asarray(x * k)
        cupy.cuda.get_current_stream().synchronize()
        graph.launch(stream)
        stream.synchronize()
        assert float(cupy.asnumpy(loss)) == wanted
    for key, a in off(module, captured).items():
        np.testing.assert_array_equal(a, cupy.asnumpy(called[key]), err_msg=key)


def test_the_same_call_gives_the_same_bits(machine: Machine) -> None:
    x, y, params = drawn("small", "float64")
    module, _ = made(machine, "small", "float64")
    X, Y, P = module.cupy.asarray(x), module.cupy.asarray(y), on(module, params)
    first, again = (off(module, module.gradients(X, Y, P)) for _ in range(2))
    assert {key: a.tobytes() for key, a in first.items()} == {key: a.tobytes() for key, a in again.items()}


def test_labels_of_any_integer_dtype_and_a_label_that_is_no_class(machine: Machine) -> None:
    x, y, params = drawn("small", "float64")
    module, _ = made(machine, "small", "float64")
    X, P, on_machine = module.cupy.asarray(x), on(module, params), module.cupy.asarray
    wanted = module.cupy.asnumpy(module.loss(X, on_machine(y), P))
    for dtype in ("int32", "uint8"):
        assert module.cupy.asnumpy(module.loss(X, on_machine(y.astype(dtype)), P)) == wanted
    wrong = y.copy()
    wrong[0] = 99
    assert np.isnan(module.cupy.asnumpy(module.loss(X, on_machine(wrong), P)))
