"""The `certiconv` command.

What a command makes goes to standard output, what it has to say goes to standard error.  The exit status is 0 if what
was asked for holds, 1 if it was refuted, failed or was interrupted, 2 for bad usage or input.  A mistake of the user
gets one message that says what would be legal; only a fault of the program itself shows a traceback.

Nothing slow is imported here: each command imports what it needs, so that help is quick.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from codegen.layout import FIRST
from runtime import cli_bench, cli_doctor, cli_simt
from runtime.cli_choose import Asked, choice
from runtime.cli_layers import (
    CLASSES,
    CONVOLUTIONS,
    EMITTED,
    POOLS,
    Dilation,
    Groups,
    InChannels,
    InFeatures,
    Input,
    KernelSize,
    NoBias,
    OutChannels,
    OutFeatures,
    Padding,
    Stride,
    make_layer,
    one_of,
    options,
    sizes,
    symbols,
)
from runtime.cli_messages import FAILED, reported, say, stop
from runtime.threads import ask_environment

if TYPE_CHECKING:
    from runtime.lenet import LenetRun

_NUMBER = re.compile(r"-?[0-9]{1,18}")

main = typer.Typer(
    name="certiconv",
    help="Derive a convolution from first principles, generate its kernels, and know that they are right.",
    epilog="Exit status: 0 holds, 1 refuted, failed or interrupted, 2 bad usage or input.",
    rich_markup_mode=None,  # plain help: quick, and free of colour codes
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    add_completion=False,
)


def show_version(wanted: bool) -> None:
    """Print the version and end."""
    if wanted:
        from importlib import metadata

        try:
            found = metadata.version("certiconv")
        except metadata.PackageNotFoundError:
            found = "(run from its source, not installed)"
        typer.echo(f"certiconv {found}")
        raise typer.Exit


@main.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Options of every command."""


# --- Commands -----------------------------------------------------------------------------------------------


@main.command(
    epilog="\b\nExamples:\n  certiconv shape conv2d --input 8,6,14,14 --kernel-size 5 --out-channels 16\n"
    "  certiconv shape conv2d --input N,6,h,w --kernel-size 3 --stride 2 --padding 1\n"
    "  certiconv shape lenet --input 32,1,28,28"
)
@reported
def shape(  # noqa: PLR0913 - an argument an option
    layer: Annotated[
        str, typer.Argument(metavar="LAYER", help=f"One of {', '.join((*CONVOLUTIONS, *POOLS, 'lenet'))}.")
    ],
    *,
    input: Input = None,
    in_channels: InChannels = None,
    out_channels: OutChannels = None,
    kernel_size: KernelSize = None,
    stride: Stride = None,
    padding: Padding = None,
    dilation: Dilation = None,
    groups: Groups = None,
) -> None:
    """Print the output shape of a layer.

    Names stand for sizes left open.  Channels that are not given are those of the input, and M of the
    output (in groups, M in each).
    """
    from derive.indices import index, symbol
    from derive.shapes import output_shape

    one_of("LAYER", layer, (*CONVOLUTIONS, *POOLS, "lenet"))
    if input is None:
        raise typer.BadParameter("the shape of the input is needed, such as 8,6,14,14.", param_hint="--input")
    given = options(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        no_bias=False,
    )
    parts = [part.strip() for part in input.split(",")]
    wrong = [p for p in parts if not (_NUMBER.fullmatch(p) or p.isidentifier())]
    if wrong:
        raise typer.BadParameter(f"{wrong[0]!r} is neither a number nor a name.", param_hint="--input")
    at = [int(p) if _NUMBER.fullmatch(p) else symbol(p) for p in parts]
    if layer == "lenet" and any(p.isidentifier() for p in parts[1:]):
        raise typer.BadParameter(
            "LeNet's dense layers fix the image: only the batch may be open.", param_hint="--input"
        )
    if layer in CONVOLUTIONS and len(at) > 1:
        fresh = next(name for name in ("M", "M1", "M2", "M3", "M4") if name not in parts)
        given = {"in_channels": at[1], "out_channels": symbol(fresh) * given.get("groups", 1), **given}
    made = make_layer(layer, given)
    output = output_shape(made, [index(size) for size in at])
    typer.echo(f"({', '.join(map(str, output))})")


@main.command(
    epilog="\b\nExamples:\n"
    "  certiconv emit conv2d --in-channels 6 --out-channels 16 --kernel-size 5 --input 8,6,14,14 --out conv.py\n"
    "  certiconv emit conv1d --in-channels 1 --out-channels 4 --kernel-size 3 --input 8,1,100 --no-bias --check\n"
    "  certiconv emit avgpool2d --kernel-size 2 --input 8,6,28,28 --check --out pool.py\n"
    "  certiconv emit lenet > lenet.py"
)
@reported
def emit(  # noqa: PLR0913 - an argument an option
    layer: Annotated[str, typer.Argument(metavar="LAYER", help=f"One of {', '.join(EMITTED)}.")],
    *,
    input: Input = None,
    in_channels: InChannels = None,
    out_channels: OutChannels = None,
    in_features: InFeatures = None,
    out_features: OutFeatures = None,
    kernel_size: KernelSize = None,
    stride: Stride = None,
    padding: Padding = None,
    dilation: Dilation = None,
    groups: Groups = None,
    no_bias: NoBias = False,
    dtype: Annotated[str, typer.Option(help="float32 or float64; for cupy also float16, bfloat16.")] = "float32",
    backend: Annotated[str, typer.Option(help="auto, numpy or cupy (printed without a GPU too).")] = "auto",
    out: Annotated[Path | None, typer.Option(help="The file to write; standard output unless given.")] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Execute the text exactly first; print its certificate.")
    ] = False,
    algorithm: Annotated[str, typer.Option(help="An algorithm for a convolution; auto takes the cheapest.")] = "auto",
    tolerance: Annotated[float | None, typer.Option(help="The largest relative error that auto accepts.")] = None,
    layout: Annotated[
        str, typer.Option(help="How images will lie in memory: channels_first or channels_last; auto chooses for it.")
    ] = FIRST,
    machine: Annotated[
        str, typer.Option(help="What auto predicts for: the reference, or here, whose rates are measured first.")
    ] = "reference",
    explain: Annotated[
        bool, typer.Option("--explain", help="Print the candidates and why one is taken, on standard error.")
    ] = False,
    tune: Annotated[
        bool, typer.Option("--tune", help="Measure the candidates here, once; the fastest is taken.")
    ] = False,
) -> None:
    """Print a standalone module for a layer.

    It is made for one input shape; the batch size stays free.
    """
    if tune or machine == "here":
        ask_environment(1)  # before NumPy is imported, below
    from runtime import lenet as job
    from runtime.compile import certificate_of
    from runtime.compile import emit as emit_text
    from runtime.sizes import numeric_output_shape

    one_of("LAYER", layer, EMITTED)
    given = options(
        in_channels=in_channels,
        out_channels=out_channels,
        in_features=in_features,
        out_features=out_features,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        no_bias=no_bias,
    )
    if input is None and layer != "lenet":
        raise typer.BadParameter("the shape of the input is needed, such as 8,6,14,14.", param_hint="--input")
    at = job.INPUT_SHAPE if input is None else sizes("--input", input)
    made = make_layer(layer, given)
    numeric_output_shape(made, at)
    wanted, tiles = choice(
        Asked(made, at, dtype, backend, algorithm, tolerance, layout, machine), explain=explain, tune=tune
    )
    emitted = emit_text(
        made,
        backend=backend,
        input_shape=at,
        dtype=dtype,
        algorithm=wanted,
        tolerance=tolerance,
        layout=layout,
        tiles=tiles,
    )
    if check:
        _told_effort(made, at)
        typer.echo(certificate_of(emitted).to_text(), nl=False, err=True)
    if out is None:
        if sys.stdout is None:
            stop("standard output is closed; name a file with --out")
        typer.echo(emitted.source, nl=False)
    else:
        emitted.write(out)
        say(f"{out}: sha256 {emitted.digest}")


@main.command(
    epilog="\b\nExamples:\n  certiconv derive conv2d\n  certiconv derive conv2d --stride 2 --wrt weight\n"
    "  certiconv derive avgpool2d --wrt input --format html > pool.html"
)
@reported
def derive(  # noqa: PLR0913 - an argument an option
    layer: Annotated[str, typer.Argument(metavar="LAYER", help=f"One of {', '.join(CLASSES)}.")],
    *,
    wrt: Annotated[str | None, typer.Option(help="The gradient in the input, the weight or the bias.")] = None,
    format: Annotated[str, typer.Option(help="text, latex, html or json.")] = "text",
    in_channels: InChannels = None,
    out_channels: OutChannels = None,
    kernel_size: KernelSize = None,
    stride: Stride = None,
    padding: Padding = None,
    dilation: Dilation = None,
    groups: Groups = None,
    no_bias: NoBias = False,
) -> None:
    """Derive a layer or a gradient of it.

    Without --wrt, a convolution from a dense layer; with it, the gradient in that argument.  Every step is printed
    with its rule, its side conditions and who discharged them.  Sizes that are not given stay open.
    """
    from runtime.lenet import derivation

    one_of("LAYER", layer, tuple(CLASSES))
    one_of("--format", format, ("text", "latex", "html", "json"))
    if wrt is not None:
        one_of("--wrt", wrt, ("input", "weight", "bias"))
    given = options(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        no_bias=no_bias,
    )
    told = derivation(make_layer(layer, symbols(layer, given), open_sizes=True), wrt)
    typer.echo(_formatted(told, format), nl=False)


def _formatted(derivation: Any, format: str) -> str:
    if format == "latex":
        text: str = derivation.to_latex(document=True)
    elif format == "html":
        text = derivation.to_html(page=True)
    elif format == "json":
        text = derivation.to_json()
    else:
        width = min(max(shutil.get_terminal_size((100, 24)).columns, 60), 120)
        text = derivation.to_text(width=width, ascii_only=not _can_print("Σ≤∞"))
    return text if text.endswith("\n") else f"{text}\n"


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


@main.command(
    epilog="\b\nExamples:\n  certiconv lenet\n  certiconv lenet --epochs 5 --seed 3 --out results\n"
    "  certiconv lenet --data folder-with-idx-files"
)
@reported
def lenet(
    epochs: Annotated[int, typer.Option(help="How often every training image is seen.")] = 60,
    data: Annotated[
        Path | None, typer.Option(help="A folder with MNIST-style IDX files; the shipped digits unless given.")
    ] = None,
    backend: Annotated[str, typer.Option(help="auto, numpy or cupy.")] = "auto",
    out: Annotated[Path, typer.Option(help="The folder for report.html and lenet.npz.")] = Path(),
    seed: Annotated[int, typer.Option(help="Of the initial parameters and of the order of the images.")] = 0,
) -> None:
    """Derive, emit, check and train LeNet.

    Writes report.html and the trained parameters, lenet.npz.  Ctrl-C during training
    keeps the parameters of the last finished epoch, and the report is written with them.
    """
    ask_environment(1)  # before NumPy is imported, below: small products gain nothing from more
    from rich.console import Console

    from runtime import lenet as job
    from runtime.device import choose
    from runtime.train import Settings

    settings = Settings(epochs=epochs, seed=seed)
    chosen = choose(backend)
    given = "" if data is None else " --data FOLDER"
    command = f"certiconv lenet --epochs {epochs} --backend {chosen} --seed {seed}{given}"
    run = job.prepare(settings, data=data, backend=chosen, command=command)
    out.mkdir(parents=True, exist_ok=True)
    if not os.access(out, os.W_OK):
        stop(f"--out {out}: the folder cannot be written to")
    with _told_interrupt(run):
        job.perform(run, out, Console(stderr=True, highlight=False))
    _result(run, out)


def _told_effort(layer: Any, input_shape: tuple[int, ...]) -> None:
    """Say so where the exact check of a layer will take long.

    In all that is some 20 microseconds a product of a convolution, 100 of a dense layer, 200 an element elsewhere.
    """
    from derive.layers import Conv, Sequential

    if isinstance(layer, Sequential):
        return
    weight = layer.parameter_shapes().get("weight")
    counted = math.prod(input_shape[1:] if weight is None else index_values(weight))
    if isinstance(layer, Conv):
        counted *= math.prod(index_values(layer.output_shape(input_shape)[2:]))
    each = 2e-5 if isinstance(layer, Conv) else 2e-4 if weight is None else 1e-4
    if (minutes := counted * each / 60) > 5 / 3:
        what = "elements" if weight is None else "products"
        say(f"the exact check of {counted:,} {what} an image may take {minutes:.0f} minutes or more")


def index_values(dims: Any) -> list[int]:
    """Dimensions that are numbers, as integers."""
    from derive.indices import index

    return [index(d).constant or 0 for d in dims]


@contextlib.contextmanager
def _told_interrupt(run: LenetRun) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        done = ", ".join(phase.name for phase in run.phases) or "nothing"
        kept = "" if run.saved is None else f"; the parameters are in {run.saved}, and no report was written"
        stop(f"interrupted; finished: {done}{kept}", FAILED)


def _result(run: LenetRun, out: Path) -> None:
    right = sum(row[k] for k, row in enumerate(run.confusion))
    typer.echo(f"held-out accuracy {run.accuracy:.4f} ({right} of {sum(map(sum, run.confusion))})")
    typer.echo(f"report {out / 'report.html'}")
    typer.echo(f"parameters {out / 'lenet.npz'}")
    if run.history is not None and run.history.interrupted:
        stop(run.history.message, FAILED)


main.command(name="bench", epilog=cli_bench.EPILOG)(cli_bench.bench)
main.command(name="doctor", epilog=cli_doctor.EPILOG)(cli_doctor.doctor)
main.command(name="simt", epilog=cli_simt.EPILOG)(cli_simt.simt)
