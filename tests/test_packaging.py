"""What a user gets: dependencies, the wheel's contents, what an import costs, the README's commands."""

import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("derive", "codegen", "runtime")


def requirements() -> list[Requirement]:
    return [Requirement(text) for text in importlib.metadata.requires("certiconv") or []]


def test_base_dependencies_are_exactly_the_promised_ones() -> None:
    base = {requirement.name for requirement in requirements() if requirement.marker is None}
    assert base == {
        "array-api-compat",
        "hypothesis",
        "jinja2",
        "latex2mathml",
        "matplotlib",
        "numpy",
        "rich",
        "sympy",
        "typer",
        "z3-solver",
    }


def test_the_z3_that_segfaults_is_excluded() -> None:
    (z3,) = (requirement for requirement in requirements() if requirement.name == "z3-solver")
    assert not z3.specifier.contains("4.15.4.0")
    assert z3.specifier.contains("4.15.3.0")
    assert z3.specifier.contains("4.15.8.0")


@pytest.mark.parametrize(
    ("extra", "names"),
    [
        ("oracle", {"torch"}),
        ("threads", {"threadpoolctl"}),
        ("nvrtc", {"nvidia-cuda-nvrtc", "nvidia-cuda-runtime"}),
        ("cuda12", {"cupy-cuda12x", "ml-dtypes"}),
        ("cuda13", {"cupy-cuda13x", "ml-dtypes"}),
    ],
)
def test_each_extra_adds_what_its_name_says(extra: str, names: set[str]) -> None:
    found = {
        requirement.name.replace("_", "-")
        for requirement in requirements()
        if requirement.marker is not None and requirement.marker.evaluate({"extra": extra})
    }
    assert found == names


@pytest.mark.oracle
def test_the_oracle_is_the_pinned_release(torch: ModuleType) -> None:
    (pinned,) = (requirement for requirement in requirements() if requirement.name == "torch")
    assert pinned.specifier.contains(torch.__version__)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files in a wheel built from this checkout, by name."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("certiconv-*.whl")
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_wheel_holds_every_file_of_the_packages_and_nothing_else(wheel: dict[str, bytes]) -> None:
    shipped = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    shipped = shipped - {"runtime/entry.py"} | {"_certiconv.py"}  # where no other package can come before it
    assert {name for name in wheel if ".dist-info/" not in name} == shipped
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel)


def test_a_wheel_carries_the_licence_and_the_command(wheel: dict[str, bytes]) -> None:
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in wheel)
    (entry,) = (text.decode() for name, text in wheel.items() if name.endswith(".dist-info/entry_points.txt"))
    assert entry.split() == ["[console_scripts]", "certiconv", "=", "_certiconv:main"]
    assert wheel["_certiconv.py"] == (ROOT / "runtime" / "entry.py").read_bytes()


@pytest.mark.parametrize(
    ("package", "unwanted"),
    [
        ("derive", {"z3", "numpy", "matplotlib"}),
        ("codegen", {"z3", "matplotlib"}),
        ("runtime", {"z3", "matplotlib", "torch", "cupy"}),
    ],
)
def test_an_import_drags_in_nothing_heavy(package: str, unwanted: set[str]) -> None:
    program = f"import sys, {package}; print(*({unwanted!r} & set(sys.modules)))"
    command = [sys.executable, "-c", program]
    loaded = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []


def test_text_that_is_kept_is_loaded_without_what_prints_it(tmp_path: Path) -> None:
    program = (
        "import sys, derive, runtime\n"
        "conv = derive.Conv2d(1, 2, 3)\n"
        f"runtime.compile(conv, backend='numpy', input_shape=(1, 1, 5, 5), cache_dir={str(tmp_path)!r})\n"
        "print('jinja2' in sys.modules)"
    )
    command = [sys.executable, "-c", program]
    found = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert [text.strip() for text in found] == ["True", "False"]


@pytest.mark.parametrize("name", ["run", "test"])
def test_each_readme_command_is_one_marked_line(name: str) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^<!-- command: {name} -->\n```bash\n(.*?)^```$", readme, flags=re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    assert len(blocks[0].splitlines()) == 1
