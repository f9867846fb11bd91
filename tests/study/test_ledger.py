"""Listing, filtering and comparing finished runs."""

import pytest
from finished import finished

from lib.runs import NoiseConfig, ReplayConfig, RunConfig, ScheduleConfig
from lib.statistics import StatisticsError
from lib.study.ledger import (
    LedgerError,
    compare,
    constants,
    find_setting,
    runs_table,
    select,
    settings,
    settings_table,
)

DIRECTION = ScheduleConfig(signal="variance", actuator="direction", gamma=10)
REPLAY = ReplayConfig(of=DIRECTION.model_copy(update={"gamma": 7.0}), whose="own", form="mean")
RUNS = [
    *(finished(50 + seed, seed=seed) for seed in range(4)),
    *(finished(51 + 1.1 * seed, seed=seed, schedule=DIRECTION) for seed in range(3)),
    *(finished(40, seed=seed, temperature=0.05) for seed in range(2)),
    finished(30, schedule=REPLAY),
    finished(30, noise=NoiseConfig(kind="mismatched", rate=0.4), learning_rate=3e-3),
]


def chosen(*terms):
    return [RUNS.index(record) for record in select(RUNS, terms)]


def test_a_row_has_every_field_of_the_configuration():
    table = runs_table(RUNS)
    plain = {
        name for name, value in RunConfig().model_dump().items() if not isinstance(value, dict)
    }
    assert plain - {"schedule", "noise"} <= set(table.columns)
    assert {"schedule.gamma", "schedule.of.gamma", "noise.rate", "made.code"} <= set(table.columns)
    assert table["validation_rsum"][0] == 300


@pytest.mark.parametrize(
    ("terms", "places"),
    [
        ([], list(range(11))),
        (["fixed"], [0, 1, 2, 3, 7, 8, 10]),
        (["method=fixed", "temperature=0.1"], [0, 1, 2, 3, 10]),
        (["seed=1|3", "temperature=1e-1"], [1, 3, 5]),
        (["variance x direction"], [4, 5, 6]),
        (["gamma=10"], [4, 5, 6]),
        (["schedule.of.gamma=7.0"], [9]),
        (["noise.kind=mismatched"], [10]),
        (["learning_rate=3e-3"], [10]),
        (["collapsed=true"], []),
        (["corpus=flickr8k"], []),
        ([f"run_id={RUNS[2].config.run_id}"], [2]),
    ],
)
def test_terms_select_runs(terms, places):
    assert chosen(*terms) == places


def test_a_wrong_term_or_setting_is_refused_with_the_nearest_name():
    with pytest.raises(LedgerError, match=r"no column 'temprature' \(did you mean 'temperature'"):
        select(RUNS, ["temprature=0.1"])
    with pytest.raises(LedgerError, match="not a term"):
        select(RUNS, ["temperature="])
    with pytest.raises(LedgerError, match=r"no finished run fits 'fixd' \(did you mean 'fixed'"):
        find_setting(RUNS, "fixd")


def test_runs_that_differ_only_in_seed_are_one_setting():
    found = settings(RUNS)
    assert [len(setting.records) for setting in found] == [4, 3, 2, 1, 1]
    table = settings_table(found)
    assert table["i2t_r1"][0] == 51.5
    assert table["seeds"][1] == 3
    assert "schedule.gamma=10.0" in table["constants"][1]


def test_constants_list_the_values_that_differ_from_the_defaults():
    assert constants(RUNS[-1].config) == (
        "epochs=3, learning_rate=0.003, temperature=0.1, noise.kind=mismatched, noise.rate=0.4"
    )


def test_a_setting_is_found_by_method_by_terms_and_by_id():
    assert len(find_setting(RUNS, "variance x direction").records) == 3
    assert len(find_setting(RUNS, "fixed,temperature=0.05").records) == 2
    by_id = find_setting(RUNS, RUNS[1].config.run_id[:8])
    assert list(by_id.records) == [0, 1, 2, 3]


def test_several_settings_are_listed_and_best_uses_only_validation():
    among = [*RUNS[:4], *RUNS[7:9]]
    with pytest.raises(LedgerError, match=r"fits 2 settings(.|\n)*--best") as caught:
        find_setting(among, "fixed")
    assert RUNS[7].config.run_id[:8] in str(caught.value)
    assert find_setting(among, "fixed", best=True).config == RUNS[0].config
    # The loser now has better test results, but is still not chosen.
    loser = [finished(40, seed=seed, temperature=0.05) for seed in range(2)]
    for record in loser:
        record.test.update(i2t_r1=99.0, rsum=600.0)
    assert find_setting([*RUNS[:4], *loser], "fixed", best=True).config == RUNS[0].config
    with pytest.raises(LedgerError, match="they share no seed"):
        find_setting([RUNS[0], finished(seed=1, temperature=0.05)], "fixed", best=True)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"train_images": 300}, "300 and 1,000 training images"),
        ({"fingerprint": "0123456789"}, "scenes of content 01234567 and scenes of content abc"),
        ({"corpus": "flickr8k"}, "flickr8k of content abc and scenes of content abc"),
    ],
)
def test_the_best_of_several_corpora_contents_or_sizes_is_refused(other, named):
    among = [*RUNS[:2], finished(90, temperature=0.05, **other)]
    with pytest.raises(LedgerError, match=f"fits runs on .*{named}"):
        find_setting(among, "fixed", best=True)


def test_a_comparison_says_what_was_trained_on():
    duel = compare(find_setting(RUNS, "gamma=10"), find_setting(RUNS[:4], "fixed"))
    assert duel.trained_on == "scenes of content abc, 1,000 training images"


def test_a_comparison_is_paired_over_the_common_seeds():
    """Differences 1.0, 1.1 and 1.2: mean 1.1, sd 0.1, interval ± 4.3027 · 0.1 / √3."""
    a, b = find_setting(RUNS, "gamma=10"), find_setting(RUNS[:4], "fixed")
    duel = compare(a, b)
    assert duel.seeds == (0, 1, 2)
    assert duel.unpaired == (3,)
    assert set(duel.differs) == {
        "schedule.signal", "schedule.actuator", "schedule.gamma", "schedule.beta", "schedule.warmup"
    }  # fmt: skip
    assert list(duel.table["metric"]) == ["i2t R@1", "t2i R@1"]
    first = duel.table.iloc[0]
    assert first["estimate"] == pytest.approx(1.1)
    assert first["low"] == pytest.approx(1.1 - 4.30265 * 0.1 / 3**0.5, abs=1e-4)
    # t is 19, p 0.003 over three seeds: too much as one of the book's 50.
    assert first["p_adjusted"] == pytest.approx(50 * first["p"])
    assert first["verdict"] == "undecided"
    assert len(compare(a, b, every_metric=True).table) == 9


def test_settings_that_cannot_be_paired_are_not_compared():
    a, b = find_setting(RUNS, "gamma=10"), find_setting(RUNS[:4], "fixed")
    with pytest.raises(LedgerError, match="the same setting"):
        compare(a, a)
    other = [finished(seed=s, fingerprint="xyz", schedule=DIRECTION) for s in range(3)]
    with pytest.raises(LedgerError, match="2 different corpora"):
        compare(find_setting(other, "variance x direction"), b)
    with pytest.raises(StatisticsError, match="two seeds or more"):
        compare(find_setting(RUNS, "schedule.of.gamma=7"), b)
