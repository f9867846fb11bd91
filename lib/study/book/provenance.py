"""A line at the end of a page of results, which names what the page was made from."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx

from lib.study.book.launch import RESULTS
from lib.study.execution import CONTENTS
from lib.study.staleness import MEASUREMENTS, PROFILE, RECORDS, read_note


def setup(app: Sphinx) -> None:
    """Add the line to pages of results."""
    app.connect("doctree-read", _add_line)


def _add_line(app: Sphinx, doctree: nodes.document) -> None:
    if PurePosixPath(app.env.docname).parent != RESULTS:
        return
    path = Path(app.env.doc2path(app.env.docname))
    # check_sources has already read the note, so this raises no error.
    made = read_note(path)
    title = next(iter(doctree.findall(nodes.title)), None)
    if made and title is not None:
        title.parent += nodes.paragraph("", line(made, _contents(path)), classes=["provenance"])


def _contents(executed: Path) -> list[str]:
    """Return the corpora that the runs of a page were trained on, with their fingerprints."""
    metadata = json.loads(executed.read_text(encoding="utf-8"))["metadata"]
    contents: list[str] = metadata.get(CONTENTS, [])
    return contents


def line(made: Mapping[str, str], contents: Iterable[str] = ()) -> str:
    """Return what a page was made from, with a digest of each.

    >>> line({"profile": "full 0a1b", "lib.metrics": "4e5f"}, ["scenes 0123456789abcdef"])
    'Made from the code 17a3d4704f, the profile full (0a1b), the corpus scenes 0123456789.'
    """
    data = (PROFILE, RECORDS, MEASUREMENTS)
    code = sorted(f"{name} {digest}" for name, digest in made.items() if name not in data)
    profile, _, values = made.get(PROFILE, "").partition(" ")
    parts = [f"the code {hashlib.sha256(' '.join(code).encode()).hexdigest()[:10]}"]
    parts += [f"the profile {profile} ({values})"] if profile else []
    parts += [f"the corpus {name} {digest[:10]}" for name, digest in map(str.split, contents)]
    parts += [f"the {name} {made[name]}" for name in (RECORDS, MEASUREMENTS) if name in made]
    return f"Made from {', '.join(parts)}."
