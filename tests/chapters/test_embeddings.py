"""Measures of embeddings: worked cases, slow loops, tables without captions, the claim's answer."""

import embedded
import numpy as np
import pandas as pd
import pytest
import torch
from finished import traced
from idle import IdleLab

from lib.chapters.embeddings.claim import (
    SCALES,
    at_equal_temperature,
    cluster_finding,
    compare_clusters,
    compare_measures,
)
from lib.chapters.embeddings.measures import (
    MEASURES,
    labelled_pairs,
    measure_embeddings,
    measure_table,
    topic_table,
)
from lib.chapters.shared.traces import mean_temperatures
from lib.chapters.shared.verdicts import PAPER_METHOD
from lib.runs import RunConfig, ScheduleConfig

SMALL = RunConfig(train_images=30, epochs=2, batch_size=10, embedding_dim=8)
SCHEDULED = SMALL.model_copy(
    update={"schedule": ScheduleConfig(signal="variance", actuator="direction", gamma=50)}
)
CHOSEN = {"fixed": SMALL, PAPER_METHOD: SCHEDULED}


def unit(tensor):
    return torch.nn.functional.normalize(tensor.double(), dim=-1)


def test_perfect_clusters_score_what_they_should():
    """Two topics on two axes, every caption on its image."""
    labels = ["a", "b"] * 12
    image = torch.eye(2)[torch.arange(24) % 2]
    measured = measure_embeddings(image, image, torch.arange(24), labels)
    for name, value in measured.items():
        if name.startswith(("silhouette", "purity")):
            assert value == 1.0, name
        if "alignment" in name or "gap" in name or "hubness" in name:
            assert value == pytest.approx(0, abs=1e-12), name
    # Of 276 pairs 132 are equal; the others lie √2 apart: exp(−2 · 2).
    uniform = np.log((132 + 144 * np.exp(-4)) / 276)
    assert measured["uniformity_image"] == measured["uniformity_text"] == pytest.approx(uniform)


def test_a_gap_between_modalities_spoils_the_joint_silhouette_alone():
    labels = ["a", "b"] * 12
    plane = torch.eye(2)[torch.arange(24) % 2]
    image = unit(torch.cat([plane, 3 * torch.ones(24, 1)], dim=-1))
    text = unit(torch.cat([plane, -3 * torch.ones(24, 1)], dim=-1))
    measured = measure_embeddings(image, text, torch.arange(24), labels)
    assert measured["silhouette_image"] == measured["silhouette_text"] == pytest.approx(1)
    assert measured["silhouette"] < 0.5
    # (x, y, ±3) / √10: the means differ by 6 / √10, and so does every pair.
    assert measured["modality_gap"] == pytest.approx(6 / 10**0.5)
    assert measured["alignment"] == pytest.approx(36 / 10)


def slow_silhouette(points, labels):
    """Rousseeuw's definition (1987), a point at a time, by cosine distance."""
    distance = 1 - points @ points.T
    values = []
    for row, own in enumerate(labels):
        means = {}
        for label in set(labels):
            members = [i for i, other in enumerate(labels) if other == label and i != row]
            means[label] = distance[row, members].mean() if members else None
        a, b = means.pop(own), min(means.values())
        values.append(0.0 if a is None else float((b - a) / max(a, b)))
    return np.mean(values)


def test_measures_are_those_of_slow_loops_over_labelled_images():
    generator = torch.Generator().manual_seed(0)
    image, text = (unit(torch.randn(n, 5, generator=generator)) for n in (30, 75))
    # Ragged: the last five images have no caption; some have no label.
    owner = (torch.arange(75) % 25).sort().values
    labels = [None if row % 7 == 3 else "abc"[row % 3] for row in range(30)]
    measured = measure_embeddings(image, text, owner, labels)
    rows = [row for row in range(25) if labels[row] is not None]
    first = [int((owner == row).nonzero()[0]) for row in rows]
    v, t, known = image[rows], text[first], [labels[row] for row in rows]
    both = slow_silhouette(torch.cat([v, t]), known + known)
    assert measured["silhouette"] == pytest.approx(both)
    assert measured["silhouette_image"] == pytest.approx(slow_silhouette(v, known))
    assert measured["silhouette_text"] == pytest.approx(slow_silhouette(t, known))
    similarity = (v @ t.T).numpy()
    nearest = np.argsort(-similarity, axis=1)[:, :10]
    hits = [known[item] == known[query] for query, items in enumerate(nearest) for item in items]
    assert measured["purity_i2t"] == pytest.approx(np.mean(hits))
    apart = [float(((image[owner[c]] - text[c]) ** 2).sum()) for c in range(75)]
    assert measured["alignment"] == pytest.approx(np.mean(apart))


def test_images_without_label_or_caption_are_left_out():
    rows, first = labelled_pairs(torch.tensor([1, 1, 3, 4, 4]), ["a", "b", "c", None, "a"])
    assert rows.tolist() == [1, 4]
    assert first.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("labels", "words"),
    [(["a"] * 24, "24 images with 1 labels"), (["a", "b"] * 5 + [None] * 14, "10 images with 2")],
)
def test_too_few_labels_are_refused(labels, words):
    image = unit(torch.randn(24, 4, generator=torch.Generator().manual_seed(0)))
    with pytest.raises(ValueError, match=words):
        measure_embeddings(image, image, torch.arange(24), labels)


def test_measures_are_kept_and_hold_no_caption(study_home):
    lab = embedded.EmbeddedLab()
    table = measure_table(lab, CHOSEN, range(2))
    assert list(table.columns) == ["method", "seed", *MEASURES]
    assert table["method"].tolist() == ["fixed"] * 2 + [PAPER_METHOD] * 2
    assert table["seed"].tolist() == [0, 1, 0, 1]
    assert table.drop(columns="method").notna().all(axis=None)
    # Features that depend on the topic give clusters; two seeds and two methods differ.
    assert (table["silhouette"] > 0.05).all()
    assert table["alignment"].nunique() == 4
    labels = topic_table(lab, SMALL)
    assert sorted(labels["topic"]) == ["sand", "snow", "water"]
    assert labels["images"].tolist() == [20, 20, 20]
    kept = list((study_home / "tables").glob("*.parquet"))
    assert len(kept) == 2
    for path in kept:
        shown = pd.read_parquet(path).map(str)
        assert not shown.map(lambda text: embedded.SENTINEL in text).any(axis=None)
        assert embedded.SENTINEL.encode() not in path.read_bytes()

    idle = IdleLab()
    pd.testing.assert_frame_equal(measure_table(idle, CHOSEN, range(2)), table)
    topic_table(idle, SMALL)
    with pytest.raises(AssertionError, match="must be read"):
        measure_table(idle, CHOSEN, range(3))


def measured(**shifts):
    """Five seeds of a baseline and of methods that differ from it by given shifts."""
    rng = np.random.default_rng(0)
    noise = {seed: rng.normal(0, 0.1, len(MEASURES)) for seed in range(5)}
    rows = []
    for method, shift in {"fixed": {}, **shifts}.items():
        for seed in range(5):
            row = dict(zip(MEASURES, 1 + noise[seed], strict=True))
            jitter = rng.normal(0, 1e-3)
            row |= {name: row[name] + by + jitter for name, by in shift.items()}
            name = PAPER_METHOD if method == "paper" else method
            rows.append({"method": name, "seed": seed, **row})
    return pd.DataFrame(rows)


def verdicts(runs, margin=1.0):
    table = compare_clusters(runs, margin)
    return {(row.method, row.metric.split()[0]): row.verdict for row in table.itertuples()}


def test_pairs_improve_by_coming_closer_and_clusters_by_parting():
    better = {"alignment": -0.1, "silhouette": 0.1}
    worse = {"alignment": 0.1, "silhouette": -0.1}
    found = verdicts(measured(paper=better, rival=worse))
    assert found[PAPER_METHOD, "alignment"] == found[PAPER_METHOD, "silhouette"] == "improves"
    assert found["rival", "alignment"] == found["rival", "silhouette"] == "worsens"


def test_a_margin_is_a_percentage_of_each_measures_scale():
    # 0.015 lies inside 1 % of alignment's scale, 2, and outside 1 % of silhouette's, 1.
    runs = measured(paper={"alignment": -0.015, "silhouette": 0.015})
    assert list(verdicts(runs).values()) == ["equivalent", "improves"]
    assert set(verdicts(runs, 4.0).values()) == {"equivalent"}
    table = compare_clusters(runs, 1.0)
    assert table["margin"].tolist() == [0.02, 0.01]
    assert SCALES == {"alignment": 2.0, "silhouette": 1.0}


def test_all_measures_are_compared_and_none_is_judged():
    table = compare_measures(measured(paper={"modality_gap": 0.3}))
    assert list(table["metric"]) == list(MEASURES)
    assert "verdict" not in table
    row = table.set_index("metric").loc["modality_gap"]
    assert row["estimate"] == pytest.approx(0.3, abs=0.01)
    assert row["p_adjusted"] < 0.001
    assert (table.set_index("metric").drop("modality_gap")["p_adjusted"] == 1).all()


def test_the_finding_rests_on_the_papers_method_alone():
    compared = compare_clusters(measured(paper={"silhouette": 0.1}, rival={"alignment": 0.1}), 1.0)
    finding = cluster_finding("embeddings", compared, corpus="scenes", train_images=800, margin=1.0)
    assert finding.claim == 4
    assert finding.verdict == "improves"
    assert {e.method for e in finding.estimates} == {PAPER_METHOD}
    assert [(e.verdict, e.unit, e.margin, e.lower_is_better) for e in finding.estimates] == [
        ("equivalent", "squared distance", 0.02, True), ("improves", "of 1", 0.01, False),
    ]  # fmt: skip
    assert "5 paired seeds" in finding.summary
    assert "within 1 % of the way" in finding.summary


def test_without_the_papers_method_there_is_no_answer():
    compared = compare_clusters(measured(rival={"alignment": 0.1}), 1.0)
    with pytest.raises(ValueError, match="variance × direction"):
        cluster_finding("embeddings", compared, corpus="scenes", train_images=800, margin=1.0)


def test_a_runs_temperature_is_that_of_the_steps_behind_its_heads():
    record = traced(RunConfig(seed=3), rsum=[0, 1, 0], temperature=[0.1, 0.2, 0.3, 0.4, 9.0, 9.0])
    (row,) = mean_temperatures({"fixed": [record]}).itertuples()
    assert (row.method, row.seed) == ("fixed", 3)
    assert row.temperature == pytest.approx(0.25)


def test_a_difference_that_the_temperature_makes_is_gone_at_equal_temperature():
    """Alignment follows log2 τ in every run; one method has something of its own besides."""
    taus = {"fixed": 0.1, "sharp": 0.2, "better": 0.4}
    own = {"fixed": 0.0, "sharp": 0.0, "better": -0.3}

    def row(method, seed, tau, extra=0.0):
        alignment = 1 + np.log2(tau) / 10 + 0.05 * seed + extra
        return {
            "method": method, "seed": seed, "temperature": tau,
            "alignment": alignment, "silhouette": 0.1 + 0.01 * seed,
        }  # fmt: skip

    runs = pd.DataFrame([row(m, s, taus[m], own[m]) for m in taus for s in range(4)])
    curve = pd.DataFrame([row("curve", s, tau) for tau in (0.8, 0.05, 0.1) for s in (1, 2)])
    table = at_equal_temperature(runs, curve).set_index(["method", "measure"])
    sharp, better = table.loc["sharp", "alignment"], table.loc["better", "alignment"]
    assert sharp["tuned"] == pytest.approx(0.1)
    assert sharp["equal"] == pytest.approx(0, abs=1e-12)
    assert better["tuned"] == pytest.approx(0.2 - 0.3)
    assert better["equal"] == pytest.approx(-0.3)
    assert table["temperature"].tolist() == [0.2, 0.2, 0.4, 0.4]
    silhouette = table.xs("silhouette", level="measure")[["tuned", "equal"]]
    assert (silhouette.abs() < 1e-12).all(axis=None)
