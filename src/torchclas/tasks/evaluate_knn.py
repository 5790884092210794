"""Measure the vectors of a model on labelled images: recall at k, mAP, the vote of the nearest."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from torchclas.atomic import atomic_path
from torchclas.data.multi_label import is_multi_label
from torchclas.data.opening import open_training
from torchclas.errors import DataError
from torchclas.inference.embedder import Embedder
from torchclas.reporting.evaluation_report import make_folder
from torchclas.reporting.image_rows import write_csv
from torchclas.reporting.progress import progress
from torchclas.retrieval.measurement import RetrievalReport, Row, measure_retrieval
from torchclas.text import csv_path, csv_text

HEADER = ("path", "class", "nearest", "nearest_class", "similarity", "right")


def evaluate_knn(
    data: str | Path,
    make_embedder: Callable[[], Embedder],
    *,
    against: str | Path | None = None,
    labels: str | Path | None = None,
    root: str | Path | None = None,
    delimiter: str = " ",
    relabel: bool = False,
    output: Path | None = None,
) -> RetrievalReport:
    """Look for each image of labelled data among others, and count how near those of its class are.

    The others are those of `against`; by default, where `data` has images for training and for validation, the latter
    are looked for among the former, and else each image among the rest. The classes may be any; nothing is trained.
    `output` is a folder for report.json and neighbours.csv, which has the nearest of each image.

    Raises:
        DataError: the data cannot be used, or images have any number of classes.
        OutputError: `output` cannot be written.
    """
    if output is not None:
        make_folder(output)  # not only after the work
    train, val = (data, None) if against is None else (against, data)
    opened = open_training(train, val, labels=labels, root=root, delimiter=delimiter, relabel=relabel)
    if is_multi_label(opened.train):
        raise DataError(f"{data}: images have any number of classes, and neighbours are counted for one class each")
    asked, others = (opened.train, None) if opened.validation is None else (opened.validation, opened.train)
    total = len(asked) + (0 if others is None else len(others))
    embedder = make_embedder()
    rows: list[Row] = []
    with ExitStack() as stack:
        advance = stack.enter_context(progress("embedding", total))
        report = measure_retrieval(
            embedder,
            asked,
            others,
            opened.classes,
            str(data),
            against_name="" if others is None else str(train),
            notes=opened.notes,
            add_row=rows.append,
            advance=advance,
        )
    if output is None:
        return report
    with atomic_path(output / "report.json") as path:
        path.write_text(json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8")
    write_csv(output / "neighbours.csv", HEADER, map(_cells, rows))
    return replace(report, written=(output / "report.json", output / "neighbours.csv"))


def _cells(row: Row) -> tuple[object, ...]:
    names = csv_path(row.source), csv_text(row.label), csv_path(row.neighbour), csv_text(row.neighbour_label)
    return (*names, f"{row.similarity:.6f}", int(row.label == row.neighbour_label))
