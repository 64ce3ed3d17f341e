"""The public face: every name a user is promised is there, its own example runs, and the names work together.

The calls are written as a user writes them: three imports, nothing from inside a package.
"""

import doctest
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import codegen
import derive
import runtime

PACKAGES = (derive, codegen, runtime)
PROMISED = {
    "derive": (
        "AvgPool1d AvgPool2d AvgPool3d Conv1d Conv2d Conv3d CrossEntropyLoss Derivation Flatten Linear ReLU Sequential "
        "Sigmoid Tanh gradient lenet output_shape reduction commutativity convolution_theorem "
        "convolution_with_remainders flipped_kernel tiled_convolution winograd"
    ),
    "codegen": "Emitted emit",
    "runtime": "Gradients Network compile",
}
WITH_EXAMPLE = {
    "derive": (
        "AvgPool2d Conv2d Linear gradient lenet output_shape reduction ToomCook winograd "
        "commutativity convolution_theorem convolution_with_remainders flipped_kernel tiled_convolution"
    ),
    "codegen": "emit",
    "runtime": "Settings backends compile load_digits load_idx_folder standardise",
}

WRT = ("input", "weight", "bias")
CONV = derive.Conv2d(2, 3, 3, padding=1)
SHAPE = (2, 2, 6, 5)


def listed(names: dict[str, str]) -> list[tuple[ModuleType, str]]:
    return [(package, name) for package in PACKAGES for name in names[package.__name__].split()]


def named(value: object) -> str:
    return value.__name__ if isinstance(value, ModuleType) else str(value)


# --- Names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("package", "name"), listed(PROMISED), ids=named)
def test_a_promised_name_is_public_and_explains_itself(package: ModuleType, name: str) -> None:
    assert name in package.__all__
    value = getattr(package, name)
    assert callable(value)
    assert value.__doc__


@pytest.mark.parametrize("package", PACKAGES, ids=named)
def test_every_public_name_can_be_imported(package: ModuleType) -> None:
    found: dict[str, Any] = {}
    exec(f"from {package.__name__} import *", found)
    assert {name for name in package.__all__ if callable(found[name])} == set(package.__all__)


def examples(value: object, name: str) -> int:
    """Run the examples of a value, and tell how many there were."""
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in doctest.DocTestFinder().find(value, name):
        assert runner.run(test).failed == 0
    return runner.summarize(verbose=False).attempted


@pytest.mark.parametrize(("package", "name"), listed(WITH_EXAMPLE), ids=named)
def test_the_example_of_a_name_runs(package: ModuleType, name: str) -> None:
    assert examples(getattr(package, name), name) > 0


def test_names_with_an_example_are_listed_above() -> None:
    having = {
        package.__name__: {
            name
            for name in package.__all__
            if any(test.examples for test in doctest.DocTestFinder().find(getattr(package, name), name))
        }
        for package in PACKAGES
    }
    assert having == {name: set(names.split()) for name, names in WITH_EXAMPLE.items()}


# --- derive -------------------------------------------------------------------------------------------------


def test_a_layer_is_derived_from_a_dense_one() -> None:
    told = derive.reduction(CONV)
    assert isinstance(told, derive.Derivation)
    assert isinstance(told.theorem, derive.Theorem)
    assert all(step.rule and step.before and step.after for step in told.steps)
    obligations = list(chain.from_iterable(step.obligations for step in told.steps))
    assert obligations
    assert all(obligation.by for obligation in obligations)
    assert told.to_text()
    assert told.to_latex()
    assert told.to_html()
    assert derive.Derivation.from_json(told.to_json()).to_json() == told.to_json()


def test_gradients_are_derived_in_both_forms() -> None:
    gather, scatter = ({w: derive.gradient(CONV, w, form=f) for w in WRT} for f in ("gather", "scatter"))
    for wrt in WRT:
        assert gather[wrt].theorem.lhs == scatter[wrt].theorem.lhs
    # Only the input of a convolution is read at an index with an equation that need not have a solution.
    assert [wrt for wrt in WRT if gather[wrt].theorem.rhs != scatter[wrt].theorem.rhs] == ["input"]


def test_shapes_take_numbers_and_symbols() -> None:
    h = derive.symbol("h")
    assert derive.output_shape(CONV, (8, 2, 14, 14)) == (8, 3, 14, 14)
    strided = derive.Conv2d(2, 3, 5, stride=2)
    assert str(derive.output_shape(strided, (8, 2, h, 14))) == "(8, 3, floor(h/2 - 5/2) + 1, 5)"
    assert derive.output_shape(derive.lenet(), (32, 1, 28, 28)) == (32, 10)


# --- codegen ------------------------------------------------------------------------------------------------


def test_what_is_emitted_holds_text_plan_and_certificate_and_writes_itself(tmp_path: Path) -> None:
    kernel = codegen.emit(CONV, backend="numpy", input_shape=SHAPE, dtype="float64")
    assert [stage.name for stage in kernel.plan.stages]
    assert {row.scope.split()[-1] for row in kernel.certificate.rows} >= {"cases"}
    assert kernel.certificate.sha256 == kernel.digest
    kernel.write(tmp_path / "conv.py")
    assert (tmp_path / "conv.py").read_text(encoding="utf-8") == kernel.source


def test_the_emitted_functions_are_those_of_the_operation(tmp_path: Path) -> None:
    module = codegen.load(codegen.emit(CONV, input_shape=SHAPE, dtype="float64").source)
    op = runtime.compile(CONV, backend="auto", input_shape=SHAPE, dtype="float64", cache_dir=tmp_path)
    rng = np.random.default_rng(0)
    x, w, u = rng.normal(size=SHAPE), rng.normal(size=(3, 2, 3, 3)), rng.normal(size=3)
    z = op.forward(x, w, u)
    np.testing.assert_array_equal(module.forward(x, w, u), z)
    found = op.backward(z, x, w)
    assert isinstance(found, runtime.Gradients)
    assert found._fields == ("input", "weight", "bias")
    np.testing.assert_array_equal(module.input_gradient(z, w, x.shape), found.input)
    np.testing.assert_array_equal(module.weight_gradient(z, x), found.weight)
    assert found.bias is not None
    np.testing.assert_array_equal(module.bias_gradient(z), found.bias)
    for one, other in zip(module.backward(z, x, w), found, strict=True):
        np.testing.assert_array_equal(one, other)


# --- runtime ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("emission")
def test_a_network_runs_steps_and_is_saved(tmp_path: Path) -> None:
    net = runtime.Network(derive.lenet(), seed=0)
    x, y = np.ones((2, 1, 28, 28), "f"), np.array([3, 5])
    assert net.forward(x).shape == (2, 10)
    before = net.step(x, y, lr=0.5)
    assert net.loss(x, y) < before
    net.save(tmp_path / "lenet.npz")
    again = runtime.Network.load(tmp_path / "lenet.npz")
    np.testing.assert_array_equal(again.forward(x), net.forward(x))


@pytest.mark.usefixtures("emission")
def test_the_emitted_network_works_by_itself() -> None:
    module = codegen.load(
        codegen.emit(derive.lenet(), backend="numpy", input_shape=(1, 1, 28, 28), dtype="float32").source
    )
    params = runtime.Network(derive.lenet(), seed=0).params
    x, y = np.ones((2, 1, 28, 28), "f"), np.array([3, 5])
    work = module.Workspace(2, np.float32)
    logits = module.forward(x, params, work=work)
    np.testing.assert_array_equal(module.forward(x, params), logits)
    gradients = module.gradients(x, y, params)
    assert list(gradients) == list(params)
    before = {name: array.copy() for name, array in params.items()}
    loss = module.loss(x, y, params)
    assert module.sgd_step(x, y, params, 0.5, work=work) == pytest.approx(loss, rel=1e-6)
    for name, array in params.items():
        np.testing.assert_allclose(array, before[name] - np.float32(0.5) * gradients[name], rtol=1e-6, atol=1e-7)
