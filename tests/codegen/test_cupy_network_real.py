"""A network's module for CuPy in its own dtype: faults that exact numbers do not see are refuted, sound texts are not.

The exact runs take exp, log and sigmoid, and a number for NaN, from the checker; what is planted here stands where only
a GPU would compile it.
"""

from functools import cache
from types import ModuleType

import pytest

from codegen.cupy_check import made
from codegen.cupy_network_check import check_cupy_network
from codegen.cupy_network_real import Compared, compare, row
from codegen.emit import Emitted, emit
from codegen.execution import Refuted, Trial
from derive.layers import lenet
from tests.codegen.cupy_on_cpu import needs_compiler, on_cpu
from tests.codegen.small import SMALL_SHAPE, small_network

ONE_STEP = (Trial(3, 3, ("sgd_step",)),)


@cache
def small(dtype: str) -> Emitted:
    return emit(small_network(), backend="cupy", input_shape=SMALL_SHAPE, dtype=dtype)


def module(source: str) -> ModuleType:
    return made(on_cpu, None, source, turn=0, wide=False)


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch", [1, 5])
def test_a_sound_text_lies_within_rounding(dtype: str, batch: int) -> None:
    done = compare(module(small(dtype).source), small(dtype).plans["network"], batch, seed=batch)
    assert (done.dtype, done.batch, done.labels) == (dtype, batch, (-1, 4, 2**40))
    assert done.telling == done.arrays > 20


@needs_compiler
def test_every_bound_of_lenet_is_telling() -> None:
    e = emit(lenet(), backend="cupy", input_shape=(2, 1, 28, 28), dtype="float32")
    done = compare(module(e.source), e.plans["network"], 2, seed=0)
    assert done.telling == done.arrays == 33


ON_A_GPU = {
    "another sigmoid": ("ACC(1) / (ACC(1) + exp(-x))", "ACC(2) / (ACC(1) + exp(x * x))", r"A0\[0, 0, 0, 0\] is"),
    "7 for NaN": ('#define NO_NUMBER ACC(nan(""))', "#define NO_NUMBER ACC(7)", r"the label -1, no class, the loss is"),
}
"""Where only the dtype's own text has them."""


@needs_compiler
@pytest.mark.parametrize("name", ON_A_GPU)
def test_a_fault_in_what_a_gpu_compiles_is_refuted(name: str) -> None:
    right, wrong, message = ON_A_GPU[name]
    e = small("float32")
    assert e.source.count(right) == 1
    source, plan = e.source.replace(right, wrong), e.plans["network"]
    passed = check_cupy_network(source, plan, on_cpu, narrow=ONE_STEP, wide=(), real=None)
    assert len(passed.rows) == 3, "the exact runs do not see it"
    assert not any("float32" in r.statement for r in passed.rows)
    with pytest.raises(Refuted, match=message):
        check_cupy_network(source, plan, on_cpu, narrow=ONE_STEP, wide=())


SMALL_FAULTS = {
    "a sigmoid of low precision": ("ACC(1) / (ACC(1) + exp(-x))", "ACC(1) / (ACC(1) + exp(-x)) + ACC(1e-6)", r"A0\["),
    "an exp of low precision": ("return exp(x);", "return exp(x) * ACC(1.0001);", r"L is|dL\["),
    "only negative labels": ("label < 0 || label >= classes ?", "label < 0 ?", r"the label 4, no class"),
    "a step uphill": ("- ACC(rate) * gradient", "+ ACC(rate) * gradient", "0.weight after a step"),
}


@needs_compiler
@pytest.mark.parametrize("name", SMALL_FAULTS)
def test_a_small_fault_is_refuted(name: str) -> None:
    right, wrong, message = SMALL_FAULTS[name]
    e = small("float32")
    assert e.source.count(right) == 1
    with pytest.raises(Refuted, match=message):
        compare(module(e.source.replace(right, wrong)), e.plans["network"], 2, seed=0)


def test_a_text_that_fails_is_refuted() -> None:
    e = small("float32")
    broken = module(e.source.replace("    _backward(w, X, T, params)\n", "    _backward(w, X, T)\n"))
    with pytest.raises(Refuted, match="one batch of 2 in float32: TypeError"):
        compare(broken, e.plans["network"], 2, seed=0)


def test_the_row_says_what_the_bound_says_little_of() -> None:
    assert "for 9 arrays, and says little of the other 3." in row(Compared("float32", 2, 12, 9, (-1,))).method
    assert row(Compared("float32", 2, 12, 12, (-1,))).error_probability is None
