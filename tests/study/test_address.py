"""The project's address, and what follows from it: links, and the set-up cell of notebooks."""

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote

import packaging
import pytest

from lib.chapters.parameters import check, defaults
from lib.study.address import (
    Address,
    AddressError,
    read_address,
    readme_links,
    setup_cell,
    write_links,
)
from lib.study.install import InstallationError, complete, requirements

ADDRESS = Address("https://github.com/someone/a-study", "v0.1.0")
ROOT = Path(__file__).resolve().parent.parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture
def published(tmp_path):
    """The study's sources with an address in pyproject.toml."""
    root = tmp_path / "study"
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copy(ROOT / "README.md", root)
    project = (ROOT / "pyproject.toml").read_text()
    assert project.count("[project.urls]\n") == 1
    (root / "pyproject.toml").write_text(
        project.replace(
            "[project.urls]\n", f'[project.urls]\nRepository = "{ADDRESS.repository}"\n'
        )
    )
    return root


def names(root):
    return [path.stem for path in sorted((root / "notebooks").glob("*.ipynb"))]


def setup_source(path):
    cells = json.loads(path.read_text())["cells"]
    return "".join(next(cell for cell in cells if cell["cell_type"] == "code")["source"])


def test_the_sources_have_the_links_and_cells_of_the_address():
    """If this fails, run `study links`."""
    address = read_address(ROOT)
    for path in NOTEBOOKS:
        assert setup_source(path) == setup_cell(address), path
        assert "google.colab" not in path.read_text()  # No notebook mounts a drive.
    block = re.search(r"<!-- study links -->\n(.*?)<!-- /study links -->", readme(), re.DOTALL)
    catalogue = [p.stem for p in NOTEBOOKS]
    assert sorted(block[1].splitlines()) == sorted(readme_links(address, catalogue).splitlines())


def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_without_an_address_the_sources_have_no_link():
    if read_address(ROOT) is not None:
        pytest.skip("the sources have an address")
    for text in (readme(), *(path.read_text() for path in NOTEBOOKS)):
        assert "colab.research" not in text
        assert "mybinder" not in text
        assert "git+http" not in text


def test_the_address_is_read_from_pyproject(published):
    assert read_address(published) == ADDRESS
    project = published / "pyproject.toml"
    for written in (f"{ADDRESS.repository}.git", f"{ADDRESS.repository}/"):
        project.write_text(
            f'[project]\nversion = "0.1.0"\n[project.urls]\nRepository = "{written}"'
        )
        assert read_address(published) == ADDRESS
    for wrong in ("https://example.org/o/n", "github.com/o/n", "https://github.com/o"):
        project.write_text(f'[project]\nversion = "1"\n[project.urls]\nRepository = "{wrong}"')
        with pytest.raises(AddressError, match=r"https://github\.com/OWNER/NAME"):
            read_address(published)
    project.unlink()
    assert read_address(published) is None


def test_every_link_names_a_notebook_that_exists_at_the_tag(published):
    """Each link has the address's owner, repository and tag, and the path of a published file."""
    changed = write_links(published, names(published))
    assert {path.name for path in changed} == {*(p.name for p in NOTEBOOKS), "README.md"}
    assert write_links(published, names(published)) == []
    texts = [(published / "README.md").read_text(), *(p.read_text() for p in NOTEBOOKS)]
    links = re.findall(r"\]\((https://[^)]+)\)", texts[0])
    launch = [link for link in links if "colab" in link or "mybinder" in link]
    assert len(launch) == 2 * len(NOTEBOOKS)
    opened = set()
    for link in launch:
        place = re.fullmatch(
            r"https://colab\.research\.google\.com/github/someone/a-study/blob/v0\.1\.0/(.+)"
            r"|https://mybinder\.org/v2/gh/someone/a-study/v0\.1\.0\?urlpath=lab%2Ftree%2F(.+)",
            link,
        )
        path = unquote(place[1] or place[2])
        assert path.endswith(".ipynb")
        assert (ROOT / path).is_file(), path
        opened.add(path)
    assert opened == {f"notebooks/{path.name}" for path in NOTEBOOKS}
    assert ADDRESS.requirement == "variance-study @ git+https://github.com/someone/a-study@v0.1.0"
    for path in sorted((published / "notebooks").glob("*.ipynb")):
        assert ADDRESS.requirement in setup_source(path)


def test_links_without_an_address_again_restore_every_notebook(published):
    before = {path.name: path.read_text() for path in (published / "notebooks").glob("*.ipynb")}
    write_links(published, names(published))
    project = published / "pyproject.toml"
    project.write_text(project.read_text().replace("Repository = ", "# "))
    write_links(published, names(published))
    for name, text in before.items():
        assert (published / "notebooks" / name).read_text() == text


def test_a_readme_without_a_place_for_links_is_refused(published):
    (published / "README.md").write_text("# Nothing\n")
    with pytest.raises(AddressError, match="has no <!-- study links -->"):
        write_links(published, [])


FAKE_PIP = """
import json, pathlib, shutil, sys
here = pathlib.Path(__file__).parent.parent
with open(here / "asked.jsonl", "a") as log:
    words = sys.argv[1:]
    if "-c" in words:
        words[words.index("-c") + 1] = pathlib.Path(words[words.index("-c") + 1]).read_text()
    log.write(json.dumps(words) + chr(10))
for name in ("lib", "variance_study-0.1.0.dist-info"):
    if (here / "wheel" / name).exists():
        shutil.copytree(here / "wheel" / name, here / name, dirs_exist_ok=True)
"""


@pytest.fixture
def platform(tmp_path):
    """A platform with torch, numpy and papermill, and with a pip that logs its arguments."""
    site = tmp_path / "site"
    (site / "pip").mkdir(parents=True)
    (site / "pip" / "__init__.py").touch()
    (site / "pip" / "__main__.py").write_text(FAKE_PIP)
    brought = {"torch": "2.5.1+cu121", "numpy": "2.0.2", "altair": "4.2.2", "pandas": "2.2.2"}
    for name, version in brought.items():
        distribution(site, name, version)
    wheel = site / "wheel"
    shutil.copytree(ROOT / "lib", wheel / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    needs = ["torch>=2.4", *(f'{n}; extra == "study"' for n in ("altair>=5.5", "numpy>=1.26",
             "loky>=3.4", "pandas>=2.2")), 'mypy; extra == "test"']  # fmt: skip
    distribution(wheel, "variance_study", "0.1.0", *needs)
    shutil.copytree(Path(packaging.__file__).parent, site / "packaging")
    return site


def distribution(folder, name, version, *needs):
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    lines = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {n}" for n in needs)]))


def alone(source, folder, site):
    """Run a cell in an empty folder, in a Python that has only the packages of ``site``."""
    folder.mkdir(exist_ok=True)
    environment = {"PYTHONPATH": str(site), "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-S", "-c", source],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip


def test_without_an_address_the_cell_stops_and_names_the_command_to_run(tmp_path, platform):
    result = alone(setup_cell(None), tmp_path / "empty", platform)
    assert result.returncode == 1
    assert result.stderr.splitlines()[-1].startswith("ModuleNotFoundError: the study's package")
    assert "pip install '.[study]'" in result.stderr
    assert not (platform / "asked.jsonl").exists()


def test_the_cell_installs_its_version_once_and_replaces_no_heavy_package(tmp_path, platform):
    # A folder called lib beside the notebook is not the package.
    (tmp_path / "empty" / "lib").mkdir(parents=True)
    cell = setup_cell(ADDRESS)
    result = alone(cell, tmp_path / "empty", platform)
    assert result.returncode == 0, result.stderr
    asked = [json.loads(line) for line in (platform / "asked.jsonl").read_text().splitlines()]
    assert asked[0] == ["install", "--quiet", "--no-deps", ADDRESS.requirement]
    assert asked[1][:3] == ["install", "--quiet", "-c"]
    # Missing packages and light ones that are too old are installed; others keep their versions.
    assert asked[1][4:] == ["altair>=5.5", "loky>=3.4"]
    held = asked[1][3].split()
    assert {"torch==2.5.1+cu121", "numpy==2.0.2", "pandas==2.2.2"} <= set(held)
    assert not any(line.startswith("altair") for line in held)
    assert alone(cell, tmp_path / "empty", platform).returncode == 0
    assert len((platform / "asked.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("address", [None, ADDRESS])
@pytest.mark.parametrize("file", ["lib.py", "lib/__init__.py", "lib/schedulers/a.py", "lib/a.py"])
def test_another_package_called_lib_is_named_by_its_path(tmp_path, platform, address, file):
    path = tmp_path / "project" / file
    path.parent.mkdir(parents=True)
    path.touch()
    if file == "lib/schedulers/a.py":
        # Part of this package was copied into the other project's lib.
        (tmp_path / "project" / "lib" / "__init__.py").touch()
    result = alone(setup_cell(address), tmp_path / "project", platform)
    if file == "lib/a.py" and address:
        # The installed package comes before a folder without __init__.py.
        assert result.returncode == 0, result.stderr
        return
    theirs = tmp_path / "project" / Path(file).parts[0]
    assert result.stderr.splitlines()[-1] == (
        f"ImportError: another package called lib comes first: {theirs}; open the notebook in a "
        "folder and an environment without it"
    )
    assert not (platform / "asked.jsonl").exists()


def module(site, name, version, *lines, owner=None):
    """Put a module into ``site``, of a distribution ``owner`` of the same version."""
    (site / f"{name}.py").write_text("\n".join([f"__version__ = '{version}'", *lines]))
    with (site / f"{owner or name}-{version}.dist-info" / "top_level.txt").open("w") as file:
        file.write(name)


def test_what_the_kernel_has_imported_is_not_replaced(tmp_path, platform):
    module(platform, "altair", "4.2.2")
    module(platform, "pandas", "2.2.2")
    cell = setup_cell(ADDRESS)
    result = alone(f"import altair, pandas\n{cell}", tmp_path / "empty", platform)
    last = result.stderr.splitlines()[-1]
    assert "imported altair in another version than altair>=5.5" in last
    assert "restart the kernel" in last
    assert len((platform / "asked.jsonl").read_text().splitlines()) == 1  # The package itself.
    # The line that the message gives replaces it, outside the kernel.
    command = last.split("!")[1].split("  ,")[0].replace('"', "").split()
    assert command == [sys.executable, "-m", "lib.study.install"]
    run = "import runpy; runpy.run_module('lib.study.install', run_name='__main__')"
    result = alone(run, tmp_path / "empty", platform)
    assert result.returncode == 0, result.stderr
    asked = json.loads((platform / "asked.jsonl").read_text().splitlines()[-1])
    assert asked[4:] == ["altair>=5.5", "loky>=3.4"]
    assert "pandas==2.2.2" in asked[3].split()


def test_what_is_imported_and_fits_is_held(tmp_path, platform):
    module(platform, "altair", "4.2.2")
    module(platform, "pandas", "2.2.2")
    result = alone(f"import pandas\n{setup_cell(ADDRESS)}", tmp_path / "empty", platform)
    assert result.returncode == 0, result.stderr
    asked = json.loads((platform / "asked.jsonl").read_text().splitlines()[-1])
    assert asked[4:] == ["altair>=5.5", "loky>=3.4"]
    assert "pandas==2.2.2" in asked[3].split()


def test_a_package_that_is_newer_than_its_import_asks_for_a_restart(tmp_path, platform):
    """As after an installation in an earlier cell."""
    module(platform, "pandas", "2.2.2")
    stale = "import pandas\npandas.__version__ = '1.5.3'\n"
    result = alone(stale + setup_cell(ADDRESS), tmp_path / "empty", platform)
    assert "imported pandas in another version than pandas>=2.2" in result.stderr
    shutil.rmtree(platform / "lib")  # Else the cell does nothing.
    unknown = "import pandas\npandas.__version__ = 'unknown'\n"
    result = alone(unknown + setup_cell(ADDRESS), tmp_path / "empty", platform)
    assert result.returncode == 0, result.stderr


def test_a_module_may_have_another_name_than_its_package(tmp_path, platform):
    shutil.rmtree(platform / "altair-4.2.2.dist-info")
    distribution(platform, "Altair", "4.2.2")
    module(platform, "charts", "4.2.2", owner="Altair")
    result = alone(f"import charts\n{setup_cell(ADDRESS)}", tmp_path / "empty", platform)
    assert "imported altair in another version" in result.stderr


def test_a_platform_whose_torch_is_too_old_is_not_changed(tmp_path, platform):
    shutil.rmtree(platform / "torch-2.5.1+cu121.dist-info")
    distribution(platform, "torch", "2.0.0")
    result = alone(setup_cell(ADDRESS), tmp_path / "empty", platform)
    assert "this platform lacks torch>=2.4" in result.stderr
    assert len((platform / "asked.jsonl").read_text().splitlines()) == 1


def test_beside_the_package_the_cell_installs_nothing_and_adds_no_parameter(monkeypatch):
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something is installed"))
    for address in (None, ADDRESS):
        values = dict(defaults("corpus"))
        exec(setup_cell(address), values)
        check("corpus", values)
    # If the cell has installed something, it adds no parameter either.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: None)
    monkeypatch.setattr("lib.study.install.complete", lambda: [])
    values = dict(defaults("corpus"))
    exec(setup_cell(ADDRESS), values)
    check("corpus", values)


def test_this_environment_lacks_no_package(monkeypatch):
    try:
        found = {one.name for one in requirements("study")}
    except metadata.PackageNotFoundError:
        pytest.skip("the package is not installed, its sources are on the path")
    assert {"torch", "papermill", "pandas"} <= found
    assert "mypy" not in found
    monkeypatch.setattr("lib.study.install.requirements", lambda extra: [])
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("something is installed"))
    assert complete() == []


def test_the_error_of_a_failing_pip_is_quoted(monkeypatch):
    from packaging.requirements import Requirement

    monkeypatch.setattr(
        "lib.study.install.requirements", lambda extra: [Requirement("no-such-package-of-ours")]
    )
    failed = subprocess.CompletedProcess([], 1, "", "no network")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(InstallationError, match=r"no-such-package-of-ours failed:\nno network"):
        complete()
