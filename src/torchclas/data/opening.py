"""The one door for labelled images: class folders, folders of splits, list files, tar shards and Parquet.

Every command opens every form here, so all of them mean the same by it. Names of classes decide what is which, never
an order. What was taken for what is noted, and where it is not clear, nothing is opened.
"""

from __future__ import annotations

import glob
import hashlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from torchclas.data.datasets import Dataset, LabelledImages, Relabelled, Sample
from torchclas.data.folders import Split, archives_in, class_folders, find, listed, splits_in
from torchclas.data.lists import read_list
from torchclas.data.matching import Opened, as_in_model, as_in_training, network_classes, renamed, with_names
from torchclas.data.multi_label import columns_in_model, columns_in_training, is_multi_label, network_columns
from torchclas.data.shards import ParquetImages, TarShards
from torchclas.data.sources import SUFFIXES, expand, is_image
from torchclas.data.stored import (
    FoundInStore,
    class_folders_in_store,
    find_in_store,
    local_copy,
    parent,
    splits_in_store,
)
from torchclas.data.stores import in_store
from torchclas.errors import DataError
from torchclas.labels import LabelSet, read_names

NAMES_BESIDE = ("labels.txt", "label_list.txt", "*_label_list.txt")  # PaddleX's and PaddleClas's, beside a list
PACKED = frozenset({".zip", ".gz", ".tgz", ".bz2", ".xz", ".rar", ".7z"})


@dataclass(frozen=True)
class TrainingData:
    """Images to train on, those to validate on where there are any, and the ids of the network's outputs in order."""

    train: LabelledImages
    validation: LabelledImages | None
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


def open_data(
    data: str | Path,
    *,
    split: Split = "train",
    labels: str | Path | Sequence[str] | None = None,
    root: str | Path | None = None,
    delimiter: str = " ",
    relabel: bool = False,
    known: Sequence[str] = (),
    bad_lines: list[DataError] | None = None,
) -> Opened:
    """Open what a path holds.

    - a folder of class folders, or one with the folders, lists or archives of splits, of which `split` is taken;
    - a list file of `path<delimiter>label` lines, with paths relative to `root`, or a CSV with a column for each class;
    - tar shards: one, a folder of them, a glob, or a range such as `data-{000..099}.tar`;
    - Parquet: a file, a folder of them (in `data/` too, as on the Hugging Face hub), a glob or a range;
    - an address in an object store that holds any of these; shards and lists are copied to the cache.

    `labels` are the names of the classes in the order of their numbers, or a file of them. `known` are names that
    classes may have; they decide at which level class folders are. `relabel` and `bad_lines` are as in `read_list`.

    Raises:
        DataError: nothing there, not in any of these forms, or not clear which of them.
    """
    data = os.fspath(data)
    names, source = (None, None) if labels is None else _names(labels)
    if in_store(data):
        opened, is_list = _open_stored(data, split, root, delimiter, bad_lines, relabel=relabel)
    elif os.path.isdir(data):  # noqa: PTH112 - may be a pattern
        found = find(Path(data), split, known=(*known, *(names or ())))
        opened = Opened(_NOTHING, found.notes, found.split)
        if found.kind == "classes":
            opened = replace(opened, images=class_folders(found.paths[0], found.classes))
        elif found.kind == "archives":
            opened = _open_archives(found.paths, data, opened)
        else:
            opened = _open_list(
                found.paths[0], root, delimiter, bad_lines, opened, relabel=relabel, beside=names is None
            )
        is_list = found.kind == "list"
    else:
        opened, is_list = _open_files(data, root, delimiter, bad_lines, relabel=relabel, beside=names is None)
    if root is not None and not is_list:
        raise DataError(f"{data} is no list file: a root for relative paths goes with a list file")
    if relabel and not is_list:
        raise DataError(f"{data} is no list file: --relabel numbers the labels of lists anew")
    if names is None or source is None:
        return opened
    return _renamed(opened, names, source) if relabel else with_names(opened, names, source)


def open_for_model(
    data: str | Path,
    classes: LabelSet,
    model: str,
    *,
    split: Split = "val",
    labels: str | Path | Sequence[str] | None = None,
    root: str | Path | None = None,
    delimiter: str = " ",
    relabel: bool = False,
    multi_label: bool = False,
) -> Opened:
    """Open images with labels that index a model's classes, or with `multi_label` have a column for each of them.

    Of a folder of splits, the images for validation are taken. Class folders (and the names that a list or Parquet
    has) are matched to the model's ids or names, or as numbers. `labels` names the model's outputs in their order,
    where folders have other names.

    Raises:
        DataError: as `open_data`; a name or number is none of the model's; images have several classes where the model
            gives one, or one where it gives several.
    """
    known = (*classes.ids, *classes.names())
    if relabel:
        labels = None  # they are the outputs' names, and not those of the list's own numbers
    opened = open_data(data, split=split, labels=labels, root=root, delimiter=delimiter, relabel=relabel, known=known)
    if is_multi_label(opened.images) != multi_label:
        raise DataError(
            f"{data}: its images have one class each, and {model} gives an image any number of them"
            if multi_label
            else f"{data}: its images have any number of classes, and {model} gives an image one"
        )
    if multi_label:
        return replace(opened, images=columns_in_model(data, opened.images, classes, model))
    return as_in_model(data, opened, classes, model)


def open_training(
    data: str | Path,
    val: str | Path | None = None,
    *,
    model: LabelSet | None = None,
    labels: str | Path | Sequence[str] | None = None,
    root: str | Path | None = None,
    val_root: str | Path | None = None,
    delimiter: str = " ",
    relabel: bool = False,
    bad_lines: list[DataError] | None = None,
    faults: list[DataError] | None = None,
) -> TrainingData:
    """Open the images for training and, from `val` or else from beside them, those for validation.

    `val_root` is what the paths of a list `val` are relative to, where it is not `root`. `model` has the classes of the
    network that training begins with: they name the numbers of a list that has as many.
    `faults` collects what is wrong with the labels, in place of an error; `classes` is then empty.

    Raises:
        DataError: as `open_data`; the labels cannot be those of a training set; the classes for validation are not
            those for training.
    """
    names = labels if relabel else None  # of the outputs; the two lists go together by their own numbers
    labels = None if relabel else labels
    train = open_data(data, labels=labels, root=root, delimiter=delimiter, relabel=relabel, bad_lines=bad_lines)
    notes = list(train.notes)
    several = is_multi_label(train.images)
    try:
        classes, more = network_columns(data, train.images, model) if several else network_classes(data, train, model)
        notes += more
    except DataError as error:
        if faults is None:
            raise
        faults.append(error)
        classes = ()
    outputs = classes
    if names is not None and classes:
        given, source = _names(names)
        outputs = _renamed(train, given, source).images.classes or classes
    parts = _splits(data)
    if val is None and "val" not in parts:
        if train.split == "train" and "test" in parts:
            notes.append(f"the images for testing in {data} are left for `torchclas evaluate`")
        return TrainingData(train.images, None, outputs, _distinct(notes))
    place = data if val is None else val
    is_list = not os.path.isdir(place)  # noqa: PTH112
    held_out = open_data(
        place,
        split="val",
        labels=labels,
        root=(val_root or root) if is_list or val is None else None,
        delimiter=delimiter,
        relabel=relabel and is_list,
        known=train.images.classes or classes,
        bad_lines=bad_lines,
    )
    notes += held_out.notes
    validation = held_out.images
    if is_multi_label(validation) != several:
        raise DataError(
            f"{place}: images have one class each there, and any number of classes for training"
            if several
            else f"{place}: images have any number of classes there, and one class each for training"
        )
    if several:
        validation = columns_in_training(place, validation, classes)
    elif classes:
        validation, more = as_in_training(place, held_out, train, classes)
        notes += more
    return TrainingData(train.images, validation, outputs, _distinct(notes))


def open_pictures(data: str | Path, *, root: str | Path | None = None, delimiter: str = " ") -> Opened:
    """Open images whose labels do not matter (all are 0): all below a folder, or what else `open_data` opens.

    Of a folder of splits, the images for training are taken.

    Raises:
        DataError: nothing there, or no images.
    """
    if isinstance(data, str) and in_store(data):
        found = find_in_store(data, "train")
        if found.kind == "classes":
            pictures = [Sample(address, 0) for address in expand(found.addresses) if is_image(address)]
            return Opened(Dataset(pictures, root=data.rstrip("/")), found.notes, found.split)
    folder = Path(data)
    if folder.is_dir():
        try:
            parts = splits_in(folder)
        except DataError:  # splits without classes, all of which are pictures
            parts = frozenset[Split]()
        samples = [] if "train" in parts else [Sample(path, 0) for path in _pictures(folder)]
        if samples:
            return Opened(Dataset(samples, root=str(folder)))
        if "train" not in parts and not archives_in(folder):
            raise DataError(f"{folder}: holds no images")
    opened = open_data(data, root=root, delimiter=delimiter)
    return replace(opened, images=Relabelled(opened.images, np.zeros(len(opened.images), np.int64)))


def names_beside(path: Path) -> list[Path]:
    """The files beside a list that may name its classes, by their names."""
    return sorted({file for pattern in NAMES_BESIDE for file in path.parent.glob(pattern)} - {path})


def fingerprint(images: LabelledImages) -> str:
    """A digest, in hexadecimal, of the names of the classes and of every image's key and label.

    It does not depend on where the images lie, and changes where a class or an image is renamed, added or removed.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name in images.classes or ():
        digest.update(name.encode("utf-8", "surrogatepass") + b"\n")
    for index, label in enumerate(images.labels.tolist()):
        digest.update(f"\0{images.key(index)}\0{label}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


_NOTHING = Dataset([])


def _splits(data: str | Path) -> frozenset[Split]:
    if isinstance(data, str) and in_store(data):
        return splits_in_store(data) if find_in_store(data, "train").split else frozenset()
    return splits_in(Path(data)) if Path(data).is_dir() else frozenset()


def _names(labels: str | Path | Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The names, and where they are from."""
    if isinstance(labels, (str, Path)):
        return read_names(labels), str(labels)
    return tuple(labels), "the list of names"


def _renamed(opened: Opened, names: tuple[str, ...], source: str) -> Opened:
    """A list whose labels were numbered anew, under other names for the new numbers."""
    images = opened.images
    assert isinstance(images, Dataset)
    assert images.classes is not None
    if len(names) != len(images.classes):
        raise DataError(
            f"{source}: names {len(names):,} classes, but the list has {len(images.classes):,} labels "
            f"({listed(images.classes)}), which are numbered anew"
        )
    return replace(opened, images=replace(images, classes=names), named_by=source, chosen=True)


def _open_files(
    data: str,
    root: str | Path | None,
    delimiter: str,
    bad_lines: list[DataError] | None,
    *,
    relabel: bool,
    beside: bool,
) -> tuple[Opened, bool]:
    """What a path that is no folder stands for, and whether that is a list."""
    paths = _expand(data)
    suffixes = {Path(path).suffix.lower() for path in paths}
    if suffixes in ({".tar"}, {".parquet"}):
        return _open_archives(tuple(map(Path, paths)), data, Opened(_NOTHING)), False
    if len(paths) != 1:
        raise DataError(f"{data}: stands for {len(paths)} files; several must be all .tar or all .parquet")
    path = Path(paths[0])
    if not path.exists():
        raise DataError(f"{data}: no such file or folder; expected class folders, a list file, .tar or .parquet")
    if suffixes <= SUFFIXES:
        raise DataError(f"{data}: is a single image; expected a folder of class folders, or a list file")
    if suffixes <= PACKED:
        raise DataError(f"{data}: is packed: unpack it first (only .tar and .parquet are read as they are)")
    return _open_list(path, root, delimiter, bad_lines, Opened(_NOTHING), relabel=relabel, beside=beside), True


def _open_stored(
    data: str,
    split: Split,
    root: str | Path | None,
    delimiter: str,
    bad_lines: list[DataError] | None,
    *,
    relabel: bool,
) -> tuple[Opened, bool]:
    """What an address in an object store stands for, and whether that is a list."""
    ranges = _ranges(data)
    found = find_in_store(data, split) if ranges == (data,) else FoundInStore("archives", ranges)
    opened = Opened(_NOTHING, found.notes, found.split)
    if found.kind == "classes":
        return replace(opened, images=class_folders_in_store(found.addresses[0])), False
    copies = tuple(map(local_copy, found.addresses))
    if found.kind == "archives":
        if len({path.suffix.lower() for path in copies}) > 1:
            raise DataError(f"{data}: stands for .tar and .parquet files: name those of one kind")
        return _open_archives(copies, data, opened), False
    start = parent(found.addresses[0]) if root is None else root
    return _open_list(copies[0], start, delimiter, bad_lines, opened, relabel=relabel, beside=False), True


def _open_archives(paths: tuple[Path, ...], data: str, opened: Opened) -> Opened:
    names = tuple(map(str, paths))
    images = TarShards(names) if paths[0].suffix.lower() == ".tar" else ParquetImages(names)
    if len(images) == 0:
        kinds = ", ".join(sorted(SUFFIXES)[:4])
        raise DataError(f"{data}: holds no images (files such as {kinds}); is it in the form of WebDataset or Parquet?")
    return replace(opened, images=images, numbered=images.classes is None)


def _open_list(
    path: Path,
    root: str | Path | None,
    delimiter: str,
    bad_lines: list[DataError] | None,
    opened: Opened,
    *,
    relabel: bool,
    beside: bool,
) -> Opened:
    """A list, with the names that a file beside it gives to its numbers."""
    images, notes = read_list(path, root=root, delimiter=delimiter, relabel=relabel, bad_lines=bad_lines)
    opened = replace(opened, images=images, notes=(*opened.notes, *notes), numbered=True)
    files = names_beside(path)
    if relabel or not beside or not files or images.classes:
        return opened
    if len(files) > 1:
        return opened.noting(f"{listed([file.name for file in files])} may name the classes: --labels FILE says which")
    try:
        names = read_names(files[0])
        if any(re.search(r"\.(jpe?g|png|bmp|webp)\b", name, re.IGNORECASE) for name in names[:2]):
            return opened  # a list of images as well
        highest = images.labels.shape[1] - 1 if is_multi_label(images) else int(images.labels.max())
        if highest >= len(names):
            raise DataError(f"{files[0]}: names {len(names):,} classes, but {path.name} has the label {highest}")
    except DataError as error:
        return opened.noting(f"not taken for the names of classes: {error}")
    if is_multi_label(images) and highest + 1 != len(names):
        return opened.noting(
            f"not taken for the names of classes: {files[0]} has {len(names):,}, the list {highest + 1}"
        )
    named = replace(opened, images=renamed(images, names), named_by=str(files[0]))
    return named.noting(f"{files[0]} names the classes: 0 is {names[0]}")


def _distinct(notes: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(notes))


def _pictures(folder: Path) -> Iterator[str]:
    return (path for path in expand([folder]) if is_image(path))


def _expand(pattern: str) -> tuple[str, ...]:
    """Resolve ranges such as {000..099}, then globs."""
    return tuple(path for each in _ranges(pattern) for path in _matches(each))


def _ranges(pattern: str) -> tuple[str, ...]:
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not found:
        return (pattern,)
    first, last = found.groups()
    numbers = range(int(first), int(last) + 1)
    paths = [f"{pattern[: found.start()]}{number:0{len(first)}}{pattern[found.end() :]}" for number in numbers]
    return tuple(path for each in paths for path in _ranges(each))


def _matches(pattern: str) -> tuple[str, ...]:
    if any(character in pattern for character in "*?[") and not os.path.lexists(pattern):
        return tuple(sorted(glob.glob(pattern, recursive=True))) or (pattern,)  # noqa: PTH207
    return (pattern,)
