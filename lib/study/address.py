"""The address of the published sources, and the cells and links made from it.

The address is ``Repository`` under ``[project.urls]`` in ``pyproject.toml``. ``study links`` and
the build make the notebooks' setup cells and all links from it; without it there are no links.
"""

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from lib.chapters.parameters import MODELS
from lib.chapters.shared.checking import Parameters, parameters_cell
from lib.utils.files import write_atomic
from lib.utils.version import PACKAGE

SETUP_ID = "setup"
"""Id of the setup cell in every notebook."""
README_BLOCK = re.compile(r"(<!-- study links -->\n).*?(<!-- /study links -->\n)", re.DOTALL)


class AddressError(ValueError):
    """The address, or a file that should hold links, is not usable; the text says what to do."""


@dataclass(frozen=True)
class Address:
    """A published version of the sources.

    Attributes:
        repository: ``https://github.com/OWNER/NAME``.
        tag: The version's tag, such as ``v0.1.0``.
    """

    repository: str
    tag: str

    @property
    def requirement(self) -> str:
        """The requirement by which pip installs this version of the package."""
        return f"{PACKAGE} @ git+{self.repository}@{self.tag}"

    def source(self, notebook: str) -> str:
        """Return the address of a source notebook."""
        return f"{self.repository}/blob/{self.tag}/notebooks/{quote(notebook)}.ipynb"

    def colab(self, notebook: str) -> str:
        """Return the address that opens a source notebook in Colab.

        >>> Address("https://github.com/o/n", "v1").colab("corpus")
        'https://colab.research.google.com/github/o/n/blob/v1/notebooks/corpus.ipynb'
        """
        path = self.source(notebook).removeprefix("https://github.com/")
        return f"https://colab.research.google.com/github/{path}"

    def binder(self, notebook: str) -> str:
        """Return the address that opens a source notebook in Binder."""
        name = self.repository.removeprefix("https://github.com/")
        path = quote(f"lab/tree/notebooks/{notebook}.ipynb", safe="")
        return f"https://mybinder.org/v2/gh/{name}/{self.tag}?urlpath={path}"


def read_address(root: Path) -> Address | None:
    """Return the address in ``pyproject.toml`` in ``root``, or None if there is none.

    Raises:
        AddressError: The file is malformed, or the address is not a repository on GitHub, from
            which Colab and Binder open notebooks.
    """
    path = root / "pyproject.toml"
    if not path.is_file():
        return None
    try:
        project = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    except tomllib.TOMLDecodeError as error:
        raise AddressError(f"{path} is malformed: {error}") from error
    address = project.get("urls", {}).get("Repository")
    if not address:
        return None
    match = re.fullmatch(r"(https://github\.com/[\w.-]+/[\w.-]+?)(\.git)?/?", address)
    if match is None:
        raise AddressError(
            f"{path}: Repository is {address!r}; write https://github.com/OWNER/NAME, which is "
            "where Colab and Binder open notebooks from"
        )
    return Address(match[1], f"v{project['version']}")


def setup_cell(address: Address | None) -> str:
    """Return the first code cell of every notebook: it installs the package if it is missing."""
    # Papermill would take names without an underscore for parameters. A folder without __init__.py
    # gives way to an installed package, but comes before an editable installation.
    another = "_paths and not _ours" if address is None else "_paths and _spec.origin and not _ours"
    begin = (
        "# Opened alone, as on Colab, the notebook gets its package here; else this does nothing.\n"
        "from importlib.util import find_spec\n"
        "from pathlib import Path\n\n"
        '_spec = find_spec("lib")\n'
        "_paths = list(_spec.submodule_search_locations or [_spec.origin]) if _spec else []\n"
        '_rooms = ("chapters", "schedulers")\n'
        "_ours = any(all(Path(_path, _room).is_dir() for _room in _rooms) for _path in _paths)\n"
        f"if {another}:\n"
        "    raise ImportError(\n"
        '        f"another package called lib comes first: {_paths[0]}; open the notebook in a "\n'
        '        "folder and an environment without it"\n'
        "    )\n"
        "if not _ours:\n"
    )
    if address is None:
        return begin + (
            "    raise ModuleNotFoundError(\n"
            "        \"the study's package is missing: in a copy of its sources, "
            "pip install '.[study]'\"\n"
            "    )"
        )
    return begin + (
        "    import importlib\n"
        "    import subprocess\n"
        "    import sys\n\n"
        f'    _package = "{address.requirement}"\n'
        '    _pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", _package]\n'
        "    subprocess.run(_pip, check=True)\n"
        "    importlib.invalidate_caches()\n"
        "    from lib.study.install import complete\n\n"
        "    complete()"
    )


def readme_links(address: Address | None, notebooks: list[str]) -> str:
    """Return the README's lines on opening notebooks elsewhere, "" without an address."""
    if address is None:
        return ""
    rows = [
        f"| [{name}]({address.source(name)}) | [Colab]({address.colab(name)}) "
        f"| [Binder]({address.binder(name)}) |"
        for name in notebooks
    ]
    table = ["| notebook | | |", "|---|---|---|", *rows]
    install = f"`pip install '{address.requirement.replace(PACKAGE, PACKAGE + '[study]', 1)}'`"
    return "\n".join([f"Without a clone: {install}, or", "", *table, ""])


def write_links(root: Path, notebooks: list[str]) -> list[Path]:
    """Rewrite the setup and parameters cells of ``notebooks``, and the README's links.

    The setup cell and the links follow from the address, the parameters cell from the model of the
    notebook's parameters. Returns the files that have changed.

    Raises:
        AddressError: As :func:`read_address`; or the README lacks the lines around the links.
    """
    address = read_address(root)
    changed = []
    for name in notebooks:
        path = root / "notebooks" / f"{name}.ipynb"
        before = path.read_text(encoding="utf-8")
        after = _with_cells(before, setup_cell(address), MODELS.get(name))
        if after != before:
            write_atomic(path, after)
            changed.append(path)
    readme = root / "README.md"
    before = readme.read_text(encoding="utf-8")
    if not README_BLOCK.search(before):
        raise AddressError(f"{readme} has no <!-- study links --> and <!-- /study links --> lines")
    links = readme_links(address, notebooks)
    after = README_BLOCK.sub(lambda match: match[1] + links + match[2], before)
    if after != before:
        write_atomic(readme, after)
        changed.append(readme)
    return changed


def _with_cells(text: str, setup_source: str, model: type[Parameters] | None) -> str:
    """Return a notebook with ``setup_source`` before its first code cell, and the parameters of
    ``model`` in the cell tagged ``parameters``."""
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if cell.get("id") != SETUP_ID]
    first = next(i for i, cell in enumerate(cells) if cell["cell_type"] == "code")
    setup = {
        "cell_type": "code",
        "execution_count": None,
        "id": SETUP_ID,
        # The book does not show this cell.
        "metadata": {"tags": ["remove-cell"]},
        "outputs": [],
        "source": setup_source.splitlines(keepends=True),
    }
    for cell in cells:
        if model is not None and "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = parameters_cell(model).splitlines(keepends=True)
    notebook["cells"] = [*cells[:first], setup, *cells[first:]]
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
