"""Completing an installation on a platform that brings its own torch and numpy.

On Colab the package itself is installed without what it needs; this adds the packages that are
missing, and replaces none that is there. It runs before they are there, so it imports none.
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
"""Built for the platform's drivers and for each other: never replaced, even where too old."""


class InstallationError(RuntimeError):
    """The platform's packages don't suffice; the text says which."""


def complete(extra: str = "study") -> list[str]:
    """Install what an extra of this package needs and is missing; return what was asked of pip.

    Whatever is installed keeps its version, but for light packages that are too old.

    Raises:
        InstallationError: torch, torchvision or numpy is missing or too old, or pip fails.
    """
    wanted = requirements(extra)
    installed = {_canonical(d.metadata["Name"]): d.version for d in metadata.distributions()}
    lacking = [
        one
        for one in wanted
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
    """Return what the package and one of its extras need, without markers."""
    from packaging.requirements import Requirement

    found = []
    for line in metadata.requires(PACKAGE) or ():
        one = Requirement(line)
        if one.marker is None or one.marker.evaluate({"extra": extra}):
            one.marker = None
            found.append(one)
    return found


def _canonical(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
