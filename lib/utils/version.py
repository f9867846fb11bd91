"""Environment variables by which the ``study`` command speaks to the notebooks' processes."""

import hashlib
from functools import cache
from importlib import metadata
from pathlib import Path

EXECUTOR_VARIABLE = "STUDY_EXECUTOR"
"""Names the executor of sweeps that are given none; :mod:`lib.training.executors` knows them."""

RECORDS_VARIABLE = "STUDY_RECORDS_LOG"
"""Names the file to which an execution adds what it used of the store, to be published with it."""

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

    It says more than a commit does: an edited file changes it, and an installed wheel has it too.
    It tells a record's reader what made it; what makes a record unusable is
    :data:`lib.runs.RESULTS_VERSION`, since most edits change no number.

    >>> code_version() == code_version()
    True
    """
    folder = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(path.read_bytes() + b"\0")
    return f"{release()}+{digest.hexdigest()[:10]}"
