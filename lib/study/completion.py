"""What a shell may complete: notebooks, profiles, parameters and executors.

``study --install-completion`` teaches it to bash, zsh, fish or PowerShell.
"""

from collections.abc import Iterable
from pathlib import Path

from lib.chapters.parameters import MODELS
from lib.chapters.shared.checking import ParameterError
from lib.study.catalogue import Catalogue, StudyError, find_root, load_catalogue


def notebooks(incomplete: str) -> list[str]:
    """Return the notebooks of the study around the working folder."""
    catalogue = _catalogue()
    return _beginning(catalogue.notebooks if catalogue else (), incomplete)


def profiles(incomplete: str) -> list[str]:
    """Return its profiles."""
    catalogue = _catalogue()
    return _beginning(catalogue.profiles if catalogue else (), incomplete)


def parameters(incomplete: str) -> list[str]:
    """Return every parameter of any notebook."""
    names = {name: None for model in MODELS.values() for name in model.model_fields}
    return _beginning(names, incomplete)


def executors(incomplete: str) -> list[str]:
    """Return the beginnings of executors' names."""
    return _beginning(("serial", "processes", "processes:", "threads", "dask://"), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _catalogue() -> Catalogue | None:
    try:
        return load_catalogue(find_root(Path.cwd()))
    except (StudyError, ParameterError):
        return None
