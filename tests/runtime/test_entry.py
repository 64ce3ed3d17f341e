"""The command where another's package stands in its way: what a user is told, by the entry run in a process of its own.

Small folders play what is installed: three packages under our names, whose command says that it ran.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.entry import PACKAGES, main

ENTRY = Path(sys.modules[main.__module__].__file__ or "")
COMMAND = """
class Command:
    class info:
        name = "certiconv"
    def __call__(self):
        print("the command ran")
main = Command()
"""
RAISING = "raise RuntimeError('a fault')\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder in which certiconv is installed: its packages, and what pip notes of them."""
    site = tmp_path / "site"
    for name in PACKAGES:
        write(site / name / "__init__.py")
        write(site / name / "py.typed")
    write(site / "derive" / "kernel.py")
    write(site / "runtime" / "cli.py", COMMAND)
    note(site, "certiconv", sorted(p.relative_to(site) for p in site.rglob("*.py")))
    return site


def write(path: Path, text: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def note(site: Path, distribution: str, files: list[Path]) -> None:
    """What pip notes of a distribution, with the files as they are."""
    folder = site / f"{distribution}-1.0.dist-info"
    write(folder / "METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    write(folder / "RECORD", "".join(f"{file},sha256={hashed(site / file)},\n" for file in files))


def hashed(path: Path) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")


def run(tmp_path: Path, *path: Path, listed: str = "") -> subprocess.CompletedProcess[str]:
    """The entry, with these folders first on Python's path; `listed` is PYTHONPATH."""
    program = (
        f"import sys, runpy; sys.path[:0] = {list(map(str, path))}; runpy.run_path({str(ENTRY)!r}, run_name='__main__')"
    )
    environment = {**os.environ, "PYTHONPATH": listed, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-P", "-c", program]
    return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)


def told(tmp_path: Path, *path: Path, listed: str = "") -> list[str]:
    """What the entry says when it stops."""
    done = run(tmp_path, *path, listed=listed)
    assert (done.returncode, done.stdout) == (1, ""), done
    return done.stderr.splitlines()


def test_where_nobody_stands_in_the_way_the_command_runs(site: Path, tmp_path: Path) -> None:
    done = run(tmp_path, site)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the command ran\n", "")


@pytest.mark.parametrize("file", ["runtime/__init__.py", "runtime.py"])
def test_a_folder_in_pythonpath_that_comes_first(file: str, site: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    write(theirs / file)
    ours = site / "runtime" / "__init__.py"
    assert told(tmp_path, theirs, site, listed=str(theirs)) == [
        f"certiconv: package runtime is not certiconv's: Python takes {theirs / file}, which comes before {ours}",
        f"  mend: take {theirs} out of PYTHONPATH, for one command with: env -u PYTHONPATH certiconv ...",
    ]


def test_a_folder_that_comes_first_for_another_reason(site: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    write(theirs / "codegen" / "__init__.py")
    first, mend = told(tmp_path, theirs, site)
    assert first.startswith(f"certiconv: package codegen is not certiconv's: Python takes {theirs / 'codegen'}")
    assert mend == f"  mend: rename {theirs / 'codegen'}, or start Python where {theirs} is not on its path"


def test_a_folder_without_an_init_hides_nothing(site: Path, tmp_path: Path) -> None:
    write(tmp_path / "theirs" / "runtime" / "other.py")
    assert run(tmp_path, tmp_path / "theirs", site).stdout == "the command ran\n"


def test_a_distribution_that_comes_first(site: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    write(theirs / "runtime" / "__init__.py")
    note(theirs, "other", [Path("runtime/__init__.py")])
    assert told(tmp_path, theirs, site)[-1] == (
        "  mend: pip uninstall other; or, to keep it, install certiconv into a virtual environment of its own"
    )


@pytest.mark.parametrize(
    ("file", "text"), [("runtime/__init__.py", RAISING), ("runtime/cli.py", "def main(): print('I am another')\n")]
)
def test_a_distribution_that_wrote_over_ours(file: str, text: str, site: Path, tmp_path: Path) -> None:
    write(site / file, text)
    note(site, "other", [Path(file)])
    assert told(tmp_path, site) == [
        f"certiconv: package runtime is not certiconv's: {site / file} was replaced by other",
        "  mend: pip uninstall -y other && pip install --force-reinstall --no-deps certiconv",
    ]


def test_several_files_that_were_replaced_are_counted(site: Path, tmp_path: Path) -> None:
    write(site / "runtime" / "cli.py", "# another\n")
    write(site / "runtime" / "__init__.py", "# another\n")
    write(site / "codegen" / "__init__.py", "# another\n")
    codegen, runtime, mend = told(tmp_path, site)
    assert codegen.endswith(f"{site / 'codegen/__init__.py'} was replaced")
    assert runtime.endswith(f"{site / 'runtime/__init__.py'} and 1 more were replaced")
    assert mend == "  mend: pip install --force-reinstall --no-deps certiconv"


def test_a_distribution_that_took_our_file_along(site: Path, tmp_path: Path) -> None:
    origin = '{"url": "file:///somewhere/certiconv", "dir_info": {}}'
    write(site / "certiconv-1.0.dist-info" / "direct_url.json", origin)
    (site / "runtime" / "__init__.py").unlink()
    first, mend = told(tmp_path, site)
    assert first.endswith("runtime/__init__.py is gone; did another distribution take it along when it went?")
    assert mend == "  mend: pip install --force-reinstall --no-deps file:///somewhere/certiconv"


def test_an_editable_install_whose_folder_went_away(site: Path, tmp_path: Path) -> None:
    origin = '{"url": "file:///somewhere/certiconv", "dir_info": {"editable": true}}'
    write(site / "certiconv-1.0.dist-info" / "direct_url.json", origin)
    for name in PACKAGES:
        shutil.rmtree(site / name)
    program = (
        f"import sys, runpy; sys.path = [{str(site)!r}, *(p for p in sys.path if 'python3' in p and 'site-' not in p)]"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"{program}; runpy.run_path({str(ENTRY)!r}, run_name='__main__')"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1] == "  mend: pip install --force-reinstall --no-deps -e /somewhere/certiconv"
    assert done.stderr.count("certiconv lies nowhere on Python's path") == 3


def test_a_fault_of_ours_is_no_strangers(site: Path, tmp_path: Path) -> None:
    write(site / "runtime" / "cli.py", RAISING)
    note(site, "certiconv", [Path("runtime/cli.py")])
    done = run(tmp_path, site)
    assert done.returncode == 1
    assert done.stderr.endswith("RuntimeError: a fault\n")
