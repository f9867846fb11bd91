"""The embeddings chapter's figures: each map at its place, light, static without a script."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from lib import charts
from lib.clusters import MEASURES, PRIMARY, at_equal_temperature
from lib.figures_embeddings import (
    change_rows,
    cluster_differences,
    equal_temperature_rows,
    map_chart,
    map_silhouette_chart,
    measure_rows,
    plus_minus,
    temperature_chart,
)

METHODS = ["fixed", "variance × direction", "it's </script><b>"]
SEEDS, PERPLEXITIES, STARTS = [0, 4], [10.0, 30.0, 50.0], [0, 1]


def maps(images=6, link=True, starts=STARTS):
    """Coordinates that tell their map: x = 100 method + 10 seed place + …, y = item."""
    rng = np.random.default_rng(0)
    rows = [
        {
            "method": method, "seed": seed, "perplexity": perplexity, "start": start,
            "image": f"{item}_</script>.jpg", "topic": ("dogs", "snow", "water")[item % 3],
            "modality": modality, "link": f"https://example.org/{item}" if link else None,
            "x": round(float(rng.uniform(-10, 10)), 2), "y": round(float(rng.uniform(-10, 10)), 2),
        }
        for method in METHODS
        for seed in SEEDS
        for perplexity in PERPLEXITIES
        for start in starts
        for modality in ("image", "caption")
        for item in range(images)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def menus(spec):
    return {p["name"]: p["bind"] for p in spec["params"] if "input" in p.get("bind", {})}


def test_every_choice_shows_its_own_map():
    table = maps()
    spec = map_chart(table).to_dict()
    items = spec["data"]["values"]
    chosen = menus(spec)
    assert list(chosen) == ["right", "seed", "perplexity", "start"]
    assert chosen["right"]["labels"] == METHODS[1:]
    assert chosen["perplexity"]["labels"] == ["10", "30", "50"]
    assert chosen["start"]["labels"] == ["principal components", "random 1"]
    pattern = r"toNumber\(split\(datum\.x, ' '\)\[(.*)\]\)"
    indexed = table.set_index(["method", "seed", "perplexity", "start", "image", "modality"])
    for panel, methods in zip(spec["hconcat"], (METHODS[:1], METHODS[1:]), strict=True):
        formula = {t["as"]: t["calculate"] for t in panel["transform"]}
        for right, method in enumerate(methods, start=1):
            for s, seed in enumerate(SEEDS):
                for p, perplexity in enumerate(PERPLEXITIES):
                    for start in STARTS:
                        values = {"right": right, "seed": s, "perplexity": p, "start": start}
                        place = re.fullmatch(pattern, formula["px"])[1]
                        place = eval(place, {}, values)
                        for item in items:
                            key = (method, seed, perplexity, start, item["image"], item["modality"])
                            found = tuple(float(item[axis].split()[place]) for axis in "xy")
                            assert found == tuple(indexed.loc[key, ["x", "y"]])
        assert formula["py"] == formula["px"].replace("datum.x", "datum.y")


def test_the_first_choice_stands_in_the_static_picture():
    svg = charts.static_svg(map_chart(maps()).to_dict())
    assert svg.count("<path") >= 2 * 12
    assert "variance × direction" in svg
    assert "NaN" not in svg
    assert "<b>" not in svg
    assert 'href="https://example.org/3"' in svg


def test_no_point_lies_outside_its_panel():
    table = maps()
    table.loc[5, "x"] = -13.5
    spec = map_chart(table).to_dict()
    for panel in spec["hconcat"]:
        for axis in "xy":
            assert panel["encoding"][axis]["scale"]["domain"] == [-13.5, 13.5]


def test_the_legends_filter_and_a_point_finds_its_partner():
    spec = map_chart(maps()).to_dict()
    selections = {p["name"]: p for p in spec["params"] if "select" in p}
    assert selections["topics"]["bind"] == selections["modalities"]["bind"] == "legend"
    assert selections["topics"]["select"]["fields"] == ["topic"]
    panels = [selections[f"pair_{side}"] for side in ("left", "right")]
    assert [pair["select"]["fields"] for pair in panels] == [["image"], ["image"]]
    assert panels[0]["views"] != panels[1]["views"]
    assert spec["usermeta"]["embedOptions"]["loader"]["target"] == "_blank"


def test_what_cannot_be_chosen_has_no_menu_and_no_link_no_channel():
    spec = map_chart(maps(link=False, starts=[0])).to_dict()
    assert "start" not in menus(spec)
    assert "href" not in json.dumps(spec)
    assert charts.static_svg(spec).count("<path") >= 24


def test_the_view_of_a_full_edition_is_light():
    """54 maps of 300 images with their captions."""
    table = pd.concat([maps(300), maps(300).assign(start=2).drop_duplicates()], ignore_index=True)
    table = table.drop_duplicates(["method", "seed", "perplexity", "start", "image", "modality"])
    assert table.groupby(["method", "seed", "perplexity", "start"]).ngroups == 54
    spec = map_chart(table).to_dict()
    size = len(json.dumps(spec)) + len(charts.static_svg(spec))
    assert size < 1_400_000, f"{size / 1e6:.2f} MB"


def silhouettes():
    return pd.DataFrame(
        [
            {"method": m, "seed": s, "perplexity": p, "start": a, "silhouette": 0.1 + p / 100}
            for m in METHODS[:2]
            for s in SEEDS
            for p in PERPLEXITIES
            for a in STARTS
        ]
    )


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
                "low": 0.001, "high": 0.009, "margin": margin, "verdict": "equivalent",
            }
            for method in METHODS[1:]
            for metric, margin in zip(PRIMARY.values(), (0.02, 0.01), strict=True)
        ]
    )  # fmt: skip


CHARTS = {
    "silhouettes": lambda: map_silhouette_chart(silhouettes()),
    "differences": lambda: cluster_differences(differences(), "Against fixed"),
    "temperature": lambda: temperature_chart(
        runs([f"τ {t}" for t in range(3)]), runs(), "Is it the temperature?"
    ),
}


@pytest.mark.parametrize("name", CHARTS)
def test_every_figure_draws_with_its_marks_and_a_title(name):
    spec = CHARTS[name]().to_dict()
    svg = charts.static_svg(spec)
    assert svg.count("<path") > 3
    assert "Infinite extent" not in svg
    assert "NaN" not in svg
    assert charts.description(spec) != "Chart"


def test_each_panel_of_differences_has_its_own_scale_and_margin():
    spec = CHARTS["differences"]().to_dict()
    assert spec["resolve"]["scale"]["x"] == "independent"
    (rows,) = spec["datasets"].values()
    assert {(row["margin"], row["outside"]) for row in rows} == {(0.02, -0.02), (0.01, -0.01)}


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
    assert shown["measure"].tolist() == [MEASURES[measure] for measure in PRIMARY]
    assert shown["mean τ"].tolist() == ["0.150"] * 2
    assert shown["minus fixed as tuned"].str.match(r"[+-]\d\.\d+ ± ").all()
