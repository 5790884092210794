"""Figures of merit of a ranking: recall at k, mean average precision, and the vote of the k nearest."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from torchclas.metrics.single_label import Proportion

RECALL_AT = (1, 5, 10)
VOTERS = (1, 5, 20)  # neighbours that vote


class RetrievalTally:
    """Counts over queries, of each of which all pictures are ranked.

    `recall` is the share of queries with one of their class or more among the first k; `mean_average_precision` the
    mean over queries of the precision at the place of each picture of their class; `accuracy` the share of queries
    whose class most of the k nearest have (of several such classes, that of the nearest picture). Queries of a class
    that no picture has count for the accuracy alone.
    """

    def __init__(self) -> None:
        self.queries = 0
        self.answerable = 0
        self._hits = dict.fromkeys(RECALL_AT, 0)
        self._right = dict.fromkeys(VOTERS, 0)
        self._precision = 0.0

    def add(self, ranked: NDArray[np.int64], label: int) -> None:
        """Count a query of class `label`, for which pictures have these classes, the nearest first."""
        same = ranked == label
        self.queries += 1
        for k in VOTERS:
            self._right[k] += vote(ranked[:k]) == label
        places = np.flatnonzero(same)
        if len(places):
            self.answerable += 1
            for k in RECALL_AT:
                self._hits[k] += bool(places[0] < k)
            self._precision += float((np.arange(1, len(places) + 1) / (places + 1)).mean())

    @property
    def recall(self) -> dict[int, Proportion]:
        """Recall at each k."""
        return {k: Proportion(hits, self.answerable) for k, hits in self._hits.items()}

    @property
    def accuracy(self) -> dict[int, Proportion]:
        """Accuracy of the vote of each number of neighbours."""
        return {k: Proportion(right, self.queries) for k, right in self._right.items()}

    @property
    def mean_average_precision(self) -> float:
        """In 0..1; NaN where no query has a picture of its class."""
        return self._precision / self.answerable if self.answerable else math.nan


def vote(ranked: NDArray[np.int64]) -> int:
    """The class that most have; of several such classes, that of the first. -1 of none."""
    if not len(ranked):
        return -1
    classes, first, counts = np.unique(ranked, return_index=True, return_counts=True)
    best = counts == counts.max()
    return int(classes[best][np.argmin(first[best])])
