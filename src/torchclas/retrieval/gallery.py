"""Vectors of pictures with their classes, in a file that also says what made the vectors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchclas.atomic import atomic_path, need_space
from torchclas.data.folders import listed
from torchclas.errors import DataError, Error, UnknownNameError
from torchclas.inference.embedder import LEAST_ALIKE, Provenance
from torchclas.retrieval.calibration import Calibration, calibrate
from torchclas.retrieval.exact import Vectors
from torchclas.tables import Table, mapping, number, positive_integer, text, texts
from torchclas.tensor_file import map_tensors, read_metadata, write_header
from torchclas.text import json_text
from torchclas.version import __version__

KEY = "torchclas-gallery"  # of the file's metadata
NO_CLASS = -1
_FORMAT = 1
_ROWS = 16_384  # written at once


@dataclass(frozen=True, eq=False)
class Gallery:
    """Pictures to be found again, and classes to be recognised by them.

    `vectors` have unit length, float32 [N, dimension]; `labels` [N] index `classes`, -1 for a picture without a class;
    `sources` are the pictures' paths or other names. Pictures are added and removed without training; each time the
    gallery is another object, and calibrated anew.
    """

    provenance: Provenance
    vectors: Vectors
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    sources: tuple[str, ...]
    calibration: Calibration = field(default_factory=Calibration)

    def __len__(self) -> int:
        return len(self.sources)

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """How many pictures each class has."""
        counts = np.bincount(self.labels[self.labels >= 0], minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, counts, strict=True))

    def class_of(self, place: int) -> str:
        """The class of a picture; empty for none."""
        label = int(self.labels[place])
        return "" if label == NO_CLASS else self.classes[label]

    def calibrated(self) -> Gallery:
        """The same, with what its own pictures say of similarities."""
        return replace(self, calibration=calibrate(self.vectors, self.labels))

    def with_pictures(self, vectors: Vectors, classes: Sequence[str], sources: Sequence[str]) -> Gallery:
        """The gallery with more pictures, of these classes (empty: of none); a picture that it has is replaced.

        Raises DataError: the vectors are of another dimension.
        """
        if vectors.shape[1:] != (self.provenance.dimension,):
            raise DataError(
                f"vectors of {vectors.shape[-1]:,} numbers do not go into a gallery of {self.provenance.dimension:,}"
            )
        new = set(sources)
        kept = np.array([source not in new for source in self.sources], bool)
        old = self if kept.all() else self._chosen(kept)
        names = dict.fromkeys(old.classes) | dict.fromkeys(name for name in classes if name)
        number_of = {name: label for label, name in enumerate(names)}
        labels = np.array([number_of.get(name, NO_CLASS) for name in classes], np.int64)
        return Gallery(
            self.provenance,
            vectors if not len(old) else np.concatenate([old.vectors, vectors]),
            np.concatenate([old.labels, labels]),
            tuple(names),
            (*old.sources, *sources),
        )

    def without(self, classes: Sequence[str] = (), sources: Sequence[str] = ()) -> Gallery:
        """The gallery without all pictures of some classes, and without some pictures.

        Raises:
            UnknownNameError: it has no such class.
            DataError: it has no such picture, or none would be left.
        """
        for name in classes:
            if name not in self.classes:
                raise UnknownNameError("class", name, self.classes, f"its classes are {listed(self.classes)}")
        present, gone = set(self.sources), set[str]()
        for source in sources:
            names = {source, str(Path(source).absolute())} & present  # the file itself may be gone
            if not names:
                raise DataError(f"{source}: no such picture in the gallery, which has them by their paths")
            gone |= names
        gone_classes = {self.classes.index(name) for name in classes}
        kept = [
            label not in gone_classes and source not in gone
            for label, source in zip(self.labels.tolist(), self.sources, strict=True)
        ]
        if not any(kept):
            raise DataError("nothing would be left in the gallery: remove its file instead")
        return self._chosen(np.array(kept, bool))

    def _chosen(self, kept: NDArray[np.bool_]) -> Gallery:
        """Some of the pictures, and the classes that these have."""
        labels = self.labels[kept]
        used = np.unique(labels[labels >= 0])
        renumbered = np.full(len(self.classes) + 1, NO_CLASS, np.int64)  # its last item stands for none
        renumbered[used] = np.arange(len(used))
        return Gallery(
            self.provenance,
            self.vectors[kept],
            renumbered[labels],
            tuple(self.classes[label] for label in used),
            tuple(source for source, stays in zip(self.sources, kept, strict=True) if stays),
        )

    def check_maker(self, made: Provenance, name: str) -> None:
        """Raise `DataError` unless the vectors of a model may be compared with those of the gallery called `name`."""
        own = self.provenance
        theirs = made.path or made.model
        if made.dimension != own.dimension:
            raise DataError(
                f"{name} holds vectors of {own.dimension:,} numbers, and {theirs} gives {made.dimension:,}: use "
                f"{own.path or own.model}, which it was made with"
            )
        if (made.preset, made.tta) != (own.preset, own.tta):
            ours, others = ({**each.preset.to_dict(), "tta": each.tta} for each in (own, made))
            differing = next(key for key in ours if ours[key] != others[key])
            raise DataError(
                f"{name}: its pictures were prepared with {differing} = {ours[differing]}, and {theirs} prepares them "
                f"with {others[differing]}: use {own.path or own.model}"
            )
        alike = float(np.dot(own.probe, made.probe))
        if made.weights != own.weights and alike < LEAST_ALIKE:
            raise DataError(
                f"{name} was made with other weights than {theirs}: for the same picture their vectors have a "
                f"similarity of {alike:.3f} only: use {own.path or own.model}, or build the gallery anew"
            )

    def write(self, path: str | Path) -> None:
        """Write the gallery, which appears (or is replaced) complete or not at all; calibrate it first.

        Raises OutputError: the disk is full, or `path` cannot be written.
        """
        path = Path(os.path.realpath(path))
        names = json.dumps([_stored(source, path.parent) for source in self.sources]).encode()
        facts = {
            "format": _FORMAT,
            "torchclas": __version__,
            "provenance": json.loads(self.provenance.to_json()),
            "classes": list(self.classes),
            "calibration": asdict(self.calibration),
        }
        tensors = {
            "vectors": (np.dtype(np.float32), (len(self), self.provenance.dimension)),
            "labels": (np.dtype(np.int64), (len(self),)),
            "sources": (np.dtype(np.uint8), (len(names),)),
        }
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            need_space(path, self.vectors.nbytes + self.labels.nbytes + len(names))
            write_header(file, tensors, {KEY: json_text(json.dumps(facts, ensure_ascii=False))})
            for start in range(0, len(self), _ROWS):
                file.write(np.ascontiguousarray(self.vectors[start : start + _ROWS], np.float32).data)
            file.write(np.ascontiguousarray(self.labels).data)
            file.write(names)

    @classmethod
    def read(cls, path: str | Path) -> Gallery:
        """Read what `write` wrote; vectors stay on the disk until they are compared.

        Raises DataError: no gallery, or one that contradicts itself.
        """
        path = Path(path)
        content = read_metadata(path).get(KEY)
        if content is None:
            raise DataError(f"{path}: no gallery; `torchclas gallery build PICTURES -o {path}` writes one")
        try:
            return cls._read(path, content)
        except (Error, ValueError, KeyError, RecursionError) as error:
            raise DataError(f"{path}: a damaged gallery ({error})") from error

    @classmethod
    def _read(cls, path: Path, content: str) -> Gallery:
        table = Table("gallery", mapping(json.loads(content)), DataError)
        if (version := table.take("format", positive_integer)) != _FORMAT:
            raise table.error("format", f"{version} is not {_FORMAT}: it needs another version of torchclas")
        table.take("torchclas", text)
        provenance = Provenance.from_json(json.dumps(table.take("provenance", mapping)))
        classes = table.take("classes", texts)
        calibration = _calibration(table.take("calibration", mapping))
        table.close()
        tensors = map_tensors(path)
        vectors, labels = tensors["vectors"], np.array(tensors["labels"])
        names: object = json.loads(tensors["sources"].tobytes())
        sources = tuple(_absolute(source, path.absolute().parent) for source in texts(names))
        if vectors.dtype != np.float32 or vectors.shape != (len(sources), provenance.dimension):
            raise ValueError(f"vectors of the shape {vectors.shape} for {len(sources)} × {provenance.dimension}")
        if labels.dtype != np.int64 or labels.shape != (len(sources),) or len(set(classes)) != len(classes):
            raise ValueError(f"labels of the shape {labels.shape} for {len(sources)} pictures")
        if len(labels) and not NO_CLASS <= labels.min() <= labels.max() < len(classes):
            raise ValueError(f"labels up to {labels.max()} for {len(classes)} classes")
        return cls(provenance, vectors, labels, classes, sources, calibration)


def _calibration(values: Mapping[str, object]) -> Calibration:
    table = Table("calibration", values, DataError)

    def share(value: object) -> float | None:
        return None if value is None else number(value)

    found = Calibration(
        threshold=table.take("threshold", share),
        kept=table.take("kept", share),
        rejected=table.take("rejected", share),
        tie=table.take("tie", number),
        pictures=int(table.take("pictures", number)),
    )
    table.close()
    return found


def _stored(source: str, folder: Path) -> str:
    """A path below the gallery's folder is kept relative to it: both may be moved together."""
    path = Path(source)
    return f"./{path.relative_to(folder)}" if path.is_absolute() and path.is_relative_to(folder) else source


def _absolute(source: str, folder: Path) -> str:
    return str(folder / source) if source.startswith("./") else source


def named(source: str) -> str:
    """What a picture is called in a gallery: a file by its absolute path, anything else as it is."""
    return source if "://" in source or not Path(source).is_file() else str(Path(source).absolute())
