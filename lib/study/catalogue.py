"""The study's notebooks, their parameters, and the profiles."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from lib.chapters.parameters import MODELS, validate
from lib.chapters.shared.checking import ParameterError
from lib.utils.text import did_you_mean
from lib.utils.yaml import YAMLError, read_yaml

Values = dict[str, Any]

PROFILES = "notebooks/profiles.yml"


class StudyError(ValueError):
    """The study's folder, a profile or a name given on the command line is not usable."""


@dataclass(frozen=True)
class Notebook:
    """A source notebook: its name, file, first heading and parameters."""

    name: str
    path: Path
    title: str
    parameters: Mapping[str, FieldInfo]


@dataclass(frozen=True)
class Catalogue:
    """The study in a folder: its notebooks in the order of the book, and its profiles.

    Attributes:
        root: The study's folder.
        notebooks: By name.
        profiles: Per profile and notebook, the parameters that differ from the defaults.
        chapters: The names of the notebooks in the book's table of contents, in its order.
    """

    root: Path
    notebooks: Mapping[str, Notebook]
    profiles: Mapping[str, Mapping[str, Values]]
    chapters: tuple[str, ...]

    def select(self, names: Sequence[str]) -> list[Notebook]:
        """Return the notebooks called ``names``, in the order of the book, each once.

        Raises:
            StudyError: A notebook is unknown.
        """
        wanted = _stems(names)
        for name in sorted(wanted - set(self.notebooks)):
            raise StudyError(
                f"unknown notebook {name!r}{did_you_mean(name, self.notebooks)}; "
                f"the notebooks are: {', '.join(self.notebooks)}"
            )
        return [notebook for name, notebook in self.notebooks.items() if name in wanted]

    def settings(
        self, notebooks: Sequence[Notebook], profile: str, given: Mapping[str, Any]
    ) -> dict[str, Values]:
        """Return the parameters to inject per notebook: the profile's, replaced by ``given``.

        Each notebook that has the parameter gets the value in ``given``.

        Raises:
            StudyError: The profile is unknown, or does not name a notebook.
            ParameterError: A value has the wrong type, or no chosen notebook has the parameter.
        """
        if profile not in self.profiles:
            raise StudyError(
                f"unknown profile {profile!r}{did_you_mean(profile, self.profiles)}; "
                f"the profiles are: {', '.join(self.profiles)}"
            )
        # An empty profile is that of the notebooks' own defaults.
        named = self.profiles[profile]
        for notebook in notebooks if named else []:
            if notebook.name not in named:
                raise StudyError(
                    f"profile {profile!r} does not name {notebook.name}; it names "
                    f"{', '.join(named)}. Choose another profile, or name it in {PROFILES}"
                )
        known = {name for notebook in notebooks for name in notebook.parameters}
        unknown = [name for name in given if name not in known]
        settings = {}
        for notebook in notebooks:
            accepted = {*notebook.parameters, *unknown}
            changed = {**self.profiles[profile].get(notebook.name, {})}
            changed |= {name: value for name, value in given.items() if name in accepted}
            checked = validate(notebook.name, changed)
            settings[notebook.name] = {name: getattr(checked, name) for name in changed}
        return settings


def find_root(start: Path) -> Path:
    """Return the study's folder: ``start`` or the nearest folder above it that holds a study.

    Raises:
        StudyError: No such folder holds a study.
    """
    for folder in (start.absolute(), *start.absolute().parents):
        if (folder / "_toc.yml").is_file() and (folder / "notebooks").is_dir():
            return folder
    raise StudyError(
        f"no study in {start} or above it (a folder with _toc.yml and notebooks/): "
        "go to your clone, or name it with --root"
    )


def load_catalogue(root: Path, only: Iterable[str] | None = None) -> Catalogue:
    """Read the notebooks and profiles of the study in ``root``.

    Args:
        root: The study's folder.
        only: Names or paths of notebooks; default, all. What profiles set for others is not
            checked, which saves the import of the registries that their values are checked against.

    Raises:
        StudyError: A file is missing or malformed.
        ParameterError: A profile sets an unknown parameter or a value of the wrong type.
    """
    paths = notebook_paths(root)
    notebooks = {name: read_notebook(path) for name, path in paths.items()}
    profiles = load_profiles(root / PROFILES, only)
    in_book = tuple(name for name in _toc_names(root / "_toc.yml") if name in paths)
    return Catalogue(root, notebooks, profiles, in_book)


def notebook_paths(root: Path) -> dict[str, Path]:
    """Return each notebook's file by name: those of the book in its order, then the others.

    Raises:
        StudyError: The table of contents can't be read.
    """
    paths = {path.stem: path for path in sorted((root / "notebooks").glob("*.ipynb"))}
    in_book = [name for name in _toc_names(root / "_toc.yml") if name in paths]
    return {name: paths[name] for name in dict.fromkeys([*in_book, *paths])}


def profile_names(root: Path) -> list[str]:
    """Return the names of the profiles, without a check of their values.

    Raises:
        StudyError: The file of the profiles can't be read.
    """
    return list(_mapping(_read_yaml(root / PROFILES), PROFILES))


def load_profiles(path: Path, only: Iterable[str] | None = None) -> dict[str, dict[str, Values]]:
    """Read the profiles in ``path`` and check each name and value that they set for ``only``.

    Raises:
        StudyError: The file is missing, or is not a mapping of profile, notebook and parameter.
        ParameterError: A notebook or parameter is unknown, or a value has the wrong type.
    """
    profiles = _read_yaml(path)
    unchecked = set(MODELS) - _stems(MODELS if only is None else only)
    if not isinstance(profiles, dict):
        raise StudyError(f"{path} must map each profile to its notebooks")
    checked: dict[str, dict[str, Values]] = {}
    for profile, notebooks in profiles.items():
        checked[profile] = {}
        for notebook, values in _mapping(notebooks, f"{path}, {profile}").items():
            values = _mapping(values, f"{path}, {profile}, {notebook}")
            if notebook in unchecked:
                checked[profile][notebook] = values
                continue
            try:
                parameters = validate(notebook, values)
            except ParameterError as error:
                raise ParameterError(f"{path}, profile {profile!r}, {error}") from error
            checked[profile][notebook] = {name: getattr(parameters, name) for name in values}
    return checked


def read_notebook(path: Path) -> Notebook:
    """Read a source notebook's title, without running it; its parameters come from their model.

    Raises:
        StudyError: The file can't be read, or not exactly one cell is tagged ``parameters``.
    """
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
        tags = [tag for cell in cells for tag in cell.get("metadata", {}).get("tags", [])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} is not a readable notebook: {error}") from error
    if tags.count("parameters") != 1:
        raise StudyError(
            f"{path} has {tags.count('parameters')} cells tagged 'parameters'; it needs exactly one"
        )
    prose = (line for kind, text in sources if kind == "markdown" for line in text.splitlines())
    title = next((line.lstrip("# ").strip() for line in prose if line.startswith("#")), path.stem)
    fields = MODELS[path.stem].model_fields if path.stem in MODELS else {}
    return Notebook(path.stem, path, title, fields)


def parse_pairs(pairs: Iterable[str], documents: Iterable[str]) -> Values:
    """Return the parameters in YAML ``documents``, replaced by those in ``name=value`` ``pairs``.

    Raises:
        StudyError: A pair has no ``=``, or a document is not a YAML mapping.

    >>> parse_pairs(["epochs=3"], ["{epochs: 2, seeds: 4}"])
    {'epochs': '3', 'seeds': 4}
    """
    given: Values = {}
    for document in documents:
        try:
            mapping = read_yaml(document)
        except YAMLError as error:
            raise StudyError(f"-y {document!r} is not YAML: {error}") from error
        given.update(_mapping(mapping, f"-y {document!r}"))
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise StudyError(f"-p {name} needs a value: -p {name} VALUE")
        given[name] = value
    return given


def _stems(names: Iterable[str]) -> set[str]:
    """Return the notebooks' names, of names and paths."""
    return {name.removesuffix(".ipynb").rpartition("/")[2] for name in names}


def _toc_names(path: Path) -> Iterator[str]:
    """Yield the names of the files in a table of contents, without folders and suffixes."""
    pending = [_read_yaml(path)]
    while pending:
        node = pending.pop()
        if isinstance(node, Mapping):
            file = node.get("file")
            if isinstance(file, str):
                yield file.rpartition("/")[2].removesuffix(".ipynb")
            pending.extend(value for key, value in reversed(list(node.items())) if key != "file")
        elif isinstance(node, list):
            pending.extend(reversed(node))


def _read_yaml(path: Path) -> Any:
    try:
        return read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise StudyError(f"{path} can't be read: {error}") from error


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise StudyError(f"{place}: expected a mapping of names to values, found {value!r}")
    return value
