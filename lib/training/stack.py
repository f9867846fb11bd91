"""The training loop: runs of the same shapes as one batched model, a stack.

What a run computes does not depend on its neighbours in the stack.
"""

import datetime
import platform
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.losses import info_nce, weighted_mean
from lib.metrics import collapsed, retrieval_metrics_from_embeddings
from lib.models import DualEncoder, LearnedTemperature, ProjectionHead, matmul
from lib.runs import TEST_COLUMNS, RunConfig, RunRecord
from lib.schedulers import DEFAULT_TARGETS, Fixed, Schedule, Scheduler, variance
from lib.seeds import torch_generator
from lib.training.data import Gallery, TrainingData, batches

RSUM = TEST_COLUMNS.index("rsum")


class Schedulers:
    """The schedulers of a stack: runs with the same signal and actuator share one."""

    def __init__(self, configs: Sequence[RunConfig], device: torch.device) -> None:
        self._parts: list[tuple[Tensor, nn.Module]] = []
        kinds: dict[tuple[str, str] | None, list[int]] = {}
        for run, config in enumerate(configs):
            schedule = config.schedule
            scheduled = None if schedule is None else (schedule.signal, schedule.actuator)
            kinds.setdefault(scheduled, []).append(run)
        for kind, runs in kinds.items():
            module = Fixed() if kind is None else _scheduler([configs[run] for run in runs])
            self._parts.append((torch.tensor(runs, device=device), module.to(device)))

    def __call__(self, similarity: Tensor, temperature: Tensor) -> Schedule:
        """Return the schedule of every run, (R, …), for similarities (R, B, B)."""
        weights = similarity.new_empty(similarity.shape[0], 2)
        sample_weights = similarity.new_empty(similarity.shape[0], 2, similarity.shape[-1])
        tau = torch.empty_like(temperature)
        for runs, module in self._parts:
            part = module(similarity[runs], temperature[runs])
            weights[runs], sample_weights[runs], tau[runs] = part
        return Schedule(weights, sample_weights, tau)


def _scheduler(configs: Sequence[RunConfig]) -> Scheduler:
    schedules = [config.schedule for config in configs if config.schedule is not None]
    first = schedules[0]
    default = DEFAULT_TARGETS[first.signal]
    return Scheduler(
        first.signal,
        first.actuator,
        gamma=torch.tensor([s.gamma for s in schedules]),
        beta=torch.tensor([s.beta for s in schedules]),
        warmup=torch.tensor([s.warmup for s in schedules]),
        target=torch.tensor([default if s.target is None else s.target for s in schedules]),
        batch_shape=(len(schedules),),
    )


def _build_model(configs: Sequence[RunConfig], data: TrainingData, subsets: Tensor) -> DualEncoder:
    """Build the stack's heads: drawn by each run's seed, standardised on each run's subset."""
    shape = configs[0]
    heads = []
    for name, width in (("image", data.image.shape[1]), ("text", data.text.shape[1])):
        head = ProjectionHead(
            width,
            shape.embedding_dim,
            hidden_layers=shape.hidden_layers,
            hidden_features=shape.hidden_features,
            dropout=shape.dropout,
            batch_shape=(len(configs),),
        )
        head.initialise([torch_generator(c.seed, "initialisation", name) for c in configs])
        heads.append(head.to(data.device))
    model = DualEncoder(*heads)
    for run, subset in enumerate(subsets.cpu().numpy()):
        captions = np.concatenate(
            [
                np.arange(
                    data.first_caption[row], data.first_caption[row] + data.caption_count[row]
                )
                for row in subset
            ]
        )
        model.image.standardise(data.image[torch.from_numpy(subset).to(data.device)], run)
        model.text.standardise(data.text[torch.from_numpy(captions).to(data.device)], run)
    return model


@torch.no_grad()
def _evaluate(model: DualEncoder, gallery: Gallery, alive: Tensor) -> tuple[Tensor, Tensor]:
    """Measure every run of a stack on a split.

    Returns:
        (R, len(TEST_COLUMNS)) metrics, and (R,) whether the run's embeddings are finite. A run that
        is not alive or not finite is measured as if it had collapsed, and must not be used.
    """
    embedded = model(gallery.image, gallery.text)
    finite = torch.stack([e.isfinite().all(dim=-1).all(dim=-1) for e in embedded]).all(dim=0)
    usable = (alive & finite)[:, None, None]
    image, text = (torch.where(usable, e, torch.zeros_like(e)) for e in embedded)
    # From embeddings, so that equal ones tie exactly: a collapsed run must score chance.
    measured = retrieval_metrics_from_embeddings(image, text, gallery.caption_owner)
    columns = [*measured.recalls, measured.rsum, *measured.median_ranks]
    # A mean's last bits may depend on the stack's layout; nine decimals of a recall don't.
    return torch.stack(columns, dim=-1).round(decimals=9), finite


def train_stack(
    configs: Sequence[RunConfig], data: TrainingData
) -> tuple[list[RunRecord], list[str]]:
    """Train runs of the same shapes together; return their records and what went wrong."""
    begun = time.perf_counter()
    shape, device = configs[0], data.device
    subsets = np.stack([data.subset(config) for config in configs])
    model = _build_model(configs, data, torch.from_numpy(subsets))
    schedulers = Schedulers(configs, device)
    learned = torch.tensor([config.learn_temperature for config in configs], device=device)
    fixed_tau = torch.tensor([config.temperature for config in configs], device=device)
    # Runs with a fixed temperature get a stand-in that no gradient reaches.
    temperature = LearnedTemperature(
        torch.where(learned, fixed_tau, 1.0), batch_shape=(len(configs),)
    ).to(device)
    groups: list[dict[str, Any]] = [
        {"params": [*model.image.weights, *model.text.weights]},
        {
            "params": [*model.image.biases, *model.text.biases, temperature.log_scale],
            "weight_decay": 0.0,
        },
    ]
    optimiser = torch.optim.AdamW(
        groups,
        lr=shape.learning_rate,
        weight_decay=shape.weight_decay,
    )
    dropout = None
    if shape.dropout:
        dropout = [torch_generator(config.seed, "dropout") for config in configs]

    epochs: list[Tensor] = []
    steps: list[Tensor] = []
    lost: list[str] = []
    alive = torch.ones(len(configs), dtype=torch.bool, device=device)
    best_rsum = torch.full((len(configs),), -1.0, dtype=torch.float64, device=device)
    best_epoch = torch.zeros(len(configs), dtype=torch.long, device=device)
    best_state = [parameter.detach().clone() for parameter in model.parameters()]
    for epoch in range(1, shape.epochs + 1):
        draws = [data.epoch(c, s, epoch) for c, s in zip(configs, subsets, strict=True)]
        images, captions = (
            torch.from_numpy(np.stack(rows)).to(device) for rows in zip(*draws, strict=True)
        )
        epoch_steps = []
        for batch in batches(shape.train_images, shape.batch_size):
            embedded = model(data.image[images[:, batch]], data.text[captions[:, batch]], dropout)
            similarity = matmul(embedded.image, embedded.text.mT)
            tau = torch.where(learned, temperature(), fixed_tau)
            schedule = schedulers(similarity, tau.detach())
            used = schedule._replace(temperature=torch.where(learned, tau, schedule.temperature))
            loss = weighted_mean(info_nce(similarity, used.temperature), used)
            optimiser.zero_grad()
            torch.autograd.backward(loss.sum())
            optimiser.step()
            temperature.project()
            signals = variance(similarity.detach(), used.temperature.detach()).mean(dim=-1)
            epoch_steps.append(
                torch.cat(
                    [loss[:, None], used.weights, used.temperature[:, None], signals], dim=-1
                ).detach()
            )
        block = torch.stack(epoch_steps)
        steps.append(block)
        losses = block[..., 0].double()
        metrics, finite = _evaluate(model, data.validation, alive)
        for run in torch.nonzero(alive & ~(losses.isfinite().all(dim=0) & finite)).flatten():
            bad = torch.nonzero(~losses[:, run].isfinite()).flatten()
            step = f"step {int(bad[0]) + 1}" if bad.numel() else "its last step"
            lost.append(f"{configs[run].method}, seed {configs[run].seed}: epoch {epoch}, {step}")
            alive[run] = False
        rsum = metrics[:, RSUM]
        better = rsum > best_rsum
        best_rsum = torch.where(better, rsum, best_rsum)
        best_epoch[better] = epoch
        for kept, parameter in zip(best_state, model.parameters(), strict=True):
            kept[better] = parameter.detach()[better]
        epochs.append(torch.cat([losses.mean(dim=0)[:, None], metrics[:, : RSUM + 1]], dim=-1))

    with torch.no_grad():
        for parameter, kept in zip(model.parameters(), best_state, strict=True):
            parameter.copy_(kept)
    test, _ = _evaluate(model, data.test, alive)
    flags = _collapsed(model, data.test, alive)
    seconds = (time.perf_counter() - begun) / len(configs)
    epoch_series = torch.stack(epochs, dim=1).cpu().numpy()
    step_series = torch.cat(steps).transpose(0, 1).float().cpu().numpy()
    records = [
        RunRecord(
            config=config,
            corpus_fingerprint=data.corpus_fingerprint,
            best_epoch=int(best_epoch[run]),
            test=dict(zip(TEST_COLUMNS, test[run].tolist(), strict=True)),
            epochs=epoch_series[run],
            steps=step_series[run],
            collapsed=flags[run],
            seconds=seconds,
            made=_circumstances(device),
        )
        for run, config in enumerate(configs)
        if alive[run]
    ]
    return records, lost


@torch.no_grad()
def _collapsed(model: DualEncoder, gallery: Gallery, alive: Tensor) -> list[bool]:
    embedded = model(gallery.image, gallery.text)
    return [
        bool(alive[run]) and any(collapsed(part[run]) for part in embedded)
        for run in range(len(alive))
    ]


def _circumstances(device: torch.device) -> dict[str, str]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "date": datetime.date.today().isoformat(),
        "device": f"{device.type} ({name})",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
