"""Plans: runs are counted and not trained, and what a plan cannot make up ends it."""

import pandas as pd
import pytest
from small_runs import MIXED, config, fresh

from lib.runs import RunConfig, TowersConfig
from lib.runs.plan import NotPlannedError, expected_seconds, made_up, read_plan
from lib.training import Lab, trainer
from lib.utils.version import PLAN_VARIABLE


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.setenv(PLAN_VARIABLE, str(tmp_path / "plan"))
    monkeypatch.setattr(trainer, "train_stack", lambda *_: pytest.fail("a run was trained"))
    monkeypatch.setattr(trainer, "load_corpus", lambda *_, **__: pytest.fail("a corpus was read"))
    return tmp_path / "plan"


def test_runs_are_counted_once_with_what_they_replay_and_not_trained(plan, tmp_path):
    lab = Lab(fresh(tmp_path, "runs"), device="cpu")
    made = lab.train(MIXED)
    assert [record.config for record in made] == MIXED
    assert [record.fault() for record in made] == [""] * len(MIXED)
    lab.train(MIXED[:3])
    sources = {one.source for one in MIXED if one.source}
    found = read_plan(plan)
    assert set(found.due) == {*MIXED, *sources}
    assert len(found.due) == len({*MIXED, *sources})
    assert (found.finished, found.more) == (0, False)
    assert lab.store.records() == []


def test_finished_runs_are_not_due(plan, tmp_path):
    lab = Lab(fresh(tmp_path, "runs"), device="cpu")
    lab.store.put(made_up(MIXED[0]))
    records = lab.train([*MIXED[:2]])
    assert records[0].test == lab.store.get(MIXED[0]).test
    found = read_plan(plan)
    assert (found.due, found.finished) == ((MIXED[1],), 1)


def test_a_plan_ends_at_what_is_computed_from_heads_or_a_corpus(plan, tmp_path):
    lab = Lab(fresh(tmp_path, "runs"), device="cpu")
    with pytest.raises(NotPlannedError, match="heads are trained again"):
        list(lab.retrain([config()]))
    assert read_plan(plan).more
    plan.unlink()
    with pytest.raises(NotPlannedError, match="the table sums is computed"):
        lab.store.table("sums", {"a": 1}, lambda: pytest.fail("it was computed"))
    assert read_plan(plan).more


def test_a_table_that_is_there_is_read(tmp_path, monkeypatch):
    store = fresh(tmp_path, "runs")
    table = store.table("sums", {"a": 1}, lambda: pd.DataFrame({"sum": [3]}))
    monkeypatch.setenv(PLAN_VARIABLE, str(tmp_path / "plan"))
    pd.testing.assert_frame_equal(
        store.table("sums", {"a": 1}, lambda: pytest.fail("computed")), table
    )
    assert read_plan(tmp_path / "plan").due == ()


def test_time_is_that_of_runs_that_are_alike():
    """Made-up records take 1 s: 12 steps of 16 pairs at 4 epochs of 50 images, so 1/16 s a step."""
    finished = [made_up(config()), made_up(config(seed=1, batch_size=25))]
    assert expected_seconds([config(epochs=8), config(seed=5)], finished) == pytest.approx(3.0)
    # No batches of 10 are finished: the median over 1/16 and 1/8 s a step, for 4 · 5 steps.
    assert expected_seconds([config(batch_size=10)], finished) == pytest.approx(20 * 3 / 32)
    trained = RunConfig(towers=TowersConfig(trained="last blocks"))
    assert expected_seconds([trained], finished) is None
    assert expected_seconds([], finished) == 0
