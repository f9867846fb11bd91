"""The figures of the chapter on sensitivity hold every comparison, in the order given."""

import pandas as pd

from lib.chapters.sensitivity.figures import factor_chart, size_chart

METRICS = ("i2t R@1", "t2i R@1")


def rows(**columns):
    return {"estimate": 0.2, "low": 0.1, "high": 0.3, "verdict": "undecided", **columns}


def test_one_line_per_method_over_every_size():
    table = pd.DataFrame(
        rows(method=method, metric=metric, train_images=size)
        for method in ("b", "a")
        for metric in METRICS
        for size in (100, 6000)
    )
    spec = size_chart(table, 0.3).to_dict()
    assert len(next(iter(spec["datasets"].values()))) == 8
    line = next(layer for layer in spec["spec"]["layer"] if layer["mark"]["type"] == "line")
    assert line["encoding"]["color"]["sort"] == ["b", "a"]
    assert line["encoding"]["x"]["axis"]["values"] == [100, 6000]
    assert line["encoding"]["x"]["scale"]["type"] == "log"
    assert "±0.3 points" in spec["title"]["subtitle"][0]


def test_one_row_per_level_and_one_column_per_method_and_direction():
    levels = ["default: as tuned", "γ: 1", "dropout: 0.5"]
    table = pd.DataFrame(
        rows(method=method, metric=metric, level=level)
        for level in levels
        for method in ("variance × direction", "fixed, decay")
        for metric in METRICS
    )
    spec = factor_chart(table, 0.3).to_dict()
    methods = ("variance × direction", "fixed, decay")
    panels = [f"{method} | {metric}" for method in methods for metric in METRICS]
    assert spec["facet"]["column"]["sort"] == panels
    places = [layer["encoding"]["y"]["sort"] for layer in spec["spec"]["layer"][2:]]
    assert places == [levels] * 3
