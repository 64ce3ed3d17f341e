"""Several threads: what one thread computes, with every part on a thread of its own, and whatever goes wrong told.

What a part has to take is put to almost nothing here, so that small batches are split.  No test asserts a time.
"""

import threading
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import derive
import runtime
from derive.layers import Conv, Conv2d, Linear, Sequential
from runtime import parallel, threads
from runtime.parallel import Convolution, Steps, seconds, split, step_seconds
from runtime.thread_crew import Threads
from tests.runtime.emission import Emission
from tests.runtime.splitting import IMAGE, LAYER, LAYERS, NET, check_two_callers, digits, made, results, same

LEAST, LEAST_STEP = Threads.least, Threads.least_step


@pytest.fixture(scope="module", autouse=True)
def eager() -> Any:
    """Batches of two images are split."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Threads, "least", 1e-12)
        patch.setattr(Threads, "least_step", 1e-12)
        patch.setattr(threads, "_can_set", lambda: True)  # no warning: most tests do not care for the speed of BLAS
        patch.setattr(threads, "_libraries", lambda: None)
        yield


def compiled(layer: Conv, image: tuple[int, ...], count: int, dtype: str = "float64") -> runtime.Operation:
    return runtime.compile(layer, input_shape=(1, *image), dtype=dtype, threads=count)


# --- How a batch is split -----------------------------------------------------------------------------------


@given(batch=st.integers(0, 1000), parts=st.integers(1, 20))
def test_parts_are_contiguous_even_and_not_empty(batch: int, parts: int) -> None:
    found = split(batch, parts)
    assert len(found) == max(1, min(batch, parts))
    assert [low for low, _ in found] == [0, *(high for _, high in found[:-1])]
    assert found[-1][1] == batch
    sizes = [high - low for low, high in found]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0 or not batch


def test_a_short_call_is_not_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Threads, "least", LEAST)
    monkeypatch.setattr(Threads, "least_step", LEAST_STEP)
    layer = Conv2d(1, 6, 5, padding=2)
    operation = compiled(layer, (1, 28, 28), 2, "float32").parallel
    assert operation is not None
    assert [len(operation.parts(batch)) for batch in (0, 1, 32, 256)] == [1, 1, 1, 2]
    image = step_seconds(derive.lenet(), (1, 1, 28, 28))
    steps = Steps(Threads(ModuleType("unused"), "float32", 2), image=image)
    assert [len(steps.parts(batch)) for batch in (0, 16, 32, 64, 256)] == [1, 1, 1, 2, 2]


def test_the_forecast_counts_products_and_numbers() -> None:
    numbers = 4 * 9 * 9 + 5 * 8 * 8
    products = 5 * 64 * 4 * 4
    wanted = products * parallel.PRODUCT + numbers * parallel.CELL
    assert seconds(Conv2d(4, 5, 2), (3, 4, 9, 9)) == pytest.approx(wanted)
    assert step_seconds(Sequential(Linear(6, 2)), (3, 6)) == pytest.approx(
        3 * (12 * parallel.PRODUCT + 8 * parallel.CELL)
    )


# --- A convolution ------------------------------------------------------------------------------------------


@given(which=st.sampled_from(LAYERS), batch=st.integers(0, 7), count=st.integers(2, 5))
def test_threads_change_nothing_but_rounding(which: tuple[Conv, tuple[int, ...]], batch: int, count: int) -> None:
    layer, image = which
    one, several = compiled(layer, image, 1), compiled(layer, image, count)
    assert several.parallel is not None
    assert len(several.parallel.parts(batch)) == max(1, min(batch, count))
    arguments = made(layer, image, batch)
    for _ in range(2):  # the second time on workspaces that were used
        same(results(several, *arguments), results(one, *arguments))


def test_one_thread_is_the_path_of_old() -> None:
    operation = compiled(LAYER, IMAGE, 1)
    assert operation.parallel is None
    assert "threads" not in repr(operation)
    assert "threads=2" in repr(compiled(LAYER, IMAGE, 2))
    assert runtime.Network(NET, input_shape=(1, 1, 6, 6))._steps is None


def test_every_part_is_on_a_thread_of_its_own_and_all_run_at_once() -> None:
    module = compiled(LAYER, IMAGE, 1).module
    spied = ModuleType("spied")
    spied.__dict__.update(module.__dict__)
    barrier, seen = threading.Barrier(3, timeout=30), []

    def forward(input: Any, weight: Any, bias: Any, work: Any, out: Any) -> Any:
        barrier.wait()  # broken, unless three calls wait here together
        seen.append((threading.get_ident(), len(input), id(work)))
        return module.forward(input, weight, bias, work, out)

    spied.forward = forward  # type: ignore[attr-defined]
    x, w, u, _ = made(LAYER, IMAGE, 7)
    found = Convolution(Threads(spied, "float64", 3), image=1.0).forward(x, w, u)
    np.testing.assert_array_equal(found, module.forward(x, w, u))
    idents, sizes, works = zip(*seen, strict=True)
    assert len(set(idents)) == len(set(works)) == 3
    assert threading.get_ident() in idents
    assert sorted(sizes) == [2, 2, 3]


def test_results_lie_in_one_array_of_their_own() -> None:
    operation = compiled(LAYER, IMAGE, 2)
    x, w, u, g = made(LAYER, IMAGE, 5)
    first = results(operation, x, w, u, g)
    kept = [result.copy() for result in first]
    results(operation, 2 * x, 3 * w, u, 5 * g)
    same(first, kept, exact=True)
    assert all(result.flags.c_contiguous and result.flags.owndata for result in first)


def test_the_same_bits_every_time() -> None:
    operation = compiled(LAYER, IMAGE, 3, "float32")
    rng = np.random.default_rng(0)
    x, w, u, g = (rng.normal(size=a.shape).astype("f4") for a in made(LAYER, IMAGE, 7) if a is not None)
    wanted = results(operation, x, w, u, g)
    for _ in range(20):
        same(results(operation, x, w, u, g), wanted, exact=True)


def test_two_threads_may_call_at_once() -> None:
    check_two_callers(compiled(LAYER, IMAGE, 2), [made(LAYER, IMAGE, batch) for batch in (4, 5)])


def test_threads_are_kept_and_do_not_become_more() -> None:
    def calls() -> None:
        for _ in range(5):
            operation = compiled(LAYER, IMAGE, 3)
            results(operation, *made(LAYER, IMAGE, 6))

    calls()
    before = set(threading.enumerate())
    calls()
    assert set(threading.enumerate()) == before


def test_an_error_in_one_part_of_a_convolution_arrives() -> None:
    operation = compiled(LAYER, IMAGE, 2)
    x, w, u, g = made(LAYER, IMAGE, 6)
    assert operation.parallel is not None

    def broken(*arguments: Any) -> Any:
        raise ArithmeticError(f"a part of {len(arguments[0])}")

    module = ModuleType("broken")
    module.__dict__.update(operation.module.__dict__, forward=broken)
    with pytest.raises(ArithmeticError, match="a part of 3"):
        Convolution(Threads(module, "float64", 2), image=1.0).forward(x, w, u)
    for images, counted in ((x[:4], "4 images"), (np.concatenate([x, x]), "12 images")):
        with pytest.raises(ValueError, match=rf"input holds {counted} and grad_output 6"):
            operation.parallel.weight_gradient(g, images)
    same(results(operation, x, w, u, g), results(compiled(LAYER, IMAGE, 1), x, w, u, g))


def test_without_threadpoolctl_it_is_said_and_done_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_can_set", lambda: False)
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    told = r"threads=2: right, but probably much slower than one: .* not known to be 1: .*install the extra `threads`"
    with pytest.warns(RuntimeWarning, match=told) as caught:
        operation = compiled(LAYER, IMAGE, 2)
    with pytest.warns(RuntimeWarning, match=told):
        runtime.Network(NET, input_shape=(1, 1, 6, 6), threads=2)
    assert caught[0].filename == __file__
    arguments = made(LAYER, IMAGE, 3)
    same(results(operation, *arguments), results(compiled(LAYER, IMAGE, 1), *arguments))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    compiled(LAYER, IMAGE, 2)  # no warning: BLAS has one thread


# --- A network ----------------------------------------------------------------------------------------------


def networks(count: int, dtype: str = "float64") -> tuple[runtime.Network, runtime.Network]:
    one, several = (runtime.Network(NET, input_shape=(1, 1, 6, 6), dtype=dtype, threads=n) for n in (1, count))
    return one, several


@given(batch=st.integers(0, 9), count=st.integers(2, 4))
def test_a_step_is_that_of_one_thread(batch: int, count: int) -> None:
    one, several = networks(count)
    x, y = digits(batch)
    for _ in range(3):
        assert several.step(x, y, lr=0.5) == pytest.approx(one.step(x, y, lr=0.5), rel=1e-13, abs=1e-14)
    for name, array in one.params.items():
        np.testing.assert_allclose(several.params[name], array, rtol=1e-12, atol=1e-14)


def test_lenet_steps_are_those_of_one_thread(emission: Emission) -> None:
    one, several = (runtime.Network(derive.lenet(), dtype="float64", threads=n) for n in (1, 2))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 1, 28, 28)), rng.integers(0, 10, 9)
    for _ in range(2):
        assert several.step(x, y) == pytest.approx(one.step(x, y), rel=1e-13)
    for name, array in one.params.items():
        np.testing.assert_allclose(several.params[name], array, rtol=1e-11, atol=1e-13)


def test_steps_have_the_same_bits_every_time() -> None:
    x, y = digits(7, "float32")
    finals = []
    for _ in range(5):
        _, several = networks(3, "float32")
        finals.append([[several.step(x, y) for _ in range(4)], *several.params.values()])
    for final in finals[1:]:
        same(final, finals[0], exact=True)


def test_an_error_in_one_part_changes_no_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    _, several = networks(2)
    before = {name: array.copy() for name, array in several.params.items()}
    x, y = digits(5)
    original = several.module.loss_and_gradients

    def broken(x: Any, *rest: Any) -> Any:
        if len(x) == 2:
            raise MemoryError("no room for the second part")
        return original(x, *rest)

    monkeypatch.setattr(several.module, "loss_and_gradients", broken)
    with pytest.raises(MemoryError, match="no room for the second part"):
        several.step(x, y)
    for name, array in several.params.items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("count", [0, -3])
def test_a_number_of_threads_is_at_least_one(count: int) -> None:
    words = f"threads={count} is less than 1; nearest legal: 1"
    with pytest.raises(ValueError, match=words):
        compiled(LAYER, IMAGE, count)
    with pytest.raises(ValueError, match=words):
        runtime.Network(NET, input_shape=(1, 1, 6, 6), threads=count)


def test_a_loaded_network_has_the_threads_that_are_asked_for(tmp_path: Any) -> None:
    one, _ = networks(2)
    one.save(tmp_path / "net.npz")
    several = runtime.Network.load(tmp_path / "net.npz", threads=2)
    assert several.threads == 2
    x, y = digits(4)
    assert several.step(x, y) == pytest.approx(one.step(x, y), rel=1e-13)
