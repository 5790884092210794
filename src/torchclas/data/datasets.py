"""Labelled images: class folders and PaddleClas list files, and what else there is to be read as one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from torchclas.data.sources import SUFFIXES, expand, read
from torchclas.errors import DataError

Indices = npt.NDArray[np.int64]


class LabelledImages(Protocol):
    """Images with labels in a fixed order, any of which can be read at once; `Dataset` and the shards are such."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names that the labels index, where the data says so."""
        ...

    @property
    def labels(self) -> Indices:
        """The class of every image, [N]."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """What to call an image in a message."""
        ...

    def key(self, index: int) -> str:
        """What an image is called within its data set, wherever that is kept."""
        ...

    def read(self, index: int) -> bytes:
        """Return the image's file; raises ImageError with the reason alone."""
        ...


class Sample(NamedTuple):
    """An image file and the index of its class."""

    path: str
    label: int


@dataclass(frozen=True)
class Dataset:
    """Labelled samples; `classes` are the names that the labels index, where the data says so.

    `root` is the folder that all paths begin with, where there is one.
    """

    samples: list[Sample]
    classes: tuple[str, ...] | None = None
    root: str = ""

    @property
    def labels(self) -> Indices:
        """The class of every image, [N]; computed anew each time."""
        return np.fromiter((label for _, label in self.samples), np.int64, len(self.samples))

    def __len__(self) -> int:
        return len(self.samples)

    def name(self, index: int) -> str:
        """The path."""
        return self.samples[index].path

    def key(self, index: int) -> str:
        """The path below `root`."""
        return self.samples[index].path.removeprefix(self.root).lstrip(os.sep).replace(os.sep, "/")

    def read(self, index: int) -> bytes:
        """Return the image's file; raises ImageError with the reason alone."""
        return read(self.samples[index].path)


@dataclass(frozen=True, eq=False)
class Subset:
    """Some of the images of a data set, in the order of `indices`."""

    images: LabelledImages
    indices: Indices

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Those of the whole."""
        return self.images.classes

    @property
    def labels(self) -> Indices:
        """The class of every image, [N]; computed anew each time."""
        return self.images.labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        """What the whole calls it."""
        return self.images.name(int(self.indices[index]))

    def key(self, index: int) -> str:
        """What the whole calls it."""
        return self.images.key(int(self.indices[index]))

    def read(self, index: int) -> bytes:
        """Return the image's file; raises ImageError with the reason alone."""
        return self.images.read(int(self.indices[index]))


def class_folders(root: str | Path, *, class_ids: Sequence[str] | None = None) -> Dataset:
    """Read `root/class_name/**/image`.

    Where `class_ids` (the model's, such as synsets) hold every folder's name, a folder's label is its place in them;
    the folders may then be a subset. Otherwise the sorted folders are the classes, and must be as many as
    `class_ids`; folders named 0, 1, 2 … sort as numbers.

    Raises DataError: no such folder, no images, folders that do not fit `class_ids`.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    try:
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{root}: cannot be read: {error.strerror}") from None
    if not names:
        raise DataError(f"{root}: no class folders; expected {root}/class_name/image.jpg")
    classes = tuple(class_ids) if class_ids and set(names) <= set(class_ids) else _own_classes(root, names, class_ids)
    label = {name: index for index, name in enumerate(classes)}
    samples = [
        Sample(path, label[name])
        for name in names
        for path in expand([root / name])
        if Path(path).suffix.lower() in SUFFIXES  # an empty class folder comes back as itself
    ]
    if not samples:
        raise DataError(f"{root}: none of its {len(names)} class folders holds an image")
    return Dataset(samples, classes, str(root))


def list_file(
    path: str | Path,
    *,
    root: str | Path | None = None,
    delimiter: str = " ",
    num_classes: int | None = None,
    bad_lines: list[DataError] | None = None,
) -> Dataset:
    """Read a list of `path<delimiter>label` lines; the last delimiter counts, so paths may contain it.

    Paths are relative to `root`, by default the list's folder. Whether the images exist is found out on reading them.

    Raises DataError, with the line: a missing, non-integer or out-of-range label (`bad_lines` collects these instead);
    an unreadable or empty list.
    """
    path = Path(path)
    root = path.parent if root is None else Path(root)
    if not delimiter:
        raise DataError("the delimiter between path and label must not be empty")
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")  # file names may be any bytes
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    samples: list[Sample] = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line:
            continue
        try:
            name, label = _parse_line(line, delimiter, num_classes)
        except DataError as error:
            located = DataError(f"{path}:{number}: {error}")
            if bad_lines is None:
                raise located from None
            bad_lines.append(located)
        else:
            samples.append(Sample(os.path.join(root, name), label))  # noqa: PTH118 - a million of them
    if not samples:
        raise DataError(f"{path}: the list is empty" if not bad_lines else f"{bad_lines[0]}; no line is any better")
    return Dataset(samples, root=str(root))


def _parse_line(line: str, delimiter: str, num_classes: int | None) -> tuple[str, int]:
    name, found, label = line.rpartition(delimiter)
    if not found:
        raise DataError(f"no label; expected a path, {delimiter!r} and a label, got {line!r}")
    try:
        index = int(label)
    except ValueError:
        raise DataError(f"the label {label!r} is not an integer") from None
    if index < 0 or (num_classes is not None and index >= num_classes):
        last = "" if num_classes is None else num_classes - 1
        raise DataError(f"the label {index} is out of range 0..{last}")
    return name.strip(), index


def _own_classes(root: Path, names: list[str], class_ids: Sequence[str] | None) -> tuple[str, ...]:
    if class_ids is not None and len(names) != len(class_ids):
        unknown = sorted(set(names) - set(class_ids))
        raise DataError(
            f"{root}: {len(unknown)} of {len(names)} folders (such as {unknown[0]!r}) are not among the model's "
            f"{len(class_ids)} classes (such as {class_ids[0]!r}): rename them, or use a list file"
        )
    numbers = all(name.isdecimal() for name in names)
    return tuple(sorted(names, key=int)) if numbers else tuple(names)
