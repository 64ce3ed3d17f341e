"""What every command of `certiconv` shares: messages, and errors that end in one of them and an exit status.

Messages go to standard error.  The exit status is 0 if what was asked for holds, 1 if it was refuted, failed or was
interrupted, 2 for bad usage or input; a fault of the program itself shows a traceback.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import typer

FAILED, BAD_INPUT = 1, 2

Command = TypeVar("Command", bound=Callable[..., Any])


def say(text: str) -> None:
    """A message for the user, on standard error."""
    typer.echo(text, err=True)


def stop(text: str, status: int = BAD_INPUT) -> NoReturn:
    """End the command with one message."""
    say(f"certiconv: {text}")
    raise typer.Exit(status)


def reported(command: Command) -> Command:
    """A command whose expected errors end in one message and a status, not in a traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:
            raise  # the reader went away: the command ends quietly
        except Exception as error:
            status = _status(error)
            if status is None:
                raise
            stop(str(error), status)

    return wrapped  # type: ignore[return-value]


def _status(error: Exception) -> int | None:
    """The exit status of an expected error; None for a fault of the program."""
    if isinstance(error, OSError):
        return BAD_INPUT
    if type(error).__module__.partition(".")[0] not in ("derive", "codegen", "runtime"):
        return None
    from codegen.execution import Refuted
    from derive.obligations import Refused

    refuted = isinstance(error, Refused | Refuted) or not isinstance(error, ValueError)
    return FAILED if refuted else BAD_INPUT
