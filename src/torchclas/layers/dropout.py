"""Dropout as PaddlePaddle means it in some of its networks."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class DownscalingDropout(nn.Module):
    """Dropout that scales by 1 − p in evaluation, where PyTorch's scales by 1 / (1 − p) in training.

    Paddle calls it `downscale_in_infer`; weights trained with it give their published logits only so.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Same shape as `x`."""
        return F.dropout(x, self.p) * (1 - self.p) if self.training else x * (1 - self.p)

    def extra_repr(self) -> str:
        """Shown by print."""
        return f"p={self.p}"
