"""Return the records of runs: look up the finished ones, and train the others."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from lib.datasets import is_named, load_corpus
from lib.encoders import Features, extract_features, resolve_device
from lib.models import DualEncoder
from lib.noise import training_features
from lib.runs import RunConfig, RunRecord, Store
from lib.runs.plan import note_runs, stop
from lib.training.data import TrainingData
from lib.training.distribute import Payload, TrainingError, distribute
from lib.training.executors import open_executor, workers_of
from lib.training.history import StackResult
from lib.training.schedules import Replayed
from lib.training.stack import count_weights, fit_stack, train_stack
from lib.training.towers import TowerInputs, checkpoint_path, load_inputs, train_runs
from lib.utils.files import explain, require_writable
from lib.utils.progress import Progress, say
from lib.utils.version import PLAN_VARIABLE

STACK_SIZE = {"cpu": 64, "cuda": 128}
"""Most runs per stack, by kind of device."""
STACK_WEIGHTS = 9 << 19
"""Most weights per CPU stack (one larger run is still allowed), so that weights and Adam's moments
fit the cache. The main comparison trains 11 runs per stack."""
STACK_MEMORY = {"cpu": 4 << 30, "cuda": 16 << 30}
"""Most bytes for a stack's features, of batches and of a gallery, by kind of device."""


class DataKey(NamedTuple):
    """What runs must have in common to train on the same inputs.

    Attributes:
        corpus, on_bad_sample, image_tower, text_tower: As in :class:`lib.runs.RunConfig`.
        noisy: Kind of noise that replaces features, or "".
        trained: As in :class:`lib.runs.TowersConfig`, or "" for frozen towers.
    """

    corpus: str
    on_bad_sample: str
    image_tower: str
    text_tower: str
    noisy: str
    trained: str


@dataclass(frozen=True)
class FeatureInputs:
    """Features, those of the noisy version if there is one, and both as data on the device."""

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

    If features or a corpus's folder are named, the latter perhaps by a variable of the
    environment, their content decides: finished runs of other content are trained again. Otherwise
    finished runs are taken without a look at the corpus.

    Finished runs are stored at once, so an interruption loses only the runs in progress. On the
    same kind of hardware the executor changes no number. Processes that share a store train each
    run once. Runs whose towers are trained always train in this process.

    Args:
        configs: The runs, in any order; duplicates are trained once.
        store: Where finished runs are kept; default, this machine's store.
        features: Tower outputs to use instead of loading the configurations' corpus.
        corpus_root: Folder of a corpus on disk; empty for the usual places.
        device: ``"auto"`` takes a GPU if there is one.
        executor: As for :func:`lib.training.executors.open_executor`.

    Returns:
        One record per configuration, in the order given.

    Raises:
        ValueError: A configuration asks for more images than the split has, or the device, the
            executor or the corpus cannot be used; nothing is trained then.
        TrainingError: Records cannot be kept, and nothing is trained; or some runs diverged, or
            were lost with their workers each time they were tried, and the others are kept.
    """
    store = store or Store()
    runs = _RequestedRuns(configs, store)
    if plan := os.environ.get(PLAN_VARIABLE):
        due = [config for config, record in runs.records.items() if record is None]
        replayed = _RequestedRuns([c.source for c in due if c.source], store).records
        planned = note_runs(Path(plan), {**replayed, **runs.records})
        return [planned[config] for config in configs]

    @cache
    def content(corpus: str, on_bad_sample: str) -> str:
        if features is not None:
            return features.corpus_fingerprint
        return load_corpus(corpus, root=corpus_root, on_bad_sample=on_bad_sample).fingerprint

    def named(key: DataKey) -> str | None:
        if features is None and not is_named(key.corpus, corpus_root):
            return None
        return content(key.corpus, key.on_bad_sample)

    if unsettled := runs.unsettled(named):
        # Refuses bad input before the first run starts.
        loaded = _load(unsettled, features=features, corpus_root=corpus_root, device=device)
        try:
            with open_executor(executor) as chosen:
                for key, inputs in loaded.items():
                    due = runs.due(key, inputs.data.corpus_fingerprint)
                    sources = _RequestedRuns([c.source for c in due if c.source], store)
                    sources_due = sources.due(key, inputs.data.corpus_fingerprint)
                    _train_due(sources, sources_due, inputs, {}, chosen, device)
                    _train_due(runs, due, inputs, sources.finished(), chosen, device)
        except KeyboardInterrupt:
            say("interrupted: finished runs are kept, and the same call goes on from there")
            raise
    finished = runs.finished()
    return [finished[config] for config in configs]


class _RequestedRuns:
    """The runs that a caller asks for: their records so far, and those that failed."""

    def __init__(self, configs: Sequence[RunConfig], store: Store) -> None:
        self.store = store
        self._requested = len(configs)
        self._records = {config: store.get(config) for config in dict.fromkeys(configs)}
        self._diverged: list[str] = []
        self._lost: list[str] = []

    @property
    def records(self) -> Mapping[RunConfig, RunRecord | None]:
        """The distinct runs, with their records so far."""
        return self._records

    def unsettled(self, named: Callable[[DataKey], str | None]) -> list[RunConfig]:
        """Return the runs without a record, and those whose records are of other content than that
        of their named corpus, or of different contents of the same corpus: only the corpus itself
        shows which content is the present one.

        Args:
            named: Returns the fingerprint of the content that is named, or None.
        """
        contents: dict[DataKey, set[str]] = {}
        for config, record in self._records.items():
            if record is None:
                continue
            key = _data_key(config)
            if fingerprint := named(key):
                record = self._prefer(config, record, fingerprint)
            found = {record.corpus_fingerprint, fingerprint or record.corpus_fingerprint}
            contents.setdefault(key, set()).update(found)
        return [
            config
            for config, record in self._records.items()
            if record is None or len(contents[_data_key(config)]) > 1
        ]

    def due(self, key: DataKey, fingerprint: str) -> list[RunConfig]:
        """Return the runs with this key and no record of this corpus content."""
        for config, record in self._records.items():
            if _data_key(config) == key and record is not None:
                self._prefer(config, record, fingerprint)
        due = [
            config
            for config, record in self._records.items()
            if _data_key(config) == key
            and (record is None or record.corpus_fingerprint != fingerprint)
        ]
        if stale := sum(self._records[config] is not None for config in due):
            say(f"{stale} finished runs are of other content of {key.corpus}: trained again")
        if outdated := sum(self.store.outdated(config) for config in due):
            say(
                f"{outdated} finished runs were made by code that gave other numbers: trained again"
            )
        return due

    def _prefer(self, config: RunConfig, record: RunRecord, fingerprint: str) -> RunRecord:
        """Return and take the run's record of a content, if there is one; else keep ``record``."""
        if record.corpus_fingerprint != fingerprint:
            # The published record may be of other content than this machine's.
            record = self.store.get(config, fingerprint) or record
            self._records[config] = record
        return record

    def leased(
        self, stacks: Iterable[Sequence[RunConfig]], fingerprint: str
    ) -> Iterator[list[RunConfig]]:
        """Yield the runs to train here, so that processes with the same store train each run once.

        A run that another process trains is trained here only if that process ends without a record
        of it: if it was killed, or if the run diverged there.

        Args:
            stacks: Runs, in the portions in which they are leased.
            fingerprint: Of the corpus content that the runs train on.
        """
        waiting, announced = [list(stack) for stack in stacks], False
        while waiting:
            others: list[list[RunConfig]] = []
            for stack in waiting:
                with self.store.leases.take([config.run_id for config in stack]) as taken:
                    leased = [config for config in stack if config.run_id in taken]
                    due = [one for one in leased if not self._finished_elsewhere(one, fingerprint)]
                    if due:
                        yield due
                others.append([config for config in stack if config.run_id not in taken])
            waiting = [rest for rest in others if rest]
            if waiting and not announced:
                count = sum(map(len, waiting))
                say(f"{count} runs are being trained by another process: waiting for them")
                announced = True
            if waiting:
                self.store.leases.wait(config.run_id for stack in waiting for config in stack)

    def _finished_elsewhere(self, config: RunConfig, fingerprint: str) -> bool:
        """Whether another process has finished the run; if so, take its record."""
        record = self.store.get(config, fingerprint)
        if record is None:
            return False
        self._records[config] = record
        return True

    def add(self, result: StackResult) -> None:
        """Store the records of a stack, and remember the runs that failed."""
        for record in result.records:
            self.store.put(record)
            if record.collapsed:
                say(f"{record.config.method}, seed {record.config.seed}: the model has collapsed")
            self._records[record.config] = record
        self._diverged += result.failures
        if result.lost:
            self._lost += [f"{config.method}, seed {config.seed}" for config in result.configs]

    def best(self) -> str:
        """Return a note of the best validation rSum so far."""
        best = max((r.validation_rsum for r in self._records.values() if r), default=0.0)
        return f"best validation rSum {best:.1f}"

    def finished(self) -> dict[RunConfig, RunRecord]:
        """Return the record of every run, and remove checkpoints that killed processes left.

        Raises:
            TrainingError: Some runs diverged or were lost.
        """
        if self._diverged:
            raise TrainingError(
                f"{len(self._diverged)} of {self._requested} runs diverged and are not kept: "
                + "; ".join(self._diverged)
                + ". Lower the learning rate or raise the temperature."
            )
        if self._lost:
            raise TrainingError(
                f"{len(self._lost)} of {self._requested} runs went down with their workers every "
                f"time they were tried: {'; '.join(self._lost)}. The others are kept. A worker "
                "that is killed most often lacks memory: use fewer on a machine."
            )
        for config in self._records:
            if config.towers:
                checkpoint_path(config).unlink(missing_ok=True)
        return {config: record for config, record in self._records.items() if record}


def _train_due(
    runs: _RequestedRuns,
    due: Sequence[RunConfig],
    inputs: FeatureInputs | TowerInputs,
    replayed: Replayed,
    executor: Executor | None,
    device: str,
) -> None:
    """Train runs on the same inputs, except those that another process finishes meanwhile."""
    if not due:
        return
    try:
        require_writable(runs.store.folder)
    except OSError as error:
        raise TrainingError(
            f"{len(due)} runs are to be trained, and their records cannot be kept: "
            f"{explain(error)}. Set STUDY_HOME to a folder that can be written"
        ) from error
    fingerprint = inputs.data.corpus_fingerprint
    if isinstance(inputs, TowerInputs):
        for leased in runs.leased([due], fingerprint):
            train_runs(leased, inputs, replayed, runs.add)
    else:
        stacks = [due] if executor else _stacks(due, inputs.data)
        with Progress(f"training on {due[0].corpus}", total=len(due)) as progress:
            for leased in runs.leased(stacks, fingerprint):
                for result in _train_stacks(leased, inputs, replayed, executor, device):
                    runs.add(result)
                    progress.advance(len(result.configs), note=runs.best())


def _train_stacks(
    configs: Sequence[RunConfig],
    inputs: FeatureInputs,
    replayed: Replayed,
    executor: Executor | None,
    device: str,
) -> Iterator[StackResult]:
    """Train runs here or on an executor, and yield the result of each stack as it ends."""
    if executor is None:
        for stack in _stacks(configs, inputs.data):
            yield train_stack(stack, inputs.data, replayed)
    else:
        stacks = list(_stacks(configs, inputs.data, workers_of(executor)))
        payload = Payload(inputs.clean, inputs.noisy, device)
        yield from distribute(executor, payload, stacks, replayed)


def retrain(
    configs: Sequence[RunConfig],
    *,
    store: Store | None = None,
    features: Features | None = None,
    corpus_root: str = "",
    device: str = "auto",
) -> Iterator[tuple[RunConfig, DualEncoder, TrainingData]]:
    """Train runs again and yield each run's heads, since records hold no weights.

    Training is deterministic, so these are the heads that the records describe. Keep what is
    measured on their embeddings in a table of the store.

    Args:
        configs: The runs; duplicates are yielded once.
        store: Where replayed runs are kept; default, this machine's store.
        features, corpus_root, device: As for :func:`train`.

    Yields:
        A configuration, its heads at the epoch that validation chose, and the data.

    Raises:
        ValueError: As :func:`train`, or a run's towers are trained with its heads.
        TrainingError: A run's loss stopped being finite.
    """
    if plan := os.environ.get(PLAN_VARIABLE):
        stop(Path(plan), "heads are trained again for what is measured on their embeddings")
    if any(config.towers for config in configs):
        raise ValueError("towers that are trained are not kept, so there are no heads over them")
    options: dict[str, Any] = {"features": features, "corpus_root": corpus_root, "device": device}
    sources = list(dict.fromkeys(config.source for config in configs if config.source))
    replayed = dict(zip(sources, train(sources, store=store, **options), strict=True))
    distinct = list(dict.fromkeys(configs))
    for key, inputs in _load(distinct, **options).items():
        data = inputs.data
        due = [config for config in distinct if _data_key(config) == key]
        with Progress(f"training again on {key.corpus}", total=len(due)) as progress:
            for stack in _stacks(due, data):
                model, history = fit_stack(stack, data, replayed)
                if history.failures:
                    raise TrainingError("; ".join(history.failures))
                for run, config in enumerate(stack):
                    yield config, model.take(run).requires_grad_(False), data
                progress.advance(len(stack))


def _load(
    configs: Sequence[RunConfig], *, features: Features | None, corpus_root: str, device: str
) -> dict[DataKey, FeatureInputs | TowerInputs]:
    """Load what runs train on, and refuse runs that ask for more images than there are."""
    keys = sorted({_data_key(config) for config in configs})
    loaded = {key: _load_inputs(key, features, corpus_root, device) for key in keys}
    for config in configs:
        available = len(loaded[_data_key(config)].data.train_rows)
        if config.train_images > available:
            raise ValueError(
                f"train_images = {config.train_images}, but the train split of {config.corpus} has "
                f"{available} images with a caption; ask for at most that many"
            )
    return loaded


def _load_inputs(
    key: DataKey, features: Features | None, corpus_root: str, device: str
) -> FeatureInputs | TowerInputs:
    """Load what runs with this key train on, from the corpus unless ``features`` suffice."""
    chosen, towers = resolve_device(device), (key.image_tower, key.text_tower)
    if features is not None and not key.noisy and not key.trained:
        return FeatureInputs(features, None, TrainingData.of(features, chosen))
    corpus = load_corpus(key.corpus, root=corpus_root, on_bad_sample=key.on_bad_sample)
    if key.trained:
        return load_inputs(corpus, key.trained, *towers, chosen)
    clean = extract_features(corpus, *towers, device) if features is None else features
    noisy = training_features(corpus, key.noisy, *towers, device, clean) if key.noisy else None
    return FeatureInputs(clean, noisy, TrainingData.of(clean, chosen, noisy))


def _data_key(config: RunConfig) -> DataKey:
    # Mismatched pairs are drawn from clean features.
    noisy = config.noise.kind if config.noise and config.noise.kind != "mismatched" else ""
    trained = config.towers.trained if config.towers else ""
    towers = config.image_tower, config.text_tower
    return DataKey(config.corpus, config.on_bad_sample, *towers, noisy, trained)


def load_features(
    corpus: str,
    on_bad_sample: str,
    image_tower: str,
    text_tower: str,
    *,
    corpus_root: str = "",
    device: str = "auto",
) -> Features:
    """Load and check a corpus by name, and return its tower features, cached."""
    loaded = load_corpus(corpus, root=corpus_root, on_bad_sample=on_bad_sample)
    return extract_features(loaded, image_tower, text_tower, device)


def _stacks(
    configs: Sequence[RunConfig], data: TrainingData, workers: int = 1
) -> Iterator[list[RunConfig]]:
    """Yield lists of runs that differ only in seed, temperature, schedule, loss and noise, of about
    the same length, so that workers are equally busy."""
    groups: dict[RunConfig, list[RunConfig]] = {}
    varying = ["seed", "temperature", "learn_temperature", "schedule", "noise"]
    varying += ["loss", "loss_constant", "learn_bias"]
    neutral = {name: RunConfig.model_fields[name].default for name in varying}
    for config in configs:
        groups.setdefault(config.model_copy(update=neutral), []).append(config)
    kind = "cuda" if data.device.type == "cuda" else "cpu"
    gallery = max(g.image.numel() + g.text.numel() for g in (data.validation, data.test))
    for shape, members in groups.items():
        pairs = shape.batch_size * shape.captions_at_once
        per_run = 4 * (2 * gallery + 6 * pairs * data.image.shape[1])
        most = min(STACK_SIZE[kind], STACK_MEMORY[kind] // per_run)
        if kind == "cpu":
            weights = count_weights(shape, (data.image.shape[1], data.text.shape[1]))
            most = min(most, STACK_WEIGHTS // weights)
        rounds = math.ceil(len(members) / (workers * max(1, most)))
        size = math.ceil(len(members) / (workers * rounds))
        for start in range(0, len(members), size):
            yield members[start : start + size]
