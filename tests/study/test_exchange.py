"""Exported and merged records: they are checked, and none is overwritten silently."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from finished import finished
from results_version import raise_results_version

from lib.runs import RunConfig, Store
from lib.study.exchange import ExchangeError, merge, write_records
from lib.utils.files import home


def elsewhere(tmp_path, *records):
    """Return the home folder of another machine, with ``records`` in its store."""
    store = Store(folder=tmp_path / "there" / "runs")
    for record in records:
        store.put(record)
    return store.folder.parent


def ids(records):
    return sorted(record.config.run_id for record in records)


@pytest.fixture(params=["parquet", "file", "home", "runs"])
def source(request, tmp_path):
    """Three records, in each form that can be merged."""
    records = [finished(50 + seed, seed=seed) for seed in range(3)]
    if request.param in ("parquet", "file"):
        write_records(records, tmp_path / "bundle", "parquet")
        return tmp_path / "bundle" / ("runs.parquet" if request.param == "file" else "")
    there = elsewhere(tmp_path, *records)
    return there if request.param == "home" else there / "runs"


def test_merged_runs_are_found_and_are_known_when_merged_again(source):
    store = Store()
    store.put(finished(50, seed=0, made={"device": "cuda (y)"}))
    merged = merge([source], store)
    assert sorted(merged.added) == ids(finished(seed=seed) for seed in (1, 2))
    assert merged.known == ids([finished(seed=0)])
    assert Store().get(RunConfig(epochs=3, seed=2)).test["i2t_r1"] == 52
    # A known record is not replaced: it is still the one that was made here.
    assert Store().get(RunConfig(epochs=3)).made == {"device": "cuda (y)"}
    again = merge([source], Store())
    assert (again.added, again.conflicts, again.unusable) == ([], {}, {})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"test": {**finished().test, "i2t_r1": 50.4}}, "test metrics differ by up to 0.4"),
        ({"corpus_fingerprint": "xyz"}, "other corpus content"),
        ({"epochs": finished().epochs * 1.001}, "differ by up to 0 "),
        ({"steps": np.ones((5, 6), np.float32)}, "of another length"),
    ],
)
def test_a_differing_record_is_named_and_not_merged_without_replace(tmp_path, change, said):
    store, theirs = Store(), replace(finished(), **change)
    store.put(finished())
    there = elsewhere(tmp_path, theirs)
    merged = merge([there], store)
    assert said in merged.kept[theirs.config.run_id]
    assert Store().get(theirs.config).test == finished().test
    assert merge([there], store, replace=True, dry_run=True).replaced
    assert Store().get(theirs.config).corpus_fingerprint == "abc"
    replaced = merge([there], store, replace=True)
    assert (replaced.kept, replaced.replaced) == ({}, [theirs.config.run_id])
    assert merge([there], Store()).known == [theirs.config.run_id]


def test_a_published_record_is_never_replaced(tmp_path):
    write_records([finished()], tmp_path / "published", "parquet")
    store = Store(published=tmp_path / "published")
    merged = merge([elsewhere(tmp_path, finished(60))], store, replace=True)
    assert "cannot be replaced" in merged.kept[finished().config.run_id]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"best_epoch": 1}, "best epoch"),
        ({"epochs": np.ones((2, 8))}, "epochs have the shape"),
        ({"steps": np.ones((4, 2), np.float32)}, "steps have the shape"),
        ({"steps": np.full((4, 6), np.inf, np.float32)}, "not finite"),
        ({"test": {"i2t_r1": 1.0}}, "not those of this version"),
    ],
)
def test_an_impossible_record_is_refused(change, said):
    assert finished().fault() == ""
    assert said in replace(finished(), **change).fault()


def test_damaged_renamed_and_outdated_records_are_named(tmp_path, monkeypatch):
    there = elsewhere(tmp_path, finished(seed=0), finished(seed=1))
    damaged, forged = sorted(there.glob("runs/??/*.json"))
    damaged.write_text(damaged.read_text().replace('"best_epoch":2', '"best_epoch":3'))
    renamed = forged.with_name("0" * 20 + ".json")
    forged.rename(renamed)
    merged = merge([there], Store())
    assert "checksum" in merged.unusable[damaged.stem]
    assert "another results version" in merged.unusable[renamed.stem]
    assert Store().records() == []
    raise_results_version(monkeypatch)
    write_records([finished()], tmp_path / "bundle", "parquet")
    monkeypatch.undo()
    merged = merge([tmp_path / "bundle"], Store())
    assert ["another results version" in why for why in merged.unusable.values()] == [True]


def test_merged_tables_replace_others_only_if_asked_and_never_if_damaged(tmp_path, monkeypatch):
    there = elsewhere(tmp_path, finished())
    monkeypatch.setenv("STUDY_HOME", str(there))
    Store().table("counts", {}, lambda: pd.DataFrame({"n": [1]}))
    (source,) = (there / "tables").iterdir()
    monkeypatch.setenv("STUDY_HOME", str(tmp_path / "here"))
    target = home() / "tables" / source.name
    assert source.name in merge([there], Store()).added
    assert target.read_bytes() == source.read_bytes()
    target.write_bytes(b"other")
    assert merge([there], Store()).kept == {source.name: "the table has other content"}
    assert source.name in merge([there], Store(), replace=True, dry_run=True).replaced
    assert target.read_bytes() == b"other"
    assert source.name in merge([there], Store(), replace=True).replaced
    assert target.read_bytes() == source.read_bytes()
    assert source.name in merge([there], Store()).known
    source.write_bytes(source.read_bytes()[:-9])
    assert "damaged" in merge([there], Store(), replace=True).unusable[source.name]
    assert target.read_bytes() != source.read_bytes()


def test_a_source_without_records_is_refused_before_anything_is_merged(tmp_path):
    there = elsewhere(tmp_path, finished())
    with pytest.raises(ExchangeError, match=r"nothing.* holds no run records"):
        merge([there, tmp_path / "nothing"], Store())
    assert Store().records() == []
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "runs.parquet").write_bytes(b"junk")
    with pytest.raises(ExchangeError, match="damaged"):
        merge([tmp_path / "bad"], Store())


def test_csv_has_one_row_per_run_and_one_column_per_field(tmp_path):
    records = [finished(50 + seed, seed=seed) for seed in range(2)]
    paths = write_records(records, tmp_path, "csv")
    table, epochs, steps = (pd.read_csv(path) for path in paths)
    assert sorted(table["seed"]) == [0, 1]
    assert {"temperature", "i2t_r1", "made.code"} <= set(table.columns)
    assert epochs.groupby("run_id").size().tolist() == [3, 3]
    assert steps["step"].tolist() == [1, 2, 3, 4] * 2
    with pytest.raises(ValueError, match="no record"):
        write_records([], tmp_path, "csv")


def test_a_record_with_an_unknown_field_is_named(tmp_path):
    there = elsewhere(tmp_path, finished())
    (path,) = there.glob("runs/??/*.json")
    content = json.loads(path.read_text())
    content["run"]["config"]["of_tomorrow"] = 1
    body = json.dumps(content["run"], separators=(",", ":"))
    digest = hashlib.sha256(body.encode()).hexdigest()
    path.write_text(f'{{"sha256":"{digest}","run":{body}}}\n')
    assert "of_tomorrow" in merge([there], Store()).unusable[path.stem]
