"""What vectors say against labels and copies: likely wrong labels, and pictures that are nearly the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from torchclas.retrieval.exact import Vectors

ALIKE = 0.9  # cosine of pictures that are nearly the same: mirrored, brighter, a little cropped or turned
SHARE = 0.5  # of the usual lead of a picture's own class: by which another class must lead for its label to be doubted
_AT_ONCE = 2**24  # products: 64 MiB


class Doubt(NamedTuple):
    """A picture whose label is likely wrong: its place, the class that is nearer, and by how much (cosines)."""

    place: int
    label: int
    lead: float


def doubtful_labels(vectors: Vectors, labels: NDArray[np.int64]) -> list[Doubt]:
    """The pictures that are clearly nearer to another class than to their own, the clearest first.

    `vectors` have unit length, [N, dimension]. A picture's similarity to a class is the cosine with the mean of its
    pictures, without the picture itself: each is judged by the others (leave-one-out). A label is doubted where another
    class leads by half of what one's own class usually leads by, the median over the pictures whose class leads. A
    picture that is alone in its class is not judged.
    """
    count = int(labels.max()) + 1 if len(labels) else 0
    sums = np.zeros((count, vectors.shape[1]))
    np.add.at(sums, labels, vectors)
    sizes = np.bincount(labels, minlength=count)
    means = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    leads, others = np.full(len(labels), -np.inf), np.zeros(len(labels), np.int64)
    rows = max(1, _AT_ONCE // max(1, count))
    for start in range(0, len(labels), rows):
        some, own = vectors[start : start + rows], labels[start : start + rows]
        places = np.arange(len(some))
        products = some @ means.T
        rest = sums[own] - some
        length = np.maximum(np.linalg.norm(rest, axis=1), np.finfo(np.float64).tiny)
        self_similarity = (some * rest).sum(axis=1) / length
        products[places, own] = -np.inf
        others[start : start + rows] = products.argmax(axis=1)
        judged = (sizes[own] > 1) & (count > 1)
        leads[start : start + rows] = np.where(judged, products.max(axis=1) - self_similarity, -np.inf)
    right = leads[np.isfinite(leads) & (leads < 0)]
    if not len(right):
        return []
    least = SHARE * float(np.median(-right))
    doubted = np.flatnonzero(leads >= least)
    order = doubted[np.argsort(-leads[doubted], kind="stable")]
    return [Doubt(int(place), int(others[place]), float(leads[place])) for place in order]


def alike(vectors: Vectors) -> Iterator[tuple[int, int]]:
    """The pairs of places whose vectors, of unit length, have a cosine of `ALIKE` or more."""
    rows = max(1, _AT_ONCE // max(1, len(vectors)))
    for start in range(0, len(vectors), rows):
        products = vectors[start : start + rows] @ vectors[start:].T
        for first, second in np.argwhere(np.triu(products >= ALIKE, 1)).tolist():
            yield start + first, start + second
