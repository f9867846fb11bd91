"""What holds for the tests and for the examples in docstrings alike."""

import pytest


@pytest.fixture(autouse=True)
def study_home(tmp_path_factory, monkeypatch):
    """Keep every test out of the user's cache, and away from the published records."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("STUDY_HOME", str(home))
    monkeypatch.setenv("STUDY_RECORDS", "")
    for variable in ("STUDY_PROGRESS_LOG", "STUDY_RECORDS_LOG", "STUDY_EXECUTOR"):
        monkeypatch.delenv(variable, raising=False)
    return home
