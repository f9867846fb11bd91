"""Finished runs as a table: lists, filters, and the comparison of two settings.

A *setting* is a configuration at all its seeds. Every column is derived from
:class:`lib.runs.RunConfig`, so a new field is listed and can be filtered by at once.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from lib.chapters.shared.verdicts import against, against_on_all
from lib.runs import TEST_COLUMNS, RunConfig, RunRecord
from lib.utils.text import did_you_mean
from lib.utils.yaml import YAMLError, read_yaml

SHORT_ID = 8
"""Characters of a run's id that are shown; commands take any unambiguous four or more."""
OWN_COLUMNS = ("corpus", "train_images", "seed")
"""Fields of a configuration with a column of their own in tables where the others share one."""


class LedgerError(ValueError):
    """No run or more than one setting fits the request; the text says what to write."""


def runs_table(records: Iterable[RunRecord]) -> pd.DataFrame:
    """Return one row per run: its id and method, every field of its configuration, its results.

    The fields of a nested configuration follow a dot: ``schedule.gamma``, ``noise.rate``.
    """
    return pd.DataFrame([_row(record) for record in records])


def constants(config: RunConfig) -> str:
    """Return the constants of a configuration that differ from the defaults, and its temperature.

    >>> constants(RunConfig(temperature=0.085, seed=3, learning_rate=3e-3))
    'learning_rate=0.003, temperature=0.085'
    """
    changed = config.model_dump(mode="json", exclude_defaults=True)
    order = {name: changed[name] for name in RunConfig.model_fields if name in changed}
    flat = _flatten({k: v for k, v in order.items() if k not in OWN_COLUMNS})
    shown = {k: v for k, v in flat.items() if k not in ("schedule.signal", "schedule.actuator")}
    shown["temperature"] = config.temperature
    fields = list(RunConfig.model_fields)
    names = sorted(shown, key=lambda name: fields.index(name.partition(".")[0]))
    return ", ".join(f"{name}={shown[name]}" for name in names)


def select(records: Sequence[RunRecord], terms: Iterable[str]) -> list[RunRecord]:
    """Return the runs for which every term holds.

    Args:
        records: Finished runs.
        terms: ``NAME=VALUE``, or a method alone. The name is a column of :func:`runs_table` or the
            last part of one; ``|`` separates alternative values.

    Raises:
        LedgerError: A column is unknown, or a term is empty.
    """
    wanted = [_parse(term) for term in terms]
    if not records or not wanted:
        return list(records)
    table = runs_table(records)
    kept = pd.Series(True, index=table.index)
    for name, values in wanted:
        column = table[_column(name, list(table.columns))]
        kept &= column.map(lambda value, values=values: _matches(value, values))
    return [record for record, keep in zip(records, kept, strict=True) if keep]


@dataclass(frozen=True)
class Setting:
    """A configuration with its finished runs.

    Attributes:
        config: The configuration, whose seed has no meaning.
        records: Seed to run.
    """

    config: RunConfig
    records: Mapping[int, RunRecord]

    @property
    def name(self) -> str:
        """The method and its constants."""
        return f"{self.config.method} ({constants(self.config)})"

    def validation(self, seeds: Iterable[int]) -> float:
        """Return the mean validation rSum over some seeds."""
        return float(pd.Series([self.records[seed].validation_rsum for seed in seeds]).mean())


def settings(records: Iterable[RunRecord]) -> list[Setting]:
    """Group runs by setting, those with more seeds first."""
    grouped: dict[RunConfig, dict[int, RunRecord]] = {}
    for record in records:
        grouped.setdefault(record.config.with_seed(0), {})[record.config.seed] = record
    every = [Setting(config, dict(sorted(runs.items()))) for config, runs in grouped.items()]
    return sorted(every, key=lambda s: (-len(s.records), s.config.method, s.config.run_id))


def settings_table(chosen: Sequence[Setting]) -> pd.DataFrame:
    """Return one row per setting: the id of its first run, its constants and its mean results."""
    rows = []
    for setting in chosen:
        tests = pd.DataFrame([dict(record.test) for record in setting.records.values()])
        first = next(iter(setting.records.values())).config
        rows.append(
            {
                "run_id": first.run_id,
                "method": setting.config.method,
                "corpus": setting.config.corpus,
                "train_images": setting.config.train_images,
                "constants": constants(setting.config),
                "seeds": len(setting.records),
                "validation_rsum": setting.validation(setting.records),
                **tests[list(TEST_COLUMNS)].mean().to_dict(),
            }
        )
    return pd.DataFrame(rows)


def find_setting(records: Sequence[RunRecord], text: str, *, best: bool = False) -> Setting:
    """Return the setting that a person means.

    Args:
        records: Finished runs to look among.
        text: A method, with ``NAME=VALUE`` terms after commas; or the beginning of a run's id, for
            its configuration at every seed.
        best: If several fit, take the one with the best mean validation rSum over the seeds that
            all of them have. The test split plays no part.

    Raises:
        LedgerError: None fits; or several do, which are listed.
    """
    is_id = re.fullmatch("[0-9a-f]{4,}", text)
    configs = {r.config.with_seed(0) for r in records if is_id and r.config.run_id.startswith(text)}
    if configs:
        chosen = [record for record in records if record.config.with_seed(0) in configs]
    else:
        chosen = select(records, [part for part in text.split(",") if part.strip()])
    fitting = settings(chosen)
    if not fitting:
        methods = sorted({record.config.method for record in records})
        raise LedgerError(
            f"no finished run fits {text!r}{did_you_mean(text.split(',')[0], methods)}; "
            f"there are runs of: {', '.join(methods) or 'nothing'}"
        )
    if len(fitting) == 1:
        return fitting[0]
    kinds = {_kind(record) for setting in fitting for record in setting.records.values()}
    if best and len(kinds) > 1:
        raise LedgerError(
            f"{text!r} fits runs on {trained_on(fitting)}, among which --best would compare what "
            "cannot be compared; choose with --where corpus=…, train_images=… or "
            "corpus_fingerprint=…"
        )
    if best:
        shared = set.intersection(*(set(setting.records) for setting in fitting))
        if shared:
            return max(fitting, key=lambda setting: setting.validation(sorted(shared)))
    shown = "\n".join(
        f"  {next(iter(s.records.values())).config.run_id[:SHORT_ID]}  {len(s.records)} seeds  "
        f"{s.config.corpus}, {s.config.train_images} images  {s.name}"
        for s in fitting[:10]
    )
    more = f"\n  and {len(fitting) - 10} more" if len(fitting) > 10 else ""
    raise LedgerError(
        f"{text!r} fits {len(fitting)} settings; name one by its id, add terms such as "
        f"{text!r} + ',temperature=0.1' or --where, or take --best on validation"
        f"{' (they share no seed)' if best else ''}:\n{shown}{more}"
    )


@dataclass(frozen=True)
class SettingComparison:
    """A comparison of two settings, ``a`` and ``b``, on the seeds that both have.

    Attributes:
        table: Rows of :func:`lib.chapters.shared.verdicts.against`, ``a`` minus ``b``.
        seeds: The compared seeds.
        unpaired: Seeds that only one of the two has.
        differs: The fields in which the two configurations differ, with both values.
        trained_on: The corpus, its content and the numbers of training images.
    """

    table: pd.DataFrame
    seeds: tuple[int, ...]
    unpaired: tuple[int, ...]
    differs: Mapping[str, tuple[Any, Any]]
    trained_on: str


def compare(
    a: Setting, b: Setting, margin: float = 0.3, *, every_metric: bool = False
) -> SettingComparison:
    """Compare two settings, paired over their common seeds, judged as in the book.

    Args:
        a: The setting that may be better.
        b: The baseline.
        margin: Points of recall up to which settings count as equivalent.
        every_metric: Compare all test metrics, not only the two R@1.

    Raises:
        LedgerError: They are the same setting, or were trained on different corpus content.
        StatisticsError: They share fewer than two seeds.
    """
    if a.config == b.config:
        raise LedgerError(f"both are the same setting: {a.name}")
    prints = {r.corpus_fingerprint for s in (a, b) for r in s.records.values()}
    if len(prints) > 1:
        raise LedgerError(
            f"the runs were trained on {len(prints)} different corpora or versions of one "
            f"({', '.join(sorted(p[:SHORT_ID] for p in prints))}), so they are not paired; "
            "choose among them with --where corpus_fingerprint=…, or train them again"
        )
    seeds = tuple(sorted(a.records.keys() & b.records.keys()))
    rows = [
        {"method": setting.name, "seed": seed, **setting.records[seed].test}
        for setting in (a, b)
        for seed in seeds
    ]
    table = pd.DataFrame(rows, columns=["method", "seed", *TEST_COLUMNS])
    compared = (against_on_all if every_metric else against)(table, b.name, margin)
    ours, theirs = (_flatten(s.config.model_dump(mode="json")) for s in (a, b))
    differs = {
        name: (ours.get(name), theirs.get(name))
        for name in dict.fromkeys([*ours, *theirs])
        if name != "seed" and ours.get(name) != theirs.get(name)
    }
    unpaired = tuple(sorted(a.records.keys() ^ b.records.keys()))
    return SettingComparison(compared, seeds, unpaired, differs, trained_on([a, b]))


def trained_on(settings: Iterable[Setting]) -> str:
    """Return the corpora that settings were trained on, with their contents and sizes."""
    runs = [record for setting in settings for record in setting.records.values()]
    contents = {(r.config.corpus, r.corpus_fingerprint[:SHORT_ID]) for r in runs}
    sizes = sorted({record.config.train_images for record in runs})
    corpora = " and ".join(f"{corpus} of content {print_}" for corpus, print_ in sorted(contents))
    return f"{corpora}, {' and '.join(f'{size:,}' for size in sizes)} training images"


def _kind(record: RunRecord) -> tuple[str, str, int]:
    """Return what runs must have in common for one to be better than another."""
    return record.config.corpus, record.corpus_fingerprint, record.config.train_images


def _row(record: RunRecord) -> dict[str, Any]:
    return {
        "run_id": record.config.run_id,
        "method": record.config.method,
        **_flatten(record.config.model_dump(mode="json")),
        "best_epoch": record.best_epoch,
        "validation_rsum": record.validation_rsum,
        **{name: record.test[name] for name in TEST_COLUMNS},
        "collapsed": record.collapsed,
        "seconds": record.seconds,
        "corpus_fingerprint": record.corpus_fingerprint,
        **{f"made.{name}": value for name, value in sorted(record.made.items())},
    }


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested mappings, each named by its path with dots."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _parse(term: str) -> tuple[str, list[Any]]:
    name, equals, values = term.partition("=")
    if not equals:
        # Keyboards have no multiplication sign and few have a τ.
        name, values = "method", name.replace(" x ", " × ").replace("tau", "τ")
    if not name.strip() or not values.strip():
        raise LedgerError(f"{term!r} is not a term: write NAME=VALUE, or a method alone")
    return name.strip(), [_value(text.strip()) for text in values.split("|")]


def _value(text: str) -> Any:
    try:
        value = read_yaml(text)
    except YAMLError:
        return text
    # YAML reads 1e-3 as text.
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return text
    return text if value is None else value


def _matches(value: Any, wanted: Sequence[Any]) -> bool:
    return any(value == one or str(value) == str(one) for one in wanted)


def _column(name: str, columns: Sequence[str]) -> str:
    if name in columns:
        return name
    ends = [column for column in columns if column.rpartition(".")[2] == name]
    if ends:
        return min(ends, key=len)
    raise LedgerError(
        f"runs have no column {name!r}{did_you_mean(name, columns)}; they have: "
        f"{', '.join(columns)}"
    )
