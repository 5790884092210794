"""From pictures to the vectors, classes and names that go into a gallery."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from torchclas.data.datasets import Entry, LabelledImages, entries
from torchclas.data.folders import listed
from torchclas.data.multi_label import is_multi_label
from torchclas.data.opening import open_data
from torchclas.errors import DataError
from torchclas.inference.embedder import Embedder
from torchclas.retrieval.exact import Vectors
from torchclas.retrieval.gallery import Gallery, named


@dataclass(frozen=True)
class Pictures:
    """What is to go into a gallery: images, and the class of each (empty: none); what was taken for what is noted."""

    images: Sequence[str | Entry]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Embedded:
    """The pictures that have a vector, [N, dimension], and those that could not be read."""

    vectors: Vectors
    classes: tuple[str, ...]
    sources: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def into(self, gallery: Gallery) -> Gallery:
        """The gallery with these pictures, calibrated anew."""
        return gallery.with_pictures(self.vectors, self.classes, self.sources).calibrated()


def open_labelled(
    data: str | Path,
    *,
    labels: str | Path | None = None,
    root: str | Path | None = None,
    delimiter: str = " ",
    relabel: bool = False,
) -> Pictures:
    """Pictures with their classes, in any form that `torchclas.data.opening` reads; of splits those for training.

    Raises DataError: what `open_data` does; an image has several classes.
    """
    opened = open_data(data, labels=labels, root=root, delimiter=delimiter, relabel=relabel)
    if is_multi_label(opened.images):
        raise DataError(f"{data}: its images have any number of classes, and a picture of a gallery has one")
    return Pictures([*entries(opened.images)], _class_names(opened.images), opened.notes)


def _class_names(images: LabelledImages) -> tuple[str, ...]:
    names = images.classes
    return tuple(str(label) if names is None else names[label] for label in images.labels.tolist())


def embed_pictures(
    embedder: Embedder, pictures: Pictures, advance: Callable[[int], object] = lambda images: None
) -> Embedded:
    """The vectors of pictures; one that is named twice is taken once, `advance` is told how many were done.

    Raises DataError: none of them can be read; one is in two classes.
    """
    class_of: dict[str, str] = {}
    vectors, unreadable = list[Vectors](), list[tuple[str, str]]()
    classes, kept = iter(pictures.classes), list[str]()
    for batch in embedder.batches(pictures.images):
        for row in embedder.rows(batch):
            name, own = named(row.source), next(classes)
            if row.vector is None:
                unreadable.append((row.source, row.error or ""))
            elif class_of.setdefault(name, own) != own:
                raise DataError(f"{row.source} is in two classes, {class_of[name]} and {own}: keep the right one")
            elif len(class_of) > len(kept):  # it was not there before
                vectors.append(row.vector.astype(np.float32, copy=False))
                kept.append(name)
        advance(len(batch.sources))
    if not kept:
        source, error = unreadable[0]
        raise DataError(f"none of the {len(unreadable):,} pictures can be read; the first is {source}: {error}")
    notes = list(pictures.notes)
    if empty := sorted(set(pictures.classes) - set(class_of.values())):
        notes.append(f"no picture of {len(empty):,} classes can be read, so the gallery lacks them: {listed(empty)}")
    return Embedded(
        np.stack(vectors), tuple(class_of[name] for name in kept), tuple(kept), tuple(unreadable), tuple(notes)
    )


def empty_gallery(embedder: Embedder) -> Gallery:
    """A gallery without pictures, for vectors of this model; raises DataError unless they have unit length."""
    if not embedder.normalize or embedder.dtype != "fp32":
        raise DataError("a gallery holds vectors of unit length in fp32: Embedder(…, normalize=True)")
    provenance = embedder.provenance
    none = np.empty((0, provenance.dimension), np.float32)
    return Gallery(provenance, none, np.empty(0, np.int64), (), ())


def by_class(images: Iterable[str], name: str) -> Pictures:
    """Pictures that all are of one class (empty: of none)."""
    chosen = list(images)
    return Pictures(chosen, (name,) * len(chosen))
