import errno
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
from finished import finished
from notebook_maker import write_study
from typer.testing import CliRunner

from lib.chapters.parameters import defaults
from lib.runs import RunConfig, Store
from lib.study.catalogue import load_catalogue, parse_pairs
from lib.study.commands import app
from lib.study.execution import NotebookFailure
from lib.study.publish import publish_picture
from lib.study.terminal import Board
from lib.utils.files import atomic_path
from lib.utils.version import code_version

FINDING = """
from lib.chapters.shared.findings import Finding, publish
publish(Finding(claim=1, verdict="undecided", notebook="main-comparison", summary="Few seeds.",
                corpus=corpus, train_images=train_images))
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    root = write_study(tmp_path / "study", corpus="epochs", baseline="seeds", main_comparison="1")
    monkeypatch.chdir(root)
    return root


def write_empty(target):
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text('{"cells": []}')


def fail_with(monkeypatch, message):
    """Make every notebook fail with a message."""

    def fail(*_):
        raise NotebookFailure(message)

    monkeypatch.setattr("lib.study.commands.execute", fail)


@pytest.fixture
def no_kernel(monkeypatch):
    """Record the notebooks and values instead of running them."""
    calls = []

    def execute(source, target, parameters, environment, replaced):
        calls.append((source.stem, target, parameters, environment, replaced))
        write_empty(target)

    monkeypatch.setattr("lib.study.commands.execute", execute)
    return calls


@pytest.fixture
def book(monkeypatch):
    """A stand-in for the book's builder, which has its own tests."""
    module = ModuleType("lib.study.book")
    module.built = []
    module.BookError = type("BookError", (ValueError,), {})

    def build(edition, root):
        module.built.append((edition, root))
        return root / "_build" / edition / "html" / "index.html"

    module.build = build
    monkeypatch.setitem(sys.modules, "lib.study.book", module)
    return module


def study_command(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_list_shows_every_notebook_parameter_and_profile(study):
    result = study_command("list", "--json")
    assert result.exit_code == 0
    listed = json.loads(result.stdout)
    assert [entry["name"] for entry in listed] == ["main-comparison", "corpus", "baseline"]
    corpus = listed[1]
    assert corpus["path"] == "notebooks/corpus.ipynb"
    assert {p["name"]: p["default"] for p in corpus["parameters"]} == defaults("corpus")
    assert all(p["comment"] and p["takes"] for p in corpus["parameters"])
    assert corpus["profiles"] == {"quick": {}, "full": {"seeds": 20}, "part": {"seeds": 4}}
    shown = study_command("list", "main-comparison", "corpus", "baseline").stdout
    for word in ("corpus — About corpus", "corpus_root", "smoothing", "700"):
        assert word in shown


def test_list_without_names_shows_one_line_per_notebook(study):
    lines = study_command("list").stdout.splitlines()
    assert [line.split(maxsplit=1) for line in lines[:3]] == [
        [name, f"About {name}"] for name in ("main-comparison", "corpus", "baseline")
    ]
    assert lines[3:] == ["", "`study list NAME` shows the parameters of a notebook."]


def test_list_and_refusals_import_no_library_of_charts_or_towers(study):
    slow = ("altair", "pandas", "timm", "torch", "transformers")
    script = (
        "import sys\nfrom typer.testing import CliRunner\nfrom lib.study.commands import app\n"
        "for words in (['list'], ['list', 'baseline'], ['run', 'baseline', '-p', 'lrr', '1']):\n"
        f" CliRunner().invoke(app, words)\n assert not set({slow}) & set(sys.modules), words\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=study)


def test_run_passes_checked_values_of_the_right_types(study, no_kernel):
    result = study_command(
        "run", "corpus", "baseline", "--profile", "full", "-p", "epochs", "2e1",
        "-y", "{learning_rate: 1e-3}", "-p", "train_sizes", "[100, 200]", "-p", "seeds=4",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    (corpus, baseline) = no_kernel
    shared = {"epochs": 20, "seeds": 4}
    assert corpus[2] == {**shared, "learning_rate": 0.001, "train_sizes": [100, 200]}
    assert baseline[2] == {**shared, "train_images": 700}
    assert corpus[1] == study / "_build" / "runs" / "corpus.ipynb"
    assert result.stdout.split() == [str(corpus[1]), str(baseline[1])]


def test_set_takes_the_same_values_as_p(study, no_kernel):
    assert study_command("run", "corpus", "--set", "epochs=3", "-p", "seeds", "4").exit_code == 0
    assert no_kernel[0][2] == {"epochs": 3, "seeds": 4}


def test_the_executor_is_passed_to_the_kernel(study, no_kernel):
    assert study_command("run", "corpus", "--executor", "threads:2").exit_code == 0
    assert no_kernel[0][3]["STUDY_EXECUTOR"] == "threads:2"
    assert study_command("run", "corpus").exit_code == 0
    assert "STUDY_EXECUTOR" not in no_kernel[1][3]


def test_the_log_file_has_the_lines_of_each_notebook(study, monkeypatch, tmp_path):
    def execute(source, target, parameters, environment, replaced):
        with Path(environment["STUDY_PROGRESS_LOG"]).open("a") as log:
            log.write("training: 1/2 (50 %)\ntraining: 2/2 (100 %)\n")
        write_empty(target)

    monkeypatch.setattr("lib.study.commands.execute", execute)
    log = tmp_path / "logs" / "study.log"
    for _ in range(2):
        assert study_command("run", "corpus", "baseline", "--log", log).exit_code == 0
    lines = log.read_text().splitlines()
    assert len(lines) == 12
    assert lines[:2] == ["corpus: training: 1/2 (50 %)", "corpus: training: 2/2 (100 %)"]
    assert lines[2].startswith("corpus: done in ")
    assert lines[3].startswith("baseline: ")


def test_list_shows_only_the_named_notebooks(study):
    listed = json.loads(study_command("list", "baseline", "--json").stdout)
    assert [entry["name"] for entry in listed] == ["baseline"]
    unknown = study_command("list", "basline")
    assert (unknown.exit_code, "did you mean 'baseline'" in unknown.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "last", "found"),
    [
        ("study run ", "ma", ["main-comparison"]),
        ("study run --profile ", "f", ["full"]),
        ("study run corpus -p ", "epo", ["epochs"]),
        ("study run --executor ", "da", ["dask://"]),
        ("study ", "comp", ["compare"]),
        ("study list ", "b", ["baseline"]),
    ],
)
def test_a_shell_completes_commands_names_and_values(study, monkeypatch, words, last, found):
    monkeypatch.setenv("_STUDY_COMPLETE", "complete_zsh")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", words + last)
    result = CliRunner().invoke(app, [], prog_name="study")
    for word in found:
        # In zsh's format, a colon is escaped.
        assert word in result.output.replace("\\", "")


def test_outside_a_study_completion_offers_nothing_and_does_not_fail(tmp_path, monkeypatch):
    from lib.study import completion

    monkeypatch.chdir(tmp_path)
    assert completion.notebooks("") == completion.profiles("") == []
    assert "epochs" in completion.parameters("")


def test_completion_imports_no_heavy_library(study):
    code = (
        "import sys; from lib.study.completion import notebooks, parameters, profiles\n"
        "assert notebooks('c') == ['corpus'] and profiles('f') == ['full'] and parameters('epo')\n"
        "print({'torch', 'pandas'} & set(sys.modules))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_links_writes_the_links_of_the_address_once(study):
    (study / "pyproject.toml").write_text(
        '[project]\nversion = "1.0"\n[project.urls]\nRepository = "https://github.com/o/n"\n'
    )
    (study / "README.md").write_text("# A\n<!-- study links -->\n<!-- /study links -->\n")
    result = study_command("links")
    assert result.exit_code == 0, result.output
    assert len(result.stdout.split()) == 4
    assert "github/o/n/blob/v1.0/notebooks/corpus.ipynb" in (study / "README.md").read_text()
    assert study_command("links").stdout == ""
    (study / "README.md").write_text("")
    assert study_command("links").exit_code == 2


def test_run_all_writes_to_the_named_folder(study, no_kernel, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = study_command("run", "--all", "--root", study, "--output", "mine")
    assert result.exit_code == 0, result.output
    assert [call[0] for call in no_kernel] == ["main-comparison", "corpus", "baseline"]
    assert {call[1].parent for call in no_kernel} == {tmp_path / "mine"}


def test_run_lists_the_paths_of_this_machine_to_replace(study, no_kernel):
    study_command("run", "corpus", "-p", "corpus_root", "/data/flickr8k")
    replaced = no_kernel[0][4]
    assert replaced["/data/flickr8k"] == ""
    assert replaced[str(study)] == "."
    assert replaced[str(Path.home())] == "~"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "corpus", "-p", "epohcs", "1"], "parameter 'epohcs' (did you mean 'epochs'"),
        (["run", "corpus", "-p", "epochs", "1.5"], "epochs = '1.5': expected a whole number"),
        (["run", "corpus", "-p", "learning_rate", "nan"], "learning_rate = 'nan'"),
        (["run", "corpus", "-p", "learning_rate", "-1"], "learning_rate = '-1'"),
        (["run", "corpus", "-y", "{corpus: no}"], "YAML reads a bare no, off or false as False"),
        (["run", "corpus", "-p", "epochs"], "-p epochs needs a value"),
        (["run", "corpus", "-p", "x; import os", "1"], "unknown parameter 'x; import os'"),
        (["run", "corpus", "--yaml", "[1]"], "expected a mapping"),
        (["run", "corpsu"], "unknown notebook 'corpsu' (did you mean 'corpus'?)"),
        (["run", "corpus", "--profile", "fast"], "unknown profile 'fast'"),
        (["run", "corpus", "--executor", "cluster"], "there is no executor 'cluster'"),
        (["run", "corpus", "--set", "epochs"], "needs a value"),
        (["run", "corpus", "--output", "notebooks"], "choose another --output"),
        (["run"], "name a notebook, or --all"),
        (["run", "corpus", "--epochs", "3"], "--epochs"),
        (["run", "corpus", "-p"], "-p"),
        (["book", "--edition", "final"], "final"),
        (["list", "--root", "/nonexistent"], "no study in /nonexistent"),
    ],
)
def test_a_usage_error_is_reported_before_anything_runs(study, no_kernel, words, said):
    result = study_command(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert no_kernel == []


def test_a_bad_profile_is_reported_before_anything_runs(study, no_kernel):
    (study / "notebooks" / "profiles.yml").write_text("full: {corpus: {epohcs: 1}}")
    result = study_command("run", "corpus")
    assert result.exit_code == 2
    assert "profiles.yml, profile 'full'" in result.stderr
    assert no_kernel == []


def test_a_failing_notebook_gives_status_1_and_no_traceback(study, monkeypatch):
    fail_with(monkeypatch, "notebook 'corpus' failed in cell [3]: ValueError: no")
    result = study_command("run", "corpus")
    assert result.exit_code == 1
    assert "study: notebook 'corpus' failed in cell [3]: ValueError: no" in result.stderr
    assert "Traceback" not in result.output
    assert "done in" not in result.output


@pytest.mark.tries("bad input")
def test_a_notebooks_error_is_escaped_for_the_terminal(study, monkeypatch):
    fail_with(monkeypatch, "no image \x1b[2J\u202egpj.jpg\nin its folder")
    result = study_command("run", "corpus")
    assert "study: no image \\x1b[2J\\u202egpj.jpg\nin its folder\n" in result.stderr


def test_quick_runs_everything_collects_the_findings_and_prints_the_address(
    study, book, tmp_path, monkeypatch
):
    write_study(study, main_comparison=FINDING)
    (study / "notebooks" / "baseline.ipynb").unlink()
    result = study_command("quick")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"file://{study}/_build/quick/html/index.html\n"
    assert book.built == [("quick", study)]
    results = study / "_build" / "quick" / "results"
    found = json.loads((results / "findings.json").read_text())
    assert found["edition"] == "quick"
    assert found["claims"][0]["verdict"] == "undecided"
    assert found["claims"][0]["train_images"] == defaults("main-comparison")["train_images"]
    assert [c["verdict"] for c in found["claims"][1:]] == ["open"] * 4
    assert "[1/2] main-comparison: running" in result.stderr
    assert "[2/2] corpus: done in" in result.stderr


def test_full_publishes_the_records_that_the_notebooks_used(study, book, monkeypatch, study_home):
    Store().put(finished(seed=5))
    stale = study / "book" / "results" / "records" / "tables" / "old.parquet"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"")

    def execute(source, target, parameters, environment, replaced):
        write_empty(target)
        with monkeypatch.context() as kernel:
            kernel.setenv("STUDY_RECORDS_LOG", environment["STUDY_RECORDS_LOG"])
            Store().put(finished(seed=0))
            Store().table("counts", {}, lambda: pd.DataFrame({"n": [1]}))

    monkeypatch.setattr("lib.study.commands.execute", execute)
    result = study_command("full")
    assert result.exit_code == 0, result.output
    assert book.built == [("published", study)]
    results = study / "book" / "results"
    assert json.loads((results / "findings.json").read_text())["edition"] == "published"
    published = Store(folder=study_home / "empty", published=results / "records")
    assert [r.config.seed for r in published.records()] == [0]
    (table,) = (results / "records" / "tables").iterdir()
    assert table.name.startswith("counts-")


def test_the_error_of_a_failed_build_is_shown(study, book):
    def build(edition, root):
        raise book.BookError("_toc.yml names results/missing, which is not there")

    book.build = build
    result = study_command("book")
    assert result.exit_code == 1
    assert "_toc.yml names results/missing" in result.stderr
    assert "Traceback" not in result.output


def test_help_imports_no_slow_library():
    code = (
        "import sys\nsys.argv = ['study', 'list', '--help']\nfrom lib.study.commands import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "slow = {'torch', 'papermill', 'nbformat', 'altair', 'pandas', 'sphinx'}\n"
        "assert not slow & set(sys.modules), slow & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--json" in done.stdout


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_ends_the_kernel_and_tells_how_to_continue(study, tmp_path, name):
    started = tmp_path / "started"
    source = f"""
import os, pathlib, time
pathlib.Path({str(started)!r}).write_text(str(os.getpid()))
time.sleep(120)
"""
    write_study(study, corpus=source)
    words = [sys.executable, "-m", "lib.study", "run", "corpus", "--root", str(study)]
    # A suite started in the background ignores SIGINT; its child processes would inherit that.
    process = subprocess.Popen(
        words,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (started.exists() and started.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(getattr(signal, name))
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    kernel = int(started.read_text())
    while _is_running(kernel) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _is_running(kernel)
    assert not (study / "_build" / "runs" / "corpus.ipynb").exists()


def _is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_readmes_picture_is_the_first_chart_and_stays_if_there_is_none(tmp_path):
    notebook, target = tmp_path / "a.ipynb", tmp_path / "a.svg"
    publish_picture(notebook, target)
    assert not target.exists()
    cells = [
        {"cell_type": "markdown"},
        {"outputs": [{"data": {"text/plain": ["1"]}}, {"output_type": "stream"}]},
        {"outputs": [{"data": {"image/svg+xml": ["<svg>", "one</svg>"]}}]},
        {"outputs": [{"data": {"image/svg+xml": "<svg>two</svg>"}}]},
    ]
    notebook.write_text(json.dumps({"cells": cells}))
    publish_picture(notebook, target)
    assert target.read_text() == "<svg>one</svg>"
    notebook.write_text(json.dumps({"cells": cells[:2]}))
    publish_picture(notebook, target)
    assert target.read_text() == "<svg>one</svg>"


def test_a_terminal_shows_one_live_bar_and_finished_lines_as_text(monkeypatch, tmp_path):
    class Screen(io.StringIO):
        def isatty(self):
            return True

    screen = Screen()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    board = Board(2)
    with board.notebook("corpus") as log:
        log.write_text("training: 1/2\n")
        deadline = time.monotonic() + 10
        while "training: 1/2" not in screen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "[1/2] corpus" in screen.getvalue()
    assert "training: 1/2" in screen.getvalue()
    assert board.done == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--all", "corpus"], "--all runs every chapter: name corpus or give --all"),
        (["run", "baseline", "--profile", "part"], "profile 'part' does not name baseline; it"),
        (["run", "--all", "--profile", "part"], "profile 'part' does not name main-comparison"),
        (["run", "corpus", "--output", "/dev/null/x"], "/dev/null: Not a directory; name another"),
        (["run", "corpus", "--log", "/dev/null/x/log"], "folder of the log cannot be written"),
        (["run", "corpus", "--log", "notebooks"], "--log notebooks is a folder: name a file"),
        (["run", "corpus", "--output", "x" * 300], "File name too long; name another"),
        (["export", "/dev/null/records"], "folder of the export cannot be written: /dev/null: Not"),
        (["export", "notebooks/corpus.ipynb/x"], "corpus.ipynb: Not a directory; name another"),
        (["run", "corpus", "-p", "epochs", "1:30"], "epochs = '1:30': expected a whole number"),
        (["run", "corpus", "-p", "train_sizes", "[1:30]"], "train_sizes[0] = '1:30': expected a"),
        (["run", "corpus", "-p", "train_sizes", "[0x10]"], "train_sizes[0] = '0x10': expected"),
        (["run", "baseline", "-p", "tuning_seeds", "4"], "tuning_seeds = 4: expected at most seed"),
    ],
)
def test_impossible_options_and_values_are_refused_before_any_work(study, words, said, monkeypatch):
    monkeypatch.setattr("lib.study.commands.execute", None)
    result = study_command(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output
    assert not (study / "_build").exists()


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ("device=cuda:93", "device: device 'cuda:93' cannot be used here"),
        ("image_tower=resnet_of_mine", "image_tower: tower 'resnet_of_mine' is not a preset"),
        ("image_tower=efficientnet-lite0@9", "image_tower: image tower 'efficientnet-lite0@9'"),
        ("text_tower=/no/such/model", "text_tower: tower '/no/such/model' is not a preset"),
        ("text_tower=minilm@40", "text_tower: text tower 'minilm@40': minilm has 6 layers"),
        ("train_images=900000", "train_images = 900000, but the train split of scenes has"),
        ("corpus_root=/no/such/folder", "corpus_root: "),
    ],
)
def test_values_that_this_machine_cannot_use_are_refused_before_a_kernel_starts(
    study, parameter, said, monkeypatch
):
    monkeypatch.setattr("lib.study.commands.execute", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    more = ["-p", "corpus", "flickr8k"] if "root" in parameter else []
    result = study_command("run", "baseline", "-p", parameter, *more)
    assert result.exit_code == 2
    assert f"notebook 'baseline': {said}" in result.stderr


@pytest.mark.parametrize("load", [0.1, 99.0])
def test_on_a_busy_machine_threads_wait_without_spinning(study, monkeypatch, load):
    given = []
    monkeypatch.setattr("lib.study.commands.execute", lambda *five: given.append(five[3]))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    result = study_command("run", "baseline")
    assert ("this machine is busy" in result.stderr) is (load > 1)
    assert given[0].get("OMP_WAIT_POLICY") == ("PASSIVE" if load > 1 else None)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert "this machine is busy" not in study_command("run", "baseline").stderr
    assert "OMP_WAIT_POLICY" not in given[1]


def test_finished_runs_need_no_corpus(study, monkeypatch):
    """The published runs, for example, can be used without the photographs."""
    executed = []
    monkeypatch.setattr("lib.study.commands.execute", lambda *given: executed.append(given))
    result = study_command("run", "baseline", "-p", "corpus", "flickr8k", "-p", "device", "cpu")
    assert result.exit_code == 0, result.output
    assert len(executed) == 1


def test_numbers_with_leading_zeros_are_decimal(study):
    settings = load_catalogue(study).settings(
        load_catalogue(study).select(["corpus"]),
        "quick",
        parse_pairs(["train_sizes=[0100, 1e3]"], ["{epochs: 007}"]),
    )
    assert settings["corpus"] == {"train_sizes": [100, 1000], "epochs": 7}


def test_a_full_disk_is_reported_with_the_path_and_the_free_space(study, monkeypatch):
    def execute(source, target, *arguments):
        with atomic_path(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("lib.study.commands.execute", execute)
    result = study_command("run", "corpus")
    assert result.exit_code == 1
    path = study / "_build" / "runs" / "corpus.ipynb"
    said = rf"^study: {re.escape(str(path))}: No space left on device \([\d,]+ MiB are free\)$"
    assert re.search(said, result.stderr, re.MULTILINE)


def test_the_version_option_shows_the_version_of_the_code():
    result = study_command("--version")
    assert (result.exit_code, result.stdout) == (0, f"study {code_version()}\n")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_narrow_encoding_gets_replacements(encoding, root):
    """The table of parameters, the help and an error have letters that both encodings lack."""
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    code = (
        "import sys\nfrom lib.study.commands import main\n"
        "for words in (['list', 'signals'], ['run', '--help'], "
        "['run', 'signals', '-p', 'γ', '1']):\n"
        "    sys.argv = ['study', *words]\n    try:\n        main()\n"
        "    except SystemExit as end:\n        print(end.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert done.stdout.decode(encoding).split()[-1] == "2"


TRAINS = """
from lib.runs import RunConfig, Store
from lib.training import Lab
lab = Lab(Store(), device="cpu")
lab.train([RunConfig(corpus="scenes", seed=seed) for seed in range(seeds)])
"""


def test_a_dry_run_counts_runs_and_trains_none(study, study_home, monkeypatch):
    """One of three runs is finished; another notebook asks for these and ends in a figure."""
    monkeypatch.setenv("STUDY_RECORDS", "")
    store = Store()
    store.put(finished(corpus="scenes", seed=1, epochs=RunConfig().epochs))
    ends = f"{TRAINS}\nlist(lab.retrain([RunConfig(corpus='scenes')]))"
    write_study(study, corpus=TRAINS, baseline=ends, main_comparison="1")
    before = sorted(study_home.rglob("*.json"))
    done = study_command("run", "corpus", "baseline", "main-comparison", "--dry-run")
    assert done.exit_code == 0, done.output
    counted = dict(line.split(": ") for line in done.stdout.splitlines())
    assert counted["corpus"].startswith("3 runs, 1 finished, 2 to train, about ")
    assert counted["baseline"].startswith("at least 3 runs, 1 finished, 2 to train, about ")
    assert counted["main-comparison"] == "0 runs, 0 finished, 0 to train"
    together = counted["together, each run once"]
    assert together.startswith("at least 3 runs, 1 finished, 2 to train, about ")
    assert sorted(study_home.rglob("*.json")) == before
    assert not (study / "_build").exists()


def test_a_dry_run_fails_as_a_run_would(study):
    write_study(study, corpus="1 / 0")
    done = study_command("run", "corpus", "--dry-run")
    assert done.exit_code == 1
    assert "ZeroDivisionError" in done.output
