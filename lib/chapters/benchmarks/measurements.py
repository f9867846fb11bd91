"""Read what ``make bench`` measured and compare it with its targets; nothing is timed here."""

import datetime
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, get_args

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Case = Literal["step", "training", "recall", "batches"]
CASES: tuple[Case, ...] = get_args(Case)
LOOP, STACKS = "plain loop", "ours, in stacks"
"""The names of two ways to train many seeds."""
WHOLE = "whole batch"
"""The name of the way to a batch's gradients without micro-batches."""
FOLDER = Path(__file__).parent / "measured"
"""The last measurements, one file per case; they come with the package."""
Value = str | float | int | None
STATISTIC = {**dict.fromkeys(CASES, "shortest"), "training": "median"}
"""The times whose ratio a case gives. The shortest of turns of milliseconds is what the work costs.
A turn of whole trainings lasts through better and worse moments of a machine, which the turns of
one round share; there the ratio is the median over rounds."""


class MeasurementError(ValueError):
    """A file of measurements is missing or malformed; the text names it and says what to do."""


class Machine(BaseModel):
    """What a ratio may depend on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    processor: str
    system: str
    cores: int = Field(ge=1)
    memory_gib: float = Field(gt=0)
    threads: int = Field(ge=1)


class Measured(BaseModel):
    """One case's measurements.

    Attributes:
        case: Its name.
        date: When they were made.
        quick: Whether they were made only to see that it works.
        machine: Where.
        versions: Of Python, torch and the peers.
        absent: Peers that were not installed.
        rows: The figures, each with what it is of.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    case: Case
    date: datetime.date
    quick: bool
    machine: Machine
    versions: dict[str, str]
    absent: list[str]
    rows: list[dict[str, Value]] = Field(min_length=1)

    def part(self, name: str) -> pd.DataFrame:
        """Return the rows of a part with its columns, and with ``ratio``, the case's statistic, if
        it has times.

        Raises:
            MeasurementError: There is no such part.
        """
        rows = [row for row in self.rows if row.get("part") == name]
        if not rows:
            raise MeasurementError(f"{self.case}.json has no part {name!r}: {_AGAIN}")
        table = pd.DataFrame(rows).drop(columns="part").dropna(axis=1, how="all")
        statistic = STATISTIC[self.case]
        return table.assign(ratio=table[statistic]) if statistic in table else table


_AGAIN = "measure again with `make bench`"


def read_measurements(folder: str = "") -> dict[str, Measured]:
    """Return what was measured, by case, from a folder; empty, from the files of the package.

    Raises:
        MeasurementError: A file is missing or malformed.
    """
    place = Path(folder).expanduser() if folder else FOLDER
    found: dict[str, Measured] = {}
    for case in CASES:
        path = place / f"{case}.json"
        try:
            found[case] = Measured.model_validate_json(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise MeasurementError(
                f"{path} can't be read ({error.strerror}): name a folder of measurements as "
                f"`results`, or {_AGAIN}"
            ) from error
        except (ValidationError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise MeasurementError(f"{path} is malformed, {_AGAIN}: {error}") from error
    return found


def conditions(measured: Mapping[str, Measured]) -> str:
    """Return where, when and with which versions the measurements were made, as Markdown."""
    groups: dict[str, list[str]] = {}
    for case, one in measured.items():
        m = one.machine
        peers = ", ".join(f"{name} {number}" for name, number in sorted(one.versions.items()))
        missing = f" Absent: {', '.join(one.absent)}." if one.absent else ""
        quick = " **Quick numbers, not to be published.**" if one.quick else ""
        text = (
            f"{one.date:%-d %B %Y}, {m.processor}, {m.system}: {m.threads} threads on {m.cores} "
            f"cores, {m.memory_gib:.0f} GiB. {peers}.{missing}{quick}"
        )
        groups.setdefault(text, []).append(case)
    return "\n\n".join(f"*{', '.join(cases)}*: {text}" for text, cases in groups.items())


def targets(
    measured: Mapping[str, Measured],
    *,
    overhead: float,
    large_overhead: float,
    products: float,
    speedup: float,
    recall_products: float,
    memory_mib: int,
    recomputation: float,
) -> pd.DataFrame:
    """Compare the measurements with their targets.

    Args:
        measured: Of :func:`read_measurements`.
        overhead: Most that a scheduled step may take beyond the plain loss's, as a share, at the
            smallest batch.
        large_overhead: The same at the largest batch.
        products: Most that many seeds may take, in times of their matrix products alone.
        speedup: Least by which they should be faster than a loop, on small batches.
        recall_products: Most that recall may take, in times of the matrix product.
        memory_mib: Peak of memory that recall over the large gallery must stay under.
        recomputation: Most that the largest batch may take from micro-batches, in times of the
            whole batch at once.

    Returns:
        ``what``, ``target`` and ``measured`` in words, and ``met``: None if a peer was absent.
    """
    rows = [
        *_step_targets(measured["step"], overhead, large_overhead),
        *_training_targets(measured["training"], products, speedup),
        *_recall_targets(measured["recall"], recall_products),
        _memory_target(measured["recall"], memory_mib),
        _batches_target(measured["batches"], recomputation),
    ]
    return pd.DataFrame(rows, columns=["what", "target", "measured", "met"])


Target = tuple[str, str, str, bool | None]


def _step_targets(step: Measured, smallest: float, largest: float) -> Iterator[Target]:
    peers = step.part("against peers")
    for size, overhead in ((peers["batch"].min(), smallest), (peers["batch"].max(), largest)):
        ways = peers[peers["batch"] == size]
        target = f"at most {overhead:.0%}"
        alone = _ratio(ways, "scheduler alone")
        what = f"the scheduler at B = {size:,}, as a share of a plain step"
        yield what, target, f"{alone:.1%}", alone <= overhead
        share = _ratio(ways, "scheduled loss") - 1
        what = f"the whole scheduled step at B = {size:,}, beyond the plain one"
        yield what, target, f"{share:+.1%}", share <= overhead


def _training_targets(training: Measured, products: float, speedup: float) -> Iterator[Target]:
    whole, alone = training.part("whole runs"), training.part("training alone")
    study = alone[alone["shape"] == whole["shape"].iloc[0]]
    for name, table in (("training", study), ("whole runs", whole)):
        ratio = _ratio(table, STACKS)
        yield (
            f"{_only(table, 'runs')} seeds, {name}, B = {_only(table, 'batch')}, in times of the "
            "matrix products",
            f"at most {products:g}",
            f"{ratio:.2f}",
            ratio <= products,
        )
    small = alone[~alone["shape"].isin(whole["shape"])]
    for shape, gain in _gains(small, STACKS).items():
        runs = _only(small[small["shape"] == shape], "runs")
        what = f"{runs} seeds, training, {shape}, times as fast as a plain loop"
        yield what, f"at least {speedup:g}", f"{gain:.2f}", gain >= speedup


def _recall_targets(recall: Measured, products: float) -> Iterator[Target]:
    ways = recall.part("against peers")
    ratio = _ratio(ways, "recall_at_k")
    gallery = f"recall, {_only(ways, 'images'):,} × {_only(ways, 'captions'):,}"
    what = f"{gallery}, in times of the matrix product"
    yield what, f"at most {products:g}", f"{ratio:.2f}", ratio <= products
    what = f"{gallery}, in times of exact faiss, k = 10"
    if "faiss, exact search" in set(ways["way"]):
        ratio /= _ratio(ways, "faiss, exact search")
        yield what, "at most 1", f"{ratio:.2f}", ratio <= 1
    else:
        yield what, "at most 1", "faiss was absent", None


def _memory_target(recall: Measured, memory_mib: int) -> Target:
    memory = recall.part("growth, memory")
    large = memory[(memory["images"] == 20_000) & (memory["captions"] == 100_000)]
    what, target = "recall, 20,000 × 100,000", f"under {memory_mib:,} MiB"
    if large.empty:
        return what, target, "not measured", None
    peak = float(large.iloc[0]["peak_mib"])
    return f"{what}, peak memory of the process", target, f"{peak:,.0f} MiB", peak < memory_mib


def _batches_target(batches: Measured, recomputation: float) -> Target:
    time = batches.part("time")
    largest = time[time["batch"] == time["batch"].max()]
    way = _in_parts(time)
    ratio = _ratio(largest, way)
    what = f"B = {_only(largest, 'batch'):,} from {way}, in times of the whole batch at once"
    return what, f"at most {recomputation:g}", f"{ratio:.2f}", ratio <= recomputation


def _in_parts(table: pd.DataFrame) -> str:
    """Return the name of the way that is not the whole batch at once."""
    return next(str(way) for way in table["way"] if way != WHOLE)


def needed(memory: pd.DataFrame) -> pd.DataFrame:
    """Return ``batch``, ``way`` and ``mib``, the memory beyond what was held before the work, from
    the part ``memory`` of the case ``batches``."""
    return memory.assign(mib=memory["peak_mib"] - memory["imports_mib"])


def micro_batches(batches: Measured) -> str:
    """Return a sentence on the time and the memory of the largest batch from micro-batches."""
    time, memory = batches.part("time"), needed(batches.part("memory"))
    way, size = _in_parts(time), int(time["batch"].max())
    ratio = _ratio(time[time["batch"] == size], way)
    held = memory[memory["batch"] == size].set_index("way")["mib"]
    return (
        f"At B = {size:,}, {way} take {ratio:.2f} times as long as the whole batch at once, and "
        f"{held[way] / held[WHOLE]:.0%} of its memory."
    )


def speedups(curve: pd.DataFrame) -> pd.DataFrame:
    """Return how much faster stacks train runs than a loop: ``shape`` (in the order measured),
    ``runs`` and ``speedup``, from the part ``curve`` of the case ``training``."""
    wide = curve.pivot(index=["shape", "runs"], columns="way", values="ratio")
    gain = wide[LOOP] / wide[STACKS]
    order = list(dict.fromkeys(curve["shape"]))
    return gain.rename("speedup").reindex(order, level="shape").reset_index()


def shares(growth: pd.DataFrame) -> pd.DataFrame:
    """Return ``scheduler``, the time of the scheduler alone, and ``step``, what a scheduled step
    takes more, in percent of a plain step by ``batch``, from the part ``growth`` of ``step``."""
    wide = growth.pivot(index="batch", columns="way", values="ratio")
    return pd.DataFrame(
        {
            "batch": wide.index,
            "scheduler": 100 * wide["scheduler alone"].to_numpy(),
            "step": 100 * (wide["scheduled loss"].to_numpy() - 1),
        }
    )


def answer(held: pd.DataFrame) -> str:
    """Return sentences that count the targets met, of :func:`targets`, and name the others.

    >>> answer(pd.DataFrame({"what": ["a", "b"], "target": ["at most 1", "at most 2"],
    ...                      "measured": ["0.5", "3"], "met": [True, False]}))
    '1 of 2 targets are met. **Missed:** b: 3 (target: at most 2).'
    """
    known = held[held["met"].notna()]
    met = int(known["met"].astype(bool).sum())
    counted = f"All {met}" if met == len(held) else f"{met} of {len(held)}"
    sentences = [f"{counted} targets are met."]
    for heading, part in (
        ("Missed", known[~known["met"].astype(bool)]),
        ("Not measured", held[held["met"].isna()]),
    ):
        if len(part):
            each = "; ".join(
                f"{r.what}: {r.measured} (target: {r.target})" for r in part.itertuples()
            )
            sentences.append(f"**{heading}:** {each}.")
    return " ".join(sentences)


def fastest(alone: pd.DataFrame) -> str:
    """Return a sentence on the fastest way to train many seeds and how ours compares, by shape,
    from the part ``training alone`` of the case ``training``."""
    shapes_by_way: dict[str, list[str]] = {}
    trained = alone[~alone["way"].str.startswith("matrix products")]
    for shape, table in trained.groupby("shape", sort=False):
        first = table.loc[table["ratio"].idxmin()]
        behind = _ratio(table, STACKS) / float(first["ratio"])
        ours = "" if behind == 1 else f", ours takes {behind:.2f} of its time"
        shapes_by_way.setdefault(str(first["way"]), []).append(f"{shape}{ours}")
    ways = [f"{way} ({'; '.join(shapes)})" for way, shapes in shapes_by_way.items()]
    return f"Seeds train fastest by {'; by '.join(ways)}."


def limits(alone: pd.DataFrame) -> str:
    """Return a sentence on how much faster than a plain loop any way with PyTorch's products and
    updates could be, by shape, from the part ``training alone`` of the case ``training``."""
    gains = _gains(alone, "matrix products and AdamW, fused")
    listed = "; ".join(f"{gain:.1f} times ({shape})" for shape, gain in gains.items())
    return (
        "A way that did nothing beside PyTorch's matrix products and its fused AdamW, run by run, "
        f"would be faster than the plain loop by {listed}."
    )


def by_shortest_turns(training: Measured) -> str:
    """Return a sentence with the ratios of the case ``training`` by the other statistic, which
    shows how uncertain they are."""
    whole, alone = (
        table.assign(ratio=table["shortest"])
        for table in (training.part("whole runs"), training.part("training alone"))
    )
    gains = [f"{gain:.2f} times ({shape})" for shape, gain in _gains(alone, STACKS).items()]
    return (
        f"By the shortest turns of {int(whole['rounds'].min())} or more, whole runs as stacks take "
        f"{_ratio(whole, STACKS):.2f} times their matrix products, and training is faster than the "
        f"plain loop by {'; '.join(gains)}."
    )


def _ratio(table: pd.DataFrame, way: str) -> float:
    found = table[table["way"] == way]
    if len(found) != 1:
        raise MeasurementError(f"the measurements lack {way!r}: {_AGAIN}")
    return float(found.iloc[0]["ratio"])


def _only(table: pd.DataFrame, column: str) -> int:
    return int(table[column].iloc[0])


def _gains(alone: pd.DataFrame, way: str) -> dict[str, float]:
    """Return how many times as fast as the plain loop a way trains, shape by shape."""
    shapes = alone.groupby("shape", sort=False)
    return {str(shape): _ratio(table, LOOP) / _ratio(table, way) for shape, table in shapes}
