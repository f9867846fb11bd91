"""Shell completion of notebooks, profiles, parameters and executors.

``study --install-completion`` installs it for bash, zsh, fish or PowerShell.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

from lib.chapters.parameters import MODELS
from lib.study.catalogue import StudyError, find_root, notebook_paths, profile_names


def notebooks(incomplete: str) -> list[str]:
    """Return the matching notebooks of the study around the working folder."""
    return _of_the_study(notebook_paths, incomplete)


def profiles(incomplete: str) -> list[str]:
    """Return the matching profiles of the study around the working folder."""
    return _of_the_study(profile_names, incomplete)


def parameters(incomplete: str) -> list[str]:
    """Return the matching parameters of all notebooks."""
    names = {name: None for model in MODELS.values() for name in model.model_fields}
    return _beginning(names, incomplete)


def executors(incomplete: str) -> list[str]:
    """Return the matching names of executors, some to be continued with a number or address."""
    return _beginning(("serial", "processes", "processes:", "threads", "dask://"), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _of_the_study(names: Callable[[Path], Iterable[str]], incomplete: str) -> list[str]:
    # Not load_catalogue: its checks of values need a second of imports.
    try:
        return _beginning(names(find_root(Path.cwd())), incomplete)
    except StudyError:
        return []
