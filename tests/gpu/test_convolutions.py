"""Emitted convolutions on a device: exact on small integers, within the derived bound on others, the same bits twice.

Integers of at most `LARGEST` are multiplied and added without rounding in every one of these formats, and one rounding
stores a sum that is not representable, so the right result is known to the bit: the definition as loops, in integers
(tests/codegen/convolutions.py), which shares nothing with the stages.
"""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codegen.bounds import bound
from codegen.cupy_check import cut_short
from codegen.emit import Emitted
from codegen.rounding import FLOAT64, FLUSHED32
from derive.layers import Conv1d, Conv2d, Conv3d
from tests.codegen.convolutions import RESULTS, Case, Data, cases, drawn, expected
from tests.gpu.formats import CORES, STORING, stored
from tests.gpu.machines import Machine, emitted

NUMBERS = ("float32", "float64", "float16", "bfloat16", "tf32")
DRAWN = st.one_of(cases("direct"), cases("depthwise"))
SKEW = Conv2d(3, 4, (2, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2))
Array = Any

# Sizes around the edges of tiles: blocks of 16 to 128 rows and 32 to 256 columns, slices of 8 to 32 terms.
LARGER = {
    "rows, columns and terms beyond one tile": Case(Conv2d(5, 33, 3, padding=1), (3, 5, 7, 7), "direct"),
    "groups": Case(Conv2d(8, 12, 3, padding=1, groups=4), (2, 8, 6, 5), "direct"),
    "a product a group": Case(Conv2d(6, 18, 3, padding=1, groups=2), (2, 6, 6, 5), "direct"),
    "three axes": Case(Conv3d(3, 4, 2, dilation=2), (2, 3, 5, 4, 5), "direct"),
    "residues of a stride, in groups": Case(
        Conv2d(6, 8, 5, stride=(2, 3), padding=2, groups=2), (2, 6, 9, 8), "direct"
    ),
}
LARGEST_ON_A_GPU = {
    "a stride, few channels, and many positions": Case(Conv2d(2, 3, 5, 2, 2), (2, 2, 21, 19), "direct"),
    "depthwise": Case(Conv2d(9, 9, 3, padding=1, groups=9), (3, 9, 8, 7), "direct"),
    "one axis and a long kernel": Case(Conv1d(17, 9, 9, padding=4, bias=False), (4, 17, 30), "direct"),
    "tiles of 128 by 128": Case(Conv2d(130, 131, 3, padding=1), (3, 130, 15, 15), "direct"),
    "a sum over many images": Case(Conv2d(3, 8, 3), (33, 3, 34, 31), "direct"),
}


def made(machine: Machine, case: Case, numbers: str) -> tuple[ModuleType, Emitted]:
    text = emitted(case.layer, case.shape, numbers)
    return machine.module(text), text


def results(module: ModuleType, case: Case, data: Data) -> dict[str, Array]:
    """Every function once, and all gradients at once, with arrays taken to the machine and back."""
    on = module.cupy.asarray
    x, w, g = on(data.x), on(data.weight), on(data.grad)
    b = on(data.bias) if case.layer.bias else None
    found = {
        "forward": module.forward(x, w, b),
        "input_gradient": module.input_gradient(g, w, x.shape),
        "weight_gradient": module.weight_gradient(g, x),
    }
    if case.layer.bias:
        found["bias_gradient"] = module.bias_gradient(g)
    together = zip((f"{name} of backward" for name in RESULTS[1:]), module.backward(g, x, w), strict=True)
    found |= {name: a for name, a in together if a is not None}
    return {name: module.cupy.asnumpy(a) for name, a in found.items()}


def check_integers(machine: Machine, case: Case, numbers: str, seed: int) -> None:
    """Every result is what the definition gives, rounded once."""
    module, text = made(machine, case, numbers)
    data = drawn(case, seed, module.DTYPE)
    right = expected(case, data)
    for name, found in results(module, case, data).items():
        wanted = stored(right[name.removesuffix(" of backward")], module.DTYPE)
        assert found.dtype == module.DTYPE
        np.testing.assert_array_equal(
            found.astype(np.float64), wanted, err_msg=f"{name}, {numbers}, {text.digest[:12]}, {case}"
        )


def check_rounding(machine: Machine, case: Case, numbers: str, seed: int) -> None:
    """Every result lies within the bound of its stages, and comes with the same bits when it is asked for again."""
    module, text = made(machine, case, numbers)
    rng = np.random.default_rng(seed)
    shapes = [a.shape for a in vars(drawn(case, 0, "float64")).values()]
    data = Data(*(rng.standard_normal(shape).astype(module.DTYPE) for shape in shapes))
    first, again = results(module, case, data), results(module, case, data)
    for name, found in first.items():
        assert found.tobytes() == again[name].tobytes(), name
    given_ = {"X": data.x, "W": data.weight, "u": data.bias, "G": data.grad}
    precision = {"float32": FLUSHED32, "float64": FLOAT64}.get(numbers, CORES)
    for name in RESULTS if case.layer.bias else RESULTS[:3]:
        plan = text.plans[name]
        reads = {t.name: given_[t.name].astype(np.float64) for t in plan.inputs}
        errors = {key: abs(a) * 2.0**-11 for key, a in reads.items() if key != "u" and numbers == "tf32"}
        unit, smallest = STORING.get(numbers, (0.0, 0.0))
        for stage in plan.stages:
            value, error = bound(stage, reads, precision, sizes={"N": case.batch}, errors=errors)
            error = error + (abs(value) + error) * unit + smallest
            reads[stage.name], errors[stage.name] = value, error
        beyond = abs(first[name].astype(np.float64) - value) - error
        assert beyond.size == 0 or beyond.max() <= 0, f"{name}, {numbers}, {text.digest[:12]}, {case}: {beyond.max()}"


@pytest.mark.parametrize("numbers", NUMBERS)
def test_drawn_layers_are_exact_on_integers(machine: Machine, numbers: str) -> None:
    @settings(max_examples=machine.examples)
    @given(DRAWN, st.integers(0, 99))
    @example(Case(SKEW, (0, 3, 6, 7), "direct"), 0)
    @example(Case(SKEW, (3, 3, 6, 7), "direct"), 0)
    def exact(case: Case, seed: int) -> None:
        check_integers(machine, case, numbers, seed)

    exact()


@pytest.mark.parametrize("numbers", NUMBERS)
def test_drawn_layers_round_within_the_bound_and_always_alike(machine: Machine, numbers: str) -> None:
    @settings(max_examples=machine.examples)
    @given(DRAWN, st.integers(0, 99))
    @example(Case(SKEW, (3, 3, 6, 7), "direct"), 0)
    def rounds(case: Case, seed: int) -> None:
        check_rounding(machine, case, numbers, seed)

    rounds()


@pytest.mark.parametrize(
    ("case", "numbers"),
    [*zip(LARGER.values(), ("float32", "float16", "float16", "tf32", "float16"), strict=True)],
    ids=LARGER,
)
def test_a_layer_larger_than_a_tile(machine: Machine, case: Case, numbers: str) -> None:
    for each in (numbers,) if machine.name == "simt" else NUMBERS:
        check_integers(machine, case, each, seed=3)
        check_rounding(machine, case, each, seed=4)


@pytest.mark.gpu
@pytest.mark.parametrize("machine", ["gpu"], indirect=True)
@pytest.mark.parametrize("case", list(LARGEST_ON_A_GPU.values()), ids=LARGEST_ON_A_GPU)
def test_a_layer_of_many_tiles(machine: Machine, case: Case) -> None:
    for numbers in NUMBERS:
        check_integers(machine, case, numbers, seed=5)
        check_rounding(machine, case, numbers, seed=6)


def test_places_of_64_bits_give_the_same(machine: Machine) -> None:
    """What a batch needs whose places do not fit 32 bits is another compilation of the same text."""
    case = Case(Conv2d(3, 5, 3, padding=1), (2, 3, 5, 6), "direct")
    module = machine.load(emitted(case.layer, case.shape, "float32").source)
    data = drawn(case, 1, "float32")
    narrow = results(module, case, data)
    module.__dict__["NARROW"] = 0
    for name, found in results(module, case, data).items():
        np.testing.assert_array_equal(found, narrow[name], err_msg=name)


def test_sums_in_many_shares_are_exact(machine: Machine) -> None:
    """Shares of a few terms, as a large batch has them of many."""
    case = Case(Conv2d(3, 5, 3, padding=1), (3, 3, 5, 6), "direct")
    module = machine.load(emitted(case.layer, case.shape, "float32").source)
    cut_short(module)
    data = drawn(case, 2, "float32")
    right = expected(case, data)
    for name, found in results(module, case, data).items():
        np.testing.assert_array_equal(found, right[name.removesuffix(" of backward")], err_msg=name)


@pytest.mark.parametrize("numbers", ["float32", "float64"])
def test_subnormal_numbers_are_zero_to_what_cupy_compiles(machine: Machine, numbers: str) -> None:
    """CuPy compiles with -ftz=true, which speaks of float32 alone; a CPU keeps them."""
    text = emitted(Conv2d(1, 1, 1, bias=False), (3, 1, 1, 1), numbers)
    module = machine.module(text)
    x, w = np.array([2.0**-127, 2.0**-126, 2.0**-100]), np.array([0.5])
    found = module.forward(module.cupy.asarray(x.astype(numbers).reshape(3, 1, 1, 1)),
                           module.cupy.asarray(w.astype(numbers).reshape(1, 1, 1, 1)))  # fmt: skip
    kept = (0, 0, 1) if machine.name == "gpu" and numbers == "float32" else (1, 1, 1)
    np.testing.assert_array_equal(module.cupy.asnumpy(found).ravel(), x * 0.5 * kept)
    assert ("-ftz=true" in text.source) == (numbers == "float32")
