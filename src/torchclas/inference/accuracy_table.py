"""Many models measured on one data set, beside what was published of them; each image is decoded once per size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from torchclas import catalog
from torchclas.catalog import Entry, Preset
from torchclas.data.crops import Crops, fitting
from torchclas.data.datasets import LabelledImages
from torchclas.data.decode import MAX_PIXELS
from torchclas.data.loader import usual_workers
from torchclas.data.matching import Opened
from torchclas.data.opening import fingerprint, open_for_model
from torchclas.data.preprocess import Preprocess
from torchclas.errors import DataError, Error, OutputError
from torchclas.inference.accuracy_rows import AccuracyTable, Measured, Records, Row, short_digest
from torchclas.inference.classifier import Classifier
from torchclas.inference.evaluation import EvaluationReport, competing_classes, measure
from torchclas.labels import LabelSet, label_set
from torchclas.spec import ModelSpec, find_model, named_models
from torchclas.vocabulary import EngineChoice, Precision
from torchclas.weights.cache import cache_dir

VALIDATION_IMAGES, OF_A_CLASS = 50_000, 50  # of ImageNet


class Begin(Protocol):
    """Is told that work on so many images begins, and returns what is told how many more were done."""

    def __call__(self, title: str, total: int) -> Callable[[int], object]:
        """Begin."""
        ...


@dataclass(frozen=True)
class Settings:
    """What is measured, and how, with the words of `torchclas.evaluate`."""

    labels: str | Path | Sequence[str] | None = None
    delimiter: str = " "
    root: str | Path | None = None
    relabel: bool = False
    classes: str | Path | None = None
    max_pixels: int = MAX_PIXELS
    precision: Precision = "fp32"
    batch_size: int = 32
    workers: int | None = None
    device: str = "auto"
    engine: EngineChoice = "auto"
    threads: int | None = None


def selected(models: Sequence[str], *, series: str | None = None, everything: bool = False) -> list[str]:
    """The models of a table, each once: names and files as they are; of globs what has a published accuracy.

    `series` adds all of a series that have one, `everything` all that there are.

    Raises UnknownNameError: no such model or series.
    """

    def published(entry: Entry) -> bool:
        return entry.top1 is not None

    chosen = named_models(models, having=published)
    if series is not None:
        chosen += named_models(["*"], series=series, having=published)
    if everything:
        chosen += named_models(["*"], having=published)
    return list(dict.fromkeys(chosen))


def measure_models(
    models: Sequence[str],
    data: str | Path,
    settings: Settings,
    *,
    records: Records | None = None,
    begin: Begin = lambda title, total: lambda images: None,
    done: Callable[[Row], object] = lambda row: None,
) -> AccuracyTable:
    """Measure each model on every image of labelled data, to the same digits as `torchclas.evaluate` does.

    What stands in the way of one model, such as weights that cannot be fetched, is said in its row, and the others go
    on. `records` keeps what was measured, and models that are there are not measured again. `begin` hears of each stage
    of the work, `done` of each row as soon as it is there; models that share crops come one after another.

    Raises:
        DataError: the data cannot be used, or fits none of the models.
        OutputError: `records` are of other images or settings, or cannot be written.
    """
    work = _Work(data, settings, records, begin)
    rows = dict[str, Row]()
    for row in work.rows(models):
        rows[row.model] = row
        done(row)
    ordered = tuple(rows[model] for model in models)
    return AccuracyTable(str(data), work.images, ordered, work.notes(ordered))


def is_validation_set(images: LabelledImages, classes: LabelSet) -> bool:
    """Whether these may be ImageNet's validation images: as many, and as many of each class."""
    if len(images) != VALIDATION_IMAGES or classes.ids != label_set("imagenet1k").ids:
        return False
    return bool((np.bincount(images.labels, minlength=len(classes)) == OF_A_CLASS).all())


@dataclass(frozen=True)
class _Job:
    """A model that can be measured: its row so far, its images, and what tells it from another of this name."""

    row: Row
    spec: ModelSpec
    opened: Opened
    identity: dict[str, Any]

    def crops(self) -> tuple[int, Preset] | None:
        """Equal for models that can share crops; None where the network takes whole pictures."""
        return None if self.spec.pixels else (id(self.opened), fitting(self.spec.preset))


class _Work:
    """One call of `measure_models`."""

    def __init__(self, data: str | Path, settings: Settings, records: Records | None, begin: Begin) -> None:
        self.data = data
        self.settings = settings
        self.records = records
        self.begin = begin
        self.folder = cache_dir() if records is None else records.folder  # for crops
        self.images = 0
        self._opened: dict[str, tuple[Opened, str]] = {}  # for each set of classes, with a digest of images and labels
        self._notes: list[str] = []

    def rows(self, models: Sequence[str]) -> Iterator[Row]:
        """The rows of all models; those that cannot or need not be measured come first."""
        jobs, failures = list[_Job](), list[tuple[Row, Error]]()
        for model in models:
            row = _published(model)
            try:
                jobs.append(self._job(row))
            except Error as error:
                failures.append((row, error))
        if not jobs:
            raise next((error for _, error in failures if isinstance(error, DataError)), failures[0][1])
        if self.records is not None:
            self.records.claim(self._question())
        yield from (_failed(row, error) for row, error in failures)
        due = dict[tuple[int, Preset] | None, list[_Job]]()
        for job in jobs:
            known = None if self.records is None else self.records.find(job.row.model, job.identity)
            if known is None:
                due.setdefault(job.crops(), []).append(job)
            else:
                yield replace(job.row, measured=known)
        for group in due.values():
            yield from self._measure(group)

    def notes(self, rows: Sequence[Row]) -> tuple[str, ...]:
        """What to say of the table as a whole."""
        if any(row.published_top1 is not None for row in rows) and not any(row.comparable for row in rows):
            opened, _ = next(iter(self._opened.values()))
            occurring = len(np.unique(opened.images.labels))
            self._notes.append(
                "published figures are of all 1,000 classes competing: the measured ones cannot be compared with them"
                if self.settings.classes is not None
                else "published figures are of ImageNet's 50,000 validation images, 50 of each class, and these are "
                f"{self.images:,} images of {occurring:,} classes: the measured ones cannot be compared with them"
            )
        return tuple(dict.fromkeys(self._notes))

    def _job(self, row: Row) -> _Job:
        spec = find_model(row.model).needs_one_class("a table has models that give it one")
        if spec.numbered and self.settings.labels is not None:  # a model that knows its classes keeps their names
            spec = spec.with_names(self.settings.labels)
        opened, digest = self._open(spec)
        comparable = (
            row.published_top1 is not None
            and self.settings.classes is None
            and is_validation_set(opened.images, spec.classes)
        )
        identity = {"weights": spec.content(), "preset": spec.preset.to_dict(), "images": digest}
        return _Job(replace(row, arch=spec.arch, comparable=comparable), spec, opened, identity)

    def _open(self, spec: ModelSpec) -> tuple[Opened, str]:
        """The images with labels that index the model's classes, opened once for all models that have the same."""
        classes = short_digest(spec.classes.ids, spec.classes.names())
        if classes not in self._opened:
            opened = open_for_model(
                self.data,
                spec.classes,
                spec.name,
                labels=self.settings.labels,
                root=self.settings.root,
                delimiter=self.settings.delimiter,
                relabel=self.settings.relabel,
            )
            self._opened[classes] = opened, fingerprint(opened.images)
            self._notes += opened.notes
            self.images = len(opened.images)
        return self._opened[classes]

    def _question(self) -> dict[str, Any]:
        """What all rows of a folder answer. How fast it is done may change from one call to the next."""
        return {
            "data": str(self.data),
            "images": {classes: digest for classes, (_, digest) in self._opened.items()},
            "classes": None if self.settings.classes is None else str(self.settings.classes),
            "max_pixels": self.settings.max_pixels,
            "precision": self.settings.precision,
        }

    def _measure(self, group: Sequence[_Job]) -> Iterator[Row]:
        """The rows of models that can share crops."""
        with ExitStack() as stack:
            crops = self._crops(group, stack)
            for job in group:
                try:
                    measured = self._one(job, crops)
                except Error as error:
                    yield _failed(job.row, error)
                except Exception as error:  # an engine's, or a lack of memory, must not take the others along
                    yield replace(job.row, error=f"unexpected {type(error).__name__}: {error}")
                else:
                    if self.records is not None:
                        self.records.keep(job.row.model, job.identity, measured)
                    yield replace(job.row, measured=measured)

    def _crops(self, group: Sequence[_Job], stack: ExitStack) -> Crops | None:
        """What these models take; None where that is not worth keeping, or the disk has no room for it."""
        spec, images = group[0].spec, group[0].opened.images
        if len(group) < 2 or spec.pixels:
            return None
        preprocess, workers = Preprocess(spec.preset, self.settings.max_pixels), self.settings.workers
        advance = self.begin("decoding images", len(images))
        try:
            crops = Crops(
                images,
                preprocess,
                self.folder,
                workers=usual_workers() if workers is None else workers,
                advance=advance,
            )
        except OutputError as error:
            self._notes.append(f"images were decoded again for each model, as their crops cannot be kept: {error}")
            return None
        return stack.enter_context(crops)

    def _one(self, job: _Job, crops: Crops | None) -> Measured:
        spec, images, settings = job.spec, job.opened.images, self.settings
        only = None if settings.classes is None else competing_classes(settings.classes, images, spec)
        classifier = Classifier(
            job.row.model,
            device=settings.device,
            batch_size=settings.batch_size,
            workers=settings.workers,
            engine=settings.engine,
            precision=settings.precision,
            threads=settings.threads,
            max_pixels=settings.max_pixels,
        )
        try:
            batches = None
            if crops is not None and isinstance(classifier.preprocess, Preprocess):
                batches = crops.batches(
                    classifier.preprocess, batch_size=classifier.batch_size, workers=classifier.workers
                )
            advance = self.begin(f"evaluating {spec.name}", len(images))
            report, _ = measure(classifier, images, str(self.data), only=only, batches=batches, advance=advance)
        finally:
            classifier.close()
        return _measured(report)


def _published(model: str) -> Row:
    """The row of a model before anything is measured."""
    entry = None if Path(model).is_file() else catalog.catalog().index.get(model.lower())
    return Row(model) if entry is None else Row(model, entry.arch, entry.series.id, entry.top1, entry.top5)


def _failed(row: Row, error: Error) -> Row:
    return replace(row, error=str(error).removeprefix(f"{row.model}: "))  # which the row says already


def _measured(report: EvaluationReport) -> Measured:
    return Measured(
        report.top1,
        report.top5,
        report.nll,
        report.ece,
        report.images,
        report.unreadable,
        report.engine,
        report.seconds,
    )
