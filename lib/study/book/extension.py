"""The Sphinx extension, composed of its parts."""

import hashlib
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from lib.study.book import (
    answers,
    charts,
    comparisons,
    equations,
    launch,
    provenance,
    reference,
    scoreboard,
    values,
)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add every part to ``app``."""
    parts = (
        *(answers, equations, charts, comparisons, launch, provenance, reference),
        *(scoreboard, values),
    )
    for part in parts:
        part.setup(app)
    # Sphinx reads its pages again if this code, and so this version, has changed.
    sources = sorted(Path(__file__).parent.glob("*.py"))
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return {"env_version": version, "parallel_read_safe": True, "parallel_write_safe": True}
