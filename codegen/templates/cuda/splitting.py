"""Into how many shares a sum over the batch is cut, so that many blocks work on it side by side.

A block waits for memory once for each ``at_once`` terms of its share, which it fetches together.  Whoever adds up the
shares waits as long for each ``ahead`` of them.  So T terms in c shares take

    T / (c at_once) + c / ahead        waits, the fewest where both are as many:  c = sqrt(T ahead / at_once)

That is a share of sqrt(T at_once / ahead) terms, and of no fewer than are fetched together.  It is longer where a share
needs so many blocks that those shares are more than ``BLOCKS``: all processors have work by then, and another share is
another tile to write and to read.

A thread that adds up the shares of a number fetches ``AHEAD`` of them at once.  Where shares have few numbers, so that
there would be few such threads, each number has a thread in all ``WARPS`` warps of a block, which add up a part of the
shares each.

``share`` and ``splits`` stand in the host part of emitted text (``host.py.j2``) with these very numbers; here they tell
the model of a product's time how many shares a sum can have (``codegen.templates.cuda.choice``).
"""

from __future__ import annotations

from math import isqrt

from codegen.templates.cuda.kernels import BLOCK

PROCESSORS = 132  # multiprocessors that want work
BLOCKS = 2 * PROCESSORS  # how many blocks a sum over the batch is spread over, where it has terms enough
AHEAD = 8  # shares that a thread fetches together when it adds them up
WARPS = BLOCK // 32  # threads that add up the shares of a number where there are few numbers


def threads_a_sum(numbers: int) -> int:
    """How many threads add up the shares of a number, where a share has so many numbers.

    More than one where that leaves a processor no more than one block.

    >>> threads_a_sum(156), threads_a_sum(4_224), threads_a_sum(4_225)
    (8, 8, 1)
    """
    return WARPS if numbers * WARPS <= PROCESSORS * BLOCK else 1


def ahead(numbers: int) -> int:
    """How many shares are fetched together when they are added up, where a share has so many numbers."""
    return AHEAD * threads_a_sum(numbers)


def share(blocks: int, terms: int, at_once: int, ahead: int) -> int:
    """How many terms of a sum a block takes, in whole fetches, where each share needs so many blocks.

    >>> share(1, 256, 8, 64), share(1, 200_704, 8, 64), share(36, 12_544, 8, 8)
    (8, 768, 1792)
    """
    fewest = max(at_once, isqrt(terms * at_once // ahead))
    length = max(-(-terms // max(1, BLOCKS // blocks)), fewest)
    return -(-length // at_once) * at_once


def splits(blocks: int, terms: int, at_once: int, ahead: int) -> int:
    """In how many shares that cuts a sum.

    >>> splits(1, 256, 8, 64), splits(1, 200_704, 8, 64), splits(36, 12_544, 8, 8)
    (32, 262, 7)
    """
    return -(-terms // share(blocks, terms, at_once, ahead))
