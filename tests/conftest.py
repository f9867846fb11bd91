"""Fixtures that every test shares: a home of its own, the real corpus where there is one."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# Derandomised, so that a run of the suite is repeatable; no deadline, since machines differ.
settings.register_profile("study", max_examples=40, deadline=None, derandomize=True)
settings.load_profile("study")

ROOT = Path(__file__).resolve().parent.parent
LONG = ("test_published.py", "test_ways_in.py", "test_training_executors.py")
"""Files of tests that take longest. Files are the units that processes take, in this order: one of
these at the end would keep one process busy for minutes and the others idle."""


def pytest_collection_modifyitems(items):
    """Begin with the long files; pytest keeps the order of the others."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True)
def study_home(tmp_path_factory, monkeypatch):
    """Keep every test out of the user's cache, and away from the published records."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("STUDY_HOME", str(home))
    monkeypatch.setenv("STUDY_RECORDS", "")
    for variable in ("STUDY_PROGRESS_LOG", "STUDY_RECORDS_LOG", "STUDY_EXECUTOR"):
        monkeypatch.delenv(variable, raising=False)
    return home


@pytest.fixture(scope="session")
def root():
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def flickr8k_root():
    """The folder of the real Flickr8k; tests that need it are skipped where there is none."""
    configured = os.environ.get("FLICKR8K_ROOT")
    beside = ROOT.parent / "shared" / "flickr8k"
    for place in (Path(configured) if configured else None, beside):
        if place is not None and place.is_dir():
            return place
    pytest.skip("Flickr8k is not here: set FLICKR8K_ROOT to its folder to run this test")
