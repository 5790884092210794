"""Draw which classes a model confuses, and beside it how far its scores can be trusted. Needs matplotlib."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from torchclas.metrics.single_label import ConfidenceBin
from torchclas.reporting.fonts import matplotlib_fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_CELLS = 100  # along a side; more classes than this are drawn in groups of neighbours
MOST_NUMBERS = 15  # along a side that leave room for a number in each cell
MOST_NAMES = 40  # along a side that leave room for a name each
LONGEST_NAME = 20


def draw(
    confusion: Mapping[tuple[int, int], int],
    names: Sequence[str],
    calibration: Sequence[ConfidenceBin],
    title: str,
    path: Path,
) -> None:
    """Write a PNG. `confusion` maps (true class, predicted class) to images, `names` are those of all classes.

    Rows and columns are the classes that the data holds; predictions of any other make up a last column.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with matplotlib_fonts([*names, title]), mpl.rc_context({"font.size": 11}):
        figure = Figure(figsize=(18, 10), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
        _draw_matrix(left, confusion, names)
        _draw_reliability(right, calibration)
        figure.suptitle(title, parse_math=False)
        figure.savefig(path, dpi=100)


def matrix(confusion: Mapping[tuple[int, int], int]) -> tuple[list[int], int, bool, npt.NDArray[np.int64]]:
    """The counts as drawn: the classes along the side, how many make a cell, whether there is a column for others.

    The counts are [rows, rows (+ 1)].
    """
    classes = sorted({label for label, _ in confusion})
    place = {label: position for position, label in enumerate(classes)}
    group = math.ceil(len(classes) / MOST_CELLS)
    rows = math.ceil(len(classes) / group)
    others = any(predicted not in place for _, predicted in confusion)
    counts = np.zeros((rows, rows + others), np.int64)
    for (label, predicted), images in confusion.items():
        column = place[predicted] // group if predicted in place else rows
        counts[place[label] // group, column] += images
    return classes, group, others, counts


def _draw_matrix(axes: Axes, confusion: Mapping[tuple[int, int], int], names: Sequence[str]) -> None:
    from matplotlib.colors import PowerNorm

    classes, group, others, counts = matrix(confusion)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    # The cube root brings out confusions of a few percent beside a diagonal near 100; none at all stays white.
    drawn, norm = np.ma.masked_equal(shares, 0), PowerNorm(1 / 3, 0, 1)
    picture = axes.imshow(drawn, cmap="Blues", norm=norm, aspect="auto", interpolation="nearest")
    axes.figure.colorbar(picture, ax=axes, label="share of the row's images", fraction=0.03, pad=0.01)
    unit = "true class" if group == 1 else f"true class, in groups of {group}"
    axes.set(title="Confusion matrix", xlabel="predicted", ylabel=unit)

    rows = len(counts)
    step = 1 if rows <= MOST_NAMES else math.ceil(rows / 20)
    ticks = list(range(0, rows, step))
    texts = [_short(names[classes[row * group]]) + (" …" if step * group > 1 else "") for row in ticks]
    axes.set_yticks(ticks, texts, parse_math=False)
    axes.set_xticks(
        [*ticks, *([rows] if others else [])],
        [*texts, *(["any other"] if others else [])],
        parse_math=False,
        **(dict[str, Any](rotation=45, ha="right", rotation_mode="anchor") if rows > 4 else {}),
    )
    if rows <= MOST_NUMBERS:
        for (row, column), images in np.ndenumerate(counts):
            if images:
                colour = "white" if shares[row, column] > 0.2 else "black"
                axes.text(column, row, f"{images:,}", ha="center", va="center", color=colour)


def _draw_reliability(axes: Axes, calibration: Sequence[ConfidenceBin]) -> None:
    filled = [row for row in calibration if row.images]
    images = sum(row.images for row in filled)
    width = calibration[0].high - calibration[0].low
    middles = [(row.low + row.high) / 2 for row in filled]
    axes.bar(middles, [row.accuracy or 0 for row in filled], 0.92 * width, color="tab:blue", label="accuracy")
    axes.bar(middles, [row.images / images for row in filled], 0.3 * width, color="lightgray", label="share of images")
    axes.plot([0, 1], [0, 1], color="black", linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.plot(
        [row.confidence or 0 for row in filled], [row.accuracy or 0 for row in filled], "o", color="tab:red",
        clip_on=False, label="mean score against accuracy",
    )  # fmt: skip
    axes.set(title="Reliability", xlabel="score of the top class", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=2)


def _short(name: str) -> str:
    first = name.split(",")[0].strip()
    return first if len(first) <= LONGEST_NAME else first[: LONGEST_NAME - 1] + "…"
