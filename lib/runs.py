"""Run configuration, run record, and the store that keeps finished runs.

A run is found again by the hash of what determines its result: its configuration and
:data:`RESULTS_VERSION`. The record itself says which corpus content it was trained on.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from lib.environment import RECORDS_VARIABLE
from lib.files import home, write_atomic
from lib.leases import Leases
from lib.losses import LOSSES
from lib.rival_configs import (
    INDIVIDUAL_BOUNDS,
    READS_INFO_NCE,
    RIVAL_NAMES,
    SETS_TEMPERATURE,
    GradNormConfig,
    IndividualTemperatureConfig,
    RivalConfig,
)
from lib.tables import DamagedTableError, read_table, table_purpose, write_table

RESULTS_VERSION = 1
"""Raise this when a change to the code changes the numbers of a run: no older record is then used.
A test pins the numbers of a small run, so that such a change does not pass unnoticed."""


LARGEST = 1e9
"""Above it a rate, and below its inverse a temperature, leaves the range of single precision."""

LossName = Literal[
    "info_nce",
    "label_smoothing",
    "decoupled",
    "hardest_negatives",
    "sigmoid",
    "multi_positive",
    "rince",
]
"""The losses of :data:`lib.losses.LOSSES`."""


class ScheduleConfig(BaseModel):
    """A scheduler: the arguments of :class:`lib.schedulers.Scheduler`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    signal: Literal["variance", "entropy", "spread"]
    actuator: Literal["direction", "magnitude", "sharpness", "sample"]
    gamma: float = 1.0
    beta: float = Field(default=0.9, ge=0, lt=1)
    warmup: int = Field(default=0, ge=0)
    target: float | None = Field(default=None, gt=0)


class ConstantConfig(BaseModel):
    """Weights of the two directions that never change: ``weight_i2t`` and 2 minus it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    weight_i2t: float = Field(gt=0, lt=2)


class ReplayConfig(BaseModel):
    """What a scheduler set in a finished run, played to a run that the scheduler does not see.

    Attributes:
        of: The scheduler whose weights and temperature are played.
        whose: ``"own"``: of the run with the same seed; ``"other"``: of its neighbour, the seeds
            2k and 2k + 1 being each other's.
        form: ``"path"``: step by step; ``"mean"``: its mean, constant (of a temperature, the
            geometric mean); ``"surrogate"``: a random path with the same mean, variance and
            autocorrelation.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    of: ScheduleConfig
    whose: Literal["own", "other"]
    form: Literal["path", "mean", "surrogate"]

    @model_validator(mode="after")
    def _is_recorded(self) -> "ReplayConfig":
        if self.of.actuator == "sample":
            raise ValueError("the weights of 'sample' are not recorded, so nothing can be replayed")
        return self


class NoiseConfig(BaseModel):
    """Noise in the training pairs; validation stays clean.

    Attributes:
        kind: ``"mismatched"``: captions change images among the noisy pairs; ``"captions"``,
            ``"images"``: each noisy one is perturbed as :mod:`lib.noise` says.
        rate: Share of pairs, captions or images that are noisy, drawn by the run's seed; at one
            seed those of a lower rate are among those of a higher one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    kind: Literal["mismatched", "captions", "images"]
    rate: float = Field(gt=0, le=1)


class TowersConfig(BaseModel):
    """Towers that are trained together with the heads over them.

    Attributes:
        trained: ``"last blocks"``: the last block of each pretrained tower; ``"from scratch"``: a
            residual network on pixels and a recurrent one on words, from random weights, named
            ``resnet18@PIXELS`` and ``gru`` or ``lstm``.
        learning_rate: Of the towers; None, that of the heads.
        augmentation: Of the pixels: ``"crop and flip"`` shifts an image by up to an eighth of its
            side and mirrors every second one.
        least_count: A word that comes less often in the training captions counts as unknown.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    trained: Literal["last blocks", "from scratch"]
    learning_rate: float | None = Field(default=None, gt=0, le=LARGEST)
    augmentation: Literal["none", "crop and flip"] = "none"
    least_count: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _blocks_see_no_pixels(self) -> "TowersConfig":
        if self.trained == "last blocks" and (self.augmentation != "none" or self.least_count > 1):
            raise ValueError(
                "the last blocks start from what the frozen part gives for each image and caption, "
                "so augmentation must be 'none' and least_count 1"
            )
        return self


class RunConfig(BaseModel):
    """Everything that determines a run's result, beside the corpus's content and the code.

    A run's name is made from what differs from these defaults, so that a field more, whose default
    means what was done before, keeps all records. Changing a default needs a new
    :data:`RESULTS_VERSION`.

    A batch has ``batch_size`` images, each with ``captions_at_once`` captions; these are drawn from
    the image's first ``captions_per_image``, or from all of them. With several at once the loss
    ``info_nce`` is its mean over as many batches of one caption an image, so that no caption of an
    image is another's negative.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    corpus: str = "scenes"
    on_bad_sample: Literal["error", "skip"] = "error"
    image_tower: str = "efficientnet-lite0"
    text_tower: str = "minilm"
    train_images: int = Field(1000, ge=2)
    captions_per_image: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    embedding_dim: int = Field(256, ge=1)
    hidden_layers: int = Field(0, ge=0)
    hidden_features: int = Field(512, ge=1)
    text_hidden_layers: int | None = Field(None, ge=0)
    centre: bool = True
    dropout: float = Field(0.0, ge=0, lt=1)
    batch_size: int = Field(128, ge=2)
    epochs: int = Field(20, ge=1)
    learning_rate: float = Field(1e-3, gt=0, le=LARGEST)
    learning_rate_decay: Literal["none", "cosine"] = "none"
    weight_decay: float = Field(0.01, ge=0, le=LARGEST)
    temperature: float = Field(0.1, ge=1 / LARGEST, le=LARGEST)
    learn_temperature: bool = False
    schedule: ScheduleConfig | ConstantConfig | ReplayConfig | RivalConfig | None = None
    loss: LossName = "info_nce"
    loss_constant: float | None = None
    learn_bias: bool = False
    captions_at_once: int = Field(1, ge=1)
    noise: NoiseConfig | None = None
    towers: TowersConfig | None = None
    """Towers to train; None, both are frozen."""

    @model_validator(mode="after")
    def _trained_towers_take_no_more_than_they_can(self) -> "RunConfig":
        if self.towers and self.noise and self.noise.kind != "mismatched":
            raise ValueError(
                f"noise in the {self.noise.kind} is for frozen towers; with trained ones use "
                "'mismatched' or none"
            )
        if self.towers and (self.captions_at_once > 1 or isinstance(self.schedule, GradNormConfig)):
            raise ValueError(
                "several captions at once and GradNorm are for frozen towers; use another loss, or "
                "leave out towers"
            )
        return self

    @model_validator(mode="after")
    def _constants_suit_the_loss(self) -> "RunConfig":
        LOSSES[self.loss].check(self.loss_constant)
        if self.learn_bias and self.loss != "sigmoid":
            raise ValueError(f"learn_bias is for the loss sigmoid; {self.loss} has no bias")
        several = self.captions_at_once > 1
        if not several and self.loss == "multi_positive":
            raise ValueError(
                "captions_at_once must be 2 or more with the loss multi_positive; it is "
                f"{self.captions_at_once}"
            )
        if several and self.loss not in ("multi_positive", "info_nce"):
            raise ValueError(
                "captions_at_once must be 1 with any loss but multi_positive and info_nce: to the "
                f"others an image's second caption is a negative; with {self.loss} it is "
                f"{self.captions_at_once}"
            )
        if several and self.schedule is not None:
            raise ValueError(
                f"captions_at_once must be 1 with a schedule; with {self.method} it is "
                f"{self.captions_at_once}"
            )
        if isinstance(self.schedule, READS_INFO_NCE) and self.loss != "info_nce":
            raise ValueError(f"{self.method} is made for the loss info_nce, not for {self.loss}")
        return self

    @model_validator(mode="after")
    def _one_owner_of_the_temperature(self) -> "RunConfig":
        schedule = self.schedule.of if isinstance(self.schedule, ReplayConfig) else self.schedule
        sharp = isinstance(schedule, ScheduleConfig) and schedule.actuator == "sharpness"
        if self.learn_temperature and sharp:
            raise ValueError("a temperature is either learned or set by 'sharpness', not both")
        if self.learn_temperature and isinstance(schedule, SETS_TEMPERATURE):
            raise ValueError(f"a temperature is either learned or set by {self.method}, not both")
        if isinstance(schedule, IndividualTemperatureConfig):
            low, high = INDIVIDUAL_BOUNDS
            if not low <= self.temperature <= high:
                raise ValueError(
                    f"temperature = {self.temperature:g} lies outside {low:g} to {high:g}, within "
                    f"which {self.method} move"
                )
        return self

    @classmethod
    def of(cls, parameters: BaseModel, **changes: Any) -> "RunConfig":
        """Take from a notebook's parameters what determines a run; ``changes`` come on top."""
        shared = cls.model_fields.keys() & type(parameters).model_fields.keys()
        return cls(**{name: getattr(parameters, name) for name in shared} | changes)

    @property
    def run_id(self) -> str:
        """The run's name in the store: a hash of this configuration and the results' version."""
        return self.run_id_at(RESULTS_VERSION)

    def run_id_at(self, results_version: int) -> str:
        """Return the name that the run has, or had, at a results' version."""
        canonical = json.dumps(self.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
        return hashlib.sha256(f"{results_version} {canonical}".encode()).hexdigest()[:20]

    @property
    def method(self) -> str:
        """How the study names what is scheduled: ``fixed``, ``learned τ``, ``variance × …``."""
        match self.schedule:
            case ScheduleConfig(signal=signal, actuator=actuator):
                return f"{signal} × {actuator}"
            case ReplayConfig(of=of, whose=whose, form=form):
                return f"{whose} {form} of {of.signal} × {of.actuator}"
            case ConstantConfig(weight_i2t=weight):
                return f"constant w = {weight:g}"
            case None if self.loss != "info_nce":
                return self.loss
            case None:
                kind = "learned τ" if self.learn_temperature else "fixed"
                return f"{kind}, more captions" if self.captions_at_once > 1 else kind
            case rival:
                return RIVAL_NAMES[type(rival)]

    @property
    def source(self) -> "RunConfig | None":
        """The run whose schedule this one replays, if it does."""
        if not isinstance(self.schedule, ReplayConfig):
            return None
        seed = self.seed if self.schedule.whose == "own" else self.seed ^ 1
        return self.model_copy(update={"schedule": self.schedule.of, "seed": seed})

    def with_seed(self, seed: int) -> "RunConfig":
        """Return the same configuration at another seed."""
        return self.model_copy(update={"seed": seed})

    def with_steps(self, least: int) -> "RunConfig":
        """Return the same configuration with epochs added until it has ``least`` steps."""
        a_epoch = max(1, self.train_images // self.batch_size)
        return self.model_copy(update={"epochs": max(self.epochs, -(-least // a_epoch))})


EPOCH_COLUMNS = (
    "loss",
    *(f"{d}_r{k}" for d in ("i2t", "t2i") for k in (1, 5, 10)),
    "rsum",
)
"""Per-epoch series: mean training loss, validation recalls in percent, and their sum."""
STEP_COLUMNS = ("loss", "weight_i2t", "weight_t2i", "temperature", "signal_i2t", "signal_t2i")
"""Per-step series. The signals are the mean row and column variance of the batch's similarities,
recorded for every method, whatever drives it."""
TEST_COLUMNS = (*EPOCH_COLUMNS[1:], "i2t_median_rank", "t2i_median_rank")
"""Test metrics, read once, at the epoch that validation chose."""


@dataclass(frozen=True)
class RunRecord:
    """What a finished run leaves.

    Attributes:
        config: What determined it.
        corpus_fingerprint: SHA-256 of the corpus content it was trained on.
        best_epoch: The epoch (from 1) with the greatest validation rSum, the first of equals.
        test: :data:`TEST_COLUMNS` to values, in percent and ranks.
        epochs: (epochs, len(EPOCH_COLUMNS)) float64.
        steps: (steps, len(STEP_COLUMNS)) float32.
        collapsed: Whether the chosen model's test embeddings have all but one direction in common.
        seconds: Wall time of the run's share of its stack; never part of a comparison.
        made: Versions, of the code too, device and date, for the reader of the record alone.
    """

    config: RunConfig
    corpus_fingerprint: str
    best_epoch: int
    test: Mapping[str, float]
    epochs: NDArray[np.float64]
    steps: NDArray[np.float32]
    collapsed: bool
    seconds: float
    made: Mapping[str, str]

    @property
    def validation_rsum(self) -> float:
        """The validation rSum at the chosen epoch, in percent points: the run's greatest."""
        return float(self.epochs[self.best_epoch - 1, -1])

    @property
    def finite(self) -> bool:
        """Whether every number of it is finite; only then may it be kept."""
        numbers = (self.epochs, self.steps, np.array(list(self.test.values()), dtype=np.float64))
        return all(bool(np.isfinite(array).all()) for array in numbers)

    def epoch_table(self) -> pd.DataFrame:
        """Return the per-epoch series, one row an epoch, counted from 1."""
        table = pd.DataFrame(self.epochs, columns=list(EPOCH_COLUMNS))
        table.insert(0, "epoch", np.arange(1, len(table) + 1))
        return table

    def step_table(self) -> pd.DataFrame:
        """Return the per-step series, one row a step, counted from 1."""
        table = pd.DataFrame(self.steps, columns=list(STEP_COLUMNS))
        table.insert(0, "step", np.arange(1, len(table) + 1))
        return table


class Store:
    """Finished runs and computed tables on disk.

    Look-ups read the published records first, where the study comes with some, so that its figures
    can be made again without training; then the machine's own folder. Writing goes to the latter
    alone, a whole file at a time.

    Args:
        folder: The machine's own records; default ``home() / "runs"``.
        published: A folder that :func:`export_records` wrote; default ``book/results/records``
            beside the package. ``$STUDY_RECORDS`` replaces it; empty, it means none.
    """

    def __init__(self, folder: Path | None = None, published: Path | None = None) -> None:
        self.folder = home() / "runs" if folder is None else folder
        self._published = _published_folder() if published is None else published
        self._bundle: Bundle | None = None

    @property
    def leases(self) -> Leases:
        """Who is at work on what in this store."""
        return Leases(self.folder / "leases")

    def get(self, config: RunConfig) -> RunRecord | None:
        """Return the finished run of a configuration, or None."""
        run_id = config.run_id
        record = self._bundled(run_id)
        if record is None:
            record = self._read(self._path(run_id))
        if record is not None:
            _note_use("run", run_id)
        return record

    def outdated(self, config: RunConfig) -> bool:
        """Say whether this machine holds the run as an older version of the code made it."""
        older = range(1, RESULTS_VERSION)
        return any(self._path(config.run_id_at(version)).exists() for version in older)

    def is_published(self, config: RunConfig) -> bool:
        """Say whether the published records hold the run: they are looked up first."""
        return self._bundled(config.run_id) is not None

    def put(self, record: RunRecord) -> None:
        """Keep a finished run.

        Raises:
            ValueError: It holds numbers that are not finite.
        """
        if not record.finite:
            raise ValueError(
                f"run {record.config.run_id} ({record.config.method}, seed {record.config.seed}) "
                "holds numbers that are not finite, so it is not kept"
            )
        body = json.dumps(_to_json(record), allow_nan=False, separators=(",", ":"))
        digest = hashlib.sha256(body.encode()).hexdigest()
        write_atomic(self._path(record.config.run_id), f'{{"sha256":"{digest}","run":{body}}}\n')
        _note_use("run", record.config.run_id)

    def records(self) -> list[RunRecord]:
        """Return every finished run of the current results' version, in order of run id."""
        bundled = {name: self._bundled(name) for name in self._opened()}
        found = {name: record for name, record in bundled.items() if record is not None}
        for path in self.folder.glob("??/*.json"):
            record = self._read(path)
            if record is not None:
                found.setdefault(record.config.run_id, record)
        return [found[run_id] for run_id in sorted(found)]

    def unused(self, records: Iterable[RunRecord]) -> int:
        """Return how many of this machine's files :meth:`records` passed over: damaged ones, and
        those that the code of another results' version made."""
        names = {record.config.run_id for record in records}
        return sum(path.stem not in names for path in self.folder.glob("??/*.json"))

    def table(
        self, name: str, key: Mapping[str, Any], compute: Callable[[], pd.DataFrame]
    ) -> pd.DataFrame:
        """Return a computed table of numbers, computing it where no store holds it.

        Of two processes that want it at the same time, one computes it and the other waits.

        Args:
            name: What it is, a word for the file name.
            key: What determines it, values that JSON can hold.
            compute: Makes the table.
        """
        canonical = json.dumps({"version": RESULTS_VERSION, **key}, sort_keys=True)
        file = f"{name}-{hashlib.sha256(canonical.encode()).hexdigest()[:20]}.parquet"
        _note_use("table", file)
        places = [self.folder.parent / "tables" / file]
        if self._published is not None:
            places.insert(0, self._published / "tables" / file)
        found = _first_intact(places, file)
        while found is None:
            with self.leases.take([file]) as taken:
                # It may have been made between that look and this lease.
                found = _first_intact(places[-1:], file) if places[-1].exists() else None
                if found is None and taken:
                    write_table(places[-1], compute(), file)
                    # Read back, so that a first and a later reader see the same types.
                    return read_table(places[-1], file)
            if found is None:
                self.leases.wait([file])
        return found

    def _path(self, run_id: str) -> Path:
        return self.folder / run_id[:2] / f"{run_id}.json"

    def _read(self, path: Path) -> RunRecord | None:
        try:
            record = read_record(path)
            if not record.finite:
                raise ValueError("it holds numbers that are not finite")
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError, RecursionError, IsADirectoryError) as error:
            warnings.warn(f"run record {path} is damaged ({error}); not used", stacklevel=3)
            return None
        # A record of another results' version hashes to another id.
        return record if record.config.run_id == path.stem else None

    def _bundled(self, run_id: str) -> RunRecord | None:
        record = self._opened().get(run_id)
        return record if record is not None and record.config.run_id == run_id else None

    def _opened(self) -> "Bundle":
        if self._bundle is None:
            folder = self._published
            there = folder is not None and (folder / "runs.parquet").exists()
            self._bundle = _read_published(folder) if folder is not None and there else Bundle()
        return self._bundle


def export_records(records: Iterable[RunRecord], folder: Path) -> None:
    """Write runs compactly: ``runs.parquet``, ``epochs.parquet`` and ``steps.parquet``, numbers
    and configurations alone, the same bytes for the same records whatever their order."""
    ordered = sorted(records, key=lambda record: record.config.run_id)
    if not ordered:
        raise ValueError("there is no record to export")
    ids = [record.config.run_id for record in ordered]
    runs = pd.DataFrame(
        {
            "run_id": ids,
            "config": [record.config.model_dump_json() for record in ordered],
            "corpus_fingerprint": [record.corpus_fingerprint for record in ordered],
            "best_epoch": [record.best_epoch for record in ordered],
            "collapsed": [record.collapsed for record in ordered],
            "seconds": [record.seconds for record in ordered],
            "made": [json.dumps(dict(record.made), sort_keys=True) for record in ordered],
            **{name: [record.test[name] for record in ordered] for name in TEST_COLUMNS},
        }
    )
    series: dict[str, tuple[tuple[str, ...], list[NDArray[Any]]]] = {
        "epochs": (EPOCH_COLUMNS, [record.epochs for record in ordered]),
        "steps": (STEP_COLUMNS, [record.steps for record in ordered]),
    }
    tables = {"runs": runs}
    for name, (columns, arrays) in series.items():
        table = pd.DataFrame(np.concatenate(arrays), columns=list(columns))
        table.insert(0, "run_id", np.repeat(ids, [len(array) for array in arrays]))
        tables[name] = table
    for name in _BUNDLE:
        write_table(folder / f"{name}.parquet", tables[name], _bundle_purpose(name, ids))


def read_record(path: Path) -> RunRecord:
    """Read a file that :meth:`Store.put` wrote.

    Raises:
        FileNotFoundError: There is none.
        ValueError, KeyError, TypeError: It is damaged.
    """
    text = path.read_text(encoding="utf-8")
    envelope = json.loads(text)
    body = text[text.index('"run":') + 6 : text.rindex("}")]
    if hashlib.sha256(body.encode()).hexdigest() != envelope["sha256"]:
        raise ValueError("its checksum does not fit")
    return _from_json(envelope["run"])


class Bundle(Mapping[str, RunRecord]):
    """The runs that :func:`export_records` wrote: the name of each to its record.

    A record is made when it is first asked for, since a notebook asks for few of thousands. Of
    another results' version, the name is not the record's ``run_id``.

    Args:
        runs: Name to the run's row of ``runs.parquet``.
        epochs: Name to per-epoch series, as :class:`RunRecord` has them.
        steps: Name to per-step series.
    """

    def __init__(
        self,
        runs: Mapping[str, Mapping[Any, Any]] = MappingProxyType({}),
        epochs: Mapping[str, NDArray[np.float64]] = MappingProxyType({}),
        steps: Mapping[str, NDArray[np.float32]] = MappingProxyType({}),
    ) -> None:
        self._runs, self._epochs, self._steps = runs, epochs, steps
        self._made: dict[str, RunRecord] = {}

    def __getitem__(self, name: str) -> RunRecord:
        if name not in self._made:
            row = self._runs[name]
            self._made[name] = RunRecord(
                config=RunConfig.model_validate_json(row["config"]),
                corpus_fingerprint=row["corpus_fingerprint"],
                best_epoch=int(row["best_epoch"]),
                test={column: float(row[column]) for column in TEST_COLUMNS},
                epochs=self._epochs[name],
                steps=self._steps[name],
                collapsed=bool(row["collapsed"]),
                seconds=float(row["seconds"]),
                made=json.loads(row["made"]),
            )
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, name: object) -> bool:
        return name in self._runs

    def not_finite(self) -> list[str]:
        """Return the names of runs with numbers that are none, without making their records."""
        return [
            name
            for name, row in self._runs.items()
            if not (
                np.isfinite(self._epochs[name]).all()
                and np.isfinite(self._steps[name]).all()
                and np.isfinite([row[column] for column in TEST_COLUMNS]).all()
            )
        ]


def read_bundle(folder: Path) -> Bundle:
    """Open what :func:`export_records` wrote to ``folder``.

    Raises:
        FileNotFoundError: One of its three files is missing.
        ValueError: One of them is damaged, or they are not of one export; it is named.
    """
    first = folder / "runs.parquet"
    purposes = {name: table_purpose(folder / f"{name}.parquet") for name in _BUNDLE}
    runs = read_table(first, purposes["runs"])
    _check_columns(first, runs, ("run_id", "config", *TEST_COLUMNS))
    if twice := runs["run_id"][runs["run_id"].duplicated()].tolist():
        raise DamagedTableError(f"{first} is damaged (it has run {twice[0]} twice)")
    if purposes["runs"]:
        for name in _BUNDLE:
            if purposes[name] != _bundle_purpose(name, list(runs["run_id"])):
                raise DamagedTableError(f"{folder / f'{name}.parquet'} is of another export")
    epochs = _series(folder / "epochs.parquet", purposes["epochs"], EPOCH_COLUMNS, np.float64)
    steps = _series(folder / "steps.parquet", purposes["steps"], STEP_COLUMNS, np.float32)
    for name, series in (("epochs", epochs), ("steps", steps)):
        if lacking := [run_id for run_id in runs["run_id"] if run_id not in series]:
            raise DamagedTableError(
                f"{folder / name}.parquet is damaged (it lacks run {lacking[0]})"
            )
    return Bundle(runs.set_index("run_id").to_dict("index"), epochs, steps)


def _series(
    path: Path, purpose: str, columns: tuple[str, ...], kind: type[Any]
) -> dict[str, NDArray[Any]]:
    """Return each run's rows as a part of one array: a copy a run would take seconds."""
    table = read_table(path, purpose)
    _check_columns(path, table, ("run_id", *columns))
    numbers = table[list(columns)].to_numpy(kind)
    codes, names = pd.factorize(table["run_id"])
    # Codes count the runs in the order in which they appear.
    if (torn := np.flatnonzero(np.diff(codes) < 0)).size:
        name = names[codes[torn[0] + 1]]
        raise DamagedTableError(f"{path} is damaged (the rows of run {name} lie in pieces)")
    ends = np.cumsum(np.bincount(codes, minlength=len(names))).tolist()
    starts = [0, *ends]
    return {
        name: numbers[starts[i] : end]
        for i, (name, end) in enumerate(zip(names, ends, strict=True))
    }


_BUNDLE = ("epochs", "steps", "runs")
"""The files of an export as they are written: what names the runs comes last, for the others must
fit it."""


def _bundle_purpose(name: str, ids: Iterable[str]) -> str:
    """Say what a file of an export is: its runs' names keep files of two exports apart."""
    return f"{name} of {hashlib.sha256(' '.join(ids).encode()).hexdigest()}"


def _check_columns(path: Path, table: pd.DataFrame, columns: Iterable[str]) -> None:
    if lacking := [name for name in columns if name not in table]:
        raise DamagedTableError(f"{path} is damaged (it has no column {', '.join(lacking)})")


def _read_published(folder: Path) -> Bundle:
    try:
        found = read_bundle(folder)
        if bad := found.not_finite():
            raise DamagedTableError(f"run {bad[0]} holds numbers that are not finite")
        return found
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"the published records cannot be read: {error}. Restore {folder}, or set "
            "STUDY_RECORDS to nothing to go on without them"
        ) from error


def _first_intact(places: Iterable[Path], purpose: str) -> pd.DataFrame | None:
    for place in places:
        if place.exists():
            try:
                return read_table(place, purpose)
            except (OSError, DamagedTableError) as error:
                warnings.warn(f"{error}; made again", stacklevel=3)
    return None


def _published_folder() -> Path | None:
    configured = os.environ.get("STUDY_RECORDS")
    if configured is not None:
        return Path(configured) if configured else None
    return Path(__file__).resolve().parent.parent / "book" / "results" / "records"


def _note_use(kind: str, name: str) -> None:
    """Append what an execution used to ``$STUDY_RECORDS_LOG``, from which it is published."""
    log = os.environ.get(RECORDS_VARIABLE)
    if log:
        with Path(log).open("a", encoding="utf-8") as file:
            file.write(f"{kind} {name}\n")


def _to_json(record: RunRecord) -> dict[str, Any]:
    return {
        "config": record.config.model_dump(mode="json"),
        "corpus_fingerprint": record.corpus_fingerprint,
        "best_epoch": record.best_epoch,
        "test": dict(record.test),
        "epochs": record.epochs.tolist(),
        "steps": record.steps.tolist(),
        "collapsed": record.collapsed,
        "seconds": record.seconds,
        "made": dict(record.made),
    }


def _from_json(data: Mapping[str, Any]) -> RunRecord:
    return RunRecord(
        config=RunConfig.model_validate(data["config"]),
        corpus_fingerprint=data["corpus_fingerprint"],
        best_epoch=data["best_epoch"],
        test=data["test"],
        epochs=np.array(data["epochs"], dtype=np.float64),
        steps=np.array(data["steps"], dtype=np.float32),
        collapsed=data["collapsed"],
        seconds=data["seconds"],
        made=data["made"],
    )
