"""Links on a page of results that open its notebook on Colab and Binder, once it is published.

Jupyter Book's own buttons would open the executed copy, with the parameters of the published
edition in it, and would stand on pages that are no notebooks. These open the source.
"""

from pathlib import PurePosixPath

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx

from lib.study.address import Address

RESULTS = PurePosixPath("book/results")


def setup(app: Sphinx) -> None:
    """Add the two values that the build sets, and the links."""
    app.add_config_value("study_repository", "", "env")
    app.add_config_value("study_tag", "", "env")
    app.connect("doctree-read", _add_links)


def _add_links(app: Sphinx, doctree: nodes.document) -> None:
    page = PurePosixPath(app.env.docname)
    if not app.config.study_repository or page.parent != RESULTS:
        return
    title = next(iter(doctree.findall(nodes.title)), None)
    if title is None:
        return
    address = Address(app.config.study_repository, app.config.study_tag)
    links = nodes.paragraph(classes=["launch"])
    places = {
        "Colab": address.colab(page.name),
        "Binder": address.binder(page.name),
        "the source": address.source(page.name),
    }
    links += nodes.Text("Run it yourself: ")
    for place, (name, target) in enumerate(places.items()):
        links += nodes.Text(" · " if place else "")
        links += nodes.reference("", name, refuri=target, internal=False)
    title.parent.insert(title.parent.index(title) + 1, links)
