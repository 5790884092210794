"""Labelled images, wherever they are kept; `torchclas.data.opening` opens them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from torchclas.data.sources import read

Indices = npt.NDArray[np.int64]


class LabelledImages(Protocol):
    """Images with labels in a fixed order, any of which can be read at once; `Dataset` and the shards are such."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names that the labels index, where the data says so."""
        ...

    @property
    def labels(self) -> Indices:
        """The class of every image, [N]; or [N, classes] of 0 and 1, where an image has any number of them."""
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


@dataclass(frozen=True, eq=False)
class Relabelled:
    """Images of a data set under other labels, [N] or [N, classes], which index `classes` where these have names."""

    images: LabelledImages
    labels: Indices
    classes: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """What the data set calls it."""
        return self.images.name(index)

    def key(self, index: int) -> str:
        """What the data set calls it."""
        return self.images.key(index)

    def read(self, index: int) -> bytes:
        """Return the image's file; raises ImageError with the reason alone."""
        return self.images.read(index)


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """An image of a data set, for what reads images from anywhere."""

    images: LabelledImages
    index: int

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return self.images.name(self.index)

    def read(self) -> bytes:
        """Return its file; raises ImageError with the reason alone."""
        return self.images.read(self.index)


def entries(images: LabelledImages) -> Iterator[Entry]:
    """Every image, in order."""
    return (Entry(images, index) for index in range(len(images)))
