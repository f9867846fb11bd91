"""Training the stacks of a sweep on an executor: what is sent, what comes back, what is lost."""

import json
import platform
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lib.encoders import Features, resolve_device
from lib.runs import RunConfig, RunRecord
from lib.training.data import TrainingData
from lib.training.executors import workers_of
from lib.training.schedules import Sources
from lib.training.stack import train_stack
from lib.utils.files import home
from lib.utils.version import code_version

RESUBMISSIONS = 2
"""How often runs that went down with their worker are sent out again."""


class TrainingError(RuntimeError):
    """A run did not end in numbers that may be published."""


@dataclass(frozen=True)
class Parcel:
    """What a worker needs to know of a corpus: neither corpus nor towers nor a store.

    Attributes:
        clean: The features.
        noisy: Those of the noisy version, if runs train on one.
        device: Where to train, as the worker understands it.
    """

    clean: Features
    noisy: Features | None
    device: str

    def unpack(self) -> TrainingData:
        """Return the data on the device."""
        return TrainingData.of(self.clean, resolve_device(self.device), self.noisy)


class Outcome(NamedTuple):
    """What became of a stack: its records, and what is to be said of the runs without one."""

    stack: list[RunConfig]
    records: list[RunRecord]
    diverged: list[str]
    lost: bool = False


def spread(
    executor: Executor, parcel: Parcel, stacks: Sequence[list[RunConfig]], sources: Sources
) -> Iterator[Outcome]:
    """Train stacks on an executor and yield what became of each, as they end.

    Stacks that go down with a worker are sent again, at most :data:`RESUBMISSIONS` times. When the
    caller stops iterating or is interrupted, stacks that have not begun are cancelled.

    Args:
        executor: Any; its workers must have this very package.
        parcel: The data, sent once: through :class:`lib.training.executors.Cluster` to every
            worker, else as a file, which the workers must see.
        stacks: Runs that train together.
        sources: Finished runs that others replay; only those that a stack needs go with it.
    """
    waiting = [(stack, 0) for stack in reversed(stacks)]
    flying: dict[Future[Any], tuple[list[RunConfig], int]] = {}
    with _sent(executor, parcel) as send:
        place = send()
        try:
            while waiting or flying:
                # Few are out at a time: only those can go down with a worker. What went down once
                # flies alone, so that it takes no other with it.
                while waiting and len(flying) < 2 * workers_of(executor):
                    suspects = waiting[-1][1] + sum(losses for _, losses in flying.values())
                    if suspects and flying:
                        break
                    stack, losses = waiting.pop()
                    needed = {c.source: sources[c.source] for c in stack if c.source}
                    flying[_submit(executor, place, stack, needed)] = stack, losses
                done, _ = wait(flying, return_when=FIRST_COMPLETED)
                down = False
                for future in done:
                    stack, losses = flying.pop(future)
                    error = _error_of(future)
                    if error is None:
                        yield Outcome(stack, *future.result())
                    elif not _is_loss(error):
                        raise error
                    elif losses < RESUBMISSIONS and not _is_final(error):
                        down = True
                        waiting.append((stack, losses + 1))
                    else:
                        yield Outcome(stack, [], [], lost=True)
                if down:
                    # The last worker that had the data may be gone.
                    place = send()
        finally:
            for future in flying:
                future.cancel()


def train_elsewhere(
    parcel: Parcel | Path, stack: Sequence[RunConfig], sources: Sources, code: str
) -> tuple[list[RunRecord], list[str]]:
    """Train a stack in this worker, as :func:`lib.training.stack.train_stack` does.

    Raises:
        TrainingError: The worker has other code than who sends the work, or can't read the data.
    """
    if code != code_version():
        raise TrainingError(
            f"the worker {platform.node()} has version {code_version()} of the package, and the "
            f"sweep comes from {code}: install the same there, and start the worker again"
        )
    if isinstance(parcel, Path):
        try:
            parcel = _read_parcel(parcel)
        except OSError as error:
            raise TrainingError(
                f"the worker {platform.node()} does not see {parcel}: let the machines share "
                "$STUDY_HOME, or pass lib.training.executors.Cluster, which sends the data"
            ) from error
    return train_stack(stack, parcel.unpack(), sources)


def _submit(
    executor: Executor, place: Any, stack: list[RunConfig], needed: Sources
) -> "Future[Any]":
    try:
        return executor.submit(train_elsewhere, place, stack, needed, code_version())
    except BrokenExecutor as error:
        # It broke a moment ago, and nobody has asked for its results since.
        broken: Future[Any] = Future()
        broken.set_exception(error)
        return broken


@contextmanager
def _sent(executor: Executor, parcel: Parcel) -> Iterator[Any]:
    """Yield a function that makes the data reachable and returns what stands for them."""
    plain = replace(parcel, clean=_plain(parcel.clean))
    if hasattr(executor, "send"):
        yield lambda: executor.send(plain)
        return
    home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sweep-", dir=home()) as folder:
        path = Path(folder) / "features.npz"
        _write_parcel(plain, path)
        yield lambda: path


def _plain(features: Features) -> Features:
    # A mapped file is sent as the whole array, and read back as something that maps none.
    return replace(features, image=np.array(features.image), text=np.array(features.text))


_ARRAYS = ("image", "text", "caption_owner")


def _write_parcel(parcel: Parcel, path: Path) -> None:
    """Write arrays and JSON: what reads a file must not be told by it what to run."""
    arrays: dict[str, Any] = {}
    words: dict[str, Any] = {"device": parcel.device}
    for name, features in (("clean", parcel.clean), ("noisy", parcel.noisy)):
        if features is not None:
            own = {field.name: getattr(features, field.name) for field in fields(features)}
            arrays |= {f"{name}.{key}": own.pop(key) for key in _ARRAYS}
            words[name] = own
    np.savez(path, words=np.array(json.dumps(words)), **arrays)


def _read_parcel(path: Path) -> Parcel:
    with np.load(path, allow_pickle=False) as read:
        words = json.loads(str(read["words"]))

        def features(name: str) -> Features | None:
            if name not in words:
                return None
            own = words[name]
            lists: dict[str, Any] = {key: tuple(own.pop(key)) for key in ("image_ids", "splits")}
            arrays: dict[str, Any] = {key: read[f"{name}.{key}"] for key in _ARRAYS}
            return Features(**own, **lists, **arrays)

        clean = features("clean")
        assert clean is not None  # it is always written
        return Parcel(clean, features("noisy"), words["device"])


def _error_of(future: "Future[Any]") -> BaseException | None:
    return CancelledError() if future.cancelled() else future.exception()


def _is_loss(error: BaseException) -> bool:
    return isinstance(error, BrokenExecutor | CancelledError) or _is_final(error)


def _is_final(error: BaseException) -> bool:
    # A scheduler has sent the work out again by itself, and gives up.
    distributed = sys.modules.get("distributed")
    return distributed is not None and isinstance(error, distributed.KilledWorker)
