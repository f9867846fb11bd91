"""One run with trained towers, epoch by epoch; an interrupted one goes on to the same numbers."""

import io
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
from lib.training.data import Gallery, Pairs, batches, draw_epoch
from lib.training.history import History, Scores, score
from lib.training.objective import Objective
from lib.training.schedules import Replayed
from lib.training.stack import init_heads
from lib.training.step import TrainingStep
from lib.training.towers.inputs import TowerInputs, Towers
from lib.utils.files import write_atomic
from lib.utils.seeds import generator, torch_generator

EVALUATION_BATCH = 250
"""Images, or captions of like length, that are embedded at a time in an evaluation."""
SECONDS_BETWEEN_CHECKPOINTS = 60.0
"""An interruption loses at most this plus one epoch."""
CHECKPOINT_VERSION = 2
"""Raise this when the content of a checkpoint changes: no older one is then used."""


class EndToEndModel(nn.Module):
    """A run's towers with a projection head over each."""

    def __init__(self, config: RunConfig, inputs: TowerInputs, pairs: Pairs) -> None:
        super().__init__()
        self.towers: Towers = inputs.towers(config, pairs)
        self.heads = init_heads([config], self.towers.widths).to(inputs.data.device)
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
        inputs: What it trains on.
        replayed: Finished runs that it may replay.
    """

    def __init__(self, config: RunConfig, inputs: TowerInputs, replayed: Replayed) -> None:
        data = inputs.data
        self.config, self.inputs = config, inputs
        self.pairs = data.pairs(config)
        self.model = EndToEndModel(config, inputs, self.pairs)
        objective = Objective([config], replayed, data.device)
        groups = [*self.model.parameter_groups(config), *objective.groups()]
        optimiser = torch.optim.AdamW(
            groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.batched = batches(config.train_images, config.batch_size)
        self.step = TrainingStep(objective, optimiser, config, len(self.batched))
        self.history = History([config], data.device)
        self.best: dict[str, Tensor] = {}

    def train_epoch(self, stopped: Any = None) -> None:
        """Train an epoch and measure it on validation.

        Args:
            stopped: A ``threading.Event``: once set, the epoch is abandoned with
                ``KeyboardInterrupt``.
        """
        config, data = self.config, self.inputs.data
        epoch = len(self.history.epochs) + 1
        images, captions, places = draw_epoch([config], data, [self.pairs], epoch)
        augmentation = generator(config.seed, "augmentation", epoch)
        dropout = torch_generator(config.seed, "dropout", epoch) if config.dropout else None
        self.model.train()
        steps = []
        for batch in self.batched:
            if stopped is not None and stopped.is_set():
                raise KeyboardInterrupt
            image, text = self.model(images[0, batch], captions[0, batch], augmentation, dropout)
            steps.append(self.step(matmul(image, text.mT)[None], places[:, batch]))
        if self.history.add_epoch(torch.stack(steps), self._score(data.validation)):
            state = self.model.state_dict()
            self.best = {name: tensor.clone() for name, tensor in state.items()}

    def test(self) -> Scores:
        """Score the run on the test split, with the weights of its best epoch."""
        self.model.load_state_dict(self.best)
        return self._score(self.inputs.data.test, check_collapse=True)

    def _score(self, gallery: Gallery, *, check_collapse: bool = False) -> Scores:
        image, text = self.model.embed(gallery, self.inputs.caption_length)
        embedded, alive = [(image[None], text[None])], self.history.alive
        return score(embedded, gallery.caption_owner, alive, check_collapse=check_collapse)

    def state(self) -> dict[str, Any]:
        """Return all that the next epoch depends on, and what is known so far."""
        return {
            "model": self.model.state_dict(),
            "step": self.step.state(),
            "history": self.history.state(),
            "best": self.best,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        self.model.load_state_dict(state["model"])
        self.step.restore(state["step"])
        self.history.restore(state["history"])
        self.best = state["best"]


def epochs_of(run: Run, checkpoint: Path, stopped: Any) -> Iterator[int]:
    """Train a run to its end and yield after each epoch how many are done.

    Args:
        run: As it was made.
        checkpoint: Where it is kept now and then; if there is one of the same run, device and
            corpus, the run goes on from it.
        stopped: As for :meth:`Run.train_epoch`.
    """
    data, history = run.inputs.data, run.history
    names = run.config.run_id, data.corpus_fingerprint, data.device.type
    key = " ".join([f"version {CHECKPOINT_VERSION}", *names])
    kept = _read(checkpoint, data.device)
    if kept is not None and kept["key"] == key:
        run.restore(kept["state"])
        yield len(history.epochs)
    written = time.monotonic()
    while not history.finished:
        run.train_epoch(stopped)
        if time.monotonic() - written >= SECONDS_BETWEEN_CHECKPOINTS and not history.finished:
            # Into memory first: of a full disk torch says no more than "unexpected pos".
            content = io.BytesIO()
            torch.save({"key": key, "state": run.state()}, content)
            write_atomic(checkpoint, content.getvalue())
            written = time.monotonic()
        yield len(history.epochs)


def _read(checkpoint: Path, device: torch.device) -> dict[str, Any] | None:
    if not checkpoint.exists():
        return None
    try:
        kept: dict[str, Any] = torch.load(checkpoint, map_location=device, weights_only=True)
    except Exception as error:  # torch raises errors of any kind for a damaged file
        warnings.warn(f"{checkpoint} is damaged ({error}); the run begins anew", stacklevel=2)
        return None
    return kept
