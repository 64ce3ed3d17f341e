"""One GEMM for each image and group: ``C[b, q; m; n] = Sum_k A[q; m; k] B[b, q; k; n]``.

A stage reads one axis by its group and its place in it: with L = d q + r the group of L is ``L // d``, and an axis
that is read at ``e q + v`` holds e cells of each group.  Arrays store their groups one after the other, so every such
axis is two axes of the same array, and nothing is copied: each array is reshaped to its batch (images, groups, or
both), rows and columns, and NumPy lets a factor without images stand for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from codegen.plan import PlanError, Stage, extent, is_batch, number
from codegen.templates.numpy.matmul import Product, alias_of, products_of
from codegen.templates.numpy.text import Context, only_monomial
from derive.indices import Index, IndexLike, Interval, Quotient, Var, index, interval, var
from derive.terms import Read, define, tensor, term


def grouped(ctx: Context, stage: Stage) -> list[str]:
    """The text of a stage that is a matrix product for each image and group."""
    split, p = product_of(stage)
    m = only_monomial(split)
    boxes = [*split.tensor.box, *m.binders]
    left = _operand(ctx, stage, p.left, (p.batch, p.m, p.k), boxes)
    right = _operand(ctx, stage, p.right, (p.batch, p.k, p.n), boxes)
    if stage.has_margin:
        raise PlanError(f"{stage.name}: a margin lies between its elements, it is no matrix")
    target = reshaped(ctx.arrays[stage.name], [*([v] for v in p.batch), p.m, p.n], boxes)
    return [f"np.matmul({left}, {right}, out={target})"]


def product_of(stage: Stage) -> tuple[Stage, Product]:
    """The stage with its grouped axes cut in two, and the one matrix product that it is then.

    Raises PlanError where no axis is read by groups, or what is left is no product.
    """
    m = only_monomial(stage)
    reads = [f for f in m.factors if isinstance(f, Read)]
    level, size = _grouped_axis(stage, reads)
    cut = _Cut(level, size)
    rank, boxes = stage.tensor.rank, [*stage.tensor.box, *m.binders]
    groups = number(boxes[level][1]) // size
    halves = [interval(0, groups), interval(0, size)]
    new = [*boxes[:level], *halves, *boxes[level + 1 :]]
    factors = [cut.read(read, new) for read in reads]
    body = term(rank + 1, *factors, over=new[rank + 1 :], coefficient=m.coefficient, guards=m.guards)
    split = Stage(define(stage.name, new[: rank + 1], body), "matmul")
    (product,) = products_of(split)
    return split, product


def _grouped_axis(stage: Stage, reads: Sequence[Read]) -> tuple[int, int]:
    """The axis of the result that is read by groups, and how many of its cells make a group."""
    for read in reads:
        for atom in (atom for e in read.at for atom in e.atoms()):
            if isinstance(atom, Quotient) and len(atom.numerator.variables) == 1:
                (level,) = atom.numerator.variables
                if atom.numerator == var(level) and level < stage.tensor.rank:
                    return level, number(atom.denominator)
    joint = [min(e.variables) for read in reads for e in read.at if len(e.variables) == 2]  # groups of one cell
    if not joint or joint[0] >= stage.tensor.rank:
        raise PlanError(f"{stage.name}: no axis of it is read by groups, {stage.body.text}")
    return joint[0], 1


class _Cut:
    """A variable L replaced by two, ``L = size q + r`` and ``L // size = q``: q takes its place, r comes after it."""

    def __init__(self, level: int, size: int) -> None:
        self.level, self.size = level, size
        self.group, self.place = var(level), var(level + 1)

    def index(self, e: Index) -> Index:
        """An index in the new variables."""
        total = index(0)
        for product, coefficient in e.terms:
            value = index(coefficient)
            for atom in product:
                value = value * self._atom(atom)
            total = total + value
        return total

    def _atom(self, atom: object) -> Index:
        if isinstance(atom, Quotient) and (atom.numerator, number(atom.denominator)) == (var(self.level), self.size):
            return self.group
        if isinstance(atom, Var):
            if atom.level == self.level:
                return self.group if self.size == 1 else self.size * self.group + self.place
            return var(atom.level + (atom.level > self.level))
        raise PlanError(f"{atom} is no group of variable {self.level} in groups of {self.size}")

    def read(self, read: Read, boxes: Sequence[Interval]) -> Read:
        """A read of the same array with each axis that holds cells of every group cut in two."""
        box: list[IndexLike | Interval] = []
        at: list[Index] = []
        for e, bounds in zip(map(self.index, read.at), read.tensor.box, strict=True):
            inner = self._inner(e)
            if inner is None:
                box.append(bounds)
                at.append(e if e.variables or self.size > 1 else self.place)  # the one place in groups of one cell
                continue
            cells = number(boxes[inner][1])
            plain = e == self.group and inner == self.level + 1
            if not (plain or e == cells * self.group + var(inner)):
                raise PlanError(f"{read.text}: an axis of groups is read at e q + v with v < e")
            if extent(bounds) != cells * number(boxes[self.level][1]):
                raise PlanError(f"{read.text}: an axis of groups is read from end to end")
            box += [boxes[self.level], boxes[inner]]
            at += [self.group, var(inner)]
        return Read(tensor(read.tensor.name, *box), tuple(at))

    def _inner(self, e: Index) -> int | None:
        """The variable that counts the cells of a group, where an axis is read by groups."""
        if self.level not in e.variables:
            return None
        others = e.variables - {self.level}
        return min(others) if others else self.level + 1


Levels = tuple[int, ...]


def _operand(
    ctx: Context, stage: Stage, read: Read, groups: tuple[Levels, Levels, Levels], boxes: Sequence[Interval]
) -> str:
    """An array as matrices, one for each cell of the part of the batch that it has, transposed where stored so."""
    batch, rows, columns = groups
    levels = tuple(level for e in read.at for level in e.variables)
    own = tuple(level for level in batch if level in levels)
    if own != batch[len(batch) - len(own) :] or levels not in (own + rows + columns, own + columns + rows):
        raise PlanError(f"{stage.name}: {read.text} does not store {batch}, {rows} and {columns} side by side")
    turned = levels != own + rows + columns
    kept = [*([v] for v in own), *((columns, rows) if turned else (rows, columns))]
    other = ctx.plan.by_name.get(read.tensor.name)
    if other is not None and other.has_margin:
        raise PlanError(f"{other.name}: a margin lies between its elements, it is no matrix")
    array = alias_of(ctx, other) if other is not None and other.template == "alias" else ctx.arrays[read.tensor.name]
    return reshaped(array, kept, boxes) + (".swapaxes(-1, -2)" if turned else "")


def reshaped(array: str, groups: Sequence[Sequence[int]], boxes: Sequence[Interval], *more: int) -> str:
    """An array with one axis for each group of variables, and further axes of these sizes."""
    sizes = [-1 if any(is_batch(boxes[v]) for v in g) else prod(extent(boxes[v]) or 0 for v in g) for g in groups]
    return f"{array}.reshape({', '.join(map(str, (*sizes, *more)))})"
