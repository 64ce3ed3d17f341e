"""Buffers shared by stages whose lifetimes are disjoint: one piece of memory for several, whatever their shapes.

A buffer lives from the stage that writes it to the last one that reads it, or what took its place.  Within a block of
images the stages run in the order of the plan, so two buffers whose lives do not touch may lie in the same memory: it
is written anew in every block.  Left out is what has to keep cells between blocks (margins, cells that are never
written, parts of matrices) and the result.  The largest buffers are placed first, each in the first piece where it fits
in time.

``check`` knows nothing of lifetimes: it goes through the stages in order, notes whose numbers a piece holds, and
refuses a read that would find those of another stage.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from codegen.plan import MADE_ONCE, SCATTERED, Plan, PlanError, Stage


@dataclass(frozen=True)
class Piece:
    """Memory for several buffers, outermost in time first, of so many cells for each image."""

    cells: int
    buffers: tuple[str, ...]


def pieces(plan: Plan, *, sparse: frozenset[str] = frozenset()) -> tuple[Piece, ...]:
    """The pieces of memory that more than one buffer of a block lies in.

    ``sparse`` names stages some of whose cells are never written.  Plans with several results have none: their stages
    need not run in one go.

    >>> from codegen.plan import BATCH
    >>> from codegen.plans.algorithms import ALGORITHMS
    >>> from derive.layers import Conv2d
    >>> from derive.terms import tensor
    >>> applied = Conv2d(8, 8, 3).on(tensor("X", BATCH, 8, 14, 14))
    >>> [piece.buffers for piece in pieces(ALGORITHMS["winograd2"].plan(applied)["forward"])]
    [('D', 'M'), ('In', 'V', 'Zt')]
    """
    lives = _lives(plan, sparse) if len(plan.outputs) == 1 else {}
    found: list[list[str]] = []
    for name in sorted(lives, key=lambda name: (-_cells(plan.by_name[name]), lives[name])):
        first, last = lives[name]
        for piece in found:
            if all(last < lives[other][0] or lives[other][1] < first for other in piece):
                piece.append(name)
                break
        else:
            found.append([name])
    made = tuple(
        Piece(max(_cells(plan.by_name[name]) for name in piece), tuple(sorted(piece, key=lives.__getitem__)))
        for piece in found
        if len(piece) > 1
    )
    check(plan, made)
    return made


def _lives(plan: Plan, sparse: frozenset[str]) -> dict[str, tuple[int, int]]:
    """For each buffer that may be shared, the numbers of the first and the last stage that touch it."""
    lives: dict[str, tuple[int, int]] = {}
    kept = {plan.owner(name) for name in (*plan.outputs.values(), *sparse)}
    for at, stage in enumerate(plan.stages):
        touched = [plan.owner(t.name) for t in stage.body.tensors if t.name in plan.by_name]
        for name in (*touched, plan.owner(stage.name)):
            lives[name] = (lives.get(name, (at, at))[0], at)
    return {name: life for name, life in lives.items() if name not in kept and _is_free(plan, plan.by_name[name])}


def _is_free(plan: Plan, stage: Stage) -> bool:
    """Whether a buffer is written whole in every block, and is no part of another array."""
    once = stage.template in (*MADE_ONCE, *SCATTERED, "alias", "view")
    elsewhere = stage.name in plan.placed or stage.name in plan.part_of
    return plan.phases[stage.name] == "block" and not (once or elsewhere or stage.has_margin) and None in stage.dims


def _cells(stage: Stage) -> int:
    """The cells of a buffer for each image."""
    return prod(1 if size is None else size for size in stage.dims)


def cells(plan: Plan) -> int:
    """The cells of all buffers of a block for each image."""
    shared = pieces(plan)
    within = {name for piece in shared for name in piece.buffers}
    alone = [
        s for s in plan.stages
        if plan.phases[s.name] == "block" and s.name not in (within | plan.placed) and not s.into and None in s.dims
        and s.template not in ("alias", "view")
    ]  # fmt: skip
    return sum(piece.cells for piece in shared) + sum(map(_cells, alone))


def check(plan: Plan, made: tuple[Piece, ...]) -> None:
    """Raises PlanError where a stage would read what another one has written over."""
    piece_of = {name: k for k, piece in enumerate(made) for name in piece.buffers}
    holds: dict[int, str] = {}
    for stage in plan.stages:
        target = plan.owner(stage.name)
        own = piece_of.get(target)
        for read in (plan.owner(t.name) for t in stage.body.tensors if t.name in plan.by_name):
            piece = piece_of.get(read)
            if piece is not None and holds.get(piece) != read:
                raise PlanError(f"{stage.name} reads {read}, whose memory holds {holds.get(piece)} by then")
            if piece is not None and piece == own and read != target:
                raise PlanError(f"{stage.name} is written over {read}, which it reads")
        if own is not None:
            if _cells(plan.by_name[target]) > made[own].cells:
                raise PlanError(f"{stage.name} is larger than the memory that it is given")
            holds[own] = target
