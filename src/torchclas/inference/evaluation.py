"""What was measured of a model on labelled images."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from torchclas.catalog import Preset
from torchclas.data.datasets import LabelledImages, entries
from torchclas.data.loader import Batch
from torchclas.errors import DataError, Error, OutputError
from torchclas.inference.classifier import Classifier
from torchclas.labels import subsets
from torchclas.metrics.multi_label import FALSE_POSITIVE_RATE, Collected, Figures
from torchclas.metrics.real_labels import RealLabels
from torchclas.metrics.single_label import ClassCounts, ConfidenceBin, Proportion, Tally
from torchclas.spec import ModelSpec
from torchclas.version import __version__
from torchclas.vocabulary import TestTimeAugmentation


@dataclass(frozen=True)
class EvaluationReport:
    """What was measured, on what. The figures are over the `images` that could be read; `unreadable` lists the others.

    `nll` is in nats, `ece` in 0..1; `top5` is None for five classes or fewer. Of a model that gives an image any number
    of classes, `multi_label` has the figures, and those of one class per image are of none. `classes` are those that
    occur, as label or as prediction; `class_ids` and `class_names` are all of the model's. `written` are the files.
    `tta` are the views whose scores were averaged, `competing` is how many classes a prediction was chosen from, where
    not from all, `real` the accuracy by ReaL's labels, where they were given. Of a model of two classes,
    `recall_at_fpr` is the share of images of the second that are found where at most `max_fpr` of those of the first
    are taken for it.
    """

    data: str
    model: str
    arch: str
    weights: str
    engine: str
    preset: Preset
    samples: int
    images: int
    unreadable: tuple[tuple[str, str], ...]
    top1: Proportion
    top5: Proportion | None
    nll: float
    ece: float
    calibration: tuple[ConfidenceBin, ...]
    classes: tuple[ClassCounts, ...] = field(repr=False)
    class_ids: tuple[str, ...] = field(repr=False)
    class_names: tuple[str, ...] = field(repr=False)
    seconds: float
    notes: tuple[str, ...]
    written: tuple[Path, ...] = ()
    multi_label: Figures | None = None
    tta: TestTimeAugmentation | None = None
    competing: int | None = None
    real: Proportion | None = None
    max_fpr: float = FALSE_POSITIVE_RATE
    recall_at_fpr: float | None = None

    @property
    def complete(self) -> bool:
        """Whether every image could be read."""
        return not self.unreadable

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold; the tables of classes and of unreadable images are files of their own."""
        if self.multi_label is not None:
            return {**self._facts(), **_multi_label(self.multi_label)}
        return {
            **self._facts(),
            "top1": self.top1.as_dict(),
            "top5": None if self.top5 is None else self.top5.as_dict(),
            "nll": self.nll,
            "ece": self.ece,
            **({} if self.recall_at_fpr is None else {"recall_at_fpr": self.recall_at_fpr, "max_fpr": self.max_fpr}),
            "calibration": [asdict(row) for row in self.calibration],
        }

    def _facts(self) -> dict[str, Any]:
        return {
            "torchclas": __version__,
            "data": self.data,
            "model": self.model,
            "arch": self.arch,
            "weights": self.weights,
            "engine": self.engine,
            "preset": self.preset.to_dict(),
            **({} if self.tta is None else {"tta": self.tta}),
            **({} if self.competing is None else {"competing_classes": self.competing}),
            **({} if self.real is None else {"real_top1": self.real.as_dict()}),
            "samples": self.samples,
            "images": self.images,
            "unreadable": len(self.unreadable),
            "complete": self.complete,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


def _multi_label(figures: Figures) -> dict[str, Any]:
    means = {
        "mean_average_precision": figures.mean_average_precision,
        "mean_f1": figures.mean_f1,
        "mean_accuracy": figures.mean_accuracy,
    }
    return {
        **{name: None if math.isnan(value) else value for name, value in means.items()},
        "exact": figures.exact,
        "label_accuracy": figures.label_accuracy,
        "thresholds": [row.threshold for row in figures.classes],
    }


class UnwrittenError(OutputError):
    """Files of an evaluation that could not be written; `report` has what was measured nonetheless."""

    def __init__(self, message: str, report: EvaluationReport) -> None:
        super().__init__(message)
        self.report = report


class Rows(Protocol):
    """Takes what came of each image."""

    def add(self, batch: Batch, truth: Sequence[Any], probabilities: npt.NDArray[np.float32]) -> None:
        """Take a batch: the labels of its images, and the probabilities of those that could be read."""
        ...


def measure(
    classifier: Classifier,
    images: LabelledImages,
    data: str,
    *,
    notes: Sequence[str] = (),
    only: Sequence[int] | None = None,
    real: RealLabels | None = None,
    batches: Iterable[Batch] | None = None,
    max_fpr: float = FALSE_POSITIVE_RATE,
    rows: Rows | None = None,
    advance: Callable[[int], object] = lambda images: None,
) -> tuple[EvaluationReport, Tally]:
    """Run a classifier over labelled images whose labels are its classes; `data` is what to call them.

    With `only` predictions are chosen from these of the model's classes. `real` counts the same images by ReaL's
    labels. `max_fpr` is the false positive rate at which the recall of the second of two classes is given. `batches`
    are what `classifier.batches` gives of the images, where these were prepared before. `rows` takes what came of each
    image, `advance` is told how many were done. The tally is empty where an image has any number of classes.

    Raises:
        DataError: no image can be read; `real` has no labels for an image.
        Error: the model computes NaN.
    """
    if not 0 <= max_fpr < 1:
        raise Error(f"the false positive rate (--max-fpr) is a share from 0 to 1, not {max_fpr:g}")
    spec = classifier.spec
    tally, collected = Tally(spec.num_classes), Collected(spec.num_classes)
    two = spec.num_classes == 2 and not spec.multi_label
    counted = collected if spec.multi_label else tally
    unreadable, start = list[tuple[str, str]](), time.perf_counter()
    truth = iter(images.labels.tolist())
    for batch in classifier.batches(entries(images)) if batches is None else batches:
        own = list(islice(truth, len(batch.sources)))
        probabilities = classifier.probabilities(batch, only=only)
        if np.isnan(probabilities).any():
            raise Error(f"{spec.name} computes NaN (not a number) for some images: its weights are unusable")
        if real is not None:
            read = [name for name, error in zip(batch.sources, batch.errors, strict=True) if error is None]
            real.add(read, probabilities)
        if len(probabilities):
            labels = _labels(batch, own)
            counted.add(probabilities, labels)
            if two:
                collected.add(probabilities, np.eye(2, dtype=np.int64)[labels])
        if rows is not None:
            rows.add(batch, own, probabilities)
        unreadable += ((source, str(e)) for source, e in zip(batch.sources, batch.errors, strict=True) if e)
        advance(len(batch.sources))
    if not counted.images:
        source, error = unreadable[0]
        raise DataError(f"{data}: none of its {len(unreadable):,} images can be read; the first is {source}: {error}")
    report = EvaluationReport(
        data=data,
        model=spec.name,
        arch=spec.arch,
        weights="published" if spec.path is None else str(spec.path),
        engine=classifier.engine_name,
        preset=spec.preset,
        samples=len(images),
        images=counted.images,
        unreadable=tuple(unreadable),
        top1=tally.top1,
        top5=tally.top5,
        nll=tally.nll,
        ece=tally.ece,
        calibration=tally.calibration,
        classes=tally.classes(),
        class_ids=spec.classes.ids,
        class_names=classifier.names,
        seconds=time.perf_counter() - start,
        notes=tuple(notes),
        multi_label=collected.figures(classifier.thresholds) if spec.multi_label else None,
        tta=classifier.tta,
        competing=None if only is None else len(only),
        real=None if real is None else real.accuracy,
        max_fpr=max_fpr,
        recall_at_fpr=collected.recall_at(max_fpr, 1) if two else None,
    )
    return report, tally


def _labels(batch: Batch, own: Sequence[Any]) -> npt.NDArray[np.int64]:
    """The labels of the images of the batch that could be read."""
    return np.array([label for label, error in zip(own, batch.errors, strict=True) if error is None], np.int64)


def competing_classes(chosen: str | Path, images: LabelledImages, spec: ModelSpec) -> list[int]:
    """The model's outputs that a prediction is chosen from, by a name or file of `torchclas.labels.subsets` or `data`.

    Raises:
        DataError: the model gives an image any number of classes; `chosen` says nothing of it, or leaves out a class
            of the images.
    """
    if spec.multi_label:
        raise DataError(f"{spec.name} gives an image any number of classes, none of which compete: leave --classes out")
    occurring: list[int] = np.unique(images.labels).tolist()
    if str(chosen) == "data":
        return occurring
    only = subsets.columns(chosen, spec.classes)
    if missing := sorted(set(occurring) - set(only)):
        first = spec.classes.ids[missing[0]]
        raise DataError(f"{chosen}: {len(missing):,} classes of the data are not among these, the first is {first}")
    return only
