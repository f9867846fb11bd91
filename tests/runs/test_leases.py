"""Leases between processes: each name has one holder, and a lease ends with its process."""

import os
import signal
import threading

from lib.runs.leases import Leases


def in_child(work):
    """Run ``work`` in a forked process that then waits to be killed; return its id."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            with work():
                os.write(write, b"x")
                signal.pause()
        finally:
            os._exit(1)
    os.close(write)
    assert os.read(read, 1) == b"x"
    os.close(read)
    return child


def kill(child):
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_name_has_one_holder_until_it_is_released(tmp_path):
    leases = Leases(tmp_path / "leases")
    with leases.take(["a", "b"]) as mine:
        assert mine == {"a", "b"}
        with Leases(tmp_path / "leases").take(["b", "c"]) as theirs:
            assert theirs == {"c"}
        with leases.take(["c"]) as again:
            assert again == {"c"}
    with leases.take(["a", "b", "c"]) as all_of_them:
        assert all_of_them == {"a", "b", "c"}


def test_the_leases_of_a_killed_process_are_free_and_leave_no_file(tmp_path):
    leases = Leases(tmp_path)
    child = in_child(lambda: leases.take(["a", "b"]))
    with leases.take(["a", "c"]) as mine:
        assert mine == {"c"}
    kill(child)
    with leases.take(["a", "b", "c"]) as mine:
        assert mine == {"a", "b", "c"}
    assert [path.name for path in tmp_path.iterdir()] in ([], ["mutex"])


def test_waiting_ends_when_the_holder_is_killed(tmp_path):
    leases = Leases(tmp_path)
    leases.wait(["a"])  # It has no holder, so this returns at once.
    child = in_child(lambda: leases.take(["a"]))
    leases.wait(["b"])
    threading.Timer(0.2, kill, [child]).start()
    leases.wait(["a"])
    with leases.take(["a"]) as mine:
        assert mine == {"a"}
