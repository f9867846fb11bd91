"""Notebooks that are opened alone, with only the wheel installed, in a folder with nothing else.

``study run`` on all of them, from another folder, is in test_published.py; here one goes through
plain papermill to its end, and of the others the cells before the work are run.
"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import nbformat
import papermill
import pytest

from lib.parameters import defaults
from lib.study.catalogue import load_catalogue

ROOT = Path(__file__).resolve().parent.parent
NAMES = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
CHEAPEST = "baseline"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """What an installed wheel puts on the path, and none of the study's other files."""
    folder = tmp_path_factory.mktemp("wheel")
    # A copy, since setuptools builds in the sources' own folder.
    sources = tmp_path_factory.mktemp("sources")
    subprocess.run(
        ["cp", "-r", "lib", "pyproject.toml", "README.md", "LICENSE", str(sources)],
        cwd=ROOT, check=True,
    )  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(folder), "."],
        cwd=sources, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


@pytest.fixture
def alone(site, tmp_path, monkeypatch):
    """An empty working folder in which the wheel's package is the one that is found."""
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(site))
    return folder


def test_the_wheel_holds_the_package_and_nothing_of_the_machine(site):
    assert (site / "lib" / "study" / "commands.py").is_file()
    assert (site / "lib" / "py.typed").is_file()
    assert {path.name for path in site.iterdir()} == {"lib", next(site.glob("*.dist-info")).name}


def test_a_notebook_alone_with_the_wheel_runs_through_plain_papermill(alone, site, monkeypatch):
    """At the published profile, whose runs are on record, so that none is trained."""
    monkeypatch.setenv("STUDY_RECORDS", str(ROOT / "book" / "results" / "records"))
    profile = load_catalogue(ROOT).profiles["full"][CHEAPEST]
    given = json.dumps(dict(profile))
    (alone / "one.ipynb").write_bytes((ROOT / "notebooks" / f"{CHEAPEST}.ipynb").read_bytes())
    subprocess.run(
        [sys.executable, "-m", "papermill", "one.ipynb", "out.ipynb", "--no-progress-bar",
         "--log-level", "ERROR", "-y", given],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    published = ROOT / "book" / "results" / f"{CHEAPEST}.ipynb"
    assert shown(alone / "out.ipynb") == shown(published)
    assert sorted(path.name for path in alone.iterdir()) == ["one.ipynb", "out.ipynb"]


def shown(path):
    """The outputs of each cell."""
    return [cell.get("outputs", []) for cell in nbformat.read(path, as_version=4).cells]


def test_every_notebook_begins_alone_with_the_wheel(alone, site):
    """Set-up, parameters, check and imports of each, in one process, as papermill would give them:
    a safe value as text, then a name that does not exist."""
    for name in NAMES:
        (alone / f"{name}.ipynb").write_bytes((ROOT / "notebooks" / f"{name}.ipynb").read_bytes())
    code = f"""
import json, pathlib
import lib
assert pathlib.Path(lib.__file__).is_relative_to({str(site)!r}), lib.__file__
from lib.parameters import ParameterError, defaults
for name in {NAMES!r}:
    cells = json.loads(pathlib.Path(name + ".ipynb").read_text())["cells"]
    codes = [c for c in cells if c["cell_type"] == "code"]
    place = [i for i, c in enumerate(codes) if "parameters" in c["metadata"].get("tags", [])][0]
    sources = ["".join(c["source"]) for c in codes]
    count, value = next((n, v) for n, v in defaults(name).items() if type(v) is int)
    # Set-up, parameters, what papermill injects, the check, the imports.
    injected = f'{{count}} = "{{value + 1}}"'
    values = {{"__name__": "__main__"}}
    for source in [*sources[:place + 1], injected, *sources[place + 1:place + 3]]:
        exec(source, values)
    assert getattr(values["parameters"], count) == values[count] == value + 1, name
    try:
        exec(f"{{count}}z = 1", values)
        exec(sources[place + 1], values)
    except ParameterError as error:
        assert f"did you mean {{count!r}}" in str(error), name
    else:
        raise AssertionError(name + " takes any name")
print("all")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "all\n", done.stderr


def test_papermill_from_another_folder_refuses_what_the_check_refuses(alone):
    source = ROOT / "notebooks" / f"{CHEAPEST}.ipynb"
    with pytest.raises(papermill.PapermillExecutionError, match=r"epochs = '1\.5'.*whole number"):
        papermill.execute_notebook(
            str(source), "out.ipynb", {"epochs": "1.5"}, kernel_name="python3", progress_bar=False
        )


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_has_a_default_that_the_quick_profile_keeps(name):
    """Run as it stands, a notebook asks nothing, downloads nothing and takes the GPU if any."""
    values = defaults(name)
    assert values["corpus"] == "scenes"
    assert values["device"] == "auto"
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
