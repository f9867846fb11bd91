"""One run with trained towers, epoch by epoch; an interrupted one goes on to the same numbers."""

import io
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.models import matmul
from lib.runs import RunConfig
from lib.schedulers import variance
from lib.training.data import Gallery, Pairs, batches
from lib.training.objective import Objective
from lib.training.schedules import Sources
from lib.training.stack import RSUM, drawn_heads, not_finite, test_metrics
from lib.training.towers.inputs import Material, Towers
from lib.utils.files import write_atomic
from lib.utils.seeds import generator, torch_generator

EVALUATION_BATCH = 250
"""Images, or captions of like length, that are embedded at a time in an evaluation."""
SECONDS_BETWEEN_CHECKPOINTS = 60.0
"""What an interruption can cost, and an epoch more."""


class EndToEndModel(nn.Module):
    """A run's towers with a projection head over each."""

    def __init__(self, config: RunConfig, material: Material, pairs: Pairs) -> None:
        super().__init__()
        self.towers: Towers = material.towers(config, pairs)
        self.heads = drawn_heads([config], self.towers.widths).to(material.data.device)
        seen = self.towers.standardisation(pairs)
        if seen is not None:
            for head, features in zip((self.heads.image, self.heads.text), seen, strict=True):
                head.standardise(features)
                if not config.centre:
                    head.mean.zero_()

    def forward(
        self,
        images: Tensor,
        captions: Tensor,
        augmentation: np.random.Generator | None = None,
        dropout: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Embed images and captions, by their rows, into unit vectors (B, d) each."""
        # One generator serves both heads in turn, as in a stack.
        drawn = None if dropout is None else [dropout]
        with torch.autocast("cuda", torch.bfloat16, enabled=images.device.type == "cuda"):
            features = self.towers.image(images, augmentation), self.towers.text(captions)
        image, text = self.heads(features[0].float(), features[1].float(), drawn)
        return image, text

    @torch.no_grad()
    def embed(self, gallery: Gallery, caption_length: np.ndarray[Any, Any]) -> list[Tensor]:
        """Embed a gallery of row numbers: (N, d) and (M, d)."""
        self.eval()
        image = [
            self.heads.image(self._features(self.towers.image, rows))
            for rows in torch.split(gallery.image[:, 0], EVALUATION_BATCH)
        ]
        captions = gallery.text[:, 0]
        order = torch.from_numpy(
            np.argsort(caption_length[captions.cpu().numpy()], kind="stable")
        ).to(captions.device)
        sorted_text = [
            self.heads.text(self._features(self.towers.text, rows))
            for rows in torch.split(captions[order], EVALUATION_BATCH)
        ]
        text = torch.empty(len(captions), sorted_text[0].shape[1], device=captions.device)
        text[order] = torch.cat(sorted_text)
        return [torch.cat(image), text]

    def _features(self, tower: Any, rows: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=rows.device.type == "cuda"):
            features: Tensor = tower(rows)
        return features.float()

    def parameter_groups(self, config: RunConfig) -> list[dict[str, Any]]:
        """Return the optimiser's groups: weights decay, biases and normalisations do not."""
        assert config.towers is not None
        rate = config.learning_rate
        tower_rate = config.towers.learning_rate or rate
        towers = list(self.towers.parameters())
        heads = (self.heads.image, self.heads.text)
        return [
            {"params": [w for head in heads for w in head.weights], "lr": rate},
            {"params": [b for head in heads for b in head.biases], "lr": rate, "weight_decay": 0.0},
            {"params": [p for p in towers if p.dim() > 1], "lr": tower_rate},
            {"params": [p for p in towers if p.dim() < 2], "lr": tower_rate, "weight_decay": 0.0},
        ]


class Run:
    """A run's whole state between two epochs.

    Args:
        config: With ``towers`` set.
        material: What it trains on.
        sources: Finished runs that it may replay.
    """

    def __init__(self, config: RunConfig, material: Material, sources: Sources) -> None:
        data = material.data
        self.config, self.material = config, material
        self.pairs = data.pairs(config)
        self.model = EndToEndModel(config, material, self.pairs)
        self.objective = Objective([config], sources, data.device)
        groups = [*self.model.parameter_groups(config), *self.objective.groups()]
        self.optimiser = torch.optim.AdamW(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.batched = batches(config.train_images, config.batch_size)
        # To zero after the last step, without restarts (Loshchilov and Hutter, ICLR 2017, eq. 5).
        self.decay = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser,
            lambda step: (
                (1 + math.cos(math.pi * step / (config.epochs * len(self.batched)))) / 2
                if config.learning_rate_decay == "cosine"
                else 1.0
            ),
        )
        self.epochs: list[Tensor] = []
        self.steps: list[Tensor] = []
        self.best_rsum, self.best_epoch = -1.0, 0
        self.best: dict[str, Tensor] = {}
        self.lost = ""

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the numbers stopped being finite."""
        return bool(self.lost) or len(self.epochs) == self.config.epochs

    def train_epoch(self, stopped: Any = None) -> None:
        """Train an epoch and measure it on validation.

        Args:
            stopped: A ``threading.Event``: once set, the epoch is abandoned with
                ``KeyboardInterrupt``.
        """
        config, data = self.config, self.material.data
        epoch = len(self.epochs) + 1
        image_rows, caption_rows = data.epoch(config, self.pairs, epoch)
        draws = (image_rows, caption_rows, self.pairs.places(image_rows))
        images, captions, places = (torch.from_numpy(rows).to(data.device) for rows in draws)
        augmentation = generator(config.seed, "augmentation", epoch)
        dropout = torch_generator(config.seed, "dropout", epoch) if config.dropout else None
        self.model.train()
        steps = []
        for batch in self.batched:
            if stopped is not None and stopped.is_set():
                raise KeyboardInterrupt
            rows = images[batch], captions[batch], places[batch]
            steps.append(self._step(*rows, augmentation, dropout))
        block = torch.stack(steps).cpu()
        embedded = self.model.embed(data.validation, self.material.caption_length)
        bad = torch.nonzero(~block.isfinite().all(dim=-1)).flatten()
        if bad.numel() or not all(bool(e.isfinite().all()) for e in embedded):
            step = f"step {int(bad[0]) + 1}" if bad.numel() else "its last step"
            self.lost = not_finite(config, f"epoch {epoch}, {step}")
            return
        image, text = embedded
        metrics = test_metrics(image[None], text[None], data.validation.caption_owner)[0].cpu()
        if float(metrics[RSUM]) > self.best_rsum:
            self.best_rsum, self.best_epoch = float(metrics[RSUM]), epoch
            state = self.model.state_dict()
            self.best = {name: tensor.clone() for name, tensor in state.items()}
        self.steps.append(block)
        loss = block[:, 0].double().mean()
        self.epochs.append(torch.cat([loss[None], metrics[: RSUM + 1].double()]))

    def _step(
        self,
        images: Tensor,
        captions: Tensor,
        places: Tensor,
        augmentation: np.random.Generator,
        dropout: torch.Generator | None,
    ) -> Tensor:
        image, text = self.model(images, captions, augmentation, dropout)
        similarity = matmul(image, text.mT)[None]
        loss, schedule = self.objective(similarity, places[None], ())
        self.optimiser.zero_grad()
        torch.autograd.backward(loss.sum())
        self.optimiser.step()
        self.decay.step()
        self.objective.project()
        used = schedule.temperature.detach()
        signals = variance(similarity.detach(), used).mean(dim=-1)
        columns = [loss[:, None], schedule.weights, used[:, None], signals]
        return torch.cat(columns, dim=-1)[0].detach()

    def test(self) -> tuple[Tensor, list[Tensor]]:
        """Read the test split with the model that validation chose: metrics and embeddings."""
        self.model.load_state_dict(self.best)
        gallery = self.material.data.test
        image, text = self.model.embed(gallery, self.material.caption_length)
        return test_metrics(image[None], text[None], gallery.caption_owner)[0], [image, text]

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch depends on, and what is known so far."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "decay": self.decay.state_dict(),
            "objective": self.objective.state(),
            "epochs": self.epochs,
            "steps": self.steps,
            "best": self.best,
            "best_rsum": self.best_rsum,
            "best_epoch": self.best_epoch,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.decay.load_state_dict(state["decay"])
        self.objective.restore(state["objective"])
        self.epochs, self.steps = state["epochs"], state["steps"]
        self.best = state["best"]
        self.best_rsum, self.best_epoch = state["best_rsum"], state["best_epoch"]


def epochs_of(run: Run, checkpoint: Path, stopped: Any) -> Iterator[int]:
    """Train a run to its end and yield after each epoch how many are done.

    Args:
        run: As it was made.
        checkpoint: Where it is kept now and then; if there is one of the same run, device and
            corpus, the run goes on from it.
        stopped: As for :meth:`Run.train_epoch`.
    """
    device = run.material.data.device
    key = f"{run.config.run_id} {run.material.data.corpus_fingerprint} {device.type}"
    kept = _read(checkpoint, device)
    if kept is not None and kept["key"] == key:
        run.restore(kept["state"])
        yield len(run.epochs)
    written = time.monotonic()
    while not run.finished:
        run.train_epoch(stopped)
        if time.monotonic() - written >= SECONDS_BETWEEN_CHECKPOINTS and not run.finished:
            # Into memory first: of a full disk torch says no more than "unexpected pos".
            content = io.BytesIO()
            torch.save({"key": key, "state": run.state()}, content)
            write_atomic(checkpoint, content.getvalue())
            written = time.monotonic()
        yield len(run.epochs)


def _read(checkpoint: Path, device: torch.device) -> dict[str, Any] | None:
    if not checkpoint.exists():
        return None
    try:
        kept: dict[str, Any] = torch.load(checkpoint, map_location=device, weights_only=True)
    except Exception as error:  # torch raises errors of any kind for a damaged file
        warnings.warn(f"{checkpoint} is damaged ({error}); the run begins anew", stacklevel=2)
        return None
    return kept
