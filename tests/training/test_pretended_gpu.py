"""Runs of every kind, and the borrowed loss, on a pretended GPU: nothing is left on the CPU."""

import copy

import pytest
import torch
from pretended_gpu import Pretended, pretended_gpu
from pytorch_metric_learning.losses import NTXentLoss
from quick_towers import CountingTower, colour_tower
from small_runs import MIXED, RIVALS, assert_same_numbers, config, schedule
from torch import nn
from torch.nn import functional as F

from lib import encoders
from lib.adapters.huggingface import ScheduledTrainerLoss
from lib.adapters.metric_learning import DirectionReducer, ScheduledPairLoss
from lib.adapters.open_clip import ScheduledClipLoss
from lib.adapters.sentence_transformers import ScheduledMultipleNegativesLoss
from lib.datasets import load_corpus
from lib.losses import LOSSES, ScheduledContrastiveLoss, cached_backward
from lib.rivals import CosineTemperature, DynamicWeightAverage, UncertaintyWeights
from lib.runs import NoiseConfig, TowersConfig
from lib.runs.schedules import IndividualTemperatureConfig, UncertaintyConfig
from lib.schedulers import ACTUATORS, SIGNALS, Fixed, Scheduler
from lib.training import towers, trainer
from lib.training.towers import run as one_run

SCHEDULED = [(signal, actuator) for signal in SIGNALS for actuator in ACTUATORS]
KINDS = [
    config(schedule=schedule(signal, actuator, gamma=2.0, warmup=1))
    for signal, actuator in SCHEDULED
]


SCRATCH = TowersConfig(trained="from scratch")
TRAINED = {
    "a scheduler, augmented": config(
        towers=TowersConfig(trained="from scratch", augmentation="crop and flip", least_count=2),
        image_tower="resnet18@32",
        text_tower="gru",
        schedule=schedule("variance", "direction", gamma=10.0),
        learning_rate_decay="cosine",
    ),
    "individual temperatures, dropout": config(
        towers=SCRATCH,
        image_tower="resnet18@32",
        text_tower="lstm",
        schedule=IndividualTemperatureConfig(rho=0.8, step=0.05),
        hidden_layers=1,
        dropout=0.2,
    ),
    "last blocks, learned weights": config(
        towers=TowersConfig(trained="last blocks", learning_rate=1e-4),
        image_tower="efficientnet-lite0@32",
        learn_temperature=True,
        schedule=UncertaintyConfig(rate=0.05),
    ),
}


@pytest.fixture(scope="module")
def corpus():
    return load_corpus("scenes", train=20, val=8, test=8, image_size=32)


def test_the_pretended_gpu_refuses_what_a_gpu_refuses():
    with pretended_gpu() as gpu:
        ours, host = torch.ones(2, 2).to(gpu), torch.ones(2, 2)
        assert isinstance(ours + 1, Pretended)
        assert (2 * ours).sum().item() == 8
        for wrong in (lambda: ours + host, lambda: ours @ host, lambda: host.add_(ours)):
            with pytest.raises(RuntimeError, match="at least two devices, cuda:0 and cpu"):
                wrong()
        with pytest.raises(TypeError, match="can't convert cuda:0"):
            ours.numpy()
    assert torch.cuda.is_available() is (torch.cuda.device_count() > 0)


def test_a_file_brings_tensors_back_to_where_they_were(tmp_path):
    path = tmp_path / "state.pt"
    with pretended_gpu() as gpu:
        torch.save({"there": torch.ones(2).to(gpu), "here": [torch.ones(2)]}, path)
        read = torch.load(path, weights_only=True)
        assert isinstance(read["there"], Pretended)
        assert not isinstance(read["here"][0], Pretended)
        assert isinstance(torch.load(path, map_location=gpu)["here"][0], Pretended)
        assert not isinstance(torch.load(path, map_location="cpu")["there"], Pretended)
        copied = copy.deepcopy(nn.Linear(2, 2).to(gpu))
        assert isinstance(copied.weight, Pretended)
        assert isinstance(copied.weight, nn.Parameter)


@pytest.mark.parametrize(
    "one", [*MIXED, *KINDS, *RIVALS.values()], ids=lambda c: f"{c.method}, {c.loss}"
)
def test_a_run_of_every_kind_trains_on_a_gpu(train_small, one):
    short = one.model_copy(update={"epochs": 2})
    (here,) = train_small([short], name="cpu")
    with pretended_gpu():
        (there,) = train_small([short], name="gpu", device="cuda")
    assert there.made["device"] == "cuda (Pretended GPU)"
    assert there.test == pytest.approx(here.test, abs=1e-3)


@pytest.mark.parametrize("kind", ["captions", "images"])
def test_a_run_on_noisy_features_trains_on_a_gpu(kind, corpus, train_small, tmp_path, monkeypatch):
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    monkeypatch.setattr(trainer, "load_corpus", lambda *_, **__: corpus)
    monkeypatch.setattr(encoders.features, "load_image_tower", lambda _: colour_tower())
    monkeypatch.setattr(encoders.features, "load_text_tower", lambda _: CountingTower())
    one = config(noise=NoiseConfig(kind=kind, rate=0.5), train_images=16, batch_size=8, epochs=2)
    (here,) = train_small([one], name="cpu", features=None)
    with pretended_gpu():
        (there,) = train_small([one], name="gpu", features=None, device="cuda")
    assert there.test == pytest.approx(here.test, abs=1e-3)


@pytest.mark.parametrize("name", TRAINED)
def test_an_interrupted_run_goes_on_to_the_same_numbers_on_a_gpu(
    name, corpus, tmp_path, monkeypatch
):
    monkeypatch.setenv("STUDY_HOME", str(tmp_path))
    monkeypatch.setattr(one_run, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    one = TRAINED[name].model_copy(update={"train_images": 16, "batch_size": 16, "epochs": 2})
    names = one.image_tower, one.text_tower
    # The pretended GPU has no inference mode, in which frozen parts run: their states are cached.
    towers.load_inputs(corpus, one.towers.trained, *names, torch.device("cpu"))
    with pretended_gpu() as gpu:
        inputs = towers.load_inputs(corpus, one.towers.trained, *names, gpu)

        def record(run):
            return run.history.result(run.test(), inputs.data, 0.0).records[0]

        unbroken, path = one_run.Run(one, inputs, {}), tmp_path / "run.pt"
        assert list(one_run.epochs_of(unbroken, path, None)) == [1, 2]
        path.unlink()
        next(one_run.epochs_of(one_run.Run(one, inputs, {}), path, None))
        again = one_run.Run(one, inputs, {})
        epochs = one_run.epochs_of(again, path, None)
        assert next(epochs) == 1
        assert len(again.history.epochs) == 1
        monkeypatch.setattr(one_run, "_read", None)  # Not read again.
        assert list(epochs) == [2]
        assert_same_numbers(record(again), record(unbroken))


@pytest.mark.parametrize(
    "make",
    [
        *(
            lambda kind=kind: Scheduler(kind.schedule.signal, kind.schedule.actuator)
            for kind in KINDS
        ),
        Fixed,
        UncertaintyWeights,
        lambda: CosineTemperature(0.1, 0.5, 4),
        lambda: DynamicWeightAverage(period=2),
    ],
)
def test_the_loss_follows_the_embeddings_to_their_device(make):
    """Nobody has moved the scheduler, and the scale may still be on the CPU."""
    with pretended_gpu() as gpu:
        loss_of = ScheduledContrastiveLoss(make())
        for scale in (None, 5.0, torch.tensor(5.0), torch.tensor([5.0]), torch.tensor(5.0).to(gpu)):
            image, text = (F.normalize(torch.randn(6, 8), dim=-1).to(gpu) for _ in range(2))
            loss_of(image.requires_grad_(), text, scale).backward()
            assert isinstance(image.grad, Pretended)
        assert all(isinstance(state, Pretended) for state in loss_of.state_dict().values())


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_takes_groups_and_biases_of_a_gpu(name):
    loss = LOSSES[name]
    with pretended_gpu() as gpu:
        image, text = (F.normalize(torch.randn(6, 8), dim=-1).to(gpu) for _ in range(2))
        group = torch.arange(6) // 2 if loss.grouped or loss.takes_group else None
        bias = torch.tensor(-1.0).to(gpu).requires_grad_()
        loss_of = ScheduledContrastiveLoss(loss=name)
        loss_of(image.requires_grad_(), text, logit_bias=bias, group=group).backward()
        assert isinstance(image.grad, Pretended)
        assert isinstance(bias.grad, Pretended)


def test_adapters_and_micro_batches_run_on_a_gpu():
    with pretended_gpu() as gpu:
        heads = [nn.Linear(8, 4).to(gpu) for _ in range(2)]
        batch = [torch.randn(6, 8).to(gpu) for _ in range(2)]
        cached_backward(ScheduledContrastiveLoss(), heads, batch, 4)
        assert all(isinstance(head.weight.grad, Pretended) for head in heads)
        image, text = (head(rows) for head, rows in zip(heads, batch, strict=True))
        scale, bias = torch.tensor(5.0).to(gpu), torch.tensor(-1.0).to(gpu)
        losses = ScheduledClipLoss()(image, text, scale, bias, output_dict=True)
        assert isinstance(losses["contrastive_loss"], Pretended)


class OneTower(nn.Module):
    """Stands for a library's model: a tower, and the logarithm of a learned scale."""

    def __init__(self):
        super().__init__()
        self.head, self.logit_scale = nn.Linear(8, 4), nn.Parameter(torch.tensor(1.0))

    def forward(self, features):
        return {"sentence_embedding": self.head(features["rows"])}


def pair_loss(model, rows, others):
    labels = torch.arange(6)
    return ScheduledPairLoss(0.1)(model.head(rows), labels, ref_emb=model.head(others))


def reduced_loss(model, rows, others):
    labels = torch.arange(6, device=rows.device).repeat(2)
    reducer = DirectionReducer(Scheduler("variance", "direction"))
    return NTXentLoss(reducer=reducer)(model.head(torch.cat([rows, others])), labels)


def negatives_loss(model, rows, others):
    return ScheduledMultipleNegativesLoss(model)([{"rows": rows}, {"rows": others}], None)


def trainer_loss(model, rows, others):
    image, text = (F.normalize(model.head(side), dim=-1) for side in (rows, others))
    return ScheduledTrainerLoss(model)({"image_embeds": image, "text_embeds": text})


@pytest.mark.parametrize("loss_of", [pair_loss, reduced_loss, negatives_loss, trainer_loss])
def test_adapters_follow_the_model_to_a_gpu(loss_of):
    """As on the adapters' pages: the model is moved, the loss is not."""
    with pretended_gpu() as gpu:
        model = OneTower().to(gpu)
        loss = loss_of(model, *(torch.randn(6, 8).to(gpu) for _ in range(2)))
        assert isinstance(loss, Pretended)
        loss.backward()
        assert isinstance(model.head.weight.grad, Pretended)
