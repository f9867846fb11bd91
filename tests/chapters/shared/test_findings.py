import json

import pytest
from IPython.utils.capture import capture_output
from nbformat.v4 import new_code_cell, new_notebook, new_output, writes
from pydantic import ValidationError

from lib.chapters.shared.findings import (
    CLAIMS,
    MIME_TYPE,
    RECOMMENDATION_MIME_TYPE,
    Estimate,
    Finding,
    FindingError,
    Recommendation,
    claim,
    collect,
    publish,
    write_findings,
)

ESTIMATE = Estimate(
    metric="i2t R@1",
    baseline="fixed",
    method="variance × direction",
    estimate=0.01,
    low=-0.02,
    high=0.04,
    seeds=20,
    p_adjusted=0.8,
    verdict="equivalent",
)


def finding(**changed):
    values = {
        "claim": 1,
        "verdict": "equivalent",
        "notebook": "main-comparison",
        "estimates": (ESTIMATE,),
        "summary": "No difference.",
        "corpus": "flickr8k",
        "train_images": 1000,
    }
    return Finding(**{**values, **changed})


def recommendation(**changed):
    values = {
        "name": "fixed weights, tuned",
        "notebook": "main-comparison",
        "summary": "Nothing beats them.",
        "settings": {"temperature": "0.1"},
        "estimates": (ESTIMATE.model_copy(update={"train_images": 100, "margin": 0.3}),),
    }
    return Recommendation(**{**values, **changed})


def write_executed(path, *published, kind=MIME_TYPE):
    outputs = [new_output("display_data", {kind: data, "text/plain": "x"}) for data in published]
    outputs.append(new_output("stream", text="something else"))
    path.write_text(writes(new_notebook(cells=[new_code_cell("x", outputs=outputs)])))
    return path


def test_there_are_five_claims_and_the_papers_numbers_are_with_the_first():
    assert [claim.number for claim in CLAIMS] == [1, 2, 3, 4, 5]
    assert dict(claim(1).gains) == {"i2t R@1": 2.3, "t2i R@1": 1.5}
    assert "2.3" in claim(1).paper
    assert "1.5" in claim(1).paper


def test_publishing_displays_the_sentence_and_the_data(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append((data, raw)))
    publish(finding())
    ((data, raw),) = shown
    assert raw
    assert data["text/markdown"] == "No difference."
    assert Finding.model_validate(json.loads(json.dumps(data[MIME_TYPE]))) == finding()


def test_publishing_outside_a_notebook_prints_the_sentence():
    with capture_output() as captured:
        publish(finding())
    assert "No difference." in captured.stdout or captured.outputs


def test_collect_answers_the_claims_that_were_published_and_leaves_the_others_open(tmp_path):
    first = write_executed(
        tmp_path / "main-comparison.ipynb",
        finding().model_dump(mode="json"),
        finding(claim=2, verdict="undecided").model_dump(mode="json"),
    )
    silent = write_executed(tmp_path / "corpus.ipynb")
    collected = collect([silent, first], edition="quick")
    assert collected["edition"] == "quick"
    claims = collected["claims"]
    assert [c["verdict"] for c in claims] == ["equivalent", "undecided", "open", "open", "open"]
    assert [c["claim"] for c in claims] == [1, 2, 3, 4, 5]
    assert len({tuple(c) for c in claims}) == 1
    (estimate,) = claims[0]["estimates"]
    assert (estimate["low"], estimate["high"], estimate["unit"]) == (-0.02, 0.04, "points")
    assert claims[0]["notebook"] == "main-comparison"
    assert claims[2]["notebook"] is None


def test_publishing_a_recommendation_displays_its_sentence_and_the_data(monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.display.display", lambda data, raw: shown.append(data))
    publish(recommendation())
    (data,) = shown
    assert data["text/markdown"] == "Nothing beats them."
    assert MIME_TYPE not in data
    sent = json.loads(json.dumps(data[RECOMMENDATION_MIME_TYPE]))
    assert Recommendation.model_validate(sent) == recommendation()


def test_one_recommendation_is_collected_and_none_is_null(tmp_path):
    silent = write_executed(tmp_path / "corpus.ipynb", finding(notebook="corpus").model_dump())
    told = write_executed(
        tmp_path / "main-comparison.ipynb",
        recommendation().model_dump(mode="json"),
        kind=RECOMMENDATION_MIME_TYPE,
    )
    assert collect([silent])["recommendation"] is None
    collected = collect([silent, told])
    assert Recommendation.model_validate(collected["recommendation"]) == recommendation()
    assert collected["claims"] == collect([silent])["claims"]


@pytest.mark.parametrize(
    ("published", "said"),
    [
        ([{"name": "x"}], "malformed recommendation"),
        ([recommendation().model_dump(mode="json")] * 2, "a setting is recommended twice"),
        (
            [recommendation(notebook="corpus").model_dump(mode="json")],
            "a recommendation as the notebook 'corpus'",
        ),
    ],
)
def test_contradictory_recommendations_are_refused(tmp_path, published, said):
    path = tmp_path / "main-comparison.ipynb"
    with pytest.raises(FindingError, match=said):
        collect([write_executed(path, *published, kind=RECOMMENDATION_MIME_TYPE)])


def test_findings_are_written_whole_and_the_same_each_time(tmp_path):
    path = write_executed(tmp_path / "main-comparison.ipynb", finding().model_dump(mode="json"))
    target = tmp_path / "results" / "findings.json"
    write_findings([path], target)
    first = target.read_bytes()
    assert json.loads(first) == collect([path])
    assert "×" in first.decode()
    write_findings([path], target)
    assert target.read_bytes() == first


def test_bad_notebooks_leave_the_last_good_findings(tmp_path):
    target = tmp_path / "findings.json"
    target.write_text("good")
    broken = tmp_path / "corpus.ipynb"
    broken.write_text('{"cells": [')
    with pytest.raises(FindingError, match=r"corpus\.ipynb is no readable executed notebook"):
        write_findings([broken], target)
    assert target.read_text() == "good"
    assert list(tmp_path.glob(".*")) == []


@pytest.mark.parametrize(
    ("published", "said"),
    [
        ([{"claim": 1}], "malformed"),
        ([finding(notebook="corpus").model_dump(mode="json")], "as the notebook 'corpus'"),
        ([finding().model_dump(mode="json")] * 2, "claim 1 is answered twice"),
        ([{**finding().model_dump(mode="json"), "verdict": "better"}], "malformed"),
    ],
)
def test_contradictory_findings_are_refused(tmp_path, published, said):
    path = write_executed(tmp_path / "main-comparison.ipynb", *published)
    with pytest.raises(FindingError, match=said):
        collect([path])


@pytest.mark.parametrize(
    "bad",
    [
        {"low": 1.0},
        {"estimate": float("nan")},
        {"p_adjusted": 1.2},
        {"seeds": 0},
        {"verdict": "x"},
        {"margin": 0.0},
        {"train_images": 0},
    ],
)
def test_an_impossible_estimate_is_refused(bad):
    with pytest.raises(ValidationError):
        Estimate(**{**ESTIMATE.model_dump(), **bad})


@pytest.mark.parametrize("bad", [{"claim": 0}, {"claim": 6}, {"summary": ""}, {"train_images": 0}])
def test_an_impossible_finding_is_refused(bad):
    with pytest.raises(ValidationError):
        finding(**bad)
