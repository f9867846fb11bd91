"""Train stacks of runs on an executor; submit a stack again if its worker is lost."""

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
"""How often a stack is submitted again after its worker was lost."""


class TrainingError(RuntimeError):
    """A run diverged, or was lost with its worker."""


@dataclass(frozen=True)
class Payload:
    """What a worker needs besides the runs.

    Attributes:
        clean, noisy: The corpus's features, and those of its noisy version if runs train on one.
        device: Where to train; ``"auto"`` is resolved by the worker.
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
    """Train stacks on an executor and yield the result of each as it ends.

    Stacks that are lost with a worker are submitted again, at most :data:`RESUBMISSIONS` times.
    When the caller stops iterating or is interrupted, stacks that have not begun are cancelled.

    Args:
        executor: Any executor whose workers have the same version of this package.
        payload: The data, sent once: to every worker by :class:`lib.training.executors.Cluster`,
            otherwise as a file that the workers must be able to read.
        stacks: Runs that train together.
        replayed: Finished runs that others replay; a stack is sent with those that it needs.
    """
    waiting = [(stack, 0) for stack in reversed(stacks)]
    submitted: dict[Future[Any], tuple[list[RunConfig], int]] = {}
    with _sent(executor, payload) as send:
        handle = send()
        try:
            while waiting or submitted:
                # Few are submitted at a time, so that few can be lost with a worker. A stack lost
                # once is submitted alone, so that it cannot take others down with it.
                while waiting and len(submitted) < 2 * workers_of(executor):
                    suspects = waiting[-1][1] + sum(losses for _, losses in submitted.values())
                    if suspects and submitted:
                        break
                    stack, losses = waiting.pop()
                    needed = {c.source: replayed[c.source] for c in stack if c.source}
                    future = _submit(executor, handle, stack, needed, code_version())
                    submitted[future] = stack, losses
                done, _ = wait(submitted, return_when=FIRST_COMPLETED)
                down = False
                for future in done:
                    stack, losses = submitted.pop(future)
                    error = CancelledError() if future.cancelled() else future.exception()
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
                    handle = send()
        finally:
            for future in submitted:
                future.cancel()


def train_elsewhere(
    payload: Payload | Path, stack: Sequence[RunConfig], replayed: Replayed, code: str
) -> StackResult:
    """Train a stack in this worker, as :func:`lib.training.stack.train_stack` does.

    Raises:
        TrainingError: The worker has another version of the package, or can't read the data.
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


def _submit(executor: Executor, *arguments: Any) -> "Future[Any]":
    try:
        return executor.submit(train_elsewhere, *arguments)
    except BrokenExecutor as error:
        # The executor broke after its last result was read.
        broken: Future[Any] = Future()
        broken.set_exception(error)
        return broken


@contextmanager
def _sent(executor: Executor, payload: Payload) -> Iterator[Any]:
    """Yield a function that makes the data available to workers and returns a handle for them."""
    # A memory-mapped array would be read back as an object that maps no file.
    clean = payload.clean
    clean = replace(clean, image=np.array(clean.image), text=np.array(clean.text))
    plain = replace(payload, clean=clean)
    if hasattr(executor, "send"):
        yield lambda: executor.send(plain)
        return
    home().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="sweep-", dir=home()) as folder:
        path = Path(folder) / "features.npz"
        write_payload(plain, path)
        yield lambda: path


_ARRAYS = ("image", "text", "caption_owner")


def write_payload(payload: Payload, path: Path) -> None:
    """Write a payload as arrays and JSON, so that reading the file cannot run code."""
    arrays: dict[str, Any] = {}
    texts: dict[str, Any] = {"device": payload.device}
    for name in ("clean", "noisy"):
        if (features := getattr(payload, name)) is not None:
            values = {field.name: getattr(features, field.name) for field in fields(features)}
            arrays |= {f"{name}.{key}": values.pop(key) for key in _ARRAYS}
            texts[name] = values
    np.savez(path, texts=np.array(json.dumps(texts)), **arrays)


def read_payload(path: Path) -> Payload:
    """Read what :func:`write_payload` wrote."""
    with np.load(path, allow_pickle=False) as read:
        texts = json.loads(str(read["texts"]))
        payload: dict[str, Any] = {"device": texts.pop("device"), "noisy": None}
        for name, values in texts.items():
            values |= {key: tuple(values[key]) for key in ("image_ids", "splits")}
            payload[name] = Features(**values, **{key: read[f"{name}.{key}"] for key in _ARRAYS})
        return Payload(**payload)


def _is_loss(error: BaseException) -> bool:
    return isinstance(error, BrokenExecutor | CancelledError) or _is_final(error)


def _is_final(error: BaseException) -> bool:
    # The scheduler has already tried the work again by itself, and gives up.
    distributed = sys.modules.get("distributed")
    return distributed is not None and isinstance(error, distributed.KilledWorker)
