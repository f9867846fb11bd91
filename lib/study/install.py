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
    """A package of the platform is missing or too old, a package in use does not fit, or pip
    failed; the text says which."""


def complete(extra: str = "study") -> list[str]:
    """Install the missing requirements of an extra of this package; return what pip was given.

    Installed packages keep their version, except those that are too old, not in :data:`PLATFORM`
    and not imported: a running process that has imported a part of a package would get its other
    parts from the new version.

    Raises:
        InstallationError: torch, torchvision or numpy is missing or too old, a package that does
            not fit is imported, or pip fails.
    """
    installed: dict[str, str] = {}
    for found in metadata.distributions():
        # The first on the path is the one that is imported.
        installed.setdefault(_canonical(found.metadata["Name"] or ""), found.version)
    needed = requirements(extra)
    lacking = [
        one
        for one in needed
        if (version := installed.get(_canonical(one.name))) is None
        or not one.specifier.contains(version, prereleases=True)
    ]
    heavy = [str(one) for one in lacking if one.name in PLATFORM]
    if heavy:
        raise InstallationError(
            f"this platform lacks {', '.join(heavy)}; it is left as it is, since its parts were "
            "built to fit together: use a newer one"
        )
    imported = _imported()
    misfits = [
        one
        for one in needed
        if (versions := imported.get(_canonical(one.name))) is not None
        # A newer version may have been installed since the import.
        and (one in lacking or not all(_fits(one, version) for version in versions))
    ]
    if misfits:
        # A process of its own has imported nothing.
        raise InstallationError(
            f"this kernel has imported {', '.join(one.name for one in misfits)} in another version "
            f"than {', '.join(map(str, misfits))}; nothing is replaced while it is in use: run  "
            f'!"{sys.executable}" -m lib.study.install  , restart the kernel, and start here again'
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


def _imported() -> dict[str, set[str]]:
    """Return the versions that this process has imported, by package; none if it does not say."""
    versions: dict[str, set[str]] = {}
    for module, owners in metadata.packages_distributions().items():
        if module in sys.modules:
            version = getattr(sys.modules[module], "__version__", None)
            for owner in owners:
                known = {version} if isinstance(version, str) else set()
                versions.setdefault(_canonical(owner), set()).update(known)
    return versions


def _fits(requirement: "Requirement", version: str) -> bool:
    from packaging.version import InvalidVersion, Version

    try:
        return requirement.specifier.contains(Version(version), prereleases=True)
    except InvalidVersion:  # As "unknown".
        return True


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")


if __name__ == "__main__":
    try:
        complete()
    except InstallationError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
