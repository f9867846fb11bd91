"""What the study's statistics promise, held against simulated experiments whose truth is known.

Made-up tables have the size and the noise of the main comparison: 20 paired seeds, 12 methods
against a baseline, R@1 in both directions, methods that share their seeds' luck and their
baseline's. Counts are held against the binomial distribution at 1 in 1,000, so no tolerance is
guessed. Where thousands of tables are needed, a plain NumPy version stands in for
``compare_methods``; the first test shows that both agree, cell by cell.
"""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lib.chapters.main_comparison import against_rivals
from lib.chapters.shared.verdicts import PAPER_METHOD, PRIMARY_METRICS, against, claim_rows, overall
from lib.statistics import Verdict, compare_methods, minimum_detectable_effect

SEEDS, METHODS, METRICS = 20, 12, list(PRIMARY_METRICS)
CELLS = METHODS * len(METRICS)
SEED_SD = np.array([1.19, 0.44])  # Of the fixed loss's R@1 over seeds, i2t and t2i, on Flickr8k.
DIFFERENCE_SD = np.array([0.87, 0.33])  # Of (method − fixed), where a method differs at all.
MARGIN = 0.3
NO_MARGIN = 1e-9  # Nothing is equivalent then: the worst case for false alarms.
IMPROVES, WORSENS, EQUIVALENT, UNDECIDED = range(4)
CODES = {verdict: code for code, verdict in enumerate(Verdict)}


def simulate(draw, count, effect=0.0, between_metrics=0.2):
    """(count, 1 + methods, seeds, metrics): the baseline is the first; ``effect`` broadcasts over
    (methods, metrics)."""
    mixing = np.linalg.cholesky([[1, between_metrics], [between_metrics, 1]])
    luck = draw.normal(14, SEED_SD, (count, 1, SEEDS, 2))
    own = draw.normal(size=(count, 1 + METHODS, SEEDS, 2)) @ mixing.T * DIFFERENCE_SD / 2**0.5
    values = luck + own
    values[:, 1:] += np.broadcast_to(effect, (METHODS, 2))[:, None]
    return values


def frame(values, names=None):
    """One simulated table as the notebooks hold it."""
    methods, seeds, metrics = values.shape
    names = names or ["fixed", *(f"m{place}" for place in range(1, methods))]
    table = pd.DataFrame(values.reshape(-1, metrics), columns=METRICS[:metrics])
    return table.assign(method=np.repeat(names, seeds), seed=np.tile(np.arange(seeds), methods))


def intervals(differences, confidence=0.95):
    """Mean, low, high and p of the paired t-test over the axis of seeds, the last but one."""
    seeds = differences.shape[-2]
    mean = differences.mean(axis=-2)
    error = differences.std(axis=-2, ddof=1) / seeds**0.5
    half = stats.t.ppf((1 + confidence) / 2, seeds - 1) * error
    return mean, mean - half, mean + half, 2 * stats.t.sf(np.abs(mean / error), seeds - 1)


def judged(values, margin=MARGIN):
    """(tables, methods, metrics) verdicts' codes, each table a family."""
    differences = values[:, 1:] - values[:, :1]
    family = differences.shape[1] * differences.shape[3]
    mean, low, high, p = intervals(differences, 1 - 0.05 / family)
    found = np.where(p * family < 0.05, np.where(mean > 0, IMPROVES, WORSENS), UNDECIDED)
    return np.where((low > -margin) & (high < margin), EQUIVALENT, found)


def alarm(codes):
    return (codes == IMPROVES) | (codes == WORSENS)


def assert_rate(count, trials, rate):
    """The count fits the rate, from both sides."""
    low, high = stats.binom.interval(0.999, trials, rate)
    assert low <= count <= high, f"{count / trials:.4f} of {trials}, for {rate}"


def assert_at_most(count, trials, rate):
    """The count fits the rate or a lower one."""
    assert count <= stats.binom.ppf(0.999, trials, rate), f"{count / trials:.4f}, above {rate}"


@pytest.mark.parametrize("margin", [MARGIN, 0.6])
def test_the_fast_version_agrees_with_compare_methods(margin):
    """Cell by cell, on tables with effects of many sizes."""
    draw = np.random.default_rng(0)
    effect = draw.choice([0.0, 0.3, -0.6, 1.0], (METHODS, 2))
    values = simulate(draw, 12, effect)
    codes = judged(values, margin)
    mean, low, high, p = intervals(values[:, 1:] - values[:, :1])
    for table, one in enumerate(values):
        compared = compare_methods(frame(one), "fixed", METRICS, margin=margin)
        assert [CODES[c.verdict] for c in compared] == codes[table].ravel().tolist()
        assert [c.paired.estimate for c in compared] == pytest.approx(mean[table].ravel())
        assert [c.paired.low for c in compared] == pytest.approx(low[table].ravel())
        assert [c.paired.high for c in compared] == pytest.approx(high[table].ravel())
        assert [c.paired.p for c in compared] == pytest.approx(p[table].ravel())
    assert set(codes.ravel()) == {IMPROVES, WORSENS, EQUIVALENT, UNDECIDED}


@pytest.mark.parametrize("effect", [0.0, 0.5])
@pytest.mark.parametrize("seeds", [3, SEEDS])
def test_the_interval_covers_at_its_rate(effect, seeds):
    draw, trials = np.random.default_rng(1), 100_000
    _, low, high, _ = intervals(effect + draw.normal(0, 0.85, (trials, seeds, 1)))
    assert_rate(int(((low <= effect) & (effect <= high)).sum()), trials, 0.95)


@pytest.mark.parametrize(
    ("draw_differences", "mean", "tolerance"),
    [
        (lambda draw, size: draw.exponential(1, size), 1.0, 0.04),
        (lambda draw, size: draw.lognormal(0, 0.5, size), np.exp(0.125), 0.03),
        (lambda draw, size: draw.standard_t(3, size), 0.0, 0.02),
        # Exchangeable methods differ symmetrically, however skewed each of them is.
        (lambda draw, size: draw.exponential(1, size) - draw.exponential(1, size), 0.0, 0.01),
        # R@1 of 1,000 queries moves in steps of 0.1.
        (lambda draw, size: draw.normal(0.3, 0.15, size).round(1), 0.3, 0.01),
    ],
    ids=["skewness 2", "skewness 1.75", "3 degrees of freedom", "skewed alike", "steps"],
)
def test_coverage_where_differences_are_not_normal(draw_differences, mean, tolerance):
    """Within the tolerance of 95 %, over 20 seeds; a t-interval's price for skewness."""
    trials = 40_000
    _, low, high, _ = intervals(draw_differences(np.random.default_rng(2), (trials, SEEDS, 1)))
    covered = int(((low <= mean) & (mean <= high)).sum())
    assert covered >= stats.binom.ppf(0.001, trials, 0.95 - tolerance)
    assert covered <= stats.binom.ppf(0.999, trials, 0.95 + tolerance)


def test_what_happens_to_one_seed_in_twenty_may_be_seen_by_none():
    """A known limit: the interval cannot span a rare failure that no seed met, so counts of failed
    or censored runs stand beside it. With probability 0.95^20 = 0.36 none is met."""
    draw = np.random.default_rng(3)
    fails = draw.random((40_000, SEEDS, 1)) < 0.05
    differences = np.where(fails, 10.0, draw.normal(0, 0.05, fails.shape))
    _, low, high, _ = intervals(differences)
    covered = ((low <= 0.5) & (high >= 0.5)).mean()
    assert covered == pytest.approx(1 - 0.95**SEEDS, abs=0.01)


def test_methods_that_hardly_differ_are_equivalent_whatever_the_interval_is():
    """Direction weights move single queries at single seeds: differences of mostly zeros, where an
    interval may be a point and is no 95 % interval. The verdict is right all the same."""
    draw = np.random.default_rng(4)
    baseline = pd.Series(draw.normal(14, 1, SEEDS).round(1))
    for chance in (0.0, 0.02, 0.2, 0.5):
        for _ in range(10):
            moved = baseline + 0.1 * draw.choice([-1, 1], SEEDS) * (draw.random(SEEDS) < chance)
            table = frame(np.array([baseline, moved])[..., None])
            (compared,) = compare_methods(table, "fixed", METRICS[:1])
            assert compared.verdict is Verdict.EQUIVALENT


@pytest.mark.parametrize("between_metrics", [0.0, 0.2, 0.99])
@pytest.mark.parametrize("margin", [MARGIN, NO_MARGIN])
def test_a_table_without_effects_seldom_gives_a_false_alarm(between_metrics, margin):
    """Any *improves* or *worsens* among 24 cells: at most 5 % of tables; without the adjustment for
    the family it would be a third of them or more."""
    draw, tables = np.random.default_rng(5), 8_000
    values = simulate(draw, tables, between_metrics=between_metrics)
    alarms = alarm(judged(values, margin)).any(axis=(1, 2)).sum()
    assert_at_most(alarms, tables, 0.05)
    assert alarms > 0
    unadjusted = (intervals(values[:, 1:] - values[:, :1])[3] < 0.05).any(axis=(1, 2)).mean()
    assert unadjusted > 0.3


@pytest.mark.parametrize("effective", [1, 6, 11])
def test_true_effects_elsewhere_make_no_false_alarm_likelier(effective):
    """The promise in the strong sense: at most 5 % of tables with any false verdict, among the
    methods that do nothing or of the wrong sign among those that do something."""
    draw, tables = np.random.default_rng(7), 8_000
    effect = np.zeros((METHODS, 2))
    effect[:effective] = DIFFERENCE_SD
    codes = judged(simulate(draw, tables, effect), NO_MARGIN)
    of_nothing, of_something = alarm(codes[:, effective:]), codes[:, :effective] == WORSENS
    false = of_nothing.any(axis=(1, 2)) | of_something.any(axis=(1, 2))
    assert_at_most(false.sum(), tables, 0.05)
    assert (codes[:, :effective] == IMPROVES).mean() > 0.5


def test_equivalent_is_wrong_at_one_cell_in_forty_at_most():
    """A 95 % interval inside the margin is two one-sided tests at 2.5 % (Schuirmann, 1987). The
    worst case is a true effect at the margin itself; one with little noise attains it."""
    draw, trials = np.random.default_rng(8), 100_000
    for deviation in (0.05, 0.2, 0.5, 0.87):
        differences = draw.normal(MARGIN, deviation, (trials, SEEDS, 1))
        _, low, high, _ = intervals(differences)
        wrong = int(((low > -MARGIN) & (high < MARGIN)).sum())
        assert_at_most(wrong, trials, 0.025)
        if deviation == 0.05:
            assert_rate(wrong, trials, 0.025)


def test_a_false_equivalent_is_as_rare_in_a_table_as_a_false_difference():
    """All 24 true differences lie at the margin itself: at most 24 times half of 5 % / 24."""
    draw, tables = np.random.default_rng(9), 8_000
    values = simulate(draw, tables)
    values[:, 1:] = values[:, 1:] * 0.2 + values[:, :1] * 0.8 + MARGIN
    wrong = (judged(values) == EQUIVALENT).any(axis=(1, 2)).sum()
    assert_at_most(wrong, tables, 0.025)
    assert wrong > 0


def test_power_grows_with_the_effect_and_is_what_the_detectable_effect_promises():
    """Against the noncentral t distribution all along, and 80 % at the detectable effect."""
    draw, trials, deviation = np.random.default_rng(10), 20_000, 0.87
    detectable = minimum_detectable_effect(deviation, SEEDS)
    powers = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5):
        differences = draw.normal(share * detectable, deviation, (trials, SEEDS, 1))
        found = int((intervals(differences)[3] < 0.05).sum())
        critical = stats.t.ppf(0.975, SEEDS - 1)
        of_t = stats.nct(SEEDS - 1, share * detectable / deviation * SEEDS**0.5)
        assert_rate(found, trials, of_t.sf(critical) + of_t.cdf(-critical))
        powers.append(found / trials)
        if share == 1:
            assert_rate(found, trials, 0.8)
    assert powers == sorted(powers)
    assert powers[-1] > 0.97


def test_the_effect_that_a_table_finds_needs_alpha_shared_by_its_cells():
    """One method of 12 does something. It is found with 80 % where the detectable effect was
    computed at alpha / 24, and with far less where it was computed for a single comparison."""
    draw, tables = np.random.default_rng(12), 8_000
    found = {}
    for cells in (1, CELLS):
        effect = np.zeros((METHODS, 2))
        effect[0, 0] = minimum_detectable_effect(DIFFERENCE_SD[0], SEEDS, alpha=0.05 / cells)
        codes = judged(simulate(draw, tables, effect), NO_MARGIN)
        found[cells] = (codes[:, 0, 0] == IMPROVES).mean()
    assert_rate(int(found[CELLS] * tables), tables, 0.8)
    assert found[1] < 0.5


NAMES = ["fixed", PAPER_METHOD, "entropy × direction", "spread × direction"]
RIVALS = NAMES[2:]


def of_a_claim(draw, count, methods, effect=(0.0, 0.0)):
    """Tables of the methods that a claim is about; the effect is the paper's method's."""
    for values in simulate(draw, count)[:, :methods]:
        values[1] += effect
        yield frame(values, NAMES[:methods])


def test_an_overall_verdict_without_effect_is_seldom_wrong():
    """Claim 1: one method, two metrics, in a table of three, without a margin: the worst case."""
    draw = np.random.default_rng(13)
    tables = of_a_claim(draw, 120, 4)
    found = [overall(claim_rows(against(runs, "fixed", NO_MARGIN))) for runs in tables]
    assert_at_most(found.count("improves") + found.count("worsens"), 120, 0.05)
    # Alone in its family the claim has the whole 5 %; both metrics must not contradict each other.
    codes = judged(simulate(draw, 20_000)[:, :2], NO_MARGIN)[:, 0]
    improves = (codes == IMPROVES).any(axis=1) & ~(codes == WORSENS).any(axis=1)
    worsens = (codes == WORSENS).any(axis=1) & ~(codes == IMPROVES).any(axis=1)
    assert_at_most((improves | worsens).sum(), 20_000, 0.05)
    assert_at_most(improves.sum(), 20_000, 0.025)


def test_an_overall_verdict_over_rivals_without_effect_is_seldom_wrong():
    """Claim 2: better than every rival, which chance alone hardly brings about."""
    tables = of_a_claim(np.random.default_rng(14), 80, 4)
    found = [overall(against_rivals(runs, RIVALS, NO_MARGIN)) for runs in tables]
    assert_at_most(found.count("improves") + found.count("worsens"), 80, 0.02)


def test_an_overall_equivalent_is_wrong_at_one_claim_in_forty_at_most():
    """Every row must be equivalent, so one row at the margin is enough to bound it."""
    draw, tables = np.random.default_rng(15), 120
    found = []
    for runs in of_a_claim(draw, tables, 2, effect=(MARGIN, 0.0)):
        fixed = runs[runs["method"] == "fixed"].set_index("seed")
        for metric in METRICS:  # Little noise, so that "equivalent" is within reach.
            base = runs["seed"].map(fixed[metric])
            shift = MARGIN * (runs["method"] != "fixed") if metric == METRICS[0] else 0
            runs[metric] = base + shift + 0.1 * (runs[metric] - base - shift)
        found.append(overall(against(runs, "fixed", MARGIN)))
    assert_at_most(found.count("equivalent"), tables, 0.025)


def test_an_overall_verdict_finds_what_is_there():
    for runs in of_a_claim(np.random.default_rng(16), 20, 4, effect=(2.3, 1.5)):
        assert overall(claim_rows(against(runs, "fixed", MARGIN))) == "improves"
