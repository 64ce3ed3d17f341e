"""Faults to plant in the NumPy templates: the stages stay, so exact execution has to find what the text does."""

import importlib
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from codegen.plan import Stage
from codegen.templates import numpy as templates
from codegen.templates.numpy import clipping

Patch = pytest.MonkeyPatch


def wrong_matrix_in_the_text(patch: Patch) -> None:
    """One entry of the first printed matrix of numbers has the other sign."""
    original = templates.numbers

    def numbers(stage: Stage) -> list[str]:
        head, *rows = original(stage)
        return [head, *(row.replace("-1", "1") for row in rows)] if rows else [head]

    patch.setattr(templates, "numbers", numbers)


def last_tile_dropped(patch: Patch) -> None:
    """What is left of the last tile is not put into the result: right where tiles are whole."""
    scatter = importlib.import_module("codegen.templates.numpy.scatter")
    original = scatter.clips_of

    def clips_of(*arguments: Any, **more: Any) -> clipping.Clips:
        found = original(*arguments, **more)
        return {level: replace(clip, cells=clip.cells // clip.step * clip.step) for level, clip in found.items()}

    patch.setattr(scatter, "clips_of", clips_of)


def clip_off_by_one(patch: Patch) -> None:
    """What is cut off at the front of a copy is one cell too little of the one and too much of the other."""
    original = clipping.Clip.of_variable

    def of_variable(self: clipping.Clip, scope: Any) -> str:
        low, high = original(self, scope).split(":")
        return f"{low} + 1:{high} + 1" if high != str(self.length) else f"{low}:{high}"

    patch.setattr(clipping.Clip, "of_variable", of_variable)


def last_block_only(patch: Patch) -> None:
    """A sum over the batch keeps the last block: right for every batch that fits into one."""
    for name in ("matmul", "reduce", "dot"):
        original = getattr(templates, name)
        patch.setattr(templates, name, _overwriting(original))


def _overwriting(original: Callable[..., list[str]]) -> Callable[..., list[str]]:
    return lambda ctx, stage, **_: original(ctx, stage, accumulate=False)


def factors_not_turned(patch: Patch) -> None:
    """In a batch of products, a factor that is stored the other way round is not transposed: the shapes may fit."""
    matmul = importlib.import_module("codegen.templates.numpy.matmul")
    original = matmul._operand
    patch.setattr(matmul, "_operand", lambda *a: original(*a).replace(".transpose(0, 2, 1)", ""))


def batch_turned(patch: Patch) -> None:
    """The products of a batch are taken in another order on the left than on the right."""
    original = templates.matmul

    def matmul(ctx: Any, stage: Stage, **more: Any) -> list[str]:
        return [
            re.sub(r"np\.matmul\(([^,]+), ", r"np.matmul(\1[::-1], ", line) if stage.name == "M" else line
            for line in original(ctx, stage, **more)
        ]

    patch.setattr(templates, "matmul", matmul)


def shifted_module() -> Any:
    """The template's module; its name in the package is the function."""
    return importlib.import_module("codegen.templates.numpy.shifted")


def shifted_by_one_more(patch: Patch) -> None:
    """Every shift passes one cell more than its rows have: an image wraps round."""
    original = shifted_module()._tail
    patch.setattr(shifted_module(), "_tail", lambda stored, axis: original(stored, axis) + (stored.name == "Go"))


def never_shifted(patch: Patch) -> None:
    """Every kernel row multiplies the rows of the first: right for kernels of one row."""
    original = shifted_module()._cells

    def cells(stored: Stage, turn: Any, here: Any, *rest: Any) -> str:
        return original(stored, turn, here.written_out({turn.level: 0}), *rest)

    patch.setattr(shifted_module(), "_cells", cells)


def products_not_added(patch: Patch) -> None:
    """The product of the last kernel row is kept, and not the sum of all."""
    original = templates.shifted

    def shifted(ctx: Any, stage: Stage) -> list[str]:
        return [re.sub(r"np\.add\(([^,]+), ([^,]+), out.*", r"np.copyto(\1, \2)", s) for s in original(ctx, stage)]

    patch.setattr(templates, "shifted", shifted)


def bias_left_out_of_the_text(patch: Patch) -> None:
    """What is added to every cell where tiles are put together is not added."""
    scatter = importlib.import_module("codegen.templates.numpy.scatter")
    patch.setattr(scatter, "_plus", lambda c, p, at, moved, target, s: f"np.copyto({target.text}, {moved.source})")


def the_last_slice_counts(patch: Patch) -> None:
    """Slices that meet are copied over one another: right where strides and dilations have no divisor in common."""
    scatter = importlib.import_module("codegen.templates.numpy.scatter")
    patch.setattr(scatter, "_met", lambda *_: "at most once")


def nothing_where_no_slice_goes(patch: Patch) -> None:
    """Cells of the result that no slice meets are left as they were."""
    scatter = importlib.import_module("codegen.templates.numpy.scatter")
    patch.setattr(scatter, "_met", lambda *_: "once")


def result_of_the_first_block(patch: Patch) -> None:
    """Every block is put where the first one lies: right where there is one block."""
    module = importlib.import_module("codegen.layer_module")
    original = module._placed
    patch.setattr(module, "_placed", lambda plan: [s.replace("low:high", "0:high - low") for s in original(plan)])


def layout_not_kept(patch: Patch) -> None:
    """An array that lies channels last is refused for a result that promises to keep that layout."""
    module = importlib.import_module("codegen.layer_module")
    original = module._function

    def function(*given: Any) -> Any:
        made = original(*given)
        return replace(made, before=tuple(re.sub(r", like=\w+", "", line) for line in made.before))

    patch.setattr(module, "_function", function)
