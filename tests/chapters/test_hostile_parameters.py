"""Parameters of notebooks: bad values and names, the parameters cell, the kernel, the sizes.

The small notebooks run through papermill itself; the study's own are read, whichever there are.
"""

import ast
import json
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from click.testing import CliRunner
from notebook_maker import write_notebook, write_study
from papermill.__main__ import papermill as papermill_command
from typer.testing import CliRunner as StudyRunner

from lib.chapters.parameters import MODELS
from lib.study.commands import app

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXECUTED = sorted((ROOT / "book" / "results").glob("*.ipynb"))
SOURCE_BYTES = 100_000
EXECUTED_BYTES = 3_000_000

each_source = pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
each_executed = pytest.mark.parametrize("path", EXECUTED, ids=lambda path: path.stem)

# A notebook with parameters of every kind, whose model is declared in the notebook itself.
PARAMETERS = """
lr: float = 0.1  # learning rate
use_amp: bool = True  # mixed precision
ks: list[int] = [1]  # thresholds
split: str = "test"  # which part
""".strip()
CHECK = """
import typing
import lib.chapters.parameters as declared
from lib.chapters.shared.checking import Parameters
class Small(Parameters, notebooks=["small"]):
    lr: float = 0.1
    use_amp: bool = True
    ks: list[int] = [1]
    split: typing.Literal["test", "no"] = "test"
checked = declared.check("small", globals())
""".strip()
USE = """
import json
print(json.dumps([lr, use_amp, ks, split, "on" if use_amp else "off", checked.model_dump()]))
""".strip()


@pytest.fixture
def small(tmp_path):
    return write_notebook(tmp_path / "small.ipynb", PARAMETERS, CHECK, USE)


def run_papermill(notebook, *words):
    """What ``papermill NB out.ipynb ...`` printed in the notebook, or the error it ended with."""
    out = notebook.with_name("out.ipynb")
    words = [str(notebook), str(out), "--no-progress-bar", *words]
    result = CliRunner().invoke(papermill_command, words)
    if result.exception is not None:
        return str(result.exception)
    cells = nbformat.read(out, as_version=4).cells
    return "".join(o.text for c in cells for o in c.get("outputs", []) if o.output_type == "stream")


def test_safe_values_of_the_wrong_type_are_converted(small):
    words = ["-y", "{lr: 1e-3}", "-p", "use_amp", "false", "-p", "ks", "[1,5,10]"]
    *values, checked = json.loads(run_papermill(small, *words))
    assert values == [0.001, False, [1, 5, 10], "test", "off"]
    assert checked == {"lr": 0.001, "use_amp": False, "ks": [1, 5, 10], "split": "test"}


def test_a_yaml_boolean_is_refused_with_the_flag_to_use(small):
    said = run_papermill(small, "-y", "{split: no}")
    assert "split = False: expected one of 'test', 'no'" in said
    assert "YAML reads a bare no, off or false as False" in said
    assert "-y '{split: \"no\"}'" in said


def test_every_bad_value_is_refused_before_the_notebooks_work(small):
    words = ["-p", "lr", "nan", "-p", "use_amp", "maybe", "-p", "ks", "1.5", "-r", "split", "yes"]
    said = run_papermill(small, *words)
    assert "lr = nan: expected a finite number; write -p lr 0.1" in said
    assert "use_amp = 'maybe': expected true or false; write -p use_amp true" in said
    assert "ks = 1.5: expected a list, each a whole number; write -p ks '[1]'" in said
    assert "split = 'yes': expected one of 'test', 'no'" in said
    cells = nbformat.read(small.with_name("out.ipynb"), as_version=4).cells
    assert cells[-1].execution_count is None


def test_text_is_data_and_never_code(small, tmp_path):
    trap = tmp_path / "trap"
    text = f'"; open({str(trap)!r}, "w"); "'
    said = run_papermill(small, "-r", "split", text, "-r", "ks", f"[open({str(trap)!r})]")
    assert "split = " in said
    assert "ks" in said
    assert not trap.exists()


def test_a_mistyped_name_stops_papermill_and_the_study(small, tmp_path, monkeypatch):
    said = run_papermill(small, "-p", "lrr", "1")
    assert "unknown parameter 'lrr' (did you mean 'lr'?)" in said
    assert "The parameters of 'small' are: lr, use_amp, ks, split." in said

    def execute(*arguments):
        raise AssertionError("a kernel was started")

    monkeypatch.setattr("lib.study.commands.execute", execute)
    study = write_study(tmp_path / "study", corpus="1")
    words = ["run", "corpus", "-p", "epohcs", "1", "--root", str(study)]
    result = StudyRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "unknown parameter 'epohcs' (did you mean 'epochs'?)" in result.stderr


def test_a_notebook_that_lost_its_parameters_cell_is_refused(tmp_path):
    # Papermill would inject above the defaults, which would then overwrite what was given.
    study = write_study(tmp_path, corpus="1")
    path = study / "notebooks" / "corpus.ipynb"
    path.write_text(path.read_text().replace('"parameters"', '"other"'))
    result = StudyRunner().invoke(app, ["run", "corpus", "--root", str(study)])
    assert result.exit_code == 2
    assert "0 cells tagged 'parameters'; it needs exactly one" in result.stderr


def code_cells(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def names_read(source):
    """The names that a cell's code reads."""
    tree = ast.parse(source)
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return {node.id for node in nodes if isinstance(node.ctx, ast.Load)}


@each_source
def test_one_parameters_cell_stands_before_any_use_and_is_checked_next(path):
    cells = code_cells(path)
    tagged = [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    (index,) = tagged
    names = set(MODELS[path.stem].model_fields)
    for cell in cells[:index]:
        assert not names & names_read(cell.source)
    calls = [node for node in ast.walk(ast.parse(cells[index + 1].source)) if _is_check(node)]
    assert [[ast.unparse(argument) for argument in call.args] for call in calls] == [
        [repr(path.stem), "globals()"]
    ]
    imported = "from lib.chapters.parameters import check"
    assert cells[index + 1].source.lstrip().startswith(imported)


@each_source
def test_parameters_are_plain_commented_literals_that_papermill_sees(path):
    (cell,) = [c for c in code_cells(path) if "parameters" in c.metadata.get("tags", [])]
    assert " | " not in "".join(line.split("#")[0] for line in cell.source.splitlines())
    assert "Optional" not in cell.source
    seen = papermill.inspect_notebook(str(path))
    assert list(seen) == list(MODELS[path.stem].model_fields)
    for name, parameter in seen.items():
        assert parameter["help"], f"{name} has no comment"
        assert parameter["inferred_type_name"] != "None", f"{name} has no type"
        ast.literal_eval(parameter["default"])


@each_source
def test_help_lists_every_parameter(path):
    result = CliRunner().invoke(papermill_command, ["--help-notebook", str(path)])
    assert result.exit_code == 0
    for name in MODELS[path.stem].model_fields:
        assert f"  {name}: " in result.output


def test_a_fresh_environment_with_only_python3_suffices(tmp_path, monkeypatch):
    """No kernel is registered anywhere: not by the user, the system or the environment."""
    for variable in ("JUPYTER_DATA_DIR", "JUPYTER_PATH", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "empty"))
    monkeypatch.setattr("jupyter_client.kernelspec.KernelSpecManager.kernel_dirs", [])
    study = write_study(tmp_path / "study", corpus="import sys; print(sys.executable)")
    result = StudyRunner().invoke(app, ["run", "corpus", "--root", str(study)])
    assert result.exit_code == 0, result.output
    executed = study / "_build" / "runs" / "corpus.ipynb"
    assert sys.executable in executed.read_text()


@each_source
def test_source_notebooks_are_small_of_the_plain_kernel_and_carry_no_output(path):
    assert path.stat().st_size <= SOURCE_BYTES
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    kernelspec = notebook.metadata.kernelspec
    assert (kernelspec.name, kernelspec.language) == ("python3", "python")
    assert "widgets" not in notebook.metadata
    for cell in code_cells(path):
        assert (cell.outputs, cell.execution_count) == ([], None)
        for word in ("disable_max_rows", "max_rows", "tqdm", "ipywidgets", "HBox"):
            assert word not in cell.source


@each_executed
def test_executed_notebooks_are_bounded_and_carry_no_progress_or_trace(path):
    assert path.stat().st_size <= EXECUTED_BYTES
    notebook = nbformat.read(path, as_version=4)
    assert set(notebook.metadata) - {"corpus_contents"} == {"kernelspec", "language_info"}
    outputs = [output for cell in code_cells(path) for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    for output in outputs:
        text = output.get("text", "") or json.dumps(output.get("data", {}))
        for word in ("HBox(", "widget state", "application/vnd.jupyter.widget", "it/s]"):
            assert word not in text
    assert str(Path.home()) not in path.read_text()


def _is_check(node):
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "check"
