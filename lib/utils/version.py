"""The package's version, and the variables that the ``study`` command sets for notebooks."""

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

EXECUTOR_VARIABLE = "STUDY_EXECUTOR"
"""The executor of sweeps that get none, as in :mod:`lib.training.executors`."""
RECORDS_VARIABLE = "STUDY_RECORDS_LOG"
"""The file to which an execution adds the names of the runs and tables that it used, and the
corpora's contents that the runs were trained on."""
CONTENT = "content"
"""How that file names a content."""
PLAN_VARIABLE = "STUDY_PLAN"
"""The file to which an execution that only plans adds the runs that it asks for."""

PACKAGE = "variance-study"


def release() -> str:
    """Return the package's version, or "0" for sources that were never installed."""
    try:
        return metadata.version(PACKAGE)
    except metadata.PackageNotFoundError:
        return "0"


@cache
def code_version() -> str:
    """Return the release and a digest of the package's source files, such as ``0.1.0+4be0a1c27d``.

    Unlike a commit, it changes with an edited file, and an installed wheel has it. It is only for
    information in a record; a new :data:`lib.runs.RESULTS_VERSION` is what makes a record unusable.

    >>> code_version() == code_version()
    True
    """
    folder = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return f"{release()}+{digest.hexdigest()[:10]}"
