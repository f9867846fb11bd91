"""``study runs``, ``compare``, ``export`` and ``merge``."""

import json

import pandas as pd
import pytest
from finished import finished
from results_version import raise_results_version
from typer.testing import CliRunner

from lib.runs import ScheduleConfig, Store
from lib.study.commands import app

DIRECTION = ScheduleConfig(signal="variance", actuator="direction", gamma=10)


def study(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def kept():
    records = [
        *(finished(50 + seed, seed=seed) for seed in range(4)),
        *(finished(51 + 1.1 * seed, seed=seed, schedule=DIRECTION) for seed in range(3)),
    ]
    for record in records:
        Store().put(record)
    return records


def test_runs_lists_method_corpus_size_seed_recalls_date_time_and_code(kept):
    result = study("runs", "seed=2")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert len(lines) == 3
    (fixed,) = [line for line in lines if "fixed" in line]
    for word in ("scenes", "1000", " 2 ", "52.0", "312.0", "2026-01-01", "1.5", "1+a"):
        assert word in fixed
    assert "schedule.gamma=10.0" in result.stdout


def test_runs_can_be_listed_as_json_by_setting_or_up_to_a_limit(kept):
    listed = json.loads(study("runs", "fixed", "--json").stdout)
    assert sorted(row["seed"] for row in listed) == [0, 1, 2, 3]
    assert listed[0]["made.code"] == "1+a"
    (one, other) = json.loads(study("runs", "--settings", "--json").stdout)
    assert (one["method"], one["seeds"], other["seeds"]) == ("fixed", 4, 3)
    assert "seeds" in study("runs", "--settings").stdout
    limited = study("runs", "--limit", 2)
    assert len(limited.stdout.splitlines()) == 3
    assert "2 of 7" in limited.stderr


def test_runs_tells_how_many_records_an_older_version_made(kept, monkeypatch):
    raise_results_version(monkeypatch)
    Store().put(finished(seed=9))
    result = study("runs")
    assert len(result.stdout.splitlines()) == 2
    assert "7 records more are here and not used" in result.stderr


def test_compare_shows_differences_and_verdict(kept):
    result = study("compare", "variance x direction", "fixed")
    assert result.exit_code == 0, result.output
    assert "3 paired seeds; seeds [3] have no partner" in result.stdout
    assert "undecided" in result.stdout
    assert "+1.10" in result.stdout
    found = json.loads(study("compare", "gamma=10", "fixed", "--all", "--json").stdout)
    assert found["seeds"] == [0, 1, 2]
    assert len(found["comparisons"]) == 9
    assert found["differs"]["schedule.gamma"] == [10.0, None]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["runs", "temprature=1"], "did you mean 'temperature'"),
        (["runs", "corpus=flickr8k"], "none of the 7 finished runs fits corpus=flickr8k"),
        (["compare", "fixed", "fixed"], "the same setting"),
        (["compare", "fixed", "fixd"], "no finished run fits 'fixd'"),
        (["compare", "fixed", "gamma=10", "-w", "seed=0"], "two seeds or more"),
        (["compare", "fixed", "gamma=10", "--margin", "0"], "margin"),
        (["merge", "/nonexistent"], "holds no run records"),
        (["export", "x", "corpus=y"], "none of the 7"),
        (["export", "x", "--format", "xlsx"], "xlsx"),
    ],
)
def test_a_bad_request_gives_status_2_and_the_reason(kept, words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = study(*words)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_an_empty_store_gives_status_2_and_tells_that_it_is_empty():
    result = study("runs")
    assert result.exit_code == 2
    assert "there are no finished runs yet" in result.stderr


def test_exported_records_can_be_merged_on_another_machine(kept, tmp_path, monkeypatch):
    result = study("export", tmp_path / "out", "fixed")
    assert len(result.stdout.split()) == 3
    assert len(pd.read_parquet(tmp_path / "out" / "runs.parquet")) == 4
    csv = study("export", tmp_path / "csv", "--format", "csv").stdout.split()
    assert len(pd.read_csv(csv[0])) == 7
    monkeypatch.setenv("STUDY_HOME", str(tmp_path / "another machine"))
    assert "4 would be added" in study("merge", tmp_path / "out", "--dry-run").stdout
    assert Store().records() == []
    done = study("merge", tmp_path / "out")
    assert (done.exit_code, "4 added, 0 known already" in done.stdout) == (0, True)
    assert len(Store().records()) == 4


def test_a_conflict_gives_status_1_and_names_the_run(kept, tmp_path):
    there = Store(folder=tmp_path / "there" / "runs")
    there.put(finished(77, seed=1))
    result = study("merge", tmp_path / "there")
    assert result.exit_code == 1
    assert finished(seed=1).config.run_id in result.stderr
    assert "cpu (x) here, cpu (x) there" in result.stderr
    assert Store().get(finished(seed=1).config).test["i2t_r1"] == 51
    replaced = study("merge", tmp_path / "there", "--replace", "--json")
    assert replaced.exit_code == 0
    assert json.loads(replaced.stdout)["replaced"] == [finished(seed=1).config.run_id]
    assert Store().get(finished(seed=1).config).test["i2t_r1"] == 77
