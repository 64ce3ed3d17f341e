"""The `certiconv` command.

What a command makes goes to standard output, what it has to say goes to standard error.  The exit status is 0 if what
was asked for holds, 1 if it was refuted or failed, 2 for bad usage or input.  A mistake of the user gets one message
that says what would be legal; only a fault of the program itself shows a traceback.

Nothing slow is imported here: each command imports what it needs, so that help is quick.
"""

from __future__ import annotations

import functools
import shutil
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from derive.layers import Conv, Layer
    from runtime.lenet import LenetRun
    from runtime.train import Epoch

HOLDS, FAILED, BAD_INPUT = 0, 1, 2

main = typer.Typer(
    name="certiconv",
    help="Derive a convolution from first principles, generate its kernels, and know that they are right.",
    epilog="Exit status: 0 holds, 1 refuted or failed, 2 bad usage or input.",
    rich_markup_mode=None,  # plain help: quick, and free of colour codes in a pipe
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
)

Command = TypeVar("Command", bound=Callable[..., Any])


class Backend(str, Enum):
    """Values of --backend."""

    auto = "auto"
    numpy = "numpy"
    cupy = "cupy"


class Dtype(str, Enum):
    """Values of --dtype."""

    float32 = "float32"
    float64 = "float64"


class Wrt(str, Enum):
    """Values of --wrt."""

    input = "input"
    weight = "weight"
    bias = "bias"


class Format(str, Enum):
    """Values of --format."""

    text = "text"
    latex = "latex"
    html = "html"
    json = "json"


Kind = Enum(  # type: ignore[misc]
    "Kind", {k: k for k in ("conv1d", "conv2d", "conv3d", "avgpool1d", "avgpool2d", "avgpool3d", "lenet")}, type=str
)
Emittable = Enum("Emittable", {k: k for k in ("conv1d", "conv2d", "conv3d", "lenet")}, type=str)  # type: ignore[misc]
