"""Sums of products as one GEMM: ``C[m; n] = Sum_k A[m; k] B[k; n]``, each letter a group of adjacent axes.

The groups are read off the expression: m are the axes of the result that the first factor has, n those of the second,
k the bound variables, which both have.  Every operand has to store its groups next to each other, so that it is a
matrix (or the transpose of one) without a copy.  Several products in one sum, or several results of one left factor,
are one GEMM when their operands lie side by side in a ``Matrix`` of the plan.

Outer axes of the result that both factors have, or that stand in the way of the two groups, are a *batch* of GEMMs, one
for each image or for each point of a transform: ``C[b; m; n] = Sum_k A[b; m; k] B[b; k; n]``, where one factor may do
without b.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from codegen.plan import Matrix, PlanError, Stage, extent, is_batch
from codegen.templates.numpy.text import Context
from derive.indices import Atom, Var, index, var
from derive.terms import Read


@dataclass(frozen=True)
class Product:
    """One product of two reads in a stage: its operands and the groups of variables."""

    left: Read
    right: Read
    batch: tuple[int, ...]
    m: tuple[int, ...]
    n: tuple[int, ...]
    k: tuple[int, ...]


def products_of(stage: Stage) -> list[Product]:
    """The products a stage sums up, left factor first: the one that has the outer axes of the result."""
    found = []
    for monomial in stage.body.monomials:
        reads = [f for f in monomial.factors if isinstance(f, Read)]
        if len(reads) != 2 or len(monomial.factors) != 2 or monomial.guards or monomial.coefficient != 1:
            raise PlanError(f"{stage.name}: the template matmul prints sums of products of two reads")
        found.append(_product(stage, reads[0], reads[1], len(monomial.binders)))
    return found


def _product(stage: Stage, a: Read, b: Read, bound: int) -> Product:
    """The groups for the shortest batch that leaves a matrix product."""
    rank = stage.tensor.rank
    in_a, in_b = (_levels(stage, read) for read in (a, b))
    for batch in range(rank + 1):
        for left, right, ours, theirs in ((a, b, in_a, in_b), (b, a, in_b, in_a)):
            m = tuple(level for level in range(batch, rank) if level in ours)
            n = tuple(level for level in range(batch, rank) if level not in ours)
            k = tuple(level for level in ours if level >= rank)
            fits = set(n) == {x for x in theirs if batch <= x < rank} and set(k) == {x for x in theirs if x >= rank}
            if fits and len(k) == bound and m and m + n == tuple(range(batch, rank)):
                return Product(left, right, tuple(range(batch)), m, n, k)
    raise PlanError(f"{stage.name}: {a.text} and {b.text} do not make a matrix product")


def _levels(stage: Stage, read: Read) -> tuple[int, ...]:
    """The variables a factor is read at; axes of one cell have none."""
    long = [e for e, bounds in zip(read.at, read.tensor.box, strict=True) if extent(bounds) != 1 or e.variables]
    levels = tuple(next(iter(e.variables), -1) for e in long)
    if any(e != var(level) for e, level in zip(long, levels, strict=True)):
        raise PlanError(f"{stage.name}: {read.text} is not read at plain variables")
    return levels


def matmul(ctx: Context, stage: Stage, *, accumulate: bool) -> list[str]:
    """The text of a stage, or of all the stages of its matrix that are the same product: printed with the first."""
    group = _group(ctx, stage)
    if group[0] != stage.name:
        return []
    stages = [ctx.plan.by_name[name] for name in group]
    products = [_in_order(ctx, products_of(s)) for s in stages]
    first = products[0][0]
    together = products[0]
    if len(group) > 1:
        if any(len(p) != 1 or (p[0].left.tensor, p[0].m) != (first.left.tensor, first.m) for p in products):
            raise PlanError(f"{stage.name}: the stages {group} are not one product")
        together = [p[0] for p in products]
    left = _operand(ctx, first.batch, [(p.left, p.m, p.k) for p in (together[:1] if len(group) > 1 else together)])
    right = _operand(ctx, first.batch, [(p.right, p.k, p.n) for p in together])
    target = _matrix_text(ctx, group, len(first.batch), len(first.batch) + len(first.m))
    if not accumulate:
        return [f"np.matmul({left}, {right}, out={target})"]
    ctx.products[group[0]] = target
    part = f"w.{group[0]}_part"
    return [f"np.matmul({left}, {right}, out={part})", f"np.add({target}, {part}, out={target})"]


def _in_order(ctx: Context, products: list[Product]) -> list[Product]:
    """The products of one sum in the order in which their left factors lie in a matrix."""
    matrix = ctx.plan.part_of.get(products[0].left.tensor.name)
    if len(products) == 1 or matrix is None:
        return products
    return sorted(products, key=lambda p: matrix.parts.index(p.left.tensor.name))


def _group(ctx: Context, stage: Stage) -> tuple[str, ...]:
    matrix = ctx.plan.part_of.get(stage.name)
    if matrix and all(ctx.plan.by_name[part].template == "matmul" for part in matrix.parts):
        return matrix.parts
    return (stage.name,)


Side = tuple[Read, tuple[int, ...], tuple[int, ...]]


def _operand(ctx: Context, batch: tuple[int, ...], sides: Sequence[Side]) -> str:
    """The matrix with the rows and columns of these reads, transposed where it is stored the other way round."""
    straight = turned = True
    own = batch if set(batch) & {v for e in sides[0][0].at for v in e.variables} else ()
    for read, rows, columns in sides:
        levels = tuple(level for e in read.at for level in e.variables)
        straight, turned = straight and levels == own + rows + columns, turned and levels == own + columns + rows
    names = tuple(read.tensor.name for read, _, _ in sides)
    _, rows, columns = sides[0]
    if not (straight or turned):
        raise PlanError(f"{names} do not store the groups {rows} and {columns} side by side")
    axes = _axes(sides[0][0], len(own)), _axes(sides[0][0], len(own) + len(rows if straight else columns))
    text = _matrix_text(ctx, names, *axes)
    if straight:
        return text
    return f"{text}.transpose(0, 2, 1)" if own else f"{text}.T"


def _axes(read: Read, count: int) -> int:
    """How many axes of a tensor hold its first variables; axes of one cell go with what comes before them."""
    seen = 0
    for axis, e in enumerate(read.at):
        if e.variables:
            if seen == count:
                return axis
            seen += 1
    return len(read.at)


def _matrix_text(ctx: Context, names: tuple[str, ...], batch: int, split: int) -> str:
    """The array that holds these tensors as one matrix, or as one for each cell of ``batch`` outer axes.

    Several may lie in buffers that they took over.
    """
    if len(names) > 1:
        owners = tuple(ctx.plan.owner(name) for name in names)
        lies_in = ctx.plan.part_of.get(owners[0])
        if lies_in is None or lies_in.parts != owners:
            raise PlanError(f"{names} are not the parts of one matrix of the plan, in that order")
        return matrix_array(ctx, lies_in)
    matrix = ctx.plan.part_of.get(names[0])
    stage = ctx.plan.by_name.get(names[0])
    if stage is None or stage.template == "alias" or names[0] in ctx.plan.placed:
        return _reshaped(ctx, names[0], batch, split)
    if stage.has_margin:
        raise PlanError(f"{names[0]}: a margin lies between its elements, it is no matrix")
    if (stage.tensor.rank, batch, split) in ((2, 0, 1), (3, 1, 2)) and matrix is None:
        return ctx.arrays[names[0]]
    attribute = f"{names[0]}_m{split}" if not batch else f"{names[0]}_b{batch}m{split}"
    ctx.flat[(names[0], batch, split)] = attribute
    owner = ctx.arrays[names[0]].split(".")[0]
    return f"{owner}.{attribute}"


def _reshaped(ctx: Context, name: str, batch: int, split: int) -> str:
    """What comes from outside, or goes there, as a matrix; its shape is known when it is used."""
    stage = ctx.plan.by_name.get(name)
    box = stage.tensor.box if stage else next(t for t in ctx.plan.inputs if t.name == name).box
    groups = [box[:batch], box[batch:split], box[split:]]
    sizes = ["-1" if any(map(is_batch, g)) else str(prod(extent(b) or 0 for b in g)) for g in groups]
    text = alias_of(ctx, stage) if stage and stage.template == "alias" else ctx.arrays[name]
    if len(box) == 2 and (batch, split) == (0, 1):
        return text
    return f"{text}.reshape({', '.join(sizes if batch else sizes[1:])})"


def alias_of(ctx: Context, stage: Stage) -> str:
    """The array whose cells, in the same order, are those of an alias."""
    (m,) = stage.body.monomials
    (read,) = m.factors
    rank = stage.tensor.rank
    single = [axis for axis in range(rank) if extent(stage.tensor.box[axis]) == 1]
    kept = [axis for axis in range(rank) if axis not in single]
    first: set[Atom] = {Var(axis) for axis in single}
    plain = m.coefficient == 1 and not m.binders and not m.guards and isinstance(read, Read)
    if plain and isinstance(read, Read) and read.tensor.name in {t.name for t in ctx.plan.inputs}:
        places = [e.substitute(lambda atom: index(0) if atom in first else None) for e in read.at]
        sizes = [extent(b) for b in read.tensor.box]
        wanted = [(var(axis), extent(stage.tensor.box[axis])) for axis in kept]
        cells = list(zip(places, sizes, strict=True))
        if [c for c in cells if c[1] != 1] == wanted and all(c[0] == index(0) for c in cells if c[1] == 1):
            return ctx.arrays[read.tensor.name]
    raise PlanError(f"{stage.name}: {stage.body.text} is not an input with axes of one cell put in between")


def matrix_array(ctx: Context, matrix: Matrix) -> str:
    """The array of a whole matrix."""
    return f"{ctx.arrays[matrix.parts[0]].split('.')[0]}.{matrix.name}"
