"""The store: records are read as they were written, damage is found, no write is left half done."""

import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pandas as pd
import pytest
from finished import finished
from pydantic import ValidationError
from results_version import raise_results_version
from small_runs import assert_same_numbers

from lib.runs import (
    EPOCH_COLUMNS,
    STEP_COLUMNS,
    TEST_COLUMNS,
    RunConfig,
    RunRecord,
    ScheduleConfig,
    Store,
    export_records,
    read_bundle,
)
from lib.runs.tables import table_purpose, write_table

DIRECTION = ScheduleConfig(signal="variance", actuator="direction")
SHARPNESS = ScheduleConfig(signal="entropy", actuator="sharpness")


def record(**changes) -> RunRecord:
    rng = np.random.default_rng(0)
    return replace(
        finished(**changes),
        test={name: float(rng.random()) for name in TEST_COLUMNS},
        epochs=rng.random((3, len(EPOCH_COLUMNS))),
        steps=rng.random((6, len(STEP_COLUMNS))).astype(np.float32),
    )


def assert_same(one: RunRecord, other: RunRecord) -> None:
    assert_same_numbers(one, other)
    assert one.made == other.made
    assert one.steps.dtype == other.steps.dtype == np.float32


def test_a_record_is_read_bit_for_bit_as_written():
    store, kept = Store(), record(schedule=DIRECTION)
    assert store.get(kept.config) is None
    store.put(kept)
    assert_same(Store().get(kept.config), kept)


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1}, {"temperature": 0.07}, {"corpus": "flickr8k"}, {"on_bad_sample": "skip"},
        {"learn_temperature": True}, {"schedule": DIRECTION},
        {"schedule": DIRECTION.model_copy(update={"gamma": 2.0})},
    ],
)  # fmt: skip
def test_a_runs_id_depends_on_every_setting(change):
    assert RunConfig(**change).run_id != RunConfig().run_id


def test_a_runs_id_does_not_depend_on_how_a_value_is_written():
    assert RunConfig(temperature="0.1", seed=0.0).run_id == RunConfig().run_id


def test_records_of_an_older_results_version_are_not_used(monkeypatch):
    Store().put(record())
    raise_results_version(monkeypatch)
    assert Store().get(record().config) is None
    assert Store().records() == []


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign"])
def test_a_damaged_record_is_named_and_not_used(damage):
    store, kept = Store(), record()
    store.put(kept)
    (path,) = store.folder.glob("??/*.json")
    text = path.read_text()
    digit = text.index('"best_epoch":2')
    path.write_text(
        {
            "flip": text[: digit + 13] + "3" + text[digit + 14 :],
            "cut": text[: len(text) // 2],
            "empty": "",
            "foreign": json.dumps({"hello": 1}),
        }[damage]
    )
    with pytest.warns(UserWarning, match=path.name):
        assert store.get(kept.config) is None
    store.put(kept)
    assert_same(store.get(kept.config), kept)


def test_an_interrupted_write_leaves_no_file(monkeypatch):
    store = Store()

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.put(record())
    assert not [path for path in store.folder.rglob("*") if path.is_file()]
    assert store.get(record().config) is None


def test_exported_records_are_found_without_any_records_of_this_machine(tmp_path):
    kept = [record(seed=seed) for seed in range(3)]
    export_records(kept, tmp_path / "published")
    store = Store(folder=tmp_path / "none", published=tmp_path / "published")
    for one in kept:
        assert_same(store.get(one.config), one)
    assert sorted(r.config.seed for r in store.records()) == [0, 1, 2]


def rewrite(path, change):
    write_table(path, change(pd.read_parquet(path)), table_purpose(path))


def test_exported_series_of_different_lengths_are_separated_again(tmp_path):
    kept = [record(seed=seed) for seed in range(3)]
    kept = [replace(one, steps=one.steps[i:] + i) for i, one in enumerate(kept)]
    export_records(kept, tmp_path)
    bundle = read_bundle(tmp_path)
    assert list(bundle) == sorted(one.config.run_id for one in kept)
    for one in kept:
        assert_same(bundle[one.config.run_id], one)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("steps", lambda t: t.iloc[[0, *range(2, len(t)), 1]], "steps.parquet .* lie in pieces"),
        ("steps", lambda t: t[t["run_id"] != t["run_id"][0]], "steps.parquet .* lacks run"),
        ("runs", lambda t: pd.concat([t, t.iloc[:1]]), "runs.parquet .* has run .* twice"),
        ("epochs", lambda t: t.drop(columns="rsum"), "epochs.parquet .* no column rsum"),
    ],
)
def test_incomplete_exported_series_are_refused(tmp_path, file, change, said):
    export_records([record(seed=seed) for seed in range(3)], tmp_path)
    rewrite(tmp_path / f"{file}.parquet", change)
    with pytest.raises(ValueError, match=said):
        read_bundle(tmp_path)


def test_only_the_requested_published_runs_are_parsed(tmp_path):
    kept = [record(seed=seed) for seed in range(2)]
    export_records(kept, tmp_path)
    other = kept[1].config.run_id
    rewrite(
        tmp_path / "runs.parquet",
        lambda t: t.assign(config=t["config"].where(t["run_id"] != other, "{")),
    )
    store = Store(folder=tmp_path / "none", published=tmp_path)
    assert_same(store.get(kept[0].config), kept[0])
    with pytest.raises(ValidationError):
        store.get(kept[1].config)


def test_an_export_does_not_depend_on_the_order_of_the_records(tmp_path):
    kept = [record(seed=seed) for seed in range(3)]
    export_records(kept, tmp_path / "a")
    export_records(reversed(kept), tmp_path / "b")
    for name in ("runs", "epochs", "steps"):
        file = f"{name}.parquet"
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_table_is_computed_once(tmp_path):
    compute = Mock(return_value=pd.DataFrame({"n": [1, 2], "share": [0.5, 0.25]}))
    first, again, _ = (Store().table("counts", {"corpus": name}, compute) for name in "xxy")
    pd.testing.assert_frame_equal(first, again)
    assert compute.call_count == 2


def test_the_log_lists_the_runs_and_tables_that_are_used(tmp_path, monkeypatch):
    log = tmp_path / "used.log"
    monkeypatch.setenv("STUDY_RECORDS_LOG", str(log))
    kept = record()
    Store().put(kept)
    Store().table("counts", {}, lambda: pd.DataFrame({"n": [1]}))
    kinds = [line.split()[0] for line in log.read_text().splitlines()]
    assert kinds == ["run", "content", "table"]
    assert kept.config.run_id in log.read_text()
    assert f"content {kept.config.corpus} {kept.corpus_fingerprint}\n" in log.read_text()


@pytest.mark.parametrize(
    "bad",
    [
        {"epohcs": 1}, {"learning_rate": 0}, {"temperature": float("nan")}, {"temperature": -0.1},
        {"batch_size": 1}, {"train_images": 1}, {"dropout": 1.0},
        {"learn_temperature": True, "schedule": SHARPNESS},
    ],
)  # fmt: skip
def test_a_bad_configuration_is_refused(bad):
    with pytest.raises(ValidationError):
        RunConfig(**bad)


def test_a_configuration_names_its_method_as_the_study_does():
    assert RunConfig().method == "fixed"
    assert RunConfig(learn_temperature=True).method == "learned τ"
    assert RunConfig(schedule=SHARPNESS).method == "entropy × sharpness"
