"""Small charts for pages, as numbers that a template makes SVG of: their colours are the page's, light or dark."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Of the view box. A phone shows one chart as wide as its screen, so letters keep about the size that they have here.
WIDTH, HEIGHT = 360, 230
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 10, 24
TICKS = 6


@dataclass(frozen=True)
class Curve:
    """Points (x, y) in order; its look is the page's class `curve-STYLE`."""

    name: str
    style: int
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Bar:
    """A column from 0 to `y`, between `low` and `high` on the x axis."""

    low: float
    high: float
    y: float


@dataclass(frozen=True)
class Tick:
    """A number on an axis, and where it stands."""

    at: float
    text: str


@dataclass(frozen=True)
class Shape:
    """A curve in the view box; a single point has no line, so it is a dot."""

    name: str
    style: int
    path: str
    dots: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Chart:
    """What a template needs to draw it."""

    title: str
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    shapes: Sequence[Shape]
    bars: Sequence[tuple[float, float, float, float]]  # x, y, width, height
    summary: str
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    right: int = WIDTH - RIGHT
    bottom: int = HEIGHT - BOTTOM


def line_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    bars: Sequence[Bar] = (),
    logarithmic: bool = False,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    dots: int = 40,
) -> Chart:
    """Lay out a chart; lines of up to `dots` points show each of them. Values that are not finite are left out."""
    finite = [
        Curve(curve.name, curve.style, [point for point in curve.points if all(map(math.isfinite, point))])
        for curve in curves
    ]
    points = [point for curve in finite for point in curve.points]
    low_x, high_x = x_range or _spread([x for x, _ in points])
    low_y, high_y = y_range or _spread([y for _, y in points if not logarithmic or y > 0], logarithmic=logarithmic)

    def place_x(x: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (x - low_x) / (high_x - low_x), 1)

    def place_y(y: float) -> float:
        if logarithmic:
            share = math.log(max(y, low_y) / low_y) / math.log(high_y / low_y)
        else:
            share = (y - low_y) / (high_y - low_y)
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * min(1.0, max(0.0, share)), 1)

    shapes: list[Shape] = []
    for curve in finite:
        placed = [(place_x(x), place_y(y)) for x, y in curve.points]
        path = "M" + "L".join(f"{x} {y}" for x, y in placed) if len(placed) > 1 else ""
        shapes.append(Shape(curve.name, curve.style, path, placed if len(placed) <= dots else ()))
    columns: list[tuple[float, float, float, float]] = []
    for bar in bars:
        x, y = place_x(bar.low), place_y(bar.y)
        columns.append((x + 0.5, y, round(place_x(bar.high) - x - 1, 1), round(HEIGHT - BOTTOM - y, 1)))
    y_values = _decades(low_y, high_y) if logarithmic else _round_steps(low_y, high_y)
    x_values = _round_steps(low_x, high_x, least=0 if x_range else 1)
    ends = [f"{curve.name} {curve.points[-1][1]:.4g}" for curve in finite if curve.points]
    return Chart(
        title,
        [Tick(place_x(x), f"{x:.10g}") for x in x_values],
        [Tick(place_y(y), _number(y)) for y in y_values],
        shapes,
        columns,
        f"{title}; at the end: {', '.join(ends)}",
    )


def _number(value: float) -> str:
    """Short enough to stand beside an axis: 0.25, 2.5e-4."""
    if value and not 0.009 < abs(value) < 1e5:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{float(digits):g}e{int(exponent)}"
    return f"{value:.6g}"


def _spread(values: Sequence[float], *, logarithmic: bool = False) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if logarithmic:
        return low / 1.1, high * 1.1
    if low == high:
        return low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    return low, high


def _round_steps(low: float, high: float, *, least: float = 0) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten that is `least` or more, about six of them at most."""
    rough = (high - low) / TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = max(least, next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9)))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.10g}") for number in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or over many decades these alone."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    digits = (1, 2, 5) if len(decades) <= 3 else (1,)
    return [value for decade in decades for digit in digits if low <= (value := digit * 10.0**decade) <= high]
