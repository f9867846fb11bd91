"""The answer at the top of a chapter: a copy of the output of its cells tagged ``answer``.

A notebook computes these sentences at its end, but they answer the question at its top.
"""

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx

TAG = "answer"


def lift(app: Sphinx, doctree: nodes.document) -> None:
    """Put a copy of the answers after the chapter's first paragraph, which is the question."""
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
            # An anchor must be unique in a page: the original keeps the anchor, the copy has none.
            node["ids"] = []
    head = nodes.paragraph("", "", nodes.strong("", "Answer"), classes=["answer-head"])
    box = nodes.container("", head, *answers, classes=["answer"])
    paragraphs = (row for row, node in enumerate(section) if isinstance(node, nodes.paragraph))
    section.insert(next(paragraphs, 0) + 1, box)


def _has_text(bundle: nodes.Element) -> bool:
    return any(child.get("mime_type") == "text/markdown" for child in bundle.children)


def setup(app: Sphinx) -> None:
    """Add the transformation to ``app``."""
    app.connect("doctree-read", lift)
