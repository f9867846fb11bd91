"""The rendered book: checks of its sources, the build by Jupyter Book, checks of its pages.

This package is also the Sphinx extension that ``_config.yml`` names: it draws charts offline,
typesets equations without scripts, takes verdicts and numbers from ``findings.json``, and makes the
reference from docstrings.
"""

from typing import TYPE_CHECKING, Any

from lib.study.book.edition import build
from lib.study.book.errors import BookError

if TYPE_CHECKING:
    from sphinx.application import Sphinx

__all__ = ["BookError", "build", "setup"]


def setup(app: "Sphinx") -> dict[str, Any]:
    """Add the book's directives, roles and renderers to Sphinx; Sphinx calls this function."""
    from lib.study.book import extension

    return extension.setup(app)
