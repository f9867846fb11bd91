"""What runs record while they train: their series, best epoch, failures and records."""

import datetime
import platform
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lib.metrics import collapsed, retrieval_metrics_from_embeddings
from lib.runs import TEST_COLUMNS, RunConfig, RunRecord
from lib.training.data import TrainingData
from lib.utils.version import code_version

RSUM = TEST_COLUMNS.index("rsum")


class StackResult(NamedTuple):
    """How the training of a stack of runs ended.

    Attributes:
        configs: The runs.
        records: Of those that finished.
        failures: One message per run whose numbers stopped being finite.
        lost: Whether the worker was lost each time the stack was tried.
    """

    configs: Sequence[RunConfig]
    records: list[RunRecord]
    failures: list[str]
    lost: bool = False


class Scores(NamedTuple):
    """What the runs of a stack score on a gallery.

    Attributes:
        metrics: (R, len(TEST_COLUMNS)); of no meaning for a run that has failed.
        finite: (R,) whether a run's embeddings are finite.
        collapsed: Whether each run's embeddings have collapsed, if ``check_collapse``.
    """

    metrics: Tensor
    finite: Tensor
    collapsed: tuple[bool, ...]


def evaluate(image: Tensor, text: Tensor, owner: Tensor) -> Tensor:
    """Return (R, len(TEST_COLUMNS)) metrics of embeddings (R, N, d) and (R, M, d)."""
    # From embeddings, so that equal ones tie exactly: a collapsed run must score chance.
    measured = retrieval_metrics_from_embeddings(image, text, owner)
    columns = [*measured.recalls, measured.rsum, *measured.median_ranks]
    # The last bits of a mean may depend on the stack's layout; nine decimals don't.
    return torch.stack(columns, dim=-1).round(decimals=9)


def score(
    embedded: Iterable[tuple[Tensor, Tensor]],
    owner: Tensor,
    alive: Tensor,
    check_collapse: bool = False,
) -> Scores:
    """Score the runs of a stack one after the other.

    Args:
        embedded: Each run's unit vectors (1, N, d) and (1, M, d), which may be overwritten.
        owner: (M,) the image of each caption.
        alive: (R,) whether all numbers of a run have been finite so far.
        check_collapse: Whether to look for collapse.
    """
    metrics, finite, fallen = [], [], []
    for (image, text), living in zip(embedded, alive.tolist(), strict=True):
        # A sum of unit vectors' coordinates can't overflow: it is finite if all of them are.
        finite.append(bool((image.sum() + text.sum()).isfinite()))
        if not (living and finite[-1]):
            image.zero_()
            text.zero_()
        metrics.append(evaluate(image, text, owner))
        fallen.append(check_collapse and (collapsed(image) or collapsed(text)))
    return Scores(torch.cat(metrics), torch.tensor(finite, device=alive.device), tuple(fallen))


class History:
    """The series of a stack of runs on a device, and what follows from them.

    Attributes:
        epochs: One (R, len(EPOCH_COLUMNS)) per epoch so far.
        steps: One (steps, R, len(STEP_COLUMNS)) per epoch so far.
        alive: (R,) whether all numbers of a run have been finite so far.
        best_rsum: (R,) the greatest validation rSum so far, in percentage points.
        best_epoch: (R,) the first epoch with that rSum, from 1.
        failures: One message per run that is not alive.
    """

    def __init__(self, configs: Sequence[RunConfig], device: torch.device) -> None:
        self._configs = configs
        self.epochs: list[Tensor] = []
        self.steps: list[Tensor] = []
        self.alive = torch.ones(len(configs), dtype=torch.bool, device=device)
        self.best_rsum = torch.full((len(configs),), -1.0, dtype=torch.float64, device=device)
        self.best_epoch = torch.zeros(len(configs), dtype=torch.long, device=device)
        self.failures: list[str] = []

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or no run is left whose numbers are finite. Runs of no
        epochs have one without steps, in which their heads are scored."""
        return len(self.epochs) == max(1, self._configs[0].epochs) or not self.alive.any()

    def add_epoch(self, steps: Tensor, validation: Scores) -> Tensor:
        """Add an epoch, and return the runs (R,) for which it is the best so far.

        Args:
            steps: (steps, R, len(STEP_COLUMNS)); no steps if nothing is trained.
            validation: After the last step.
        """
        epoch = len(self.epochs) + 1
        sound = steps.isfinite().all(dim=-1)
        for run in torch.nonzero(self.alive & ~(sound.all(dim=0) & validation.finite)).flatten():
            bad = torch.nonzero(~sound[:, run]).flatten()
            step = f"step {int(bad[0]) + 1}" if bad.numel() else "its last step"
            self._fail(int(run), f"epoch {epoch}, {step}")
        rsum = validation.metrics[:, RSUM]
        better = rsum > self.best_rsum
        self.best_rsum = torch.where(better, rsum, self.best_rsum)
        self.best_epoch[better] = epoch
        loss = steps[..., 0].double()
        loss = loss.mean(dim=0) if len(loss) else loss.sum(dim=0)
        self.epochs.append(torch.cat([loss[:, None], validation.metrics[:, : RSUM + 1]], dim=-1))
        self.steps.append(steps)
        return better

    def result(self, test: Scores, data: TrainingData, begun: float) -> StackResult:
        """Return the records of the runs that are alive.

        Args:
            test: With the weights of each run's best epoch.
            data: What the runs trained on.
            begun: When they began, by :func:`time.perf_counter`.
        """
        for run in torch.nonzero(self.alive & ~test.finite).flatten():
            self._fail(int(run), "embeddings of the test split")
        epochs = torch.stack(self.epochs, dim=1).cpu().numpy()
        steps = torch.cat(self.steps).transpose(0, 1).float().cpu().numpy()
        seconds = (time.perf_counter() - begun) / len(self._configs)
        records = [
            RunRecord(
                config=config,
                corpus_fingerprint=data.corpus_fingerprint,
                best_epoch=int(self.best_epoch[run]),
                test=dict(zip(TEST_COLUMNS, test.metrics[run].tolist(), strict=True)),
                epochs=epochs[run],
                steps=steps[run],
                collapsed=test.collapsed[run],
                seconds=seconds,
                made=circumstances(data.device),
            )
            for run, config in enumerate(self._configs)
            if self.alive[run]
        ]
        return StackResult(self._configs, records, self.failures)

    def state(self) -> dict[str, Any]:
        """Return the history so far."""
        return {name: value for name, value in vars(self).items() if name != "_configs"}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what :meth:`state` returned."""
        vars(self).update(state)

    def _fail(self, run: int, moment: str) -> None:
        config = self._configs[run]
        message = f"{config.method}, seed {config.seed}: {moment} (run {config.run_id})"
        self.failures.append(message)
        self.alive[run] = False


def circumstances(device: torch.device) -> dict[str, str]:
    """Return how a record was made: moment in UTC, device, versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "code": code_version(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": f"{device.type} ({name})",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
