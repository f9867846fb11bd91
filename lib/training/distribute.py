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
from typing import Any

import numpy as np

from lib.encoders import Features, resolve_device
from lib.runs import RunConfig
from lib.training.data import TrainingData
from lib.training.executors import workers_of
from lib.training.history import StackResult
from lib.training.schedules import Replayed
from lib.training.stack import train_stack
from lib.utils.files import home
from lib.utils.version import code_version

RESUBMISSIONS = 2
"""How often a stack that was lost with its worker is submitted again."""


class TrainingError(RuntimeError):
    """A run did not end in numbers that may be published."""


@dataclass(frozen=True)
class Payload:
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


def distribute(
    executor: Executor, payload: Payload, stacks: Sequence[list[RunConfig]], replayed: Replayed
) -> Iterator[StackResult]:
    """Train stacks on an executor and yield the result of each, as they end.

    Stacks that are lost with a worker are submitted again, at most :data:`RESUBMISSIONS` times.
    When the caller stops iterating or is interrupted, stacks that have not begun are cancelled.

    Args:
        executor: Any; its workers must have this very package.
        payload: The data, sent once: through :class:`lib.training.executors.Cluster` to every
            worker, else as a file, which the workers must see.
        stacks: Runs that train together.
        replayed: Finished runs that others replay; only those that a stack needs go with it.
    """
    waiting = [(stack, 0) for stack in reversed(stacks)]
    submitted: dict[Future[Any], tuple[list[RunConfig], int]] = {}
    with _sent(executor, payload) as send:
        place = send()
        try:
            while waiting or submitted:
                # Few are submitted at a time: only those can be lost with a worker. A stack lost
                # once is submitted alone, so that it cannot take others down with it.
                while waiting and len(submitted) < 2 * workers_of(executor):
                    suspects = waiting[-1][1] + sum(losses for _, losses in submitted.values())
                    if suspects and submitted:
                        break
                    stack, losses = waiting.pop()
                    needed = {c.source: replayed[c.source] for c in stack if c.source}
                    submitted[_submit(executor, place, stack, needed)] = stack, losses
                done, _ = wait(submitted, return_when=FIRST_COMPLETED)
                down = False
                for future in done:
                    stack, losses = submitted.pop(future)
                    error = _error_of(future)
                    if error is None:
                        yield future.result()
                    elif not _is_loss(error):
                        raise error
                    elif losses < RESUBMISSIONS and not _is_final(error):
                        down = True
                        waiting.append((stack, losses + 1))
                    else:
                        yield StackResult(stack, [], [], lost=True)
                if down:
                    # The last worker that had the data may be gone.
                    place = send()
        finally:
            for future in submitted:
                future.cancel()


def train_elsewhere(
    payload: Payload | Path, stack: Sequence[RunConfig], replayed: Replayed, code: str
) -> StackResult:
    """Train a stack in this worker, as :func:`lib.training.stack.train_stack` does.

    Raises:
        TrainingError: The worker has other code than who sends the work, or can't read the data.
    """
    if code != code_version():
        raise TrainingError(
            f"the worker {platform.node()} has version {code_version()} of the package, and the "
            f"sweep comes from {code}: install the same there, and start the worker again"
        )
    if isinstance(payload, Path):
        try:
            payload = read_payload(payload)
        except OSError as error:
            raise TrainingError(
                f"the worker {platform.node()} does not see {payload}: let the machines share "
                "$STUDY_HOME, or pass lib.training.executors.Cluster, which sends the data"
            ) from error
    return train_stack(stack, payload.unpack(), replayed)


def _submit(
    executor: Executor, place: Any, stack: list[RunConfig], needed: Replayed
) -> "Future[Any]":
    try:
        return executor.submit(train_elsewhere, place, stack, needed, code_version())
    except BrokenExecutor as error:
        # It broke a moment ago, and nobody has asked for its results since.
        broken: Future[Any] = Future()
        broken.set_exception(error)
        return broken


@contextmanager
def _sent(executor: Executor, payload: Payload) -> Iterator[Any]:
    """Yield a function that makes the data reachable and returns what stands for them."""
    plain = replace(payload, clean=_plain(payload.clean))
    if hasattr(executor, "send"):
        yield lambda: executor.send(plain)
        return
    home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sweep-", dir=home()) as folder:
        path = Path(folder) / "features.npz"
        write_payload(plain, path)
        yield lambda: path


def _plain(features: Features) -> Features:
    # A mapped file is sent as the whole array, and read back as something that maps none.
    return replace(features, image=np.array(features.image), text=np.array(features.text))


_ARRAYS = ("image", "text", "caption_owner")


def write_payload(payload: Payload, path: Path) -> None:
    """Write arrays and JSON: what reads a file must not be told by it what to run."""
    arrays: dict[str, Any] = {}
    words: dict[str, Any] = {"device": payload.device}
    for name, features in (("clean", payload.clean), ("noisy", payload.noisy)):
        if features is not None:
            own = {field.name: getattr(features, field.name) for field in fields(features)}
            arrays |= {f"{name}.{key}": own.pop(key) for key in _ARRAYS}
            words[name] = own
    np.savez(path, words=np.array(json.dumps(words)), **arrays)


def read_payload(path: Path) -> Payload:
    """Read what :func:`write_payload` wrote."""
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
        return Payload(clean, features("noisy"), words["device"])


def _error_of(future: "Future[Any]") -> BaseException | None:
    return CancelledError() if future.cancelled() else future.exception()


def _is_loss(error: BaseException) -> bool:
    return isinstance(error, BrokenExecutor | CancelledError) or _is_final(error)


def _is_final(error: BaseException) -> bool:
    # A scheduler has sent the work out again by itself, and gives up.
    distributed = sys.modules.get("distributed")
    return distributed is not None and isinstance(error, distributed.KilledWorker)
