"""Which tile suits which sizes: a model of the time that a product takes on a GPU.

Time is counted in clock cycles.  A processor has several blocks at once, the more the fewer threads and registers they
have, and of these as many threads work as it has lanes.  It is done when the slower of two things is:

    working   every term of a block's tile is a multiplication and an addition for each sum, reads from shared memory
              for the rows and columns of each thread, and the fetch of a number, with its index, for each row and
              column of the tile; every sum is stored, after that of other threads was added to it, if there are any;
              rows and columns beyond the product's end cost as much as others
    waiting   a block has the terms of one fetch on their way while it multiplies those of the last: it waits for memory
              once a fetch, once to begin and once to store

The busiest processor counts, so blocks fewer than there are processors leave the rest idle.  A sum over the batch is
cut into as many shares as the host will cut it into (``codegen.templates.cuda.splitting``), and each is a tile more to
write, to read and to add up.

The numbers below are those of a data sheet or estimates, not measurements; ``runtime.tune_tiles`` measures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from codegen.templates.cuda.splitting import PROCESSORS, ahead, splits
from codegen.templates.cuda.tiling import AnyTile, fitting

BATCHES = (64, 256)  # how many images a text is expected to see: a tile suits these, and those between
LANES = 128  # operations of a processor in a cycle
REGISTERS, OTHERS = 65536, 110  # of a processor; of a thread, beside its sums (what NVRTC says of float32)
RESIDENT = 32  # blocks that a processor has at once, however small
LATENCY = 500  # cycles from a fetch to the barrier after it
READ = 2  # operations for a number that a thread reads from shared memory, beside that of multiplying
FETCH = 20  # operations for a number that is fetched: mostly its index
STORE = 10  # operations for a sum that is stored
BANDWIDTH = 2048  # bytes that all processors together write or read in a cycle


@dataclass(frozen=True)
class Product:
    """The sizes of a matrix product, how many of it there are, and whether its sum is cut into shares."""

    rows: int
    columns: int
    terms: int
    times: int = 1
    split: bool = False


def best_tile(candidates: Sequence[AnyTile], products: Sequence[Product], *, itemsize: int) -> AnyTile:
    """The tile with the least time; for several products, of sizes that may all occur, the least product of times.

    ``itemsize``: the bytes of a sum.  Where many tiles wait as long, the one with the least work is taken.
    """
    return min(fitting(candidates, itemsize), key=lambda tile: _cost(tile, products, itemsize))


def costs(candidates: Sequence[AnyTile], products: Sequence[Product], *, itemsize: int) -> dict[int, float]:
    """By the number of threads of a block, the time with the best tile for so many: the mean of those of the products.

    The mean is the geometric one, as ``best_tile`` compares.
    """
    found: dict[int, float] = {}
    for tile in fitting(candidates, itemsize):
        time = _cost(tile, products, itemsize)[0] ** (1 / len(products))
        found[tile.threads] = min(time, found.get(tile.threads, time))
    return found


def _cost(tile: AnyTile, products: Sequence[Product], itemsize: int) -> tuple[float, float]:
    times = [cycles(tile, product, itemsize=itemsize) for product in products]
    return prod(max(pair) for pair in times), prod(working for working, _ in times)


def cycles(tile: AnyTile, product: Product, *, itemsize: int) -> tuple[float, float]:
    """How long the busiest processor is working and how long it is waiting, the adding up of shares included."""
    blocks = ceil(product.rows / tile.rows) * ceil(product.columns / tile.columns) * product.times
    results = product.times * product.rows * product.columns
    together = ahead(results)
    shares = splits(blocks, product.terms, tile.depth, together) if product.split else 1
    fetches = ceil(ceil(product.terms / shares) / tile.depth)
    busiest = ceil(blocks * shares / PROCESSORS)
    beside = min(busiest, resident(tile, itemsize))
    each = STORE + 2 * READ * (tile.parts - 1)
    operations = fetches * tile.depth * work(tile, itemsize) + each * tile.rows * tile.columns
    working = busiest * operations / min(LANES, beside * tile.threads)
    waiting = ceil(busiest / beside) * (fetches + 2) * LATENCY
    if not product.split:
        return working, waiting
    adding = 2 * shares * results * itemsize / BANDWIDTH + ceil(shares / together) * LATENCY
    return working + adding, waiting + adding


def work(tile: AnyTile, itemsize: int) -> float:
    """The operations that a block has for each term of a sum."""
    multiplied = tile.rows * tile.columns * itemsize / 4 / tile.rate
    read = tile.rows * tile.columns * (1 / tile.own_rows + 1 / tile.own_columns)
    return multiplied + READ * read + FETCH * (tile.rows + tile.columns)


def resident(tile: AnyTile, itemsize: int) -> int:
    """How many blocks a processor has at once."""
    registers = tile.threads * (tile.own_bytes * itemsize // 4 + OTHERS)
    return max(1, min(RESIDENT, REGISTERS // registers))
