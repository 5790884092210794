"""The nearest of very many vectors, of which faiss looks at few: groups of them whose means are near.

Vectors are put into groups (inverted lists) round about as many means as the square root of their number, with 8 bits
per number. Of the groups whose means are nearest to a query, all vectors are compared; the best are then compared
exactly, with the gallery's own vectors, so similarities are those of exact search. How many groups are looked at is
found on the gallery itself: the least number with which `AGREEMENT` of the ten nearest others of some of its pictures
are those that exact search finds.

An index is made from a gallery and kept in the cache; files of others are never read.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torchclas.atomic import atomic_path
from torchclas.errors import DataError, MissingDependencyError
from torchclas.retrieval.exact import Indices, Vectors, nearest
from torchclas.weights import cache

log = logging.getLogger(__name__)

LEAST = 100_000  # vectors: exact search of fewer takes one or two tenths of a second
AGREEMENT = 0.99
_PER_MEAN = 50  # vectors that the means are made of
_CANDIDATES = 4  # times as many as are asked for are compared exactly
_FEWEST_CANDIDATES = 100
_SAMPLED = 200  # pictures on which agreement is measured
_ADDED = 16_384  # vectors at once


@dataclass(frozen=True, eq=False)
class FaissIndex:
    """Finds the nearest of a gallery's vectors; `agreement` is the share of the ten nearest that exact search finds."""

    index: Any
    vectors: Vectors
    agreement: float | None = None  # where it was measured just now

    @property
    def looked_at(self) -> float:
        """The share of the groups whose vectors are compared with a query, in 0..1."""
        return self.index.nprobe / self.index.nlist

    def nearest(self, queries: Vectors, count: int) -> tuple[Vectors, Indices]:
        """Return what `torchclas.retrieval.exact.nearest` does, or nearly."""
        count = min(count, len(self.vectors))
        wanted = min(len(self.vectors), max(_FEWEST_CANDIDATES, _CANDIDATES * count))
        _, found = self.index.search(np.ascontiguousarray(queries), wanted)
        products, places = np.empty((len(queries), count), np.float32), np.empty((len(queries), count), np.int64)
        for row, (query, candidates) in enumerate(zip(queries, found, strict=True)):
            candidates = np.sort(candidates[candidates >= 0])
            if len(candidates) < count:  # the groups that were looked at hold fewer
                (products[row],), (places[row],) = nearest(self.vectors, query[None], count)
                continue
            (best,), (order,) = nearest(self.vectors[candidates], query[None], count)
            products[row], places[row] = best, candidates[order]
        return products, places


def index_file(gallery: Path) -> Path:
    """Where the index of a gallery's file is kept, as the file is now."""
    status = gallery.stat()
    facts = str(gallery.resolve()), status.st_size, status.st_mtime_ns
    return cache.data_path(f"{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}.faiss")


def make_index(
    vectors: Vectors, path: Path, *, least: int = LEAST, advance: Callable[[int], object] = lambda done: None
) -> FaissIndex:
    """Make an index of vectors of unit length, [N, dimension], and keep it; `advance` is told how many are in it.

    Raises:
        DataError: there are fewer than `least`, or looking at a quarter of them would not agree with exact search.
        MissingDependencyError: faiss is not installed.
    """
    if len(vectors) < least:
        raise DataError(f"exact search is fast enough for {len(vectors):,} pictures: an index pays from {least:,} on")
    faiss = _faiss()
    groups = max(1, round(len(vectors) ** 0.5))
    dimension = vectors.shape[1]
    kind, metric = faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    means = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFScalarQuantizer(means, dimension, groups, kind, metric)
    index.cp.spherical = True
    some = np.linspace(0, len(vectors) - 1, min(len(vectors), _PER_MEAN * groups)).astype(np.int64)
    index.train(np.ascontiguousarray(vectors[some]))
    for start in range(0, len(vectors), _ADDED):
        block = np.ascontiguousarray(vectors[start : start + _ADDED])
        index.add(block)
        advance(len(block))
    made = _looking_at_enough(index, vectors, groups)
    with cache.writing(), atomic_path(path) as temporary:
        faiss.write_index(index, str(temporary))
    return made


def open_index(vectors: Vectors, path: Path) -> FaissIndex | None:
    """The index of these vectors, mapped from the disk, where one was made and faiss is installed."""
    if not path.is_file():
        return None
    try:
        faiss = _faiss()
        index: Any = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    except (MissingDependencyError, RuntimeError) as error:  # faiss has no other for a file that was cut off
        log.info("%s is not used: %s", path, error)
        return None
    return FaissIndex(index, vectors) if (index.ntotal, index.d) == vectors.shape else None


def _looking_at_enough(index: Any, vectors: Vectors, groups: int) -> FaissIndex:
    asked = np.linspace(0, len(vectors) - 1, min(len(vectors), _SAMPLED)).astype(np.int64)
    queries, count = vectors[asked], min(11, len(vectors))
    _, exact = nearest(vectors, queries, count)
    index.nprobe, agreement = 1, 0.0
    while index.nprobe <= max(1, groups // 4):
        _, found = FaissIndex(index, vectors).nearest(queries, count)
        others = [
            (set(own.tolist()) - {place}, set(theirs.tolist()) - {place})
            for place, own, theirs in zip(asked.tolist(), exact, found, strict=True)
        ]
        agreement = sum(len(own & theirs) for own, theirs in others) / sum(len(own) for own, _ in others)
        if agreement >= AGREEMENT:
            return FaissIndex(index, vectors, agreement)
        index.nprobe *= 2
    raise DataError(
        f"looking at a quarter of the pictures finds {100 * agreement:.0f} % of the nearest only: these vectors form "
        "no groups, so exact search stays"
    )


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise MissingDependencyError("faiss", "'torchclas[faiss]'") from None
    return faiss
