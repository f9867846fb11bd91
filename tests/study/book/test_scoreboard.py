"""The first page's answers to the claims: one line per claim, and one for all."""

import pytest
import tiny_book

from lib.study.book.scoreboard import answer, bottom_line, what_helps
from lib.study.book.values import Entry, read_findings


def entry(number=1, verdict="equivalent", *estimates):
    return Entry(
        claim=number,
        title="It is better",
        paper="It is.",
        verdict=verdict,
        notebook="main-comparison",
        estimates=estimates,
        summary="A sentence.",
        corpus="scenes",
        train_images=800,
    )


def epochs(value, **changed):
    made = tiny_book.estimate("epochs to 95 %", value)
    return made.model_copy(update={"unit": "epochs", "lower_is_better": True, **changed})


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (["open"] * 5, "none is confirmed and five are not tested yet."),
        (["improves"] * 5, "five are confirmed."),
        (
            ["improves", "equivalent", "worsens", "undecided", "open"],
            "one is confirmed, in one there is no difference that "
            "matters, in one the opposite is found, one is undecided and one is not tested yet.",
        ),
        (
            ["equivalent", "equivalent", "worsens", "undecided", "undecided"],
            "none is confirmed, in two there is no difference that "
            "matters, in one the opposite is found and two are undecided.",
        ),
    ],
)
def test_the_bottom_line_counts_each_claim_once(verdicts, said):
    entries = [entry(number, verdict) for number, verdict in enumerate(verdicts, 1)]
    assert bottom_line(entries) == f"Of the paper’s five claims, {said}"


def test_what_helps_is_named_with_its_gain_or_not_at_all():
    advice = tiny_book.recommendation().model_copy(update={"name": "Heads, tuned"})
    assert what_helps(advice) == (
        "What helps instead, against the tuned fixed loss: heads, tuned (+0.50 points)."
    )
    assert what_helps(advice.model_copy(update={"estimates": ()})) == ""
    assert what_helps(None) == ""


def test_the_answer_gives_the_range_of_the_differences():
    estimates = [tiny_book.estimate("i2t R@1", value) for value in (0.0625, -0.0125, 0.0)]
    found = answer(entry(1, "equivalent", *estimates))
    assert found == "No, it makes no difference that matters: −0.01 to +0.06 points."


def test_units_have_separate_ranges_and_a_single_value_is_not_a_range():
    estimates = [tiny_book.estimate("rSum", 1.5), epochs(-2.0), epochs(-1.25)]
    found = answer(entry(5, "improves", *estimates))
    assert found == "Yes: +1.50 points and −2.00 to −1.25 epochs."


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("improves", "Yes."),
        ("worsens", "No, it does worse."),
        ("equivalent", "No, it makes no difference that matters."),
        ("undecided", "Not decided by these runs."),
        ("open", "Not tested yet."),
    ],
)
def test_an_answer_without_estimates_is_its_verdict(verdict, said):
    assert answer(entry(3, verdict)) == said


def test_findings_of_an_edition_without_a_recommendation_are_read(tmp_path):
    tiny_book.write_findings_of(tmp_path, tiny_book.finding())
    assert read_findings(tmp_path / "findings.json").recommendation is None
