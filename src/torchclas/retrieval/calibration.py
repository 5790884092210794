"""From which similarity on a picture belongs to one of the classes of a gallery, found on the gallery itself.

For each picture (or some, evenly spread, of a large gallery) two figures are taken: its similarity to the most similar
other picture of its class, and to the most similar of all other classes. The first is what a picture of a known class
meets; the second is what it would meet if its class were not in the gallery. The threshold is where the share of the
former that reach it, plus the share of the latter that stay below, is the largest. Copies of a picture count as the
picture itself.

The difference of the two figures is the lead of one class over another. Where the wrong class leads, half of the leads
are no longer than their median: a lead up to that length is a near-tie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchclas.retrieval.exact import Vectors

SAMPLED = 1000  # pictures
PRODUCTS = 2 * 10**8  # of pairs of vectors: of a larger gallery fewer pictures are taken
COPY = 1 - 1e-5  # similarity of copies, which engines compute up to rounding
LEAST_LEAD = 1e-4  # what engines differ by
_AT_ONCE = 2**24  # products: 64 MiB


@dataclass(frozen=True)
class Calibration:
    """What was found on a gallery's own pictures; None where it takes more of them.

    `threshold` is the least similarity of a picture of a known class; `kept` the share of the pictures that reach it by
    another of their class; `rejected` the share of those that stay below it where their class is left out. `tie` is how
    far apart the similarities of two classes are at most in a near-tie. `pictures` were looked at.
    """

    threshold: float | None = None
    kept: float | None = None
    rejected: float | None = None
    tie: float = LEAST_LEAD
    pictures: int = 0


def calibrate(vectors: Vectors, labels: NDArray[np.int64]) -> Calibration:
    """Calibrate on vectors of unit length, [N, dimension], with their classes, [N]; those with -1 have none."""
    labelled = np.flatnonzero(labels >= 0)
    count = min(len(labelled), SAMPLED, max(1, PRODUCTS // max(1, len(labels))))
    if count < 2:
        return Calibration()
    by_class = labelled[np.argsort(labels[labelled], kind="stable")]
    chosen = np.sort(by_class[np.linspace(0, len(by_class) - 1, count).round().astype(np.int64)])
    own, others = _similarities(vectors, labels, chosen)
    tie = _tie(own, others)
    known, unknown = own[np.isfinite(own)], others[np.isfinite(others)]
    if not len(known) or not len(unknown):
        return Calibration(tie=tie, pictures=count)
    threshold = _threshold(known, unknown)
    kept, rejected = float((known >= threshold).mean()), float((unknown < threshold).mean())
    return Calibration(threshold, kept, rejected, tie, count)


def _similarities(vectors: Vectors, labels: NDArray[np.int64], chosen: NDArray[np.int64]) -> tuple[Vectors, Vectors]:
    """The largest similarity of each chosen picture to others of its class, and to other classes; -inf for none."""
    queries, classes = vectors[chosen], labels[chosen]
    own, others = np.full(len(chosen), -np.inf, np.float32), np.full(len(chosen), -np.inf, np.float32)
    rows = max(1, _AT_ONCE // len(chosen))
    for start in range(0, len(vectors), rows):
        products = queries @ vectors[start : start + rows].T
        there = labels[start : start + rows]
        same = classes[:, None] == there
        np.maximum(own, np.where(same & (products < COPY), products, -np.inf).max(axis=1), out=own)
        np.maximum(others, np.where(~same & (there >= 0), products, -np.inf).max(axis=1), out=others)
    return own, others


def _threshold(known: Vectors, unknown: Vectors) -> float:
    """In the middle of the gap where most is right; of several the highest."""
    values = np.unique(np.concatenate([known, unknown]))
    # A threshold at values[i] keeps the known from there on, and rejects the unknown before.
    kept = 1 - np.searchsorted(np.sort(known), values, side="left") / len(known)
    rejected = np.searchsorted(np.sort(unknown), values, side="left") / len(unknown)
    right = kept + rejected
    best = int(np.flatnonzero(right >= right.max() - 1e-12)[-1])
    return float((values[best] + values[max(0, best - 1)]) / 2)


def _tie(own: Vectors, others: Vectors) -> float:
    wrong = np.isfinite(own) & (others > own)
    return max(LEAST_LEAD, float(np.median((others - own)[wrong]))) if wrong.any() else LEAST_LEAD
