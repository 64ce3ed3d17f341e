"""What all tests share: Hypothesis profiles, and the optional packages as fixtures.

A plain `pytest` uses the profile `ci`: the same examples on every run, no deadline (a machine's speed is no
property of the code), and a failure printed in a form that reproduces it. `pytest --hypothesis-profile=dev`
draws new examples each time and remembers failures in `.hypothesis`.
"""

import importlib
from types import ModuleType

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
