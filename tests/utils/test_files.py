"""Files and folders are written whole or not at all; killed writers' remains are removed."""

import os
import signal

import pytest

from lib.utils.files import atomic_folder, atomic_path, write_atomic


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
@pytest.mark.parametrize(("manager", "name"), [(atomic_path, ""), (atomic_folder, "p1.jpg")])
def test_what_a_killed_writer_left_goes_with_the_next(tmp_path, manager, name):
    target = tmp_path / "a[1].txt"
    child = os.fork()
    if child == 0:
        with manager(target) as partial:
            (partial / name).write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".partial"
    with manager(target) as partial:
        (partial / name).write_bytes(b"whole")
    assert (target / name).read_bytes() == b"whole"
    assert {*tmp_path.rglob("*")} == {target, target / name}


def test_what_a_living_writer_has_begun_is_left_alone(tmp_path):
    target = tmp_path / "a.txt"
    with atomic_path(target) as mine:
        mine.write_text("mine")
        write_atomic(target, "another's")
        assert mine.read_text() == "mine"
        write_atomic(tmp_path / "b.txt", "of another name")
    assert target.read_text() == "mine"


def test_permissions_are_the_usual_ones_not_those_of_a_temporary_file(tmp_path):
    mask = os.umask(0o027)
    try:
        write_atomic(tmp_path / "a.txt", "x")
        with atomic_folder(tmp_path / "b"):
            pass
    finally:
        os.umask(mask)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o750
