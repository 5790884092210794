"""Look over labelled images before hours are spent on training with them."""

from __future__ import annotations

import hashlib
import io
import os
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from torchclas.atomic import atomic_path
from torchclas.data.datasets import Dataset, LabelledImages, Relabelled
from torchclas.data.decode import MAX_PIXELS, Pixels, decode
from torchclas.data.duplicates import near_groups, perceptual_hash
from torchclas.data.multi_label import is_multi_label
from torchclas.data.opening import open_training
from torchclas.errors import DataError, ImageError, OutputError
from torchclas.text import ANY_NAME
from torchclas.version import __version__

FEW = 5  # a class with fewer training images is hardly learnt
UNEVEN = 10  # times as many images in the largest class as in the smallest
TINY = 32  # pixels of the shorter side, an eighth of what most networks see
HUGE = 25_000_000  # pixels; reading them takes longer than training on them
BARS = 0.05  # of a side, black on both ends
BLACK = 16  # an intensity below this, of 255
AHEAD = 4096  # images whose results may wait for the one before them


Watch: TypeAlias = Callable[[int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding; `harmful` ones hurt training or the figures that are to judge it."""

    title: str
    advice: str
    harmful: bool = False


KINDS = {
    "unreadable": Kind("files that cannot be read", "training leaves them out; replace or remove them", harmful=True),
    "labels": Kind("labels that no training can begin with", "correct them", harmful=True),
    "unlabelled": Kind("images without a class", "add the class, or remove them", harmful=True),
    "conflict": Kind("the same file in several classes", "keep the right one", harmful=True),
    "near_conflict": Kind("pictures that look the same, in several classes", "keep the right one", harmful=True),
    "leak": Kind("the same picture for training and validation", "accuracy would be overrated", harmful=True),
    "few": Kind(f"classes with fewer than {FEW} training images", "add images, or leave them out", harmful=True),
    "uneven": Kind("classes of very uneven size", "train with --set sampling=balanced"),
    "duplicate": Kind("the same file several times", "it counts more than others"),
    "near_duplicate": Kind("pictures that look the same", "keep them on one side when you split the data"),
    "alike": Kind("pictures that the model takes for the same", "keep them on one side when you split the data"),
    "doubtful": Kind("labels that the model doubts, the likeliest wrong first", "look at them, and correct them"),
    "tiny": Kind(f"images with a side below {TINY} pixels", "they are enlarged beyond recognition"),
    "huge": Kind(f"images of more than {HUGE // 10**6} million pixels", "slow to read: make them smaller once"),
    "bars": Kind("images with black bars", "crop them, or the network learns the bars"),
    "cmyk": Kind("CMYK images", "converted to RGB without their color profile"),
    "sixteen_bit": Kind("images of 16 bits per channel", "reduced to 8 bits"),
    "alpha": Kind("images with an alpha channel", "it is dropped, and what it hid shows"),
    "rotated": Kind("images that EXIF turns", "turned as it says; other software may not"),
    "line_breaks": Kind("line breaks in paths", "no list file can name them"),
    "spaces": Kind("spaces in paths", "list files of other software break on them"),
}


@dataclass(frozen=True, slots=True)
class Item:
    """An image, a group of images, or a class that something was found about."""

    names: tuple[str, ...]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """Everything of one kind (a key of `KINDS`)."""

    kind: str
    items: tuple[Item, ...]

    @property
    def harmful(self) -> bool:
        """Whether it hurts training, or the figures that are to judge it."""
        return KINDS[self.kind].harmful


@dataclass(frozen=True, slots=True)
class DataReport:
    """What was found; `counts` are the usable training images of each class, `kept` how many a clean list holds."""

    data: str
    val: str
    images: int
    val_images: int
    counts: dict[str, int]
    findings: tuple[Finding, ...]
    kept: int
    seconds: float
    clean_list: str = ""
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing was found that would hurt training."""
        return not any(finding.harmful for finding in self.findings)

    @property
    def imbalance(self) -> float:
        """How many times the largest class is larger than the smallest that has images."""
        counts = [count for count in self.counts.values() if count]
        return max(counts) / min(counts) if counts else 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {
            "torchclas": __version__,
            "data": self.data,
            "val": self.val,
            "ok": self.ok,
            "images": self.images,
            "val_images": self.val_images,
            "imbalance": self.imbalance,
            "counts": self.counts,
            "findings": [
                {"kind": finding.kind, "harmful": finding.harmful, "items": [asdict(item) for item in finding.items]}
                for finding in self.findings
            ],
            "kept": self.kept,
            "clean_list": self.clean_list,
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Facts:
    """What a look at one file tells: its `digest`, and a hash of how the picture looks (None: it is flat)."""

    error: str = ""
    digest: bytes = b""
    look: int | None = None
    traits: tuple[tuple[str, str], ...] = ()  # kind and detail


@dataclass(frozen=True, slots=True)
class _Image:
    name: str
    classes: tuple[int, ...] | None  # None: it has no label
    is_val: bool
    is_file: bool  # and no part of an archive
    facts: Facts

    @property
    def usable(self) -> bool:
        return not self.facts.error and self.classes is not None

    @property
    def listable(self) -> bool:
        return "\n" not in self.name and "\r" not in self.name


class _Findings:
    """Collects items by kind."""

    def __init__(self) -> None:
        self._items: dict[str, list[Item]] = defaultdict(list)

    def add(self, kind: str, names: Iterable[str], detail: str = "") -> None:
        self._items[kind].append(Item(tuple(names), detail))

    def result(self) -> tuple[Finding, ...]:
        """In the order of `KINDS`."""
        return tuple(Finding(kind, tuple(self._items[kind])) for kind in KINDS if kind in self._items)


def _unwatched(images: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda done: None)


def check(
    data: str | Path,
    val: str | Path | None = None,
    *,
    output: Path | None = None,
    labels: str | Path | None = None,
    root: str | Path | None = None,
    delimiter: str = " ",
    workers: int | None = None,
    max_pixels: int = MAX_PIXELS,
    watch: Watch = _unwatched,
) -> DataReport:
    """Read every image for training and (from `val`, or else beside them) for validation, and look for trouble.

    `output` becomes a list file of the training images, without those that cannot be read, are in several classes, are
    among the validation images too, or repeat another file. `watch` is told how many images there are, and gives what
    is told of those that were looked at.

    Raises:
        DataError: the data cannot be opened at all, or its images are in archives, which a list cannot name.
        OutputError: `output` cannot be written.
    """
    if output is not None and output.is_file() and _is_one_of(output, (data, val)):
        raise OutputError(f"{output} is the list that is checked: choose another name for the clean one")
    start, bad_lines, faults = time.perf_counter(), list[DataError](), list[DataError]()
    opened = open_training(data, val, labels=labels, root=root, delimiter=delimiter, bad_lines=bad_lines, faults=faults)
    train, validation = opened.train, opened.validation
    if output is not None and not isinstance(_unlabelled(train), Dataset):
        raise DataError(f"{data}: a clean list names files, but these images are in archives: leave it out")
    sides = [(train, False)] if validation is None else [(train, False), (validation, True)]
    with watch(sum(len(images) for images, _ in sides)) as advance:
        images = [image for side, is_val in sides for image in _look_at_all(side, is_val, workers, max_pixels, advance)]

    found = _Findings()
    for error in faults:
        found.add("labels", (), str(error))
    for error in bad_lines:
        found.add("unlabelled", (), str(error))
    for image in images:
        _add_traits(image, found)
    names = _names(opened.classes or train.classes or (), images)
    counts = _count(names, images, found)
    dropped = _exact(images, names, found) | _near(images, names, found)
    keep = [
        image
        for place, image in enumerate(images[: len(train)])
        if image.usable and image.listable and place not in dropped
    ]
    if output is not None:
        _write_list(keep, output, train.labels.shape[1] if is_multi_label(train) else None)
    return DataReport(
        data=str(data),
        val="" if validation is None else str(data if val is None else val),
        images=len(train),
        val_images=len(images) - len(train),
        counts=counts,
        findings=found.result(),
        kept=len(keep),
        seconds=time.perf_counter() - start,
        clean_list="" if output is None else str(output),
        notes=opened.notes,
    )


def _look_at_all(
    images: LabelledImages, is_val: bool, workers: int | None, max_pixels: int, advance: Callable[[int], None]
) -> Iterator[_Image]:
    places, classes = iter(range(len(images))), _classes(images)
    are_files = isinstance(_unlabelled(images), Dataset)
    # Threads suffice: decoding, hashing and resizing release Python's lock.
    with ThreadPoolExecutor(os.cpu_count() if workers is None else max(workers, 1)) as pool:
        while some := list(islice(places, AHEAD)):
            for place, facts in zip(some, pool.map(partial(_look_at, images, max_pixels), some), strict=True):
                yield _Image(images.name(place), classes[place], is_val, are_files, facts)
                advance(1)


def _unlabelled(images: LabelledImages) -> LabelledImages:
    return images.images if isinstance(images, Relabelled) else images


def _classes(images: LabelledImages) -> list[tuple[int, ...] | None]:
    if is_multi_label(images):
        return [tuple(np.flatnonzero(row).tolist()) for row in images.labels]
    return [(label,) if label >= 0 else None for label in images.labels.tolist()]


def _look_at(images: LabelledImages, max_pixels: int, place: int) -> Facts:
    try:
        file = images.read(place)
        pixels = decode(file, max_pixels=max_pixels)
    except ImageError as error:
        return Facts(str(error))
    except Exception as error:  # one odd file must not end the check
        return Facts(f"unexpected {type(error).__name__}: {error}")
    return Facts("", hashlib.sha256(file).digest(), perceptual_hash(pixels), tuple(_traits(file, pixels)))


def _traits(file: bytes, pixels: Pixels) -> Iterator[tuple[str, str]]:
    height, width = pixels.shape[:2]
    if min(height, width) < TINY:
        yield "tiny", f"{width} × {height}"
    if height * width > HUGE:
        yield "huge", f"{width:,} × {height:,}"
    bars = [name for name, lines in (("top and bottom", pixels), ("sides", pixels.transpose(1, 0, 2))) if _bars(lines)]
    if bars and pixels.max() >= BLACK:
        yield "bars", " and ".join(bars)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its size, which is said above
        try:
            header = Image.open(io.BytesIO(file))
            orientation = header.getexif().get(0x0112, 1)
        except Exception:  # whatever Pillow does not make of a file that was decoded all the same
            return
    if header.mode == "CMYK":
        yield "cmyk", ""
    if _is_sixteen_bit(header, file):
        yield "sixteen_bit", ""
    if header.has_transparency_data:
        yield "alpha", ""
    if orientation in range(2, 9):
        yield "rotated", f"orientation {orientation}"


def _bars(lines: npt.NDArray[np.uint8]) -> bool:
    """Whether the first and the last lines are black."""
    depth = max(1, round(BARS * len(lines)))
    return len(lines) > 2 * depth and max(lines[:depth].max(), lines[-depth:].max()) < BLACK


def _is_sixteen_bit(header: Image.Image, file: bytes) -> bool:
    if header.format == "PNG":
        return file[24] == 16  # Pillow's mode would tell only for gray ones
    bits = getattr(header, "tag_v2", {}).get(258, 8)  # TIFF's BitsPerSample
    return header.mode.startswith("I;16") or max(bits if isinstance(bits, tuple) else (bits,)) == 16


def _add_traits(image: _Image, found: _Findings) -> None:
    if image.facts.error:
        found.add("unreadable", [image.name], image.facts.error.removeprefix(f"{image.name}: "))
    if image.classes is None:
        found.add("unlabelled", [image.name])
    if not image.listable:
        found.add("line_breaks", [image.name])
    if image.is_file and " " in image.name:
        found.add("spaces", [image.name])
    for kind, detail in image.facts.traits:
        found.add(kind, [image.name], detail)


def _names(classes: Sequence[str], images: Sequence[_Image]) -> dict[int, str]:
    """The name of each class, and of each label beyond them that occurs, which may be a billion."""
    names = dict(enumerate(classes))
    used = {label for image in images for label in image.classes or ()}
    return names | {label: str(label) for label in sorted(used - set(names))}


def _count(names: Mapping[int, str], images: Sequence[_Image], found: _Findings) -> dict[str, int]:
    """Usable training images by class."""
    counts = dict.fromkeys(names.values(), 0)
    for image in images:
        if image.usable and not image.is_val:
            for label in image.classes or ():
                counts[names[label]] += 1
    for name, count in counts.items():
        if count < FEW:
            found.add("few", [name], f"{count}")
    present = [name for name, count in counts.items() if count]
    smallest = min(present, key=counts.__getitem__, default="")
    largest = max(present, key=counts.__getitem__, default="")
    if present and counts[largest] > UNEVEN * counts[smallest]:
        found.add("uneven", [largest, smallest], f"{counts[largest]:,} against {counts[smallest]:,} images")
    return counts


def _exact(images: Sequence[_Image], classes: Mapping[int, str], found: _Findings) -> set[int]:
    """Report equal files; returns the places of training images that a clean list leaves out."""
    same: dict[bytes, list[int]] = defaultdict(list)
    for place, image in enumerate(images):
        if image.usable:
            same[image.facts.digest].append(place)
    dropped: set[int] = set()
    for group in same.values():
        if len(group) < 2:
            continue
        members = [images[place] for place in group]
        if _add_group(members, classes, "conflict", found):
            dropped.update(group)  # nobody but a person can say which is right
        if _add_leak(members, "the same file", found):
            dropped.update(group)
        elif len({image.classes for image in members}) == 1:
            found.add("duplicate", [image.name for image in members])
            dropped.update(group[1:])
    return dropped


def _near(images: Sequence[_Image], classes: Mapping[int, str], found: _Findings) -> set[int]:
    """Report files that differ and look the same; returns the places that a clean list leaves out."""
    # Of equal files, which are reported already, one for each class and side is enough.
    first: dict[Hashable, int] = {}
    for place, image in enumerate(images):
        if image.usable and image.facts.look is not None:
            first.setdefault((image.facts.digest, image.classes, image.is_val), place)
    places = list(first.values())
    dropped: set[int] = set()
    for group in near_groups([images[place].facts.look or 0 for place in places]):
        members = [images[places[number]] for number in group]
        if len({image.facts.digest for image in members}) == 1:
            continue
        conflict = _add_group(members, classes, "near_conflict", found)
        if _add_leak(members, "they look the same", found):
            dropped.update(places[number] for number in group)
        elif not conflict:
            found.add("near_duplicate", [image.name for image in members])
    return dropped


def _add_group(members: Sequence[_Image], classes: Mapping[int, str], kind: str, found: _Findings) -> bool:
    several = sorted({image.classes or () for image in members})
    if len(several) > 1:
        labels = ("+".join(classes[label] for label in each) or "–" for each in several)
        found.add(kind, [image.name for image in members], ", ".join(labels))
    return len(several) > 1


def _add_leak(members: Sequence[_Image], detail: str, found: _Findings) -> bool:
    crosses = len({image.is_val for image in members}) > 1
    if crosses:
        found.add("leak", [image.name for image in members], detail)
    return crosses


def _is_one_of(file: Path, others: Sequence[str | Path | None]) -> bool:
    return any(other is not None and Path(other).exists() and file.samefile(other) for other in others)


def _write_list(keep: Sequence[_Image], output: Path, columns: int | None) -> None:
    """A line for each image: its class, or with `columns` 0 and 1 for each class."""
    folder = output.absolute().parent
    with (
        atomic_path(output) as path,
        path.open("w", encoding="utf-8", errors=ANY_NAME, newline="\n") as file,  # names may be any bytes
    ):
        for image in keep:
            name = Path(image.name).absolute()
            inside = name.is_relative_to(folder)
            classes = list(image.classes or ())
            label = classes[0] if columns is None else ",".join(str(int(k in classes)) for k in range(columns))
            file.write(f"{name.relative_to(folder) if inside else name} {label}\n")
