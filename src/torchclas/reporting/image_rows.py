"""What `evaluate` leaves behind of each image: a row, and a list and a contact sheet of those it got wrong."""

from __future__ import annotations

import csv
import heapq
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from torchclas.atomic import atomic_path
from torchclas.data.loader import Batch
from torchclas.explanation.heat_map import shares
from torchclas.inference.classifier import Classifier, Prediction
from torchclas.reporting.contact_sheet import MAX_PICTURES, Montage, Picture
from torchclas.reporting.rows import short_label
from torchclas.text import ANY_NAME, csv_path, csv_text, printable

if TYPE_CHECKING:
    from torchclas.explanation.explainer import Explainer  # which needs torch; other engines do not

TRUTH = ("true_class_id", "true_label", "true_score")
GUESS = ("predicted_class_id", "predicted_label", "predicted_score")


class Mistake(NamedTuple):
    """A picture, the class that it was wrongly given, or wrongly not, and what the network took, to be explained."""

    picture: Picture
    wrong: int
    image: npt.NDArray[Any]


class Surest:
    """Makes pictures of mistakes, with heat maps of the wrong classes if there is an `explainer`."""

    def __init__(self, sheet: Montage, explainer: Explainer | None) -> None:
        self.sheet = sheet
        self.explainer = explainer

    def mistake(self, row: Prediction, pixels: npt.NDArray[Any], lines: tuple[str, ...], wrong: int) -> Mistake:
        """One that is to be drawn later; of its batch nothing else stays in memory. `lines` say what is wrong."""
        image = pixels[:0] if self.explainer is None else pixels
        return Mistake(Picture(row, self.sheet.thumbnail(pixels), lines), wrong, image.copy())

    def save(self, mistakes: Sequence[Mistake], path: Path) -> None:
        """Draw them in this order."""
        self.sheet.pictures = [self._drawn(mistake) for mistake in mistakes]
        self.sheet.save(path)

    def _drawn(self, mistake: Mistake) -> Picture:
        if self.explainer is None:
            return mistake.picture
        relevance = self.explainer.maps(mistake.image[None], [[mistake.wrong]])[0, 0]
        return mistake.picture._replace(heated=self.sheet.thumbnail(mistake.image, shares(relevance)))


class ImageRows:
    """Collects what the files are made of; only the CSV's rows, which are written at once, grow with the images."""

    def __init__(self, classifier: Classifier, table: Any, explainer: Explainer | None) -> None:
        self.classifier = classifier
        self.table = table
        self.sheet = Surest(Montage(classifier), explainer)
        self.wrong: list[tuple[float, int, tuple[object, ...]]] = []
        self.surest: list[tuple[float, int, Mistake]] = []  # a heap, of the mistakes with the highest scores
        self.images = 0
        kinds = ((f"label_{rank}", f"class_id_{rank}", f"score_{rank}") for rank in range(1, classifier.top_k + 1))
        table.writerow(("path", "status", *TRUTH, *(name for kind in kinds for name in kind), "error"))

    def add(self, batch: Batch, truth: Sequence[int], probabilities: npt.NDArray[np.float32]) -> None:
        """Take the images of a batch: their classes, and the probabilities of all classes for those that were read."""
        rows = self.classifier.rows(batch, probabilities)
        read = iter(zip(probabilities, batch.images, strict=True))
        for label, row in zip(truth, rows, strict=True):
            self.images += 1
            if row.error is not None:
                blank = ("",) * 3 * self.classifier.top_k
                self.table.writerow(
                    (csv_path(row.source), row.status, *self._names(label), "", *blank, csv_text(row.error))
                )
                continue
            scores, pixels = next(read)
            true = (*self._names(label), _digits(scores[label]))
            triples = zip(row.labels, row.class_ids, row.scores, strict=True)
            cells = [cell for name, key, score in triples for cell in (csv_text(name), csv_text(key), _digits(score))]
            self.table.writerow((csv_path(row.source), row.status, *true, *cells, ""))
            if row.class_ids[0] != self.classifier.spec.classes.ids[label]:
                guess = csv_text(row.class_ids[0]), csv_text(row.labels[0]), _digits(row.scores[0])
                # Of equal scores the first image comes first.
                self.wrong.append((-row.scores[0], self.images, (csv_path(row.source), *true, *guess)))
                self._keep_picture(row, pixels, self.classifier.names[label])

    def _keep_picture(self, row: Prediction, pixels: npt.NDArray[Any], truth: str) -> None:
        place = row.scores[0], -self.images
        if len(self.surest) == MAX_PICTURES and place < self.surest[0][:2]:
            return
        wrong = self.classifier.spec.classes.ids.index(row.class_ids[0])
        entry = (*place, self.sheet.mistake(row, pixels, (f"labelled {short_label(printable(truth))}",), wrong))
        (heapq.heapreplace if len(self.surest) == MAX_PICTURES else heapq.heappush)(self.surest, entry)

    def _names(self, label: int) -> tuple[str, str]:
        return csv_text(self.classifier.spec.classes.ids[label]), csv_text(self.classifier.names[label])


@contextmanager
def image_rows(
    folder: Path, classifier: Classifier, explainer: Explainer | None = None
) -> Generator[tuple[ImageRows, list[Path]], None, None]:
    """Yield what takes the images, and the list of the files: predictions.csv, wrong.csv and wrong.png.

    They appear at the end of the block. wrong.png has the surest mistakes, with heat maps if there is an `explainer`;
    without any there is none, and one of before goes.
    """
    predictions, wrong, sheet = (folder / name for name in ("predictions.csv", "wrong.csv", "wrong.png"))
    written = [predictions, wrong]
    with atomic_path(predictions) as path, path.open("w", encoding="utf-8", errors=ANY_NAME, newline="") as file:
        rows = ImageRows(classifier, csv.writer(file), explainer)
        yield rows, written
    write_csv(wrong, ("path", *TRUTH, *GUESS), (cells for _, _, cells in sorted(rows.wrong)))
    sheet.unlink(missing_ok=True)
    if rows.surest:
        surest = [mistake for _, _, mistake in sorted(rows.surest, key=lambda entry: entry[:2])][::-1]
        rows.sheet.save(surest, sheet)
        written.append(sheet)


def write_csv(destination: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV file whose texts are such as `torchclas.text` makes them."""
    with atomic_path(destination) as path, path.open("w", encoding="utf-8", errors=ANY_NAME, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _digits(score: float) -> str:
    return f"{score:.7g}"  # a float32 has no more
