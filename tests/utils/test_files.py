"""A file or a folder is written whole or not at all, and what killed writers left goes away."""

import os
import signal

import pytest

from lib.utils.files import atomic_folder, atomic_path, write_atomic


def killed_while_writing(manager, target, name=""):
    """Let a forked process be killed in the middle of writing ``target``."""
    child = os.fork()
    if child == 0:
        with manager(target) as partial:
            ((partial / name) if name else partial).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    write_atomic(target, "old")

    def interrupted():
        with atomic_path(target) as partial:
            partial.write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.tries("kill")
def test_what_a_killed_writer_left_goes_with_the_next(tmp_path):
    target = tmp_path / "a[1].txt"
    killed_while_writing(atomic_path, target)
    assert [path.suffix for path in tmp_path.iterdir()] == [".partial"]
    write_atomic(target, "whole")
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.tries("kill")
def test_a_folder_of_a_killed_writer_goes_with_the_next(tmp_path):
    target = tmp_path / "corpus"
    killed_while_writing(atomic_folder, target, "p1.jpg")
    assert len(list(tmp_path.iterdir())) == 1
    with atomic_folder(target) as partial:
        (partial / "p2.jpg").write_bytes(b"whole")
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == [
        "corpus",
        "corpus/p2.jpg",
    ]


def test_what_a_living_writer_has_begun_is_left_alone(tmp_path):
    target = tmp_path / "a.txt"
    with atomic_path(target) as mine:
        mine.write_text("mine")
        write_atomic(target, "another's")
        assert mine.read_text() == "mine"
        write_atomic(tmp_path / "b.txt", "of another name")
    assert target.read_text() == "mine"


def test_the_usual_permissions_not_those_of_a_temporary_file(tmp_path):
    mask = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a.txt", "x")
        with atomic_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(mask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o750
