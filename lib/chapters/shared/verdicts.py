"""From comparisons to the finding that answers a claim; its sentence states computed values."""

from collections.abc import Sequence

import pandas as pd

from lib.chapters.shared.findings import ClaimVerdict, Estimate, Finding
from lib.runs import TEST_COLUMNS
from lib.statistics import (
    compare_methods,
    compare_pairs,
    comparison_table,
    minimum_detectable_effect,
)

PRIMARY_METRICS = {"i2t_r1": "i2t R@1", "t2i_r1": "t2i R@1"}
"""The metrics that the paper's claims on retrieval are about."""

FAMILY = 50
"""Number of comparisons that each comparison of the book is judged among.

A family is what a chapter asks with one table, 50 comparisons at most; a larger table is cut into
several. The number is the same for all, so that a comparison has one verdict in the whole book,
whatever it stands beside."""

PAPER_METHOD = "variance × direction"
"""Our reconstruction of the paper's scheduler."""

ANSWERS: dict[ClaimVerdict, str] = {
    "improves": "It does",
    "worsens": "It does not: it is worse",
    "equivalent": "It makes no difference that matters",
    "undecided": "The runs do not decide it",
}


def against(
    runs: pd.DataFrame, baseline: str, margin: float, *, within: str | None = None
) -> pd.DataFrame:
    """Compare every other method with one baseline on the primary metrics, one family.

    Args:
        runs: One row per run: ``method``, ``seed`` and the metrics.
        baseline: A method.
        margin: Points within which a difference is none.
        within: A column of settings; methods are compared within each of them.

    Returns:
        One row per method and metric: ``method``, ``baseline``, ``metric``, ``estimate``, ``low``,
        ``high`` and the other columns of :func:`lib.statistics.comparison_table`.
    """
    compared = compare_methods(
        runs, baseline, list(PRIMARY_METRICS), margin=margin, family=FAMILY, within=within
    )
    return comparison_table(compared, PRIMARY_METRICS, within)


def against_each(
    runs: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    margin: float,
    *,
    within: str | None = None,
) -> pd.DataFrame:
    """Compare chosen pairs, (method, baseline), on the primary metrics as one family; columns as in
    :func:`against`."""
    compared = compare_pairs(
        runs, pairs, list(PRIMARY_METRICS), margin=margin, family=FAMILY, within=within
    )
    return comparison_table(compared, PRIMARY_METRICS, within)


def against_on_all(runs: pd.DataFrame, baseline: str, margin: float) -> pd.DataFrame:
    """Compare every other method with one baseline on all test metrics, one family per metric.

    Args:
        runs, baseline: As for :func:`against`.
        margin: Of a recall, in points; rSum, a sum of six, gets six times as much and a median rank
            half a rank.

    Returns:
        Columns as in :func:`against`; ``metric`` holds the names of :data:`lib.runs.TEST_COLUMNS`.
    """
    tables = []
    for name in TEST_COLUMNS:
        is_rank = name.endswith("rank")
        allowed = 0.5 if is_rank else 6 * margin if name == "rsum" else margin
        lower = [name] if is_rank else []
        compared = compare_methods(
            runs, baseline, [name], margin=allowed, family=FAMILY, lower_is_better=lower
        )
        tables.append(comparison_table(compared))
    return pd.concat(tables, ignore_index=True)


def beyond_chance(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a comparison whose method improves or worsens."""
    return table[table["verdict"].isin(["improves", "worsens"])]


def overall(table: pd.DataFrame, by: str = "baseline") -> ClaimVerdict:
    """Return one verdict for the rows of a claim.

    *equivalent* if every row is. *improves* if, against every baseline (or value of ``by``), at
    least one metric improves and none worsens; *worsens* likewise. *undecided* otherwise.
    """
    verdicts = set(table["verdict"])
    if verdicts == {"equivalent"}:
        return "equivalent"
    groups = [set(rows["verdict"]) for _, rows in table.groupby(by)]
    if "worsens" not in verdicts and all("improves" in found for found in groups):
        return "improves"
    if "improves" not in verdicts and all("worsens" in found for found in groups):
        return "worsens"
    return "undecided"


def judge(
    claim: int,
    notebook: str,
    table: pd.DataFrame,
    *,
    corpus: str,
    train_images: int,
    margin: float,
) -> Finding:
    """Return the finding that answers a claim with R@1, from its comparisons.

    Args:
        claim: The claim's number.
        notebook: The name of the notebook that publishes the answer.
        table: Rows of :func:`against` that the claim is about.
        corpus, train_images: The corpus and the number of training images.
        margin: Points within which a difference is none.
    """
    return answer_claim(
        claim,
        notebook,
        table,
        f"Differences within ±{margin:g} points count as none.",
        detectable(table, "points"),
        corpus=corpus,
        train_images=train_images,
    )


def answer_claim(
    claim: int,
    notebook: str,
    table: pd.DataFrame,
    remarks: str,
    found: str,
    *,
    corpus: str,
    train_images: int,
    measure: str = "",
    place: str = "on",
    by: str = "baseline",
) -> Finding:
    """Return a claim's finding: the verdict, the estimates, and the sentences that state them.

    Args:
        claim, notebook, corpus, train_images: As for :func:`judge`.
        table, by: The rows that the claim is about, for :func:`estimates` and :func:`overall`.
        remarks: The sentences after the first.
        found: Of :func:`detectable`; empty, the summary leaves out its sentence.
        measure, place: The words before the methods' names, and between them and the corpus.
    """
    verdict = overall(table, by)
    power = f" A true difference of {found} is found with probability 0.8." if found else ""
    same = identical(table)
    return Finding(
        claim=claim,
        verdict=verdict,
        notebook=notebook,
        estimates=estimates(table),
        summary=f"{ANSWERS[verdict]}: {measure}{', '.join(dict.fromkeys(table['method']))} against "
        f"{' and '.join(dict.fromkeys(table['baseline']))} {place} {corpus}, {train_images:,} "
        f"training images, {table['seeds'].min()} paired seeds. {same}{remarks}{power}",
        corpus=corpus,
        train_images=train_images,
    )


def identical(table: pd.DataFrame) -> str:
    """Return a sentence on the comparisons in which most seeds give both methods the same value;
    empty if there are none.

    >>> row = {"metric": "i2t R@1", "method": "a", "baseline": "b", "identical": 19, "seeds": 20}
    >>> identical(pd.DataFrame([row, row | {"metric": "t2i R@1", "identical": 20}]))
    'a and b have the same i2t R@1 in 19 of 20 runs, t2i R@1 in all 20 runs. '
    """
    sentences = []
    for (method, baseline), rows in table.groupby(["method", "baseline"], sort=False):
        same = [row for row in rows.itertuples() if mostly_identical(row.identical, row.seeds)]
        if len(same) > 2:
            counts = [row.identical for row in same]
            shared = (
                f"value in {min(counts)} to {max(counts)} of {same[0].seeds} runs in "
                f"{len(same)} of {len(rows)} comparisons"
            )
        else:
            shared = ", ".join(
                f"{row.metric} in {_counted(row.identical, row.seeds)} runs" for row in same
            )
        if same:
            sentences.append(f"{method} and {baseline} have the same {shared}. ")
    return "".join(sentences)


def _counted(same: int, seeds: int) -> str:
    return f"all {seeds}" if same == seeds else f"{same} of {seeds}"


def mostly_identical(same: int, seeds: int) -> bool:
    """Return whether two methods give the same value at more than half of the seeds. Their
    differences then have no spread from which a power could be computed."""
    return 2 * same > seeds


def detectable(table: pd.DataFrame, unit: str) -> str:
    """Return the true difference that is found with probability 0.8 in the comparison whose runs
    vary the most; empty if all are :func:`mostly_identical`.

    Args:
        table: Rows of :func:`against`.
        unit: Of the differences.

    >>> row = {"deviation": 0.5, "seeds": 20, "identical": 0}
    >>> detectable(pd.DataFrame([row, row | {"deviation": 0.1}]), "points")
    '0.54 points'
    """
    moving = [r for r in table.itertuples() if not mostly_identical(r.identical, r.seeds)]
    if not moving:
        return ""
    widest = max(moving, key=lambda row: row.deviation)
    effect = minimum_detectable_effect(widest.deviation, widest.seeds, alpha=0.05 / FAMILY)
    size = f"{effect:.2f}" if effect >= 0.01 else "less than 0.01"
    return f"{size} {unit}"


def estimates(table: pd.DataFrame) -> tuple[Estimate, ...]:
    """Return the rows of a comparison as a finding holds them.

    Args:
        table: Rows of :func:`against` or :func:`lib.statistics.comparison_table`, perhaps with
            other fields of :class:`lib.chapters.shared.findings.Estimate`; the rest is ignored.

    >>> row = {"metric": "epochs to 95 %", "baseline": "fixed", "method": "yours", "deviation": 1.0,
    ...        "estimate": -2.0, "low": -3.0, "high": -1.0, "seeds": 20, "verdict": "improves"}
    >>> (found,) = estimates(pd.DataFrame([row]).assign(unit="epochs", lower_is_better=True))
    >>> found.unit, found.lower_is_better, found.margin
    ('epochs', True, None)
    """
    columns = [name for name in Estimate.model_fields if name in table]
    return tuple(Estimate.model_validate(row) for row in table[columns].to_dict("records"))


def claim_rows(table: pd.DataFrame, method: str = PAPER_METHOD) -> pd.DataFrame:
    """Return the rows of one method.

    Raises:
        ValueError: The method is not in the table.
    """
    rows = table[table["method"] == method]
    if rows.empty:
        raise ValueError(
            f"the claim is about {method!r}, which is not among the methods compared; run the "
            "notebook with the signal and the actuator that form it"
        )
    return rows
