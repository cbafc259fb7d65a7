"""The suites are part of the package, and what tests them is not part of its needs."""

import subprocess
import sys

import explorank.testing


def test_importing_the_suites_loads_no_test_framework_and_nothing_heavy():
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, explorank.testing; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {"pytest", "hypothesis", "faiss", "feast", "lightgbm", "pandas", "torch"}
    assert heavy & set(loaded) == set()


def test_public_names_exist():
    assert sorted(explorank.testing.__all__) == [
        "GuardCase",
        "GuardTests",
        "PolicyTests",
        "RankerTests",
        "StateStoreTests",
    ]
    assert all(hasattr(explorank.testing, name) for name in explorank.testing.__all__)


def test_every_test_says_what_it_demands():
    testing = explorank.testing
    suites = (testing.PolicyTests, testing.GuardTests, testing.RankerTests, testing.StateStoreTests)
    names = [(suite, name) for suite in suites for name in dir(suite) if name.startswith("test_")]
    assert [name for suite, name in names if len((getattr(suite, name).__doc__ or "").split()) < 12] == []
