"""The pictures of a gallery that are most like others, and the classes that others belong to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from torchclas.data.decode import ImageLike
from torchclas.errors import CheckpointError, DataError, Error
from torchclas.inference.classifier import Embedding, several
from torchclas.inference.embedder import Embedder, Provenance
from torchclas.retrieval.exact import Indices, Vectors, nearest
from torchclas.retrieval.gallery import NO_CLASS, Gallery

_FIRST_LOOK = 50  # neighbours in which classes are looked for
_FURTHER = 8  # times as many, where they have too few


@dataclass(frozen=True, slots=True)
class Match:
    """What a gallery has for one input, the most similar first, or why there is nothing.

    The lists belong together: of a search `neighbours` are pictures, each with its class (empty: none); of recognition
    `classes` are all different, each with its most similar picture. Similarities are cosines, 1 for the same direction.
    A picture is `unknown` where even the first class is not similar enough; `near_tie` says that another class is
    almost as similar as the first.
    """

    source: str
    status: Literal["ok", "unknown", "error"]
    classes: tuple[str, ...] = ()
    similarities: tuple[float, ...] = ()
    neighbours: tuple[str, ...] = ()
    near_tie: bool = False
    error: str | None = None
    engine: str | None = None


_NO_PRODUCTS, _NO_PLACES = np.empty(0, np.float32), np.empty(0, np.int64)


class _Neighbour(NamedTuple):
    place: int
    similarity: float


class Searcher:
    """A gallery, or the file of one, with the model that made it.

    `embedder` takes the place of the model that the gallery names: another file or engine with the same weights.
    `name` is what messages call the gallery, by default its file.

    Raises:
        DataError: no gallery, or one made with other weights or another preprocessing than the embedder's.
        CheckpointError: the model that the gallery names is not there.
    """

    def __init__(
        self, gallery: Gallery | str | Path, embedder: Embedder | None = None, *, name: str | None = None
    ) -> None:
        name = name or ("the gallery" if isinstance(gallery, Gallery) else str(gallery))
        self.gallery = gallery if isinstance(gallery, Gallery) else Gallery.read(gallery)
        self.embedder = embedder or maker_of(self.gallery.provenance)
        self.gallery.check_maker(self.embedder.provenance, name)

    def search(self, sources: ImageLike | Iterable[ImageLike], count: int = 5) -> Iterator[Match]:
        """The `count` most similar pictures for each source, in order."""
        for row, products, places in self._nearest(sources, count):
            if row.vector is None:
                yield Match(row.source, "error", error=row.error)
            else:
                found = [*map(_Neighbour, places.tolist(), products.tolist())]
                yield self._match(row.source, "ok", found)

    def recognize(
        self, sources: ImageLike | Iterable[ImageLike], count: int = 1, *, threshold: float | None = None
    ) -> Iterator[Match]:
        """The `count` most similar classes for each source, in order; a class is as similar as its best picture.

        Below `threshold` a source is `unknown`; by default that is what the gallery was calibrated to.

        Raises DataError: the gallery has no classes, or was too small to be calibrated and no threshold is given.
        """
        if not self.gallery.classes:
            raise DataError("the gallery has no classes: search finds similar pictures in it")
        least = self.gallery.calibration.threshold if threshold is None else threshold
        if least is None:
            raise DataError(
                "from which similarity on a picture is known cannot be told from a gallery with one class, or one "
                "picture of each: say it (--threshold 0.7), or add pictures"
            )
        if count < 1 or not -1 <= least <= 1:
            raise Error(f"count must be at least 1, and a threshold is a cosine in -1..1, not {count} and {least:g}")
        for row, products, places in self._nearest(sources, _FIRST_LOOK):
            if row.vector is None:
                yield Match(row.source, "error", error=row.error)
                continue
            found = self._classes(row.vector, products, places, max(count, 2))
            tie = len(found) > 1 and found[0].similarity - found[1].similarity <= self.gallery.calibration.tie
            known = bool(found) and found[0].similarity >= least
            yield self._match(row.source, "ok" if known else "unknown", found[:count], near_tie=known and tie)

    def _nearest(
        self, sources: ImageLike | Iterable[ImageLike], count: int
    ) -> Iterator[tuple[Embedding, Vectors, Indices]]:
        """Each source with its vector, and the nearest of the gallery's: their products and places."""
        for batch in self.embedder.batches(several(sources)):
            rows = list(self.embedder.rows(batch))
            vectors = [row.vector for row in rows if row.vector is not None]
            queries = np.stack(vectors) if vectors else np.empty((0, self.embedder.dimension), np.float32)
            products_of, places_of = nearest(self.gallery.vectors, queries, count)
            found = zip(products_of, places_of, strict=True)
            for row in rows:
                products, places = (_NO_PRODUCTS, _NO_PLACES) if row.vector is None else next(found)
                yield row, products, places

    def _classes(self, vector: Vectors, products: Vectors, places: Indices, count: int) -> list[_Neighbour]:
        """The most similar picture of each of the most similar classes, which are looked for in ever more pictures."""
        total, wanted = len(self.gallery), min(count, len(self.gallery.classes))
        while len(found := self._best_of_each(products, places)) < wanted and len(places) < total:
            (products,), (places,) = nearest(self.gallery.vectors, vector[None], _FURTHER * len(places))
        return found[:count]

    def _best_of_each(self, products: Vectors, places: Indices) -> list[_Neighbour]:
        found: dict[int, _Neighbour] = {}
        labels = self.gallery.labels[places]
        for label, place, product in zip(labels.tolist(), places.tolist(), products.tolist(), strict=True):
            if label != NO_CLASS:
                found.setdefault(label, _Neighbour(place, product))
        return list(found.values())

    def _match(self, source: str, status: Any, found: Sequence[_Neighbour], *, near_tie: bool = False) -> Match:
        return Match(
            source,
            status,
            classes=tuple(self.gallery.class_of(each.place) for each in found),
            similarities=tuple(each.similarity for each in found),
            neighbours=tuple(self.gallery.sources[each.place] for each in found),
            near_tie=near_tie,
            engine=self.embedder.engine_name,
        )


def maker_of(provenance: Provenance, **options: Any) -> Embedder:
    """The model that a gallery was made with; `options` are those of `Embedder`, such as the engine.

    Raises CheckpointError: its file is not there any more.
    """
    if provenance.path and not Path(provenance.path).exists():
        raise CheckpointError(f"{provenance.path}: the gallery was made with it, and it is gone: name the model (-m)")
    tta: Any = provenance.tta or None
    return Embedder(provenance.path or provenance.model, tta=tta, normalize=True, **options)
