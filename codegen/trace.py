"""Which stage is wrong: the same text run once more, with every stage looked at as soon as it is computed.

An emitted text carries each stage's definition as a comment above its statements.  ``traced`` adds a line after them
that hands the stage's buffer to a recorder, before a later stage takes the buffer over; nothing else changes.  What was
recorded is then compared with the stage's expression, and the first stage in plan order that differs is the culprit:
the stages before it are right, so what it read was right.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import prod
from types import ModuleType

import numpy as np

from codegen.field import Element, Objects
from codegen.plan import Plan, Stage, number
from derive.evaluate import Evaluator, Table

_DEFINITION = re.compile(r"^( +)# (\w+)\[[^\]]*\] = ")
HOOK = "_seen"


@dataclass
class Recorder:
    """Copies of buffers, by stage, in the order in which they were seen."""

    seen: dict[str, list[Objects]] = field(default_factory=dict)

    def __call__(self, name: str, array: Objects) -> None:
        """Keep a copy of what the buffer of a stage holds now."""
        self.seen.setdefault(name, []).append(np.array(array, dtype=object))


def traced(source: str, arrays: dict[str, str]) -> str:
    """The text with a call of the hook after each stage; ``arrays`` says how each stage is reached in it.

    What is formed with the buffers is reached through the workspace that is being made.
    """
    lines: list[str] = []
    open_stage: tuple[str, str] | None = None
    reached = ""
    making = False
    for line in source.splitlines():
        making = "__init__" in line if line.lstrip().startswith("def ") else making
        found = _DEFINITION.match(line)
        begins = found if found is not None and found.group(2) in arrays else None
        if open_stage and (begins or (line.strip() and not line.startswith(open_stage[0]))):
            indent, name = open_stage
            lines.insert(_end(lines, indent, begins), f"{indent}{HOOK}({name!r}, {reached})")
            open_stage = None
        if begins:
            open_stage = begins.group(1), begins.group(2)
            reached = re.sub(r"^w\.", "self." if making else "w.", arrays[begins.group(2)])
        lines.append(line)
    return "\n".join(lines) + "\n"


def _end(lines: list[str], indent: str, begins: re.Match[str] | None) -> int:
    """Where a stage ends: before a loop over blocks, where the next stage stands inside of one."""
    if begins is None or len(begins.group(1)) <= len(indent):
        return len(lines)
    return max(k for k, line in enumerate(lines) if len(line) - len(line.lstrip()) == len(indent))


def stage_at(source: str, line: int, names: Iterable[str]) -> str | None:
    """The stage whose statements hold this line of the text."""
    known = set(names)
    for text in reversed(source.splitlines()[:line]):
        found = _DEFINITION.match(text)
        if found is not None and found.group(2) in known:
            return found.group(2)
        if text.startswith("def "):
            return None
    return None


def failing_line(error: BaseException, module: ModuleType) -> int | None:
    """The line of the module's text at which an exception left it."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == module.__file__]
    return frames[-1].lineno if frames else None


@dataclass(frozen=True)
class Difference:
    """A stage that is not its expression, and the first element at which it differs."""

    stage: Stage
    index: tuple[int, ...]
    found: object
    expected: object

    def text(self) -> str:
        """For a message."""
        at = ", ".join(map(str, self.index))
        name = f"stage {self.stage.name} ({self.stage.template})"
        return f"{name}: [{at}] is {self.found}, by its definition {self.expected}"


def first_difference(plan: Plan, seen: dict[str, list[Objects]], values: Evaluator) -> Difference | None:
    """The first stage in plan order whose buffer differs from its expression; None if none does."""
    for stage in plan.stages:
        if stage.name not in seen:
            continue
        table = values.table(stage.tensor)
        place = differs(_together(stage, seen[stage.name]).ravel().tolist(), table.values)
        if place is not None:
            found = _together(stage, seen[stage.name]).ravel()
            value = found[place] if place < len(found) else "missing"
            expected = table.values[place] if place < len(table.values) else "nothing"
            return Difference(stage, position(table, place), value, expected)
    return None


def _together(stage: Stage, blocks: Sequence[Objects]) -> Objects:
    """The stage for the whole batch: its blocks side by side, or what the last one left."""
    inner = [np.asarray(block[_inside(stage, block)], dtype=object) for block in blocks]
    axis = next((k for k, size in enumerate(stage.dims) if size is None), None)
    return inner[-1] if axis is None else np.concatenate(inner, axis=axis)


def _inside(stage: Stage, block: Objects) -> tuple[slice, ...]:
    """The box within the margins."""
    sides = [(number(low), number(high)) for low, high in stage.margin]
    return tuple(slice(low, size - high) for (low, high), size in zip(sides, block.shape, strict=True))


def differs(found: Sequence[object], expected: Sequence[object]) -> int | None:
    """The first place at which what was found is no number or another number; None if they agree.

    Integers among elements of a field, such as the zeros of a margin, are taken as elements.
    """
    for place, (a, b) in enumerate(zip(found, expected, strict=False)):
        if a is b or (isinstance(a, float) and a == b):
            continue
        if not (isinstance(a, (Element, int)) and Element(0) + a == b):
            return place
    return None if len(found) == len(expected) else min(len(found), len(expected))


def position(table: Table, place: int) -> tuple[int, ...]:
    """The index of a place in a row-major table."""
    sizes = [high - low for low, high in table.box]
    index = []
    for k, (low, _) in enumerate(table.box):
        rest = prod(sizes[k + 1 :])
        index.append(low + place // rest)
        place %= rest
    return tuple(index)
