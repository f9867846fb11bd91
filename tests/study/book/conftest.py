"""A small book for all tests of the book: it is built once, and tests that change it copy it."""

import shutil
from pathlib import Path

import pytest
import tiny_book
from filelock import FileLock

from lib.study.book import build


@pytest.fixture(scope="session")
def book_root(tmp_path_factory, request) -> Path:
    """The root of a built book, in a folder with a space; tests must not change it.

    All processes of a test run share it: building takes most of a minute.
    """
    shared = tmp_path_factory.getbasetemp()
    if hasattr(request.config, "workerinput"):
        shared = shared.parent
    root, built = shared / "book" / "the study", shared / "book-is-built"
    with FileLock(shared / "book.lock"):
        if not built.exists():
            shutil.rmtree(root, ignore_errors=True)
            tiny_book.make_root(root)
            build("published", root)
            tiny_book.write_results(root / "_build" / "quick" / "results", "quick")
            built.touch()
    return root


@pytest.fixture(scope="session")
def html(book_root) -> Path:
    """The folder of the built book's pages; tests must not change it."""
    return book_root / "_build" / "published" / "html"


@pytest.fixture
def small_root(html, tmp_path) -> Path:
    """The root of a book of two pages, which a test may change and build."""
    return tiny_book.make_small_root(tmp_path / "small book", html)
