"""How many images a plan works on at a time: as many as fit the cache, and as its stages are fastest on.

A *rule* gives that number from the inputs and stages of a result.  The cache is that of ``codegen.machine.REFERENCE``,
as for every choice that is made without measuring, so the same request gives the same text everywhere.

    batch_innermost    rows of products and copies run along the batch: not too few images, and whole lines of the cache
    image_by_image     rows run along an image: one image will do
    by_tiles           a product for each point of a transform, whose rows are tiles of all images of the block
    in_cache           passes over all cells of a block, however many images that takes
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Protocol

from codegen.machine import REFERENCE
from codegen.plan import BATCH, SCATTERED, Stage, is_batch
from derive.terms import Tensor

FILLED = 2 * REFERENCE.cache  # bytes that the largest tensor of a block may have
FEW, MOST = 8, 64  # images
LINE = 16  # float32 in a line of the cache; rows of whole lines are a tenth faster to multiply and to add
ROWS = 128  # a product for each point has about as many rows at least, or packing its other factor takes longer
TILES = "D"  # the stage that gathers tiles of the input: point, batch, tile, channel


class Rule(Protocol):
    """From inputs and stages, and the bytes of an element, how many images a block has."""

    def __call__(self, inputs: Sequence[Tensor], stages: Sequence[Stage], itemsize: int) -> int:
        """See the class."""


def batch_innermost(inputs: Sequence[Tensor], stages: Sequence[Stage], itemsize: int) -> int:
    """As many as keep the largest tensor within ``FILLED`` bytes, but ``FEW`` at least.

    Rows of fewer images are slower to copy than one image after the other, so it is a single one where ``FEW`` would
    need more than twice that memory.
    """
    return _fitting(inputs, stages, itemsize, FEW)


def image_by_image(inputs: Sequence[Tensor], stages: Sequence[Stage], itemsize: int) -> int:
    """As many as keep the largest tensor within ``FILLED`` bytes, or one."""
    return _fitting(inputs, stages, itemsize, 1)


def by_tiles(inputs: Sequence[Tensor], stages: Sequence[Stage], itemsize: int) -> int:
    """As many as keep the tiles within ``FILLED`` bytes, but enough for products of ``ROWS`` rows.

    Without tiles, or where their sizes are symbols, as ``batch_innermost``.
    """
    tiles = next((s.tensor for s in stages if s.name == TILES), None)
    sizes = [] if tiles is None else [(hi - lo).constant for lo, hi in tiles.box if hi - lo != BATCH]
    known = [size or 1 for size in sizes if size is not None]
    if tiles is None or len(known) < len(sizes):
        return batch_innermost(inputs, stages, itemsize)
    axes = (len(known) - 1) // 2
    rows = prod(known[axes:-1])
    fitting = FILLED // (itemsize * max(1, prod(known)))
    return max(1, min(MOST, max(fitting, -(-ROWS // max(1, rows)))))


def in_cache(inputs: Sequence[Tensor], stages: Sequence[Stage], itemsize: int) -> int:
    """As many as keep the largest tensor within half the cache, so that a pass finds what the one before it left."""
    image = itemsize * max(prod(_cells(t)) for t in (*inputs, *(s.tensor for s in stages)) if _has_batch(t))
    return max(1, REFERENCE.cache // (2 * max(1, image)))


def _fitting(inputs: Sequence[Tensor], stages: Sequence[Stage], itemsize: int, few: int) -> int:
    """See the two rules that are made of it.

    Rows that are added where windows overlap are worth twice the memory, since the additions take longer than it; and
    from ``LINE`` images on they are whole lines.
    """
    image = itemsize * max(prod(_cells(t)) for t in (*inputs, *(s.tensor for s in stages)) if _has_batch(t))
    added = any(s.template in SCATTERED and is_batch(s.tensor.box[-1]) for s in stages)
    block = min(MOST, (2 if added else 1) * FILLED // max(1, image))
    if block >= LINE:
        return block // LINE * LINE
    if block >= few:
        return block
    return few if few * image <= 2 * FILLED else 1


def _has_batch(t: Tensor) -> bool:
    return any(is_batch(interval) for interval in t.box)


def _cells(t: Tensor) -> list[int]:
    """The sizes of a tensor that are numbers, for one image."""
    sizes = [(hi - lo).constant for lo, hi in t.box]
    return [n for n in sizes if n is not None]


__all__ = [
    "FEW", "FILLED", "LINE", "MOST", "ROWS", "Rule", "batch_innermost", "by_tiles", "image_by_image", "in_cache",
]  # fmt: skip
