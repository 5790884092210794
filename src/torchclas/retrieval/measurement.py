"""How good the vectors of a model are on labelled images that it need not know the classes of, without training."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.data.datasets import LabelledImages, entries
from torchclas.errors import DataError
from torchclas.inference.embedder import Embedder
from torchclas.metrics.retrieval import RetrievalTally
from torchclas.metrics.single_label import Proportion
from torchclas.retrieval.exact import Vectors
from torchclas.version import __version__

_AT_ONCE = 2**24  # products: 64 MiB


@dataclass(frozen=True)
class Row:
    """An image that was asked for: its class, the most similar other image, that one's class, and their cosine."""

    source: str
    label: str
    neighbour: str
    neighbour_label: str
    similarity: float


@dataclass(frozen=True)
class RetrievalReport:
    """What was measured, on what; `recall` and `accuracy` by the number of neighbours.

    `queries` images were asked for among `pictures` others; `leave_one_out` says that they are the same images, each of
    which was looked for among the rest. `alone` queries have no other of their class, which counts against the accuracy
    and not for the rest. `unreadable` lists what could not be read.
    """

    data: str
    against: str
    model: str
    engine: str
    classes: int
    queries: int
    pictures: int
    leave_one_out: bool
    alone: int
    recall: dict[int, Proportion]
    mean_average_precision: float
    accuracy: dict[int, Proportion]
    unreadable: tuple[tuple[str, str], ...]
    seconds: float
    notes: tuple[str, ...]
    written: tuple[Path, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        return {
            "torchclas": __version__,
            "data": self.data,
            "against": self.against,
            "model": self.model,
            "engine": self.engine,
            "classes": self.classes,
            "queries": self.queries,
            "pictures": self.pictures,
            "leave_one_out": self.leave_one_out,
            "alone": self.alone,
            **{f"recall@{k}": share.as_dict() for k, share in self.recall.items()},
            "mean_average_precision": None if math.isnan(mean := self.mean_average_precision) else mean,
            **{f"knn{k}_accuracy": share.as_dict() for k, share in self.accuracy.items()},
            "unreadable": len(self.unreadable),
            "seconds": self.seconds,
            "notes": list(self.notes),
        }


@dataclass(frozen=True, eq=False)
class _Side:
    vectors: Vectors
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    unreadable: tuple[tuple[str, str], ...]


def measure_retrieval(
    embedder: Embedder,
    queries: LabelledImages,
    against: LabelledImages | None,
    classes: Sequence[str],
    data: str,
    *,
    against_name: str = "",
    notes: Sequence[str] = (),
    add_row: Callable[[Row], object] = lambda row: None,
    advance: Callable[[int], object] = lambda images: None,
) -> RetrievalReport:
    """Rank, for each query, all other images by the cosine of their vectors.

    The labels of both index `classes`. Without `against` each query is looked for among the other queries. Memory: the
    vectors of all images. `add_row` is told the nearest of each query, `advance` how many images have their vectors.

    Raises DataError: no image can be read.
    """
    start = time.perf_counter()
    asked = _embed(embedder, queries, data, advance)
    there = asked if against is None else _embed(embedder, against, against_name, advance)
    tally = RetrievalTally()
    rows = max(1, _AT_ONCE // max(1, len(there.names)))
    for first in range(0, len(asked.names), rows):
        products = asked.vectors[first : first + rows] @ there.vectors.T
        for place, line in enumerate(products, first):
            if against is None:
                line[place] = -np.inf
            order = np.argsort(-line, kind="stable")
            order = order[:-1] if against is None else order
            label = int(asked.labels[place])
            tally.add(there.labels[order], label)
            if len(order):
                nearest, other = int(order[0]), classes[int(there.labels[order[0]])]
                own = classes[label]
                add_row(Row(asked.names[place], own, there.names[nearest], other, float(line[nearest])))
    unreadable = asked.unreadable if against is None else (*asked.unreadable, *there.unreadable)
    return RetrievalReport(
        data=data,
        against=against_name,
        model=embedder.spec.name,
        engine=embedder.engine_name,
        classes=len(np.unique(asked.labels)),
        queries=len(asked.names),
        pictures=len(there.names),
        leave_one_out=against is None,
        alone=tally.queries - tally.answerable,
        recall=tally.recall,
        mean_average_precision=tally.mean_average_precision,
        accuracy=tally.accuracy,
        unreadable=unreadable,
        seconds=time.perf_counter() - start,
        notes=tuple(notes),
    )


def _embed(embedder: Embedder, images: LabelledImages, name: str, advance: Callable[[int], object]) -> _Side:
    vectors, labels, names = list[Vectors](), list[int](), list[str]()
    unreadable, own = list[tuple[str, str]](), iter(images.labels.tolist())
    for batch in embedder.batches(entries(images)):
        for row in embedder.rows(batch):
            label = next(own)
            if row.vector is None:
                unreadable.append((row.source, row.error or ""))
            else:
                vectors.append(row.vector)
                labels.append(label)
                names.append(row.source)
        advance(len(batch.sources))
    if not vectors:
        source, error = unreadable[0]
        raise DataError(f"{name}: none of its {len(unreadable):,} images can be read; the first is {source}: {error}")
    return _Side(np.stack(vectors), np.array(labels, np.int64), tuple(names), tuple(unreadable))
