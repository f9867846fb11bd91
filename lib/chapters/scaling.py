"""How a sweep scales: timed on this machine's processes, and estimated for many more workers."""

import math
import os
import pickle
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from lib.chapters.shared import charts
from lib.runs import RunConfig, RunRecord, Store
from lib.training import Lab, load_features
from lib.training.executors import Processes, cores, open_executor


def speed_chart(times: pd.DataFrame) -> alt.LayerChart:
    """Draw runs per minute against the number of processes that share the machine's cores, from the
    times of :func:`scaling_tables`."""
    table = times.assign(rate=60 * times["runs"] / times["seconds"])
    alone = table[table["workers"] == 0].assign(label="without other processes")
    spread = table[table["workers"] > 0].sort_values("workers")
    x = alt.X("workers:Q").title("processes").axis(tickMinStep=1, format="d").scale(zero=False)
    y = alt.Y("rate:Q").title("runs a minute").scale(zero=True)
    tooltip = [alt.Tooltip("workers:Q"), alt.Tooltip("rate:Q", format=".1f", title="runs a minute")]
    base = alt.Chart(spread).encode(x, y)
    line = base.mark_line(color=charts.BLUE)
    points = base.mark_point(color=charts.BLUE, filled=True, size=70).encode(tooltip=tooltip)
    level = alt.Chart(alone).mark_rule(color=charts.VERMILLION).encode(y, tooltip=tooltip)
    name = (
        alt.Chart(alone)
        .mark_text(align="left", dx=4, dy=-7, color=charts.VERMILLION)
        .encode(y, alt.Text("label:N"), x=alt.value(0))
    )
    return charts.page_wide(
        [level, name, line, points],
        260,
        "What more processes gain on one machine",
        f"all of them share its {int(alone['cores'].iloc[0])} cores",
    )


def plan_chart(planned: pd.DataFrame, runs: int, limit: int) -> alt.LayerChart:
    """Draw the time of a large sweep against the number of workers, both on log scales.

    Args:
        planned: Of :func:`plan`.
        runs: The number of runs in the sweep.
        limit: Of :func:`useful_workers`.
    """
    minutes = planned.assign(
        total=planned["total"] / 60,
        **{name: planned[name] / 60 for name in ("training", "keeping")},
    )
    parts = minutes.melt("workers", ["total", "training", "keeping"], "part", "minutes")
    parts["part"] = parts["part"].replace(
        {"total": "the sweep", "training": "a worker's training", "keeping": "keeping all records"}
    )
    order = ["the sweep", "a worker's training", "keeping all records"]
    lines = (
        alt.Chart(parts)
        .mark_line(point=True)
        .encode(
            alt.X("workers:Q").scale(type="log").title("workers (log scale)"),
            alt.Y("minutes:Q").scale(type="log").title("minutes (log scale)"),
            alt.Color("part:N").title(None).sort(order),
            alt.StrokeDash("part:N").sort(order).legend(None),
            tooltip=["part:N", "workers:Q", alt.Tooltip("minutes:Q", format=".3g")],
        )
    )
    end = (
        alt.Chart(pd.DataFrame({"workers": [limit]}))
        .mark_rule(color=charts.GREY, strokeDash=[4, 4])
        .encode(alt.X("workers:Q"), tooltip=[alt.Tooltip("workers:Q", title="useful workers")])
    )
    return charts.page_wide(
        [lines, end],
        300,
        f"A sweep of {runs:,} runs, reckoned",
        f"dashed upright: beyond {limit:,} workers, more are no help",
    )


CALLS = 50
"""Empty calls, and records kept, over which a cost is averaged."""


def scaling_tables(
    lab: Lab, configs: Sequence[RunConfig], workers: Sequence[int]
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Return the times and costs that were measured once, on the machine that made the store.

    Args:
        lab: Where to train; its executor is replaced by each that is tried.
        configs: Runs of one corpus.
        workers: Numbers of processes to try.

    Returns:
        The times: ``workers`` (0: none, this process alone), ``seconds``, ``runs``, ``equal``
        (whether every record equals that of this process bit for bit), ``cores``. The costs:
        seconds and bytes, as :func:`measure_costs` explains.
    """
    key = {"runs": [config.run_id for config in configs], "workers": list(workers)}
    times = lab.store.table("scaling", key, lambda: measure_times(lab, configs, workers))
    costs = lab.store.table("scaling-costs", key, lambda: measure_costs(lab, configs[0]))
    return times, costs.iloc[0].to_dict()


def measure_times(lab: Lab, configs: Sequence[RunConfig], workers: Sequence[int]) -> pd.DataFrame:
    """Train the runs anew in this process, then on each number of processes, and time each."""
    # Features are computed now, so that no time includes them.
    lab.train([configs[0]])
    serial, rows = None, []
    for count in (0, *workers):
        with open_executor(f"processes:{count}" if count else "serial") as pool:
            if pool is not None:
                _start(pool, count)
            records, seconds = _timed(partial(_train_anew, lab, configs, pool))
        serial = records if serial is None else serial
        equal = all(not a.difference(b) for a, b in zip(serial, records, strict=True))
        rows.append((count, seconds, len(configs), equal, cores()))
    return pd.DataFrame(rows, columns=["workers", "seconds", "runs", "equal", "cores"])


def measure_costs(lab: Lab, config: RunConfig) -> pd.DataFrame:
    """Measure what a sweep costs beside training, in one row.

    Seconds: ``start`` of a new process until it answers, ``call`` of an empty call, ``keep`` to put
    a record into the store. Bytes: ``features`` sent to a worker once, ``config`` and ``record``
    sent per run, and ``stored``, the run's file.
    """
    (record,) = lab.train([config])
    features = lab.features or load_features(
        config.corpus,
        config.on_bad_sample,
        config.image_tower,
        config.text_tower,
        corpus_root=lab.corpus_root,
        device=lab.device,
    )
    pool = Processes(1)
    pool.shutdown(cancel_futures=True)
    _, start = _timed(lambda: _start(pool, 1))
    _, call = _timed(lambda: [pool.submit(os.getpid).result() for _ in range(CALLS)])
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder=Path(folder))
        _, keep = _timed(partial(_keep, store, record))
        stored = next(store.folder.glob("??/*.json")).stat().st_size
    row = {
        "start": start,
        "call": call / CALLS,
        "keep": keep / CALLS,
        "features": features.image.nbytes + features.text.nbytes,
        "config": len(pickle.dumps(config)),
        "record": len(pickle.dumps(record)),
        "stored": stored,
    }
    return pd.DataFrame([row])


def plan(
    runs: int, workers: Sequence[int], seconds: float, costs: Mapping[str, Any], bandwidth: float
) -> pd.DataFrame:
    """Estimate how long a sweep takes on many workers, from what was measured on few.

    Workers start together. In each round, every worker with the features sends them to one more.
    Workers get equal shares of the runs; one process distributes them and keeps the records.

    Args:
        runs: The number of runs.
        workers: Numbers of workers.
        seconds: Of a run on one worker.
        costs: ``start``, ``call``, ``keep`` and ``features`` as of :func:`measure_costs`.
        bandwidth: Of a worker's network, in bytes per second.

    Returns:
        One row per number of workers, in seconds: ``workers``, ``training``,
        ``keeping``, ``sending``, ``total``, and ``speedup`` over one worker.

    >>> free = {"start": 0.0, "call": 0.0, "keep": 0.0, "features": 0}
    >>> plan(100, [1, 10, 200], 2.0, free, 1.0)["total"].tolist()
    [200.0, 20.0, 2.0]
    """
    rows = []
    for count in workers:
        training = math.ceil(runs / count) * seconds
        keeping = runs * (costs["call"] + costs["keep"])
        sending = math.ceil(math.log2(count + 1)) * costs["features"] / bandwidth
        total = costs["start"] + sending + max(training, keeping)
        rows.append([count, training, keeping, sending, total])
    table = pd.DataFrame(rows, columns=["workers", "training", "keeping", "sending", "total"])
    alone = costs["start"] + costs["features"] / bandwidth + max(runs * seconds, rows[0][2])
    return table.assign(speedup=alone / table["total"])


def useful_workers(runs: int, seconds: float, costs: Mapping[str, Any]) -> int:
    """Return how many workers a sweep can use: at most its runs, and what one process can serve.

    >>> useful_workers(2000, 2.0, {"call": 0.001, "keep": 0.003})
    500
    """
    return max(1, min(runs, int(seconds / (costs["call"] + costs["keep"]))))


def seconds_a_run(times: pd.DataFrame) -> float:
    """Return the seconds that a run takes on one worker, from the fewest workers tried."""
    spread = times[times["workers"] > 0]
    first = spread.loc[spread["workers"].idxmin()]
    return float(first["seconds"] * first["workers"] / first["runs"])


def travel_table(costs: Mapping[str, float], runs: int) -> pd.DataFrame:
    """Return the data sent and kept: ``what``, ``kilobytes`` of one, megabytes of ``all``."""
    sizes = [
        ("features, to each worker, once", costs["features"], 1),
        ("configuration, to a worker, a run", costs["config"], runs),
        ("record, from a worker, a run", costs["record"], runs),
        ("file in the store, a run", costs["stored"], runs),
    ]
    rows = [(what, size / 1e3, size * count / 1e6) for what, size, count in sizes]
    return pd.DataFrame(rows, columns=["what", "kilobytes", "all"])


def conclusion(
    times: pd.DataFrame, planned: pd.DataFrame, runs: int, seconds: float, limit: int
) -> str:
    """Return sentences on what was measured and what is estimated."""
    spread = times[times["workers"] > 0]
    best = spread.loc[spread["seconds"].idxmin()]
    alone = times[times["workers"] == 0].iloc[0]
    last = planned.iloc[-1]
    most = int(last["workers"])
    same = "Every record is equal bit for bit" if times["equal"].all() else "Some records differ"
    reach = (
        "The process that keeps the records can serve them all."
        if limit >= most
        else f"More than {limit:,} workers are no help: then the runs, or the one process that "
        "keeps the records, are the limit."
    )
    return (
        f"{same}, wherever the run was trained. On {int(best['cores'])} cores, "
        f"{int(best['workers'])} processes took {best['seconds'] / alone['seconds']:.2f} of the "
        f"time of one process that uses all cores. A sweep of {runs:,} such runs, "
        f"{runs * seconds / 3600:.1f} hours for one worker, would take {last['total'] / 60:.1f} "
        f"minutes on {most:,}. {reach}"
    )


def _train_anew(lab: Lab, configs: Sequence[RunConfig], pool: Executor | None) -> list[RunRecord]:
    with tempfile.TemporaryDirectory() as folder:
        none = Path(folder) / "none"
        store = Store(folder=Path(folder) / "runs", published=none)
        return replace(lab, store=store, executor=pool or "serial").train(configs)


def _keep(store: Store, record: RunRecord) -> None:
    for _ in range(CALLS):
        store.put(record)


def _start(pool: Executor, count: int) -> None:
    """Wait until ``count`` processes have started and imported what training needs."""
    for future in [pool.submit(_import_training) for _ in range(count)]:
        future.result()


def _import_training() -> None:
    import lib.training  # noqa: F401


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    begun = time.perf_counter()
    result = work()
    return result, time.perf_counter() - begun
