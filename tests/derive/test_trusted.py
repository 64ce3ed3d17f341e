"""The list of what must be trusted is complete: it names every file that the kernel and the definitions import."""

import ast
from pathlib import Path

from derive.trusted import CORE, DEFINITIONS

ROOT = Path(__file__).resolve().parents[2]


def imported(module: str) -> set[str]:
    """The modules of derive that one of them imports, through all of them."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        tree = ast.parse((ROOT / "derive" / f"{name}.py").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "derive":
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("derive."):
                waiting.append(str(node.module).split(".")[1])
    return found


def test_what_the_kernel_imports_is_trusted() -> None:
    assert imported("kernel") == set(CORE)
    assert imported("layers") == {*DEFINITIONS, "indices", "terms"}


def test_the_readme_names_every_file() -> None:
    text = (ROOT / "README.md").read_text()
    assert all(name in text.split("Trusted are:")[1].split("Derivations are")[0] for name in (*CORE, *DEFINITIONS))
