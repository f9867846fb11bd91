"""A chapter opens with its answer: what its cells tagged ``answer`` say is repeated on top.

The sentences are computed at the end of a notebook, after all that they rest on; the reader wants
them first.
"""

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx

TAG = "answer"


def lift(app: Sphinx, doctree: nodes.document) -> None:
    """Put a copy of the answers after the chapter's first paragraph, the question."""
    answers = [
        bundle.deepcopy()
        for cell in doctree.findall(nodes.container)
        if f"tag_{TAG}" in cell.get("classes", ())
        for bundle in cell.findall(nodes.container)
        if bundle.get("nb_element") == "mime_bundle" and _has_text(bundle)
    ]
    section = next(iter(doctree.findall(nodes.section)), None)
    if not answers or section is None:
        return
    for copied in answers:
        for node in copied.findall(nodes.Element):
            # An anchor may stand once in a page: the one below keeps it.
            node["ids"] = []
    head = nodes.paragraph("", "", nodes.strong("", "Answer"), classes=["answer-head"])
    box = nodes.container("", head, *answers, classes=["answer"])
    places = [place for place, node in enumerate(section) if isinstance(node, nodes.paragraph)]
    section.insert(places[0] + 1 if places else 1, box)


def _has_text(bundle: nodes.Element) -> bool:
    return any(child.get("mime_type") == "text/markdown" for child in bundle.children)


def setup(app: Sphinx) -> None:
    """Add the transformation to ``app``."""
    app.connect("doctree-read", lift)
