"""Attention from every pixel of a map to a smaller one (PVT, arXiv 2102.12122)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from torchclas.layers.attention import merge_heads, split_heads


class ReducedAttention(nn.Module):
    """Queries come from the map itself, keys and values from what `reduce` ([N, C, H, W] → [N, h, w, C]) makes of it.

    Without `reduce` they come from the map itself too.
    """

    def __init__(self, channels: int, heads: int, reduce: nn.Module | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.reduce = reduce
        self.kv = nn.Linear(channels, 2 * channels)
        self.project = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, H, W, C] → the same shape."""
        reduced = x if self.reduce is None else self.reduce(x.permute(0, 3, 1, 2))
        q = split_heads(self.q(x).flatten(1, 2), self.heads)
        k, v = (split_heads(part.flatten(1, 2), self.heads) for part in self.kv(reduced).chunk(2, -1))
        return self.project(merge_heads(F.scaled_dot_product_attention(q, k, v))).reshape(x.shape)
