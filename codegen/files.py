"""Files are written whole or not at all: an interrupted write leaves what was there before."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file by way of a new one beside it, which then takes its place.

    Where the path is a device or a pipe, such as /dev/stdout, the bytes are written to it.

    Raises:
        OSError: the folder does not exist, or the file cannot be written.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file() and not target.is_dir():
        with Path(path).open("wb") as stream:
            stream.write(content)
        return
    if target.is_dir():
        raise IsADirectoryError(f"{path}: it is a folder; name a file in it")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"{path}: there is no folder {target.parent} to write to; make it first")
    draft = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")  # beside it: a rename stays on its disk
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
