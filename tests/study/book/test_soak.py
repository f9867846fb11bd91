"""An interrupted build of the book, started again, gives the same pages as an undisturbed one."""

import os
from functools import partial

import tiny_book
from disturbances import contents, disturb, finish, undisturbed

from lib.study.book import build

ROUNDS = max(1, int(os.environ.get("SOAK_ROUNDS", "0")) // 10)
SEED = int(os.environ.get("SOAK_SEED", "0"))
KINDS = ("SIGKILL", "full disk", "SIGINT", "SIGTERM")
OF_THE_BUILD = (".buildinfo", "objects.inv", ".doctree", ".pickle")


def test_an_interrupted_build_started_again_gives_the_same_pages(tmp_path, html, tried):
    def begin(name):
        root = tiny_book.make_small_root(tmp_path / name / "a book", html)
        return partial(build, "published", root), root

    def pages(root):
        return contents(root / "_build" / "published" / "html", but=OF_THE_BUILD)

    work, root = begin("reference")
    moments, seconds = undisturbed(work, tmp_path / "reference")
    expected = pages(root)
    assert "book/index.html" in expected
    for number in range(ROUNDS):
        kind = KINDS[number % len(KINDS)]
        work, root = begin(f"round{number}")
        if disturb(work, root.parent, kind, moments, seconds, SEED + number):
            tried("full disk" if kind == "full disk" else "kill")
        finish(work, root.parent)
        assert pages(root) == expected, f"round {number}, {kind}"
