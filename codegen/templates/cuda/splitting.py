"""Into how many shares a sum over the batch is cut, so that many blocks work on it side by side.

A block waits for memory once for each ``at_once`` terms of its share, which it fetches together.  Whoever adds up the
shares waits as long for each ``AHEAD`` of them.  So T terms in c shares take

    T / (c at_once) + c / AHEAD        waits, the fewest where both are as many:  c = sqrt(T AHEAD / at_once)

That is a share of sqrt(T at_once / AHEAD) terms, and of no fewer than are fetched together.  It is longer where a share
needs so many blocks that those shares are more than ``BLOCKS``: all processors have work by then, and another share is
another tile to write and to read.

``share`` and ``splits`` stand in the host part of emitted text (``host.py.j2``) with these very numbers; here they tell
the model of a product's time how many shares a sum can have (``codegen.templates.cuda.choice``).
"""

from __future__ import annotations

from math import isqrt

PROCESSORS = 132  # multiprocessors that want work
BLOCKS = 2 * PROCESSORS  # how many blocks a sum over the batch is spread over, where it has terms enough
AHEAD = 8  # shares that are fetched together when they are added up


def share(blocks: int, terms: int, at_once: int) -> int:
    """How many terms of a sum a block takes, in whole fetches, where each share needs so many blocks.

    >>> share(1, 256, 8), share(1, 200_704, 8), share(36, 12_544, 8)
    (16, 768, 1792)
    """
    fewest = max(at_once, isqrt(terms * at_once // AHEAD))
    length = max(-(-terms // max(1, BLOCKS // blocks)), fewest)
    return -(-length // at_once) * at_once


def splits(blocks: int, terms: int, at_once: int) -> int:
    """In how many shares that cuts a sum.

    >>> splits(1, 256, 8), splits(1, 200_704, 8), splits(36, 12_544, 8)
    (16, 262, 7)
    """
    return -(-terms // share(blocks, terms, at_once))
