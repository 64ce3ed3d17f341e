"""Counts of what the random tests of the rules did, printed after the run."""

from collections import Counter

import pytest

TALLY = pytest.StashKey[dict[str, Counter[str]]]()


@pytest.fixture(scope="session")
def tally(request: pytest.FixtureRequest) -> dict[str, Counter[str]]:
    """For each rule, how often it was accepted, refused, or accepted where nothing could be computed."""
    return request.config.stash.setdefault(TALLY, {})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """One line for each rule that was proposed."""
    counts = config.stash.get(TALLY, {})
    if counts:
        terminalreporter.section("random applications of rules")
    for name, count in sorted(counts.items()):
        proposed, accepted = count.total(), count["accepted"]
        share = 100 * accepted // max(proposed, 1)
        terminalreporter.write_line(f"{name:18} {accepted:4} of {proposed:4} accepted ({share} %), values equal")
