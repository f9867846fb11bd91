"""Links on a page of results that open its source notebook on Colab and Binder, if published.

Jupyter Book's own buttons would open the executed copy, with the parameters of the published
edition, and would also appear on pages that are not notebooks.
"""

from pathlib import PurePosixPath

from docutils import nodes  # type: ignore[import-untyped]
from sphinx.application import Sphinx

from lib.study.address import Address

RESULTS = PurePosixPath("book/results")


def setup(app: Sphinx) -> None:
    """Add the links, and the two configuration values that the build sets for them."""
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
    targets = {"Colab": address.colab, "Binder": address.binder, "the source": address.source}
    links += nodes.Text("Run it yourself: ")
    for row, (name, target) in enumerate(targets.items()):
        links += nodes.Text(" · " if row else "")
        links += nodes.reference("", name, refuri=target(page.name), internal=False)
    title.parent.insert(title.parent.index(title) + 1, links)
