"""What the reference promises: each public name on one page, complete, with a tested example."""

import ast
import doctest
import inspect
import re
import typing
from importlib import import_module
from pathlib import Path

import pytest
import torch

from lib.losses import LOSSES
from lib.study.book.reference import citation_labels, cite, described

ROOT = Path(__file__).resolve().parent.parent
MODULES = (
    "lib.schedulers", "lib.losses", "lib.metrics", "lib.rivals", "lib.models", "lib.datasets",
    "lib.encoders", "lib.noise", "lib.statistics", "lib.adapters.accelerate",
    "lib.adapters.huggingface",
    "lib.adapters.lightning", "lib.adapters.metric_learning", "lib.adapters.open_clip",
    "lib.adapters.sentence_transformers",
)  # fmt: skip
DIRECTIVE = re.compile(
    r"^\.\. (?:currentmodule:: (?P<module>\S+)"
    r"|auto(?P<kind>class|function|data|exception):: (?P<name>\S+)(?P<options>(?:\n   :.*)*))",
    re.MULTILINE,
)
SHAPE = re.compile(
    r"\((\.\.\.|[A-Za-z0-9]|\))|a number|batch_shape|same shape|plays no role", re.IGNORECASE
)


def entries():
    """Yield (name, kind, members) of each name that the pages document, as often as they do."""
    for page in sorted((ROOT / "book" / "reference").glob("*.md")):
        module = ""
        for entry in DIRECTIVE.finditer(page.read_text(encoding="utf-8")):
            if entry["module"]:
                module = entry["module"] + "."
                continue
            members = re.search(r":members: (.+)", entry["options"])
            name = entry["name"] if entry["name"].startswith("lib.") else module + entry["name"]
            yield name, entry["kind"], members[1].split(", ") if members else []


ENTRIES = {name: (kind, members) for name, kind, members in entries()}
DATA = [name for name, (kind, _) in ENTRIES.items() if kind == "data"]
NAMES = [name for name in ENTRIES if name not in DATA]
MEMBERS = [f"{name}.{member}" for name, (_, members) in ENTRIES.items() for member in members]


def found(name):
    """Return what a dotted name stands for; an adapter whose library is missing is skipped."""
    module = next(m for m in MODULES if name.startswith(f"{m}."))
    try:
        value = import_module(module)
    except ModuleNotFoundError as error:
        pytest.skip(f"{error.name} is not installed")
    for part in name.removeprefix(f"{module}.").split("."):
        value = inspect.getattr_static(value, part)
    return value


def load(name):
    """Return the class or the function, which has the docstring, that a dotted name stands for."""
    value = found(name)
    return value.fget if isinstance(value, property) else getattr(value, "__func__", value)


def sections(text):
    """Return a docstring's sections by name; what stands before the first one is under ''."""
    parts = {"": ""}
    current = ""
    for line in inspect.cleandoc(text).splitlines():
        heading = re.fullmatch(r"(Args|Returns|Raises|Source):", line)
        if heading:
            current = heading[1]
        elif line and line[0] != " " and current:
            current = "example"
        parts[current] = parts.get(current, "") + ("" if heading else line + "\n")
    return parts


def arguments(text):
    """Return the arguments that a docstring describes, with what it says of each."""
    parts = re.split(r"^    (\w+): ", sections(text).get("Args", ""), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def cited(text):
    return cite(text, citation_labels(ROOT / "book" / "references.bib"))


def test_every_public_name_has_its_place_and_no_other():
    documented = [name for name, _, _ in entries()]
    assert sorted(documented) == sorted(set(documented))
    exported = set()
    for module in MODULES:
        # Read, not imported: a library may be missing.
        path = ROOT.joinpath(*module.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        (names,) = (
            ast.literal_eval(node.value)
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        )
        exported |= {f"{module}.{name}" for name in names}
    assert set(documented) == exported


def test_the_overview_names_every_one():
    text = (ROOT / "book" / "reference" / "index.md").read_text(encoding="utf-8")
    listed = re.findall(r"^   ~(\S+)$", text, flags=re.MULTILINE)
    assert sorted(listed) == sorted(ENTRIES)


@pytest.mark.parametrize("name", [*NAMES, *MEMBERS])
def test_a_docstring_begins_with_a_line_that_says_it_all(name):
    first, *rest = inspect.cleandoc(load(name).__doc__).splitlines()
    assert first.endswith(".")
    assert len(first) <= 100
    assert not rest or not rest[0]


@pytest.mark.parametrize("name", [*NAMES, *MEMBERS])
def test_every_argument_is_described_and_no_other(name):
    value = load(name)
    # An enumeration or a protocol is not made; an exception is made as its base is.
    not_made = name in ("lib.statistics.Verdict", "lib.metrics.Array")
    if not_made or (inspect.isclass(value) and not vars(value).keys() & {"__init__", "__new__"}):
        takes = []
    else:
        takes = list(inspect.signature(value).parameters)
    assert list(arguments(value.__doc__)) == [n for n in takes if n not in ("self", "cls")]


@pytest.mark.parametrize("name", [*NAMES, *MEMBERS])
def test_every_tensor_has_its_shape(name):
    value = load(name)
    made_by = next((m for m in ("__init__", "__new__") if m in vars(value)), None)
    maker = getattr(value, made_by) if inspect.isclass(value) and made_by else value
    for argument, hint in typing.get_type_hints(maker).items():
        if "Tensor" in str(hint) and argument in arguments(value.__doc__):
            assert SHAPE.search(arguments(value.__doc__)[argument]), argument


@pytest.mark.parametrize("name", [*NAMES, *MEMBERS])
def test_what_comes_back_is_described(name):
    if inspect.isclass(found(name)) or isinstance(found(name), property):
        return  # A property is its first line.
    if typing.get_type_hints(load(name)).get("return") not in (None, type(None)):
        assert "Returns" in sections(load(name).__doc__)


def raising():
    """Return the functions and methods that raise, or call one that does, as ``Class.method``.

    Calls are matched by name alone, among all modules of the reference.
    """
    bodies = {}
    for part in sorted({module.split(".")[1] for module in MODULES}):
        place = ROOT / "lib" / part
        for path in sorted(place.rglob("*.py")) if place.is_dir() else [place.with_suffix(".py")]:
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.FunctionDef):
                    bodies.setdefault(node.name, []).append(node)
                for member in node.body if isinstance(node, ast.ClassDef) else ():
                    if isinstance(member, ast.FunctionDef):
                        bodies.setdefault(f"{node.name}.{member.name}", []).append(member)
    raises = set()
    while True:
        more = {
            name
            for name, nodes in bodies.items()
            for node in nodes
            for part in ast.walk(node)
            if isinstance(part, ast.Raise) or called_by(part, name) in raises
        }
        if more <= raises:
            return raises
        raises |= more


def called_by(part, caller):
    """Return what a part of a function calls: a function, or a method of the function's class."""
    if isinstance(part, ast.Call) and isinstance(part.func, ast.Name):
        return part.func.id
    method = isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute)
    if method and ast.unparse(part.func).startswith("self."):
        return f"{caller.partition('.')[0]}.{part.func.attr}"
    return ""


def test_what_raises_says_so():
    raises = raising()
    # Directly, through a function, through a method.
    assert {"check_similarity", "info_nce", "Scheduler.forward", "Scheduler.__init__"} <= raises
    silent = []
    for name in [*NAMES, *MEMBERS]:
        own = ".".join(name.split(".")[-2:]) if name in MEMBERS else name.rsplit(".", 1)[1]
        if {own, f"{own}.__init__"} & raises:
            try:
                parts = sections(load(name).__doc__)
            except pytest.skip.Exception:
                continue
            silent += [] if "Raises" in parts else [name]
    assert silent == []


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_has_an_example(name):
    """pytest runs it, as a doctest of the module that defines it."""
    (test,) = doctest.DocTestFinder(recurse=False).find(load(name), name)
    assert test.examples


@pytest.mark.parametrize("name", DATA)
def test_every_constant_has_an_example_that_runs(name):
    """pytest itself doesn't see the text under a constant."""
    module, _, constant = name.rpartition(".")
    text = "\n".join(described(module, constant))
    assert text.strip()
    names = {**vars(import_module(module)), "torch": torch}
    test = doctest.DocTestParser().get_doctest(text, names, name, None, None)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


def test_losses_and_rivals_name_their_sources():
    named = [f"lib.losses.{loss}" for loss in LOSSES]
    named += [name for name in NAMES if name.startswith("lib.rivals.")]
    named += ["lib.schedulers.Scheduler", "lib.losses.ScheduledContrastiveLoss"]
    for name in named:
        assert ":cite:" in cited(sections(load(name).__doc__)["Source"])[0], name


@pytest.mark.parametrize("name", [*NAMES, *MEMBERS])
def test_every_paper_that_is_named_is_in_the_bibliography(name):
    text, unknown = cited(load(name).__doc__)
    assert unknown == []
    source = sections(text).get("Source", ":cite:")
    assert ":cite:" in source or ":func:" in source
