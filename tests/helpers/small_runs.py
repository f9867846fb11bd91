"""Small runs of every kind on made-up features, and the check that two records are equal."""

import numpy as np

from lib.runs import (
    ConstantConfig,
    NoiseConfig,
    ReplayConfig,
    RunConfig,
    RunRecord,
    ScheduleConfig,
    Store,
)
from lib.runs.schedules import (
    AnalyticUncertaintyConfig,
    CosineConfig,
    DynamicWeightAverageConfig,
    GradNormConfig,
    IndividualTemperatureConfig,
    UncertaintyConfig,
)


def config(**changes) -> RunConfig:
    small = {"corpus": "synthetic", "train_images": 50, "embedding_dim": 8, "batch_size": 16}
    return RunConfig(**(small | {"epochs": 4, "learning_rate": 0.01, "temperature": 0.2} | changes))


def schedule(signal: str, actuator: str, **constants) -> ScheduleConfig:
    return ScheduleConfig(signal=signal, actuator=actuator, **constants)


MIXED = [
    config(),
    config(seed=1),
    config(temperature=0.1),
    config(learn_temperature=True),
    config(schedule=schedule("variance", "direction", gamma=5.0)),
    config(schedule=schedule("variance", "direction", gamma=-5.0), seed=2),
    config(schedule=schedule("entropy", "direction")),
    config(schedule=schedule("spread", "sample")),
    config(schedule=schedule("variance", "sharpness", target=1.5)),
    config(schedule=schedule("entropy", "sharpness", target=0.9)),
    config(schedule=schedule("spread", "magnitude", warmup=3)),
    config(schedule=ConstantConfig(weight_i2t=0.5)),
    config(
        schedule=ReplayConfig(
            of=schedule("variance", "direction", gamma=5.0), whose="other", form="surrogate"
        )
    ),
    config(
        schedule=ReplayConfig(
            of=schedule("variance", "sharpness", target=1.5), whose="own", form="mean"
        ),
        noise=NoiseConfig(kind="mismatched", rate=0.5),
    ),
    config(loss="rince", loss_constant=0.3),
    config(loss="rince", seed=1),
    config(loss="sigmoid", schedule=schedule("variance", "direction")),
    config(loss="decoupled"),
    config(text_hidden_layers=1, centre=False, hidden_features=7),
    config(embedding_dim=5, hidden_layers=1, hidden_features=7, dropout=0.3),
    config(embedding_dim=5, hidden_layers=1, hidden_features=7, dropout=0.3, seed=1),
]

RIVALS = {
    "cosine": config(schedule=CosineConfig(low=0.1, high=0.4, period=1.5)),
    "uncertainty": config(schedule=UncertaintyConfig(rate=0.05)),
    "analytic uncertainty": config(schedule=AnalyticUncertaintyConfig(softness=0.5)),
    "average": config(schedule=DynamicWeightAverageConfig(softness=0.1, period=1)),
    "GradNorm": config(schedule=GradNormConfig(alpha=1.5, step=0.1)),
    "individual": config(schedule=IndividualTemperatureConfig(rho=0.8, step=0.05)),
    "label smoothing": config(loss="label_smoothing", loss_constant=0.2),
    "decoupled": config(loss="decoupled"),
    "hardest negatives": config(loss="hardest_negatives", loss_constant=0.3),
    "sigmoid": config(loss="sigmoid", loss_constant=-2.0, learn_bias=True, learn_temperature=True),
    "multi-positive": config(loss="multi_positive", captions_at_once=3),
    "more captions": config(captions_at_once=3),
}


def fresh(tmp_path, name: str) -> Store:
    return Store(folder=tmp_path / name)


def assert_same_numbers(one: RunRecord, other: RunRecord) -> None:
    assert one.config == other.config
    for name in ("steps", "epochs", "test", "best_epoch", "collapsed"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def assert_all_the_same(some, others) -> None:
    for one, other in zip(some, others, strict=True):
        assert_same_numbers(one, other)
