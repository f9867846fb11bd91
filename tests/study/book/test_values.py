"""Values from findings.json that prose shows."""

import json

import pytest
import tiny_book

from lib.study.book.values import FindingsError, find_value, read_findings


@pytest.fixture(scope="module")
def findings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("findings")
    tiny_book.write_findings_of(folder, tiny_book.finding())
    return read_findings(folder / "findings.json")


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("1.verdict", "equivalent"),
        ("3.verdict", "open"),
        ("1.estimates.0.estimate", "−0.01"),
        ("1.estimates.0.estimate:+.3f", "−0.013"),
        ("1.estimates.1.estimate:+.1f", "+0.1"),
        ("1.estimates.0.seeds", "20"),
        (" 1.train_images:, ", "1,000"),
        ("1.estimates.0.metric", "i2t R@1"),
    ],
)
def test_a_value_is_shown_in_its_format(findings, expression, text):
    assert find_value(findings, expression) == text


@pytest.mark.parametrize(
    "expression",
    [
        "", "6.verdict", "1", "1.estimates", "1.estimates.2.estimate", "1.estimates.first.estimate",
        "1.no_such_name", "1.verdict.0.x", "3.summary", "1.estimates.0.estimate:no format",
    ],
)  # fmt: skip
def test_a_missing_value_is_named(findings, expression):
    with pytest.raises(FindingsError) as caught:
        find_value(findings, expression)
    assert repr(expression) in str(caught.value)


def test_missing_findings_are_named(tmp_path):
    with pytest.raises(FindingsError, match=r"no findings at .*findings\.json"):
        read_findings(tmp_path / "findings.json")


@pytest.mark.parametrize(
    "change", [{"verdict": "splendid"}, {"estimates": None}, {"extra": 1}, {"claim": "one"}]
)
def test_malformed_findings_are_named(tmp_path, change):
    tiny_book.write_findings_of(tmp_path, tiny_book.finding())
    path = tmp_path / "findings.json"
    content = json.loads(path.read_text())
    content["claims"][0] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(FindingsError, match=r"findings\.json is malformed"):
        read_findings(path)
