"""What an emitted network refuses, and in which words: arrays, labels, parameters and workspaces that do not fit."""

import re
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from codegen.loading import load
from tests.codegen.small import emitted_small, numbers


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return load(emitted_small().source)


def arguments(m: ModuleType) -> dict[str, Any]:
    """Arguments of a loss that fit."""
    rng = np.random.default_rng(0)
    params = {name: numbers(rng, shape, 1.0) for name, shape in m.PARAMETERS.items()}
    return {"x": rng.normal(size=(3, *m.INPUT)), "y": np.zeros(3, int), "params": params}


def without(m: ModuleType, name: str) -> dict[str, Any]:
    return {key: value for key, value in arguments(m)["params"].items() if key != name}


REFUSED = [
    (lambda m: {"x": [1, 2]}, TypeError, "x is list; a NumPy array (batch, "),
    (lambda m: {"x": np.zeros((3, 9))}, ValueError, "x has the shape (3, 9); (batch, "),
    (lambda m: {"params": without(m, "0.bias")}, ValueError, "params has no '0.bias'; it needs 0.weight, 0.bias"),
    (lambda m: {"params": arguments(m)["params"] | {"0.bias": np.zeros(1)}}, ValueError, "params['0.bias'] is (1,)"),
    (lambda m: {"y": np.zeros(2, int)}, ValueError, "y is (2,) int64; (3,) integers are needed"),
    (lambda m: {"y": np.full(3, 99)}, ValueError, "y holds labels from 99 to 99; they lie in 0.."),
    (lambda m: {"work": 7}, TypeError, "work=7: Workspace(3, 'float64') or None is needed"),
    (
        lambda m: {"work": m.Workspace(2, "f8")},
        ValueError,
        "work is for 2 images of float64; x holds 3 of float64",
    ),
    (
        lambda m: {"work": m.Workspace(3)},
        ValueError,
        "work is for 3 images of float32; x holds 3 of float64",
    ),
    (lambda m: {"work": m.Workspace(3, block=0)}, ValueError, "block=0: an integer of at least 1 is needed; the near"),
    (lambda m: {"work": m.Workspace(-3)}, ValueError, "batch=-3: an integer of at least 0 is needed; the nearest is 0"),
]


@pytest.mark.parametrize(("change", "kind", "message"), REFUSED, ids=[str(k) for k in range(len(REFUSED))])
def test_what_does_not_fit_is_refused_in_words(
    module: ModuleType, change: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=re.escape(message)):
        module.loss(**arguments(module) | change(module))


def test_what_fits_is_not_refused(module: ModuleType) -> None:
    given = arguments(module)
    work = module.Workspace(3, "float64", block=2)
    assert module.loss(**given, work=work) == pytest.approx(module.loss(**given))
    assert repr(work) == "Workspace(3, 'float64')"
