"""A list of runs in, their records out: what is finished is looked up, the rest is trained."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from lib.datasets import load_corpus
from lib.encoders import Features, extract_features, resolve_device
from lib.models import DualEncoder
from lib.noise import training_features
from lib.runs import RunConfig, RunRecord, Store
from lib.training.data import TrainingData
from lib.training.distribute import Outcome, Parcel, TrainingError, spread
from lib.training.executors import opened, workers_of
from lib.training.schedules import Sources
from lib.training.stack import count_weights, fit_stack, train_stack
from lib.training.towers import Material, checkpoint_path, load_material, train_runs
from lib.utils.progress import Progress, say

Version = Literal["clean", "captions", "images"]
Source = tuple[str, str, str, str, Version, str]
"""Corpus, what to do with its bad samples, image tower, text tower, which noisy version, and what
of the towers is trained (empty: nothing)."""

STACK_SIZE = {"cpu": 64, "cuda": 128}
"""Runs that train together at most, by kind of device."""
STACK_WEIGHTS = 9 << 19
"""Weights that a stack has at most on a CPU, more than one run's at any rate: with their moments
they go through its cache at every step. The main comparison's runs train by eleven."""
STACK_MEMORY = {"cpu": 4 << 30, "cuda": 16 << 30}
"""Bytes that a stack's features, of batches and of a gallery, may take, by kind of device."""


class Loaded(NamedTuple):
    """A corpus as runs train on it: the features, of its noisy version too, and both as data."""

    clean: Features
    noisy: Features | None
    data: TrainingData


def train(
    configs: Sequence[RunConfig],
    *,
    store: Store | None = None,
    features: Features | None = None,
    corpus_root: str = "",
    device: str = "auto",
    executor: Executor | str | None = None,
) -> list[RunRecord]:
    """Return the records of runs, training those that the store does not hold.

    A finished run is kept at once: an interruption loses at most the runs in flight. Where a run
    is trained changes none of its numbers, on the same kind of hardware. Of two processes with one
    store, each run is trained by one. Runs that train their towers do so in this process, whatever
    the executor.

    Args:
        configs: The runs, in any order; equal ones are trained once.
        store: Where finished runs are; default, this machine's.
        features: Tower outputs to use instead of loading the configurations' corpus.
        corpus_root: Folder of a corpus on disk; empty, the usual places.
        device: ``"auto"`` takes a GPU where there is one.
        executor: Where to train: an executor, which stays open, or a name as
            :func:`lib.training.executors.opened` knows them; default, what ``$STUDY_EXECUTOR``
            names, else this process.

    Returns:
        One record a configuration, in the order given.

    Raises:
        ValueError: A configuration asks for more images than the split has, or the device, the
            executor or the corpus cannot be used; nothing is trained then.
        TrainingError: The loss of some runs stopped being finite, or they were lost with their
            workers again and again; the others are kept.
    """
    store = store or Store()
    records = {config: store.get(config) for config in dict.fromkeys(configs)}
    contents: dict[Source, set[str]] = {}
    for config, record in records.items():
        if record is not None:
            contents.setdefault(_source(config), set()).add(record.corpus_fingerprint)
    # Records that tell of different contents of one corpus need a look at what it holds now.
    missing = [
        config
        for config, record in records.items()
        if record is None or len(contents[_source(config)]) > 1
    ]
    if not missing:
        return _in_order(configs, records)
    outdated = sum(store.outdated(config) for config in missing)
    if outdated:
        say(f"{outdated} finished runs were made by code that gave other numbers: trained again")
    diverged: list[str] = []
    lost: list[str] = []

    def keep(record: RunRecord) -> None:
        store.put(record)
        if record.collapsed:
            say(f"{record.config.method}, seed {record.config.seed}: the model has collapsed")
        records[record.config] = record

    # Everything that can be refused is refused before the first run starts.
    options: dict[str, Any] = {"features": features, "corpus_root": corpus_root, "device": device}
    for source, loaded in _load(missing, **options).items():
        # A record of other corpus content must not be compared with what is trained now.
        fingerprint = loaded.data.corpus_fingerprint
        due = [
            config
            for config, record in records.items()
            if _source(config) == source
            and (record is None or record.corpus_fingerprint != fingerprint)
        ]
        stale = sum(records[config] is not None for config in due)
        if stale:
            say(f"{stale} finished runs are of other content of {source[0]}: trained again")
        with _telling_how_to_go_on(), opened(executor) as chosen:
            replayed = _replayed(due, store=store, executor=chosen or "serial", **options)

            def finished_elsewhere(config: RunConfig, fingerprint: str = fingerprint) -> bool:
                record = store.get(config)
                if record is None or record.corpus_fingerprint != fingerprint:
                    return False
                records[config] = record
                return True

            if isinstance(loaded, Material):
                for mine in _shared([due], store, finished_elsewhere):
                    diverged += train_runs(mine, loaded, replayed, keep)
                continue
            with Progress(f"training on {source[0]}", total=len(due)) as progress:
                stacks = [due] if chosen else list(_stacks(due, loaded.data))
                for mine in _shared(stacks, store, finished_elsewhere):
                    for outcome in _outcomes(mine, loaded, replayed, chosen, device):
                        for finished in outcome.records:
                            keep(finished)
                        diverged += outcome.diverged
                        lost += [
                            f"{c.method}, seed {c.seed}" for c in outcome.stack if outcome.lost
                        ]
                        progress.advance(len(outcome.stack), note=_best(records.values()))
    if diverged:
        raise TrainingError(
            f"{len(diverged)} of {len(configs)} runs diverged and are not kept: "
            + "; ".join(diverged)
            + ". Lower the learning rate or raise the temperature."
        )
    if lost:
        raise TrainingError(
            f"{len(lost)} of {len(configs)} runs went down with their workers every time they were "
            f"tried: {'; '.join(lost)}. The others are kept. A worker that is killed most often "
            "lacks memory: use fewer on a machine."
        )
    return _in_order(configs, records)


def _in_order(
    configs: Sequence[RunConfig], records: Mapping[RunConfig, RunRecord | None]
) -> list[RunRecord]:
    """Return the records of configurations, all of which have one by now.

    What a process that was killed has left of them beside their records is removed.
    """
    found = [record for config in configs if (record := records[config]) is not None]
    for record in found:
        if record.config.towers:
            checkpoint_path(record.config).unlink(missing_ok=True)
    return found


@contextmanager
def _telling_how_to_go_on() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        say("interrupted: finished runs are kept, and the same call goes on from there")
        raise


def _shared(
    stacks: Sequence[Sequence[RunConfig]],
    store: Store,
    finished_elsewhere: Callable[[RunConfig], bool],
) -> Iterator[list[RunConfig]]:
    """Yield the runs to train, so that of several processes with one store each run has one.

    What another process is training is left to it, and trained here only if it is gone without a
    record: killed, or because the run diverged there.

    Args:
        stacks: Runs, in the portions in which they are to be held.
        store: The store that the processes share.
        finished_elsewhere: Whether a run has a record by now, which is then taken over.
    """
    waiting = [list(stack) for stack in stacks]
    told = False
    while waiting:
        others: list[list[RunConfig]] = []
        for stack in waiting:
            with store.leases.take([config.run_id for config in stack]) as taken:
                own = [config for config in stack if config.run_id in taken]
                mine = [config for config in own if not finished_elsewhere(config)]
                if mine:
                    yield mine
            others.append([config for config in stack if config.run_id not in taken])
        waiting = [rest for rest in others if rest]
        if waiting:
            if not told:
                count = sum(map(len, waiting))
                say(f"{count} runs are being trained by another process: waiting for them")
                told = True
            store.leases.wait(config.run_id for stack in waiting for config in stack)


def _outcomes(
    configs: Sequence[RunConfig],
    loaded: Loaded,
    replayed: Sources,
    executor: Executor | None,
    device: str,
) -> Iterator[Outcome]:
    """Train runs here or on an executor; yield what became of each stack as it ends."""
    if executor is None:
        for stack in _stacks(configs, loaded.data):
            yield Outcome(stack, *train_stack(stack, loaded.data, replayed))
    elif configs:
        stacks = list(_stacks(configs, loaded.data, workers_of(executor)))
        parcel = Parcel(loaded.clean, loaded.noisy, device)
        yield from spread(executor, parcel, stacks, replayed)


def trained(
    configs: Sequence[RunConfig],
    *,
    store: Store | None = None,
    features: Features | None = None,
    corpus_root: str = "",
    device: str = "auto",
) -> Iterator[tuple[RunConfig, DualEncoder, TrainingData]]:
    """Train runs again and yield each one's heads, of which the store keeps the numbers alone.

    Training is deterministic, so that they are the heads whose numbers the record holds. For what
    needs embeddings; what is measured on them belongs in a table of the store.

    Args:
        configs: The runs; equal ones come once.
        store: Where the runs are that others replay.
        features: As for :func:`train`.
        corpus_root: As for :func:`train`.
        device: As for :func:`train`.

    Yields:
        A configuration, its heads at the epoch that validation chose, and the data.

    Raises:
        ValueError: As :func:`train`, or a run's towers are trained with its heads.
        TrainingError: A run's loss stopped being finite.
    """
    if any(config.towers for config in configs):
        raise ValueError("towers that are trained are not kept, so there are no heads over them")
    options: dict[str, Any] = {"features": features, "corpus_root": corpus_root, "device": device}
    replayed = _replayed(configs, store=store or Store(), **options)
    distinct = list(dict.fromkeys(configs))
    for source, loaded in _load(distinct, **options).items():
        data = loaded.data
        due = [config for config in distinct if _source(config) == source]
        with Progress(f"training again on {source[0]}", total=len(due)) as progress:
            for stack in _stacks(due, data):
                fitted = fit_stack(stack, data, replayed)
                if fitted.lost:
                    raise TrainingError("; ".join(fitted.lost))
                for run, config in enumerate(stack):
                    yield config, fitted.model.take(run).requires_grad_(False), data
                progress.advance(len(stack))


def _replayed(
    configs: Sequence[RunConfig], *, store: Store, **options: Any
) -> dict[RunConfig, RunRecord]:
    """Return the finished runs whose schedules some configurations replay."""
    needed = list(dict.fromkeys(config.source for config in configs if config.source))
    return dict(zip(needed, train(needed, store=store, **options), strict=True)) if needed else {}


def _load(
    configs: Sequence[RunConfig], *, features: Features | None, corpus_root: str, device: str
) -> "dict[Source, Loaded | Material]":
    """Load what configurations train on, and refuse those that it is too small for."""
    chosen = resolve_device(device)
    loaded: dict[Source, Loaded | Material] = {}
    for source in sorted({_source(config) for config in configs}):
        name, on_bad_sample, image_tower, text_tower, version, towers = source
        if towers:
            corpus = load_corpus(name, root=corpus_root, on_bad_sample=on_bad_sample)
            loaded[source] = load_material(corpus, towers, image_tower, text_tower, chosen)
            continue
        clean = features or load_features(*source[:4], corpus_root=corpus_root, device=device)
        noisy = None
        if version != "clean":
            corpus = load_corpus(name, root=corpus_root, on_bad_sample=on_bad_sample)
            noisy = training_features(corpus, version, image_tower, text_tower, device)
        loaded[source] = Loaded(clean, noisy, TrainingData.of(clean, chosen, noisy))
    for config in configs:
        _check_size(config, loaded[_source(config)].data)
    return loaded


def load_features(
    corpus: str,
    on_bad_sample: str,
    image_tower: str,
    text_tower: str,
    *,
    corpus_root: str = "",
    device: str = "auto",
) -> Features:
    """Load a corpus by name, check it, and return its tower features from the cache."""
    loaded = load_corpus(corpus, root=corpus_root, on_bad_sample=on_bad_sample)
    return extract_features(loaded, image_tower, text_tower, device)


def _source(config: RunConfig) -> Source:
    noise = config.noise
    # Mismatched pairs are drawn from clean features.
    version: Version = "clean" if noise is None or noise.kind == "mismatched" else noise.kind
    towers = config.towers.trained if config.towers else ""
    names = config.image_tower, config.text_tower
    return config.corpus, config.on_bad_sample, *names, version, towers


def _best(records: Iterable[RunRecord | None]) -> str:
    best = max((r.validation_rsum for r in records if r is not None), default=0.0)
    return f"best validation rSum {best:.1f}"


def _check_size(config: RunConfig, data: TrainingData) -> None:
    available = len(data.train_rows)
    if config.train_images > available:
        raise ValueError(
            f"train_images = {config.train_images}, but the train split of {config.corpus} has "
            f"{available} images with a caption; ask for at most that many"
        )


def _stacks(
    configs: Sequence[RunConfig], data: TrainingData, workers: int = 1
) -> Iterator[list[RunConfig]]:
    """Yield lists of runs that differ in seed, temperature, schedule, loss and noise alone, of one
    length or nearly, so that every worker has as much to do."""
    groups: dict[RunConfig, list[RunConfig]] = {}
    neutral = {
        "seed": 0,
        "temperature": 1.0,
        "learn_temperature": False,
        "schedule": None,
        "loss": "info_nce",
        "loss_constant": None,
        "learn_bias": False,
        "noise": None,
    }
    for config in configs:
        groups.setdefault(config.model_copy(update=neutral), []).append(config)
    kind = "cuda" if data.device.type == "cuda" else "cpu"
    galleries = (data.validation, data.test)
    examined = max(g.image.numel() + g.text.numel() for g in galleries)
    for shape, members in groups.items():
        pairs = shape.batch_size * shape.captions_at_once
        per_run = 4 * (2 * examined + 6 * pairs * data.image.shape[1])
        most = min(STACK_SIZE[kind], STACK_MEMORY[kind] // per_run)
        if kind == "cpu":
            weights = count_weights(shape, (data.image.shape[1], data.text.shape[1]))
            most = min(most, STACK_WEIGHTS // weights)
        rounds = math.ceil(len(members) / (workers * max(1, most)))
        size = math.ceil(len(members) / (workers * rounds))
        for start in range(0, len(members), size):
            yield members[start : start + size]
