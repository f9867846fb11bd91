"""The embeddings chapter's figures and tables: scales, margins, intervals, and what is marked."""

import numpy as np
import pandas as pd
import pytest
from drawing import draw, rows_of

from lib.chapters.embeddings.claim import PRIMARY_MEASURES, at_equal_temperature
from lib.chapters.embeddings.figures import (
    change_rows,
    cluster_differences,
    cluster_rows,
    equal_temperature_rows,
    measure_rows,
    plus_minus,
    temperature_chart,
)
from lib.chapters.embeddings.measures import MEASURES

METHODS = ["fixed", "variance × direction", "it's </script><b>"]


def runs(methods=METHODS[:2], seeds=3):
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        [
            {
                "method": m, "seed": s, "temperature": 0.1 + 0.05 * row, "rsum": 190.0 + s,
                **dict(zip(MEASURES, rng.normal(0.5, 0.1, len(MEASURES)), strict=True)),
            }
            for row, m in enumerate(methods)
            for s in range(seeds)
        ]
    )  # fmt: skip


def differences():
    return pd.DataFrame(
        [
            {
                "method": method, "baseline": "fixed", "metric": metric, "estimate": 0.005,
                "low": 0.001, "high": 0.009, "wide_low": 0.0, "wide_high": 0.01, "identical": 0,
                "seeds": 20, "margin": margin, "verdict": "equivalent",
            }
            for method in METHODS[1:]
            for metric, margin in zip(PRIMARY_MEASURES.values(), (0.02, 0.01), strict=True)
        ]
    )  # fmt: skip


CHARTS = {
    "differences": lambda: cluster_differences(differences(), "Against fixed"),
    "temperature": lambda: temperature_chart(
        runs([f"τ {t}" for t in range(3)]), runs(), "Is it the temperature?"
    ),
}


@pytest.mark.parametrize("name", CHARTS)
def test_every_figure_draws_with_its_marks_and_a_title(name):
    assert draw(CHARTS[name]())[1].count("<path") > 3


def test_each_panel_of_differences_has_its_own_scale_and_margin():
    chart = CHARTS["differences"]()
    assert chart.to_dict()["resolve"]["scale"]["x"] == "independent"
    assert {(row["margin"], row["outside"]) for row in rows_of(chart)} == {
        (0.02, -0.02),
        (0.01, -0.01),
    }


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((0.81234, 0.0123), "0.812 ± 0.012"),
        ((12.3, 4.5), "12.30 ± 4.50"),
        ((0.125, 0.0), "0.125 ± 0.000"),
        ((-0.00001, 0.5), "0.00 ± 0.50"),
        ((0.5, 1e-9), "0.500000 ± 0.000000"),
    ],
)
def test_an_interval_sets_the_digits(arguments, text):
    assert plus_minus(*arguments) == text


def test_measures_stand_in_rows_and_methods_in_columns():
    shown = measure_rows(runs())
    assert list(shown.columns) == ["measure", *METHODS[:2]]
    assert shown["measure"].tolist()[: len(MEASURES)] == list(MEASURES.values())
    assert shown["measure"].str.startswith(("temperature", "rSum")).tolist()[-2:] == [True, True]
    # 190, 191, 192: standard error 1/√3, t quantile 4.30.
    assert shown["fixed"].tolist()[-2:] == ["0.100 ± 0.000", "191.00 ± 2.48"]


def test_changes_are_marked_where_they_are_sure():
    table = pd.DataFrame(
        [
            {
                "method": method, "metric": metric, "estimate": 0.25, "low": 0.2, "high": 0.3,
                "p_adjusted": 0.01 if metric == "modality_gap" else 0.5,
            }
            for method in METHODS[1:]
            for metric in MEASURES
        ]
    )  # fmt: skip
    shown = change_rows(table).set_index("measure")
    assert list(shown.columns) == METHODS[1:]
    assert list(shown.index) == list(MEASURES.values())
    assert shown.loc["modality gap"].tolist() == ["+0.250 ± 0.050 *"] * 2
    assert shown.loc["alignment of pairs"].tolist() == ["+0.250 ± 0.050"] * 2


def test_equal_temperature_is_shown_beside_the_tuned_one():
    table = at_equal_temperature(runs(), runs(["a", "b", "c"]))
    shown = equal_temperature_rows(table)
    assert shown["measure"].tolist() == [MEASURES[measure] for measure in PRIMARY_MEASURES]
    assert shown["mean τ"].tolist() == ["0.150"] * 2
    assert shown["minus fixed as tuned"].str.match(r"[+-]\d\.\d+ ± ").all()


def test_the_claims_comparisons_are_shown_with_margin_and_verdict():
    table = differences().assign(p_adjusted=[0.0004, 0.04, 1.0, 0.5])
    shown = cluster_rows(table)
    assert shown["difference"].unique().tolist() == ["+0.0050 ± 0.0040"]
    assert shown["margin"].tolist() == ["±0.02", "±0.01"] * 2
    assert shown["p, adjusted"].tolist() == ["< 0.001", "0.040", "1.000", "0.500"]
    assert set(shown["verdict"]) == {"equivalent"}
