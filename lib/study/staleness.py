"""Whether an executed notebook is what its source and the package would give now.

A notebook is stale when a cell of its source has changed, or a module that it shows its results
by. Comments, docstrings and blanks don't matter. What trains and reads corpora doesn't either: a
change of its numbers raises :data:`lib.runs.RESULTS_VERSION`, which is noted as well.
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
"""File beside executed notebooks that says by which code they were made."""
WATCHED = ("lib.chapters", "lib.statistics", "lib.metrics", "lib.adapters")
"""What a page shows its results by. The effect of everything else on a page is what
:data:`lib.runs.RESULTS_VERSION` stands for."""
UNWATCHED = (
    "lib.chapters.parameters",
    "lib.chapters.shared.checking",
    "lib.chapters.shared.options",
)
"""What refuses a value does not change a page that was made."""

_PACKAGE = Path(lib.__file__).parent


def write_note(executed: Iterable[Path], target: Path) -> None:
    """Note by which code notebooks have just been executed."""
    notes = {path.stem: _state(_code(path)) for path in executed}
    write_atomic(target, json.dumps(notes, indent=1, sort_keys=True) + "\n")


def stale(executed: Path, source: Path) -> Iterator[str]:
    """Yield why an executed notebook is stale.

    Args:
        executed: The notebook; :data:`NOTE` beside it is asked, where there is one.
        source: What it was executed from.
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
    """Return what a page made by ``code`` depends on: names, and what they are now."""
    from lib.runs import RESULTS_VERSION

    state = {"lib.runs.RESULTS_VERSION": str(RESULTS_VERSION)}
    pending = list(_imported(ast.parse(code)))
    while pending:
        name = pending.pop()
        path = _file(name)
        if name in state or path is None or not _is_watched(name):
            continue
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        state[name] = hashlib.sha256(_essence(text, tree).encode()).hexdigest()[:16]
        pending += _imported(tree, package)
    return state


def _is_watched(module: str) -> bool:
    return module.startswith(WATCHED) and module not in UNWATCHED


def _imported(tree: ast.AST, package: str = "") -> Iterator[str]:
    """Yield the names of the package's modules, and of what is in them, that code imports.

    Args:
        tree: The code.
        package: The package that the code is in, from which its relative imports count.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("lib."))
        elif isinstance(node, ast.ImportFrom):
            module = resolve_name("." * node.level + (node.module or ""), package or None)
            if module.split(".")[0] == "lib":
                yield module
                yield from (f"{module}.{alias.name}" for alias in node.names)


def _file(module: str) -> Path | None:
    """Return the file of a module of the package; None for a name within a module."""
    place = _PACKAGE.joinpath(*module.split(".")[1:])
    for path in (place.with_suffix(".py"), place / "__init__.py"):
        if path.is_file():
            return path
    return None


def _essence(text: str, tree: ast.Module) -> str:
    """Return the text of a module without comments, docstrings and blanks."""
    lines = text.splitlines()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    for node in ast.walk(tree):
        # A text that stands for itself, as a docstring does, does nothing.
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            for row in range(node.lineno - 1, node.end_lineno or node.lineno):
                lines[row] = ""
    return "".join("".join(lines).split())
