"""Runs with trained towers on a machine: one a core on a CPU, one after the other on a GPU."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import torch

from lib.metrics import collapsed
from lib.runs import TEST_COLUMNS, RunConfig, RunRecord
from lib.training.schedules import Sources
from lib.training.stack import circumstances, not_finite
from lib.training.towers.inputs import Material
from lib.training.towers.run import Run, epochs_of
from lib.utils.files import home
from lib.utils.progress import Progress


def train_runs(
    configs: Sequence[RunConfig],
    material: Material,
    sources: Sources,
    keep: Callable[[RunRecord], None],
) -> list[str]:
    """Train runs and hand each record on as soon as it is there.

    On a CPU as many runs train at a time as torch has threads, each with one of its own: so the
    numbers don't depend on how many there are. Each is kept about every minute under the study's
    home, and an interrupted one goes on from there.

    Args:
        configs: Runs of one source.
        material: Of that source.
        sources: Finished runs that others replay.
        keep: What is done with a record; never called twice at a time.

    Returns:
        What happened to the runs whose numbers stopped being finite.
    """
    threads, deterministic = torch.get_num_threads(), torch.backends.cudnn.deterministic
    workers = threads if material.data.device.type == "cpu" else 1
    stopped = threading.Event()
    lost = []
    torch.backends.cudnn.deterministic = True
    total = sum(config.epochs for config in configs)
    with Progress(f"training towers, {len(configs)} runs, epochs", total=total) as progress:

        def one(config: RunConfig) -> tuple[RunConfig, RunRecord | str]:
            torch.set_num_threads(1)
            return config, _train_run(config, material, sources, stopped, progress)

        pool = ThreadPoolExecutor(workers, thread_name_prefix="run")
        try:
            for done in as_completed([pool.submit(one, config) for config in configs]):
                config, outcome = done.result()
                if isinstance(outcome, str):
                    lost.append(outcome)
                else:
                    keep(outcome)
                checkpoint_path(config).unlink(missing_ok=True)
        finally:
            stopped.set()
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
            torch.backends.cudnn.deterministic = deterministic
    return lost


def checkpoint_path(config: RunConfig) -> Path:
    """Return where an unfinished run is kept."""
    return home() / "checkpoints" / f"{config.run_id}.pt"


def _train_run(
    config: RunConfig,
    material: Material,
    sources: Sources,
    stopped: threading.Event,
    progress: Progress,
) -> RunRecord | str:
    begun = time.perf_counter()
    run, done = Run(config, material, sources), 0
    for epoch in epochs_of(run, checkpoint_path(config), stopped):
        note = f"{config.method}, seed {config.seed}: validation rSum {run.best_rsum:.1f}"
        progress.advance(epoch - done, note=note)
        done = epoch
    if run.lost:
        return run.lost
    test, embedded = run.test()
    if not all(bool(part.isfinite().all()) for part in embedded):
        return not_finite(config, "embeddings of the test split")
    return RunRecord(
        config=config,
        corpus_fingerprint=material.data.corpus_fingerprint,
        best_epoch=run.best_epoch,
        test=dict(zip(TEST_COLUMNS, test.tolist(), strict=True)),
        epochs=torch.stack(run.epochs).numpy(),
        steps=torch.cat(run.steps).float().numpy(),
        collapsed=any(collapsed(part) for part in embedded),
        seconds=time.perf_counter() - begun,
        made=circumstances(material.data.device),
    )
