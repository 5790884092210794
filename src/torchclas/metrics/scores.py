"""From logits to scores."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from torchclas.vocabulary import Activation

DEFAULT_THRESHOLD = 0.5  # that a score reaches where a model gives its classes none


def probabilities(logits: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """What logits [N, classes] say of each class, in 0..1; NaN where they are not finite."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinity - infinity is NaN, which predictions report
        if activation == "sigmoid":
            return np.where(logits >= 0, 1 / (1 + np.exp(-logits)), np.exp(logits) / (1 + np.exp(logits)))
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
