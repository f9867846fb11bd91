"""Train runs with trained towers: one per core of a CPU, one after the other on a GPU."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch

from lib.runs import RunConfig
from lib.training.history import StackResult
from lib.training.schedules import Replayed
from lib.training.towers.inputs import TowerInputs
from lib.training.towers.run import Run, epochs_of
from lib.utils.files import home
from lib.utils.progress import Progress


def train_runs(
    configs: Sequence[RunConfig],
    inputs: TowerInputs,
    replayed: Replayed,
    keep: Callable[[StackResult], None],
) -> None:
    """Train runs and pass each result to ``keep`` at once.

    On a CPU as many runs train at a time as torch has threads, each on one thread, so that the
    numbers do not depend on the number of threads. A checkpoint of each run is written about every
    minute under the study's home; an interrupted run continues from there.

    Args:
        configs: Runs that train on the same inputs.
        inputs: What the runs train on.
        replayed: Finished runs whose schedules others replay.
        keep: Called with the result of each run, one at a time.
    """
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    workers = threads if inputs.data.device.type == "cpu" else 1
    stopped = threading.Event()
    torch.backends.cudnn.deterministic = True
    total = sum(config.epochs for config in configs)
    with Progress(f"training towers, {len(configs)} runs, epochs", total=total) as progress:

        def one(config: RunConfig) -> StackResult:
            torch.set_num_threads(1)
            return _train_run(config, inputs, replayed, stopped, progress)

        pool = ThreadPoolExecutor(workers, thread_name_prefix="run")
        try:
            for done in as_completed([pool.submit(one, config) for config in configs]):
                result = done.result()
                keep(result)
                checkpoint_path(result.configs[0]).unlink(missing_ok=True)
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
            torch.backends.cudnn.deterministic = deterministic


def checkpoint_path(config: RunConfig) -> Path:
    """Return the path of an unfinished run's checkpoint."""
    return home() / "checkpoints" / f"{config.run_id}.pt"


def _train_run(
    config: RunConfig,
    inputs: TowerInputs,
    replayed: Replayed,
    stopped: threading.Event,
    progress: Progress,
) -> StackResult:
    begun = time.perf_counter()
    run, done = Run(config, inputs, replayed), 0
    for epoch in epochs_of(run, checkpoint_path(config), stopped):
        best = f"validation rSum {float(run.history.best_rsum):.1f}"
        progress.advance(epoch - done, note=f"{config.method}, seed {config.seed}: {best}")
        done = epoch
    if run.history.failures:
        return StackResult([config], [], run.history.failures)
    return run.history.result(run.test(), inputs.data, begun)
