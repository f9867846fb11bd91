"""Ways to run a notebook: plain papermill, ``study run``, with the wheel alone, in another folder.

Each way prepares every notebook and runs it up to its work: set-up, parameters, check and imports.
Every notebook is also executed as a whole: here by papermill with the wheel alone, and in
test_published.py by ``study run`` from another folder.
"""

import ast
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import papermill
import pytest
from click.testing import CliRunner
from other_project import STEPS, results, results_elsewhere
from papermill.__main__ import papermill as papermill_command
from typer.testing import CliRunner as StudyRunner

from lib.chapters.parameters import defaults
from lib.study.catalogue import load_catalogue
from lib.study.commands import app

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
CHEAPEST = "baseline"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A copy of what a wheel is made from, since setuptools builds in the sources' own folder."""
    folder = tmp_path_factory.mktemp("sources")
    subprocess.run(
        ["cp", "-r", "lib", "pyproject.toml", "setup.py", "README.md", "LICENSE", str(folder)],
        cwd=ROOT, check=True,
    )  # fmt: skip
    return folder


def install(sources, folder, kind):
    """Build a wheel of a kind, as pip does, and return the folder of what it installs."""
    build = f"from setuptools.build_meta import *; {kind}({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=sources, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(scope="module")
def site(tmp_path_factory, sources):
    """What an installed wheel puts on the path, and none of the study's other files."""
    return install(sources, tmp_path_factory.mktemp("wheel"), "build_wheel")


@pytest.fixture
def alone(site, tmp_path, monkeypatch):
    """An empty working folder in which the wheel's package is the one that is found."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(site))
    return folder


BORROWED = {"adapters", "losses", "metrics", "models", "rivals", "schedulers", "statistics.py"}


def files(folder, names=("",)):
    """The contents of the files in a folder, or in those of its entries that are named."""
    paths = [p for n in names for p in [folder / n, *(folder / n).rglob("*")] if p.is_file()]
    return {p.relative_to(folder): p.read_bytes() for p in paths if "__pycache__" not in p.parts}


def test_the_wheel_holds_the_package_and_nothing_of_the_machine(site):
    assert files(site / "lib") == files(ROOT / "lib")
    assert files(site / "variance_study") == files(
        ROOT / "lib", {*BORROWED, "__init__.py", "py.typed"}
    )
    assert {path.name for path in site.iterdir()} == {
        *("lib", "variance_study"), next(site.glob("*.dist-info")).name,
    }  # fmt: skip


def test_the_pages_for_borrowers_import_what_the_second_name_has(site):
    for page in ("README.md", "book/borrow.md"):
        code = "".join(re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S))
        imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
        ours = [node for node in imports if node.module.startswith(("lib.", "variance_study."))]
        assert ours
        for node in ours:
            assert node.module.startswith("variance_study."), node.module
            path = site.joinpath(*node.module.split("."))
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
            names = {alias.name for alias in node.names}
            assert names <= set(re.findall(r"\w+", path.read_text())), node.module


def test_the_core_has_a_second_name_for_projects_with_a_lib(site, tmp_path):
    step = "".join(STEPS.values()) + "import {0}.adapters.open_clip, {0}.statistics\n"
    found = results_elsewhere(step, "variance_study", tmp_path, ROOT / "lib", site)
    assert found == str(results(step))


def test_the_second_name_holds_in_an_editable_installation(sources, tmp_path):
    """There its modules are those of the sources, here of a copy."""
    added = install(sources, tmp_path / "built", "build_editable")
    step = STEPS["losses"] + "import {0}; print({0}.__file__)\n"
    found = results_elsewhere(step, "variance_study", tmp_path, ROOT / "lib", added)
    assert found == f"{sources / 'lib' / '__init__.py'}\n{results(STEPS['losses'])}"


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_alone_with_the_wheel_runs_through_plain_papermill(alone, name, monkeypatch):
    """With the published profile, whose runs are on record, nothing is trained, except on the pages
    on borrowing, whose last digits depend on the machine."""
    monkeypatch.setenv("STUDY_RECORDS", str(ROOT / "book" / "results" / "records"))
    given = json.dumps(dict(load_catalogue(ROOT).profiles["full"].get(name, {})))
    (alone / "one.ipynb").write_bytes((ROOT / "notebooks" / f"{name}.ipynb").read_bytes())
    subprocess.run(
        [sys.executable, "-m", "papermill", "one.ipynb", "out.ipynb", "--no-progress-bar",
         "--log-level", "ERROR", "-y", given],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    if not name.startswith("borrow-"):
        assert shown(alone / "out.ipynb") == shown(ROOT / "book" / "results" / f"{name}.ipynb")
    assert sorted(path.name for path in alone.iterdir()) == ["one.ipynb", "out.ipynb"]


def shown(path):
    """The outputs of each cell."""
    return [cell.get("outputs", []) for cell in nbformat.read(path, as_version=4).cells]


def by_papermill(source, target, name, value):
    words = [str(source), str(target), "--prepare-only", "--no-progress-bar", "-r", name, value]
    result = CliRunner().invoke(papermill_command, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def alone_by_papermill(source, target, name, value):
    Path(source.name).write_bytes(source.read_bytes())
    by_papermill(source.name, target, name, value)


def by_study_run(source, target, name, value):
    words = ["run", source.stem, "-p", name, value, "--root", str(ROOT), "--output", target.parent]
    result = StudyRunner().invoke(app, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.output


BEGIN = """
import json, pathlib, sys
import lib
site, given = sys.argv[1], json.loads(sys.argv[2])
assert pathlib.Path(lib.__file__).is_relative_to(site), lib.__file__
from lib.chapters.shared.checking import ParameterError
for path in sorted(pathlib.Path("prepared").glob("*/*.ipynb")):
    cells = json.loads(path.read_text())["cells"]
    codes = [c for c in cells if c["cell_type"] == "code"]
    place = [i for i, c in enumerate(codes) if "parameters" in c["metadata"].get("tags", [])][0]
    assert "injected-parameters" in codes[place + 1]["metadata"]["tags"], path
    sources = ["".join(c["source"]) for c in codes]
    name, value = given[path.stem]
    values = {"__name__": "__main__"}
    for source in sources[:place + 4]:
        exec(source, values)
    assert getattr(values["parameters"], name) == values[name] == value, path
    assert type(values[name]) is int, path
    try:
        exec(f"{name}z = 1", values)
        exec(sources[place + 2], values)
    except ParameterError as error:
        assert f"did you mean {name!r}" in str(error), path
    else:
        raise AssertionError(f"{path} takes any name")
    print(path.parent.name, path.stem)
"""


WAYS = {"another folder": by_papermill, "alone": alone_by_papermill, "study run": by_study_run}


def test_every_notebook_begins_by_each_way_in(alone, site, monkeypatch):
    """All in one process of the wheel's package. A count is passed as text, as on a command line,
    then a name that does not exist. Except for "alone", the sources are in another folder."""

    def prepare(source, target, parameters, *_):
        papermill.execute_notebook(str(source), str(target), dict(parameters), prepare_only=True)

    monkeypatch.setattr("lib.study.commands.execute", prepare)
    given = {}
    for name in NAMES:
        count, value = next((n, v) for n, v in defaults(name).items() if type(v) is int)
        given[name] = count, value + 1
    for word, way in WAYS.items():
        folder = alone / "prepared" / word
        folder.mkdir(parents=True)
        for name, (count, value) in given.items():
            source = ROOT / "notebooks" / f"{name}.ipynb"
            way(source, folder / source.name, count, str(value))
    done = subprocess.run(
        [sys.executable, "-c", BEGIN, str(site), json.dumps(given)],
        capture_output=True, text=True,
    )  # fmt: skip
    expected = [f"{word} {name}" for word in sorted(WAYS) for name in NAMES]
    assert done.stdout.splitlines() == expected, done.stderr


def test_papermill_from_another_folder_refuses_what_the_check_refuses(alone):
    source = ROOT / "notebooks" / f"{CHEAPEST}.ipynb"
    with pytest.raises(papermill.PapermillExecutionError, match=r"epochs = '1\.5'.*whole number"):
        papermill.execute_notebook(
            str(source), "out.ipynb", {"epochs": "1.5"}, kernel_name="python3", progress_bar=False
        )


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_default_that_the_quick_profile_keeps(name):
    """A notebook run unchanged asks nothing, downloads nothing, and uses a GPU if there is one."""
    values = defaults(name)
    # A page that shows how to borrow, or what was measured before, trains on no corpus.
    assert values.get("corpus", "scenes") == "scenes"
    assert values.get("device", "auto") == "auto"
    source = (ROOT / "notebooks" / f"{name}.ipynb").read_text()
    assert "input(" not in source
    assert load_catalogue(ROOT).profiles["quick"].get(name, {}) == {}


def test_a_container_and_an_editor_are_made_from_the_same_pins():
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert "-r requirements.lock" in dockerfile
    assert "--no-deps --no-build-isolation -e ." in dockerfile
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    built = ROOT / ".devcontainer" / container["build"]["dockerfile"]
    assert built.resolve() == ROOT / "Dockerfile"
    assert f"ARG NB_USER={container['remoteUser']}" in dockerfile
    assert (ROOT / ".dockerignore").is_file()
