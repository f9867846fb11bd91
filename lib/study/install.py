"""Installation of the study's requirements on a platform with its own torch and numpy.

Colab installs the package without its requirements. This module adds those that are missing, so it
imports none of them.
"""

import importlib
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from lib.utils.version import PACKAGE

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PLATFORM = ("torch", "torchvision", "numpy")
"""Built for the platform's drivers and for each other: never replaced, even if too old."""


class InstallationError(RuntimeError):
    """A package of the platform is missing or too old, or pip failed; the text says which."""


def complete(extra: str = "study") -> list[str]:
    """Install the missing requirements of an extra of this package; return what pip was given.

    Installed packages keep their version, except those that are too old and not in
    :data:`PLATFORM`.

    Raises:
        InstallationError: torch, torchvision or numpy is missing or too old, or pip fails.
    """
    installed = {_canonical(d.metadata["Name"]): d.version for d in metadata.distributions()}
    lacking = [
        one
        for one in requirements(extra)
        if (version := installed.get(_canonical(one.name))) is None
        or not one.specifier.contains(version, prereleases=True)
    ]
    heavy = [str(one) for one in lacking if one.name in PLATFORM]
    if heavy:
        raise InstallationError(
            f"this platform lacks {', '.join(heavy)}; it is left as it is, since its parts were "
            "built to fit together: use a newer one"
        )
    if not lacking:
        return []
    replaced = {_canonical(one.name) for one in lacking}
    kept = [f"{name}=={version}" for name, version in installed.items() if name not in replaced]
    asked = [str(one) for one in lacking]
    with tempfile.TemporaryDirectory() as folder:
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text("\n".join(sorted(kept)) + "\n", encoding="utf-8")
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "-c", str(constraints), *asked]
        done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InstallationError(f"pip install {' '.join(asked)} failed:\n{done.stderr.strip()}")
    importlib.invalidate_caches()
    return asked


def requirements(extra: str) -> "list[Requirement]":
    """Return the requirements of the package and one of its extras, without markers."""
    from packaging.requirements import Requirement

    needed = []
    for requirement in map(Requirement, metadata.requires(PACKAGE) or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            requirement.marker = None
            needed.append(requirement)
    return needed


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
