"""What `make adapters-matrix` runs: each adapter's tests with two releases of its library, the
oldest and the newest that pyproject.toml admits, in an environment over that of the project.

The tests of one library alone are run: another one may need a newer release of something that an
old one brings along.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("tests/core/test_adapters.py", "tests/core/test_adapters_steps.py")


class Library(NamedTuple):
    """The library of an adapter.

    Attributes:
        name: On PyPI.
        tests: What pytest's -k selects of the adapter's tests.
        beside: Other libraries of these tests, of which pip finds releases that go with the tried
            one.
    """

    name: str
    tests: str
    beside: tuple[str, ...] = ()


ADAPTERS = {
    "accelerate": Library("accelerate", "accelerate"),
    "huggingface": Library(
        "transformers",
        "(trainer or hugging_face or labels_say or checkpoint or new_model or parameter_itself)"
        " and not sentence",
        ("accelerate", "datasets"),
    ),
    "lightning": Library("lightning", "lightning"),
    "metric_learning": Library(
        "pytorch-metric-learning", "metric_learning or reducer or one_label"
    ),
    "open_clip": Library("open-clip-torch", "open_clip or chunks"),
    "sentence_transformers": Library(
        "sentence-transformers",
        "sentence_transformers or evaluator or columns or second_argument",
        ("accelerate", "datasets"),
    ),
}
"""Module of lib.adapters to its library."""


class Tried(NamedTuple):
    """The tests of an adapter with one release: pytest's exit code and its last line."""

    adapter: str
    release: str
    code: int
    summary: str


def bounds() -> dict[str, Requirement]:
    """Return the requirement of each adapter's library, by the module's name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = map(Requirement, project["optional-dependencies"]["adapters"])
    by_name = {requirement.name: requirement for requirement in wanted}
    return {adapter: by_name[library.name] for adapter, library in ADAPTERS.items()}


def releases(requirement: Requirement, listed: str) -> tuple[str, str]:
    """Return the oldest and the newest release that a requirement admits.

    Args:
        requirement: With a lower bound.
        listed: What ``pip index versions`` prints.

    >>> found = "thing (3.1)\\nAvailable versions: 3.1, 3.0, 2.5, 2.4.1, 1.0"
    >>> releases(Requirement("thing>=2.4,<3.1"), found)
    ('2.4.1', '3.0')
    """
    line = next(line for line in listed.splitlines() if line.startswith("Available versions:"))
    every = [Version(text.strip()) for text in line.partition(":")[2].split(",")]
    admitted = [version for version in every if version in requirement.specifier]
    return str(min(admitted)), str(max(admitted))


def pip(python: Path, *arguments: str) -> str:
    """Return what pip prints, or end with it."""
    done = subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"pip {' '.join(arguments)}\n{done.stdout}{done.stderr}")
    return done.stdout


def environment(folder: Path, library: Requirement, release: str, beside: tuple[str, ...]) -> Path:
    """Make an environment over the present one with one release of a library, and what it needs."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    packages = next(folder.glob("lib/python*/site-packages"))
    over = Path(sys.prefix).joinpath(*packages.relative_to(folder).parts)
    (packages / "over.pth").write_text(f"{over}\n", encoding="utf-8")
    extras = f"[{','.join(sorted(library.extras))}]" if library.extras else ""
    pip(python, "install", "-q", f"{library.name}{extras}=={release}", *beside)
    return python


def try_all(only: list[str]) -> Iterator[Tried]:
    """Run the tests of the adapters, of those named if any are, and yield the results."""
    for adapter, library in bounds().items():
        if only and adapter not in only:
            continue
        listed = pip(Path(sys.executable), "index", "versions", library.name)
        for release in dict.fromkeys(releases(library, listed)):
            with tempfile.TemporaryDirectory() as folder:
                tests, beside = ADAPTERS[adapter].tests, ADAPTERS[adapter].beside
                python = environment(Path(folder), library, release, beside)
                done = subprocess.run(
                    [str(python), "-m", "pytest", "-q", *TESTS, "-k", tests],
                    cwd=ROOT,
                    env=os.environ | {"PYTHONPATH": ""},
                    capture_output=True,
                    text=True,
                )
            if done.returncode:
                print(done.stdout[-4000:], done.stderr[-2000:], file=sys.stderr)
            yield Tried(adapter, release, done.returncode, done.stdout.strip().splitlines()[-1])


def main(only: list[str]) -> None:
    """Print a line per release, and fail if a release fails or none of its tests ran."""
    if unknown := [name for name in only if name not in ADAPTERS]:
        raise SystemExit(
            f"no adapter is called {', '.join(unknown)}; there are {', '.join(ADAPTERS)}"
        )
    failed = False
    for tried in try_all(only):
        good = tried.code == 0 and "passed" in tried.summary
        failed |= not good
        print(
            f"{'ok    ' if good else 'FAILED'} {tried.adapter} {tried.release}: {tried.summary}",
            flush=True,
        )
    sys.exit(failed)


if __name__ == "__main__":
    main(sys.argv[1:])
