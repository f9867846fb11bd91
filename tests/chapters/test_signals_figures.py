"""Figures of what the scheduler sees and of its controls: what they say, and that they draw."""

import json

import numpy as np
import pandas as pd
import pytest
from drawing import draw, rows_of

from lib.chapters.controls import attribution_chart
from lib.chapters.shared import charts
from lib.chapters.shared.figures import response_chart
from lib.chapters.signals.figures import identity_chart, ratio_chart

CLAIMED = pd.DataFrame(
    [
        {
            "scheduler": scheduler, "part": part, "method": f"{scheduler}, {part}",
            "baseline": "fixed", "metric": metric, "estimate": 0.1 * place,
            "low": 0.1 * place - 0.2, "high": 0.1 * place + 0.2, "verdict": "undecided",
            "gamma": [30.0, -300.0, 1000.0, -10.0][place],
        }
        for scheduler in ("variance × sharpness", "<b>rival</b>")
        for place, part in enumerate(("its mean", "its path", "adapting", "whole gain"))
        for metric in ("i2t R@1", "t2i R@1")
    ]
)  # fmt: skip
HUBS = pd.DataFrame(
    {
        "method": "fixed", "seed": [0, 0, 1], "batch": [0, 1, 0], "signal": [1e-4, -2e-4, 3e-4],
        "caption_hubs": [3e-4, 1e-4, 5e-4], "image_hubs": [2e-4, 3e-4, 2e-4], "total": 0.02,
    }
)  # fmt: skip
RATIOS = pd.DataFrame({"step": [1, 2], "mean": [0.5, -1.0], "low": [0.0, -2.0], "high": [1.0, 0.0]})
CHARTS = {
    "identity": lambda: identity_chart(HUBS),
    "ratio": lambda: ratio_chart(RATIOS),
    "response": lambda: response_chart(CLAIMED, "gamma", "γ", "Amplified", 0.3),
    "attribution": lambda: attribution_chart(CLAIMED, 0.3),
}


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_draws_without_network_and_escapes_what_it_shows(name):
    draw(CHARTS[name]())
    assert len(json.dumps(charts.render(CHARTS[name]().to_dict()))) < 200_000


def test_exponents_stand_in_the_order_of_their_size():
    chart = response_chart(CLAIMED, "gamma", "γ", "Amplified", 0.3).to_dict()
    assert chart["spec"]["layer"][0]["encoding"]["x"]["sort"] == ["-300", "-10", "30", "1000"]
    assert {row["inside"] for row in rows_of(response_chart(CLAIMED, "gamma", "", "", 0.3))} == {
        0.3
    }


def test_both_sides_of_the_identity_are_drawn_as_they_are():
    points = [row for row in rows_of(identity_chart(HUBS)) if "seed" in row]
    np.testing.assert_allclose([row["signal"] for row in points], [1, -2, 3])
    np.testing.assert_allclose([row["hubness"] for row in points], [1, -2, 3])


def test_every_part_of_every_scheduler_has_its_row():
    found = rows_of(attribution_chart(CLAIMED, 0.3))
    drawn = {(row["scheduler"], row["part"], row["metric"]) for row in found}
    assert len(drawn) == 16
