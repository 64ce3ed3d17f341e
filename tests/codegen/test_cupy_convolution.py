"""Convolutions as CUDA text, executed on a CPU: exact in the field and in the dtype, every access watched.

A drawn layer is checked by ``check_cupy``, which compares every result with its stage; that the stages are the layer is
proved (``test_committed``).  The faults below are planted in a text that is right, and each is found.
"""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import codegen
from codegen.check import check
from codegen.cupy_check import check_cupy
from codegen.cupy_module import legal_tiles
from codegen.emit import Emitted, emit
from codegen.execution import Refuted
from codegen.plan import BATCH
from codegen.plans.definition import definition
from derive.layers import Conv, Conv1d, Conv2d, Conv3d
from derive.terms import tensor
from tests.codegen.cupy_on_cpu import needs_compiler, on_cpu

pytestmark = needs_compiler

KINDS: dict[int, type[Conv]] = {1: Conv1d, 2: Conv2d, 3: Conv3d}
CUDA = [("float32", "auto"), ("float64", "auto"), ("float16", "auto"), ("float32", "tf32")]


@st.composite
def layers(draw: st.DrawFn) -> tuple[Conv, tuple[int, ...]]:
    """A layer and a shape: remainders of strides, more padding than image, even kernels, groups, few channels."""
    rank = draw(st.sampled_from([1, 1, 2, 2, 2, 3]))
    sides, spatial = [], []
    for _ in range(rank):
        k, s, d, p = (draw(st.integers(low, high)) for low, high in ((1, 4), (1, 3), (1, 2), (0, 2)))
        outputs, rest = draw(st.integers(1, 4 if rank < 3 else 2)), draw(st.integers(0, s - 1))
        sides.append((k, s, p, d))
        spatial.append(max(1, (outputs - 1) * s + d * (k - 1) + 1 - 2 * p + rest))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    c = groups * draw(st.sampled_from([1, 2, 5]))
    n = groups * draw(st.sampled_from([1, 3, 9]))
    kernel, stride, padding, dilation = zip(*sides, strict=True)
    layer = KINDS[rank](c, n, kernel, stride, padding, dilation, groups, bias=draw(st.booleans()))
    return layer, (2, c, *spatial)


@pytest.mark.parametrize("examples", [7, pytest.param(150, marks=pytest.mark.campaign)])
def test_every_result_is_what_its_stage_says(examples: int) -> None:
    @settings(max_examples=examples, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(layers(), st.sampled_from(CUDA), st.data())
    def checked(drawn: tuple[Conv, tuple[int, ...]], numbers: tuple[str, str], data: st.DataObject) -> None:
        certified(*drawn, *numbers, data)

    checked()


def certified(
    layer: Conv, shape: tuple[int, ...], dtype: str, algorithm: str, data: st.DataObject
) -> None:  # fmt: skip
    """With some of the tiles that there are, since the model would take the same few for all small shapes."""
    plans = definition(layer.on(tensor("X", BATCH, *shape[1:]), "Y"))
    legal = legal_tiles(plans, dtype, tf32=algorithm == "tf32")
    tiles = {result: data.draw(st.sampled_from(names), label=result) for result, names in legal.items()}
    certificate = check(
        emit(layer, backend="cupy", input_shape=shape, dtype=dtype, algorithm=algorithm, tiles=tiles), executor=on_cpu
    )
    assert any("no kernel reads or writes outside an array" in row.statement for row in certificate.rows)
    assert not any("not proved" in row.scope for row in certificate.rows)


def test_without_an_executor_nothing_is_said_of_the_text() -> None:
    emitted = emit(Conv1d(1, 1, 2), backend="cupy", input_shape=(1, 1, 4))
    with pytest.raises(ValueError, match=r"executor=None: text for CuPy is run by one; runtime\.certificate_of"):
        check(emitted)


# --- faults -------------------------------------------------------------------------------------------------------

SMALL = {"forward": "16x32", "weight_gradient": "16x32"}  # so that there are several, whatever the model takes
PRODUCTS = emit(
    Conv2d(3, 9, 3, stride=2, padding=1), backend="cupy", input_shape=(2, 3, 7, 6),
    tiles={**SMALL, "input_gradient": "16x32"},
)  # fmt: skip
DILATED = emit(Conv2d(3, 9, 2, stride=2, padding=1, dilation=3), backend="cupy", input_shape=(2, 3, 7, 6))
TENSORS = emit(
    Conv2d(4, 9, 3, padding=1), backend="cupy", input_shape=(2, 4, 5, 4), dtype="float16", tiles=SMALL
)  # fmt: skip
PARTS = emit(
    Conv2d(4, 18, 3, padding=1), backend="cupy", input_shape=(2, 4, 5, 4),
    tiles={"forward": "8x32x8", "weight_gradient": "16x32x4"},
)  # fmt: skip
LEAN = emit(Conv2d(2, 3, 3, padding=1), backend="cupy", input_shape=(2, 2, 5, 4))

BARRIER = "\n#ifdef EXACT\n__syncthreads();\n#endif\n"  # so that the exact runs, which read pairs, find nothing

FAULTS = {
    "no barrier after the first slice": (
        PRODUCTS, r"keep\(rights\[0\]\);\n    __syncthreads\(\);", "keep(rights[0]);", "uninitialised",
    ),
    "no barrier in the loop": (
        PRODUCTS, r"keep\(rights\[slot \^ 1\]\);\n        __syncthreads\(\);", "keep(rights[slot ^ 1]);",
        "uninitialised",
    ),
    "one buffer": (PRODUCTS, r"slot \^= 1;", "", ""),
    "a column too many": (PRODUCTS, r"column\(j\) >= columns\) continue;", "column(j) > columns) continue;", "out-of"),
    "a column of another block": (PRODUCTS, r"first_column\) < here", "first_column) <= here", "out-of-bounds"),
    "a row too many": (PRODUCTS, r"row\(i\) < rows\) put", "row(i) <= rows) put", "out-of-bounds"),
    "a term too many": (PRODUCTS, r"term < (end|27|81)\b", r"term <= \1", ""),
    "a factor along the wrong axis": (PRODUCTS, r"near\(thread, turn\) : far", "near(thread, turn) : near", ""),
    "the columns of another block": (PRODUCTS, r"\(right, first_column, begin", "(right, Column(0), begin", ""),
    "padding on one side only": (PRODUCTS, r"i0 \* 2 \+ a0 - 1 >= 0 && |2 \* i0 \+ a0 - 1 >= 0 && ", "", ""),
    "the stride does not divide": (DILATED, r"\(h0 - 3 \* a0 \+ 1\) % 2 == 0 && ", "", ""),
    "no bias": (PRODUCTS, r"total \+ ACC\(u\[n\]\)", "total", "output"),
    "shares that overlap": (
        PRODUCTS, r"begin \+ share < depth \? begin \+ share", "begin + share < depth ? begin + share + 1", "",
    ),
    "a share left out": (PRODUCTS, r"split \+ k \* step < splits \?", "split + k * step + 1 < splits ?", ""),
    "a share added twice": (LEAN, r"count, cell, warp, 8\)", "count, cell, warp, 7)", ""),
    "warps that do not wait": (
        LEAN, r"ACC\(0\);\n  __syncthreads\(\);\n  ACC total", "ACC(0);\n  ACC total", "uninitialised",
    ),
    "a part left out": (PARTS, r"from < PARTS - 1", "from < PARTS - 2", ""),
    "parts added before they are there": (
        PARTS, r"__syncthreads\(\);\n    if \(part > 0\) return;", "if (part > 0) return;", "uninitialised",
    ),
    "the terms of the first part": (PARTS, r"part \* TERMS_OF_PART \+ k", "k", ""),
    "every part stores": (PARTS, r"if \(PARTS > 1 && .* >= OF_PART\) return;", "", ""),
    "a block too few": (LEAN, r"-\(-\(60 \* N\) // 256\)", "(60 * N) // 256", ""),
    "an element too many": (LEAN, r"if \(cell >= 60 \* N\) return;", "if (cell > 60 * N) return;", "out-of-bounds"),
    "half of the sum only": (LEAN, r"int far = 16; far > 0", "int far = 16; far > 1", ""),
    "a warp that does not wait for the others": (
        LEAN, r"sums\[thread / 32\] = sum;\n  __syncthreads\(\);", "sums[thread / 32] = sum;", "sums",
    ),
    "a shuffle among too few": (LEAN, r"__shfl_down_sync\(0xffffffffu", "__shfl_down_sync(0xffffu", "mask"),
    "the wrong row of a fragment": (TENSORS, r"k % 2 \* 8 \+ lane / 4", "k % 2 * 8 + (lane / 4 ^ 1)", ""),
    "the wrong pair of a fragment": (TENSORS, r"step \+ k / 2 \* 4 \+ lane % 4", "step + k % 2 * 4 + lane % 4", ""),
    "the wrong row for ldmatrix": (TENSORS, r"rows\[lane % 16\]", "rows[lane % 16 ^ 1]", ""),
    "matrices exchanged": (TENSORS, r"(unsigned right.*)\[2 \+ eight\]", r"\1[3 - eight]", ""),
    "rows that begin between 16 bytes": (TENSORS, r"PAIRS \+ 4\]", "PAIRS + 3]", "misaligned"),
    "no barrier before ldmatrix": (
        TENSORS, r"keep\(rights\[0\]\);\n    __syncthreads\(\);", f"keep(rights[0]);{BARRIER}", "race",
    ),
    "no barrier before ldmatrix in the loop": (
        TENSORS, r"keep\(rights\[slot \^ 1\]\);\n        __syncthreads\(\);", f"keep(rights[slot ^ 1]);{BARRIER}",
        "race",
    ),
    "rows and columns of a sum exchanged": (TENSORS, r"i % 2 \* 2 \+ j % 2", "j % 2 * 2 + i % 2", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found(name: str) -> None:
    emitted, pattern, put, words = FAULTS[name]
    source, count = re.subn(pattern, put, emitted.source)
    assert count, f"{pattern} is not in the text"
    with pytest.raises(Refuted) as caught:
        check_cupy(source, emitted.plans, on_cpu, dtype=emitted.dtype)
    assert words in str(caught.value)


@pytest.mark.parametrize("emitted", [PRODUCTS, TENSORS, PARTS, LEAN], ids=["products", "tensors", "parts", "lean"])
def test_the_texts_without_faults_are_right(emitted: Emitted) -> None:
    check_cupy(emitted.source, emitted.plans, on_cpu, dtype=emitted.dtype)


# --- the border of the module -------------------------------------------------------------------------------------

MODULE = on_cpu(LEAN.source)
X, W, U = np.zeros((2, 2, 5, 4), "f"), np.zeros((3, 2, 3, 3), "f"), np.zeros(3, "f")
G = np.zeros((2, 3, 5, 4), "f")

REFUSED = [
    (lambda: MODULE.forward([1.0], W, U), TypeError, "input is list; an array on the GPU of shape (batch, 2, 5, 4) is"),
    (lambda: MODULE.forward(X[:, :1], W, U), ValueError, "input has the shape (2, 1, 5, 4); (batch, 2, 5, 4) is"),
    (lambda: MODULE.forward(X, W, None), TypeError, "bias is NoneType; an array on the GPU of shape (3,) is needed"),
    (lambda: MODULE.forward(X.astype("d"), W, U), ValueError, "input is float64; float32 is needed"),
    (lambda: MODULE.forward(X[..., ::-1], W, U), ValueError, "a C-contiguous array is needed, as cupy.ascontiguous"),
    (lambda: MODULE.weight_gradient(G[:1], X), ValueError, "input holds 2 images and grad_output 1; as many are"),
    (lambda: MODULE.input_gradient(G, W, (1, 2, 5, 4)), ValueError, "input_shape is (1, 2, 5, 4); (2, 2, 5, 4) is"),
    (lambda: MODULE.forward(X, W, U, out=X), ValueError, "out is (2, 2, 5, 4) float32; (2, 3, 5, 4) float32 is needed"),
    (lambda: MODULE.forward(X, W, U, out=1), TypeError, "out is int; a CuPy array of shape (2, 3, 5, 4) is needed"),
    (
        lambda: MODULE.input_gradient(G, W, X.shape, out=np.zeros((4, 2, 5, 4), "f")[::2]),
        ValueError,
        "a C-contiguous array is needed",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "words"), REFUSED, ids=[str(k) for k in range(len(REFUSED))])
def test_what_does_not_fit_is_refused_in_words(call: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        call()  # type: ignore[operator]


def test_a_result_apart_from_the_arguments() -> None:
    module = on_cpu(emit(Conv1d(1, 1, 1, bias=False), backend="cupy", input_shape=(1, 1, 4)).source)
    x = np.ones((2, 1, 4), "f")
    with pytest.raises(ValueError, match="out may share memory with an argument"):
        module.forward(x, np.ones((1, 1, 1), "f"), out=x)
    with pytest.raises(ValueError, match="bias is given; it has to be None, since this layer has none"):
        module.forward(x, np.ones((1, 1, 1), "f"), np.ones(1, "f"))


def test_a_batch_of_nothing() -> None:
    empty, no_grad = X[:0], G[:0]
    assert MODULE.forward(empty, W, U).shape == (0, 3, 5, 4)
    assert MODULE.input_gradient(no_grad, W, empty.shape).shape == (0, 2, 5, 4)
    assert not MODULE.weight_gradient(no_grad, empty).any()
    assert not MODULE.bias_gradient(no_grad).any()


def test_a_text_that_does_not_compile_is_explained() -> None:
    module = on_cpu(LEAN.source.replace("const int rest =", "const int rest = = ", 1))
    with pytest.raises(RuntimeError, match="the CUDA text of this module does not compile here"):
        module.forward(X, W, U)


@pytest.mark.parametrize("stage", ["Z", "dX", "dW"])
def test_an_error_of_nvrtc_is_told_with_its_line_and_the_formula_of_its_kernel(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVRTC names a file and, in parentheses, a line; the module adds that line and the definition that it computes."""
    module = on_cpu(LEAN.source)
    lines = module.SOURCE.splitlines()
    (head,) = (k for k, line in enumerate(lines) if line.startswith(f"// {stage}["))
    start = next(k for k, line in enumerate(lines) if k > head and "__global__" in line)
    number = next(k for k, line in enumerate(lines, 1) if k > start + 1 and "const int " in line)  # the first is 1
    places = f"kernels.cu({number}): error: expected an expression\nkernels.cu({len(lines) + 9}): note: beyond"
    failed = module.cupy.cuda.compiler.CompileException(f"{places}\nkernels.cu({number}): error: again")

    def fails(*_: object) -> None:
        raise failed

    monkeypatch.setattr(module.cupy, "RawModule", lambda **_: SimpleNamespace(compile=fails))
    with pytest.raises(RuntimeError) as caught:
        module.forward(X, W, U)
    assert str(caught.value).splitlines() == [
        "the CUDA text of this module does not compile here:",
        *str(failed).splitlines(),
        f"line {number}: {lines[number - 1].strip()}",
        f"  in the kernel of {lines[head].removeprefix('// ')}",
    ]


def test_the_same_request_gives_the_same_bytes() -> None:
    again = emit(LEAN.layer, backend="cupy", input_shape=(7, 2, 5, 4))
    assert (again.source, again.digest) == (LEAN.source, LEAN.digest)
    assert codegen.emit(LEAN.layer, input_shape=(7, 2, 5, 4)).source != LEAN.source


# --- what the file says and asks ----------------------------------------------------------------------------------


def test_places_are_32_bit_numbers_up_to_a_batch_that_the_weight_does_not_shrink() -> None:
    layer = Conv2d(64, 4096, 7, padding=3)  # the weight has far more elements than an image
    module = on_cpu(emit(layer, backend="cupy", input_shape=(1, 64, 7, 7)).source)
    assert 2**29 < module.NARROW * 4096 * 49 < 2**30


def test_tensor_cores_are_named_and_asked_for_where_they_are_used() -> None:
    large = emit(Conv2d(16, 16, 3), backend="cupy", input_shape=(1, 16, 8, 8), algorithm="tf32")
    assert "Tensor cores form the products of compute_Z, compute_dX, compute_dW; they round" in large.source
    assert "factors to TF32, 11 bits or about three digits" in large.source
    small = emit(Conv2d(2, 2, 3), backend="cupy", input_shape=(1, 2, 8, 8), algorithm="tf32")
    assert "No product here is large enough for tensor cores." in small.source
    assert "mma" in large.cuda
    assert "mma" not in small.cuda
    old = on_cpu(large.source)
    old.cupy.cuda.Device = lambda _: type("T4", (), {"compute_capability": "75"})()
    with pytest.raises(RuntimeError, match="GPU 0 has compute capability 75; this module needs 80"):
        old.forward(np.zeros((1, 16, 8, 8), "f"), np.zeros((16, 16, 3, 3), "f"), np.zeros(16, "f"))


@pytest.mark.parametrize(("dtype", "algorithm", "cores"), [*((*pair, True) for pair in CUDA[2:]), (*CUDA[0], False)])
def test_ptx_is_trusted_where_there_are_tensor_cores(dtype: str, algorithm: str, *, cores: bool) -> None:
    layer = Conv1d(16, 16, 3, bias=False)
    e = emit(layer, backend="cupy", input_shape=(1, 16, 10), dtype=dtype, algorithm=algorithm)
    rows = check_cupy(e.source, e.plans, on_cpu, dtype=dtype, tf32=algorithm == "tf32").rows
    assert len(rows) == 3
    assert [any("inline PTX under __CUDACC__" in name for name in row.trusted) for row in rows] == [cores] * 3
    for assumed in ("keep it from merging or copying the calls that tell barriers apart", "-ftz=true"):
        assert all(any(assumed in name for name in row.trusted) for row in rows)


def test_long_loops_are_not_unrolled_as_a_whole() -> None:
    text = emit(Conv3d(4, 4, 7), backend="cupy", input_shape=(1, 4, 9, 9, 9)).cuda
    gradient = text[text.index("compute_dX") : text.index("compute_dW")]
    assert gradient.count("#pragma unroll") == 2  # 49 of 343 steps for each of four channels


def test_where_no_integer_is_exact_nothing_is_said_of_integers(monkeypatch: pytest.MonkeyPatch) -> None:
    def exact_in(results: set[str]) -> list[str]:
        bound = lambda plan, dtype, *, tf32: 5 if set(plan.outputs) & results else 0  # noqa: E731
        monkeypatch.setattr("codegen.cupy_check.largest_integer", bound)
        rows = check_cupy(LEAN.source, LEAN.plans, on_cpu, dtype=LEAN.dtype).rows
        return [row.statement for row in rows if "where no rounding occurs" in row.statement]

    assert exact_in(set()) == []
    assert exact_in({"forward"}) == ["In float32 the results of forward are exact where no rounding occurs."]
