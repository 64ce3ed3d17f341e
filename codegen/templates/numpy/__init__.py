"""NumPy templates: one stage of a plan in, a few lines of Python out.

``print_stage`` finds the template of a stage.  Nothing here is proved; what is printed is executed exactly against the
stages by ``codegen.check``.
"""

from __future__ import annotations

from codegen.lifetimes import pieces
from codegen.plan import Plan, PlanError, Stage
from codegen.templates.numpy.constants import numbers
from codegen.templates.numpy.contract import contract
from codegen.templates.numpy.dot import dot
from codegen.templates.numpy.grouped import grouped
from codegen.templates.numpy.matmul import matmul
from codegen.templates.numpy.pointwise import pointwise, reduce
from codegen.templates.numpy.scatter import scatter
from codegen.templates.numpy.shifted import shifted
from codegen.templates.numpy.strided import strided
from codegen.templates.numpy.text import Context
from codegen.templates.numpy.windows import overlaps, windows

WITHOUT_TEXT = ("constant", "share", "view", "alias")


def print_stage(ctx: Context, stage: Stage) -> list[str]:
    """The lines that compute a stage; none for what is set when the buffers are made."""
    if stage.template in WITHOUT_TEXT:
        return []
    accumulate = ctx.plan.phases[stage.name] == "accumulate"
    summing = {"matmul": matmul, "dot": dot, "reduce": reduce, "contract": contract}
    if stage.template in summing:
        return summing[stage.template](ctx, stage, accumulate=accumulate)
    if accumulate:
        raise PlanError(f"{stage.name}: a {stage.template} stage cannot be summed over blocks of the batch")
    others = {
        "grouped": grouped, "shifted": shifted, "strided": strided, "scatter": scatter, "windows": windows,
        "overlaps": overlaps, "pointwise": pointwise,
    }  # fmt: skip
    if stage.template not in others:
        raise PlanError(f"{stage.name}: there is no NumPy template {stage.template}")
    return others[stage.template](ctx, stage)


def buffers(ctx: Context, plan: Plan) -> dict[str, list[str]]:
    """The lines that make the buffers, of the workspace ('w') and of a block of images ('v')."""
    lines: dict[str, list[str]] = {"w": [], "v": []}
    made: set[str] = set()
    shared = pieces(plan, sparse=frozenset(ctx.sparse))
    lines["v"] += [f"self.shared{k} = np.empty({piece.cells} * b, dtype)" for k, piece in enumerate(shared)]
    lies_in = {name: k for k, piece in enumerate(shared) for name in piece.buffers}
    for stage in plan.stages:
        if stage.name in plan.placed or stage.template == "alias":
            continue
        matrix = plan.part_of.get(stage.name)
        owner = ctx.arrays[stage.name].split(".")[0]
        if owner not in lines:
            continue  # it is written where the result is
        if stage.name in lies_in:
            text = f"self.shared{lies_in[stage.name]}[:{_count(stage.dims)}].reshape{_shape(stage.dims)}"
            lines[owner].append(f"self.{stage.name} = {text}")
        elif matrix is None:
            lines[owner].append(_own_buffer(stage, plan, sparse=stage.name in ctx.sparse))
        else:
            if matrix.name not in made:
                lines[owner].append(_matrix_buffer(plan, matrix.name))
                made.add(matrix.name)
            lines[owner].append(_part(plan, stage))
        lines[owner].extend(_filled(stage))
    for (name, batch, split), attribute in sorted(ctx.flat.items()):
        owner = ctx.arrays[name].split(".")[0]
        lines[owner].append(f"self.{attribute} = {_flattened(plan, name, batch, split)}")
    for attribute, (owner, text) in sorted(ctx.views.items()):
        lines[owner].append(f"self.{attribute} = {text}")
    for name, target in ctx.products.items():
        lines["w"].append(f"self.{name}_part = np.empty_like({target.replace('w.', 'self.', 1)})")
    for (name, what), views in ctx.kept.items():
        lines[ctx.arrays[name].split(".")[0]].extend(f"self.{name}_{what} = {views}".splitlines())
    for name, dims in ctx.scratch.items():
        lines[ctx.holder(name)].append(f"self.{name}_part = np.empty({_shape(dims)}, dtype)")
    return lines


def _shape(dims: tuple[int | None, ...]) -> str:
    texts = ["b" if d is None else str(d) for d in dims]
    return f"({', '.join(texts)}{',' if len(texts) == 1 else ''})"


def _own_buffer(stage: Stage, plan: Plan, *, sparse: bool) -> str:
    if stage.template == "view":
        return f"self.{stage.name} = self.{stage.into}.reshape{_shape(stage.dims)}"
    if stage.into:
        return f"self.{stage.name} = self.{stage.into}"
    zeroed = sparse or stage.has_margin or plan.phases[stage.name] == "accumulate"
    return f"self.{stage.name} = np.{'zeros' if zeroed else 'empty'}({_shape(stage.dims)}, dtype)"


def _filled(stage: Stage) -> list[str]:
    if stage.template == "constant":
        return numbers(stage)
    if stage.template == "share":
        return [f"self.{stage.name}[...] = ratio(1, max(batch, 1), dtype)"]
    return []


def _count(dims: tuple[int | None, ...]) -> str:
    factors = 1
    for d in dims:
        factors *= 1 if d is None else d
    if None in dims:
        return "b" if factors == 1 else f"{factors} * b"
    return str(factors)


def _sides(plan: Plan, name: str, split: int) -> tuple[str, str]:
    dims = plan.by_name[name].dims
    return _count(dims[:split]), _count(dims[split:])


def _matrix_buffer(plan: Plan, name: str) -> str:
    matrix = next(m for m in plan.matrices if m.name == name)
    sides = [_sides(plan, part, split) for part, split in zip(matrix.parts, matrix.rows, strict=True)]
    along = 0 if matrix.stacked == "rows" else 1
    if len({side[1 - along] for side in sides}) != 1:
        raise PlanError(
            f"{name}: the parts {matrix.parts} have sides {sides} and cannot be stacked as {matrix.stacked}"
        )
    total = str(sum(int(side[along]) for side in sides))
    shape = (total, sides[0][1]) if along == 0 else (sides[0][0], total)
    return f"self.{name} = np.zeros(({shape[0]}, {shape[1]}), dtype)"


def _part(plan: Plan, stage: Stage) -> str:
    return f"self.{stage.name} = {_part_slice(plan, stage.name)}.reshape{_shape(stage.dims)}"


def _part_slice(plan: Plan, name: str) -> str:
    matrix = plan.part_of[name]
    along = 0 if matrix.stacked == "rows" else 1
    start = 0
    for part, split in zip(matrix.parts, matrix.rows, strict=True):
        width = int(_sides(plan, part, split)[along])
        if part == name:
            break
        start += width
    cells = f"{start}:{start + width}"
    return f"self.{matrix.name}[{cells}]" if along == 0 else f"self.{matrix.name}[:, {cells}]"


def _flattened(plan: Plan, name: str, batch: int, split: int) -> str:
    if batch:
        dims = plan.by_name[name].dims
        return f"self.{name}.reshape({_count(dims[:batch])}, {_count(dims[batch:split])}, {_count(dims[split:])})"
    if name in plan.part_of:
        matrix = plan.part_of[name]
        if matrix.rows[matrix.parts.index(name)] != split:
            raise PlanError(f"{name} is stored with {matrix.rows} axes as rows, and used with {split}")
        return _part_slice(plan, name)
    rows, columns = _sides(plan, name, split)
    return f"self.{name}.reshape({rows}, {columns})"
