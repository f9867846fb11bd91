"""Forest plots for the first page: paired differences with their intervals, as inline SVG.

They are drawn when the book is built, run no script, and take the page's font and colours. The text
is HTML beside the drawing, so that a narrow page does not shrink the text.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

from lib.chapters.shared.findings import ClaimVerdict, Estimate
from lib.study.book.values import format_number

SYMBOLS: dict[ClaimVerdict, str] = {
    "improves": "▲",
    "worsens": "▼",
    "equivalent": "=",
    "undecided": "?",
    "open": "○",
}
"""The sign of each verdict, for readers who cannot tell the colours apart."""
PADDING = 0.06
"""Share of the range of values that is left free at each end of a scale."""
NOTHING = 1e-9
"""A narrower range of values is drawn as one value."""


@dataclass(frozen=True)
class Scale:
    """A horizontal axis.

    Attributes:
        low: The value at its left end.
        high: The value at its right end.
        ticks: Round values to label, including zero.
        digits: Decimals of the labels.
    """

    low: float
    high: float
    ticks: tuple[float, ...]
    digits: int

    def at(self, value: float) -> float:
        """Return the position of a value, in percent of the width from the left.

        >>> Scale(-1.0, 3.0, (0.0, 2.0), 0).at(0)
        25.0
        """
        return 100 * (value - self.low) / (self.high - self.low)


def panels(estimates: Iterable[Estimate]) -> list[list[Estimate]]:
    """Group the estimates that share a scale: those with the same unit and better direction."""
    grouped: dict[tuple[str, bool], list[Estimate]] = {}
    for estimate in estimates:
        grouped.setdefault((estimate.unit, estimate.lower_is_better), []).append(estimate)
    return list(grouped.values())


def scale_of(panel: Sequence[Estimate], gains: Mapping[str, float]) -> Scale:
    """Return a scale for zero and all values of ``panel``, with two to six ticks.

    Args:
        panel: Estimates of one unit.
        gains: Metric to the paper's gain.
    """
    values = [0.0]
    for estimate in panel:
        margin = estimate.margin or 0.0
        values += [estimate.estimate, *_ends(estimate), -margin, margin]
        values.append(gains.get(estimate.metric, 0.0))
    low, high = min(values), max(values)
    if high - low < NOTHING:
        low, high = -1.0, 1.0
    padding = PADDING * (high - low)
    low, high = low - padding, high + padding
    exponent = math.floor(math.log10((high - low) / 4))
    factor = next(f for f in (1, 2, 5, 10) if f * 10**exponent >= (high - low) / 5)
    step, digits = factor * 10.0**exponent, max(0, -exponent - (factor == 10))
    ticks = range(math.ceil(low / step), math.floor(high / step) + 1)
    return Scale(low, high, tuple(tick * step for tick in ticks), digits)


def digits_of(scale: Scale) -> int:
    """Return the number of decimals of the estimates on a scale: two or more."""
    return max(2, scale.digits + 1)


def forest(estimates: Sequence[Estimate], gains: Mapping[str, float]) -> str:
    """Return the HTML of a figure: one row per estimate, one scale per unit and better direction.

    A row shows zero, the estimate with its interval, the band of its margin if it has one, and the
    paper's gain if there is one.

    Args:
        estimates: One or more.
        gains: Metric to the paper's gain, in the metric's unit.
    """
    drawn = "".join(_panel(panel, gains) for panel in panels(estimates))
    return f'<figure class="forest">{drawn}</figure>\n'


def _panel(panel: Sequence[Estimate], gains: Mapping[str, float]) -> str:
    scale = scale_of(panel, gains)
    parts = []
    for (method, baseline), rows in groupby(panel, key=lambda e: (e.method, e.baseline)):
        parts.append(f'<p class="forest-pair">{escape(f"{method}, against {baseline}")}</p>')
        parts += [_row(estimate, scale, gains.get(estimate.metric)) for estimate in rows]
    return "".join([*parts, _ticks(scale), _caption(panel, gains)])


def _row(estimate: Estimate, scale: Scale, gain: float | None) -> str:
    digits = digits_of(scale)
    middle, low, high = (
        format_number(value, f"+.{digits}f")
        for value in (estimate.estimate, estimate.low, estimate.high)
    )
    label = _label(estimate)
    parts = [f"{label}: {middle} {estimate.unit}", f"95 % interval {low} to {high}"]
    numbers = f"<strong>{middle}</strong> [{low}, {high}]"
    if estimate.identical == estimate.seeds:
        parts = [f"{label}: identical in all {estimate.seeds} runs"]
        numbers = f"<strong>identical</strong> in all {estimate.seeds} runs"
    if estimate.margin is not None:
        parts.append(f"±{estimate.margin:g} counts as none")
    note = ""
    if gain is not None:
        parts.append(f"paper: {format_number(gain, '+g')}")
        note = f' <span class="forest-paper">{parts[-1]}</span>'
    spoken = escape(f"{', '.join(parts)}: {estimate.verdict}")
    return (
        '<div class="forest-row">'
        f'<span class="forest-label" aria-hidden="true">{escape(label)}{note}</span>'
        f'<span class="forest-strip"><svg role="img" aria-label="{spoken}">'
        f"<title>{spoken}</title>{''.join(_marks(estimate, scale, gain))}</svg></span>"
        f'<span class="forest-numbers" aria-hidden="true">{numbers} '
        f'<span class="forest-{estimate.verdict}">{SYMBOLS[estimate.verdict]}</span></span></div>'
    )


def _marks(estimate: Estimate, scale: Scale, gain: float | None) -> Iterator[str]:
    if estimate.margin is not None:
        left, right = scale.at(-estimate.margin), scale.at(estimate.margin)
        yield f'<rect class="band" x="{left:.2f}%" width="{right - left:.2f}%" height="100%"/>'
    yield _upright("zero", scale.at(0))
    if gain is not None:
        yield _upright("paper", scale.at(gain))
    kind = f"forest-{estimate.verdict}"
    for name, ends in (("wide", _ends(estimate)), ("interval", (estimate.low, estimate.high))):
        low, high = map(scale.at, ends)
        yield f'<line class="{name} {kind}" x1="{low:.2f}%" x2="{high:.2f}%" y1="50%" y2="50%"/>'
    yield f'<circle class="mark {kind}" cx="{scale.at(estimate.estimate):.2f}%" cy="50%" r="4.5"/>'


def _ends(estimate: Estimate) -> tuple[float, float]:
    """Return the ends of the widest interval of an estimate."""
    low, high = estimate.wide_low, estimate.wide_high
    return estimate.low if low is None else low, estimate.high if high is None else high


def _upright(kind: str, x: float) -> str:
    return f'<line class="{kind}" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="100%"/>'


def _ticks(scale: Scale) -> str:
    drawn = ['<line class="axis" x1="0" x2="100%" y1="0.5" y2="0.5"/>']
    for tick in scale.ticks:
        x, text = scale.at(tick), format_number(tick, f"+.{scale.digits}f") if tick else "0"
        drawn.append(f'<line class="axis" x1="{x:.2f}%" x2="{x:.2f}%" y1="0" y2="5"/>')
        drawn.append(f'<text x="{x:.2f}%" y="17" text-anchor="middle">{text}</text>')
    return (
        '<div class="forest-row forest-scale" aria-hidden="true"><span class="forest-strip">'
        f"<svg>{''.join(drawn)}</svg></span></div>"
    )


def _caption(panel: Sequence[Estimate], gains: Mapping[str, float]) -> str:
    unit = escape(panel[0].unit)
    parts = [f"← better, {unit}" if panel[0].lower_is_better else f"{unit}, better →"]
    margins = {estimate.margin for estimate in panel} - {None}
    if margins:
        size = f"±{margins.pop():g} counts" if len(margins) == 1 else "counts"
        parts.append(f"shaded: {size} as no difference")
    if any(estimate.wide_low is not None for estimate in panel):
        parts.append("line: 95 % interval, thin: 99.9 %")
    if any(estimate.metric in gains for estimate in panel):
        parts.append("dashed: the paper’s gain")
    return f'<p class="forest-unit">{" · ".join(parts)}</p>'


def _label(estimate: Estimate) -> str:
    size = "" if estimate.train_images is None else f", {estimate.train_images:,} images"
    return f"{estimate.metric}{size}"
