"""A list of runs in, their records out: what is finished is looked up, the rest is trained."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from lib.datasets import load_corpus
from lib.encoders import Features, extract_features, resolve_device
from lib.models import DualEncoder
from lib.noise import training_features
from lib.progress import Progress
from lib.runs import RunConfig, RunRecord, Store
from lib.training.data import TrainingData
from lib.training.end_to_end import Material, load_material, train_runs
from lib.training.stack import fit_stack, train_stack


class TrainingError(RuntimeError):
    """A run did not end in numbers that may be published."""


Version = Literal["clean", "captions", "images"]
Source = tuple[str, str, str, str, Version, str]
"""Corpus, what to do with its bad samples, image tower, text tower, which noisy version, and what
of the towers is trained (empty: nothing)."""

STACK_SIZE = {"cpu": 8, "cuda": 128}
"""Runs that train together, by kind of device: on a CPU they must share its cache."""
STACK_MEMORY = {"cpu": 4 << 30, "cuda": 16 << 30}
"""Bytes that a stack's similarity matrices and batches may take, by kind of device."""


def train(
    configs: Sequence[RunConfig],
    *,
    store: Store | None = None,
    features: Features | None = None,
    corpus_root: str = "",
    device: str = "auto",
) -> list[RunRecord]:
    """Return the records of runs, training those that the store does not hold.

    A finished run is kept at once: an interruption loses at most the runs in flight.

    Args:
        configs: The runs, in any order; equal ones are trained once.
        store: Where finished runs are; default, this machine's.
        features: Tower outputs to use instead of loading the configurations' corpus.
        corpus_root: Folder of a corpus on disk; empty, the usual places.
        device: ``"auto"`` takes a GPU where there is one.

    Returns:
        One record a configuration, in the order given.

    Raises:
        ValueError: A configuration asks for more images than the split has, or the device or the
            corpus cannot be used; nothing is trained then.
        TrainingError: The loss of some runs stopped being finite; the others are kept.
    """
    store = store or Store()
    options: dict[str, Any] = {"features": features, "corpus_root": corpus_root, "device": device}
    records = {config: store.get(config) for config in dict.fromkeys(configs)}
    failures: list[str] = []
    missing = [config for config, record in records.items() if record is None]
    # Everything that can be refused is refused before the first run starts.
    for source, data in _load(missing, **options).items():
        # A record of other corpus content must not be compared with what is trained now.
        due = [
            config
            for config, record in records.items()
            if _source(config) == source
            and (record is None or record.corpus_fingerprint != data.corpus_fingerprint)
        ]
        replayed = _replayed(due, store=store, **options)

        def keep(record: RunRecord) -> None:
            store.put(record)
            records[record.config] = record

        if isinstance(data, Material):
            failures += train_runs(due, data, replayed, keep)
            continue
        with Progress(f"training on {source[0]}", total=len(due)) as progress:
            for stack in _stacks(due, data):
                done, lost = train_stack(stack, data, replayed)
                failures += lost
                for finished in done:
                    keep(finished)
                progress.advance(len(stack), note=_best(records.values()))
    if failures:
        raise TrainingError(
            f"{len(failures)} of {len(configs)} runs diverged and are not kept: "
            + "; ".join(failures)
            + ". Lower the learning rate or raise the temperature."
        )
    return [record for config in configs if (record := records[config]) is not None]


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
    for source, data in _load(distinct, **options).items():
        assert isinstance(data, TrainingData)
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
) -> "dict[Source, TrainingData | Material]":
    """Load what configurations train on, and refuse those that it is too small for."""
    chosen = resolve_device(device)
    loaded: dict[Source, TrainingData | Material] = {}
    for source in sorted({_source(config) for config in configs}):
        name, on_bad_sample, image_tower, text_tower, version, towers = source
        if towers:
            corpus = load_corpus(name, **corpus_options(name, on_bad_sample, corpus_root))
            loaded[source] = load_material(corpus, towers, image_tower, text_tower, chosen)
            continue
        clean = features or load_features(*source[:4], corpus_root=corpus_root, device=device)
        noisy = None
        if version != "clean":
            corpus = load_corpus(name, **corpus_options(name, on_bad_sample, corpus_root))
            noisy = training_features(corpus, version, image_tower, text_tower, device)
        loaded[source] = TrainingData.of(clean, chosen, noisy)
    for config in configs:
        data = loaded[_source(config)]
        _check_size(config, data.data if isinstance(data, Material) else data)
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
    loaded = load_corpus(corpus, **corpus_options(corpus, on_bad_sample, corpus_root))
    return extract_features(loaded, image_tower, text_tower, device)


def corpus_options(corpus: str, on_bad_sample: str, root: str) -> dict[str, str]:
    """Return what :func:`lib.datasets.load_corpus` is to be told beside the corpus's name."""
    if corpus == "scenes":
        return {}
    return {"on_bad_sample": on_bad_sample} | ({"root": root} if root else {})


def _source(config: RunConfig) -> Source:
    noise = config.noise
    # Mismatched pairs are drawn from clean features.
    version: Version = "clean" if noise is None or noise.kind == "mismatched" else noise.kind
    towers = config.towers.trained if config.towers else ""
    names = config.image_tower, config.text_tower
    return config.corpus, config.on_bad_sample, *names, version, towers


def _best(records: Iterable[RunRecord | None]) -> str:
    best = max((float(r.epochs[:, -1].max()) for r in records if r is not None), default=0.0)
    return f"best validation rSum {best:.1f}"


def _check_size(config: RunConfig, data: TrainingData) -> None:
    available = len(data.train_rows)
    if config.train_images > available:
        raise ValueError(
            f"train_images = {config.train_images}, but the train split of {config.corpus} has "
            f"{available} images with a caption; ask for at most that many"
        )


def _stacks(configs: Sequence[RunConfig], data: TrainingData) -> Iterator[list[RunConfig]]:
    """Yield lists of runs that differ in seed, temperature, schedule, loss and noise alone."""
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
    evaluation = max(len(g.image) * len(g.text) for g in galleries)
    for shape, members in groups.items():
        pairs = shape.batch_size * shape.captions_at_once
        per_run = 4 * (3 * evaluation + 6 * pairs * data.image.shape[1])
        size = max(1, min(STACK_SIZE[kind], STACK_MEMORY[kind] // per_run))
        for start in range(0, len(members), size):
            yield members[start : start + size]
