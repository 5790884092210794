"""What `evaluate` prints and leaves behind where an image has any number of classes."""

from __future__ import annotations

import csv
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from torchclas.atomic import atomic_path
from torchclas.data.loader import Batch
from torchclas.inference.classifier import Classifier
from torchclas.messages import label
from torchclas.metrics.multi_label import ClassFigures, Figures
from torchclas.reporting.console import Table, verbatim
from torchclas.reporting.contact_sheet import MAX_PICTURES, Montage
from torchclas.reporting.image_rows import Mistake, Surest, write_csv
from torchclas.reporting.mistakes import what_is_wrong
from torchclas.reporting.rows import short_label
from torchclas.text import ANY_NAME, csv_path, csv_text, printable

if TYPE_CHECKING:
    from torchclas.explanation.explainer import Explainer

SEPARATOR = "|"  # of the classes of an image, whose names may have commas
CLASS_COLUMNS = (
    "id",
    "name",
    "threshold",
    "support",
    "predicted",
    "correct",
    "average_precision",
    "precision",
    "recall",
    "f1",
    "specificity",
    "recall_at_fpr_0.001",
)


class ImageRows:
    """A row for each image with the scores of all classes, and the images of which any class is wrong."""

    def __init__(self, classifier: Classifier, table: Any, explainer: Explainer | None) -> None:
        self.classifier = classifier
        self.table = table
        self.sheet = Surest(Montage(classifier), explainer)
        self.wrong: list[tuple[float, int, tuple[object, ...]]] = []
        self.surest: list[tuple[float, int, Mistake]] = []
        self.images = 0
        self.ids = classifier.spec.classes.ids
        scores = (f"score_{csv_text(key)}" for key in self.ids)
        table.writerow(("path", "status", "right", "true", "predicted", "missed", "added", *scores, "error"))

    def add(self, batch: Batch, truth: Sequence[Sequence[int]], probabilities: npt.NDArray[np.float32]) -> None:
        """Take the images of a batch: 0 and 1 for each class, and the probabilities of those that were read."""
        thresholds = self.classifier.thresholds
        assert thresholds is not None
        read = iter(zip(probabilities, batch.images, strict=True))
        for labels, row in zip(truth, self.classifier.rows(batch, probabilities), strict=True):
            self.images += 1
            true = np.array(labels) > 0
            if row.error is not None:
                blank = ("",) * (3 + len(self.ids))
                cells = csv_path(row.source), row.status, "", self._ids(true), *blank, csv_text(row.error)
                self.table.writerow(cells)
                continue
            scores, pixels = next(read)
            said = scores >= thresholds
            missed, added = self._ids(true & ~said), self._ids(said & ~true)
            cells = (self._ids(true), self._ids(said), missed, added)
            right = not (missed or added)
            digits = (f"{score:.7g}" for score in scores)
            self.table.writerow((csv_path(row.source), row.status, int(right), *cells, *digits, ""))
            if not right:
                by_class = np.where(said, scores, 1 - scores) * (said != true)
                wrong = int(by_class.argmax())
                sure = float(by_class[wrong])
                self.wrong.append((-sure, self.images, (csv_path(row.source), *cells, f"{sure:.7g}")))
                lines = self._lines(true, said, scores, wrong)
                self.surest.append((-sure, self.images, self.sheet.mistake(row, pixels, lines, wrong)))
                self.surest = sorted(self.surest, key=lambda entry: entry[:2])[:MAX_PICTURES]

    def _lines(
        self, true: npt.NDArray[np.bool_], said: npt.NDArray[np.bool_], scores: npt.NDArray[np.float32], wrong: int
    ) -> tuple[str, ...]:
        """What the sheet says of a mistake: the image's classes, those missed and added, and that of the heat map."""
        names = [short_label(printable(name)) for name in self.classifier.names]
        labelled = ", ".join(names[index] for index in np.flatnonzero(true)) or "–"
        missed, added = (
            [(names[index], float(scores[index])) for index in np.flatnonzero(chosen)]
            for chosen in (true & ~said, said & ~true)
        )
        heat = () if self.sheet.explainer is None else (f"heat map: {names[wrong]}",)
        return f"labelled {labelled}", *what_is_wrong(missed, added), *heat

    def _ids(self, chosen: npt.NDArray[np.bool_]) -> str:
        return csv_text(SEPARATOR.join(self.ids[index] for index in np.flatnonzero(chosen)))


@contextmanager
def image_rows(
    folder: Path, classifier: Classifier, explainer: Explainer | None = None
) -> Generator[tuple[ImageRows, list[Path]], None, None]:
    """Yield what takes the images, and the list of the files: predictions.csv, wrong.csv and wrong.png.

    They appear at the end of the block; `wrong` ones are those of which a class is missed or added, the surest first,
    on the sheet with heat maps of the surest wrong class if there is an `explainer`.
    """
    predictions, wrong, sheet = (folder / name for name in ("predictions.csv", "wrong.csv", "wrong.png"))
    written = [predictions, wrong]
    with atomic_path(predictions) as path, path.open("w", encoding="utf-8", errors=ANY_NAME, newline="") as file:
        rows = ImageRows(classifier, csv.writer(file), explainer)
        yield rows, written
    header = ("path", "true", "predicted", "missed", "added", "sureness")
    write_csv(wrong, header, (cells for _, _, cells in sorted(rows.wrong, key=lambda entry: entry[:2])))
    sheet.unlink(missing_ok=True)
    if rows.surest:
        rows.sheet.save([mistake for _, _, mistake in rows.surest], sheet)
        written.append(sheet)


def class_row(row: ClassFigures, ids: Sequence[str], names: Sequence[str]) -> Sequence[object]:
    """The values of `CLASS_COLUMNS`; what cannot be said is None."""
    return (
        csv_text(ids[row.index]),
        csv_text(names[row.index]),
        f"{row.threshold:.7g}",
        row.support,
        row.predicted,
        row.hits,
        row.average_precision,
        row.precision,
        row.recall,
        row.f1,
        row.specificity,
        row.recall_at_fpr,
    )


def figure_rows(figures: Figures) -> list[tuple[str, str]]:
    """The figures over all classes, with their names."""
    return [
        ("mAP", f"{100 * figures.mean_average_precision:.2f} %"),
        ("mean F1", f"{100 * figures.mean_f1:.2f} %"),
        ("mA", f"{100 * figures.mean_accuracy:.2f} %"),
        ("all classes right", f"{100 * figures.exact:.2f} %"),
        ("labels right", f"{100 * figures.label_accuracy:.2f} %"),
    ]


def class_table(figures: Figures, ids: Sequence[str], names: Sequence[str], shown: int) -> Table:
    """The classes with the lowest average precision."""
    rows = [row for row in figures.classes if row.support]
    worst = sorted(rows, key=lambda row: (row.average_precision or 0.0, row.index))[:shown]
    title = f"The {len(worst)} classes with the lowest average precision" if len(rows) > shown else "Classes"
    table = Table(title=title)
    named = tuple(ids) != tuple(names)
    for column in ("id", "name")[not named :]:
        table.add_column(label(column))
    for column in ("images", "AP", "threshold", "precision", "recall", "F1"):
        table.add_column(label(column), justify="right")
    for row in worst:
        shares = (_percent(share) for share in (row.precision, row.recall, row.f1))
        table.add_row(
            *([verbatim(ids[row.index])] if named else []),
            verbatim(names[row.index]),
            f"{row.support:,}",
            _percent(row.average_precision),
            f"{row.threshold:.3f}",
            *shares,
        )
    return table


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
