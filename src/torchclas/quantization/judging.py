"""How close a quantized network comes to the float one, on images that are kept for that."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchclas.errors import CheckpointError
from torchclas.metrics.multi_label import mean_average_precision
from torchclas.metrics.scores import DEFAULT_THRESHOLD, probabilities
from torchclas.spec import ModelSpec

Logits = NDArray[np.float32]  # [N, classes]
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Figures:
    """How a network does on the checking images: `agreement` with fp32 and `top1` (where there are labels), percent.

    Where an image has any number of classes, agreement is over all pairs of an image and a class, at the thresholds,
    and `mean_average_precision` takes the place of `top1`.

    `cosine` is the mean similarity of an image's logits to those of fp32; `psnr_db` is over the logits of all images,
    None where they are the same.
    """

    agreement: float
    top1: float | None
    cosine: float
    psnr_db: float | None
    mean_average_precision: float | None = None

    @property
    def accuracy(self) -> float | None:
        """What the network is judged by where there are labels, percent."""
        return self.top1 if self.mean_average_precision is None else self.mean_average_precision


class Judge:
    """Compares logits with the float network's for the same images, and with labels where there are any."""

    def __init__(self, reference: Logits, labels: NDArray[np.int64] | None) -> None:
        if not np.isfinite(reference).all():
            raise CheckpointError(
                "the float network computes NaN or infinity for some images: are its weights damaged?"
            )
        self.reference = reference
        self.labels = labels

    def drop(self, logits: Logits) -> float:
        """Percentage points of accuracy lost, or of classes that changed."""
        figures = self.figures(logits)
        if figures.accuracy is None:
            return 100 - figures.agreement
        before = self.figures(self.reference).accuracy
        assert before is not None
        return before - figures.accuracy

    def figures(self, logits: Logits) -> Figures:
        """All that is reported of a network."""
        lengths = np.maximum(np.linalg.norm(logits, axis=1) * np.linalg.norm(self.reference, axis=1), SMALLEST)
        error = float(np.square(logits - self.reference).mean())
        peak = float(np.abs(self.reference).max())
        return Figures(
            agreement=_share(self._answers(logits) == self._answers(self.reference)),
            top1=None if self.labels is None else self._accuracy(logits, self.labels),
            cosine=float(((logits * self.reference).sum(1) / lengths).mean()),
            psnr_db=10 * math.log10(peak**2 / error) if error else None,
        )

    def _answers(self, logits: Logits) -> NDArray[Any]:
        return logits.argmax(1)

    def _accuracy(self, logits: Logits, labels: NDArray[np.int64]) -> float:
        return _share(self._answers(logits) == labels)


class MultiLabelJudge(Judge):
    """The same where an image has any number of classes."""

    def __init__(self, reference: Logits, labels: NDArray[np.int64] | None, spec: ModelSpec) -> None:
        super().__init__(reference, labels)
        self.thresholds = np.array(spec.thresholds or [DEFAULT_THRESHOLD] * spec.num_classes, np.float32)

    def figures(self, logits: Logits) -> Figures:
        """All that is reported of a network."""
        figures = super().figures(logits)
        return replace(figures, top1=None, mean_average_precision=figures.top1)

    def _answers(self, logits: Logits) -> NDArray[Any]:
        return probabilities(logits, "sigmoid") >= self.thresholds

    def _accuracy(self, logits: Logits, labels: NDArray[np.int64]) -> float:
        return 100 * mean_average_precision(logits, labels)


def _share(true: NDArray[np.bool_]) -> float:
    return 100 * float(true.mean())
