"""What all tests share: Hypothesis profiles, the optional packages as fixtures, and counts that are printed at the end.

A plain `pytest` uses the profile `ci`: the same examples on every run, no deadline (a machine's speed is no
property of the code), and a failure printed in a form that reproduces it. `pytest --hypothesis-profile=dev`
draws new examples each time and remembers failures in `.hypothesis`.

Tests may run in several processes (`pytest -n 2 --dist loadfile`, by pytest-xdist): a file's tests stay together, so
that what they share is made once, and the counts of every process are added up.

A plain run ends with a line for each thing that tests were left out for the want of, and how many there were.
"""

import importlib
import importlib.util
from collections import Counter
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "ci", derandomize=True, deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "dev",
    derandomize=False,
    deadline=None,
    print_blob=True,
    max_examples=300,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch, imported only by the tests marked `oracle` that ask for it; absent, those tests fail."""
    return importlib.import_module("torch")


# --- what the random tests of the rules did -----------------------------------------------------------------------

TALLY = pytest.StashKey[dict[str, Counter[str]]]()


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> dict[str, Counter[str]]:
    """For each rule, how often it was accepted, refused, or accepted where nothing could be computed."""
    return request.config.stash.setdefault(TALLY, {})


# --- what did not run ---------------------------------------------------------------------------------------------

WANT = {
    "campaign": "patience",
    "gpu": "a GPU that CuPy can use",
    "nvrtc": "NVRTC",
    "oracle": "PyTorch",
}
LEFT_OUT = pytest.StashKey[Counter[str]]()


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    """Tests that a marker leaves out are counted under the first thing they need."""
    if not items or items[0].config.option.keyword:  # left out by their names
        return
    counts = items[0].config.stash.setdefault(LEFT_OUT, Counter())
    counts.update(
        marker for item in items if (marker := next((m for m in WANT if item.get_closest_marker(m)), None)) is not None
    )


def _told_of_wants(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    counts = config.stash.get(LEFT_OUT, Counter())
    if counts:
        reporter.section("tests that did not run")
    for marker, count in sorted(counts.items()):
        here = "" if (lack := _lack(marker)) is None else f" (here: {lack})"
        reporter.write_line(f"{count:4} need {WANT[marker]}{here}; pytest -m {marker} asks for them")


def _lack(marker: str) -> str | None:
    """Why what a marker stands for is not there; None where it is, or cannot be missing."""
    if marker == "gpu":
        return importlib.import_module("runtime.device").lacks_for_cupy()
    if marker == "oracle":
        return None if importlib.util.find_spec("torch") else "PyTorch is not installed"
    if marker == "nvrtc":
        module = importlib.import_module("runtime.nvrtc")
        try:
            module.nvrtc()
        except module.NvrtcError as error:
            return str(error)
    return None


# --- what was compiled --------------------------------------------------------------------------------------------


def _told_of_registers(reporter: pytest.TerminalReporter) -> None:
    """The lines that tests of CUDA's compiler noted: a text, and of each of its kernels the registers of a thread."""
    reports = [*reporter.getreports("passed"), *reporter.getreports("failed")]
    lines = [line for report in reports for name, line in report.user_properties if name == "registers"]
    if lines:
        reporter.section("registers of a thread, told by NVRTC")
    for line in sorted(lines):
        reporter.write_line(line)


# --- several processes --------------------------------------------------------------------------------------------


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A process that was given a share of the tests hands its counts back."""
    given_back = getattr(session.config, "workeroutput", None)
    if given_back is not None:
        given_back["tally"] = {name: dict(counts) for name, counts in session.config.stash.get(TALLY, {}).items()}
        given_back["left out"] = dict(session.config.stash.get(LEFT_OUT, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """The counts of a process are added to those of the others; one that died has none."""
    counts = node.config.stash.setdefault(TALLY, {})
    for name, own in getattr(node, "workeroutput", {}).get("tally", {}).items():
        counts.setdefault(name, Counter()).update(own)
    left_out = node.config.stash.setdefault(LEFT_OUT, Counter())
    left_out |= Counter(getattr(node, "workeroutput", {}).get("left out", {}))  # every process collects all tests


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line for each want, one for each compiled text, and one for each rule that was proposed."""
    _told_of_wants(terminalreporter, config)
    _told_of_registers(terminalreporter)
    counts = config.stash.get(TALLY, {})
    if counts:
        terminalreporter.section("random applications of rules")
    for name, count in sorted(counts.items()):
        proposed, accepted = count.total(), count["accepted"]
        share = 100 * accepted // max(proposed, 1)
        terminalreporter.write_line(f"{name:18} {accepted:4} of {proposed:4} accepted ({share} %), values equal")
