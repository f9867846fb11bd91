"""t-SNE maps: the same again, without captions, and what they owe to their settings."""

import embedded
import numpy as np
import pandas as pd
import pytest
from idle import IdleLab

from lib.chapters.embeddings import maps
from lib.chapters.embeddings.maps import (
    EXTENT,
    map_lesson,
    map_silhouettes,
    map_table,
    start_name,
    tsne,
)
from lib.runs import RunConfig

SMALL = RunConfig(train_images=30, epochs=1, batch_size=10, embedding_dim=8)
CHOSEN = {"fixed": SMALL, "hot": SMALL.model_copy(update={"temperature": 0.5})}
SETTINGS = {"perplexities": [4.0, 8.0], "random_starts": 1, "images": 12}


def clouds(apart=6.0):
    """Two clouds of 15 points around two axes."""
    rng = np.random.default_rng(0)
    return np.eye(5)[np.arange(30) % 2] * apart + rng.standard_normal((30, 5))


def test_a_map_is_the_same_again():
    for start in (0, 1):
        made = tsne(clouds(), 5.0, start)
        assert made.shape == (30, 2)
        np.testing.assert_array_equal(tsne(clouds(), 5.0, start), made)


def test_starts_and_perplexities_give_other_maps():
    made = [tsne(clouds(), *setting) for setting in ((5.0, 0), (5.0, 1), (5.0, 2), (9.0, 0))]
    for row, one in enumerate(made):
        assert all(np.abs(one - other).max() > 0.5 for other in made[:row])


def test_clouds_stay_apart_by_angle_whatever_their_length():
    lengths = np.linspace(1, 50, 30)[:, None]
    made = tsne(clouds() * lengths, 5.0, 0)
    first, second = made[::2], made[1::2]
    between = np.linalg.norm(first.mean(axis=0) - second.mean(axis=0))
    assert between > 2 * np.linalg.norm(first - first.mean(axis=0), axis=1).mean()


@pytest.fixture
def table():
    return map_table(embedded.EmbeddedLab(), CHOSEN, [1], **SETTINGS)


def test_a_table_of_maps_holds_names_and_links_and_no_caption(table, study_home):
    assert list(table.columns) == [
        "method", "seed", "perplexity", "start", "image", "topic", "modality", "link", "x", "y",
    ]  # fmt: skip
    # Methods, seeds, perplexities, starts; 12 images and as many captions.
    assert len(table) == 2 * 1 * 2 * 2 * 24
    assert table.groupby(["method", "seed", "perplexity", "start"]).ngroups == 8
    known = {sample.id: sample for sample in embedded.samples()}
    for row in table.drop_duplicates("image").itertuples():
        assert row.topic == known[row.image].labels["background"]
        assert row.link == known[row.image].link
    assert set(table["modality"]) == {"image", "caption"}
    # The same images in every map, at rounded places.
    shown = table.groupby(["method", "seed", "perplexity", "start", "modality"])["image"].agg(tuple)
    assert shown.nunique() == 1
    assert len(set(shown.iloc[0])) == 12
    plane = table[["x", "y"]].to_numpy()
    np.testing.assert_array_equal(plane, np.round(plane, 2))
    for _, one in table.groupby(["method", "seed", "perplexity", "start"]):
        assert one[["x", "y"]].abs().max(axis=None) == EXTENT
        middle = (one[["x", "y"]].max() + one[["x", "y"]].min()) / 2
        assert middle.abs().max() < 0.011
    (path,) = (study_home / "tables").glob("*.parquet")
    assert not pd.read_parquet(path).map(lambda v: embedded.SENTINEL in str(v)).any(axis=None)
    assert embedded.SENTINEL.encode() not in path.read_bytes()
    pd.testing.assert_frame_equal(map_table(IdleLab(), CHOSEN, [1], **SETTINGS), table)


def test_a_draw_of_more_images_than_there_are_takes_all():
    lab, chosen = embedded.EmbeddedLab(), {"fixed": SMALL}
    made = map_table(lab, chosen, [0], perplexities=[4.0], random_starts=0, images=1000)
    assert made["image"].nunique() == embedded.TEST


def test_a_perplexity_too_great_is_refused_before_training():
    with pytest.raises(ValueError, match="perplexity 24 needs more than 24 points"):
        map_table(IdleLab(), CHOSEN, [0], perplexities=[8.0, 24.0], random_starts=0, images=12)


def test_a_turned_mirrored_moved_and_scaled_map_is_laid_out_like_the_first():
    rng = np.random.default_rng(0)
    plane = rng.normal(0, 3, (40, 2))
    angle = 1.2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    changed = 7 * (plane - plane.mean(axis=0)) @ turn * [1, -1]
    first, second = (pd.DataFrame({"plane": list(p)}) for p in (plane, changed))
    here, there = maps._laid_out(first, like=first), maps._laid_out(second, like=first)
    # The laid-out map is the map itself, moved and scaled, to two decimals.
    centred = plane - (plane.max(axis=0) + plane.min(axis=0)) / 2
    np.testing.assert_allclose(here, centred * EXTENT / np.abs(centred).max(), atol=0.006)
    # The mean is not quite the middle, so the angle found is a little off.
    np.testing.assert_allclose(there, here, atol=0.4)
    apart = [np.linalg.norm(p[:, None] - p, axis=-1) for p in (plane, there)]
    ratio = apart[1][apart[0] > 1] / apart[0][apart[0] > 1]
    assert np.ptp(ratio) < 0.03


def test_silhouettes_of_maps_are_euclidean_and_per_map():
    corners = pd.DataFrame(
        {
            "method": "fixed", "seed": 0, "start": 0,
            "perplexity": [5.0] * 4 + [9.0] * 4,
            "topic": ["a", "a", "b", "b"] * 2,
            "x": [0.0, 0.0, 10.0, 10.0, 0.0, 10.0, 0.0, 10.0],
            "y": [0.0, 1.0, 0.0, 1.0] * 2,
        }
    )  # fmt: skip
    found = map_silhouettes(corners).set_index("perplexity")["silhouette"]
    # a = 1, b = (10 + √101) / 2 for every point; in the second map topics are mixed.
    far = (10 + 101**0.5) / 2
    assert found[5.0] == pytest.approx((far - 1) / far, abs=1e-4)
    assert found[9.0] < 0


def test_the_lesson_is_computed():
    rows = [
        (method, seed, perplexity, start, base + 0.1 * (perplexity == 50) + 0.02 * start)
        for method, base in (("fixed", 0.2), ("paper", 0.21))
        for seed in (0, 1)
        for perplexity in (10.0, 50.0)
        for start in (0, 1)
    ]
    table = pd.DataFrame(rows, columns=["method", "seed", "perplexity", "start", "silhouette"])
    lesson = map_lesson(table, "paper")
    for part in (
        "goes from 0.200 to 0.320",
        "the mean of all is 0.120",
        "by up to 0.020 with the start alone",
        "it moves by 0.000",
        "changes by +0.0100 on average, from +0.010 to +0.010",
        "in 8 of 8 pairs",
    ):
        assert part in lesson


def test_starts_have_names():
    assert [start_name(start) for start in (0, 1)] == ["principal components", "random 1"]
