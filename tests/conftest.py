"""Fixtures that every test shares, and the count of hostile things tried."""

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

# Derandomised, so that a run of the suite is repeatable; no deadline, since machines differ.
settings.register_profile("study", max_examples=40, deadline=None, derandomize=True)
# For `make mutants`: of thousands of runs of the same tests, each has to be short.
settings.register_profile("mutants", settings.get_profile("study"), max_examples=8)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "study"))

ROOT = Path(__file__).resolve().parent.parent
LONG = ("test_published.py", "test_ways_in.py", "test_executors.py")
"""Files of tests that take longest. Files are the units that processes take, in this order: one of
these at the end would keep one process busy for minutes and the others idle."""


def pytest_collection_modifyitems(items):
    """Begin with the long files; pytest keeps the order of the others.

    Under `make mutants` the first failure ends a run: the tests of a single case come first.
    """
    if "MUTANT_UNDER_TEST" in os.environ:
        items.sort(key=lambda item: hasattr(getattr(item, "obj", None), "hypothesis"))
        return
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


_TRIED = "tried"
"""Name of the property that records what a test tried; pytest-xdist passes it on."""


def pytest_configure(config):
    """Register the marker ``tries(kind)``: each case of a test tries one hostile thing."""
    config.addinivalue_line("markers", "tries(kind): each case tries one hostile thing")


@pytest.fixture
def tried(request):
    """Return a function that counts hostile things of a kind: bad inputs, kills, corruptions."""

    def count(kind, number=1):
        request.node.user_properties.append((_TRIED, [kind, number]))

    return count


def pytest_runtest_setup(item):
    """Count what each case of a test tries, by its markers."""
    for marker in item.iter_markers("tries"):
        item.user_properties.append((_TRIED, [*marker.args, 1]))


def pytest_terminal_summary(terminalreporter):
    """Report how many hostile things were tried in tests that passed, and in those that failed."""
    counts = {"passed": Counter(), "failed": Counter()}
    for outcome, found in counts.items():
        for report in terminalreporter.stats.get(outcome, []):
            if report.when == "call":
                for name, value in report.user_properties:
                    if name == _TRIED:
                        found[value[0]] += value[1]
    if any(counts.values()):
        terminalreporter.section("hostile things tried")
        for kind in sorted(counts["passed"] | counts["failed"]):
            harm = counts["failed"][kind]
            said = f"{harm} of them in tests that failed" if harm else "none did harm"
            total = counts["passed"][kind] + harm
            terminalreporter.line(f"{total:6} x {kind}: {said}")


@pytest.fixture(scope="session")
def root():
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def flickr8k_root():
    """The folder of the real Flickr8k; tests that need it are skipped if there is none."""
    configured = os.environ.get("FLICKR8K_ROOT")
    beside = ROOT.parent / "shared" / "flickr8k"
    for place in (Path(configured) if configured else None, beside):
        if place is not None and place.is_dir():
            return place
    pytest.skip("Flickr8k is not here: set FLICKR8K_ROOT to its folder to run this test")
