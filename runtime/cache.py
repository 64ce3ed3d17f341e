"""Emitted text kept on disk under the hash of everything it depends on.

A request names the layer, the shape, the dtype, the backend, the algorithms and the tolerance, and the files of
`derive` and `codegen` themselves (``generator``), so text of another version is never found.  An entry begins with the
hash of its text; one that was cut off or changed does not match, and counts as none.  The cache saves time and decides
nothing: where its folder cannot be used, every call emits.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import sys
from pathlib import Path

from codegen.files import write_atomically

PathLike = str | os.PathLike[str]


def entry_of(request: object, cache_dir: PathLike | None) -> Path:
    """The file for what was asked of this version, in a folder or in the user's cache folder."""
    folder = user_cache_dir() if cache_dir is None else Path(cache_dir)
    return folder / f"{sha256(repr((generator(), request)))}.txt"


def user_cache_dir() -> Path:
    """Where this system keeps a user's caches: XDG's rule, or that of macOS or Windows."""
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "certiconv"


def kept(entry: Path) -> str | None:
    """The text of an entry, or None where there is none or its hash tells that it is not what was written."""
    try:
        digest, _, source = entry.read_bytes().decode("utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return source if digest == sha256(source) else None


def keep(entry: Path, source: str) -> None:
    """Write an entry, if its folder can be written to."""
    try:
        entry.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # what lies here is run, so it is the user's alone
        write_atomically(entry, f"{sha256(source)}\n{source}".encode())
    except OSError:
        return  # a read-only or full disk costs time, never a result


@functools.cache
def generator() -> str:
    """A hash of every file that decides what is printed: those of `derive` and `codegen`."""
    digest = hashlib.sha256()
    for package in ("derive", "codegen"):
        root = Path(str(importlib.import_module(package).__file__)).parent
        files = (f for f in root.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
        for file in sorted(files, key=lambda f: f.relative_to(root).as_posix()):
            content = file.read_bytes()
            digest.update(f"{package}/{file.relative_to(root).as_posix()}:{len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()


def sha256(text: str) -> str:
    """The hash of a text, in hexadecimal."""
    return hashlib.sha256(text.encode()).hexdigest()
