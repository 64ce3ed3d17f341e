"""How many images a block has: what fits the cache of the reference machine, and no rows that are too short."""

from math import prod

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegen.machine import REFERENCE
from codegen.plan import BATCH, Stage
from codegen.plans import blocks
from codegen.plans.algorithms import ALGORITHMS
from derive.indices import var, variables
from derive.layers import Conv2d
from derive.terms import Tensor, define, tensor, term

SIZES = st.lists(st.integers(1, 200), min_size=1, max_size=3)


def copied(x: Tensor) -> Stage:
    """A copy, batch first."""
    return Stage(define("Y", list(x.box), term(x.rank, x[variables(0, x.rank)])), "strided")


@given(sizes=SIZES, itemsize=st.sampled_from([4, 8]))
def test_a_block_fits_the_cache_of_the_reference_machine(sizes: list[int], itemsize: int) -> None:
    x, image = tensor("X", BATCH, *sizes), itemsize * prod(sizes)
    one, rows = (rule((x,), (copied(x),), itemsize) for rule in (blocks.image_by_image, blocks.batch_innermost))
    for block in (one, rows):
        assert 1 <= block <= blocks.MOST
        assert block < blocks.LINE or block % blocks.LINE == 0
    assert one == 1 or one * image <= 2 * REFERENCE.cache
    assert rows in (1, blocks.FEW) or rows * image <= 2 * REFERENCE.cache
    assert rows == 1 or rows >= blocks.FEW
    if one >= blocks.LINE:
        assert min(blocks.MOST, one + blocks.LINE) * image > 2 * REFERENCE.cache or one == blocks.MOST


@given(sizes=SIZES)
def test_rows_that_are_added_may_fill_it_twice(sizes: list[int]) -> None:
    x = tensor("X", *sizes, BATCH)
    body = term(x.rank, x[tuple(var(k) for k in range(x.rank))])
    added = Stage(define("Y", list(x.box), body), "scatter")
    plain, twice = (blocks.batch_innermost((x,), (stage,), 4) for stage in (copied(x), added))
    assert plain <= twice <= max(2 * plain + blocks.LINE, blocks.FEW)


@pytest.mark.parametrize("side", [4, 14, 28, 112])
def test_a_product_for_each_point_has_rows_enough(side: int) -> None:
    plans = ALGORITHMS["winograd4"].plan(Conv2d(64, 64, 3, padding=1).on(tensor("X", BATCH, 64, side, side)))
    tiles = (-(-side // 4)) ** 2
    for name in ("forward", "input_gradient", "weight_gradient"):
        block = plans[name].block
        assert block * tiles >= blocks.ROWS or block == blocks.MOST
        assert block == -(-blocks.ROWS // tiles) or block * 4 * 36 * tiles * 64 <= blocks.FILLED or block == blocks.MOST
