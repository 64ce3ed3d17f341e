"""Every tile of a matrix product, on sizes with remainders around its edges: integers, and all accesses watched.

Tiles for float32 and some for float16 take all three results past their edges, the others the forward one; all of them,
all three: behind the marker ``campaign``.

A convolution with kernels of one cell is a matrix product with as many rows, terms and columns as one likes.
"""

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from codegen.contraction import contraction
from codegen.cupy_module import cupy_source
from codegen.emit import emit
from codegen.field import P
from codegen.plan import BATCH
from codegen.plans.definition import definition
from codegen.templates.cuda.kernels import Kernel
from codegen.templates.cuda.numbers import NUMBERS, Numbers
from codegen.templates.cuda.prelude import cuda_text
from codegen.templates.cuda.tiling import HALVES, TF32, TILES, AnyTile, TensorTile, Tile
from derive.layers import Applied, Conv1d, Conv2d, Layer, lenet
from derive.terms import tensor
from runtime import simt
from runtime.arrays import Array
from runtime.simt import compile  # noqa: A004 - as runtime.compile
from tests.codegen.cupy_on_cpu import needs_compiler, on_cpu

pytestmark = needs_compiler
WRAPPERS = Path(simt.__file__).parent / "include" / "certiconv_ptx.cuh"

RESULTS = ("forward", "weight_gradient", "input_gradient")
IN_FLOAT64 = [(tile, "float64", "float64") for tile in NUMBERS["float64"].fitting.values()]
IN_FLOAT32 = [(tile, "float32", "float32") for tile in TILES]
IN_FLOAT16 = [(tile, "float16", "float16") for tile in HALVES]
IN_TF32 = [(tile, "float32", "tf32") for tile in TF32]
IN_GRADIENTS = [*IN_FLOAT32[::2], *IN_FLOAT16[::3]]  # of the others the gradients are for a campaign
GRADIENTS = [
    pytest.param(*case, marks=[] if case in IN_GRADIENTS else pytest.mark.campaign)
    for case in (*IN_FLOAT32, *IN_FLOAT16, *IN_FLOAT64, *IN_TF32)
]
# Tiles for float64 are among those for float32, and TF32 has the tiles of float16.
FORWARD = [case for case in (*IN_FLOAT32, *IN_FLOAT16, *IN_FLOAT64[::3], *IN_TF32[::3]) if case not in IN_GRADIENTS]
OF_EACH_KIND = [IN_FLOAT32[11], IN_FLOAT32[16], IN_FLOAT16[7]]


def name_of(case: object) -> str:
    if isinstance(case, str):
        return case
    return f"{case.name} {type(case).__name__}" if isinstance(case, (Tile, TensorTile)) else str(case)


def applied(rows: int, terms: int, columns: int) -> Applied:
    return Conv1d(terms, rows, 1).on(tensor("X", BATCH, terms, columns), "Y")


def text_of(applied: Applied, results: Sequence[str], tile: AnyTile, dtype: str, numbers: str) -> str:
    """A module with these results, whose products all have this tile."""
    every = definition(applied)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(NUMBERS, numbers, Numbers(**{**vars(NUMBERS[numbers]), "tiles": (tile,)}))
        return cupy_source(applied, {name: every[name] for name in results}, "A product", "For a test.", dtype=dtype,
                           tf32=numbers == "tf32").source  # fmt: skip


@pytest.mark.parametrize(("tile", "dtype", "numbers"), FORWARD, ids=name_of)
def test_rows_columns_and_terms_beyond_the_edges_of_a_tile(tile: AnyTile, dtype: str, numbers: str) -> None:
    rows, terms, columns = tile.rows + 3, 2 * tile.depth + 1, tile.columns // 2 + 1
    text = text_of(applied(rows, terms, columns), ["forward"], tile, dtype, numbers)
    rng = np.random.default_rng(0)
    x = rng.integers(-3, 4, (2, terms, columns)).astype(dtype)
    w = rng.integers(-3, 4, (rows, terms, 1)).astype(dtype)
    u = rng.integers(-3, 4, rows).astype(dtype)
    module = on_cpu(text.split("def backward")[0] + "def share" + text.split("def share", 1)[1])
    wanted = np.matmul(w[:, :, 0].astype("d"), x.astype("d")) + u.astype("d")[:, None]
    assert np.array_equal(module.forward(x, w, u), wanted)
    (launched,) = module.cupy.launches
    assert launched.block[0] == tile.threads
    assert launched.grid[0] == 2 * -(-2 * columns // tile.columns)


def all_results(
    tile: AnyTile, dtype: str, numbers: str, numbers_of: Callable[..., Array], *, key: int | None = None
) -> Iterator[tuple[Array, Array]]:
    """Each result of a convolution that is beyond the edges of a tile in all three, and what it has to be, in objects.

    The columns of the weight's gradient and the rows of the input's are channels, the terms of the one are places of
    the output and those of the other its channels.
    """
    rows, channels, columns = tile.rows + 3, max(tile.rows, tile.columns) + 1, tile.columns // 2 + 1
    text = text_of(applied(rows, channels, columns), RESULTS, tile, dtype, numbers)
    module = on_cpu(text, turns=("shuffled",), key=key)
    x, w, u, g = (
        numbers_of(*shape) for shape in ((2, channels, columns), (rows, channels, 1), (rows,), (2, rows, columns))
    )
    results = module.forward(x, w, u), module.weight_gradient(g, x), module.input_gradient(g, w, x.shape)
    products = [made for made in module.cupy.launches if made.kernel.startswith("compute_")]
    assert [made.block[0] for made in products] == 3 * [tile.threads]
    exact = np.int64 if key is None else object  # an element of the field is the rest of a whole number
    X, W, U, G = (a.astype(exact) for a in (x, w[:, :, 0], u, g))
    yield results[0], np.stack([W @ image + U[:, None] for image in X])
    yield results[1][:, :, 0], sum(grad @ image.T for grad, image in zip(G, X, strict=True))
    yield results[2], np.stack([W.T @ grad for grad in G])


@pytest.mark.parametrize(("tile", "dtype", "numbers"), GRADIENTS, ids=name_of)
def test_every_result_beyond_the_edges_of_a_tile(tile: AnyTile, dtype: str, numbers: str) -> None:
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.integers(-1, 2, shape).astype(dtype)  # noqa: E731 - sums of these are exact in float16
    for found, wanted in all_results(tile, dtype, numbers, draw):
        assert np.array_equal(found, wanted)


@pytest.mark.parametrize(("tile", "dtype", "numbers"), OF_EACH_KIND, ids=name_of)
def test_every_result_beyond_the_edges_of_a_tile_over_a_prime_field(tile: AnyTile, dtype: str, numbers: str) -> None:
    """One tile of each kind: a thread with sums of its own, threads that share the terms of a sum, and tensor cores."""
    assert isinstance(tile, TensorTile) or tile.parts == (4 if tile is TILES[16] else 1)
    rng = np.random.default_rng(0)
    for found, wanted in all_results(tile, dtype, numbers, lambda *s: rng.integers(0, P, s).astype("u8"), key=7):
        assert np.array_equal(found, wanted % P)


KINDS = {"float32": TILES, "float16": HALVES, "tf32": TF32}


@pytest.mark.parametrize("numbers", KINDS)
def test_a_thread_has_an_equal_share_of_a_tile(numbers: str) -> None:
    for tile in KINDS[numbers]:
        assert tile.threads % 32 == 0
        assert tile.threads <= 1024
        assert tile.rows % tile.own_rows == tile.columns % tile.own_columns == 0
        assert tile.depth % tile.parts == 0
    assert len({tile.name for tile in KINDS[numbers]}) == len(KINDS[numbers])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_a_block_has_in_shared_memory_is_what_any_gpu_gives_it(dtype: str) -> None:
    numbers = NUMBERS[dtype]
    for tile in numbers.fitting.values():
        factors = 2 * tile.depth * ((tile.rows // 4 + 1) + (tile.columns // 4 + 1)) * 4
        assert (factors + (tile.parts - 1) * tile.rows * tile.columns) * numbers.itemsize <= 48 << 10, tile


def slices(tile: AnyTile, widths: tuple[int, ...]) -> list[tuple[str, int, int, str, int]]:
    """Every way to fetch a factor for a tile: its type and the threads as text, rows or columns, terms, along which,
    and width."""
    deep, threads = tile.pairs if isinstance(tile, TensorTile) else tile.depth, tile.threads
    every = ((n, way, width) for n in (tile.rows, tile.columns) for way in ("SIDE", "TERMS") for width in widths)
    return [(f"Slice<{n}, {deep}, {threads}, {way}, {w}>, {threads}", n, tile.depth, way, w) for n, way, w in every]


@pytest.mark.parametrize("numbers", KINDS)
def test_a_slice_is_fetched_whole_and_no_place_twice(numbers: str) -> None:
    """A place of tensor cores is a pair of terms, or several of them; see ``Slice``."""
    pairs, widths = numbers != "float32", (1, 2, 4, 8) if numbers == "float16" else (1, 2, 4)
    every = dict.fromkeys(found for tile in KINDS[numbers] for found in slices(tile, widths))
    body = "\n".join(f"  at = put<{kind}>(own, term, at);" for kind, *_ in every)
    text = f"""
template <class S, int THREADS> __device__ __forceinline__ int put(int* own, int* term, int at)
{{
  for (int place = threadIdx.x; place < S::PLACES; place += blockDim.x) {{
    own[at + place] = S::own(place % THREADS, place / THREADS);
    term[at + place] = S::term(place % THREADS, place / THREADS);
  }}
  return at + S::PLACES;
}}
extern "C" __global__ void places(int* own, int* term)
{{
  int at = 0;
{body}
}}"""
    needs = "TensorTile" if pairs else "Tile"
    program = compile(cuda_text(NUMBERS[numbers], [Kernel(needs, f"// {needs}{text}")]))
    own, term = (np.zeros(sum(length * depth for _, length, depth, *_ in every), np.int32) for _ in range(2))
    program.launch("places", 1, 32, [own, term])
    at = 0
    for kind, length, depth, way, width in every:
        down = (2 if pairs else 1) if way == "SIDE" or width == 1 else width
        across = width if way == "SIDE" else 1
        places = length * depth // (down * across)
        firsts = zip(own[at : at + places], term[at : at + places] * (2 if pairs else 1), strict=True)
        cells = [(n + i, k + j) for n, k in firsts for i in range(across) for j in range(down)]
        assert sorted(cells) == [(n, k) for n in range(length) for k in range(depth)], kind
        at += places


@pytest.mark.parametrize("numbers", ["float16", "bfloat16", "tf32"])
def test_the_instructions_of_tensor_cores_are_those_of_the_wrappers_for_kernels_by_hand(numbers: str) -> None:
    """`certiconv_ptx.cuh` has the same functions, which `tests/runtime/simt` runs on a CPU under their names."""
    tensor = NUMBERS[numbers].tensor
    assert tensor is not None
    text = cuda_text(NUMBERS[numbers], [Kernel("k", "// TensorTile")])
    for name, instruction in ((tensor.name, "mma.sync.aligned"), ("certiconv_ldmatrix_x4", "ldmatrix.sync.aligned")):
        mine, theirs = (wrapper(t, name) for t in (text, WRAPPERS.read_text(encoding="utf-8")))
        assert instruction in mine
        assert mine == theirs


def wrapper(text: str, name: str) -> str:
    """A function of a text, macros expanded, strings joined, without white space."""
    lines = [line for line in text.splitlines() if not line.startswith("#include")]
    command = ["g++", "-E", "-P", "-D__CUDACC__", "-x", "c++", "-"]
    found = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=True)
    expanded = re.sub(r"\s+", "", found.stdout).replace('""', "")
    start = expanded.index(f"void{name}(")
    return expanded[start : expanded.index(");}", start)]


@pytest.mark.parametrize(
    ("layer", "shape", "dtype"),
    [
        (lenet(), (2, 1, 28, 28), "float32"),
        (Conv2d(64, 64, 3, padding=1), (2, 64, 8, 8), "float16"),
        (Conv2d(2, 2, 3, stride=2, padding=1, groups=2), (2, 2, 9, 9), "float64"),
    ],
    ids=["LeNet", "tensor cores", "no product"],
)
def test_a_text_holds_the_functions_that_it_uses_and_each_once(
    layer: Layer, shape: tuple[int, ...], dtype: str
) -> None:
    emitted = emit(layer, backend="cupy", input_shape=shape, dtype=dtype)
    defined = re.findall(r"(?:__forceinline__ \w+|#define|struct alignas\(.*\)|struct|enum) (\w+)", emitted.cuda)
    used = re.findall(r"\w+", re.sub(r"//.*", "", emitted.cuda))
    once = [name for name in defined if name != "EXACT"]
    assert len(set(once)) > 2
    assert all(used.count(name) > 1 for name in once), [name for name in once if used.count(name) < 2]
    products = emitted.cuda.count("tile.multiply")
    assert emitted.cuda.count("Slice {") == (1 if products else 0)
    assert products == {"float32": 14, "float16": 3, "float64": 0}[dtype]


def test_a_convolution_as_a_product() -> None:
    found = contraction(definition(applied(9, 16, 30))["forward"].stages[0])
    assert found is not None
    assert (found.rows, found.columns, found.depth, found.batch) == ((1,), (0, 2), (3, 4), ())
