"""Figures of merit of a classifier, counted batch by batch in memory that does not grow with the number of images."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

TOP_K = 5
BINS = 15  # Guo et al., "On Calibration of Modern Neural Networks", https://arxiv.org/abs/1706.04599
Z_95 = 1.959963984540054  # the normal distribution's two-sided 95 % quantile

_EDGES = np.linspace(0, 1, BINS + 1)
_SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Proportion:
    """So many of `total`; both are 0 where nothing was counted."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """In 0..1; NaN for none of none."""
        return self.count / self.total if self.total else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % confidence interval, which unlike ±1.96 σ stays within 0..1 and holds for few images."""
        if not self.total:
            return 0.0, 1.0
        n, p, z = self.total, self.value, Z_95
        centre = (p + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        # rounding may leave the exact bounds 0 and 1 by a hair, and with them the proportion itself
        return max(0.0, min(centre - half, p)), min(1.0, max(centre + half, p))

    def as_dict(self) -> dict[str, object]:
        """Plain values that JSON can hold."""
        return {"value": self.value, "interval_95": list(self.interval), **asdict(self)}


@dataclass(frozen=True, slots=True)
class ConfidenceBin:
    """Images whose top score lies in (low, high]: their mean score, and how often the top class was right."""

    low: float
    high: float
    images: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class ClassCounts:
    """One class: images that are of it, images called it, both, and the class its images were mistaken for most often.

    Precision and recall are None where nothing was called it, or nothing is of it.
    """

    index: int
    support: int
    predicted: int
    hits: int
    confused_with: int | None
    confused: int

    @property
    def precision(self) -> float | None:
        """Of the images called it, the share that is."""
        return self.hits / self.predicted if self.predicted else None

    @property
    def recall(self) -> float | None:
        """Of the images that are of it, the share called so."""
        return self.hits / self.support if self.support else None


class Tally:
    """Counts over the images seen so far; the order and the sizes of the batches do not matter.

    `confusion` maps (true class, predicted class) to the number of images; of 22,000² pairs few ever occur.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.images = 0
        self.confusion: Counter[tuple[int, int]] = Counter()
        self._in_top_k = 0
        self._log_loss = 0.0
        self._bin_images = np.zeros(BINS, np.int64)
        self._bin_hits = np.zeros(BINS, np.int64)
        self._bin_confidence = np.zeros(BINS)

    def add(self, probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> None:
        """Count a batch: [N, num_classes], each row summing to 1, and the [N] true classes."""
        if probabilities.shape != (len(labels), self.num_classes):
            raise ValueError(f"{probabilities.shape} probabilities for {len(labels)} × {self.num_classes}")
        predicted = probabilities.argmax(1)
        of_label = probabilities[np.arange(len(labels)), labels]
        self.images += len(labels)
        self.confusion.update(zip(labels.tolist(), predicted.tolist(), strict=True))
        self._in_top_k += int((_rank(probabilities, labels, of_label) < TOP_K).sum())
        self._log_loss -= float(np.log(np.maximum(of_label, _SMALLEST), dtype=np.float64).sum())

        confidence = probabilities.max(1, initial=0).astype(np.float64)
        bins = np.clip(np.searchsorted(_EDGES, confidence) - 1, 0, BINS - 1)
        self._bin_images += np.bincount(bins, minlength=BINS)
        self._bin_hits += np.bincount(bins[predicted == labels], minlength=BINS)
        self._bin_confidence += np.bincount(bins, confidence, minlength=BINS)

    @property
    def top1(self) -> Proportion:
        """Images whose likeliest class is theirs; of equally likely classes the first counts."""
        return Proportion(sum(n for (label, predicted), n in self.confusion.items() if label == predicted), self.images)

    @property
    def top5(self) -> Proportion | None:
        """Images whose class is among the five likeliest; None for five classes or fewer, where it means nothing."""
        return Proportion(self._in_top_k, self.images) if self.num_classes > TOP_K else None

    @property
    def nll(self) -> float:
        """Mean negative log-likelihood in nats; a probability of 0 counts as float32's smallest, 87 nats."""
        return self._log_loss / self.images if self.images else math.nan

    @property
    def ece(self) -> float:
        """Expected calibration error in 0..1: how far the bins' confidence and accuracy are apart, by their images."""
        if not self.images:
            return math.nan
        return float(np.abs(self._bin_confidence - self._bin_hits).sum()) / self.images

    @property
    def calibration(self) -> tuple[ConfidenceBin, ...]:
        """The reliability diagram."""
        return tuple(
            ConfidenceBin(low, high, images, confidence / images if images else None, hits / images if images else None)
            for low, high, images, confidence, hits in zip(
                _EDGES[:-1].tolist(),
                _EDGES[1:].tolist(),
                self._bin_images.tolist(),
                self._bin_confidence.tolist(),
                self._bin_hits.tolist(),
                strict=True,
            )
        )

    def classes(self) -> tuple[ClassCounts, ...]:
        """The classes that occur, as label or as prediction, by index."""
        support: Counter[int] = Counter()
        predicted: Counter[int] = Counter()
        confused: dict[int, tuple[int, int]] = {}  # label → images, class they were mistaken for
        for (label, prediction), images in sorted(self.confusion.items()):
            support[label] += images
            predicted[prediction] += images
            if label != prediction and images > confused.get(label, (0, 0))[0]:
                confused[label] = images, prediction
        return tuple(
            ClassCounts(
                index,
                support[index],
                predicted[index],
                self.confusion[index, index],
                confused_with=confused[index][1] if index in confused else None,
                confused=confused[index][0] if index in confused else 0,
            )
            for index in sorted(support | predicted)
        )


def _rank(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], of_label: npt.NDArray[np.float32]
) -> npt.NDArray[np.int64]:
    """How many classes come before the label's: likelier ones, and equally likely ones of a lower index."""
    earlier = np.arange(probabilities.shape[1]) < labels[:, None]
    likelier, as_likely = probabilities > of_label[:, None], probabilities == of_label[:, None]
    return (likelier | (as_likely & earlier)).sum(1)
