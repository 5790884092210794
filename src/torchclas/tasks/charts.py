"""Draw accuracy against latency, the catalog's figures as lines of related models. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from torchclas import catalog
from torchclas.atomic import atomic_path
from torchclas.catalog import Entry, Kind
from torchclas.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Which device a chart of each kind is about. Of a device's columns the first one is drawn: one image, one thread.
DEVICES: dict[Kind, str] = {"server": "v100", "mobile": "sd855", "transformer": "v100"}

# Series that are several lines; every other one is a line under its own title.
LINES = {
    "ResNet50_vc": "ResNet_vc",
    "ResNet*_vd*": "ResNet_vd",
    "MobileNetV3_large_*_int8": "MobileNetV3 large, int8",
    "MobileNetV3_large_*": "MobileNetV3 large",
    "MobileNetV3_small_*": "MobileNetV3 small",
    "ResNeXt*_vd_32x4d": "ResNeXt_vd 32x4d",
    "ResNeXt*_vd_64x4d": "ResNeXt_vd 64x4d",
    "ResNeXt*_32x4d": "ResNeXt 32x4d",
    "ResNeXt*_64x4d": "ResNeXt 64x4d",
    "Res2Net*_vd_*": "Res2Net_vd",
    "SE_HRNet*": "SE_HRNet",
    "Xception*_deeplab": "Xception deeplab",
    "SwinTransformer_*_22kto1k": "Swin Transformer, 22k",
    "ViT_*_patch16_224": "ViT/16, 224 px",
    "ViT_*_patch16_384": "ViT/16, 384 px",
    "ViT_*_patch32_384": "ViT/32, 384 px",
    "DeiT_*_distilled_*": "DeiT distilled",
    "pcpvt_*": "Twins-PCPVT",
    "alt_gvt_*": "Twins-SVT",
}

# Left out, because the published latency is another model's or another input size's; their notes say whose.
DOUBTFUL = (
    "ResNeXt101_vd_64x4d",
    "ShuffleNetV2_swish",
    "Fix_ResNeXt101_32x48d_wsl",
    "DeiT_tiny_patch16_224",
)

# Read about equally well on white and on black, by most colour-blind people too; markers tell equal colours apart.
COLOURS = ("#2f7ed8", "#d9632a", "#1b9e77", "#b565a7", "#a17f1a", "#3a9fb5", "#d1495b", "#7f73d9", "#6f8f2f")
MARKERS = "osD^vPX"
INK, FAINT = "#7b828c", "#8b929b"
SSLD_MARKER, SSLD_DASHES = "*", (0, (4, 2.5))

# Pixels, of which SVG has 72 in an inch; every line makes a chart higher, so that its name finds room.
WIDTH, HEIGHT, HEIGHT_PER_LINE = 860, 420, 13
LEFT, RIGHT, BOTTOM, TOP = 56, 16, 50, 14
PASSES = 3
TICKS = (1, 2, 3, 5, 10, 20, 30, 50, 100)

Pixels = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Line:
    """Models of one design, the fastest first; `ssld` tells those trained by distillation."""

    design: str
    ssld: bool
    entries: tuple[Entry, ...]

    @property
    def label(self) -> str:
        """What stands beside it."""
        return f"{self.design}, SSLD" if self.ssld else self.design


def lines(kind: Kind) -> list[Line]:
    """What the chart of this kind shows, in catalog order."""
    groups: dict[tuple[str, bool], list[Entry]] = {}
    for entry in catalog.entries():
        if entry.series.group.kind == kind and is_drawn(entry):
            groups.setdefault((_design(entry), "_ssld" in entry.name), []).append(entry)
    return [Line(design, ssld, tuple(sorted(group, key=_latency))) for (design, ssld), group in groups.items()]


def is_drawn(entry: Entry) -> bool:
    """Whether a chart shows it: it has an accuracy, and a latency of its own on the chart's device."""
    device = DEVICES.get(entry.series.group.kind)
    return entry.top1 is not None and device in entry.latency and entry.name not in DOUBTFUL


def draw(kind: Kind, path: Path) -> None:
    """Write the chart of this kind; the file's suffix says in which format.

    An SVG has no background, suits light and dark pages, is the same on every run, and has every point under its
    model's name. Raises `MissingDependencyError` without matplotlib.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingDependencyError("matplotlib", "'torchclas[plot]'") from None

    style = mpl.rc_context({"svg.hashsalt": kind, "font.family": "DejaVu Sans", "font.size": 11})
    with style, atomic_path(path) as temporary:
        metadata = {"Date": None} if path.suffix == ".svg" else None
        plot(kind).savefig(temporary, format=path.suffix[1:], transparent=True, metadata=metadata)


def plot(kind: Kind) -> Figure:
    """The chart of this kind as a figure of 72 pixels per inch."""
    from matplotlib.figure import Figure

    shown = lines(kind)
    height = HEIGHT + HEIGHT_PER_LINE * len(shown)
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    figure.subplots_adjust(LEFT / WIDTH, BOTTOM / height, 1 - RIGHT / WIDTH, 1 - TOP / height)
    axes = figure.add_subplot()
    _draw_axes(axes, kind, [entry for line in shown for entry in line.entries])
    _draw_labels(axes, shown, _draw_lines(axes, shown))
    return figure


def _design(entry: Entry) -> str:
    return next((label for glob, label in LINES.items() if fnmatchcase(entry.name, glob)), entry.series.title)


def _latency(entry: Entry) -> float:
    return entry.latency[DEVICES[entry.series.group.kind]][0]


def _point(entry: Entry) -> tuple[float, float]:
    assert entry.top1 is not None
    return _latency(entry), entry.top1


def _draw_axes(axes: Axes, kind: Kind, entries: Sequence[Entry]) -> None:
    device = catalog.catalog().devices[DEVICES[kind]]
    latencies, accuracies = zip(*map(_point, entries), strict=True)
    axes.set_xscale("log")
    axes.set_xlim(min(latencies) / 1.15, max(latencies) * 1.3)
    margin = 0.05 * (max(accuracies) - min(accuracies))
    axes.set_ylim(min(accuracies) - margin, max(accuracies) + margin)
    axes.set_xticks(TICKS, [str(tick) for tick in TICKS])
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(latencies) / 1.15, max(latencies) * 1.3)  # ticks outside would widen it
    axes.set_xlabel(f"milliseconds per image: {device.title}, {device.columns[0]}", color=INK, labelpad=8)
    axes.set_ylabel("ImageNet-1k top-1 accuracy, %", color=INK, labelpad=8)
    axes.tick_params(colors=INK, length=0, pad=6)
    axes.grid(color=FAINT, alpha=0.25, linewidth=0.8)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(FAINT)


def _draw_lines(axes: Axes, shown: Sequence[Line]) -> list[str]:
    """Every line with its points; the colours, in the lines' order."""
    styles = _styles(axes, shown)
    for line in shown:
        colour, marker = styles[line.design]
        x, y = zip(*map(_point, line.entries), strict=True)
        axes.plot(x, y, color=colour, linewidth=1.4, linestyle=SSLD_DASHES if line.ssld else "-", alpha=0.75)
        marker, size = (SSLD_MARKER, 10) if line.ssld else (marker, 5.5)
        for entry in line.entries:
            axes.plot(*_point(entry), marker, markersize=size, color=colour, markeredgewidth=0, gid=entry.name)
    if any(line.ssld for line in shown):
        (key,) = axes.plot([], [], SSLD_MARKER, markersize=10, linewidth=1.4, linestyle=SSLD_DASHES, color=INK)
        axes.legend([key], ["weights distilled with SSLD"], frameon=False, labelcolor=INK, loc="lower right")
    return [styles[line.design][0] for line in shown]


def _styles(axes: Axes, shown: Sequence[Line]) -> dict[str, tuple[str, str]]:
    """A colour and a marker per design: where colours have run out, the one whose lines are farthest away."""
    paths: dict[str, list[Pixels]] = {}
    for line in shown:
        paths.setdefault(line.design, []).append(_path(axes, line))
    styles: dict[str, tuple[str, str]] = {}
    used: dict[str, list[Pixels]] = {colour: [] for colour in COLOURS}
    for design, parts in paths.items():
        path = np.concatenate(parts)
        colour = max(COLOURS, key=lambda colour: min((_distance(path, other) for other in used[colour]), default=inf))
        styles[design] = colour, MARKERS[len(styles) % len(MARKERS)]
        used[colour].append(path)
    return styles


def _draw_labels(axes: Axes, shown: Sequence[Line], colours: Sequence[str]) -> None:
    """A name beside each line, where it covers least."""
    points = [axes.transData.transform([_point(entry) for entry in line.entries]) for line in shown]
    paths = [_path(axes, line) for line in shown]
    all_points, all_paths = np.concatenate(points), np.concatenate(paths)
    frame = np.asarray(axes.get_window_extent().extents)
    legend = axes.get_legend()
    fixed = [] if legend is None else [np.asarray(legend.get_window_extent().extents)]
    boxes: dict[int, Pixels] = {}
    labels = [
        axes.text(0, 0, line.label, color=colour, fontsize=10.5, transform=None, va="bottom")
        for line, colour in zip(shown, colours, strict=True)
    ]
    in_need = sorted(range(len(shown)), key=lambda i: len(shown[i].entries))  # a single point has few places
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
        label.set_position((boxes[i][0], boxes[i][1]))


def _places(points: Pixels, width: float, height: float) -> Iterator[tuple[float, Pixels]]:
    """Where a line's label may stand, and how unwelcome that is: near its last point is best, then near its first."""
    for number, (x, y) in enumerate(points):
        late = 0 if number == len(points) - 1 else 3 if number == 0 else 4
        for distance in (8, 14, 22):
            for dx, dy in ((1, 0), (1, -1), (1, 1), (0, -1), (0, 1), (-1, 1), (-1, -1), (-1, 0)):
                left = x + dx * distance - (width / 2, 0, width)[dx]
                low = y + dy * distance - (height / 2, 0, height)[dy]
                yield late + distance / 3, np.array([left, low, left + width, low + height])


def _path(axes: Axes, line: Line) -> Pixels:
    """Points all along a line, [N, 2], at most four pixels apart."""
    points = axes.transData.transform([_point(entry) for entry in line.entries])
    steps = [np.linspace(a, b, int(np.hypot(*(b - a)) / 4) + 2) for a, b in pairwise(points)]
    return np.concatenate([points[:1], *steps])


def _distance(a: Pixels, b: Pixels) -> float:
    return float(np.hypot(*(a[:, None] - b).transpose(2, 0, 1)).min())


def _inside(box: Pixels, points: Pixels, margin: float) -> int:
    return int(np.all((points > box[:2] - margin) & (points < box[2:] + margin), axis=1).sum())
