"""One run with trained towers; an interrupted run continues to the same numbers."""

import hashlib
import io
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
"""Images, or captions of similar length, that are embedded at a time in an evaluation."""
SECONDS_BETWEEN_CHECKPOINTS = 60.0
"""An interruption loses at most this plus one epoch."""
CHECKPOINT_VERSION = 3
"""Raise this when the content of a checkpoint changes; older ones are then ignored."""
DIGEST_BYTES = hashlib.sha256().digest_size


class EndToEndModel(nn.Module):
    """A run's towers with a projection head over each."""

    def __init__(self, config: RunConfig, inputs: TowerInputs, pairs: Pairs) -> None:
        super().__init__()
        self.towers: Towers = inputs.towers(config, pairs)
        self.heads = init_heads([config], self.towers.widths).to(inputs.data.device)
        known = self.towers.standardisation(pairs)
        if known is not None:
            for head, features in zip((self.heads.image, self.heads.text), known, strict=True):
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
        """Embed images and captions, given as rows, into unit vectors (B, d) each."""
        # Both heads draw from one generator in turn, as in a stack.
        draws = None if dropout is None else [dropout]
        with torch.autocast("cuda", torch.bfloat16, enabled=images.device.type == "cuda"):
            features = self.towers.image(images, augmentation), self.towers.text(captions)
        image, text = self.heads(features[0].float(), features[1].float(), draws)
        return image, text

    @torch.no_grad()
    def embed(self, gallery: Gallery, caption_length: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """Embed a gallery of row numbers: (N, d) and (M, d)."""
        self.eval()
        captions = gallery.text[:, 0]
        order = np.argsort(caption_length[captions.cpu().numpy()], kind="stable")
        by_length = torch.from_numpy(order).to(captions.device)
        sorted_text = self._embed(self.towers.text, self.heads.text, captions[by_length])
        text = torch.empty_like(sorted_text)
        text[by_length] = sorted_text
        return self._embed(self.towers.image, self.heads.image, gallery.image[:, 0]), text

    def _embed(self, tower: Callable[[Tensor], Tensor], head: nn.Module, rows: Tensor) -> Tensor:
        embedded = []
        for batch in torch.split(rows, EVALUATION_BATCH):
            with torch.autocast("cuda", torch.bfloat16, enabled=rows.device.type == "cuda"):
                features = tower(batch)
            embedded.append(head(features.float()))
        return torch.cat(embedded)

    def parameter_groups(self, config: RunConfig) -> list[dict[str, Any]]:
        """Return the optimiser's groups; biases and normalisations do not decay."""
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
    """A run's state between two epochs.

    Args:
        config: With ``towers`` set.
        inputs: What the run trains on.
        replayed: Finished runs that the run may replay.
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
        """Train an epoch and score it on validation; raise ``KeyboardInterrupt`` as soon as the
        ``threading.Event`` ``stopped`` is set."""
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
        return self._score(self.inputs.data.test, True)

    def _score(self, gallery: Gallery, check_collapse: bool = False) -> Scores:
        image, text = self.model.embed(gallery, self.inputs.caption_length)
        embedded = [(image[None], text[None])]
        return score(embedded, gallery.caption_owner, self.history.alive, check_collapse)

    def state(self) -> dict[str, Any]:
        """Return all that later epochs and the record depend on."""
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
    """Train a run to its end and yield the number of finished epochs after each.

    Args:
        run: A new run.
        checkpoint: Where the run's state is written; if the file holds a state of the same run,
            device and corpus, the run continues from there.
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
            # Into memory first: torch reports a full disk only as "unexpected pos".
            content = io.BytesIO()
            torch.save({"key": key, "state": run.state()}, content)
            digest = hashlib.sha256(content.getbuffer()).digest()
            write_atomic(checkpoint, digest + content.getvalue())
            written = time.monotonic()
        yield len(history.epochs)


def _read(checkpoint: Path, device: torch.device) -> dict[str, Any] | None:
    """Return a checkpoint whose bytes are those that were written; what was on a device comes back
    on the run's device, and what was on the CPU on the CPU."""

    def placed(storage: Any, location: str) -> Any:
        if location == "cpu":
            return storage
        return torch.serialization.default_restore_location(storage, str(device))  # type: ignore[no-untyped-call]

    if not checkpoint.exists():
        return None
    try:
        content = checkpoint.read_bytes()
        digest, state = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        if hashlib.sha256(state).digest() != digest:
            raise ValueError("its bytes are not those that were written")
        kept: dict[str, Any] = torch.load(io.BytesIO(state), map_location=placed, weights_only=True)
    except Exception as error:  # torch raises errors of any kind for a damaged file
        warnings.warn(f"{checkpoint} is damaged ({error}); the run begins anew", stacklevel=2)
        return None
    return kept
