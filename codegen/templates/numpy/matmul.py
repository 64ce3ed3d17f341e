"""Sums of products as one GEMM: ``C[m; n] = Sum_k A[m; k] B[k; n]``, each letter a group of adjacent axes.

The groups are read off the expression: m are the axes of the result that the first factor has, n those of the second,
k the bound variables, which both have.  Every operand has to store its groups next to each other, so that it is a
matrix (or the transpose of one) without a copy.  Several products in one sum, or several results of one left factor,
are one GEMM when their operands lie side by side in a ``Matrix`` of the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from codegen.plan import Matrix, PlanError, Stage
from codegen.templates.numpy.text import Context
from derive.indices import var
from derive.terms import Read


@dataclass(frozen=True)
class Product:
    """One product of two reads in a stage: its operands and the groups of variables."""

    left: Read
    right: Read
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
    rank = stage.tensor.rank
    in_a, in_b = (_levels(stage, read) for read in (a, b))
    if 0 in in_b and 0 not in in_a:
        a, b, in_a, in_b = b, a, in_b, in_a
    m = tuple(level for level in range(rank) if level in in_a)
    n = tuple(level for level in range(rank) if level not in in_a)
    k = tuple(level for level in in_a if level >= rank)
    if set(n) != {x for x in in_b if x < rank} or set(k) != {x for x in in_b if x >= rank} or len(k) != bound:
        raise PlanError(f"{stage.name}: {a.text} and {b.text} do not make a matrix product")
    if m + n != tuple(range(rank)):
        raise PlanError(f"{stage.name}: the axes of {a.text} are not the outer ones of the result")
    return Product(a, b, m, n, k)


def _levels(stage: Stage, read: Read) -> tuple[int, ...]:
    levels = tuple(next(iter(e.variables), -1) for e in read.at)
    if any(e != var(level) for e, level in zip(read.at, levels, strict=True)):
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
    if len(group) > 1:
        if any(len(p) != 1 or (p[0].left.tensor, p[0].m) != (first.left.tensor, first.m) for p in products):
            raise PlanError(f"{stage.name}: the stages {group} are not one product")
        left = _operand(ctx, [first.left], [first.m], [first.k])
        right = _operand(ctx, [p[0].right for p in products], [p[0].k for p in products], [p[0].n for p in products])
    else:
        left = _operand(ctx, [p.left for p in products[0]], [p.m for p in products[0]], [p.k for p in products[0]])
        right = _operand(ctx, [p.right for p in products[0]], [p.k for p in products[0]], [p.n for p in products[0]])
    target = _matrix_text(ctx, group, len(first.m))
    if not accumulate:
        return [f"np.matmul({left}, {right}, out={target})"]
    ctx.products.append(group[0])
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


def _operand(
    ctx: Context, reads: Sequence[Read], outer: Sequence[tuple[int, ...]], inner: Sequence[tuple[int, ...]]
) -> str:
    """The matrix with rows ``outer`` and columns ``inner``, transposed where it is stored the other way round."""
    straight = turned = True
    for read, rows, columns in zip(reads, outer, inner, strict=True):
        levels = tuple(next(iter(e.variables)) for e in read.at)
        straight, turned = straight and levels == rows + columns, turned and levels == columns + rows
    names = tuple(read.tensor.name for read in reads)
    if not (straight or turned):
        raise PlanError(f"{names} do not store the groups {outer} and {inner} side by side")
    text = _matrix_text(ctx, names, len(outer[0] if straight else inner[0]))
    return text if straight else f"{text}.T"


def _matrix_text(ctx: Context, names: tuple[str, ...], split: int) -> str:
    """The array that holds these tensors as one matrix; they may lie in buffers that they took over."""
    if len(names) > 1:
        owners = tuple(ctx.plan.owner(name) for name in names)
        lies_in = ctx.plan.part_of.get(owners[0])
        if lies_in is None or lies_in.parts != owners:
            raise PlanError(f"{names} are not the parts of one matrix of the plan, in that order")
        return matrix_array(ctx, lies_in)
    matrix = ctx.plan.part_of.get(names[0])
    stage = ctx.plan.by_name.get(names[0])
    if stage is None:
        tensor = next(t for t in ctx.plan.inputs if t.name == names[0])
        if tensor.rank != 2:
            raise PlanError(f"{names[0]}: an input is used as a matrix only when it has two axes")
        return ctx.arrays[names[0]]
    if stage.has_margin:
        raise PlanError(f"{names[0]}: a margin lies between its elements, it is no matrix")
    if stage.tensor.rank == 2 and split == 1 and matrix is None:
        return ctx.arrays[names[0]]
    ctx.flat[(names[0], split)] = f"{names[0]}_m{split}"
    owner = ctx.arrays[names[0]].split(".")[0]
    return f"{owner}.{names[0]}_m{split}"


def matrix_array(ctx: Context, matrix: Matrix) -> str:
    """The array of a whole matrix."""
    return f"{ctx.arrays[matrix.parts[0]].split('.')[0]}.{matrix.name}"
