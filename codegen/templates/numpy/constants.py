"""Stages of numbers, which no input takes part in: set once, when the buffers are made.

A row of ones, or the matrices of Toom-Cook.  The entries are evaluated exactly from the definition; integers are
printed as they are, other rational numbers are made by ``ratio`` in the dtype of the workspace.
"""

from __future__ import annotations

from fractions import Fraction

from codegen.plan import PlanError, Stage
from derive.evaluate import RATIONALS, Evaluator


def numbers(stage: Stage) -> list[str]:
    """The lines that set the buffer of a stage of numbers."""
    if stage.body.tensors:
        raise PlanError(f"{stage.name}: {stage.body.text} reads tensors; a constant is made of numbers alone")
    if not any(m.guards or m.binders for m in stage.body.monomials):
        return [f"self.{stage.name}[...] = {sum((m.coefficient for m in stage.body.monomials), Fraction(0))}"]
    if stage.tensor.rank != 2 or None in stage.dims:
        raise PlanError(f"{stage.name}: a matrix of numbers has two axes of known size, not {stage.dims}")
    values = [_text(Fraction(v)) for v in Evaluator({}, {}, RATIONALS).table(stage.tensor).values]
    width = stage.dims[1] or 0
    rows = [f"    [{', '.join(values[k : k + width])}]," for k in range(0, len(values), width)]
    return [f"self.{stage.name}[...] = [", *rows, "]"]


def _text(value: Fraction) -> str:
    return str(value) if value.denominator == 1 else f"ratio({value.numerator}, {value.denominator}, dtype)"
