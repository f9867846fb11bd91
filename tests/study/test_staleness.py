"""A stale executed notebook, older than its source or the package, stops the build and is named."""

import json
import shutil

import pytest
import tiny_book
from nbformat import v4
from results_version import raise_results_version

from lib.study import staleness
from lib.study.book import BookError
from lib.study.book.sources import check_sources
from lib.study.staleness import NOTE, stale, write_note

SOURCE = "from lib.chapters.shared.figures import table\nfrom lib.study.commands import main\ntable"


@pytest.fixture
def pair(tmp_path):
    """An executed notebook with its note, and its source."""
    executed = tmp_path / "results" / "corpus.ipynb"
    source = tmp_path / "notebooks" / "corpus.ipynb"
    for path in (executed, source):
        path.parent.mkdir()
    write(source, SOURCE)
    write(executed, SOURCE, injected=True)
    write_note([executed], executed.parent / NOTE, tmp_path, "full")
    return executed, source


def write(path, code, *, injected=False, prose="# Corpus"):
    cells = [v4.new_markdown_cell(prose), v4.new_code_cell(code, execution_count=1)]
    if injected:
        cells.insert(1, v4.new_code_cell("seeds = 3", metadata={"tags": ["injected-parameters"]}))
    path.write_text(json.dumps(v4.new_notebook(cells=cells)))


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A copy of the package's files, which a test may change."""
    folder = tmp_path / "lib"
    shutil.copytree(staleness._PACKAGE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(staleness, "_PACKAGE", folder)
    return folder


def test_a_notebook_executed_from_its_source_is_fresh_even_without_a_note(pair):
    assert list(stale(*pair)) == []
    (pair[0].parent / NOTE).unlink()
    assert list(stale(*pair)) == []


@pytest.mark.parametrize("change", [{"code": SOURCE + "()"}, {"code": SOURCE, "prose": "# Other"}])
def test_a_changed_cell_is_stale(pair, change):
    write(pair[1], **change)
    (said,) = stale(*pair)
    assert str(pair[0]) in said
    assert str(pair[1]) in said


def test_a_changed_module_is_named_but_comments_and_docstrings_do_not_count(pair, package):
    write_note([pair[0]], pair[0].parent / NOTE, pair[1].parents[1], "full")
    shared = package / "chapters" / "shared"
    figures = shared / "figures.py"
    text = figures.read_text()
    figures.write_text(f'"""Another docstring."""\n# a comment\n\n{text}')
    (package / "utils" / "files.py").write_text("raise OSError  # no page shows it")
    assert list(stale(*pair)) == []
    figures.write_text(text + "\nWIDTH = 1\n")
    (said,) = stale(*pair)
    assert "lib.chapters.shared.figures changed since it was executed" in said
    # A change of a module that this one imports counts, too.
    figures.write_text(text)
    (shared / "charts.py").write_text((shared / "charts.py").read_text() + "\nX = 1\n")
    (said,) = stale(*pair)
    assert "lib.chapters.shared.charts changed" in said


def test_another_results_version_makes_a_page_stale(pair, monkeypatch):
    raise_results_version(monkeypatch, 99)
    (said,) = stale(*pair)
    assert "RESULTS_VERSION" in said


def test_other_records_or_another_profile_make_a_page_stale(pair):
    executed, source = pair
    for path in pair:
        write(path, f"from lib.training import Lab\n{SOURCE}")
    (source.parent / "profiles.yml").write_text("full: {corpus: {seeds: 20}}\n")
    records = executed.parent / "records" / "runs.parquet"
    records.parent.mkdir()
    records.write_bytes(b"one")
    write_note([executed], executed.parent / NOTE, source.parents[1], "full")
    assert list(stale(*pair)) == []
    records.write_bytes(b"other")
    (said,) = stale(*pair)
    assert "run records changed since it was executed" in said
    records.write_bytes(b"one")
    (source.parent / "profiles.yml").write_text("full: {corpus: {seeds: 21}}\n")
    (said,) = stale(*pair)
    assert "profile changed since it was executed" in said
    (source.parent / "profiles.yml").write_text("full:\n  corpus: {seeds: 20}  # the same\n")
    assert list(stale(*pair)) == []


def test_other_measurements_make_their_page_stale(pair, package):
    executed, source = (path.rename(path.with_name("benchmarks.ipynb")) for path in pair)
    write_note([executed], executed.parent / NOTE, source.parents[1], "full")
    assert list(stale(executed, source)) == []
    measured = package / "chapters" / "benchmarks" / "measured" / "step.json"
    measured.write_text(measured.read_text() + " ")
    (said,) = stale(executed, source)
    assert "measurements changed since it was executed" in said


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"corpus": 3}'])
def test_an_unusable_note_is_named(pair, note):
    (pair[0].parent / NOTE).write_text(note)
    (said,) = stale(*pair)
    assert NOTE in said


def test_a_stale_page_stops_the_build_and_is_named(tmp_path):
    results = tmp_path / "book" / "results"
    results.mkdir(parents=True)
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "_config.yml").write_text('execute:\n  execute_notebooks: "off"\n')
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/results/corpus\n")
    made = tiny_book.notebook("Corpus", tiny_book.code("1"))
    (results / "corpus.ipynb").write_text(json.dumps(made))
    write(tmp_path / "notebooks" / "corpus.ipynb", "2")
    with pytest.raises(BookError, match=r"results/corpus\.ipynb is stale"):
        check_sources(tmp_path)


def test_the_published_notebooks_are_executed_from_their_sources():
    for path in sorted((tiny_book.ROOT / "book" / "results").glob("*.ipynb")):
        assert list(stale(path, tiny_book.ROOT / "notebooks" / path.name)) == []
