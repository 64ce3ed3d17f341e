"""``certiconv emit``'s choice of an algorithm: explained by predictions (--explain), or measured here (--tune).

For NumPy that is a choice between algorithms, for a GPU one between tiles of the same matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from runtime.cli_messages import say
from runtime.threads import remedy

if TYPE_CHECKING:
    from derive.layers import Layer


@dataclass(frozen=True)
class Asked:
    """What ``certiconv emit`` was asked for, as `codegen.emit` takes it."""

    layer: Layer
    shape: tuple[int, ...]
    dtype: str
    backend: str
    algorithm: str
    tolerance: float | None
    layout: str


def choice(asked: Asked, *, explain: bool, tune: bool) -> tuple[str | Mapping[str, str], Mapping[str, str] | None]:
    """The algorithm to emit with, and the tiles, or None for those that a model takes."""
    from runtime.device import choose as choose_backend

    if not tune or choose_backend(asked.backend) != "cupy":
        return algorithms(asked, explain=explain, tune=tune), None
    algorithms(asked, explain=explain, tune=False)
    return asked.algorithm, _fastest_tiles(asked.layer, asked.shape, asked.dtype, asked.algorithm)


def _fastest_tiles(layer: Layer, shape: tuple[int, ...], dtype: str, asked: str) -> Mapping[str, str]:
    """Measured on this GPU, or known from before; what was found goes to standard error."""
    from derive.layers import Conv
    from runtime import tune_tiles

    if not isinstance(layer, Conv):
        raise typer.BadParameter(
            "the choice is between tiles for one convolution, such as conv2d.", param_hint="--tune"
        )
    found = tune_tiles.tune(layer, shape, dtype, algorithm=asked)
    say(found.text())
    return found.tiles


def algorithms(asked: Asked, *, explain: bool, tune: bool) -> str | Mapping[str, str]:
    """The algorithm to emit with: the one asked for, or for each result the one that was fastest here.

    What --explain and --tune have to say goes to standard error, so that the text can be piped.
    """
    from codegen.emit import request
    from derive.layers import Conv
    from runtime.device import printed_for

    if not (explain or tune):
        return asked.algorithm
    layer, named = asked.layer, asked.algorithm
    if not isinstance(layer, Conv):
        hint = "--explain" if explain else "--tune"
        raise typer.BadParameter(
            "the choice is between algorithms for one convolution, such as conv2d.", param_hint=hint
        )
    if tune and named != "auto":
        raise typer.BadParameter(f"it chooses the algorithm, and --algorithm {named} is given.", param_hint="--tune")
    if named != "auto":
        raise typer.BadParameter(f"it explains a choice, and --algorithm {named} is given.", param_hint="--explain")
    on = printed_for(asked.backend)
    request(layer, on, asked.shape, asked.dtype, named, asked.tolerance, asked.layout)
    if on != "numpy":
        hint = "--explain" if explain else "--tune"
        raise typer.BadParameter("the choice is between algorithms for NumPy; add --backend numpy.", param_hint=hint)
    if explain:
        from codegen.choose import choose, explained

        every = choose(layer, asked.shape, asked.dtype, tolerance=asked.tolerance, thorough=True, layout=asked.layout)
        say(explained(every, images=asked.shape[0]))
    if not tune:
        return named
    from runtime import tune as measuring

    if (warning := remedy(1)) is not None:
        say(f"certiconv: warning: what is measured may mislead: {warning}")
    found = measuring.tune(layer, asked.shape, asked.dtype, tolerance=asked.tolerance, layout=asked.layout)
    say(found.text())
    return found.algorithms
