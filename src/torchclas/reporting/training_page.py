"""The page of a training run: one file with everything in it, to read on a desk or a phone, by day or by night."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torchclas.messages import label
from torchclas.metrics.multi_label import Figures
from torchclas.metrics.single_label import ClassCounts, Tally
from torchclas.reporting import pages, svg_chart
from torchclas.reporting.confusion import matrix
from torchclas.reporting.curves import has_large_range, top5
from torchclas.reporting.mistakes import Mistake, jpegs, scored
from torchclas.reporting.svg_chart import Bar, Chart, Curve
from torchclas.training.loop import Epoch

TABLE_ROWS = 60  # more epochs than this are thinned out
MOST_CELLS = 20  # classes along a side of the matrix that leave room for numbers
MOST_CLASSES = 200  # rows of the table of classes
MOST_PAIRS = 12  # rows of the table of what is confused


@dataclass(frozen=True)
class Run:
    """What the page tells. `figures` and `facts` are names with values, `recipe` is TOML.

    `tally` and `mistakes` are of the best network on the validation images, whose classes have these `names`; the tally
    is `Figures` where an image has any number of classes.
    `confusion` is a picture of all of it, where there is one.
    """

    title: str
    figures: Sequence[tuple[str, str]]
    facts: Sequence[tuple[str, str]]
    notes: Sequence[str]
    recipe: str
    history: Sequence[Epoch]
    best: Epoch
    tally: Tally | Figures
    names: Sequence[str]
    mistakes: Sequence[Mistake]
    confusion: Path | None


def write(path: Path, run: Run) -> Path:
    """Write the page."""
    step = max(1, -(-len(run.history) // TABLE_ROWS))
    several = run.tally if isinstance(run.tally, Figures) else None
    counts = run.tally.classes() if isinstance(run.tally, Tally) else ()
    classes = sorted((row for row in counts if row.support), key=_recall)
    pairs = sorted((row for row in counts if row.confused), key=lambda row: -row.confused)
    rows = [] if several is None else sorted(several.classes, key=lambda row: row.average_precision or 0.0)
    return pages.write_page(
        path,
        "training.html",
        run=run,
        charts=_charts(run),
        epochs=[row for row in run.history if row.epoch % step == 0 or row in (run.best, run.history[-1])],
        classes=classes[:MOST_CLASSES],
        all_classes=len(classes or rows),
        several=rows[:MOST_CLASSES],
        pairs=pairs[:MOST_PAIRS],
        matrix=_matrix(run, run.tally) if isinstance(run.tally, Tally) else None,
        confusion=None if run.confusion is None else pages.embedded(run.confusion.read_bytes(), "png"),
        scored=scored,
        explained=any(mistake.heat is not None for mistake in run.mistakes),
        mistakes=[
            (mistake, Path(mistake.source).name, [pages.embedded(each, "jpeg") for each in jpegs(mistake)])
            for mistake in run.mistakes
        ],
    )


def _recall(row: ClassCounts) -> tuple[float, int]:
    return row.recall or 0.0, -row.support


def _charts(run: Run) -> list[Chart]:
    history = run.history
    accuracy = [Curve(run.best.score_name, 0, [(row.epoch, 100 * row.score) for row in history])]
    if fifths := top5(history):
        accuracy.append(Curve("top-5", 1, list(zip([row.epoch for row in history], fifths, strict=True))))
    best = f"best: {100 * run.best.score:.2f}"
    accuracy.append(Curve(best, 2, [(run.best.epoch, 100 * run.best.score)]))
    losses = [
        Curve("training", 0, [(row.epoch, row.train_loss) for row in history]),
        Curve("validation", 1, [(row.epoch, row.val_loss) for row in history]),
    ]
    charts = [
        svg_chart.line_chart("On the validation images, %", accuracy),
        svg_chart.line_chart("Loss", losses, logarithmic=has_large_range(history)),
        svg_chart.line_chart(
            "Learning rate at the end of each epoch",
            [Curve("learning rate", 0, [(row.epoch, row.lr) for row in history])],
        ),
    ]
    if isinstance(run.tally, Figures):
        return charts
    bins = [row for row in run.tally.calibration if row.images]
    return [
        *charts,
        svg_chart.line_chart(
            "How often a score is right",
            [
                Curve("as it should be", 3, [(0, 0), (1, 1)]),
                Curve("mean score against accuracy", 2, [(row.confidence or 0, row.accuracy or 0) for row in bins]),
            ],
            bars=[Bar(row.low, row.high, row.accuracy or 0) for row in bins],
            x_range=(0, 1),
            y_range=(0, 1),
        ),
    ]


@dataclass(frozen=True)
class _Matrix:
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[int, float, bool]]]]  # images, their share of the row, whether right


def _matrix(run: Run, tally: Tally) -> _Matrix | None:
    """The confusion matrix as numbers; None where there are too many classes for that."""
    labels, _, others, counts = matrix(tally.confusion)
    if not 0 < len(labels) <= MOST_CELLS:
        return None
    names = [run.names[label] for label in labels]
    rows = [
        (name, [(int(images), float(images / max(1, row.sum())), at == column) for column, images in enumerate(row)])
        for at, (name, row) in enumerate(zip(names, counts, strict=True))
    ]
    return _Matrix([*names, *([label("any other")] if others else [])], rows)
