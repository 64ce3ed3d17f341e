"""``certiconv emit``'s choice of an algorithm: explained by predictions (--explain), or measured here (--tune)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from runtime.cli_messages import say

if TYPE_CHECKING:
    from derive.layers import Layer


def algorithms(
    layer: Layer,
    shape: tuple[int, ...],
    dtype: str,
    asked: str,
    tolerance: float | None,
    *,
    explain: bool,
    tune: bool,
) -> str | Mapping[str, str]:
    """The algorithm to emit with: the one asked for, or for each result the one that was fastest here.

    What --explain and --tune have to say goes to standard error, so that the text can be piped.
    """
    from derive.layers import Conv

    if not (explain or tune):
        return asked
    if not isinstance(layer, Conv):
        hint = "--explain" if explain else "--tune"
        raise typer.BadParameter(
            "the choice is between algorithms for one convolution, such as conv2d.", param_hint=hint
        )
    if tune and asked != "auto":
        raise typer.BadParameter(f"it chooses the algorithm, and --algorithm {asked} is given.", param_hint="--tune")
    if explain:
        from codegen.choose import choose, explained

        say(explained(choose(layer, shape, dtype, tolerance=tolerance)))
    if not tune:
        return asked
    from runtime import tune as measuring

    found = measuring.tune(layer, shape, dtype, tolerance=tolerance)
    say(found.text())
    return found.algorithms
