"""The block of the vision transformers (arXiv 2010.11929)."""

from __future__ import annotations

from torch import Tensor, nn

from torchclas.layers.drop_path import DropPath
from torchclas.layers.mlp import MLP

# What the published files call the parts of a block.
BLOCK_RENAMES = (("attention", "attn"), ("mlp.expand", "mlp.fc1"), ("mlp.project", "mlp.fc2"), ("project", "proj"))


class TransformerBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)).

    `attention` sets the shape: tokens [N, L, C] or, where it needs to know neighbours, maps [N, H, W, C].
    `drop_path` is the probability with which training leaves either branch out.
    """

    def __init__(
        self, attention: nn.Module, channels: int, hidden: int, *, drop_path: float = 0.0, eps: float = 1e-6
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.attention = attention
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        self.mlp = MLP(channels, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[N, …, C] → the same shape."""
        x = x + self.drop_path(self.attention(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Stochastic depth per block, growing linearly from 0 to `rate` (arXiv 1603.09382)."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
