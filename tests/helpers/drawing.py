"""Charts as pages show them, and their rows of data."""

from lib.chapters.shared import charts


def draw(chart) -> tuple[dict, str]:
    """Return a chart's specification and picture, after a check of the picture and description."""
    spec = chart.to_dict()
    svg = charts.static_svg(spec)
    assert svg.startswith("<svg")
    for wrong in ("NaN", "Infinite extent", "<b>"):
        assert wrong not in svg
    assert charts.description(spec) != "Chart"
    return spec, svg


def rows_of(chart) -> list[dict]:
    """Return all rows of data in a chart's specification."""
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]
