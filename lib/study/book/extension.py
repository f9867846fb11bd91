"""The Sphinx extension put together from its parts."""

import hashlib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from lib.study.book import answers, charts, equations, launch, reference, scoreboard, values


def setup(app: Sphinx) -> dict[str, Any]:
    """Add every part to ``app``."""
    answers.setup(app)
    equations.setup(app)
    charts.setup(app)
    launch.setup(app)
    reference.setup(app)
    scoreboard.setup(app)
    values.setup(app)
    return {
        # Sphinx keeps what it has read of a page; another version of this code reads it anew.
        "env_version": _version(),
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }


def _version() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
