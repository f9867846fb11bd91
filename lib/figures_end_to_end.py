"""Figures of the chapter on towers that are trained end to end."""

import altair as alt
import pandas as pd


def differ_chart(table: pd.DataFrame) -> alt.Chart:
    """How far the directions' variances differ through training, a line a kind of towers.

    Args:
        table: Of :func:`lib.end_to_end.ratio_by_progress`.
    """
    chart: alt.Chart = (
        alt.Chart(table)
        .mark_line(point=True)
        .encode(
            alt.X("progress:Q").title("share of the run's steps, %"),
            alt.Y("differ:Q").title("row against column variance, %"),
            alt.Color("towers:N").sort(list(dict.fromkeys(table["towers"]))).title(None),
            tooltip=[
                "towers:N",
                alt.Tooltip("progress:Q", format=".0f"),
                alt.Tooltip("differ:Q", format=".3f"),
            ],
        )
        .properties(
            width="container",
            height=260,
            title=alt.Title(
                "How far the variances of the two directions differ",
                subtitle="of the fixed loss's similarities, absolute, mean over batches and seeds",
            ),
        )
    )
    return chart
