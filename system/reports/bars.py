"""Bars of shares, and points with their ranges, as charts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from .gantt import shortened
from .svg import STYLES, WIDTH, Scale, at, drawing, text_at, upright

_TOP, _BOTTOM, _RIGHT = 4.0, 34.0, 10.0


def range_chart(
    rows: Sequence[tuple[str, int, float, float, float]], *, title: str, x_label: str, mark: float | None = None
) -> Markup:
    """Points with their ranges, on a logarithmic axis: what is twice another is as far from it as its half.

    Args:
        rows: ``(name, style, value, low, high)``, all above 0; at least one.
        title: for people who cannot see it.
        x_label: under the axis.
        mark: where an upright line stands.
    """
    pitch, left = 22.0, 96.0
    floor = _TOP + pitch * len(rows)
    lowest, highest = min(row[3] for row in rows) / 1.1, max(row[4] for row in rows) * 1.1
    x = Scale(math.log(lowest), math.log(highest), left, WIDTH - _RIGHT)
    numbers = _log_ticks(lowest, highest)
    parts = [upright(x(math.log(value)), _TOP, floor, "grid") for value in numbers]
    if mark is not None:
        parts.append(upright(x(math.log(mark)), _TOP, floor, "mark"))
    for row, (name, style, *values) in enumerate(rows):
        value, low, high = (at(x(math.log(one))) for one in values)
        middle = _TOP + pitch * (row + 0.5)
        parts.append(text_at(left - 6, middle + 4, shortened(name, 14), "tick end"))
        reach = Markup('<line class="reach series-{}" x1="{}" x2="{}" y1="{y}" y2="{y}"/>')
        parts.append(reach.format(style % STYLES, low, high, y=at(middle)))
        point = Markup('<circle class="fill-{}" cx="{}" cy="{}" r="4.5"/>')
        parts.append(point.format(style % STYLES, value, at(middle)))
    parts.append(
        Markup('<line class="axis" x1="{}" x2="{}" y1="{y}" y2="{y}"/>').format(at(left), at(x.end), y=at(floor))
    )
    parts += [text_at(x(math.log(v)), floor + 15, f"{v:g}", "tick middle") for v in numbers]
    parts.append(text_at((left + x.end) / 2, floor + 30, x_label, "tick middle"))
    return drawing(WIDTH, floor + _BOTTOM, title, parts)


def bar_chart(bars: Sequence[tuple[str, float]], *, style: int, title: str, x_label: str) -> Markup:
    """Upright bars ``(name, share)``, each with its share above it and its name under it; at least one."""
    height, floor = 150.0, 116.0
    x = Scale(0.0, len(bars), 6.0, WIDTH - 6.0)
    tallest = max(share for _, share in bars) or 1.0
    room = x(1) - x(0)
    every = math.ceil(7.0 * max(len(name) for name, _ in bars) / room)
    parts = []
    for index, (name, share) in enumerate(bars):
        size = (floor - 22.0) * share / tallest
        parts.append(
            Markup(
                '<rect class="work fill-{}" x="{}" y="{}" width="{}" height="{}"><title>{}: {}</title></rect>'
            ).format(
                style % STYLES,
                at(x(index) + 0.08 * room),
                at(floor - size),
                at(0.84 * room),
                at(size),
                name,
                f"{share:.1%}",
            )
        )
        middle = x(index + 0.5)
        if share > 0 and room >= 26.0:
            parts.append(text_at(middle, floor - size - 5, _percent(share), "tick middle"))
        if index % every == 0:
            parts.append(text_at(middle, floor + 14, name, "tick middle"))
    parts.append(Markup('<line class="axis" x1="6" x2="{}" y1="{y}" y2="{y}"/>').format(at(WIDTH - 6), y=at(floor)))
    parts.append(text_at(WIDTH / 2, height - 5, x_label, "tick middle"))
    return drawing(WIDTH, height, title, parts)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.005 else "<1%"


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers within ``low..high``: 1, 2 and 5 times powers of ten, or the latter alone over many of them."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) <= 4 else (1,)
    return [v for power in powers for factor in factors if low <= (v := factor * 10.0**power) <= high]
