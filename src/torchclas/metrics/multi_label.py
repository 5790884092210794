"""Figures of merit where an image has any number of classes.

`scores` are probabilities [N, classes], `labels` [N, classes] of 0 and 1. What cannot be said is None: the average
precision of a class that no image is of, the precision of one that is never predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from torchclas.metrics.scores import DEFAULT_THRESHOLD

Scores = NDArray[np.floating]
Labels = NDArray[np.integer]

FALSE_POSITIVE_RATE = 1e-3  # at which recall is given, as PaddleClas does for its practical models


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class: images of it, images whose score reaches the threshold, and both; rates in 0..1.

    `recall_at_fpr` is the recall at the lowest threshold that lets at most one in a thousand of the other images pass.
    """

    index: int
    threshold: float
    support: int
    predicted: int
    hits: int
    average_precision: float | None
    specificity: float | None
    recall_at_fpr: float | None

    @property
    def precision(self) -> float | None:
        """Of the images called it, the share that is."""
        return self.hits / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """Of the images that are of it, the share called so."""
        return self.hits / self.support if self.support else None

    @property
    def f1(self) -> float | None:
        """The harmonic mean of precision and recall; None where no image is of it."""
        return 2 * self.hits / (self.support + self.predicted) if self.support else None


@dataclass(frozen=True, slots=True)
class Figures:
    """A model on `images` images; `classes` are all of the model's.

    `exact` is the share of images of which every class is right, `label_accuracy` that of right answers among all of
    all classes; 1 minus it is Hamming's distance. The others are means over the classes for which they
    can be said, and NaN where they can for none.
    """

    images: int
    exact: float
    label_accuracy: float
    classes: tuple[ClassFigures, ...]

    @property
    def mean_average_precision(self) -> float:
        """mAP, which depends on the order of the scores alone."""
        return _mean([row.average_precision for row in self.classes])

    @property
    def mean_f1(self) -> float:
        """Macro F1 at the thresholds."""
        return _mean([row.f1 for row in self.classes])

    @property
    def mean_accuracy(self) -> float:
        """mA: the mean of recall and specificity, which a rare class weighs as much in as a frequent one."""
        pairs = [(row.recall, row.specificity) for row in self.classes]
        return _mean([None if a is None or b is None else (a + b) / 2 for a, b in pairs])


class Collected:
    """Scores and labels of batches, kept until all are there: what is measured depends on the order of all scores."""

    def __init__(self, num_classes: int) -> None:
        self._scores = [np.empty((0, num_classes), np.float32)]
        self._labels = [np.empty((0, num_classes), np.int64)]

    @property
    def images(self) -> int:
        """How many there are so far."""
        return sum(map(len, self._scores))

    def add(self, scores: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
        """Take a batch, [N, classes] both."""
        self._scores.append(scores)
        self._labels.append(labels)

    def recall_at(self, rate: float, index: int) -> float | None:
        """The recall of one class at a false positive rate."""
        scores, labels = np.concatenate(self._scores), np.concatenate(self._labels)
        return recall_at(rate, scores[:, index], labels[:, index] > 0)

    def figures(self, thresholds: Sequence[float] | Scores | None = None) -> Figures:
        """All figures, at thresholds [classes] (default: 0.5)."""
        return figures(np.concatenate(self._scores), np.concatenate(self._labels), thresholds)


def figures(scores: Scores, labels: Labels, thresholds: Sequence[float] | Scores | None = None) -> Figures:
    """All figures, at thresholds [classes] (default: 0.5).

    Raises ValueError: shapes differ, or a score is NaN.
    """
    if scores.ndim != 2 or scores.shape != labels.shape:
        raise ValueError(f"{scores.shape} scores for {labels.shape} labels")
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    given = [DEFAULT_THRESHOLD] * scores.shape[1] if thresholds is None else thresholds
    limits = np.asarray(given, scores.dtype)  # rounded as the scores are, or one on the edge falls to the wrong side
    predicted = scores >= limits
    rows = tuple(
        _class(index, float(limits[index]), scores[:, index], labels[:, index] > 0, predicted[:, index])
        for index in range(scores.shape[1])
    )
    right = predicted == (labels > 0)
    exact, label_accuracy = (float(each.mean()) if each.size else math.nan for each in (right.all(1), right))
    return Figures(len(scores), exact, label_accuracy, rows)


def average_precision(scores: Scores, positive: NDArray[np.bool_]) -> float | None:
    """The mean over the positive images of the precision where each is found; images of equal score are found together.

    `scores` and `positive` are [N]. None where no image is positive.
    """
    if not (total := int(positive.sum())):
        return None
    hits, found = _curve(scores, positive)
    gained = np.diff(hits, prepend=0)
    return float((gained * (hits / found)).sum() / total)


def mean_average_precision(scores: Scores, labels: Labels) -> float:
    """mAP over the classes that images are of; NaN where there is none."""
    return _mean([average_precision(scores[:, k], labels[:, k] > 0) for k in range(scores.shape[1])])


def best_thresholds(scores: Scores, labels: Labels) -> tuple[float, ...]:
    """The threshold of each class at which its F1 is highest, halfway to the next score below; 0.5 if none is of it."""
    return tuple(_best_threshold(scores[:, k], labels[:, k] > 0) for k in range(scores.shape[1]))


def _best_threshold(scores: Scores, positive: NDArray[np.bool_]) -> float:
    if not (total := int(positive.sum())):
        return DEFAULT_THRESHOLD
    hits, found = _curve(scores, positive)
    best = int(np.argmax(2 * hits / (found + total)))
    values = np.unique(scores)[::-1]
    below = values[best + 1] if best + 1 < len(values) else 0.0
    return float((float(values[best]) + float(below)) / 2)


def _class(
    index: int, threshold: float, scores: Scores, positive: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> ClassFigures:
    negatives = int((~positive).sum())
    hits = int((positive & predicted).sum())
    wrong = int(predicted.sum()) - hits
    return ClassFigures(
        index,
        threshold,
        support=int(positive.sum()),
        predicted=int(predicted.sum()),
        hits=hits,
        average_precision=average_precision(scores, positive),
        specificity=1 - wrong / negatives if negatives else None,
        recall_at_fpr=recall_at(FALSE_POSITIVE_RATE, scores, positive),
    )


def recall_at(rate: float, scores: Scores, positive: NDArray[np.bool_]) -> float | None:
    """The recall at the lowest threshold that at most this share of the other images pass; `scores` are [N].

    None where no image is positive, or all are.
    """
    total, negatives = int(positive.sum()), int((~positive).sum())
    if not total or not negatives:
        return None
    hits, found = _curve(scores, positive)
    allowed = hits[(found - hits) <= rate * negatives]
    return float(allowed.max() / total) if len(allowed) else 0.0


def _curve(scores: Scores, positive: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For every value among the scores, from the highest down: positive images that reach it, and all that do."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.flatnonzero(np.append(np.diff(ordered) != 0, True))
    return np.cumsum(positive[order].astype(np.int64))[last], (last + 1).astype(np.int64)


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else math.nan
