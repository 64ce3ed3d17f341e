"""The chance that exact execution misses a difference: its bound, and what the runs of a check share.

How likely is it that a difference is missed?  Let a text apply no more functions than its stages, q of them, to values
that are rational functions, of degree at most D, of what was drawn and of earlier values of functions.  Two different
arguments meet by accident with probability at most D/p (Schwartz, Zippel), and there are at most 2 q^2 pairs among
those of text and stages.  Unless two meet, the values of the functions are independent and uniform, and two different
outputs agree with probability at most D/p once more: (2 q^2 + 1) D/p in all.  A maximum is no rational function: it is
fixed by runs in which each of its arguments is the largest in turn.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from random import Random
from typing import TypeVar

from codegen.execution import shape
from codegen.field import Element, P, drawn
from codegen.plan import Plan, Stage
from derive.evaluate import Undefined
from derive.terms import Apply, Factor, Maximum

DEGREE = 1000
EVALUATOR = "derive.evaluate, which computes the stages, and the polynomial arithmetic of derive.indices"
ARITHMETIC = (
    "CPython, what NumPy does with object arrays and with 64-bit integers, and codegen.products, which multiplies the "
    "matrices of a text modulo p"
)
HASH = "BLAKE2b as a random function"
FIELD = (
    "Exact execution in the integers modulo p = 2^61 - 1 at this shape: every input uniform at random by a seed made "
    "from the text's hash, every element of every output compared."
)
_T = TypeVar("_T")


def lucky(attempt: Callable[[str], _T], seed: str, tries: int = 10) -> _T:
    """Try with seeds made from this one until no draw asks for the reciprocal of 0, which is rare and no fault."""
    for k in range(tries - 1):
        try:
            return attempt(f"{seed} {k}")
        except Undefined:
            continue
    return attempt(f"{seed} {tries - 1}")


def with_largest(rng: Random, kind: type[Element], size: int, place: int) -> list[int]:
    """Random numbers of which the one at that place is the largest."""
    values = drawn(rng, size)
    top = max(range(size), key=lambda k: kind.numbers.key(values[k]))
    values[top], values[place] = values[place], values[top]
    return values


def applications(plan: Plan, batch: int) -> int:
    """How often the stages apply exp, log, tanh or sigmoid, for a batch of this size."""
    return sum(_applied(s) * prod(shape(s.tensor, batch)) for s in plan.stages)


def _applied(stage: Stage) -> int:
    return sum(_functions(f) for m in stage.body.monomials for f in m.factors)


def _functions(f: Factor) -> int:
    """The functions in a factor that are pseudo-random modulo p, those within arguments too."""
    if isinstance(f, Maximum):
        return sum(_functions(inner) for m in f.body.monomials for inner in m.factors)
    if not isinstance(f, Apply):
        return 0
    inside = sum(_functions(inner) for m in f.argument.monomials for inner in m.factors)
    return inside + (f.function not in {"recip", "relu", "step"})


def survival(applied: int) -> float:
    """The bound on the chance that a difference survives a trial; see the head of this file."""
    return (2 * applied**2 + 1) * DEGREE / P


def bounded(applied: int, *, compares: bool = False) -> str:
    """The words for ``survival``; ``compares`` where stages have functions, some of which may compare.

    >>> bounded(0, compares=True)[-78:]
    'Where functions compare, the bound is for texts that compare as the stages do.'
    """
    told = f"The bound is D/p, for a text that computes polynomials of degree at most D = {DEGREE}."
    if applied:
        told = (
            f"The bound is (2 q^2 + 1) D/p, for a text that applies at most q = {applied} functions in a call, to "
            f"values of degree at most D = {DEGREE}."
        )
    return told + (
        " Where functions compare, the bound is for texts that compare as the stages do." if compares else ""
    )
