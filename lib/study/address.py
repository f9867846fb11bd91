"""Where the sources are published, and everything that follows from it.

The address is written once, as ``Repository`` under ``[project.urls]`` in ``pyproject.toml``. The
notebooks' setup cell, the README's links and the book's are made from it by ``study links`` and by
the build. While there is none, nothing points anywhere.
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
    """The address, or a file that is to carry it, is not usable; the text says what to do."""


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
    def _path(self) -> str:
        return self.repository.removeprefix("https://github.com/")

    @property
    def requirement(self) -> str:
        """What pip installs: the package at this very version."""
        return f"{PACKAGE} @ git+{self.repository}@{self.tag}"

    def source(self, notebook: str) -> str:
        """Return where a source notebook can be read."""
        return f"{self.repository}/blob/{self.tag}/notebooks/{quote(notebook)}.ipynb"

    def colab(self, notebook: str) -> str:
        """Return where it opens in Colab.

        >>> Address("https://github.com/o/n", "v1").colab("corpus")
        'https://colab.research.google.com/github/o/n/blob/v1/notebooks/corpus.ipynb'
        """
        place = self.source(notebook).removeprefix("https://github.com/")
        return f"https://colab.research.google.com/github/{place}"

    def binder(self, notebook: str) -> str:
        """Return where it opens in Binder."""
        path = quote(f"lab/tree/notebooks/{notebook}.ipynb", safe="")
        return f"https://mybinder.org/v2/gh/{self._path}/{self.tag}?urlpath={path}"


def read_address(root: Path) -> Address | None:
    """Return the address that ``pyproject.toml`` in ``root`` gives, None while it gives none.

    Raises:
        AddressError: The file is malformed, or the address is no repository on GitHub, which is
            where Colab and Binder open notebooks from.
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
    found = re.fullmatch(r"(https://github\.com/[\w.-]+/[\w.-]+?)(\.git)?/?", address)
    if found is None:
        raise AddressError(
            f"{path}: Repository is {address!r}; write https://github.com/OWNER/NAME, which is "
            "where Colab and Binder open notebooks from"
        )
    return Address(found[1], f"v{project['version']}")


def setup_cell(address: Address | None) -> str:
    """Return the first code cell of every notebook, which gets the package where it is missing."""
    # Names without an underscore would be taken for parameters. A folder without __init__.py gives
    # way to an installed package, but comes before one that is installed as editable.
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
    """Write the notebooks' setup and parameters cells, and the README's links, anew.

    The setup cell and the links follow from the address, the parameters cell from the model of the
    notebook's parameters.

    Args:
        root: The study's folder.
        notebooks: The names of its notebooks, in order.

    Returns:
        The files that have changed.

    Raises:
        AddressError: As :func:`read_address`; or the README has no place for the links.
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
    after = README_BLOCK.sub(lambda found: found[1] + links + found[2], before)
    if after != before:
        write_atomic(readme, after)
        changed.append(readme)
    return changed


def _with_cells(text: str, setup_source: str, model: type[Parameters] | None) -> str:
    """Return a notebook with the setup cell before its first code cell, and its model's
    parameters in the cell of that tag; the rest is as it was."""
    notebook = json.loads(text)
    cells = [cell for cell in notebook["cells"] if cell.get("id") != SETUP_ID]
    first = next(i for i, cell in enumerate(cells) if cell["cell_type"] == "code")
    setup = {
        "cell_type": "code",
        "execution_count": None,
        "id": SETUP_ID,
        # A page of the book shows nothing of it.
        "metadata": {"tags": ["remove-cell"]},
        "outputs": [],
        "source": setup_source.splitlines(keepends=True),
    }
    for cell in cells:
        if model is not None and "parameters" in cell["metadata"].get("tags", []):
            cell["source"] = parameters_cell(model).splitlines(keepends=True)
    notebook["cells"] = [*cells[:first], setup, *cells[first:]]
    return json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
