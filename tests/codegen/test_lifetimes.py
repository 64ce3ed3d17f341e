"""Buffers that share memory: never two at a time, less memory, the same numbers; a life cut short is caught."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import codegen
from codegen import lifetimes
from codegen.check import check
from codegen.execution import Refuted
from codegen.lifetimes import Piece, pieces
from codegen.plan import PlanError
from codegen.templates import numpy as templates
from derive.layers import Conv, Conv1d, Conv2d

CASES: list[tuple[str, Conv, tuple[int, ...]]] = [
    ("winograd2", Conv2d(2, 3, 3, padding=1), (3, 2, 7, 6)),
    ("winograd4", Conv2d(2, 3, 3), (3, 2, 7, 6)),
    ("nested", Conv1d(2, 3, 7, padding=2), (3, 2, 11)),
]
SOME = pytest.mark.parametrize(("algorithm", "layer", "shape"), CASES, ids=[name for name, *_ in CASES])


def emitted(algorithm: str, layer: Conv, shape: tuple[int, ...]) -> codegen.Emitted:
    return codegen.emit(layer, input_shape=shape, dtype="float64", algorithm=algorithm)


def memory(block: Any) -> int:
    """The bytes of every array that a block has for itself."""
    arrays = [a for a in vars(block).values() if isinstance(a, np.ndarray)]
    return sum(a.nbytes for a in {id(a): a for a in arrays if a.base is None}.values())


@SOME
def test_memory_is_shared_and_the_numbers_are_the_same(
    algorithm: str, layer: Conv, shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = emitted(algorithm, layer, shape)
    assert "self.shared0" in text.source
    assert check(text).rows
    monkeypatch.setattr(templates, "pieces", lambda plan, **_: ())
    modules = [codegen.load(s) for s in (text.source, emitted(algorithm, layer, shape).source)]
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=shape), rng.normal(size=modules[0].SHAPES["weight"]), rng.normal(size=3)
    outputs = [m.forward(x, w, b) for m in modules]
    assert (outputs[0] == outputs[1]).all()
    for found, wanted in zip(*(m.backward(outputs[0], x, w) for m in modules), strict=True):
        assert (found == wanted).all()
    for kind in ("Forward", "InputGradient", "WeightGradient"):
        less, more = (memory(getattr(m, kind)(shape[0]).blocks[0][2]) for m in modules)
        assert less < more


def a_life_cut_short(patch: pytest.MonkeyPatch) -> None:
    """A buffer is taken to be free from the stage on that first touches it."""
    original = lifetimes._lives

    def lives(*arguments: Any) -> dict[str, tuple[int, int]]:
        return {name: (first, first) for name, (first, _) in original(*arguments).items()}

    patch.setattr(lifetimes, "_lives", lives)


def free_while_it_is_read(patch: pytest.MonkeyPatch) -> None:
    """A buffer is taken to be free in the last stage that reads it.

    NumPy copies what overlaps its ``out``, so the numbers stay right and only time is lost; no execution shows that.
    """
    original = lifetimes._lives

    def lives(*arguments: Any) -> dict[str, tuple[int, int]]:
        return {name: (first, max(first, last - 1)) for name, (first, last) in original(*arguments).items()}

    patch.setattr(lifetimes, "_lives", lives)


@pytest.mark.parametrize("plant", [a_life_cut_short, free_while_it_is_read])
def test_a_wrong_lifetime_is_refused(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises(PlanError, match=r"whose memory holds|which it reads"):
        emitted(*CASES[0])


def test_without_that_check_a_wrong_lifetime_is_killed_by_execution(monkeypatch: pytest.MonkeyPatch) -> None:
    a_life_cut_short(monkeypatch)
    monkeypatch.setattr(lifetimes, "check", lambda plan, made: None)
    with pytest.raises(Refuted):
        check(emitted(*CASES[0]))


def test_memory_that_is_too_small_is_refused() -> None:
    plan = emitted(*CASES[1]).plans["forward"]
    first, *rest = pieces(plan)
    with pytest.raises(PlanError, match="is larger than the memory that it is given"):
        lifetimes.check(plan, (Piece(first.cells - 1, first.buffers), *rest))
