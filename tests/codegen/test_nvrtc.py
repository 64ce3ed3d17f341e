"""Emitted CUDA text compiled by CUDA's own compiler, for GPUs that need not be here: it compiles, and nothing spills.

``python -m pytest -m nvrtc`` asks for these tests; the extra ``nvrtc`` brings the compiler, and its headers too, which
text in float16 and bfloat16 includes.  CI leaves out those marked ``campaign`` as well.  At its end pytest prints what
each kernel takes.
"""

from collections.abc import Callable
from typing import NamedTuple

import pytest

from codegen.emit import Emitted, emit
from derive.layers import AvgPool2d, AvgPool3d, Layer, Linear, ReLU, Sigmoid, Tanh, lenet
from runtime.nvrtc import ARCHITECTURES, Nvrtc, NvrtcError, Usage, include_folders, nvrtc
from tests.codegen.cuda_layers import LAYERS, NUMBERS

pytestmark = pytest.mark.nvrtc


class Text(NamedTuple):
    """A text that is compiled: the name of its layer, its numbers, and the type of its places in arrays."""

    layer: str
    numbers: str
    places: str


Record = Callable[[str, object], None]


@pytest.fixture(scope="module")
def compiler() -> Nvrtc:
    try:
        return nvrtc()
    except NvrtcError as error:
        pytest.fail(str(error))  # these tests were asked for: what is missing is no success


def check(compiler: Nvrtc, emitted: Emitted, text: Text, record: Record) -> None:
    """Compile a text for every architecture, and note what its kernels take."""
    if emitted.dtype in ("float16", "bfloat16") and not include_folders():
        pytest.fail("CUDA's headers are not here; pip install 'certiconv[nvrtc]' brings them")
    folders = [f"-I{folder}" for folder in include_folders()]
    for arch in ARCHITECTURES:
        usages = compiler.compile(emitted.cuda, arch=arch, options=(f"-DINDEX={text.places}", *folders))
        record("registers", f"{', '.join((*text, arch))}: {', '.join(map(told, usages))}")
        assert [u.kernel for u in usages] == sorted(kernel.name for kernel in emitted.kernels)
        assert not [u for u in usages if u.spilled], (text, arch)


def told(usage: Usage) -> str:
    spilled = f" and {usage.spilled} bytes spilled" if usage.spilled else ""
    return f"{usage.kernel} {usage.registers}{spilled}"


def is_usual(text: Text) -> bool:
    """Every layer in three formats with 32-bit places; one in the other formats, and with 64-bit places, too.

    Text in bfloat16 is that in float16 with another type, and TF32 is float32 with the tiles of float16.
    """
    if text.places == "int":
        return text.numbers in ("float32", "float64", "float16") or text.layer == "lenet1"
    return text.layer == "lenet1" and text.numbers == "float32"


TEXTS = [
    Text(layer, dtype if algorithm == "auto" else algorithm, places)
    for layer in LAYERS
    for dtype, algorithm in NUMBERS
    for places in ("int", "long long")
]


@pytest.mark.parametrize(
    "text",
    [pytest.param(text, marks=[] if is_usual(text) else pytest.mark.campaign, id="-".join(text)) for text in TEXTS],
)
def test_every_kernel_keeps_its_numbers_in_registers(compiler: Nvrtc, text: Text, record_property: Record) -> None:
    conv, shape = LAYERS[text.layer]
    tf32 = text.numbers == "tf32"
    dtype, algorithm = ("float32", "tf32") if tf32 else (text.numbers, "auto")
    emitted = emit(conv, backend="cupy", input_shape=shape, dtype=dtype, algorithm=algorithm)
    check(compiler, emitted, text, record_property)


@pytest.mark.parametrize(
    ("dtype", "places"),
    [
        ("float32", "int"),
        *(pytest.param(*case, marks=pytest.mark.campaign)
          for case in (("float32", "long long"), ("float64", "int"), ("float64", "long long"))),
    ],
)  # fmt: skip
def test_every_kernel_of_lenet_keeps_its_numbers_in_registers(
    compiler: Nvrtc, dtype: str, places: str, record_property: Record
) -> None:
    emitted = emit(lenet(), backend="cupy", input_shape=(64, 1, 28, 28), dtype=dtype)
    check(compiler, emitted, Text("LeNet's step", dtype, places), record_property)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (AvgPool2d(2), (8, 64, 56, 56)),
        (AvgPool3d(3, 2), (8, 4, 9, 9, 9)),
        (Sigmoid(), (8, 64, 56, 56)),
        (Tanh(), (8, 100)),
        (ReLU(), (8, 64, 56, 56)),
        (Linear(400, 120), (64, 400)),
    ],
    ids=["avgpool2d", "avgpool3d", "sigmoid", "tanh", "relu", "linear"],
)
def test_every_kernel_of_another_layer_keeps_its_numbers_in_registers(
    compiler: Nvrtc, layer: Layer, shape: tuple[int, ...], record_property: Record
) -> None:
    for dtype in ("float32", "float16"):
        emitted = emit(layer, backend="cupy", input_shape=shape, dtype=dtype)
        check(compiler, emitted, Text(type(layer).__name__, dtype, "int"), record_property)


def test_ci_compiles_thirty_two_combinations_of_layer_and_numbers_and_every_format() -> None:
    usual = [text for text in TEXTS if is_usual(text) and text.places == "int"]
    assert len(usual) == 32
    assert {text.layer for text in usual} == set(LAYERS)
    assert len({text.numbers for text in usual}) == len(NUMBERS)


def test_a_text_that_is_wrong_is_told_in_the_words_of_the_compiler(compiler: Nvrtc) -> None:
    with pytest.raises(NvrtcError, match=r"does not compile for sm_90:\n.*emitted\.cu\(1\): error"):
        compiler.compile("__global__ void f() { x = 1; }")


def test_a_kernel_that_needs_more_registers_than_it_may_have_is_seen_to_spill(compiler: Nvrtc) -> None:
    loops = "float a[64];\n#pragma unroll\nfor (int k = 0; k < 64; ++k) a[k] = x[k * n];\n__syncthreads();\n"
    loops += "#pragma unroll\nfor (int k = 0; k < 64; ++k) x[k * n + 1] = a[63 - k];"
    source = f'extern "C" __global__ void f(float* x, int n) {{ {loops} }}'
    (usage,) = compiler.compile(source, options=["--maxrregcount=32"])
    assert usage.spilled > 0
    assert told(usage) == f"f 32 and {usage.spilled} bytes spilled"
