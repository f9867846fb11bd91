"""Charts as pages show them, and the rows of data that they carry."""

from lib.chapters.shared import charts


def draw(chart) -> tuple[dict, str]:
    """Return a chart's specification and its picture, whole, described and escaped."""
    spec = chart.to_dict()
    svg = charts.static_svg(spec)
    assert svg.startswith("<svg")
    for wrong in ("NaN", "Infinite extent", "<b>"):
        assert wrong not in svg
    assert charts.description(spec) != "Chart"
    return spec, svg


def rows_of(chart) -> list[dict]:
    """Return all rows of data that a chart's specification carries."""
    return [row for rows in chart.to_dict()["datasets"].values() for row in rows]
