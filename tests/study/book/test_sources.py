"""Each fault of the sources is found before the build, and its file is named."""

import nbformat
import pytest
import tiny_book
from nbformat import v4

from lib.study.book import BookError
from lib.study.book.sources import check_sources, page_names, read_config


@pytest.fixture
def root(tmp_path):
    """The root of a book of a first page and one executed notebook."""
    (tmp_path / "book" / "results").mkdir(parents=True)
    (tmp_path / "_config.yml").write_text('execute:\n  execute_notebooks: "off"\n')
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/results/corpus\n"
    )
    (tmp_path / "book" / "index.md").write_text("# The question\n\nText.\n")
    write(tmp_path, tiny_book.notebook("Corpus", tiny_book.code("1")))
    return tmp_path


def write(root, notebook):
    nbformat.write(notebook, root / "book" / "results" / "corpus.ipynb")


def refuse(root, *words):
    with pytest.raises(BookError) as caught:
        check_sources(root)
    for word in words:
        assert word in str(caught.value)


def test_sources_without_a_fault_give_the_first_page_first(root):
    assert check_sources(root) == ["book/index", "book/results/corpus"]


def test_the_projects_own_toc_and_configuration_are_read(book_root):
    read_config(tiny_book.ROOT)
    assert page_names(book_root)[0] == "book/index"


def test_all_faults_are_reported_at_once(root):
    (root / "book" / "index.md").write_text("No heading.\n")
    write(root, v4.new_notebook(cells=[tiny_book.code("# no heading either")]))
    refuse(root, "index.md has no title", "corpus.ipynb has no title")


@pytest.mark.parametrize("toc", ["root: [", "- a\n- b", "", "format: jb-book\n", "format: x\n"])
def test_a_malformed_toc_is_refused(root, toc):
    (root / "_toc.yml").write_text(toc)
    refuse(root, "_toc.yml")


def test_an_entry_listed_twice_is_refused(root):
    (root / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/index\n"
    )
    refuse(root, "_toc.yml", "book/index")


def test_an_entry_for_a_missing_file_is_refused(root):
    (root / "_toc.yml").write_text((root / "_toc.yml").read_text() + "- file: book/appendix\n")
    refuse(root, "_toc.yml lists pages that don't exist: book/appendix")


def test_an_entry_may_have_a_suffix(root):
    toc = (root / "_toc.yml").read_text().replace("corpus", "corpus.ipynb")
    (root / "_toc.yml").write_text(toc)
    assert check_sources(root) == ["book/index", "book/results/corpus"]


def test_a_missing_toc_is_refused(root):
    (root / "_toc.yml").unlink()
    refuse(root, "_toc.yml", "can't be read")


@pytest.mark.parametrize("mode", ["auto", "force", "cache"])
def test_a_build_that_would_execute_is_refused(root, mode):
    (root / "_config.yml").write_text(f"execute:\n  execute_notebooks: {mode}\n")
    refuse(root, mode, 'execute_notebooks: "off"')


def test_a_configuration_without_execute_notebooks_is_refused(root):
    # By default, Jupyter Book executes notebooks.
    (root / "_config.yml").write_text("title: A book\n")
    refuse(root, "_config.yml", 'execute_notebooks: "off"')


@pytest.mark.parametrize("name", ["draft.md", "results/extra.ipynb"])
def test_a_page_that_is_not_in_the_toc_is_refused(root, name):
    (root / "book" / name).write_text("# Draft\n")
    refuse(root, name, "not in _toc.yml")


@pytest.mark.parametrize(
    "name", [".ipynb_checkpoints/index-checkpoint.md", "_static/licence.md", "._index.md"]
)
def test_files_that_are_not_pages_need_no_entry_in_the_toc(root, name):
    (root / "book" / name).parent.mkdir(exist_ok=True)
    (root / "book" / name).write_text("no page")
    check_sources(root)


@pytest.mark.parametrize(
    "text", ["", "Text.\n", "## Second level first\n", "```\n# a comment in code\n```\n"]
)
def test_a_page_without_a_title_is_refused(root, text):
    (root / "book" / "index.md").write_text(text)
    refuse(root, "index.md has no title")


@pytest.mark.parametrize(
    "text", ["---\nlayout: x\n---\n# Title\n", "Title\n=====\n", "(label)=\n# Title\n"]
)
def test_a_title_may_be_underlined_or_follow_front_matter_or_a_label(root, text):
    (root / "book" / "index.md").write_text(text)
    check_sources(root)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 1}', '{"cells": [{}]}'])
def test_an_unreadable_notebook_is_named(root, text):
    (root / "book" / "results" / "corpus.ipynb").write_text(text)
    refuse(root, "corpus.ipynb is not a readable notebook")


def test_a_notebook_above_the_limit_is_refused(root, monkeypatch):
    monkeypatch.setattr("lib.study.book.sources.MAX_NOTEBOOK_BYTES", 100)
    refuse(root, "corpus.ipynb", "100", "thin")


def printed(text, name="stdout"):
    return tiny_book.code("1", v4.new_output("stream", name=name, text=text))


def displayed(data):
    return tiny_book.code("1", v4.new_output("display_data", data=data))


def drawn(**changes):
    shown = tiny_book.output(tiny_book.chart("Recall"))
    next(iter(shown.data.values())).update(changes)
    return tiny_book.code("1", shown)


LOADED = [{"data": {"url": "https://example.org/data.csv"}, "mark": "line"}]
FAILURE = v4.new_output("error", ename="ValueError", evalue="no data", traceback=[])
WIDGET = {"application/vnd.jupyter.widget-view+json": {"model_id": "a"}, "text/plain": "x"}
BARS = (" 40%|████      | 4/10 [00:01<00:02]", "step 1\rstep 2\rstep 3", "0%|          | 0/3")


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        (v4.new_code_cell("1"), ["was never executed"]),
        (tiny_book.code("x", FAILURE), ["ValueError: no data"]),
        (
            displayed({"text/plain": "HBox(children=(FloatProgress(value=0.0), HTML(value='')))"}),
            [],
        ),
        (displayed(WIDGET), []),
        (drawn(layer=LOADED), ["https://example.org/data.csv"]),
        *((printed(b, name), ["progress bar"]) for b in BARS for name in ("stdout", "stderr")),
    ],
)
def test_a_cell_that_no_page_may_show_is_refused(root, cell, words):
    write(root, tiny_book.notebook("Corpus", tiny_book.code("1"), cell))
    refuse(root, "corpus.ipynb, cell 3", *words)


@pytest.mark.parametrize(
    "cell",
    [
        v4.new_code_cell(""),
        *map(printed, ["done\n", "a | b\n", "95 % of 10|20\n", "two\r\nlines\r\n"]),
        drawn(datasets={"a": [{"data": {"url": "https://example.org"}}]}),
    ],
)
def test_a_cell_that_a_page_may_show_is_accepted(root, cell):
    write(root, tiny_book.notebook("Corpus", cell))
    check_sources(root)
