"""Draw accuracy against time as lines of related models, each with its name beside it. Needs matplotlib.

Pictures have no background: their colours read about equally well on white and on black.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, inf, log10
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchclas.atomic import atomic_path
from torchclas.errors import MissingDependencyError
from torchclas.reporting.fonts import matplotlib_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by most colour-blind people too; markers tell equal colours apart.
COLOURS = ("#2f7ed8", "#d9632a", "#1b9e77", "#b565a7", "#a17f1a", "#3a9fb5", "#d1495b", "#7f73d9", "#6f8f2f")
MARKERS = "osD^vPX"
INK, FAINT = "#7b828c", "#8b929b"
SSLD_MARKER, SSLD_DASHES = "*", (0, (4, 2.5))

# Pixels, of which every line makes a chart higher, so that its name finds room.
PER_INCH = 72  # as SVG has it
WIDTH, HEIGHT, HEIGHT_PER_LINE = 860, 420, 13
LEFT, RIGHT, BOTTOM, TOP = 56, 16, 50, 14
PASSES = 3
PNG_DPI = 144  # fine enough for screens of today
LEADING_DIGITS = (1, 2, 3, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tuple(tenth / 10 for tenth in range(10, 100))
FEWEST_TICKS = 3

Pixels = npt.NDArray[np.float64]
Plot = Callable[[], "Figure"]


@dataclass(frozen=True)
class Point:
    """A model with what it costs and what it reaches."""

    name: str
    x: float
    y: float


@dataclass(frozen=True)
class Line:
    """Models of one design, the fastest first; `ssld` tells those trained by distillation, which share its colour."""

    design: str
    ssld: bool
    points: tuple[Point, ...]

    @property
    def label(self) -> str:
        """What stands beside it."""
        return f"{self.design}, SSLD" if self.ssld else self.design


@dataclass(frozen=True)
class Label:
    """A text that belongs beside some `points` [N, 2], in data coordinates, the best place being near the last."""

    text: str
    colour: str
    points: Pixels


def write(path: Path, plot: Plot, *, salt: str, texts: Iterable[str] = ()) -> None:
    """Write what `plot` draws, in the format that the file's suffix stands for.

    The same figure makes the same file on every run; `salt` keeps the ids of two SVGs on one page apart. `texts` are
    those in it that may be Chinese. Raises `MissingDependencyError` without matplotlib.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingDependencyError("matplotlib", "'torchclas[plot]'") from None

    style = mpl.rc_context({"svg.hashsalt": salt, "font.size": 11})
    with style, matplotlib_fonts(texts), atomic_path(path) as temporary:
        svg = path.suffix == ".svg"
        metadata = {"Date": None} if svg else None
        dpi = "figure" if svg else PNG_DPI
        plot().savefig(temporary, format=path.suffix[1:], transparent=True, metadata=metadata, dpi=dpi)


def plot_lines(lines: Sequence[Line], *, x_label: str, y_label: str) -> Figure:
    """A chart of `lines` as a figure of 72 pixels per inch; every point's id is its model's name."""
    height = HEIGHT + HEIGHT_PER_LINE * len(lines)
    figure, axes = new_figure(WIDTH, height)
    set_limits(axes, [point for line in lines for point in line.points])
    name_axes(axes, x_label, y_label)
    colours = _draw_lines(axes, lines)
    names = [Label(line.label, colour, coordinates(line.points)) for line, colour in zip(lines, colours, strict=True)]
    draw_labels(axes, names)
    return figure


def new_figure(width: float, height: float, *, left: float = LEFT, top: float = TOP) -> tuple[Figure, Axes]:
    """An empty chart of so many pixels, with so many left of it and above it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / PER_INCH, height / PER_INCH), dpi=PER_INCH)
    figure.subplots_adjust(left / width, BOTTOM / height, 1 - RIGHT / width, 1 - top / height)
    return figure, figure.add_subplot()


def set_limits(axes: Axes, points: Sequence[Point]) -> None:
    """Make room for `points`, over a logarithmic x axis."""
    x, y = coordinates(points).T
    margin = 0.05 * (y.max() - y.min()) or 1
    axes.set_ylim(y.min() - margin, y.max() + margin)
    set_log_x(axes, x.min() / 1.15, x.max() * 1.3)


def set_log_x(axes: Axes, low: float, high: float) -> None:
    """A logarithmic x axis from `low` to `high`, with round numbers on it."""
    axes.set_xscale("log")
    ticks = _round_numbers(low, high)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)


def name_axes(axes: Axes, x_label: str, y_label: str) -> None:
    """Say what the axes stand for, in the style of all charts."""
    axes.set_xlabel(x_label, color=INK, labelpad=8)
    axes.set_ylabel(y_label, color=INK, labelpad=8)
    axes.tick_params(colors=INK, length=0, pad=6)
    axes.grid(color=FAINT, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def coordinates(points: Sequence[Point]) -> Pixels:
    """The x and y of points, [N, 2]."""
    return np.array([(point.x, point.y) for point in points]).reshape(-1, 2)


def _round_numbers(low: float, high: float) -> list[float]:
    """A few between `low` and `high`: the rounder, the wider apart these are."""
    decades = range(floor(log10(low)), ceil(log10(high)) + 1)
    found: list[float] = []
    for digits in LEADING_DIGITS:
        found = [value for decade in decades for digit in digits if low <= (value := digit * 10.0**decade) <= high]
        if len(found) >= FEWEST_TICKS:
            break
    return found


def _draw_lines(axes: Axes, shown: Sequence[Line]) -> list[str]:
    """Every line with its points; the colours, in the lines' order."""
    styles = _styles(axes, shown)
    for line in shown:
        colour, marker = styles[line.design]
        axes.plot(
            *coordinates(line.points).T,
            color=colour,
            linewidth=1.4,
            linestyle=SSLD_DASHES if line.ssld else "-",
            alpha=0.75,
        )
        marker, size = (SSLD_MARKER, 10) if line.ssld else (marker, 5.5)
        for point in line.points:
            axes.plot(point.x, point.y, marker, markersize=size, color=colour, markeredgewidth=0, gid=point.name)
    if any(line.ssld for line in shown):
        (key,) = axes.plot([], [], SSLD_MARKER, markersize=10, linewidth=1.4, linestyle=SSLD_DASHES, color=INK)
        axes.legend([key], ["weights distilled with SSLD"], frameon=False, labelcolor=INK, loc="lower right")
    return [styles[line.design][0] for line in shown]


def _styles(axes: Axes, shown: Sequence[Line]) -> dict[str, tuple[str, str]]:
    """A colour and a marker per design: where colours have run out, the one whose lines are farthest away."""
    paths: dict[str, list[Pixels]] = {}
    for line in shown:
        paths.setdefault(line.design, []).append(_path(axes, coordinates(line.points)))
    styles: dict[str, tuple[str, str]] = {}
    used: dict[str, list[Pixels]] = {colour: [] for colour in COLOURS}
    for design, parts in paths.items():
        path = np.concatenate(parts)
        colour = max(COLOURS, key=lambda colour: min((_distance(path, other) for other in used[colour]), default=inf))
        styles[design] = colour, MARKERS[len(styles) % len(MARKERS)]
        used[colour].append(path)
    return styles


def draw_labels(
    axes: Axes, names: Sequence[Label], *, obstacles: Sequence[Point] = (), lines: Sequence[Pixels] = ()
) -> None:
    """Write each text where it covers least: of other texts, of points and `obstacles`, of lines through points.

    `lines` are more of these, each the corners [N, 2] of one.
    """
    points = [axes.transData.transform(name.points) for name in names]
    paths = [_path(axes, name.points) for name in names]
    all_points = np.concatenate([*points, axes.transData.transform(coordinates(obstacles))])
    all_paths = np.concatenate([*paths, *(_path(axes, line) for line in lines)])
    frame = np.asarray(axes.get_window_extent().extents)
    legend = axes.get_legend()
    fixed = [] if legend is None else [np.asarray(legend.get_window_extent().extents)]
    boxes: dict[int, Pixels] = {}
    inches = axes.figure.dpi_scale_trans  # holds in whatever resolution the figure is written
    labels = [
        axes.text(0, 0, name.text, color=name.colour, fontsize=10.5, transform=inches, va="bottom") for name in names
    ]
    in_need = sorted(range(len(names)), key=lambda i: len(names[i].points))  # a single point has few places
    for _ in range(PASSES):  # once all have a place, a label may find a better one
        for i in in_need:
            extent = labels[i].get_window_extent()
            others = np.array([*fixed, *(box for j, box in boxes.items() if j != i)]).reshape(-1, 4)

            def cost(place: tuple[float, Pixels], own: int = i, others: Pixels = others) -> float:
                preference, box = place
                outside = np.any(box[:2] < frame[:2]) or np.any(box[2:] > frame[2:])
                overlaps = np.all((box[:2] < others[:, 2:]) & (others[:, :2] < box[2:]), axis=1).sum()
                covered = _inside(box, all_points, 6)
                near = _inside(box, all_points, 14) - _inside(box, points[own], 14)
                crossed = _inside(box, all_paths, 2) - 0.7 * _inside(box, paths[own], 2)
                return 1000 * outside + 300 * overlaps + 25 * covered + 4 * near + crossed + preference

            _, boxes[i] = min(_places(points[i], extent.width, extent.height), key=cost)
    for i, label in enumerate(labels):
        label.set_position((boxes[i][0] / PER_INCH, boxes[i][1] / PER_INCH))


def _places(points: Pixels, width: float, height: float) -> Iterator[tuple[float, Pixels]]:
    """Where a line's label may stand, and how unwelcome that is: near its last point is best, then near its first."""
    for number, (x, y) in enumerate(points):
        late = 0 if number == len(points) - 1 else 3 if number == 0 else 4
        for distance in (8, 14, 22):
            for dx, dy in ((1, 0), (1, -1), (1, 1), (0, -1), (0, 1), (-1, 1), (-1, -1), (-1, 0)):
                left = x + dx * distance - (width / 2, 0, width)[dx]
                low = y + dy * distance - (height / 2, 0, height)[dy]
                yield late + distance / 3, np.array([left, low, left + width, low + height])


def _path(axes: Axes, points: Pixels) -> Pixels:
    """Places all along the line through `points`, [N, 2], at most four pixels apart."""
    corners = axes.transData.transform(points)
    steps = [np.linspace(a, b, int(np.hypot(*(b - a)) / 4) + 2) for a, b in pairwise(corners)]
    return np.concatenate([corners[:1], *steps])


def _distance(a: Pixels, b: Pixels) -> float:
    return float(np.hypot(*(a[:, None] - b).transpose(2, 0, 1)).min())


def _inside(box: Pixels, points: Pixels, margin: float) -> int:
    return int(np.all((points > box[:2] - margin) & (points < box[2:] + margin), axis=1).sum())
