"""Paired comparisons over seeds, and the verdicts that a table of them supports.

How the study avoids false findings:

* One seed is not enough: the R@1 of one run has a standard error of about one point. A comparison
  needs at least two seeds.
* Methods are compared seed by seed, so that effects of the seed on both (subset, initial weights)
  cancel out. Seeds are matched by value, never by position.
* A family holds many comparisons. Of twenty methods without effect, one has p < 0.05 on average;
  so each is judged at the level alpha / family (Bonferroni), which keeps the probability of any
  false verdict in the family at alpha. The size of the family is given, so that a verdict does not
  depend on the table in which a comparison stands.
* A difference that is not found may still exist. *Equivalent* needs the whole interval, at the
  same level, inside a margin that was set before: two one-sided tests (Schuirmann, 1987).
  *Undecided* needs more seeds, by :func:`minimum_detectable_effect`.
* An interval does not cover a rare failure that no seed has: tables also count failed runs.
* None of this covers adding seeds until p falls below alpha: test once.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.special import chdtr

__all__ = [
    "Comparison",
    "Interval",
    "PairedComparison",
    "StatisticsError",
    "Verdict",
    "bayes_factor",
    "bootstrap_by_image",
    "compare_methods",
    "compare_pairs",
    "comparison_table",
    "minimum_detectable_effect",
    "paired_comparison",
    "power",
]

SAME = 1e-10
"""Relative size below which differences count as rounding errors."""


class StatisticsError(ValueError):
    """The given values do not support the comparison; the message says why. A :class:`ValueError`.

    >>> try:
    ...     paired_comparison({0: 2.0}, {0: 1.0})
    ... except StatisticsError as error:
    ...     print(str(error).split(":")[0])
    a comparison needs two seeds or more, but there is 1
    """


class Verdict(StrEnum):
    """The result of a comparison.

    ``EQUIVALENT``: the whole interval at the family's level lies inside the margin. Otherwise,
    ``IMPROVES`` or ``WORSENS``, by the difference's sign: the adjusted p-value is below alpha.
    ``UNDECIDED``: neither; more seeds can decide.

    >>> Verdict("improves") is Verdict.IMPROVES
    True
    """

    IMPROVES = "improves"
    WORSENS = "worsens"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Interval:
    """An estimate and its interval.

    Args:
        estimate: In the unit of the values.
        low: Lower end of the interval.
        high: Upper end of the interval.
        confidence: Confidence level of the interval.

    >>> Interval(estimate=0.5, low=0.3, high=0.7, confidence=0.95).high
    0.7
    """

    estimate: float
    low: float
    high: float
    confidence: float


@dataclass(frozen=True)
class PairedComparison(Interval):
    """The mean paired difference over seeds, treatment minus baseline.

    Args:
        estimate: In the unit of the values.
        low: Lower end of the interval.
        high: Upper end of the interval.
        confidence: Confidence level of the interval.
        p: Two-sided p-value of the hypothesis of no difference.
        standard_deviation: Standard deviation of the differences.
        seeds: Number of paired seeds.
        identical: Number of seeds at which both values are the same.

    >>> compared = paired_comparison({0: 2.0, 1: 3.0}, {0: 1.0, 1: 1.0})
    >>> compared.estimate, compared.seeds
    (1.5, 2)
    """

    p: float
    standard_deviation: float
    seeds: int
    identical: int = 0


@dataclass(frozen=True)
class Comparison:
    """One cell of a table of comparisons: a method's metric against the baseline's.

    Args:
        method: The treatment.
        baseline: The method that it is compared with.
        metric: The compared metric.
        paired: The difference over seeds, with its interval at 1 − alpha.
        margin: Methods within ± this, in the metric's unit, count as equivalent.
        lower_is_better: Whether a negative difference improves.
        family: Number of comparisons that it is judged among.
        adjusted: The interval at 1 − alpha / family, by which the verdict is decided.
        p_adjusted: The p-value times the family, at most 1.
        bayes_factor: Of :func:`lib.statistics.bayes_factor`.
        verdict: The result.
        setting: The setting of both methods' runs; None if the table has only one.

    >>> table = pd.DataFrame({"method": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1],
    ...                       "R@1": [10.0, 11.0, 10.0, 11.1]})
    >>> (comparison,) = compare_methods(table, "a", ["R@1"], margin=2.0)
    >>> comparison.method, comparison.baseline, comparison.verdict.value
    ('b', 'a', 'equivalent')
    """

    method: str
    baseline: str
    metric: str
    paired: PairedComparison
    margin: float
    lower_is_better: bool
    family: int
    adjusted: Interval
    p_adjusted: float
    bayes_factor: float
    verdict: Verdict
    setting: Any = None


def paired_comparison(
    treatment: Mapping[int, float] | pd.Series,
    baseline: Mapping[int, float] | pd.Series,
    confidence: float = 0.95,
) -> PairedComparison:
    """Return the paired t-test of two methods on the same seeds, with its interval.

    If all differences are equal, the interval is one point, and the p-value is that of the exact
    sign test, 2^(1 − seeds), or 1 if the differences are zero.

    Args:
        treatment: Seed to value, a mapping or a Series indexed by seed.
        baseline: The same seeds, in any order.
        confidence: Confidence level of the interval, in (0, 1).

    Returns:
        The mean difference in the values' unit, its interval and its p-value.

    Raises:
        StatisticsError: Fewer than two seeds, duplicate seeds, seeds of one method only, or a value
            that is not finite; the message names them.

    >>> ours, theirs = {0: 2.0, 1: 3.0, 2: 4.0}, {2: 2.0, 1: 2.0, 0: 2.0}
    >>> compared = paired_comparison(ours, theirs)
    >>> compared.estimate, round(compared.low, 3), round(compared.high, 3)
    (1.0, -1.484, 3.484)
    >>> round(compared.p, 3)
    0.225
    """
    if not 0 < confidence < 1:
        raise StatisticsError(f"confidence must be between 0 and 1, such as 0.95, not {confidence}")
    ours, theirs = _by_seed("treatment", treatment), _by_seed("baseline", baseline)
    lacking = {"treatment": set(theirs) - set(ours), "baseline": set(ours) - set(theirs)}
    if gaps := [f"{name} lacks seeds {sorted(seeds)}" for name, seeds in lacking.items() if seeds]:
        raise StatisticsError(f"the seeds don't match: {'; '.join(gaps)}. Run both on the same")
    if len(ours) < 2:
        raise StatisticsError(
            f"a comparison needs two seeds or more, but there is {len(ours)}: {sorted(ours)}. One "
            "seed decides nothing: run more of them"
        )
    a = np.array([ours[seed] for seed in sorted(ours)])
    b = np.array([theirs[seed] for seed in sorted(ours)])
    difference = a - b
    estimate, count = float(difference.mean()), len(difference)
    rounding = SAME * float(max(np.abs(a).max(), np.abs(b).max()))
    identical = int((np.abs(difference) <= rounding).sum())
    if np.ptp(difference) <= rounding:
        estimate = 0.0 if identical == count else estimate
        p, deviation = 1.0 if identical == count else 2.0 ** (1 - count), 0.0
    else:
        p, deviation = float(stats.ttest_rel(a, b).pvalue), float(difference.std(ddof=1))
    low, high = _t_interval(estimate, deviation, count, confidence)
    return PairedComparison(estimate, low, high, confidence, p, deviation, count, identical)


def _t_interval(
    mean: float, deviation: float, count: int, confidence: float
) -> tuple[float, float]:
    """Return the low and the high end of the interval of a mean."""
    half = float(stats.t.ppf((1 + confidence) / 2, count - 1)) * deviation / math.sqrt(count)
    return mean - half, mean + half


def compare_methods(
    table: pd.DataFrame,
    baseline: str,
    metrics: Sequence[str],
    *,
    margin: float | Mapping[str, float] = 0.3,
    alpha: float = 0.05,
    family: int | None = None,
    lower_is_better: Collection[str] = (),
    within: str | None = None,
) -> list[Comparison]:
    """Compare every method of a table with the baseline, on every metric.

    A method is *equivalent* if the whole (1 − alpha / family) interval lies inside ±margin: such a
    small difference does not matter, significant or not. Otherwise, if the p-value times the family
    is below alpha, it *improves* or *worsens*, by the difference's sign. Otherwise, it is
    *undecided*.

    Args:
        table: One row per method and seed, with columns ``method``, ``seed`` and the metrics.
        baseline: The method that the others are compared with, seed by seed.
        metrics: Columns to compare.
        margin: In the metrics' unit, or per metric if units differ; 0.3 recall points.
        alpha: Accepted probability of any false verdict in the family.
        family: Number of comparisons that each is judged among; None: those of this call, so name
            only the metrics of the question.
        lower_is_better: Metrics of which a lower value is better, such as a median rank.
        within: A column of settings, as for :func:`lib.statistics.compare_pairs`.

    Returns:
        The comparisons, by method in the table's order, then by metric.

    Raises:
        StatisticsError: A column, the baseline or every other method is missing, seeds do not match
            or are duplicate, a margin is not positive, or a value is not finite.

    Source:
        Equivalence by two one-sided tests, Schuirmann (1987); simultaneous intervals, Dunn (1961).

    >>> table = pd.DataFrame({"method": ["a"] * 3 + ["b"] * 3, "seed": [0, 1, 2] * 2,
    ...                       "R@1": [10.0, 11.0, 12.0, 10.1, 11.0, 12.1]})
    >>> compared = compare_methods(table, "a", ["R@1"])
    >>> [comparison.verdict.value for comparison in compared]
    ['equivalent']
    """
    _check_frame(table)
    methods = [] if "method" not in table else table["method"].unique().tolist()
    pairs = [(method, baseline) for method in methods if method != baseline]
    return compare_pairs(
        table,
        pairs or [(baseline, baseline)],
        metrics,
        margin=margin,
        alpha=alpha,
        family=family,
        lower_is_better=lower_is_better,
        within=within,
    )


def compare_pairs(
    table: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str],
    *,
    margin: float | Mapping[str, float] = 0.3,
    alpha: float = 0.05,
    family: int | None = None,
    lower_is_better: Collection[str] = (),
    within: str | None = None,
) -> list[Comparison]:
    """Compare chosen pairs of methods on every metric.

    Args:
        table: One row per method and seed, as for :func:`lib.statistics.compare_methods`.
        pairs: (method, baseline) of each comparison.
        metrics: Columns to compare.
        margin: In the metrics' unit, or per metric.
        alpha: Accepted probability of any false verdict in the family.
        family: As for :func:`lib.statistics.compare_methods`.
        lower_is_better: Metrics of which a lower value is better.
        within: A column of settings, such as the number of training images: a pair is compared
            within each setting that has runs of both methods.

    Returns:
        The comparisons, by setting in the table's order, then by pair as given, then by metric.

    Raises:
        StatisticsError: As :func:`lib.statistics.compare_methods`.

    Source:
        As :func:`lib.statistics.compare_methods`.

    >>> table = pd.DataFrame({
    ...     "method": ["a", "a", "a", "b", "b", "b", "c", "c", "c"],
    ...     "seed": [0, 1, 2, 0, 1, 2, 0, 1, 2],
    ...     "R@1": [10.0, 11.0, 12.0, 10.1, 11.0, 12.1, 14.0, 15.1, 16.1],
    ... })
    >>> compared = compare_pairs(table, [("b", "a"), ("c", "b")], ["R@1"])
    >>> [comparison.verdict.value for comparison in compared]
    ['equivalent', 'improves']
    >>> halves = table.assign(half=[0, 0, 0, 0, 0, 0, 1, 1, 1])
    >>> [one.setting for one in compare_pairs(halves, [("b", "a")], ["R@1"], within="half")]
    [0]
    """
    _check_frame(table)
    margins = dict(margin) if isinstance(margin, Mapping) else dict.fromkeys(metrics, margin)
    for _, baseline in pairs:
        _check_table(table, baseline, metrics, margins, alpha, lower_is_better)
    methods = set(table["method"])
    if unknown := sorted({method for method, _ in pairs} - methods):
        raise StatisticsError(
            f"methods {unknown} are not in the table, which has {sorted(methods)}"
        )
    settings = [(None, table)] if within is None else list(table.groupby(within, sort=False))
    cells, paired = [], []
    for setting, part in settings:
        rows = {method: group.set_index("seed") for method, group in part.groupby("method")}
        for method, baseline in pairs:
            if method not in rows or baseline not in rows:
                continue
            for metric in metrics:
                cells.append((setting, method, baseline, metric))
                values = rows[method][metric], rows[baseline][metric]
                try:
                    paired.append(paired_comparison(*values, 1 - alpha))
                except StatisticsError as error:
                    at = "" if within is None else f" at {within} {setting}"
                    raise StatisticsError(
                        f"{metric} of {method!r} (treatment) against {baseline!r} (baseline){at}: "
                        f"{error}"
                    ) from error
    if not cells:
        raise StatisticsError(f"no pair of {list(pairs)} was run at the same {within}")
    size = len(cells) if family is None else family
    if size < len(cells):
        raise StatisticsError(
            f"family = {family}, but there are {len(cells)} comparisons here: {len(pairs)} pairs "
            f"on {len(metrics)} metrics in {len(settings)} settings; compare fewer, or give more"
        )
    comparisons = []
    for (setting, method, baseline, metric), one in zip(cells, paired, strict=True):
        limit, p = margins[metric], min(1.0, size * one.p)
        level = 1 - alpha / size
        ends = _t_interval(one.estimate, one.standard_deviation, one.seeds, level)
        adjusted = Interval(one.estimate, ends[0], ends[1], level)
        lower = metric in lower_is_better
        verdict = _verdict(adjusted, limit, p, alpha, lower)
        comparisons.append(
            Comparison(
                *(method, baseline, metric, one, limit, lower, size, adjusted, p),
                *(bayes_factor(one), verdict, setting),
            )
        )
    return comparisons


def comparison_table(
    comparisons: Sequence[Comparison],
    names: Mapping[str, str] | None = None,
    within: str | None = None,
) -> pd.DataFrame:
    """Return a table with one row per comparison.

    Args:
        comparisons: From :func:`lib.statistics.compare_methods` or
            :func:`lib.statistics.compare_pairs`.
        names: Metric to displayed name; default, the metric.
        within: The column of settings of the comparisons, if there is one.

    Returns:
        ``method``, ``baseline``, ``metric``, ``estimate``, ``low`` and ``high`` (at 1 − alpha),
        ``wide_low`` and ``wide_high`` (at 1 − alpha / family), ``deviation`` (standard deviation of
        the paired differences), ``seeds``, ``identical`` (seeds without a difference), ``p``,
        ``p_adjusted``, ``bayes_factor``, ``family``, ``margin``, ``lower_is_better``, ``verdict``,
        and the column that ``within`` names.

    >>> table = pd.DataFrame({"method": ["a", "a", "b", "b"], "seed": [0, 1, 0, 1],
    ...                       "i2t_r1": [10.0, 11.0, 10.0, 11.1]})
    >>> compared = compare_methods(table, "a", ["i2t_r1"], margin=2.0)
    >>> shown = comparison_table(compared, {"i2t_r1": "i2t R@1"})
    >>> shown.loc[0, ["metric", "verdict"]].tolist()
    ['i2t R@1', 'equivalent']
    """
    return pd.DataFrame(
        [
            {
                "method": one.method,
                "baseline": one.baseline,
                "metric": (names or {}).get(one.metric, one.metric),
                "estimate": one.paired.estimate,
                "low": one.paired.low,
                "high": one.paired.high,
                "wide_low": one.adjusted.low,
                "wide_high": one.adjusted.high,
                "deviation": one.paired.standard_deviation,
                "seeds": one.paired.seeds,
                "identical": one.paired.identical,
                "p": one.paired.p,
                "p_adjusted": one.p_adjusted,
                "bayes_factor": one.bayes_factor,
                "family": one.family,
                "margin": one.margin,
                "lower_is_better": one.lower_is_better,
                "verdict": one.verdict.value,
                **({} if within is None else {within: one.setting}),
            }
            for one in comparisons
        ]
    )


def bayes_factor(compared: PairedComparison, scale: float = math.sqrt(0.5)) -> float:
    """Return how many times likelier the differences are with an effect than without one.

    Above 1 the seeds speak for an effect, below 1 against one; 3 or 1/3 is little evidence, 10 or
    1/10 is strong. It needs no family, and does not depend on how many seeds were planned.

    Args:
        compared: The difference over seeds.
        scale: Of the Cauchy distribution that an effect, in standard deviations of the differences,
            has before the seeds are seen.

    Returns:
        The ratio; infinite if all seeds have the same difference, which is not zero.

    Raises:
        StatisticsError: The scale is not positive.

    Source:
        Rouder et al. (2009), eq. 1, with the scale of a default prior of √½.

    >>> compared = paired_comparison({0: 2.0, 1: 3.0, 2: 4.1}, {0: 1.0, 1: 1.0, 2: 1.0})
    >>> round(bayes_factor(compared), 2)
    1.94
    """
    if not scale > 0:
        raise StatisticsError(f"scale must be positive, such as 0.707, not {scale}")
    count, freedom, deviation = compared.seeds, compared.seeds - 1, compared.standard_deviation
    if deviation == 0 and compared.estimate != 0:
        return math.inf
    t2 = compared.estimate**2 * count / deviation**2 if deviation else 0.0

    def weighted(g: float) -> float:
        """Return the likelihood under effects of variance g, over that of none, times g's density:
        an inverse gamma of shape 1/2 makes effects a Cauchy distribution."""
        spread = 1 + count * g * scale**2
        return float(
            spread**-0.5
            * ((1 + t2 / freedom) / (1 + t2 / (spread * freedom))) ** ((freedom + 1) / 2)
            * stats.invgamma.pdf(g, 0.5, scale=0.5)
        )

    # Over log g, since the density falls over many powers of ten.
    return float(quad(lambda log: weighted(math.exp(log)) * math.exp(log), -12, 25, limit=200)[0])


_NORMAL = np.linspace(-10, 10, 8001)
_DENSITY = (_NORMAL[1] - _NORMAL[0]) * stats.norm.pdf(_NORMAL)
"""Values of a standard normal variable, and their weights in a mean. Given that variable, the power
is a distribution function of χ². (SciPy's noncentral t fails for few seeds and small levels.)"""


def power(effect: float, standard_deviation: float, seeds: int, alpha: float = 0.05) -> float:
    """Return the probability that a paired t-test finds a true mean difference.

    Args:
        effect: The true difference.
        standard_deviation: Standard deviation of the paired differences, in the effect's unit.
        seeds: Number of paired seeds.
        alpha: Level of the two-sided test; divide by the size of the family.

    Returns:
        The probability of a p-value below alpha, whatever the sign.

    Raises:
        StatisticsError: An argument is out of its range.

    >>> round(power(0.66, 1.0, 20), 2), round(power(0.0, 1.0, 20), 2)
    (0.8, 0.05)
    """
    effect, deviation = _number("effect", effect), _number("standard_deviation", standard_deviation)
    alpha = _number("alpha", alpha)
    _check_design(deviation, seeds)
    if not (np.isfinite(effect) and 0 < alpha < 1):
        raise StatisticsError(
            f"effect must be finite and alpha between 0 and 1, but they are {effect} and {alpha}"
        )
    if deviation == 0:
        return float(effect != 0)
    return _power(effect / deviation * math.sqrt(seeds), seeds, alpha)


def _power(shift: float, seeds: int, alpha: float) -> float:
    """Return the power for a standardised mean of N(shift, 1)."""
    freedom, critical = seeds - 1, float(stats.t.isf(alpha / 2, seeds - 1))
    return float(_DENSITY @ chdtr(freedom, freedom * ((shift + _NORMAL) / critical) ** 2))


def minimum_detectable_effect(
    standard_deviation: float, seeds: int, power: float = 0.8, alpha: float = 0.05
) -> float:
    """Return the smallest true mean difference that a paired t-test finds with a given power.

    Args:
        standard_deviation: Standard deviation of the paired differences, such as that of a pilot's
            :class:`lib.statistics.PairedComparison`.
        seeds: Number of paired seeds.
        power: Probability of finding the difference.
        alpha: Level of the two-sided test; divide by the size of the family.

    Returns:
        The difference, in the unit of ``standard_deviation``.

    Raises:
        StatisticsError: An argument is out of its range.

    >>> round(minimum_detectable_effect(1.0, 20), 2)
    0.66
    """
    standard_deviation = _number("standard_deviation", standard_deviation)
    power, alpha = _number("power", power), _number("alpha", alpha)
    _check_design(standard_deviation, seeds)
    if not (0 < alpha < power < 1):
        raise StatisticsError(
            f"alpha < power must both be between 0 and 1, but they are {alpha} and {power}"
        )
    most = 1.0
    while _power(most, seeds, alpha) < power:
        most *= 2
    shift = brentq(lambda shift: _power(shift, seeds, alpha) - power, 0, most)
    return float(shift) / math.sqrt(seeds) * standard_deviation


def _check_design(standard_deviation: float, seeds: Any) -> None:
    if not hasattr(seeds, "__index__"):
        raise StatisticsError(f"seeds must be a whole number, not {seeds!r}")
    if not (np.isfinite(standard_deviation) and standard_deviation >= 0):
        raise StatisticsError(
            f"standard_deviation must be finite and not negative, not {standard_deviation}"
        )
    if seeds < 2:
        raise StatisticsError(f"a comparison needs two seeds or more, not {seeds}")


def bootstrap_by_image(
    per_query: ArrayLike,
    image: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the mean over one run's queries with an interval that resamples whole images.

    The captions of an image are not independent, so an interval over captions would be too narrow.
    Images are drawn with replacement, each with all its queries; the interval is bias-corrected and
    accelerated. For the difference of two runs on the same gallery, pass the differences per query.
    The interval covers only the choice of test images, not that of the training seed: it does not
    replace :func:`lib.statistics.paired_comparison`.

    Args:
        per_query: (Q,) such as the probabilities of a hit.
        image: (Q,) the image that each query is, or belongs to.
        confidence: Confidence level of the interval, in (0, 1).
        resamples: Number of resamples.
        seed: Seed of the resampling.

    Returns:
        The mean in the values' unit, and its interval.

    Raises:
        StatisticsError: The shapes differ, a value is no finite number, an image is missing, or
            there are fewer than two images.

    Source:
        Efron (1987).

    >>> hits = [1.0, 1.0, 0.0, 0.0, 1.0, 0.0]
    >>> bootstrap_by_image(hits, [0, 0, 1, 1, 2, 2]).estimate
    0.5
    """
    values, owner = _array("per_query", per_query, np.float64), _array("image", image)
    if values.ndim != 1 or values.shape != owner.shape:
        raise StatisticsError(
            f"per_query and image must be (Q,) both, but they are {values.shape} and {owner.shape}"
        )
    if not 0 < confidence < 1:
        raise StatisticsError(f"confidence must be between 0 and 1, such as 0.95, not {confidence}")
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise StatisticsError(
            f"per_query[{bad[0]}] is {values[bad[0]]}; every value must be finite"
        )
    if (gaps := np.flatnonzero(pd.isna(owner))).size:
        raise StatisticsError(f"image[{gaps[0]}] is missing; every query needs its image")
    images, row = np.unique(owner, return_inverse=True)
    if len(images) < 2:
        raise StatisticsError(f"the interval needs two images or more, but there is {len(images)}")
    count = np.bincount(row).astype(np.float64)
    total = np.bincount(row, weights=values)
    estimate = float(values.mean())
    if np.ptp(total / count) <= SAME * np.abs(values).max():  # All images equal: no spread at all.
        return Interval(estimate, estimate, estimate, confidence)
    result = stats.bootstrap(
        (total, count),
        _ratio_of_means,
        paired=True,
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 10_000_000 // len(images)),
        confidence_level=confidence,
        method="BCa",
        random_state=np.random.default_rng(seed),
    )
    low, high = result.confidence_interval
    return Interval(estimate, float(low), float(high), confidence)


def _ratio_of_means(
    total: NDArray[np.float64], count: NDArray[np.float64], axis: int
) -> NDArray[np.float64]:
    ratio: NDArray[np.float64] = total.sum(axis=axis) / count.sum(axis=axis)
    return ratio


def _array(name: str, values: Any, dtype: Any = None) -> NDArray[Any]:
    """Return an argument as an array, or raise a StatisticsError; a tensor may be on a device."""
    if isinstance(values, np.ma.MaskedArray):
        raise StatisticsError(f"{name} is a masked array: fill it, or leave the masked values out")
    try:
        array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
        if np.iscomplexobj(array):
            raise TypeError("complex numbers are not real")
        return array if dtype is None else array.astype(dtype, copy=False)
    except (TypeError, ValueError, RuntimeError) as error:
        raise StatisticsError(f"{name} must be an array of (Q,) values: {error}") from error


def _number(name: str, value: Any) -> float:
    """Return an argument as a number, or raise a StatisticsError."""
    try:
        if isinstance(value, str):
            raise TypeError("it is text")
        return float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise StatisticsError(f"{name} must be a number, not {value!r} ({error})") from error


def _by_seed(name: str, values: Any) -> dict[int, float]:
    """Return one method's values by seed, or raise a StatisticsError."""
    if isinstance(values, pd.Series):
        twice = values.index[values.index.duplicated()].unique().tolist()
        if twice:
            raise StatisticsError(f"{name} has seeds {twice} more than once; keep one value each")
    elif not isinstance(values, Mapping):
        raise StatisticsError(
            f"{name} must map seeds to values, so that seeds are matched and not positions, but it "
            f"is a {type(values).__name__}: give a dict or a Series indexed by seed"
        )
    try:
        by_seed = {
            seed: float(value.detach() if hasattr(value, "detach") else value)
            for seed, value in values.items()
        }
    except (TypeError, ValueError) as error:
        raise StatisticsError(f"{name} holds a value that is not a number: {error}") from error
    bad = {seed: value for seed, value in by_seed.items() if not np.isfinite(value)}
    if bad:
        raise StatisticsError(f"{name} is not finite for seeds {bad}; rerun or drop them in both")
    return by_seed


def _check_frame(table: Any) -> None:
    if not isinstance(table, pd.DataFrame):
        raise StatisticsError(
            f"table must be a DataFrame with a row per method and seed, not a "
            f"{type(table).__name__}"
        )


def _check_table(
    table: pd.DataFrame,
    baseline: str,
    metrics: Sequence[str],
    margins: Mapping[str, float],
    alpha: float,
    lower_is_better: Collection[str],
) -> None:
    if isinstance(metrics, str) or not metrics or len(set(metrics)) < len(metrics):
        raise StatisticsError(f"metrics must be a list of distinct columns, not {metrics!r}")
    missing = [name for name in ("method", "seed", *metrics) if name not in table.columns]
    if missing:
        raise StatisticsError(f"the table lacks columns {missing}; it has {list(table.columns)}")
    methods = table["method"].unique().tolist()
    if baseline not in methods:
        raise StatisticsError(f"the baseline {baseline!r} is not in the table, which has {methods}")
    if len(methods) < 2:
        raise StatisticsError(f"the table has no method to compare with the baseline {baseline!r}")
    if not 0 < alpha < 1:
        raise StatisticsError(f"alpha must be between 0 and 1, such as 0.05, not {alpha}")
    for metric in metrics:
        if not margins.get(metric, 0) > 0:
            raise StatisticsError(
                f"the margin of {metric!r} must be a positive number, not {margins.get(metric)}"
            )
    unknown = sorted({*margins, *lower_is_better} - set(metrics))
    if unknown:
        raise StatisticsError(f"margin or lower_is_better names {unknown}, which are no metrics")


def _verdict(
    compared: Interval, margin: float, p: float, alpha: float, lower_is_better: bool
) -> Verdict:
    if -margin < compared.low and compared.high < margin:
        return Verdict.EQUIVALENT
    if p < alpha:
        better = (compared.estimate > 0) != lower_is_better
        return Verdict.IMPROVES if better else Verdict.WORSENS
    return Verdict.UNDECIDED
