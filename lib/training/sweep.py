"""A list of runs in, their records out: what is finished is looked up, the rest is trained."""

from collections.abc import Iterable, Iterator, Sequence

from lib.datasets import load_corpus
from lib.encoders import Features, extract_features, resolve_device
from lib.progress import Progress
from lib.runs import RunConfig, RunRecord, Store
from lib.training.data import TrainingData
from lib.training.stack import train_stack


class TrainingError(RuntimeError):
    """A run did not end in numbers that may be published."""


Source = tuple[str, str, str, str]
"""Corpus, what to do with its bad samples, image tower, text tower."""

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
    chosen = resolve_device(device)
    records = {config: store.get(config) for config in dict.fromkeys(configs)}
    failures: list[str] = []
    missing = [config for config, record in records.items() if record is None]
    # Everything that can be refused is refused before the first run starts.
    sources: dict[Source, TrainingData] = {}
    for source in sorted({_source(config) for config in missing}):
        loaded = features or load_features(*source, corpus_root=corpus_root, device=device)
        sources[source] = TrainingData.of(loaded, chosen)
    for config in missing:
        _check_size(config, sources[_source(config)])
    for source, data in sources.items():
        # A record of other corpus content must not be compared with what is trained now.
        due = [
            config
            for config, record in records.items()
            if _source(config) == source
            and (record is None or record.corpus_fingerprint != data.corpus_fingerprint)
        ]
        with Progress(f"training on {source[0]}", total=len(due)) as progress:
            for stack in _stacks(due, data):
                done, lost = train_stack(stack, data)
                failures += lost
                for finished in done:
                    store.put(finished)
                    records[finished.config] = finished
                progress.advance(len(stack), note=_best(records.values()))
    if failures:
        raise TrainingError(
            f"{len(failures)} of {len(configs)} runs diverged and are not kept: "
            + "; ".join(failures)
            + ". Lower the learning rate or raise the temperature."
        )
    return [record for config in configs if (record := records[config]) is not None]


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
    return config.corpus, config.on_bad_sample, config.image_tower, config.text_tower


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
    """Yield lists of runs that differ in seed, temperature and schedule alone."""
    groups: dict[RunConfig, list[RunConfig]] = {}
    neutral = {"seed": 0, "temperature": 1.0, "learn_temperature": False, "schedule": None}
    for config in configs:
        groups.setdefault(config.model_copy(update=neutral), []).append(config)
    kind = "cuda" if data.device.type == "cuda" else "cpu"
    galleries = (data.validation, data.test)
    evaluation = max(len(g.image) * len(g.text) for g in galleries)
    for shape, members in groups.items():
        per_run = 4 * (3 * evaluation + 6 * shape.batch_size * data.image.shape[1])
        size = max(1, min(STACK_SIZE[kind], STACK_MEMORY[kind] // per_run))
        for start in range(0, len(members), size):
            yield members[start : start + size]
