"""Images that have any number of classes: labels [N, classes] of 0 and 1, and which column is which class.

They come from lists of `path 0,1,0,1` lines, as PaddleClas has them, from CSV and Parquet files with a column for each
class, and from Parquet files whose rows list the classes of an image.
Names of columns decide, where there are any; numbers of columns where one side has no names.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from torchclas.data.datasets import Dataset, Indices, LabelledImages, Relabelled, Sample
from torchclas.data.folders import listed
from torchclas.data.shards import ParquetImages
from torchclas.data.stores import joined
from torchclas.errors import DataError
from torchclas.labels import LabelSet

PATH_COLUMNS = ("path", "image", "file", "filename", "file_name", "image_path", "image_name", "图像", "图片", "路径")
_VALUES = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}


def is_multi_label(images: LabelledImages) -> bool:
    """Whether an image has any number of classes."""
    return images.labels.ndim == 2


def lists_classes(images: LabelledImages) -> bool:
    """Whether each image lists its classes, so that a class that no image is of may have no column."""
    while isinstance(images, Relabelled):
        images = images.images
    return isinstance(images, ParquetImages) and images.lists


def in_columns(
    images: LabelledImages, columns: Sequence[int], classes: tuple[str, ...] | None, count: int
) -> Relabelled:
    """The images with each column of their labels at another place of `count`; what has none is 0."""
    labels = np.zeros((len(images), count), np.int64)
    labels[:, list(columns)] = images.labels
    return Relabelled(images.images if isinstance(images, Relabelled) else images, labels, classes)


def from_rows(
    paths: Sequence[str], rows: Sequence[Sequence[int]], root: Path | str, classes: tuple[str, ...] | None
) -> Relabelled:
    """Images of files, each with a row of 0 and 1."""
    samples = [Sample(joined(root, path), 0) for path in paths]
    return Relabelled(Dataset(samples, root=str(root)), np.array(rows, np.int64), classes)


def table_of(text: str) -> list[str] | None:
    """The header of a CSV with a column of paths and one for each class; None for any other text."""
    header = next(csv.reader(io.StringIO(text[: 2**20])), [])
    cells = [cell.strip() for cell in header]
    return cells if len(cells) > 2 and cells[0].lower() in PATH_COLUMNS else None


def read_table(path: Path, text: str, root: Path | str, bad_lines: list[DataError] | None = None) -> Relabelled:
    """Read a CSV with a header: the column of the paths, then one of 0 and 1 for each class.

    Raises:
        DataError: two columns have one name; a line, which is named, has fewer or other values (`bad_lines` collects
            these instead); there is no line.
    """
    header = table_of(text)
    assert header is not None
    classes = tuple(header[1:])
    if twice := [name for name in classes if classes.count(name) > 1 or not name]:
        raise DataError(f"{path}: two columns are called {twice[0]!r}: each class needs a name of its own")
    paths, rows = list[str](), list[list[int]]()
    lines = csv.reader(io.StringIO(text))
    next(lines)
    for cells in lines:
        if not any(cell.strip() for cell in cells):
            continue
        try:
            rows.append(_row(cells, classes))
            paths.append(cells[0].strip())
        except DataError as error:
            located = DataError(f"{path}:{lines.line_num}: {error}")
            if bad_lines is None:
                raise located from None
            bad_lines.append(located)
    if not paths:
        raise DataError(f"{path}: the table is empty" if not bad_lines else f"{bad_lines[0]}; no line is any better")
    return from_rows(paths, rows, root, classes)


def _row(cells: Sequence[str], classes: tuple[str, ...]) -> list[int]:
    if len(cells) != len(classes) + 1:
        raise DataError(f"{len(cells) - 1} values for {len(classes)} classes")
    values = list[int]()
    for name, cell in zip(classes, cells[1:], strict=True):
        if (value := _VALUES.get(cell.strip())) is None:
            raise DataError(f"{name} is {cell[:40]!a}: expected 1 for an image of the class, or 0")
        values.append(value)
    return values


def columns_in_model(data: str | Path, images: LabelledImages, classes: LabelSet, model: str) -> LabelledImages:
    """The images with the columns of their labels in the order of a model's classes.

    Raises:
        DataError: the classes of the data are not those of the model.
    """
    if images.classes is None:
        return _counted(data, images, len(classes), model)
    return _in_order(data, images, classes.places(), classes.ids, model)


def columns_in_training(val: str | Path, images: LabelledImages, classes: tuple[str, ...]) -> LabelledImages:
    """The validation images with the columns of their labels in the order of the classes for training.

    Raises:
        DataError: they have other classes.
    """
    if images.classes is None:
        return _counted(val, images, len(classes), "the images for training")
    if classes == tuple(map(str, range(len(classes)))) and len(images.classes) == len(classes):
        return Relabelled(images, images.labels, classes)
    return _in_order(val, images, {name: i for i, name in enumerate(classes)}, classes, "the images for training")


def named_columns(images: LabelledImages, names: tuple[str, ...], source: str) -> LabelledImages:
    """The images with a column for each of the names: their own if they have such names, else in the same order.

    Raises:
        DataError: they have names that are not among these, or another number of columns.
    """
    own = images.classes
    if own is not None and own != tuple(map(str, range(len(own)))):
        if unknown := [name for name in own if name not in names]:
            raise DataError(f"{source}: does not name the classes {listed(unknown)} that the data has")
        if (missing := [name for name in names if name not in own]) and not lists_classes(images):
            raise DataError(f"{source}: names {listed(missing)}, and the data has no column of that name")
        return in_columns(images, [names.index(name) for name in own], names, len(names))
    columns = images.labels.shape[1]
    if columns != len(names) and not (columns < len(names) and lists_classes(images)):
        raise DataError(f"{source}: names {len(names):,} classes, but the labels have {columns:,} columns")
    return in_columns(images, range(columns), names, len(names))


def network_columns(
    data: str | Path, images: LabelledImages, model: LabelSet | None
) -> tuple[tuple[str, ...], list[str]]:
    """The classes of a network for these images, and what to say of them.

    Raises:
        DataError: no image is of any class.
    """
    counts = images.labels.sum(0)
    if not counts.any():
        raise DataError(f"{data}: no image is of any class: there is nothing to learn")
    notes = list[str]()
    if images.classes is not None:
        classes = images.classes
    elif model is not None and len(model) == len(counts):
        classes = model.ids
        notes.append(
            f"{data}: its {len(counts)} columns are taken for the classes of {model.name}: 0 is {model.ids[0]}"
        )
    else:
        classes = tuple(map(str, range(len(counts))))
    absent = [classes[index] for index in np.flatnonzero(counts == 0)]
    if absent:
        notes.append(f"{len(absent):,} of the {len(classes):,} classes have no image to train on: {listed(absent)}")
    always = [classes[index] for index in np.flatnonzero(counts == len(images))]
    if always:
        notes.append(f"all images are of {listed(always)}, which leaves nothing to learn of them")
    return classes, notes


def rarest(labels: Indices) -> Indices:
    """The rarest class of each image, [N], by which a data set of several classes per image is divided; -1 for none."""
    order = np.argsort(labels.sum(0), kind="stable")
    sorted_labels = labels[:, order] > 0
    return np.where(sorted_labels.any(1), order[sorted_labels.argmax(1)], -1)


def _in_order(
    data: str | Path, images: LabelledImages, places: dict[str, int], classes: tuple[str, ...], whose: str
) -> LabelledImages:
    own = images.classes or ()
    unknown = [name for name in own if name not in places]
    missing = [classes[index] for index in sorted(set(range(len(classes))) - {places.get(name, -1) for name in own})]
    columns = Counter(places[name] for name in own if name in places)
    if twice := [name for name in own if columns[places.get(name, -1)] > 1]:
        raise DataError(f"{data}: the columns {listed(twice)} stand for one class")
    if unknown or (missing and not lists_classes(images)):
        what = f"has the columns {listed(unknown)}" if unknown else f"has no column for {listed(missing)}"
        raise DataError(
            f"{data}: {what}, and {whose} the classes {listed(classes)}: give both the same, a column for each"
        )
    return in_columns(images, [places[name] for name in own], classes, len(classes))


def _counted(data: str | Path, images: LabelledImages, count: int, whose: str) -> LabelledImages:
    """The images with as many columns of labels as there are classes."""
    columns = images.labels.shape[1]
    if columns < count and lists_classes(images):
        return in_columns(images, range(columns), None, count)
    if columns != count:
        raise DataError(f"{data}: its images have {columns} columns of 0 and 1, but {whose} {count} classes")
    return images
