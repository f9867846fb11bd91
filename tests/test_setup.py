"""The set-up: consistent pins, and an environment that is made once."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib

import adapters_matrix
import mutants
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PINS = re.compile(r"([a-z0-9.-]+)==(\S+)")


@pytest.fixture(scope="module")
def project(request):
    return tomllib.loads((request.config.rootpath / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def lock(request):
    """The pinned version of each package."""
    lines = (request.config.rootpath / "requirements.lock").read_text().splitlines()
    pins = [PINS.fullmatch(line) for line in lines if line and not line.startswith("#")]
    assert all(pins), "every line of requirements.lock is NAME==VERSION"
    return {pin[1]: Version(pin[2]) for pin in pins}


def wanted(project, *but):
    """Yield the requirements in pyproject.toml, including those of its extras except ``but``."""
    extras = project["optional-dependencies"]
    groups = [project["dependencies"], *(extras[name] for name in extras if name not in but)]
    for requirement in (Requirement(line) for group in groups for line in group):
        if requirement.name != project["name"]:
            yield requirement


def test_names_in_the_lock_are_in_order_and_no_two_are_the_same(root):
    lines = [x for x in (root / "requirements.lock").read_text().splitlines() if "==" in x]
    names = [line.split("==")[0] for line in lines]
    assert names == sorted(set(map(canonicalize_name, names)))


def test_the_lock_pins_all_that_the_project_asks_for(project, lock):
    """Except for the extras of `make bench`, `coverage` and `mutants`, which install them."""
    for requirement in wanted(project, "guard", "bench"):
        name = canonicalize_name(requirement.name)
        assert name in lock, f"{name} is not pinned"
        assert requirement.specifier.contains(lock[name]), f"{requirement} and {lock[name]}"


def test_the_project_asks_for_lower_bounds_and_pins_nothing(project):
    for requirement in wanted(project):
        assert {s.operator for s in requirement.specifier} <= {">=", "<"}, requirement


def test_the_lock_leaves_the_parts_of_cuda_to_torch(lock):
    assert not [n for n in lock if n.startswith(("nvidia-", "cuda-")) or n == "triton"]
    assert (lock["torch"], lock["torchvision"]) == (Version("2.14.1"), Version("0.29.1"))


def test_jupyter_book_is_of_the_first_line(project, lock):
    assert lock["jupyter-book"].major == 1
    (asked,) = (one for one in wanted(project) if one.name == "jupyter-book")
    assert not asked.specifier.contains("2.0.0")


def test_the_lock_can_build_the_project_without_fetching(root, lock):
    needs = tomllib.loads((root / "pyproject.toml").read_text())["build-system"]["requires"]
    for requirement in map(Requirement, needs):
        assert requirement.specifier.contains(lock[canonicalize_name(requirement.name)])


def test_conda_users_get_the_same_versions(root, project):
    environment = yaml.safe_load((root / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}
    assert conda == ["python=3.11", "pip"]
    assert Requirement(f"python{project['requires-python']}").specifier.contains("3.11")
    assert environment["channels"] == ["conda-forge"]


def test_the_container_is_made_of_what_is_here(root, project):
    """No daemon is needed to see that the sources exist, the Python is the one of the conda
    environment, and Binder's conditions hold: its user's name and number, no root at the end."""
    text = (root / "Dockerfile").read_text().replace("\\\n", " ")
    instructions = [line.split() for line in text.splitlines() if line[:1].isupper()]
    ignored = (root / ".dockerignore").read_text().split()
    for copy in (step for step in instructions if step[0] == "COPY"):
        *sources, _ = (word for word in copy[1:] if not word.startswith("--"))
        for source in sources:
            assert (root / source).exists(), source
            assert source not in ignored
    (image,) = (step[1] for step in instructions if step[0] == "FROM")
    python = yaml.safe_load((root / "environment.yml").read_text())["dependencies"][0]
    assert image == f"{python.replace('=', ':')}-slim"
    arguments = {step[1].split("=")[0] for step in instructions if step[0] == "ARG"}
    assert arguments >= {"NB_USER", "NB_UID"}
    assert [step for step in instructions if step[0] == "USER"] == [["USER", "${NB_UID}"]]
    assert instructions.index(["USER", "${NB_UID}"]) > max(
        place for place, step in enumerate(instructions) if step[0] in ("RUN", "COPY")
    )
    command = json.loads(text[text.rindex("CMD ") + 4 :])
    assert (root / command[-1].partition("=")[2]).is_dir()


def test_continuous_integration_runs_the_test_command(root):
    script = root / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().rstrip().endswith("\nmake test")
    assert "set -euo pipefail" in script.read_text()


def test_the_matrix_of_versions_tries_every_adapter_and_every_test_of_its_steps(root):
    modules = {path.stem for path in (root / "lib" / "adapters").glob("[!_]*.py")}
    assert set(adapters_matrix.ADAPTERS) == modules
    for requirement in adapters_matrix.bounds().values():
        assert [bound.operator for bound in requirement.specifier] == [">="], requirement
    tests = [
        re.findall(r"^def (test_\w+)", (root / path).read_text(encoding="utf-8"), flags=re.M)
        for path in adapters_matrix.TESTS
    ]
    selected = {
        adapter: {name for name in [*tests[0], *tests[1]] if chosen(library.tests, name)}
        for adapter, library in adapters_matrix.ADAPTERS.items()
    }
    assert all(selected.values())
    assert set(tests[1]) <= set().union(*selected.values())


def chosen(expression, name):
    """Whether pytest's -k chooses a name."""
    return eval(re.sub(r"(?!(?:and|or|not)\b)\b(\w+)", r"('\1' in name)", expression))


def test_what_is_explained_of_mutants_is_of_lines_that_there_are(root):
    """This finds changed lines at once; only `make mutants` shows which mutants survive."""
    found = mutants.explained((root / "tests" / "mutants.md").read_text(encoding="utf-8"))
    assert found
    for function, old, new in found:
        module = function.rsplit(
            ".", 2 if function.split(".")[-2].lstrip("_")[:1].isupper() else 1
        )[0]
        path = root.joinpath("lib", *module.split(".")).with_suffix(".py")
        source = " ".join(path.read_text(encoding="utf-8").split())
        assert old in source, f"{function}: {old} is not in {path}"
        assert old != new


BACKEND = """
import zipfile
def build_editable(directory, config_settings=None, metadata_directory=None):
    name = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(f"{directory}/{name}", "w") as wheel:
        info = "tiny-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1.0\\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr(f"{info}/RECORD", "")
    return name
"""
needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")


@pytest.fixture
def clone(tmp_path, root):
    """A clone with the real Makefile, whose environment is made of nothing but itself."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    shutil.copy(root / "Makefile", folder)
    (folder / "requirements.lock").write_text("# nothing\n")
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "tiny"\nversion = "1.0"\n'
    )
    (folder / "setup.py").touch()
    (folder / "backend.py").write_text(BACKEND)
    return folder


# Stands in for a Python whose environments are made at once: its pip does nothing, and fails when
# the lock asks for that.
QUICK_PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$3/bin" && cp "$0" "$3/bin/python"
elif [ "$1 $2" = "-m pip" ]; then
  ! grep -q broken requirements.lock
else
  exec "{python}" "$@"
fi
"""


@pytest.fixture
def quick_python(tmp_path):
    path = tmp_path / "a quick python"
    path.write_text(QUICK_PYTHON.format(python=sys.executable))
    path.chmod(0o755)
    return path


def make(folder, python, goal="env"):
    return subprocess.run(
        ["make", goal, f"PYTHON={python}"],
        cwd=folder,
        # Under `make test`, its variables would make this make speak as a part of it.
        env={k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))}
        | {"PIP_NO_INDEX": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def steps(result):
    assert result.returncode == 0, result.stdout + result.stderr
    return re.findall(r"^(\d/3 \w+)", result.stdout, flags=re.MULTILINE)


MADE = ["1/3 Making", "2/3 Installing", "3/3 Installing"]
UPDATED = ["1/3 Bringing", "2/3 Installing", "3/3 Installing"]


@needs_make
def test_a_real_environment_is_made_once(clone):
    assert steps(make(clone, sys.executable)) == MADE
    python = clone / ".venv" / "bin" / "python"
    listed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True)
    assert re.search(r"^tiny +1\.0", listed.stdout, flags=re.MULTILINE)

    started = time.monotonic()
    again = make(clone, sys.executable)
    assert (again.returncode, again.stdout) == (0, "")
    assert time.monotonic() - started < 5  # a fraction of a second, on a machine that is not busy


@needs_make
def test_an_environment_is_brought_up_to_date(clone, quick_python):
    assert steps(make(clone, quick_python)) == MADE
    for name in ("requirements.lock", "pyproject.toml", "setup.py"):
        with (clone / name).open("a") as file:
            file.write("# another version\n")
        assert steps(make(clone, quick_python)) == UPDATED
        assert steps(make(clone, quick_python)) == []


@needs_make
def test_an_interrupted_installation_is_done_again(clone, quick_python):
    make(clone, quick_python)
    (clone / "requirements.lock").write_text("broken\n")
    assert make(clone, quick_python).returncode != 0
    (clone / ".venv" / "half-written").touch()
    assert make(clone, quick_python).returncode != 0
    (clone / "requirements.lock").write_text("# nothing\n")
    assert steps(make(clone, quick_python)) == MADE
    assert not (clone / ".venv" / "half-written").exists()


@needs_make
def test_a_clone_that_was_moved_or_copied_gets_a_new_environment(clone, quick_python, tmp_path):
    make(clone, quick_python)
    copied = shutil.copytree(clone, tmp_path / "copied")
    assert steps(make(copied, quick_python)) == MADE
    moved = clone.rename(tmp_path / "moved")
    assert steps(make(moved, quick_python)) == MADE
    assert steps(make(moved, quick_python)) == []


@needs_make
def test_an_environment_whose_python_is_gone_is_made_again(clone, quick_python, tmp_path):
    make(clone, quick_python)
    python = clone / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to(tmp_path / "gone")
    assert steps(make(clone, quick_python)) == MADE


@needs_make
@pytest.mark.parametrize("goal", ["env", "study", "test"])
def test_an_old_python_is_refused_in_words(clone, tmp_path, goal):
    old = tmp_path / "python of old"
    old.write_text(
        f'#!/bin/sh\nexec "{sys.executable}" -c "import sys; sys.version_info = (3, 9, 1)\n$2"\n'
    )
    old.chmod(0o755)
    result = make(clone, old, goal)
    assert result.returncode != 0
    assert "Python 3.11 or newer is needed" in result.stderr
    assert "is 3.9" in result.stderr


@needs_make
def test_no_python_is_said_in_words(clone):
    result = make(clone, "no-such-python")
    assert result.returncode != 0
    assert "There is no no-such-python here" in result.stderr


@needs_make
def test_help_lists_every_command(root):
    result = subprocess.run(["make"], cwd=root, capture_output=True, text=True, check=True)
    phony = re.search(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(), flags=re.MULTILINE)
    for goal in phony[1].split():
        assert re.search(rf"^  make {goal} +\w", result.stdout, flags=re.MULTILINE), goal
