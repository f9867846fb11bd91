import io
import sys
import threading

import pytest

from lib.utils import progress
from lib.utils.progress import Progress, track


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


def test_track_yields_everything_in_order_and_says_so_once(capsys):
    assert list(track([3, 1, 2], "sort")) == [3, 1, 2]
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "sort: 3/3 (100 %), done in 0 s\n"


def test_track_counts_an_iterator_without_a_total(capsys):
    assert sum(track(iter([1, 2]), "add")) == 3
    assert capsys.readouterr().err == "add: 2, done in 0 s\n"


def test_lines_are_at_most_one_every_ten_seconds_and_the_last(clock, capsys):
    with Progress("train", total=40) as shown:
        for step in range(40):
            clock.now += 1
            shown.advance(note=f"step {step}")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "train: 10/40 (25 %), step 9, 1.0 a second, about 30 s left",
        "train: 20/40 (50 %), step 19, 1.0 a second, about 20 s left",
        "train: 30/40 (75 %), step 29, 1.0 a second, about 10 s left",
        "train: 40/40 (100 %), step 39, 1.0 a second, about 0 s left",
        "train: 40/40 (100 %), step 39, done in 40 s",
    ]


def test_what_is_said_does_nothing_in_the_terminal(capsys):
    progress.say("\x1b[2Jdog")
    list(track([1], "\x1b[31mred"))
    first, second = capsys.readouterr().err.splitlines()
    assert first == r"\x1b[2Jdog"
    assert second.startswith(r"\x1b[31mred: 1/1")


def test_an_interrupted_piece_of_work_is_not_called_done(capsys):
    def fail_at_the_second(items):
        for item in track(items, "train"):
            if item == 1:
                raise RuntimeError("oh no")

    with pytest.raises(RuntimeError, match="oh no"):
        fail_at_the_second(range(4))
    assert capsys.readouterr().err == "train: 1/4 (25 %), stopped after 0 s\n"


def test_the_log_takes_the_lines_instead_of_the_notebook(tmp_path, monkeypatch, capsys):
    log = tmp_path / "progress.log"
    log.write_text("earlier\n")
    monkeypatch.setenv("STUDY_PROGRESS_LOG", str(log))
    list(track(range(2), "first\nsecond line"))
    assert capsys.readouterr() == ("", "")
    assert log.read_text() == "earlier\nfirst second line: 2/2 (100 %), done in 0 s\n"


def test_a_log_that_cannot_be_written_stops_no_work(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_PROGRESS_LOG", str(tmp_path / "missing" / "progress.log"))
    assert list(track(range(3), "work")) == [0, 1, 2]


def test_a_terminal_gets_a_bar_that_takes_text_literally(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress("train [bold]", total=2) as shown:
        shown.advance(2, note="rSum [/] 3")
    assert "train [bold]" in terminal.getvalue()
    assert "rSum [/] 3" in terminal.getvalue()
    assert "2/2" in terminal.getvalue()


def test_a_saying_goes_where_the_lines_go(tmp_path, monkeypatch, capsys):
    progress.say("3 runs are trained again")
    assert capsys.readouterr() == ("", "3 runs are trained again\n")
    log = tmp_path / "progress.log"
    monkeypatch.setenv("STUDY_PROGRESS_LOG", str(log))
    progress.say("3 runs are trained again")
    assert capsys.readouterr() == ("", "")
    assert log.read_text() == "3 runs are trained again\n"


def test_threads_share_one_progress(capsys):
    with Progress("runs", total=400) as shown:
        threads = [
            threading.Thread(target=lambda: [shown.advance() for _ in range(100)]) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert shown.done == 400
    assert "runs: 400/400 (100 %)" in capsys.readouterr().err
