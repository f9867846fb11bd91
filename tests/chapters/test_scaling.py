"""What a sweep costs on many workers: arithmetic by hand, and the tables it rests on."""

import pandas as pd
import pytest
from idle import IdleLab
from small_runs import config
from synthetic import synthetic_features

from lib.chapters import scaling
from lib.chapters.scaling import (
    conclusion,
    plan,
    plan_chart,
    scaling_tables,
    seconds_a_run,
    speed_chart,
    travel_table,
    useful_workers,
)
from lib.runs import Store
from lib.training import Lab

COSTS = {
    "start": 5.0, "call": 0.001, "keep": 0.004, "features": 2e8, "config": 500, "record": 3000,
    "stored": 9000,
}  # fmt: skip
TIMES = pd.DataFrame(
    [(0, 10.0, 8, True, 2), (1, 16.0, 8, True, 2), (2, 8.0, 8, True, 2)],
    columns=["workers", "seconds", "runs", "equal", "cores"],
)


def test_the_plan_by_hand():
    """2,000 runs of 2 s, 100 MB/s: the features' 2 s go round log₂(workers + 1) times."""
    table = plan(2000, [1, 100, 1000], 2.0, COSTS, 1e8).set_index("workers")
    assert table["training"].tolist() == [4000, 40, 4]
    assert table["keeping"].tolist() == pytest.approx([10, 10, 10])
    assert table["sending"].tolist() == [2, 14, 20]
    # On 1,000 workers, keeping the records takes longer than training.
    assert table["total"].tolist() == pytest.approx([4007, 59, 35])
    assert table["speedup"].tolist() == pytest.approx([1, 4007 / 59, 4007 / 35])


def test_more_workers_than_runs_or_than_one_process_serves_are_no_help():
    assert useful_workers(2000, 2.0, COSTS) == 400
    assert useful_workers(50, 2.0, COSTS) == 50
    assert useful_workers(50, 0.001, COSTS) == 1


def test_seconds_a_run_are_those_of_one_worker():
    assert seconds_a_run(TIMES) == 2.0
    assert seconds_a_run(TIMES[TIMES["workers"] != 1]) == 2.0


def test_what_travels_in_all():
    assert travel_table(COSTS, 2000)["all"].tolist() == [200, 1, 6, 18]


def test_the_verdict_says_equality_gain_and_limit():
    planned = plan(2000, [1, 1000], 2.0, COSTS, 1e8)
    said = conclusion(TIMES, planned, 2000, 2.0, 400)
    assert "Every record is equal bit for bit" in said
    assert "2 processes took 0.80 of the time" in said
    assert "1.1 hours for one worker, would take 0.6 minutes on 1,000" in said
    assert "More than 400 workers are no help" in said
    worse = TIMES.assign(equal=[True, True, False])
    assert "Some records differ" in conclusion(worse, planned, 2000, 2.0, 1000)


def test_the_charts_hold_what_the_tables_say():
    spec = speed_chart(TIMES).to_dict()
    rates = [row["rate"] for rows in spec["datasets"].values() for row in rows]
    assert {48.0, 30.0, 60.0} <= set(rates)
    planned = plan(2000, [1, 1000], 2.0, COSTS, 1e8)
    assert "beyond 400 workers" in str(plan_chart(planned, 2000, 400).to_dict())


def test_tables_are_measured_once_and_found_equal(monkeypatch):
    features = synthetic_features()
    monkeypatch.setattr(scaling, "open_executor", lambda name: _threads(name))
    monkeypatch.setattr(scaling, "_start", lambda pool, count: None)
    monkeypatch.setattr(scaling, "Processes", lambda count: _Threads(count))
    configs = [config(seed=seed, epochs=1) for seed in range(3)]
    times, costs = scaling_tables(Lab(Store(), features=features, device="cpu"), configs, [1, 2])
    assert times["workers"].tolist() == [0, 1, 2]
    assert times["equal"].all()
    assert (times["runs"] == 3).all()
    assert costs["features"] == features.image.nbytes + features.text.nbytes
    assert min(costs.values()) > 0
    again, _ = scaling_tables(IdleLab(), configs, [1, 2])
    pd.testing.assert_frame_equal(times, again)


def _threads(name):
    from lib.training.executors import open_executor

    return open_executor(name.replace("processes", "threads"))


def _Threads(count):
    from concurrent.futures import ThreadPoolExecutor

    class Pool(ThreadPoolExecutor):
        def shutdown(self, wait=True, *, cancel_futures=False):
            """Stay open, as Processes does for the next sweep."""

    return Pool(count)
