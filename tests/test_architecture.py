"""What may import what in lib, and where a chapter's code lies. Made-up trees break each rule."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from importlib.util import resolve_name

import pytest

LAYERS = (
    *("study", "chapters", "training", "runs", "noise", "encoders", "datasets", "utils"),
    *("adapters", "rivals", "losses", "schedulers metrics models statistics"),
)
"""The rooms of lib from top to bottom: a room may import those of lower layers."""
LAYER = {room: layer for layer, rooms in enumerate(LAYERS) for room in rooms.split()}
CORE = {"schedulers", "losses", "rivals", "metrics", "models"}
BELOW_CHAPTERS = {"parameters": 1, "shared": 2}


def imports(name, path, modules):
    """Yield what a module imports, inside functions too, and whether each import is relative."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, False) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = resolve_name("." * node.level + (node.module or ""), package)
            for alias in node.names:
                whole = f"{start}.{alias.name}"
                yield (whole if whole in modules else start), node.level > 0


def faults(root):
    """Return a line for each rule that ``lib`` and ``notebooks`` in the folder ``root`` break."""
    lib, graph, arrows, found = root / "lib", {}, set(), []
    paths = {".".join(p.relative_to(root).with_suffix("").parts): p for p in lib.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in sorted(paths.items())}
    for name, path in modules.items():
        room, chapter = [*name.split("."), "", ""][1:3]
        graph[name], foreign = set(), set()
        for target, relative in imports(name, path, modules):
            top, other, part = [*target.split("."), "", ""][:3]
            if top != "lib":
                foreign |= {top} - {"torch", *sys.stdlib_module_names}
                continue
            graph[name] |= {target} - {name}
            arrows |= {(room, other)} if room != other != "" else set()
            if room in {*CORE, "adapters"} and not (relative and other in {*CORE, room}):
                found.append(f"{name} must import the core alone, relatively; it imports {target}")
            if other not in (room, "") and LAYER.get(room, 99) >= LAYER.get(other, -1):
                found.append(f"{name} imports {target}, which is not below it")
            below = BELOW_CHAPTERS.get(part, 0) > BELOW_CHAPTERS.get(chapter, 0)
            if room == other == "chapters" and part != chapter and not below:
                found.append(f"{name} imports {target}, which is not below it")
        if len(foreign) > (1 if room == "adapters" else 0) and room in {*CORE, "adapters"}:
            found.append(f"{name} imports {', '.join(sorted(foreign))}")
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        found.append("circle of " + ", ".join(sorted(set(error.args[1]))))
    entries = {path.name for path in lib.iterdir()} - {"__init__.py", "py.typed", "__pycache__"}
    if len(entries) > 15 or len(arrows) > 60:
        found.append(f"{len(entries)} entries, {len(arrows)} arrows")
    for notebook in sorted((root / "notebooks").glob("*.ipynb")):
        chapter = f"lib.chapters.{notebook.stem.replace('-', '_')}"
        if not notebook.stem.startswith("borrow-") and chapter not in modules:
            found.append(f"{notebook.name} needs {chapter}")
    return found


def test_lib_keeps_the_order_of_imports(root):
    assert faults(root) == []


GOOD = {
    "lib/study/a.py": "import lib\nfrom lib.chapters import noise, parameters\nimport yaml, rich",
    "lib/chapters/noise/__init__.py": "from lib.chapters import parameters\nfrom . import figures",
    "lib/chapters/noise/figures.py": "from ..shared.text import a\nimport lib.runs.store",
    "lib/chapters/parameters.py": "from lib.chapters.shared import text",
    "lib/chapters/shared/text.py": "",
    "lib/chapters/main_comparison.py": "def f():\n from lib.losses import pairs",
    "lib/runs/store.py": "",
    "lib/losses/pairs.py": "import math\nfrom torch import nn\nfrom ..schedulers import signals",
    "lib/schedulers/signals.py": "",
    "lib/adapters/clip.py": "import clip.loss, torch\nfrom ..losses.pairs import a",
    "notebooks/main-comparison.ipynb": "",
    "notebooks/noise.ipynb": "",
    "notebooks/borrow-clip.ipynb": "",
}
UPWARD = "{} imports {}, which is not below it"
NOT_CORE = "{} must import the core alone, relatively; it imports {}"
UPPER = [room for room in LAYER if room not in {*CORE, "adapters", "statistics"}]
EVERYTHING_BELOW = {
    f"lib/{room}/a.py": "\n".join(f"import lib.{b}.a" for b in LAYER if LAYER[b] > LAYER[room])
    for room in UPPER[:6]
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, []),
        ({"lib/runs/a.py": "import lib.study.a"}, [UPWARD.format("lib.runs.a", "lib.study.a")]),
        (
            {"lib/runs/a.py": "def f():\n def g():\n  from ..training import b"},
            [UPWARD.format("lib.runs.a", "lib.training")],
        ),
        (
            {"lib/metrics/a.py": "from ..schedulers import signals"},
            [UPWARD.format("lib.metrics.a", "lib.schedulers.signals")],
        ),
        ({"lib/a.py": "import lib.runs.store"}, [UPWARD.format("lib.a", "lib.runs.store")]),
        ({"lib/runs/a.py": "import lib.b"}, [UPWARD.format("lib.runs.a", "lib.b")]),
        (
            {"lib/losses/a.py": "from lib.schedulers import signals"},
            [NOT_CORE.format("lib.losses.a", "lib.schedulers.signals")],
        ),
        (
            {"lib/adapters/a.py": "from .. import statistics", "lib/statistics.py": ""},
            [NOT_CORE.format("lib.adapters.a", "lib.statistics")],
        ),
        ({"lib/models/a.py": "def f():\n import numpy"}, ["lib.models.a imports numpy"]),
        ({"lib/adapters/a.py": "import clip, timm"}, ["lib.adapters.a imports clip, timm"]),
        (
            {"lib/chapters/main_comparison.py": "def f():\n from .noise import figures"},
            [UPWARD.format("lib.chapters.main_comparison", "lib.chapters.noise.figures")],
        ),
        (
            {"lib/chapters/shared/a.py": "from lib.chapters.parameters import b"},
            [UPWARD.format("lib.chapters.shared.a", "lib.chapters.parameters")],
        ),
        (
            {"lib/runs/a.py": "def f():\n import lib.runs.b", "lib/runs/b.py": "from .a import c"},
            ["circle of lib.runs.a, lib.runs.b"],
        ),
        ({f"lib/{n}.py": "" for n in range(10)}, ["16 entries, 5 arrows"]),
        (EVERYTHING_BELOW, ["9 entries, 71 arrows"]),
        ({"notebooks/end-to-end.ipynb": ""}, ["end-to-end.ipynb needs lib.chapters.end_to_end"]),
    ],
)
def test_each_rule_can_be_broken(tmp_path, files, expected):
    for name, text in {**GOOD, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert faults(tmp_path) == expected
