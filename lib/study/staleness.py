"""Whether an executed notebook is what its source and the package would give now.

A notebook is stale if a cell of its source has changed, a module that makes its charts, tables and
sentences, what its profile sets, the run records beside it or the measurements that it shows.
Comments, docstrings and blanks do not count. Modules that train or read corpora do not either: a
change of their numbers raises :data:`lib.runs.RESULTS_VERSION`, which counts.
"""

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import resolve_name
from pathlib import Path
from typing import Any

import lib
from lib.utils.files import write_atomic
from lib.utils.yaml import read_yaml

NOTE = "executed.json"
"""The file beside executed notebooks that names the code that made them."""
WATCHED = ("lib.chapters", "lib.statistics", "lib.metrics", "lib.adapters")
"""The modules that make a page from results; :data:`lib.runs.RESULTS_VERSION` covers the others."""
UNWATCHED = (
    "lib.chapters.parameters",
    "lib.chapters.shared.checking",
    "lib.chapters.shared.options",
)
"""Modules that only refuse values, which changes no page that was made."""

RECORDS, MEASUREMENTS, PROFILE = "run records", "measurements", "profile"
"""What a page is made from besides code, as the note calls it."""

_PACKAGE = Path(lib.__file__).parent


def write_note(executed: Iterable[Path], target: Path, root: Path, profile: str) -> None:
    """Write what ``executed`` notebooks have just been made from.

    Args:
        executed: The executed notebooks.
        target: :data:`NOTE` beside them.
        root: The study's folder.
        profile: The profile that they were executed with.
    """
    notes = {}
    for path in executed:
        data = _data(path, root / "notebooks" / path.name, profile)
        notes[path.stem] = _state(_code(path)) | data
    write_atomic(target, json.dumps(notes, indent=1, sort_keys=True) + "\n")


def read_note(executed: Path) -> Mapping[str, str]:
    """Return what an executed notebook was made from, by name; empty without :data:`NOTE`.

    Raises:
        ValueError: The note is malformed.
    """
    note = executed.parent / NOTE
    if not note.is_file():
        return {}
    try:
        made: Mapping[str, str] = json.loads(note.read_text(encoding="utf-8"))[executed.stem]
        return {str(name): str(value) for name, value in made.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{note} does not say how {executed.name} was made ({error!r})") from error


def stale(executed: Path, source: Path) -> Iterator[str]:
    """Yield why an executed notebook is stale; without :data:`NOTE` beside it, only cells count.

    Args:
        executed: The executed notebook.
        source: The notebook that it was executed from.
    """
    again = "execute it again with `study quick` or `study full`"
    if _cells(executed) != _cells(source):
        yield f"{executed} is stale: {source} has changed since it was executed; {again}"
        return
    try:
        before = read_note(executed)
    except ValueError as error:
        yield f"{error}; {again}"
        return
    if not before:
        return
    profile = before.get(PROFILE, "").partition(" ")[0]
    now = _state(_code(source)) | _data(executed, source, profile)
    changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    if changed:
        names = ", ".join(sorted(changed))
        yield f"{executed} is stale: {names} changed since it was executed; {again}"


def _data(executed: Path, source: Path, profile: str) -> dict[str, str]:
    """Return what a page is made from besides code: a digest of each."""
    profiles = source.parent / "profiles.yml"
    text = profiles.read_text(encoding="utf-8") if profiles.is_file() else ""
    values = ((read_yaml(text) or {}).get(profile) or {}).get(source.stem) or {}
    records = sorted((executed.parent / "records").rglob("*.parquet"))
    measured = sorted((_PACKAGE / "chapters" / "benchmarks" / "measured").glob("*.json"))
    data = {PROFILE: f"{profile} {_digest(json.dumps(values, sort_keys=True).encode())}"}
    if source.stem == "benchmarks":
        data[MEASUREMENTS] = _digest(*(path.read_bytes() for path in measured))
    elif records and "lib.training" in _code(source):
        data[RECORDS] = _digest(*(path.read_bytes() for path in records))
    return data


def _digest(*contents: bytes) -> str:
    return hashlib.sha256(b"\0".join(contents)).hexdigest()[:16]


def _cells(path: Path) -> list[tuple[str, str]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [
        (cell["cell_type"], "".join(cell["source"]))
        for cell in cells
        if "injected-parameters" not in cell.get("metadata", {}).get("tags", [])
    ]


def _code(path: Path) -> str:
    return "\n".join(source for kind, source in _cells(path) if kind == "code")


def _state(code: str) -> dict[str, str]:
    """Return the present digest of each module on which a page made by ``code`` depends."""
    from lib.runs import RESULTS_VERSION

    state = {"lib.runs.RESULTS_VERSION": str(RESULTS_VERSION)}
    pending = list(_imported(ast.parse(code)))
    while pending:
        name = pending.pop()
        path = _file(name)
        watched = name.startswith(WATCHED) and name not in UNWATCHED
        if name in state or path is None or not watched:
            continue
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        state[name] = hashlib.sha256(_essence(text, tree).encode()).hexdigest()[:16]
        pending += _imported(tree, package)
    return state


def _imported(tree: ast.AST, package: str = "") -> Iterator[str]:
    """Yield the names in this package that code imports; ``package`` resolves relative imports."""

    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("lib."))
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package or None)
            if module.split(".")[0] == "lib":
                yield module
                yield from (f"{module}.{alias.name}" for alias in node.names)


def _file(module: str) -> Path | None:
    """Return the file of a module of this package; None for a name within a module."""
    base = _PACKAGE.joinpath(*module.split(".")[1:])
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


def _essence(text: str, tree: ast.Module) -> str:
    """Return the text of a module without comments, docstrings and blanks."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        # A constant that is a whole statement, as a docstring is, does nothing.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            for row in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[row] = ""
    return "".join("".join(lines).split())
