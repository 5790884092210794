"""Multi-head self-attention (arXiv 1706.03762)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Every token looks at every other; `scale` multiplies the logits (one over the square root of a head's width)."""

    def __init__(self, channels: int, heads: int, *, qkv_bias: bool = True, scale: float | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.scale = scale
        self.qkv = nn.Linear(channels, 3 * channels, bias=qkv_bias)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens [N, L, C] → the same shape."""
        q, k, v = (split_heads(part, self.heads) for part in self.qkv(x).chunk(3, -1))
        return self.project(merge_heads(F.scaled_dot_product_attention(q, k, v, scale=self.scale)))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[…, L, C] → [… , heads, L, C / heads]."""
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def merge_heads(x: Tensor) -> Tensor:
    """[…, heads, L, width] → […, L, heads · width]."""
    return x.transpose(-3, -2).flatten(-2)
