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

MACHINES = ("reference", "here")
WORDS = {
    "--explain": "it explains a choice",
    "--tune": "it chooses the algorithm",
    "--machine": "it is what a choice is predicted for",
}

if TYPE_CHECKING:
    from derive.layers import Conv, Layer


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
    machine: str = "reference"


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

    if asked.machine not in MACHINES:
        raise typer.BadParameter(f"{asked.machine!r} is not one of: {', '.join(MACHINES)}.", param_hint="--machine")
    wanted = {"--explain": explain, "--tune": tune, "--machine": asked.machine == "here"}
    hints = [hint for hint, given in wanted.items() if given]
    if not hints and asked.tolerance is None:
        return asked.algorithm
    layer, named = asked.layer, asked.algorithm
    on = printed_for(asked.backend)
    if hints and not isinstance(layer, Conv):
        raise typer.BadParameter(
            "the choice is between algorithms for one convolution, such as conv2d.", param_hint=hints[0]
        )
    if hints and named != "auto":
        raise typer.BadParameter(f"{WORDS[hints[-1]]}, and --algorithm {named} is given.", param_hint=hints[-1])
    request(layer, on, asked.shape, asked.dtype, named, asked.tolerance, asked.layout)
    if hints and on != "numpy":
        raise typer.BadParameter(
            "the choice is between algorithms for NumPy; add --backend numpy.", param_hint=hints[0]
        )
    assert isinstance(layer, Conv)  # a tolerance is for nothing else
    predicted = _predicted(asked, layer, explain=explain)
    if not tune:
        return predicted if asked.machine == "here" else named
    from runtime import tune as measuring

    if (warning := remedy(1)) is not None:
        say(f"certiconv: warning: what is measured may mislead: {warning}")
    found = measuring.tune(layer, asked.shape, asked.dtype, tolerance=asked.tolerance, layout=asked.layout)
    say(found.text())
    return found.algorithms


def _predicted(asked: Asked, layer: Conv, *, explain: bool) -> Mapping[str, str]:
    """What the model takes for each result, for the reference machine or this one, explained if that is wanted."""
    from codegen.choose import choose, explained
    from codegen.machine import REFERENCE
    from runtime.machine import measured, told

    machine = measured() if asked.machine == "here" else REFERENCE
    if asked.machine == "here":
        say(f"This machine: {told(machine)}.")
    choices = choose(
        layer, asked.shape, asked.dtype, tolerance=asked.tolerance, machine=machine, thorough=explain,
        layout=asked.layout,
    )  # fmt: skip
    if explain:
        say(explained(choices, images=asked.shape[0]))
    for choice in choices:
        taken = next(c for c in choice.candidates if c.algorithm == choice.algorithm)
        if not taken.within:
            say(
                f"certiconv: warning: {choice.result}: no algorithm is sure to be within --tolerance "
                f"{asked.tolerance}; {choice.algorithm} is taken, whose error is at most {taken.error:.1e}"
            )
    return {choice.result: choice.algorithm for choice in choices}
