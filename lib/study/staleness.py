"""Whether an executed notebook is what its source and the package would give now.

A notebook is stale if a cell of its source has changed, or a module that makes its charts, tables
and sentences. Comments, docstrings and blanks do not count. Modules that train or read corpora do
not either: a change of their numbers raises :data:`lib.runs.RESULTS_VERSION`, which counts.
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

_PACKAGE = Path(lib.__file__).parent


def write_note(executed: Iterable[Path], target: Path) -> None:
    """Write the state of the code by which ``executed`` notebooks have just been made."""
    notes = {path.stem: _state(_code(path)) for path in executed}
    write_atomic(target, json.dumps(notes, indent=1, sort_keys=True) + "\n")


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
    note = executed.parent / NOTE
    if not note.is_file():
        return
    try:
        before: Mapping[str, str] = json.loads(note.read_text(encoding="utf-8"))[executed.stem]
        now = _state(_code(source))
        changed = [name for name in {**before, **now} if before.get(name) != now.get(name)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield f"{note} does not say how {executed.name} was made ({error!r}); {again}"
        return
    if changed:
        names = ", ".join(sorted(changed))
        yield f"{executed} is stale: {names} changed since it was executed; {again}"


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
