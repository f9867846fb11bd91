"""Small studies for the tests: a folder with a table of contents, profiles and tiny notebooks."""

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lib.chapters.parameters import MODELS
from lib.chapters.shared.checking import parameters_cell

KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def write_notebook(path, parameters, *sources, title="A question"):
    cells = [
        new_markdown_cell(f"# {title}"),
        new_code_cell(parameters, metadata={"tags": ["parameters"]}),
        *map(new_code_cell, sources),
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": KERNEL}), path)
    return path


def write_study(root: Path, **sources):
    """Write a study whose notebooks check their parameters and then run the cell given by name."""
    for name, source in sources.items():
        name = name.replace("_", "-")
        check = (
            f"from lib.chapters.parameters import check\nparameters = check({name!r}, globals())"
        )
        path = root / "notebooks" / f"{name}.ipynb"
        write_notebook(path, parameters_cell(MODELS[name]), check, source, title=f"About {name}")
    (root / "notebooks" / "profiles.yml").write_text(
        "quick: {}\nfull:\n  corpus: {seeds: 20}\n  baseline: {train_images: 700}\n"
        "  main-comparison: {}\npart: {corpus: {seeds: 4}}\n"
    )
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nparts:\n- caption: Results\n  chapters:\n"
        "  - file: notebooks/main-comparison\n  - file: notebooks/corpus\n"
        "    sections:\n    - file: notebooks/baseline\n"
    )
    return root
