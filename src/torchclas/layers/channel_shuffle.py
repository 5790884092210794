"""Channel shuffle (arXiv 1707.01083)."""

from __future__ import annotations

import torch
from torch import Tensor


def interleave(a: Tensor, b: Tensor) -> Tensor:
    """Two maps [N, C, H, W] → [N, 2C, H, W] whose channels come from either in turn."""
    return torch.stack((a, b), 2).flatten(1, 2)
