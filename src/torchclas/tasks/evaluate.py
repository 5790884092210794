"""Measure a model on labelled images: accuracy, calibration, confusions; mAP where images have several classes."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from torchclas.atomic import atomic_path
from torchclas.catalog import Preset
from torchclas.data.datasets import entries
from torchclas.data.decode import MAX_PIXELS
from torchclas.data.loader import Batch
from torchclas.data.opening import open_for_model
from torchclas.errors import DataError, Error, OutputError
from torchclas.inference.classifier import Classifier
from torchclas.messages import label
from torchclas.metrics.multi_label import Collected, Figures
from torchclas.metrics.single_label import ClassCounts, ConfidenceBin, Proportion, Tally
from torchclas.reporting import multi_label
from torchclas.reporting.confusion import draw
from torchclas.reporting.console import Console, Table, escape, verbatim
from torchclas.reporting.image_rows import image_rows, write_csv
from torchclas.reporting.progress import progress
from torchclas.spec import find_model
from torchclas.text import csv_path, csv_text, printable
from torchclas.version import __version__
from torchclas.vocabulary import EngineChoice, Precision

SHOWN = 10  # rows of a printed list; the files have all


@dataclass(frozen=True)
class EvaluationReport:
    """What was measured, on what. The figures are over the `images` that could be read; `unreadable` lists the others.

    `nll` is in nats, `ece` in 0..1; `top5` is None for five classes or fewer. Of a model that gives an image any number
    of classes, `multi_label` has the figures, and those of one class per image are of none. `classes` are those that
    occur, as label or as prediction; `class_ids` and `class_names` are all of the model's. `written` are the files.
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
            "top1": _proportion(self.top1),
            "top5": None if self.top5 is None else _proportion(self.top5),
            "nll": self.nll,
            "ece": self.ece,
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
            "samples": self.samples,
            "images": self.images,
            "unreadable": len(self.unreadable),
            "complete": self.complete,
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


def evaluate(
    data: str | Path,
    *,
    model: str | Path | None = None,
    weights: str | Path | None = None,
    labels: str | Path | Sequence[str] | None = None,
    delimiter: str = " ",
    root: str | Path | None = None,
    relabel: bool = False,
    preset: Preset | None = None,
    batch_size: int = 32,
    workers: int | None = None,
    device: str = "auto",
    engine: EngineChoice = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    output: str | Path | None = None,
) -> EvaluationReport:
    """Run a model over every image of labelled data, in any form that `torchclas.data.opening` reads.

    The model is named as for `torchclas.Classifier`. Of a folder of splits, the images for validation are taken.
    `labels` names the classes in the order of a list's numbers, or of the outputs of a model that does not say; `root`
    is what a list's paths are relative to, by default its folder; with `relabel` its labels are numbered anew, as
    `torchclas train --relabel` does it. `preset` is how images are prepared, by default as the model says. An image
    that cannot be read is counted, listed and left out of the figures, which are shares in 0..1. A model that gives an
    image any number of classes is measured at its thresholds, on data with 0 and 1 for each class.

    `output` is a folder for report.json; predictions.csv, a row for each image; wrong.csv and wrong.png, the mistakes
    with the surest first; per_class.csv; errors.csv; and, where matplotlib is installed, confusion.png.

    Raises:
        DataError: the data cannot be used, does not fit the model, or holds no readable image.
        OutputError: `output` cannot be written.
    """
    data, root = Path(data), None if root is None else Path(root)
    output = None if output is None else Path(output)
    if output is not None:
        _make_folder(output)  # not only after an hour's work
    spec = find_model(model, weights=weights, preset=preset)
    names = labels if spec.numbered else None  # a model that knows its classes keeps their names
    if names is not None:
        spec = spec.with_names(names)
    several = spec.multi_label
    opened = open_for_model(
        data,
        spec.classes,
        spec.name,
        labels=labels,
        root=root,
        delimiter=delimiter,
        relabel=relabel,
        multi_label=several,
    )
    images, notes = opened.images, list(opened.notes)
    classifier = Classifier(
        model,
        weights=weights,
        labels=names,
        preset=preset,
        device=device,
        batch_size=batch_size,
        workers=workers,
        engine=engine,
        precision=precision,
        threads=threads,
        max_pixels=max_pixels,
    )
    if output is not None and not several and find_spec("matplotlib") is None:
        notes.append('confusion.png was not drawn: matplotlib is needed for it, run `pip install "torchclas[plot]"`')

    tally, collected = Tally(spec.num_classes), Collected(spec.num_classes)
    counted = collected if several else tally
    unreadable, start = list[tuple[str, str]](), time.perf_counter()
    truth, written = iter(images.labels.tolist()), list[Path]()
    batches = classifier.batches(entries(images))
    with ExitStack() as stack:
        advance = stack.enter_context(progress("evaluating", len(images)))
        rows = None
        if output is not None:
            files = multi_label.image_rows if several else image_rows
            rows, written = stack.enter_context(files(output, classifier))
        for batch in batches:
            own = list(islice(truth, len(batch.sources)))
            probabilities = classifier.probabilities(batch)
            if np.isnan(probabilities).any():
                raise Error(f"{spec.name} computes NaN (not a number) for some images: its weights are unusable")
            if len(probabilities):
                counted.add(probabilities, _labels(batch, own))
            if rows is not None:
                rows.add(batch, own, probabilities)
            unreadable += ((source, str(e)) for source, e in zip(batch.sources, batch.errors, strict=True) if e)
            advance(len(batch.sources))
        if not counted.images:
            source, error = unreadable[0]
            raise DataError(
                f"{data}: none of its {len(unreadable):,} images can be read; the first is {source}: {error}"
            )

    report = EvaluationReport(
        data=str(data),
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
        multi_label=collected.figures(classifier.thresholds) if several else None,
    )
    return report if output is None else replace(report, written=(*_write(report, tally, output), *written))


def print_report(report: EvaluationReport, console: Console) -> None:
    """Print the figures, the classes that do worst and the commonest confusions."""
    figures = Table(show_header=False, box=None, pad_edge=False)
    rows = [
        ("model", report.model if report.model == report.arch else f"{report.model} ({report.arch})"),
        ("engine", report.engine),
        ("images", f"{report.images:,} of {report.samples:,}"),
        *_main_figures(report),
        ("time", f"{report.seconds:.1f} s, {report.samples / report.seconds:,.1f} images/s"),
    ]
    for title, text in rows:
        if text:
            figures.add_row(label(title), escape(text))
    console.print(figures)
    console.print(_class_table(report))

    for note in report.notes:
        console.print(f"[yellow]Note:[/] {escape(printable(note))}", soft_wrap=True)
    if report.unreadable:
        console.print(
            f"[bold red]{len(report.unreadable):,} of {report.samples:,} images could not be read;[/] "
            "the figures are over the others:"
        )
        for source, error in report.unreadable[:SHOWN]:
            console.print(f"  {escape(source)}: {escape(error)}", soft_wrap=True)
        if len(report.unreadable) > SHOWN:
            console.print(f"  … and {len(report.unreadable) - SHOWN:,} more")
    for path in report.written:
        console.print(f"wrote {escape(str(path))}", soft_wrap=True)


def _main_figures(report: EvaluationReport) -> list[tuple[str, str]]:
    if report.multi_label is not None:
        return multi_label.figure_rows(report.multi_label)
    return [
        ("top-1", _percent(report.top1)),
        ("top-5", "" if report.top5 is None else _percent(report.top5)),
        ("NLL", f"{report.nll:.4f}"),
        ("ECE", f"{100 * report.ece:.2f} %"),
    ]


def _class_table(report: EvaluationReport) -> Table:
    """The classes that do worst."""
    if report.multi_label is not None:
        return multi_label.class_table(report.multi_label, report.class_ids, report.class_names, SHOWN)
    tested = [row for row in report.classes if row.support]
    worst = sorted(tested, key=lambda row: (row.recall or 0.0, -row.support, row.index))[:SHOWN]
    table = Table(title=f"The {len(worst)} classes with the lowest recall" if len(tested) > SHOWN else "Classes")
    for column in ("id", "name"):
        table.add_column(column)
    for column in ("images", "precision", "recall"):
        table.add_column(column, justify="right")
    table.add_column("mistaken for")
    for row in worst:
        confused = "" if row.confused_with is None else f"{report.class_names[row.confused_with]} ({row.confused})"
        shares = ("–" if share is None else f"{100 * share:.1f} %" for share in (row.precision, row.recall))
        names = report.class_ids[row.index], report.class_names[row.index]
        table.add_row(*map(verbatim, names), f"{row.support:,}", *shares, verbatim(confused))
    return table


def _multi_label(figures: Figures) -> dict[str, Any]:
    means = {
        "mean_average_precision": figures.mean_average_precision,
        "mean_f1": figures.mean_f1,
        "mean_accuracy": figures.mean_accuracy,
    }
    return {
        **{name: None if math.isnan(value) else value for name, value in means.items()},
        "exact": figures.exact,
        "thresholds": [row.threshold for row in figures.classes],
    }


def _labels(batch: Batch, own: Sequence[Any]) -> npt.NDArray[np.int64]:
    """The labels of the images of the batch that could be read."""
    return np.array([label for label, error in zip(own, batch.errors, strict=True) if error is None], np.int64)


def _write(report: EvaluationReport, tally: Tally, output: Path) -> tuple[Path, ...]:
    figures, per_class, errors = output / "report.json", output / "per_class.csv", output / "errors.csv"
    with atomic_path(figures) as path:
        path.write_text(json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    if report.multi_label is not None:
        rows = (multi_label.class_row(row, report.class_ids, report.class_names) for row in report.multi_label.classes)
        write_csv(per_class, multi_label.CLASS_COLUMNS, rows)
    else:
        header = ("id", "name", "support", "predicted", "correct", "precision", "recall", "confused_with", "confused")
        write_csv(per_class, header, (_class_row(report, row) for row in report.classes))
    write_csv(errors, ("path", "error"), ((csv_path(path), csv_text(error)) for path, error in report.unreadable))
    if report.multi_label is not None or find_spec("matplotlib") is None:
        return figures, per_class, errors
    picture = output / "confusion.png"
    title = f"{report.model} on {Path(report.data).name}: top-1 {_percent(report.top1)}, ECE {100 * report.ece:.2f} %"
    with atomic_path(picture) as path:
        draw(tally.confusion, [*map(printable, report.class_names)], report.calibration, title, path)
    return figures, per_class, errors, picture


def _class_row(report: EvaluationReport, row: ClassCounts) -> Sequence[object]:
    return (
        csv_text(report.class_ids[row.index]),
        csv_text(report.class_names[row.index]),
        row.support,
        row.predicted,
        row.hits,
        row.precision,  # None becomes an empty field
        row.recall,
        None if row.confused_with is None else csv_text(report.class_ids[row.confused_with]),
        row.confused,
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be made a folder: {error.strerror}") from error


def _proportion(proportion: Proportion) -> dict[str, object]:
    return {"value": proportion.value, "interval_95": list(proportion.interval), **asdict(proportion)}


def _percent(proportion: Proportion) -> str:
    low, high = proportion.interval
    return f"{100 * proportion.value:.2f} %  (95 % interval {100 * low:.2f} – {100 * high:.2f})"
