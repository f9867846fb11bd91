"""A small book with the real configuration, toc and prose, and made-up results."""

import re
import shutil
from pathlib import Path

import altair as alt
import nbformat
import pandas as pd
from nbformat import v4

from lib.chapters.shared import charts, findings, registry
from lib.chapters.shared.figures import show_table

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = tuple(re.findall(r"file: book/results/(\S+)", (ROOT / "_toc.yml").read_text()))
"""Every chapter of results in the toc; those that are not in :data:`CHAPTERS` have only a title."""
CHAPTERS = {
    "corpus": "What few pairs look like",
    "baseline": "How good are fixed weights?",
    "main-comparison": "Do adaptive weights beat fixed ones?",
}
HOSTILE = (
    "</script><script>alert(1)</script><!-- & <b>'\"` ${7*7} <img src=x onerror=alert(2)> "
    "{eval}`1` {download}`/etc/passwd` $x$ [a](b) \x1b[31m \u202eevil\u202c"
)


def chart(title: str, width: int | str = 400) -> alt.Chart:
    """Return a chart with a caption in its data that would escape from the page."""
    data = pd.DataFrame(
        {"caption": [HOSTILE, "A red kite .", "Zwei Boote \u2028 ."], "recall": [0.2, 0.5, 0.3]}
    )
    return (
        alt.Chart(data)
        .mark_bar()
        .encode(x="recall:Q", y="caption:N", tooltip=["caption:N", "recall:Q"])
        .properties(title=title, width=width)
    )


def output(drawn: alt.TopLevelMixin) -> nbformat.NotebookNode:
    """Return a notebook's output of the chart ``drawn``, made by the study's renderer."""
    return v4.new_output("display_data", data=charts.render(drawn.to_dict()))


def code(source: str, *outputs: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return an executed code cell."""
    return v4.new_code_cell(source, execution_count=1, outputs=list(outputs))


def notebook(title: str, *cells: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Return an executed notebook that begins with ``title``."""
    metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    }
    return v4.new_notebook(cells=[v4.new_markdown_cell(f"# {title}"), *cells], metadata=metadata)


def chapter(title: str) -> nbformat.NotebookNode:
    """Return an executed chapter with a chart of a fixed width and one that fills the page."""
    charts.enable()
    hidden = code("from lib import charts\n\ncharts.enable()")
    hidden.metadata["tags"] = ["hide-input"]
    wide = chart(f"{title} (as wide as the page)", "container")
    table = show_table(pd.DataFrame({"caption": [HOSTILE], "seed": [0]})).data
    return notebook(
        title,
        v4.new_markdown_cell("The loss $\\ell_i$ falls, and $w = 1$."),
        hidden,
        code("chart()", output(chart(f"{title} ({HOSTILE})"))),
        v4.new_markdown_cell("What the next figure shows."),
        code("wide_chart()", output(wide)),
        code("table()", v4.new_output("execute_result", data={"text/html": table})),
        code("print('done')", v4.new_output("stream", name="stdout", text="done\n")),
        answer(),
    )


ANSWER = "Weights make no difference."


def answer() -> nbformat.NotebookNode:
    """Return a chapter's last cell: a table, and the sentence that the page repeats at its top."""
    data = {"text/markdown": ANSWER, "text/plain": "<IPython.core.display.Markdown object>"}
    table = {"text/html": "<table><tr><td>0.04</td></tr></table>"}
    cell = code(
        "answer()",
        v4.new_output("display_data", data=table),
        v4.new_output("execute_result", data=data, execution_count=1),
    )
    cell.metadata["tags"] = ["answer"]
    return cell


def estimate(metric: str, value: float) -> findings.Estimate:
    """Return a comparison with a narrow interval that includes zero."""
    return findings.Estimate(
        metric=metric,
        baseline="fixed",
        method="variance × direction",
        estimate=value,
        low=value - 0.125,
        high=value + 0.125,
        seeds=20,
        p_adjusted=0.5,
        verdict="equivalent",
    )


def finding(claim: int = 1, **changes: object) -> findings.Finding:
    """Return an answer of the main comparison to ``claim``."""
    values: dict[str, object] = {
        "claim": claim,
        "verdict": "equivalent",
        "notebook": "main-comparison",
        "estimates": (estimate("i2t R@1", -0.0125), estimate("t2i R@1", 0.0625)),
        "summary": f"Nothing to see & nothing to hide {HOSTILE}",
        "corpus": "scenes",
        "train_images": 1000,
    }
    return findings.Finding.model_validate(values | changes)


def recommendation() -> findings.Recommendation:
    """Return a setting that the main comparison recommends, with its gain at two sizes."""
    return findings.Recommendation(
        name="fixed weights, tuned",
        notebook="main-comparison",
        summary=f"Nothing beats it {HOSTILE}",
        settings={"temperature": "0.1"},
        estimates=tuple(
            estimate("i2t R@1", 0.5).model_copy(update={"train_images": size, "margin": 0.3})
            for size in (100, 6000)
        ),
    )


def comparison(**changes: object) -> registry.RegisteredComparison:
    """Return a comparison of the main comparison for the registry."""
    values = estimate("i2t R@1", 0.0625).model_dump() | {
        "question": f"what helps {HOSTILE}",
        "notebook": "main-comparison",
        "corpus": "scenes",
        "train_images": 1000,
        "p": 0.01,
        "bayes_factor": 0.25,
    }
    return registry.RegisteredComparison.model_validate(values | changes)


KINDS = {
    findings.Finding: findings.MIME_TYPE,
    findings.Recommendation: findings.RECOMMENDATION_MIME_TYPE,
    registry.Comparisons: registry.MIME_TYPE,
}


def published(
    result: findings.Finding | findings.Recommendation | registry.Comparisons,
) -> nbformat.NotebookNode:
    """Return the output with which a notebook publishes ``result``."""
    kind = KINDS[type(result)]
    data = {kind: result.model_dump(mode="json"), "text/plain": "One sentence."}
    return v4.new_output("display_data", data=data)


def write_results(folder: Path, edition: findings.Edition) -> None:
    """Write executed chapters and their findings into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in RESULTS:
        made = chapter(CHAPTERS[name]) if name in CHAPTERS else notebook(name, code("1"))
        if name == "main-comparison":
            made.cells.append(code("publish(finding)", published(finding())))
            made.cells.append(code("publish(finding)", published(finding(2, verdict="improves"))))
            made.cells.append(code("publish(finding)", published(finding(5, verdict="worsens"))))
            made.cells.append(code("publish(setting)", published(recommendation())))
            compared = registry.Comparisons(
                notebook=name,
                comparisons=(
                    comparison(),
                    comparison(metric="t2i R@1", identical=20, verdict="equivalent"),
                    comparison(metric="rSum", setting=f"hot {HOSTILE}", verdict="worsens"),
                ),
            )
            made.cells.append(code("publish(comparisons)", published(compared)))
        # With fixed ids, a rewritten notebook has the same bytes.
        for number, cell in enumerate(made.cells):
            cell.id = f"cell-{number}"
        nbformat.write(made, folder / f"{name}.ipynb")
    executed = sorted(folder.glob("*.ipynb"))
    findings.write_findings(executed, folder / "findings.json", edition)
    registry.write_comparisons(executed, folder / "comparisons.json")


def make_root(root: Path) -> Path:
    """Write a book to ``root``: the real configuration, toc and prose, and made-up results."""
    root.mkdir(parents=True, exist_ok=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "book", root / "book", ignore=shutil.ignore_patterns("results"))
    write_results(root / "book" / "results", "published")
    return root


def write_findings_of(folder: Path, *answers: findings.Finding) -> None:
    """Write the findings.json that follows from ``answers`` of the main comparison."""
    source = folder / "main-comparison.ipynb"
    nbformat.write(notebook("A", *(code("1", published(answer)) for answer in answers)), source)
    findings.write_findings([source], folder / "findings.json")


def make_small_root(root: Path, html: Path) -> Path:
    """Write a book of a first page and the main comparison, with the real configuration.

    The bundled scripts are copied from ``html``, pages built before, since bundling takes seconds.
    """
    results = root / "book" / "results"
    results.mkdir(parents=True)
    shutil.copy(ROOT / "_config.yml", root)
    for name in ("_static", "references.bib"):
        source = ROOT / "book" / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, root / "book" / name)
    (root / "book" / "index.md").write_text("# The question\n\n```{scoreboard}\n```\n")
    shutil.copy(html.parents[2] / "book" / "results" / "main-comparison.ipynb", results)
    findings.write_findings(sorted(results.glob("*.ipynb")), results / "findings.json")
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/results/main-comparison\n"
    )
    for edition in ("published", "quick"):
        take_over_scripts(html, root / "_build" / edition / "html")
    return root


def take_over_scripts(html: Path, target: Path) -> None:
    """Copy the bundled scripts of ``html`` to where a build into ``target`` looks for them."""
    (target / "_static").mkdir(parents=True, exist_ok=True)
    for bundle in (html / "_static").glob("vega-lite-*.js"):
        shutil.copy(bundle, target / "_static")
