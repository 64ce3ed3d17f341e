"""``certiconv emit``'s choice of an algorithm: explained by predictions (--explain), or measured here (--tune)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import typer

from runtime.cli_messages import say
from runtime.threads import remedy

if TYPE_CHECKING:
    from derive.layers import Layer


def algorithms(
    layer: Layer,
    shape: tuple[int, ...],
    dtype: str,
    backend: str,
    asked: str,
    tolerance: float | None,
    *,
    explain: bool,
    tune: bool,
) -> str | Mapping[str, str]:
    """The algorithm to emit with: the one asked for, or for each result the one that was fastest here.

    What --explain and --tune have to say goes to standard error, so that the text can be piped.
    """
    from codegen.emit import request
    from derive.layers import Conv
    from runtime.device import choose as choose_backend

    if not (explain or tune):
        return asked
    if not isinstance(layer, Conv):
        hint = "--explain" if explain else "--tune"
        raise typer.BadParameter(
            "the choice is between algorithms for one convolution, such as conv2d.", param_hint=hint
        )
    if tune and asked != "auto":
        raise typer.BadParameter(f"it chooses the algorithm, and --algorithm {asked} is given.", param_hint="--tune")
    if asked != "auto":
        raise typer.BadParameter(f"it explains a choice, and --algorithm {asked} is given.", param_hint="--explain")
    request(layer, choose_backend(backend), shape, dtype, asked, tolerance)
    if explain:
        from codegen.choose import choose, explained

        say(explained(choose(layer, shape, dtype, tolerance=tolerance, thorough=True)))
    if not tune:
        return asked
    from runtime import tune as measuring

    if (warning := remedy(1)) is not None:
        say(f"certiconv: warning: what is measured may mislead: {warning}")
    found = measuring.tune(layer, shape, dtype, tolerance=tolerance)
    say(found.text())
    return found.algorithms
