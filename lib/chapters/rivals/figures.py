"""The figures and tables of the chapter on rivals."""

import altair as alt
import pandas as pd

from lib.chapters.rivals.board import BOARD_METRICS
from lib.chapters.shared import charts
from lib.chapters.shared.figures import difference_table

PANEL = (140, alt.Step(20))
"""Width and height of a panel in pixels: three of them and the methods' names fit a page."""


def leaderboard_chart(table: pd.DataFrame, margin: float) -> alt.VConcatChart:
    """Draw paired differences from the fixed loss, one block per thing set, one panel per metric.

    Args:
        table: Of :func:`lib.chapters.rivals.board.compare`.
        margin: Half-width of the band inside which a difference counts as none.
    """
    reach = max(margin, float(table[["low", "high"]].abs().max().max()))
    blocks = [
        _block(rows, str(kind), margin, reach) for kind, rows in table.groupby("sets", sort=False)
    ]
    chart: alt.VConcatChart = alt.vconcat(*blocks)
    return chart.properties(
        title=charts.difference_title(
            "Everything against the fixed loss, tuned with the same budget", f"±{margin:g} points"
        )
    )


def _block(table: pd.DataFrame, kind: str, margin: float, reach: float) -> alt.FacetChart:
    ranked = table[table["metric"] == BOARD_METRICS["mean_recall"]].sort_values("estimate")
    order = ranked["method"].tolist()[::-1]
    layers = charts.difference_layers(
        table.set_index("method").loc[order].reset_index(),
        margin,
        "method",
        "difference in points",
        named=["metric"],
        scale=alt.Scale(domain=[-reach, reach]),
        more=[alt.Tooltip("p_adjusted:Q", title="p, adjusted", format=".3f")],
    )
    title = alt.Title(f"sets the {kind}", fontSize=12, anchor="start")
    return charts.difference_panels(layers, title, PANEL)


def leaderboard_table(compared: pd.DataFrame, field: pd.DataFrame) -> pd.DataFrame:
    """Return the leaderboard as a page shows it, the best first: gains, and what each costs.

    Args:
        compared: Of :func:`lib.chapters.rivals.board.compare`.
        field: ``method``, ``sets``, ``tuned`` and ``ratio``, one row per method.
    """
    shown = difference_table(compared)
    cells = pd.DataFrame(
        {
            "method": compared["method"],
            "metric": compared["metric"],
            "cell": shown["difference, points"] + ", " + compared["verdict"],
        }
    ).pivot(index="method", columns="metric", values="cell")
    mean = compared[compared["metric"] == BOARD_METRICS["mean_recall"]].set_index("method")
    ranked = mean.sort_values("estimate", ascending=False)
    about = field.set_index("method").loc[ranked.index]
    least_p = compared.groupby("method")["p_adjusted"].min()
    return pd.DataFrame(
        {
            "method": ranked.index,
            "sets": about["sets"].to_numpy(),
            **{name: cells.loc[ranked.index, name].to_numpy() for name in BOARD_METRICS.values()},
            "least p, adjusted": least_p[ranked.index].to_numpy(),
            "tuned constants": about["tuned"].to_numpy(),
            "cost of a step": [f"{ratio:.1f} ×" for ratio in about["ratio"]],
        }
    )
