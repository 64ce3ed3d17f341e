"""`certiconv bench`: the command round `runtime.bench`.

The table or JSON goes to standard output; what is being timed, the notes and warnings go to standard error.
"""

from __future__ import annotations

import json as encoding
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runtime.cli_messages import FAILED, reported, say
from runtime.threads import ask_environment, remedy

if TYPE_CHECKING:
    from runtime.bench import Bench, Growth, Result
    from runtime.bench_cases import Case, Sweep
    from runtime.bench_text import Row

EPILOG = (
    "\b\nExamples:\n  certiconv bench --quick\n  certiconv bench --case lenet-step --case conv3\n"
    "  certiconv bench --json > bench.json\n  certiconv bench --growth --case lenet1-forward --plot roofline.png"
)
_DOUBLINGS, _QUICK_DOUBLINGS = 4, 2


@reported
def bench(  # noqa: PLR0913 - each an option that a user has
    *,
    case: Annotated[
        list[str] | None, typer.Option("--case", metavar="NAME", help="A case, or the start of several; repeatable.")
    ] = None,
    list_cases: Annotated[bool, typer.Option("--list", help="Print the cases and end.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds and, unless --case is given, few cases.")] = False,
    rounds: Annotated[int | None, typer.Option(help="How often each is timed; 21, with --quick 5.")] = None,
    threads: Annotated[int, typer.Option(help="Threads of certiconv, BLAS and PyTorch: 1 or 2.")] = 1,
    processes: Annotated[
        bool, typer.Option("--processes", help="Processes of certiconv in place of its threads.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the roofline.")] = None,
    growth: Annotated[
        bool, typer.Option("--growth", help="Also: time as batch, channels and image size grow.")
    ] = False,
) -> None:
    """Time the emitted modules beside PyTorch, SciPy and textbook NumPy.

    Those that are installed take part. Every result is checked before it is timed, and all are timed in turn in this
    process. Ratios are to PyTorch's better layout; the roofline is measured.
    """
    ask_environment(threads)  # before NumPy is imported, below
    from runtime import bench as job
    from runtime.bench_cases import QUICK, find, sweeps

    chosen = find(case or (QUICK if quick else ()))
    if list_cases:
        typer.echo(_listed(chosen))
        return
    _check_plot(plot)
    wanted = sweeps(doublings=_QUICK_DOUBLINGS if quick else _DOUBLINGS) if growth else ()
    if rounds is None:
        rounds = job.QUICK_ROUNDS if quick else job.ROUNDS
    with job.prepared(rounds=rounds, threads=threads, processes=processes) as ready:
        if (warning := remedy(1)) is not None:
            say(f"certiconv: warning: {warning}")
        results: list[Result] = []
        growths: list[Growth] = []
        interrupted = _timed(ready, chosen, wanted, results, growths)
        ready = ready.measured_again()
        _print(ready, results, growths, json)
        if plot is not None:
            _draw(ready, results, plot)
    if interrupted:
        say(f"certiconv: interrupted; {len(results)} of {len(chosen)} cases were timed")
        raise typer.Exit(FAILED)


def _listed(cases: Sequence[Case]) -> str:
    from runtime.bench_text import plain

    body = [
        (
            case.name,
            "x".join(map(str, case.work.input_shape)),
            case.part,
            "-" if case.goal is None else f"{case.goal:g}",
        )
        for case in cases
    ]
    return plain(("case", "input", "part", "goal"), body)


def _check_plot(plot: Path | None) -> None:
    """Refuse a file that could not be written, before minutes are spent."""
    if plot is None:
        return
    if plot.suffix.lower() != ".png":
        raise typer.BadParameter(
            f"{plot} does not end in .png; nearest: {plot.with_suffix('.png')}", param_hint="--plot"
        )
    if not plot.resolve().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {plot.resolve().parent}; make it first.", param_hint="--plot")


def _timed(
    ready: Bench, cases: Sequence[Case], sweeps: Sequence[Sweep], results: list[Result], growths: list[Growth]
) -> bool:
    """Time all of it, adding to the lists; whether Ctrl-C ended it."""
    try:
        for case in cases:
            results.append(ready.run(case))
            say(_told(results[-1]))
        for sweep in sweeps:
            say(f"growth: {sweep.axis} {', '.join(map(str, sweep.sizes))}")
            growths.append(ready.grow(sweep))
    except KeyboardInterrupt:
        return True
    return False


def _told(result: Result) -> str:
    if result.reason:
        return f"{result.case.name}: not emitted"
    if result.ratio is None:
        return f"{result.case.name}: timed"
    return f"{result.case.name}: {result.ratio.median:.2f} of {result.reference}"


def _print(ready: Bench, results: Sequence[Result], growths: Sequence[Growth], json: bool) -> None:
    from runtime import bench_text as text

    if json:
        typer.echo(encoding.dumps(text.as_json(results, growths, ready), indent=1))
        return
    if results:
        _table("", text.HEADER, text.rows(results, ready))
    for growth in growths:
        typer.echo()
        _table(text.growth_title(growth), text.GROWTH_HEADER, text.growth_rows(growth))
    say("")
    for note in text.notes(results, ready):
        say(note)


def _table(title: str, header: Row, body: Sequence[Row]) -> None:
    """Through rich on a terminal that is wide enough, else as plain text."""
    from rich.console import Console

    from runtime.bench_text import plain

    console = Console(highlight=False)
    wide = sum(max(map(len, column)) + 2 for column in zip(header, *body, strict=True))
    if not sys.stdout.isatty() or console.width < wide:
        typer.echo(f"{title}\n{plain(header, body)}" if title else plain(header, body))
        return
    from rich import box
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for k, name in enumerate(header):
        table.add_column(name, justify="left" if k == 0 else "right", no_wrap=True, style="bold" if k == 0 else "")
    for row in body:
        table.add_row(*row)
    console.print(table)


def _draw(ready: Bench, results: Sequence[Result], plot: Path) -> None:
    from codegen.files import write_atomically
    from runtime.roofline_picture import Point, draw

    points = []
    for result in results:
        ours, case = result.seconds(result.ours) if result.ours else None, result.case
        theirs = result.seconds(result.pytorch) if result.pytorch else None
        if ours is not None:
            peer = None if theirs is None else theirs.median
            points.append(Point(case.family, case.part, case.name, case.work.cost(), ours.median, peer))
    if not points:
        say(f"{plot}: not written, since nothing was timed")
        return
    threads = "one thread" if ready.threads == 1 else f"{ready.threads} threads"
    write_atomically(plot, draw(ready.roof, points, title=f"How near the roof: certiconv in float32, {threads}"))
    say(f"{plot}: the roofline")
