"""The model that takes a tile where none is asked for, and the rule that cuts a sum into shares.

No GPU's clock is at hand, so the model's numbers are not tested: what is, is that it knows what a GPU does.  The rule
is the host's, and it is compared with every other way to cut a sum.
"""

from math import ceil
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen.emit import emit
from codegen.templates.cuda.choice import BATCHES, Product, best_tile, cycles
from codegen.templates.cuda.kernels import Part
from codegen.templates.cuda.numbers import NUMBERS
from codegen.templates.cuda.splitting import AHEAD, BLOCKS, PROCESSORS, WARPS, ahead, share, splits
from codegen.templates.cuda.tiling import HALVES, TILES, AnyTile, fitting
from derive.layers import Conv2d, Linear, lenet
from tests.codegen.cupy_on_cpu import needs_compiler, on_cpu

LENET = emit(lenet(), backend="cupy", input_shape=(2, 1, 28, 28))
SIZES = st.tuples(st.integers(1, 2000), st.integers(1, 1 << 24), st.sampled_from([4, 8, 32, 256]),
                  st.sampled_from([AHEAD, AHEAD * WARPS]))  # fmt: skip

# --- shares -------------------------------------------------------------------------------------------------------


@needs_compiler
def test_the_host_cuts_sums_as_the_model_takes_it_to() -> None:
    layer = emit(Conv2d(2, 3, 3), backend="cupy", input_shape=(2, 2, 5, 4))
    for module in (on_cpu(LENET.source), on_cpu(layer.source)):
        same(module)


def same(module: ModuleType) -> None:
    assert module.BLOCKS == BLOCKS

    @given(SIZES)
    def compared(sizes: tuple[int, int, int, int]) -> None:
        assert module.share(*sizes) == share(*sizes)
        assert module.splits(*sizes) == splits(*sizes)

    compared()


@given(SIZES)
def test_shares_are_whole_fetches_fill_the_processors_and_no_more(sizes: tuple[int, int, int, int]) -> None:
    blocks, terms, at_once, _ = sizes
    length, count = share(*sizes), splits(*sizes)
    assert (count - 1) * length < terms <= count * length
    assert length % at_once == 0
    assert blocks * count <= max(BLOCKS, blocks)


@given(st.integers(1, 1 << 16), st.sampled_from([4, 8, 32, 256]), st.sampled_from([AHEAD, AHEAD * WARPS]))
def test_a_sum_waits_about_as_rarely_as_any_way_to_cut_it_allows(terms: int, at_once: int, together: int) -> None:
    def waits(length: int) -> int:
        return ceil(length / at_once) + ceil(ceil(terms / length) / together)

    every = [ceil(terms / count) for count in range(1, min(BLOCKS, terms) + 1)]
    assert waits(share(1, terms, at_once, together)) <= 1.25 * min(map(waits, every)) + 2


@pytest.mark.parametrize(("features", "together"), [(66, AHEAD), (64, AHEAD * WARPS)])
def test_a_text_cuts_by_how_its_shares_are_added_up(features: int, together: int) -> None:
    """Of 66 times 64 numbers and no more, each has a thread in every warp."""
    emitted = emit(Linear(66, features, bias=False), backend="cupy", input_shape=(8, 66))
    (cut,) = (part for kernel in emitted.kernels for part in kernel.parts if part.terms)
    assert cut.ahead == together
    assert f"sizes = {cut.blocks}, {cut.terms}, {cut.at_once}, {together}\n" in emitted.source
    assert ("sum_by_warps(dW_shares" in emitted.source) == (together > AHEAD)


# --- the model ----------------------------------------------------------------------------------------------------


def test_large_products_take_large_tiles_and_small_ones_small_tiles() -> None:
    large, lean = Product(512, 100_000, 4608), Product(8, 1_000_000, 25)
    tile = best_tile(TILES, [large], itemsize=4)
    assert (tile.rows, tile.columns) == (128, 128)
    assert best_tile(TILES, [lean], itemsize=4).rows == 8
    assert best_tile(TILES, [large], itemsize=8).own_bytes * 8 <= 256
    assert best_tile(HALVES, [large], itemsize=4).rows == 128


def test_where_few_blocks_wait_several_threads_share_a_sum() -> None:
    few, many = Product(120, 64, 400), Product(512, 100_000, 4608)
    parts = [best_tile(TILES, [product], itemsize=4).parts for product in (few, many)]
    assert parts[0] > parts[1] == 1


@pytest.mark.parametrize("tile", [*TILES, *HALVES], ids=lambda tile: tile.name)
def test_more_of_anything_takes_no_less_time(tile: AnyTile) -> None:
    product = Product(300, 500, 700)
    time = max(cycles(tile, product, itemsize=4))
    for more in (Product(600, 500, 700), Product(300, 5000, 700), Product(300, 500, 7000), Product(300, 500, 700, 9)):
        assert max(cycles(tile, more, itemsize=4)) >= time


def test_blocks_fewer_than_processors_leave_the_rest_idle() -> None:
    for tile in fitting(TILES, 4):
        one = Product(tile.rows, tile.columns, 500)
        every = Product(tile.rows, tile.columns, 500, PROCESSORS)
        assert cycles(tile, one, itemsize=4) == cycles(tile, every, itemsize=4)


def test_a_sum_of_few_terms_is_not_taken_to_fill_the_processors() -> None:
    """As a dense layer's, whose terms are the images: with one block a share a large tile has them all to itself."""
    few, many = (Product(84, 121, terms, split=True) for terms in (256, 256_000))
    small, large = (best_tile(TILES, [product], itemsize=4) for product in (few, many))
    assert small.rows * small.columns < large.rows * large.columns
    whole = next(tile for tile in TILES if tile.name == "128x128")
    assert max(cycles(small, few, itemsize=4)) < max(cycles(whole, few, itemsize=4)) / 1.5


def test_the_choice_suits_all_batches_and_not_the_largest_alone() -> None:
    small, large = Product(120, 64, 400), Product(120, 64_000, 400)
    alone = [best_tile(TILES, [product], itemsize=4) for product in (small, large)]
    both = best_tile(TILES, [small, large], itemsize=4)
    regret = [max(cycles(both, p, itemsize=4)) / max(cycles(own, p, itemsize=4))
              for p, own in zip((small, large), alone, strict=True)]  # fmt: skip
    assert alone[0] != alone[1]
    assert max(regret) < max(cycles(alone[1], small, itemsize=4)) / max(cycles(alone[0], small, itemsize=4))


def test_the_shares_of_many_products_are_as_many_numbers_as_those_of_a_wide_one() -> None:
    tile = min(TILES, key=lambda tile: (abs(tile.rows * tile.columns - 1024), tile.parts))
    assert ahead(tile.rows * tile.columns) != ahead(8 * tile.rows * tile.columns)
    many, wide = (Product(tile.rows, tile.columns * n, 256, times, split=True) for n, times in ((1, 8), (8, 1)))
    assert cycles(tile, many, itemsize=4) == cycles(tile, wide, itemsize=4)


# --- LeNet --------------------------------------------------------------------------------------------------------

PARTS = {part.name: part for kernel in LENET.kernels for part in kernel.parts}
PRODUCTS = {name: part for name, part in PARTS.items() if part.memory and not part.adds}


def blocks_of(part: Part, batch: int) -> int:
    """How many blocks the host launches."""
    blocks, terms = (eval(text or "0", {"N": batch}) for text in (part.blocks, part.terms))
    assert isinstance(blocks, int)
    return blocks * splits(blocks, terms, part.at_once, part.ahead) if part.terms else blocks


@pytest.mark.parametrize("name", ["compute_dW7", "compute_dW9", "compute_dW11"])
@pytest.mark.parametrize("batch", BATCHES)
def test_weight_gradients_of_dense_layers_are_spread_over_many_blocks(name: str, batch: int) -> None:
    assert blocks_of(PRODUCTS[name], batch) >= 12


def test_the_kernels_of_lenet_have_tiles_that_fit() -> None:
    declared = {f"{tile.cuda()}::Memory" for tile in NUMBERS["float32"].fitting.values()}
    for part in PRODUCTS.values():
        assert part.memory in declared
        assert (part.at_once > 1) == bool(part.terms) == (part.ahead > 1)


def test_the_shares_of_few_numbers_are_added_up_by_a_thread_in_each_warp() -> None:
    """Shares are spread over no more threads than all processors have at once, a block each."""
    for part in PARTS.values():
        if not part.adds:
            continue
        cut = next(other for other in PARTS.values() if other.stage == part.stage and other.terms)
        numbers, threads = int(cut.results), int(part.blocks) * part.threads
        assert numbers <= threads
        assert bool(part.memory) == (cut.ahead > AHEAD) == (numbers * WARPS <= PROCESSORS * part.threads)
        assert cut.ahead == ahead(numbers)
