"""Robustness: degradation by hand, its comparison, and the measurement on noisy test splits."""

import numpy as np
import pandas as pd
import pytest
import torch
from idle import IdleLab
from quick_towers import CountingTower, colour_tower
from torch.nn import functional as F

from lib.chapters.noise.robustness import (
    JUDGED,
    RECALLS,
    compare_degradation,
    condition_name,
    degradation,
    judged_too,
    noise_at_test,
    noise_in_training,
    over_kinds,
    robustness_finding,
)
from lib.chapters.shared.verdicts import PAPER_METHOD
from lib.datasets import CORPORA, Scenes
from lib.encoders import features
from lib.metrics import retrieval_metrics
from lib.noise import Noise, corrupt
from lib.runs import NoiseConfig, RunConfig, ScheduleConfig, Store
from lib.statistics import StatisticsError, paired_comparison
from lib.training import Lab

SCHEDULED = ScheduleConfig(signal="variance", actuator="direction", gamma=10.0)
FIXED = RunConfig(train_images=24, batch_size=8, epochs=2, embedding_dim=8)
CHOSEN = {"fixed": FIXED, PAPER_METHOD: FIXED.model_copy(update={"schedule": SCHEDULED})}


@pytest.fixture
def small(monkeypatch):
    """A small corpus under the name "scenes", and towers that are quick."""
    corpus = Scenes(train=30, val=8, test=12, image_size=32)
    monkeypatch.setitem(CORPORA, "scenes", lambda: corpus)
    texts, images = CountingTower(), colour_tower()
    monkeypatch.setattr(features, "load_text_tower", lambda name: texts)
    monkeypatch.setattr(features, "load_image_tower", lambda name: images)
    return corpus, texts, images


def table_of(losses, *, seeds=6, clean=40.0, kind=None):
    """Clean and noisy rows: losses maps (method, what, level) to what is lost at each seed."""
    rows = []
    for (method, what, level), lost in losses.items():
        for seed in range(seeds):
            base = {"method": method, "seed": seed, "what": what} | ({"kind": kind} if kind else {})
            values = np.full(len(RECALLS), clean + seed)
            rows.append(base | {"level": 0.0} | dict(zip(RECALLS, values, strict=True)))
            points = np.broadcast_to(lost, seeds)[seed]
            rows.append(base | {"level": level} | dict(zip(RECALLS, values - points, strict=True)))
    return pd.DataFrame(rows)


def both_tables(extra):
    """Every judged condition: fixed loses 5 points, each method in extra its own, at 6 seeds."""
    places = {"training": {}, "test": {}}
    for (place, what), level in JUDGED.items():
        places[place]["fixed", what, level] = 5.0
        for method, lost in extra.items():
            points = lost[place, what] if isinstance(lost, dict) else lost
            places[place][method, what, level] = points
    return table_of(places["training"]), table_of(places["test"], kind="a kind")


def test_degradation_by_hand():
    rows = [
        ("fixed", 0, "captions", 0.0, 12.0), ("fixed", 0, "captions", 0.4, 9.5),
        ("fixed", 1, "captions", 0.8, 8.0), ("fixed", 1, "captions", 0.0, 10.0),
        ("fixed", 1, "images", 0.0, 10.0), ("fixed", 1, "images", 0.8, 11.0),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["method", "seed", "what", "level", "i2t_r1"])
    lost = degradation(table.assign(**dict.fromkeys(RECALLS[1:], 0.0)))
    assert lost["i2t_r1"].tolist() == [2.5, 2.0, -1.0]
    assert lost["level"].tolist() == [0.4, 0.8, 0.8]


def test_the_mean_over_kinds_by_hand():
    one = table_of({("fixed", "images", 3): 4.0}, kind="JPEG")
    two = table_of({("fixed", "images", 3): 1.0}, kind="occlusion")
    mean = over_kinds(pd.concat([one, two]))
    assert "kind" not in mean
    assert len(mean) == 12
    assert degradation(mean)["rsum"].tolist() == pytest.approx([2.5] * 6)


def test_the_difference_in_degradation_is_the_methods_loss_minus_the_fixed_losss():
    # The method starts two points higher and loses 5.9 to 6.1, the fixed loss 5: 1.0 more.
    lost = np.array([5.9, 6.1, 6.0, 6.0, 5.9, 6.1])
    training, test = both_tables({PAPER_METHOD: lost})
    raised = training["method"] == PAPER_METHOD
    training.loc[raised, list(RECALLS)] += 2
    compared = compare_degradation(training, test, 0.3)
    assert compared["estimate"].tolist() == pytest.approx([1.0] * 10)
    expected = paired_comparison(dict(enumerate(lost)), dict.fromkeys(range(6), 5.0))
    assert compared["low"].tolist() == pytest.approx([expected.low] * 10)
    assert set(compared["verdict"]) == {"worsens"}  # It loses more.
    assert compared["p_adjusted"].tolist() == pytest.approx([50 * expected.p] * 10)
    assert compared["condition"].tolist()[::2] == [
        "40 % mismatched pairs", "80 % noisy captions", "80 % noisy images",
        "test captions, severity 3", "test images, severity 3",
    ]  # fmt: skip
    assert compared["metric"].tolist() == ["i2t R@1", "t2i R@1"] * 5


def test_other_methods_are_a_family_of_their_own():
    lost = np.array([4.0, 4.2, 4.4, 4.6, 4.8, 5.0])
    alone = compare_degradation(*both_tables({PAPER_METHOD: lost}), 0.3)
    both = compare_degradation(*both_tables({"other": lost, PAPER_METHOD: lost}), 0.3)
    assert both["method"].tolist() == ["other"] * 10 + [PAPER_METHOD] * 10
    assert both["primary"].tolist() == [False] * 10 + [True] * 10
    claimed = both[both["primary"]].reset_index(drop=True)
    pd.testing.assert_frame_equal(claimed, alone)


def some(**points):
    """What is lost in each condition, by default 5 points give or take nothing that matters."""
    wobble = np.array([-0.02, 0.02, 0.01, -0.01, 0.03, -0.03])
    return {(place, what): points.get(f"{place}_{what}", 5.0) + wobble for place, what in JUDGED}


@pytest.mark.parametrize(
    ("lost", "verdict", "words"),
    [
        (some(), "equivalent", "10 equivalent"),
        (some(**{f"{place}_{what}": 4.0 for place, what in JUDGED}), "improves", "10 improves"),
        (some(**{f"{place}_{what}": 6.0 for place, what in JUDGED}), "worsens", "10 worsens"),
        # Less in one condition alone does not make a robust method.
        (some(test_images=4.0), "undecided", "8 equivalent, 2 improves"),
        (some(test_images=4.0, training_images=6.0), "undecided", "6 equivalent"),
    ],
)
def test_the_answer_to_the_claim(lost, verdict, words):
    compared = compare_degradation(*both_tables({PAPER_METHOD: lost, "other": 9.0}), 0.3)
    finding = robustness_finding("noise", compared, corpus="scenes", train_images=24, margin=0.3)
    assert (finding.claim, finding.verdict, len(finding.estimates)) == (3, verdict, 10)
    assert {estimate.method for estimate in finding.estimates} == {PAPER_METHOD}
    assert finding.estimates[0].metric == "i2t R@1 lost with 40 % mismatched pairs"
    assert {(e.unit, e.margin, e.lower_is_better) for e in finding.estimates} == {
        ("points", 0.3, True)
    }
    assert words in finding.summary
    assert "24 training images, 6 paired seeds" in finding.summary


@pytest.mark.parametrize(("place", "what"), JUDGED)
def test_noise_at_which_the_claim_is_judged_must_be_there(place, what):
    tables = dict(zip(("training", "test"), both_tables({PAPER_METHOD: 5.0}), strict=True))
    tables[place] = tables[place].query("what != @what")
    name = condition_name(place, what, JUDGED[place, what])
    with pytest.raises(ValueError, match=f"no runs with {name}"):
        compare_degradation(*tables.values(), 0.3)


def test_methods_and_seeds_must_be_there():
    training, test = both_tables({"other": 5.0})
    with pytest.raises(ValueError, match=f"'{PAPER_METHOD}' is not among the methods"):
        compare_degradation(training, test, 0.3)
    training, test = both_tables({PAPER_METHOD: 5.0})
    short = (training["method"] == PAPER_METHOD) & (training["seed"] == 2)
    with pytest.raises(StatisticsError):
        compare_degradation(training[~short], test, 0.3)


def test_what_is_judged_is_always_measured():
    assert judged_too("test", "images", [5, 1]) == [1, 3, 5]
    assert judged_too("training", "captions", [0.8]) == [0.8]


def test_training_noise_runs_each_method_at_each_rate(small):
    lab = Lab(Store(), device="cpu")
    table = noise_in_training(lab, CHOSEN, [0, 1], {"mismatched": [0.5, 1.0], "captions": [1.0]})
    assert len(table) == 2 * 2 * (3 + 2)
    config = CHOSEN[PAPER_METHOD].with_seed(1)
    noisy = config.model_copy(update={"noise": NoiseConfig(kind="mismatched", rate=0.5)})
    rows = table.set_index(["method", "seed", "what", "level"])[list(RECALLS)]
    for run, level in ((config, 0.0), (noisy, 0.5)):
        (record,) = lab.train([run])
        row = rows.loc[[(PAPER_METHOD, 1, "mismatched", level)]]
        assert row.to_numpy().tolist() == [[record.test[name] for name in RECALLS]]


def test_test_noise_replaces_the_gallery_of_one_modality(small):
    corpus, texts, images = small
    lab = Lab(Store(), device="cpu")
    table = noise_at_test(lab, CHOSEN, [0, 1], ["word drop", "occlusion"], [2, 5])
    assert len(table) == 2 * 2 * 2 * 3
    assert table["method"].unique().tolist() == list(CHOSEN)
    run = CHOSEN[PAPER_METHOD].with_seed(1)
    ((_, encoder, data),) = lab.retrain([run])
    rows = table[(table["method"] == PAPER_METHOD) & (table["seed"] == 1)]
    (record,) = lab.train([run])
    for noise in (Noise("word drop", 5), Noise("occlusion", 2), None):
        image, text = data.test.image, data.test.text
        if noise is not None:
            noisy = corrupt(corpus, noise)
            if noise.modality == "captions":
                text = texts([c for s in noisy.samples for c in s.captions], None)
            else:
                image = images([noisy.load_image(s) for s in noisy.samples], torch.device("cpu"))
        similarity = F.normalize(encoder.image(image), dim=-1) @ encoder.text(text).T
        expected = retrieval_metrics(similarity, data.test.caption_owner).rsum
        kind, level = (noise.kind, noise.severity) if noise else ("occlusion", 0)
        row = rows[(rows["kind"] == kind) & (rows["level"] == level)]
        assert row["rsum"].tolist() == pytest.approx([float(expected)])
        if noise is None:
            assert row["rsum"].tolist() == pytest.approx([record.test["rsum"]])
    what = dict(zip(table["kind"], table["what"], strict=True))
    assert what == {"word drop": "captions", "occlusion": "images"}


def test_test_noise_is_measured_once(small):
    arguments = (CHOSEN, [0], ["typing errors"], [1])
    first = noise_at_test(Lab(Store(), device="cpu"), *arguments)

    class Finished(IdleLab):
        train = Lab.train

    pd.testing.assert_frame_equal(noise_at_test(Finished(), *arguments), first)
    with pytest.raises(AssertionError, match="must be read"):
        noise_at_test(Finished(), CHOSEN, [0], ["typing errors"], [2])


def test_a_published_table_needs_no_corpus(small, monkeypatch, tmp_path):
    arguments = (CHOSEN, [0], ["JPEG"], [1])
    first = noise_at_test(Lab(Store(tmp_path / "runs"), device="cpu"), *arguments)
    monkeypatch.setitem(CORPORA, "scenes", None)
    again = noise_at_test(Lab(Store(tmp_path / "runs"), device="cpu"), *arguments)
    pd.testing.assert_frame_equal(again, first)


def test_unknown_noise_is_refused_before_any_work():
    with pytest.raises(ValueError, match="noise 'rain' is unknown"):
        noise_at_test(IdleLab(), CHOSEN, [0], ["rain"], [1])
