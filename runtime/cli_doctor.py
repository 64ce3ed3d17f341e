"""`certiconv doctor`: the command round `runtime.doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from runtime.cli_messages import FAILED, reported

EPILOG = (
    "\b\nExamples:\n  certiconv doctor\n  certiconv doctor --backend cupy\n\n"
    "The exit status is 1 where something is missing that the backend needs."
)


@reported
def doctor(
    *,
    backend: Annotated[str, typer.Option(help="numpy or cupy: which one has to work.")] = "numpy",
) -> None:
    """Say what is here, what is missing, for a GPU above all, and the command that mends it."""
    from runtime import doctor as job

    if backend not in ("numpy", "cupy"):
        raise typer.BadParameter(f"{backend!r} is not one of numpy, cupy.", param_hint="--backend")
    findings = job.examined()
    typer.echo(job.to_text(findings), nl=False)
    cupy = next(f for f in findings if f.name == "backend cupy")
    if not job.holds(findings) or (backend == "cupy" and not cupy.right):
        raise typer.Exit(FAILED)
