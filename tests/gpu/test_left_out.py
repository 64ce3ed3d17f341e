"""What did not run is said: a plain run counts the tests that want a GPU, and tells what this machine lacks."""

import re
import subprocess
import sys
from pathlib import Path

from runtime.device import lacks_for_cupy

ROOT = Path(__file__).resolve().parents[2]


def collected(*arguments: str) -> str:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def test_a_plain_run_says_how_many_tests_want_a_gpu() -> None:
    found = collected("tests/gpu/test_network.py")
    lines = [line for line in found.splitlines() if "need a GPU that CuPy can use" in line]
    assert len(lines) == 1, found
    count = re.match(r" *(\d+) need", lines[0])
    assert count is not None
    assert int(count.group(1)) == found.count("[simt")
    assert (lacks_for_cupy() or "pytest -m gpu asks for them") in lines[0]


def test_what_was_asked_for_is_not_said_to_be_left_out() -> None:
    assert "need a GPU that CuPy can use" not in collected("tests/gpu/test_network.py", "-m", "gpu")
    assert "need a GPU that CuPy can use" not in collected("tests/gpu/test_network.py", "-k", "labels")
