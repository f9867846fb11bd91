"""Execution of notebooks in real kernels of this Python."""

import json
import os
import sys
import time

import nbformat
import pytest
from finished import EPOCHS, finished
from nbformat.v4 import new_code_cell, new_notebook, new_output
from notebook_maker import write_notebook

from lib.chapters.parameters import MODELS
from lib.chapters.shared.checking import parameters_cell
from lib.runs import Store
from lib.study.execution import NotebookFailure, clean, execute
from lib.study.terminal import follow

SOURCE = """
import json, os, sys
from lib.utils.progress import track
from tqdm.auto import tqdm
list(track(tqdm(range(3), desc="busy"), "count"))
print(json.dumps({"python": sys.executable, "folder": os.getcwd(), "epochs": epochs}))
"""


def output_of(path):
    cells = nbformat.read(path, as_version=4).cells
    return "".join(o.text for c in cells for o in c.get("outputs", []) if o.output_type == "stream")


@pytest.fixture
def no_other_kernel(tmp_path, monkeypatch):
    """A user with a broken registered python3 kernel and an IPython start-up file."""
    folder = tmp_path / "data" / "kernels" / "python3"
    folder.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python", "{connection_file}"], "display_name": "x", "language": "y"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "own.py").write_text("print('from the user')")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))


def test_a_notebook_runs_in_this_python_to_a_clean_copy(tmp_path, monkeypatch, no_other_kernel):
    check = 'from lib.chapters.parameters import check\nparameters = check("corpus", globals())'
    source = write_notebook(
        tmp_path / "a {b} c" / "corpus.ipynb", parameters_cell(MODELS["corpus"]), check, SOURCE
    )
    before = source.read_bytes()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    log = tmp_path / "progress.log"
    target = tmp_path / "results {x}" / "corpus.ipynb"
    failed = target.with_name("corpus.failed.ipynb")
    failed.parent.mkdir()
    failed.write_text("of an earlier run")
    arguments = (
        source,
        target,
        {"epochs": 4, "corpus_root": "/data/photographs"},
        {"STUDY_PROGRESS_LOG": str(log)},
        {"/data/photographs": "", str(elsewhere): "."},
    )
    environment = dict(os.environ)
    execute(*arguments)
    assert dict(os.environ) == environment

    # With a bar of another library, the output would not be JSON.
    printed = json.loads(output_of(target))
    assert printed == {"python": sys.executable, "folder": ".", "epochs": 4}
    assert log.read_text().startswith("count: 3/3")
    text = target.read_text()
    for private in ("photographs", "papermill", "iopub", "start_time", sys.version.split()[0]):
        assert private not in text
    nbformat.validate(nbformat.read(target, as_version=4))
    assert sorted(path.name for path in target.parent.iterdir()) == ["corpus.ipynb"]
    assert source.read_bytes() == before

    execute(*arguments)
    assert target.read_text() == text


def test_a_failure_names_the_cell_and_keeps_the_last_good_copy(tmp_path):
    source = write_notebook(
        tmp_path / "corpus.ipynb", "epochs: int = 1  # one", "x = 1", "x / 0", "x = 2"
    )
    target = tmp_path / "results" / "corpus.ipynb"
    target.parent.mkdir()
    target.write_text("good")
    with pytest.raises(NotebookFailure) as caught:
        execute(source, target, {})
    message = str(caught.value)
    assert "notebook 'corpus' failed in cell [3]" in message
    assert "    x / 0" in message
    assert "ZeroDivisionError: division by zero" in message
    kept = target.with_name("corpus.failed.ipynb")
    assert str(kept) in message
    assert "ZeroDivisionError" in kept.read_text()
    assert target.read_text() == "good"
    assert sorted(target.parent.iterdir()) == [kept, target]


def test_a_dead_kernel_is_reported_as_a_failure(tmp_path):
    source = write_notebook(
        tmp_path / "corpus.ipynb", "epochs: int = 1  # one", "import os; os._exit(9)"
    )
    with pytest.raises(NotebookFailure, match=r"its kernel .* died"):
        execute(source, tmp_path / "results" / "corpus.ipynb", {})
    assert not (tmp_path / "results" / "corpus.ipynb").exists()


def test_only_whole_paths_are_replaced():
    printed = "/home/ada/x /home/adam /srv/home/ada '/home/ada' a/home/ada"
    cell = new_code_cell("x", outputs=[new_output("stream", text=printed)])
    injected = new_code_cell("r = '/home/ada/d'", metadata={"tags": ["injected-parameters"]})
    notebook = new_notebook(cells=[cell, injected], metadata={"papermill": {"duration": 1.5}})
    clean(notebook, {"/home/ada": "~", "/home/ada/d": ""})
    assert cell.outputs[0].text == "~/x /home/adam /srv/home/ada '~' a/home/ada"
    assert injected.source == "r = ''"
    assert "papermill" not in notebook.metadata
    assert injected.id == "injected-parameters"


def test_following_a_log_shows_each_whole_line_once_and_the_last_lines_too(tmp_path):
    log = tmp_path / "progress.log"
    shown = []
    with follow(log, shown.append):
        with log.open("a") as stream:
            stream.write("one\ntw")
            stream.flush()
            deadline = time.monotonic() + 10
            while shown != ["one"] and time.monotonic() < deadline:
                time.sleep(0.02)
            assert shown == ["one"]
            stream.write("o × 2\n")
        with log.open("a") as stream:
            stream.write("three\n")
    assert shown == ["one", "two × 2", "three"]


@pytest.mark.parametrize("way", ["sys.exit(0)", "raise SystemExit"])
def test_a_notebook_that_exits_early_is_a_failure(tmp_path, way):
    source = write_notebook(
        tmp_path / "corpus.ipynb",
        parameters_cell(MODELS["corpus"]),
        f"import sys\n{way}",
        "'the end'",
    )
    target = tmp_path / "out" / "corpus.ipynb"
    with pytest.raises(NotebookFailure, match=r"not done: cell \d of \d .*\n.*failed\.ipynb"):
        execute(source, target, {})
    assert [path.name for path in target.parent.iterdir()] == ["corpus.failed.ipynb"]


def test_the_copy_names_the_contents_that_its_runs_were_trained_on(tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_RECORDS", "")
    store = Store()
    for fingerprint, seed in (("abc", 0), ("def", 1), ("abc", 2)):
        store.put(finished(fingerprint=fingerprint, seed=seed))
    reads = f"""
from lib.runs import RunConfig, Store
[Store().get(RunConfig(epochs={EPOCHS}, seed=seed)) for seed in (0, 1, 2, 3)]
"""
    source = write_notebook(tmp_path / "source.ipynb", "x = 1", reads)
    log, target = tmp_path / "used.log", tmp_path / "copy.ipynb"
    execute(source, target, {}, {"STUDY_RECORDS_LOG": str(log)})
    copy = nbformat.read(target, as_version=4)
    assert copy.metadata["corpus_contents"] == ["scenes abc", "scenes def"]
    assert log.read_text().count("run ") == 3
    none = write_notebook(tmp_path / "none.ipynb", "x = 1", "print(x)")
    execute(none, target, {})
    assert "corpus_contents" not in nbformat.read(target, as_version=4).metadata
