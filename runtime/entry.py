"""The entry of the command `certiconv`: are the packages that Python finds under our names ours?

`derive`, `codegen` and `runtime` are names that others may have too.  Where another folder comes first on Python's
path, or another distribution replaced files of ours, importing them gives a stranger's package, and a command inside
them could not say so.  So this file imports nothing of ours before it has looked, and a wheel holds it under a name
that nobody else has, `_certiconv`, which the console script calls.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from importlib.metadata import Distribution, PackagePath

DISTRIBUTION = "certiconv"
PACKAGES = ("derive", "codegen", "runtime")


class Stranger(NamedTuple):
    """One of our packages that is not ours, or not whole: what was found in its place, and how to mend it."""

    package: str
    found: str
    remedy: str


def main() -> None:
    """Run the command; where a stranger stands in its way, name it and end with status 1."""
    found = strangers()
    command = None if found else _command()
    if command is None:
        sys.stderr.write("\n".join(_lines(found or replaced())) + "\n")
        sys.exit(1)
    command()


def _command() -> Callable[[], None] | None:
    """The command; None where files of ours were replaced so that it is not there."""
    try:
        from runtime.cli import main as command
    except Exception:
        if not replaced():
            raise  # a fault of ours
        return None
    ours = getattr(getattr(command, "info", None), "name", None) == DISTRIBUTION
    return command if ours else None


def _lines(found: list[Stranger]) -> Iterator[str]:
    for stranger in found:
        yield f"certiconv: package {stranger.package} is not certiconv's: {stranger.found}"
    yield from (f"  mend: {remedy}" for remedy in dict.fromkeys(stranger.remedy for stranger in found))


# --- another folder comes first ---------------------------------------------------------------------------------


def strangers() -> list[Stranger]:
    """Those of our packages that Python does not find where certiconv lies."""
    root = home()
    return [found for name in PACKAGES if (found := _stranger(name, root)) is not None]


def home() -> Path | None:
    """The folder in which certiconv lies: the first on Python's path with the proof kernel and all three packages."""
    marks = [Path("derive", "kernel.py"), *(Path(name, "py.typed") for name in PACKAGES)]
    return next((path for path in map(Path, sys.path) if all((path / mark).is_file() for mark in marks)), None)


def _stranger(name: str, root: Path | None) -> Stranger | None:
    if root is None:
        return Stranger(name, "certiconv lies nowhere on Python's path", _reinstall())
    mine, spec = root / name / "__init__.py", importlib.util.find_spec(name)
    if not mine.is_file():
        return Stranger(name, f"{mine} is gone; did another distribution take it along when it went?", _reinstall())
    found = None if spec is None else spec.origin or next(iter(spec.submodule_search_locations or ()), None)
    if found is None:
        return Stranger(name, f"Python does not find {mine}", _reinstall())
    if Path(found).resolve() == mine.resolve():
        return None
    return Stranger(name, f"Python takes {found}, which comes before {mine}", _out_of_the_way(Path(found), name))


def _out_of_the_way(found: Path, name: str) -> str:
    """What to do about a file that comes before ours."""
    if owners := _owners(found):
        return (
            f"pip uninstall {' '.join(owners)}; or, to keep it, install certiconv into a virtual environment of its own"
        )
    package = next((path for path in (found, *found.parents) if path.stem == name), found)
    listed = [Path(entry).resolve() for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    if package.parent.resolve() in listed:
        return f"take {package.parent} out of PYTHONPATH, for one command with: env -u PYTHONPATH certiconv ..."
    return f"rename {package}, or start Python where {package.parent} is not on its path"


# --- another distribution wrote over it -------------------------------------------------------------------------


def replaced() -> list[Stranger]:
    """Those of our packages with Python files that are not as they were installed; of an editable install, none."""
    return [found for name in PACKAGES if (found := _replaced(name)) is not None]


def _replaced(name: str) -> Stranger | None:
    own = [file for file in _recorded() if file.parts[0] == name and file.suffix == ".py" and file.hash is not None]
    other = [Path(str(file.locate())) for file in own if file.hash and _hash(file) != file.hash.value]
    if not other:
        return None
    owners = sorted({owner for path in other for owner in _owners(path)})
    by = f" by {', '.join(owners)}" if owners else ""
    more = f" and {len(other) - 1} more were replaced" if len(other) > 1 else " was replaced"
    uninstall = f"pip uninstall -y {' '.join(owners)} && " if owners else ""
    return Stranger(name, f"{other[0]}{more}{by}", uninstall + _reinstall())


def _recorded() -> list[PackagePath]:
    """The files that pip noted when it installed certiconv."""
    found = _distribution()
    return [] if found is None else list(found.files or ())


def _hash(file: PackagePath) -> str:
    """The SHA-256 of a file as it is, written as in RECORD (PyPA, "Recording installed projects")."""
    from base64 import urlsafe_b64encode
    from hashlib import sha256

    path = Path(str(file.locate()))
    return urlsafe_b64encode(sha256(path.read_bytes() if path.is_file() else b"").digest()).decode().rstrip("=")


def _owners(path: Path) -> list[str]:
    """The distributions other than ours that a file belongs to."""
    from importlib.metadata import distributions

    found = {d.name for d in distributions() if any(Path(str(d.locate_file(f))) == path for f in d.files or ())}
    return sorted(found - {DISTRIBUTION})


def _reinstall() -> str:
    """The command that brings our files back, from where pip noted that they came from (PEP 610)."""
    import json

    found = _distribution()
    told = json.loads((found and found.read_text("direct_url.json")) or "{}")
    if told.get("dir_info", {}).get("editable"):
        source = f"-e {told['url'].removeprefix('file://')}"
    else:
        source = DISTRIBUTION if "vcs_info" in told else told.get("url", DISTRIBUTION)
    return f"pip install --force-reinstall --no-deps {source}"


def _distribution() -> Distribution | None:
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        return distribution(DISTRIBUTION)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
