"""Draw what was measured on this machine. Accuracy is the published one: it is never on an axis with a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from torchclas.benchmarking.results import Result, Results, Timing, published, settings
from torchclas.catalog import Entry, Kind
from torchclas.reporting import charts, line_chart
from torchclas.reporting.line_chart import COLOURS, FAINT, INK, Label, Line, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS: dict[Kind, str] = {"server": "server", "mobile": "mobile", "transformer": "transformers", "other": "others"}
ACCURACY = "ImageNet-1k top-1 accuracy as published, %"

PARETO_WIDTH, PARETO_HEIGHT = 860, 620
ROW_HEIGHT, LEGEND_HEIGHT, TICKS_HEIGHT = 17, 19, 22  # pixels of the chart of throughput


@dataclass(frozen=True)
class Measured:
    """A published model and what was measured of it."""

    entry: Entry
    timing: Timing

    @property
    def point(self) -> Point:
        """Milliseconds and accuracy."""
        assert self.entry.top1 is not None
        return Point(self.entry.name, self.timing.median_ms, self.entry.top1)


def write_charts(results: Results) -> list[Path]:
    """Draw, as SVG and as PNG, accuracy over time of each setting and the throughput of all; returns the files.

    Raises `MissingDependencyError` without matplotlib.
    """
    written: list[Path] = []
    names = [row.case.model for row in results.read().values()]

    def write(name: str, plot: line_chart.Plot) -> None:
        for suffix in (".svg", ".png"):
            path = results.folder / "charts" / f"{name}{suffix}"
            line_chart.write(path, plot, salt=name, texts=names)
            written.append(path)

    groups = dict(settings(results.read()))
    for setting, rows in groups.items():
        folder = file_name(setting)
        shown = measured(rows)
        for kind in KINDS:
            if of_kind := [row for row in shown if row.entry.series.group.kind == kind]:
                write(f"{folder}/{kind}", lambda rows=of_kind, of=setting: plot_kind(rows, of))
        if shown:
            write(f"{folder}/pareto", lambda rows=shown, of=setting: plot_pareto(rows, of))
    if groups:
        write("throughput", lambda: plot_throughput(groups))
    return written


def measured(rows: Iterable[Result]) -> list[Measured]:
    """Those that have an accuracy to draw."""
    found = ((published(row.case.model), row.timing) for row in rows)
    return [Measured(entry, timing) for entry, timing in found if entry and timing and entry.top1 is not None]


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """The points that none beats in both, the fastest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (point.x, -point.y)):
        if not front or point.y > front[-1].y:
            front.append(point)
    return front


def plot_kind(rows: Sequence[Measured], setting: str) -> Figure:
    """Accuracy over time, designs as lines, as in the charts of published figures."""
    lines: dict[tuple[str, bool], list[Point]] = {}
    for row in rows:
        lines.setdefault((charts.design(row.entry), charts.is_ssld(row.entry)), []).append(row.point)
    drawn = [Line(*line, tuple(sorted(points, key=lambda point: point.x))) for line, points in lines.items()]
    return line_chart.plot_lines(drawn, x_label=_time_label(rows, setting), y_label=ACCURACY)


def plot_pareto(rows: Sequence[Measured], setting: str) -> Figure:
    """Accuracy over time of all, with the name of each model that none beats in both."""
    figure, axes = line_chart.new_figure(PARETO_WIDTH, PARETO_HEIGHT, top=LEGEND_HEIGHT + line_chart.TOP)
    points = [row.point for row in rows]
    line_chart.set_limits(axes, points)
    line_chart.name_axes(axes, _time_label(rows, setting), ACCURACY)
    front = pareto_front(points)
    steps = line_chart.coordinates(_steps(front))
    axes.plot(*steps.T, color=INK, linewidth=1.4, alpha=0.75)
    colours: dict[str, str] = dict(zip(KINDS, COLOURS, strict=False))
    for row in rows:
        best, colour = row.point in front, colours[row.entry.series.group.kind]
        size, opacity = (7, 1) if best else (4.5, 0.55)
        x, y = row.point.x, row.point.y
        axes.plot(x, y, "o", markersize=size, alpha=opacity, color=colour, markeredgewidth=0, gid=row.entry.name)
    for kind, colour in zip(KINDS, COLOURS, strict=False):
        if any(row.entry.series.group.kind == kind for row in rows):
            axes.plot([], [], "o", color=colour, markeredgewidth=0, label=KINDS[kind])
    axes.plot([], [], color=INK, linewidth=1.4, label="none is both faster and more accurate")
    _legend_above(axes)
    kinds = {row.entry.name: row.entry.series.group.kind for row in rows}
    names = [Label(point.name, colours[kinds[point.name]], line_chart.coordinates([point])) for point in front]
    line_chart.draw_labels(axes, names, obstacles=points, lines=[steps])
    return figure


def _steps(front: Sequence[Point]) -> list[Point]:
    """The corners of a line that for every time has the best accuracy there is."""
    corners = [(Point("", after.x, before.y), after) for before, after in pairwise(front)]
    return [front[0], *chain.from_iterable(corners)]


def plot_throughput(groups: dict[str, list[Result]]) -> Figure:
    """Images per second of every model, the fastest first, in each setting."""
    hardware = _hardware(row.timing for rows in groups.values() for row in rows if row.timing is not None)
    speeds: dict[str, dict[str, float]] = {}
    for setting, rows in groups.items():
        for row in rows:
            assert row.timing is not None
            speeds.setdefault(Path(row.case.model).name, {})[setting] = row.timing.images_per_s
    models = sorted(speeds, key=lambda model: max(speeds[model].values()))
    top = LEGEND_HEIGHT * len(groups) + TICKS_HEIGHT + line_chart.TOP
    height = ROW_HEIGHT * len(models) + line_chart.BOTTOM + top
    figure, axes = line_chart.new_figure(line_chart.WIDTH, height, top=top)
    every = [speed for of_model in speeds.values() for speed in of_model.values()]
    line_chart.set_log_x(axes, min(every) / 1.15, max(every) * 1.15)
    line_chart.name_axes(axes, f"images per second, measured: {hardware}", "")
    axes.set_ylim(-0.7, len(models) - 0.3)
    axes.set_yticks(range(len(models)), models, fontsize=9.5)
    names = max(label.get_window_extent().width for label in axes.get_yticklabels())
    figure.subplots_adjust(left=(names + 24) / line_chart.WIDTH)
    for row, model in enumerate(models):
        axes.plot([min(speeds[model].values()), max(speeds[model].values())], [row, row], color=FAINT, linewidth=1)
    for number, setting in enumerate(groups):
        found = [(speeds[model][setting], row) for row, model in enumerate(models) if setting in speeds[model]]
        style = line_chart.MARKERS[number % len(line_chart.MARKERS)]
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(*np.array(found).T, style, color=colour, markersize=6, markeredgewidth=0, label=setting, gid=setting)
    axes.tick_params(labeltop=True)  # the chart may be many screens high
    _legend_above(axes, columns=1, distance=TICKS_HEIGHT / (ROW_HEIGHT * len(models)))
    return figure


def file_name(setting: str) -> str:
    """A setting as a folder's name."""
    return setting.replace(", ", "-").replace(" ", "-").replace(":", "-")


def _time_label(rows: Sequence[Measured], setting: str) -> str:
    batch = next(part for part in setting.split(", ") if part.startswith("batch"))
    what = "image" if batch == "batch 1" else f"{batch.replace('batch', 'batch of')} images"
    return f"milliseconds per {what}, measured: {setting}, {_hardware(row.timing for row in rows)}"


def _hardware(timings: Iterable[Timing]) -> str:
    return ", ".join(sorted({timing.hardware for timing in timings}))


def _legend_above(axes: Axes, *, columns: int = 5, distance: float = 0) -> None:
    legend = axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1 + distance),
        ncols=columns,
        frameon=False,
        labelcolor=INK,
        borderaxespad=0.2,
        handletextpad=0.4,
        columnspacing=1.4,
    )
    legend.set_in_layout(False)
