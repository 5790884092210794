"""Measure a model on labelled images: accuracy, calibration, confusions; mAP where images have several classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from torchclas.catalog import Preset
from torchclas.data.decode import MAX_PIXELS
from torchclas.data.loader import Batch
from torchclas.data.opening import open_for_model
from torchclas.data.stores import place
from torchclas.errors import Error, OutputError
from torchclas.inference.classifier import Classifier
from torchclas.inference.evaluation import EvaluationReport, Rows, UnwrittenError, competing_classes, measure
from torchclas.metrics.multi_label import FALSE_POSITIVE_RATE
from torchclas.metrics.real_labels import RealLabels
from torchclas.metrics.single_label import Tally
from torchclas.reporting import multi_label
from torchclas.reporting.evaluation_report import make_folder, write_files
from torchclas.reporting.image_rows import image_rows
from torchclas.reporting.progress import progress
from torchclas.spec import find_model
from torchclas.vocabulary import Activation, EngineChoice, Precision, TestTimeAugmentation


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
    activation: Activation | None = None,
    tta: TestTimeAugmentation | None = None,
    fast_decode: bool = False,
    classes: str | Path | None = None,
    real: str | Path | None = None,
    max_fpr: float = FALSE_POSITIVE_RATE,
    batch_size: int = 32,
    workers: int | None = None,
    device: str = "auto",
    engine: EngineChoice = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
    output: str | Path | None = None,
    explain: bool = False,
) -> EvaluationReport:
    """Run a model over every image of labelled data, in any form that `torchclas.data.opening` reads.

    The model is named as for `torchclas.Classifier`. Of a folder of splits, the images for validation are taken.
    `labels` names the classes in the order of a list's numbers, or of the outputs of a model that does not say; `root`
    is what a list's paths are relative to, by default its folder; with `relabel` its labels are numbered anew, as
    `torchclas train --relabel` does it. `preset` is how images are prepared, by default as the model says. An image
    that cannot be read is counted, listed and left out of the figures, which are shares in 0..1. A model that gives an
    image any number of classes is measured at its thresholds, on data with 0 and 1 for each class.

    `tta` averages the scores of several views of each image; `fast_decode` is as for `Classifier`. `classes` are those
    that a prediction is chosen from, where not all of the model's: `imagenet-a` or `imagenet-r`, `data` for those that
    occur, or a file of ids or names; that is how accuracy on such sets is published. `real` is ReaL's file of labels
    for the validation images of ImageNet. Of a model of two classes, `max_fpr` is the false positive rate at which the
    recall of the second is given.

    `output` is a folder for report.json; predictions.csv, a row for each image; wrong.csv and wrong.png, the mistakes
    with the surest first; per_class.csv; errors.csv; and, where matplotlib is installed, confusion.png. With `explain`,
    wrong.png shows where the model saw the wrong class as well.

    Raises:
        DataError: the data cannot be used, does not fit the model, or holds no readable image; `classes` or `real` do
            not fit the model or the images.
        CheckpointError: an exported model, which cannot be explained.
        OutputError: `output` cannot be written; an `UnwrittenError`, whose `report` has the figures, where that was
            found once they were measured.
    """
    data, root = place(data), None if root is None else place(root)
    output = None if output is None else Path(output)
    if explain and output is None:
        raise Error("heat maps are drawn on the sheet of mistakes: name a folder for it (--output)")
    if output is not None:
        make_folder(output)  # not only after an hour's work
    spec = find_model(model, weights=weights, preset=preset, activation=activation)
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
    only = None if classes is None else competing_classes(classes, images, spec)
    if classes is None and not several and 2 <= (occurring := len(np.unique(images.labels))) < len(spec.classes) / 2:
        notes.append(
            f"{occurring:,} of the model's {len(spec.classes):,} classes occur, and all of them compete: "
            "--classes data lets only those that occur, as the accuracy on ImageNet-A and -R is counted"
        )
    by_real = None if real is None else RealLabels(real, spec.classes)
    classifier = Classifier(
        model,
        weights=weights,
        labels=names,
        preset=preset,
        activation=activation,
        tta=tta,
        fast_decode=fast_decode,
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

    explainer = None
    if explain:
        from torchclas.explanation.explainer import Explainer  # needs torch, which the engine may not

        explainer = Explainer(model, weights=weights, preset=preset, activation=activation, device=device)
    run = partial(measure, classifier, images, str(data), notes=notes, only=only, real=by_real, max_fpr=max_fpr)
    with progress("evaluating", len(images)) as advance:
        if output is None:
            return run(advance=advance)[0]
        files = (multi_label.image_rows if several else image_rows)(output, classifier, explainer)
        return _with_files(output, files, partial(run, advance=advance))


def _with_files(
    output: Path,
    files: AbstractContextManager[tuple[Rows, list[Path]]],
    run: Callable[..., tuple[EvaluationReport, Tally]],
) -> EvaluationReport:
    """What was measured, with its files in `output`; raises `UnwrittenError` where they could not be written."""
    report = None
    try:
        with files as (rows, written):
            kept = _UntilFull(rows)
            report, tally = run(rows=kept)
            if kept.error is not None:
                raise kept.error  # inside the block, which names the file
        return replace(report, written=(*write_files(report, tally, output), *written))
    except OutputError as error:
        if report is None:
            raise
        raise UnwrittenError(str(error), report) from error


class _UntilFull:
    """Hands rows on until the disk is full: what was measured until then, and after it, is not lost."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.error: OSError | None = None

    def add(self, batch: Batch, truth: Sequence[Any], probabilities: npt.NDArray[np.float32]) -> None:
        if self.error is None:
            try:
                self.rows.add(batch, truth, probabilities)
            except OSError as error:
                self.error = error
