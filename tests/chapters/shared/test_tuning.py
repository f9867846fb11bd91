"""Tuning: equal budgets, validation alone, the first of equals; grids of every method."""

import numpy as np
import pytest
from synthetic import synthetic_features

from lib.chapters.parameters import validate
from lib.chapters.shared.methods import methods, scheduled_methods, temperature_grid
from lib.chapters.shared.tuning import replicate, results_table, tune
from lib.runs import TEST_COLUMNS, RunConfig, Store
from lib.training import Lab

BASE = RunConfig(
    corpus="synthetic",
    train_images=40,
    batch_size=16,
    embedding_dim=8,
    epochs=2,
    learning_rate=0.01,
)
GRID = {
    "temperatures": [0.1, 0.2],
    "scheduled_temperatures": [0.1],
    "gammas": [1.0, 10.0],
    "sample_gammas": [-1.0, 1.0],
    "targets": {"variance": [1.0, 2.0], "entropy": [0.7, 0.9]},
    "beta": 0.8,
    "warmup": 1,
}


def all_grids():
    """The candidates of the fixed losses and of six schedulers."""
    chosen = scheduled_methods(["variance", "entropy"], ["direction", "sharpness", "sample"])
    parameters = validate("main-comparison", GRID)
    return {m: methods()[m](parameters, BASE) for m in ("fixed", "learned τ", *chosen)}


@pytest.fixture
def lab(tmp_path):
    return Lab(Store(folder=tmp_path / "runs"), features=synthetic_features(), device="cpu")


def test_every_method_gets_its_grid():
    grids = all_grids()
    assert list(grids) == [
        "fixed",
        "learned τ",
        "variance × direction",
        "entropy × direction",
        "variance × sharpness",
        "entropy × sharpness",
        "variance × sample",
        "entropy × sample",
    ]
    for method, configs in grids.items():
        assert {config.method for config in configs} == {method}
        assert len({config.run_id for config in configs}) == 2
    assert [c.schedule.gamma for c in grids["variance × direction"]] == [1.0, 10.0]
    assert [c.schedule.gamma for c in grids["entropy × sample"]] == [-1.0, 1.0]
    assert [c.schedule.target for c in grids["entropy × sharpness"]] == [0.7, 0.9]
    assert {(c.schedule.beta, c.schedule.warmup) for c in grids["variance × direction"]} == {
        (0.8, 1)
    }


def test_the_best_on_validation_is_chosen(lab):
    tuning = tune(lab, {"fixed": temperature_grid(BASE, [0.05, 0.2, 2.0], [0.01])}, [0, 1])
    table = tuning.table
    best = table.loc[table["validation_rsum"].idxmax()]
    assert tuning.chosen["fixed"].temperature == best["temperature"]
    assert table["chosen"].sum() == 1
    assert best["chosen"]
    records = replicate(lab, {"fixed": tuning.chosen["fixed"]}, [0, 1])["fixed"]
    expected = np.mean([r.epochs[r.best_epoch - 1, -1] for r in records])
    assert best["validation_rsum"] == pytest.approx(expected)


def test_the_test_split_plays_no_part_in_tuning(lab):
    class Blinded(Lab):
        def train(self, configs):
            records = super().train(configs)
            for record in records:
                record.test.clear()
            return records

    expected = tune(lab, all_grids(), [0]).chosen
    blinded = Blinded(lab.store, features=lab.features, device="cpu")
    assert tune(blinded, all_grids(), [0]).chosen == expected


def test_unequal_budgets_are_refused(lab):
    grids = {"fixed": [BASE], "other": [BASE, BASE.model_copy(update={"temperature": 0.3})]}
    with pytest.raises(ValueError, match=r"same, non-zero number .*'fixed': 1, 'other': 2"):
        tune(lab, grids, [0])
    with pytest.raises(ValueError, match="at least one seed"):
        tune(lab, {"fixed": [BASE]}, [])


def test_results_have_a_row_a_run(lab):
    table = results_table(replicate(lab, {"fixed": BASE, "hot": BASE}, [3, 5]))
    assert table[["method", "seed"]].to_numpy().tolist() == [
        ["fixed", 3], ["fixed", 5], ["hot", 3], ["hot", 5],
    ]  # fmt: skip
    assert set(TEST_COLUMNS) <= set(table.columns)


def test_steps_are_added_for_few_images():
    few = BASE.model_copy(update={"train_images": 40, "epochs": 2})
    assert few.with_steps(80).epochs == 40
    assert few.with_steps(0) == few
    many = BASE.model_copy(update={"train_images": 1600, "epochs": 15})
    assert many.with_steps(80).epochs == 15
