"""Look over labelled images before training, also with the eyes of a model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np

from torchclas.data.check import KINDS, DataReport, Finding, Item, check
from torchclas.data.datasets import Entry, LabelledImages, entries
from torchclas.data.decode import MAX_PIXELS
from torchclas.data.duplicates import linked
from torchclas.data.multi_label import is_multi_label
from torchclas.data.opening import open_training
from torchclas.errors import DataError
from torchclas.inference.embedder import Embedder
from torchclas.reporting.progress import progress
from torchclas.retrieval.exact import Vectors
from torchclas.retrieval.label_errors import alike, doubtful_labels


def check_data(
    data: str | Path,
    val: str | Path | None = None,
    *,
    output: Path | None = None,
    labels: str | Path | None = None,
    root: str | Path | None = None,
    delimiter: str = " ",
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    make_embedder: Callable[[], Embedder] | None = None,
) -> DataReport:
    """What `torchclas.data.check.check` finds and, with a model, which labels it doubts and what it takes for the same.

    Both of the latter are guesses, which say nothing of whether training would be hurt, and change no clean list.
    """
    embedder = None if make_embedder is None else make_embedder()  # not only after all images were read

    def watch(images: int) -> AbstractContextManager[Callable[[int], None]]:
        return progress("checking", images)

    report = check(
        data,
        val,
        output=output,
        labels=labels,
        root=root,
        delimiter=delimiter,
        workers=workers,
        max_pixels=max_pixels,
        watch=watch,
    )
    if embedder is None:
        return report
    start, ignored = time.perf_counter(), list[DataError]()
    opened = open_training(
        data, val, labels=labels, root=root, delimiter=delimiter, bad_lines=ignored, faults=list[DataError]()
    )
    sides = [opened.train] if opened.validation is None else [opened.train, opened.validation]
    vectors, images = _embedded(embedder, [entry for side in sides for entry in entries(side)])
    classes = [str(name) for name in opened.classes or opened.train.classes or ()]
    findings = [*report.findings]
    if items := _same(vectors, images, opened.validation, {item.names for each in findings for item in each.items}):
        findings.append(Finding("alike", tuple(items)))
    if not is_multi_label(opened.train) and (items := _doubted(vectors, images, opened.train, classes)):
        findings.append(Finding("doubtful", tuple(items)))
    order = list(KINDS)
    findings.sort(key=lambda finding: order.index(finding.kind))
    seconds = report.seconds + time.perf_counter() - start
    return replace(report, findings=tuple(findings), seconds=seconds)


def _embedded(embedder: Embedder, images: Sequence[Entry]) -> tuple[Vectors, list[Entry]]:
    """Vectors of unit length, and the images that they are of: those that can be read."""
    found = np.empty((len(images), embedder.dimension), np.float32)
    kept, place = list[Entry](), iter(images)
    with progress("embedding", len(images)) as advance:
        for batch in embedder.batches(images):
            for row in embedder.rows(batch):
                image = next(place)
                if row.vector is not None:
                    found[len(kept)] = row.vector
                    kept.append(image)
            advance(len(batch.sources))
    return found[: len(kept)], kept


def _same(
    vectors: Vectors, images: Sequence[Entry], validation: LabelledImages | None, told: set[tuple[str, ...]]
) -> list[Item]:
    """Groups of pictures that the model takes for the same; those that were told already are left out."""
    groups = [set(names) for names in told if len(names) > 1]
    items: list[Item] = []
    for places in linked(len(images), alike(vectors)):
        members = [images[place] for place in places]
        names = [member.name for member in members]
        if any(group.issuperset(names) for group in groups):
            continue
        crosses = len({member.images is validation for member in members}) > 1
        several = len({str(member.images.labels[member.index].tolist()) for member in members}) > 1
        remarks = ["for training and validation"] * crosses + ["in several classes"] * several
        items.append(Item(tuple(names), ", ".join(remarks)))
    return sorted(items, key=lambda item: not item.detail)


def _doubted(vectors: Vectors, images: Sequence[Entry], train: LabelledImages, classes: Sequence[str]) -> list[Item]:
    """Training images whose label is likely wrong, the likeliest first."""
    all_labels = train.labels
    chosen = [place for place, image in enumerate(images) if image.images is train and all_labels[image.index] >= 0]
    used, labels = np.unique([all_labels[images[place].index] for place in chosen], return_inverse=True)

    def name(label: int) -> str:
        number = int(used[label])
        return classes[number] if number < len(classes) else str(number)

    return [
        Item((images[chosen[place]].name,), f"labelled {name(int(labels[place]))}, more like {name(other)}")
        for place, other, _ in doubtful_labels(vectors[chosen], labels.astype(np.int64))
    ]
