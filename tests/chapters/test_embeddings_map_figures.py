"""The maps in a page: each choice shows its own, light, static without a script."""

import json
import re

import numpy as np
import pandas as pd
from drawing import draw

from lib.chapters.embeddings.map_figures import map_chart, map_silhouette_chart
from lib.chapters.embeddings.maps import EXTENT
from lib.chapters.shared import charts

METHODS = ["fixed", "variance × direction", "it's </script><b>"]
SEEDS, PERPLEXITIES, STARTS = [0, 4], [10.0, 30.0, 50.0], [0, 1]


def maps(images=6, link=True, starts=STARTS):
    """Random coordinates of every map, one row per item and modality."""
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
    _, svg = draw(map_chart(maps()))
    assert svg.count("<path") >= 2 * 12
    assert "variance × direction" in svg
    assert 'href="https://example.org/3"' in svg


def test_every_map_fills_a_panel_of_the_same_scale():
    for panel in map_chart(maps()).to_dict()["hconcat"]:
        for axis in "xy":
            assert panel["encoding"][axis]["scale"]["domain"] == [-EXTENT, EXTENT]
        assert panel["width"] == panel["height"]


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


def test_the_settings_figure_draws_one_dot_per_map():
    _, svg = draw(map_silhouette_chart(silhouettes()))
    # Two methods, two seeds, three perplexities, two starts.
    assert svg.count('aria-roledescription="point"') == 24
