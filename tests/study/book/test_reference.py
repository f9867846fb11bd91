"""The reference in the built book: each name has its parts, links and papers."""

import re
from types import SimpleNamespace

import pytest
from bs4 import BeautifulSoup

from lib import losses, metrics, rivals, schedulers
from lib.study.book import reference

PACKAGES = {"schedulers": schedulers, "losses": losses, "metrics": metrics, "rivals": rivals}


@pytest.fixture(scope="module")
def pages(html):
    """The pages of the reference, by name."""
    return {
        path.stem: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in (html / "book" / "reference").glob("*.html")
    }


def entry(page, name):
    """Return the signature of a name and its description."""
    signature = page.find("dt", id=name)
    return signature, signature.find_next_sibling("dd")


def signed(signature):
    """Return the text of a signature, without its links."""
    return signature.get_text().partition("[source]")[0].strip()


def fields(told):
    """Return the fields of an entry, but not of its members: text on one line, by heading."""
    (found,) = told.find_all("dl", class_="field-list", recursive=False)
    return {
        heading.get_text().rstrip(":"): " ".join(heading.find_next_sibling("dd").get_text().split())
        for heading in found.find_all("dt", recursive=False)
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_on_its_page_and_in_the_overview(pages, package):
    overview = {link["href"] for link in pages["index"].find_all("a", href=True)}
    for name in PACKAGES[package].__all__:
        full = f"lib.{package}.{name}"
        signature, told = entry(pages[package], full)
        assert signature.find(class_="sig-name").get_text() == name
        assert told.find(class_=re.compile("doctest|highlight")), f"{full} shows no example"
        assert f"{package}.html#{full}" in overview


def test_an_entry_has_the_expected_text(pages):
    signature, told = entry(pages["schedulers"], "lib.schedulers.Scheduler.quick")
    assert signed(signature) == "quick(similarity, temperature, *, check_finite=True)"
    found = fields(told)
    assert list(found) == ["Parameters", "Returns", "Raises"]
    assert found["Parameters"].startswith("similarity (Tensor) – (…, B, B)")
    assert "temperature (float | Tensor) – " in found["Parameters"]
    assert found["Returns"] == "Schedule – The schedule, as forward()."
    links = [link["href"] for link in told.find_all("a", class_="reference")]
    assert "#lib.schedulers.Schedule" in links
    assert "#lib.schedulers.Scheduler.forward" in links


def test_a_constructor_shows_the_types_of_its_arguments_not_of_its_buffers(pages):
    _, told = entry(pages["schedulers"], "lib.schedulers.Scheduler")
    assert "gamma (float | Tensor) – " in fields(told)["Parameters"]
    signature, _ = entry(pages["schedulers"], "lib.schedulers.Fixed")
    assert signed(signature) == "class Fixed"
    for page, name in (
        ("statistics", "Verdict"),
        ("metrics", "MetricsError"),
        ("metrics", "Array"),
    ):
        signature, _ = entry(pages[page], f"lib.{page}.{name}")
        assert "(" not in signed(signature)


def test_a_union_is_shown_by_its_name_in_the_package(pages):
    _, told = entry(pages["metrics"], "lib.metrics.recall_at_k")
    assert fields(told)["Parameters"].startswith("image (Values | Iterable[Values]) – (N, d)")
    assert told.find("a", href="#lib.metrics.Values")


def test_papers_become_citations_and_equations_become_mathml(pages):
    _, told = entry(pages["losses"], "lib.losses.info_nce")
    assert "Radford et al. [2021], figure 3" in fields(told)["Source"]
    cited = {link["href"].split("#")[0] for link in told.find_all("a", href=re.compile("#id"))}
    assert cited == {"../references.html"}
    assert len(told.find_all("math", attrs={"display": "block"})) == 2


def test_a_constant_is_described_by_the_text_under_it(pages):
    for package, name in (("losses", "LOSSES"), ("schedulers", "SIGNALS")):
        _, told = entry(pages[package], f"lib.{package}.{name}")
        assert "of the study by name" in told.get_text()
        assert "dict()" not in told.get_text()  # This would be the docstring of its type.


def test_inherited_or_repeated_text_is_not_shown(pages):
    for page in pages.values():
        names = [term["id"] for term in page.find_all("dt", class_="sig", id=True)]
        assert len(names) == len(set(names))
        assert "Alias for field number" not in page.get_text()
        assert "Return type" not in page.get_text()


def test_papers_are_found_by_their_names_in_prose(tmp_path):
    bibliography = tmp_path / "papers.bib"
    bibliography.write_text(
        "@article{one, author={Pillai, A.}, year={2025}}\n"
        "@article{two, author={Wang, A. and van den Oord, B.}, year={2018}}\n"
        "@article{many, author={Radovanovi{\\'c}, A. and B, C. and D, E.}, year={2010}}\n"
    )
    labels = reference.citation_labels(bibliography)
    assert labels == {
        "Pillai (2025)": "one",
        "Wang and van den Oord (2018)": "two",
        "Radovanović et al. (2010)": "many",
    }
    text = "By Pillai (2025), Radovanović et\n    al. (2010); not by Smith et al. (2020)."
    assert reference.cite(text, labels) == (
        "By :cite:t:`one`, :cite:t:`many`; not by Smith et al. (2020).",
        ["Smith et al. (2020)"],
    )


def test_two_papers_with_the_same_name_are_refused(tmp_path):
    (tmp_path / "papers.bib").write_text(
        "@article{a, author={Liu, S.}, year={2019}}\n@article{b, author={Liu, T.}, year={2019}}\n"
    )
    with pytest.raises(ValueError, match=r"a and b are both Liu \(2019\)"):
        reference.citation_labels(tmp_path / "papers.bib")


def test_a_paper_that_is_not_in_the_bibliography_gives_a_warning(tmp_path, monkeypatch):
    (tmp_path / "papers.bib").write_text("@article{a, author={Liu, S.}, year={2019}}\n")
    app = SimpleNamespace(
        config=SimpleNamespace(bibtex_bibfiles=["papers.bib"]), srcdir=str(tmp_path)
    )
    warned = []
    monkeypatch.setattr(reference._log, "warning", lambda text, *names: warned.append(names))
    lines = ["By Liu (2019),", "unlike Zhou (1999): :func:`lib.losses.rince`."]
    reference._finish(app, "function", "lib.f", None, None, lines)
    assert lines == ["By :cite:t:`a`,", "unlike Zhou (1999): :func:`~lib.losses.rince`."]
    assert warned == [("lib.f", "Zhou (1999)")]


def test_a_constant_without_text_has_none():
    assert reference.described("lib.losses", "weighted_mean") == []
    assert reference.described("lib.losses", "no_such_name") == []
