"""The study's methods, tuned: every chapter gets the same configurations, and so the same runs."""

import pytest
from idle import IdleLab
from synthetic import synthetic_features

from lib.chapters.parameters import validate
from lib.chapters.shared.methods import scheduled, scheduled_methods
from lib.chapters.shared.tuning import tune_methods
from lib.runs import RunConfig, Store
from lib.schedulers import ACTUATORS, SIGNALS
from lib.training import Lab

SMALL = {
    "train_images": 50, "batch_size": 16, "embedding_dim": 8, "epochs": 2, "tuning_seeds": 1,
    "temperatures": [0.1, 0.2], "learning_rates": [0.01, 0.03], "scheduled_temperatures": [0.2],
    "gammas": [1.0, 5.0],
    "targets": {"variance": [1.0, 2.0], "entropy": [0.7, 0.9], "spread": [4.0, 8.0]},
}  # fmt: skip


@pytest.fixture
def lab(tmp_path):
    return Lab(Store(folder=tmp_path / "runs"), features=synthetic_features(), device="cpu")


def test_chapters_share_their_methods_whatever_else_they_take(lab):
    every = ["fixed", "learned τ", *scheduled_methods(SIGNALS, ACTUATORS)]
    main = tune_methods(lab, validate("main-comparison", SMALL), every)
    assert len(main.chosen) == 14
    names = ["fixed", "variance × sharpness"]
    for chapter in ("controls", "signals", "convergence"):
        chosen = tune_methods(lab, validate(chapter, SMALL), names).chosen
        assert chosen == {name: main.chosen[name] for name in names}
    rates = {config.learning_rate for config in main.chosen.values()}
    assert len(rates) == 1
    assert rates <= {0.01, 0.03}


def test_a_given_base_is_tuned_further_and_its_rate_kept(lab):
    base = RunConfig(
        train_images=50, batch_size=16, embedding_dim=8, epochs=2, learning_rate=0.02,
        learning_rate_decay="cosine",
    )  # fmt: skip
    parameters = validate("controls", SMALL)
    chosen = tune_methods(lab, parameters, ["variance × sharpness"], base=base).chosen
    found = chosen["variance × sharpness"]
    assert (found.learning_rate, found.learning_rate_decay) == (0.02, "cosine")
    assert scheduled(found).target in (1.0, 2.0)


def test_the_robust_loss_gets_as_many_candidates_as_the_others(lab):
    parameters = validate("noise", SMALL)
    names = ["fixed", "robust loss"]
    tuning = tune_methods(lab, parameters, names)
    assert tuning.chosen["robust loss"].loss == "rince"
    assert tuning.chosen["robust loss"].loss_constant in (0.1, 0.5)
    with pytest.raises(ValueError, match="same, non-zero number"):
        tune_methods(lab, parameters.model_copy(update={"robust_powers": [0.1]}), names)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("variance × warmth", "no method is called variance × warmth; there are fixed, learned τ"),
        ("variance × sample", "sample is tuned over sample_gammas, which this notebook does not"),
        ("robust loss", "robust loss is tuned over robust_powers, which this notebook does not"),
        ("spread × sharpness", "no candidates: give targets some for 'spread'"),
    ],
)
def test_a_method_without_candidates_is_refused_before_anything_is_trained(method, said):
    parameters = validate("controls", {**SMALL, "targets": {"variance": [1.0, 2.0]}})
    with pytest.raises(ValueError, match=said):
        tune_methods(IdleLab(), parameters, ["fixed", method])


def test_what_has_no_scheduler_says_so():
    with pytest.raises(ValueError, match="fixed has no scheduler"):
        scheduled(RunConfig())
