"""From images to tokens and back to maps."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class PatchEmbedding(nn.Module):
    """A linear layer over square patches of `size` pixels that do not overlap; `norm` adds a layer norm."""

    def __init__(self, in_channels: int, out_channels: int, size: int, *, norm: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, size, size)
        self.norm = nn.LayerNorm(out_channels) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, H / size, W / size, out]."""
        return self.norm(self.conv(x).permute(0, 2, 3, 1))


class ChannelsFirst(nn.Module):
    """[N, H, W, C] → [N, C, H, W]."""

    def forward(self, x: Tensor) -> Tensor:
        """A view in the channels_last memory format."""
        return x.permute(0, 3, 1, 2)


class LeadingTokens(nn.Module):
    """The mean of the first `count` tokens, which belong to no patch."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        """[N, L, C] → [N, C]."""
        return x[:, : self.count].mean(1)


def to_windows(x: Tensor, size: int) -> Tensor:
    """[N, H, W, C] → [N, windows, size², C], windows of `size` × `size` row by row."""
    tiles = x.unflatten(2, (-1, size))  # [N, H, windows across, size, C]
    tiles = tiles.unflatten(1, (-1, size))  # [N, windows down, size, windows across, size, C]
    tiles = tiles.transpose(2, 3)  # [N, windows down, windows across, size, size, C]
    return tiles.flatten(3, 4).flatten(1, 2)


def from_windows(windows: Tensor, size: int, height: int) -> Tensor:
    """What `to_windows` made of a map of this `height`, back to [N, H, W, C]."""
    tiles = windows.unflatten(2, (size, size))  # [N, windows, size, size, C]
    tiles = tiles.unflatten(1, (height // size, -1))  # [N, windows down, windows across, size, size, C]
    tiles = tiles.transpose(2, 3)  # [N, windows down, size, windows across, size, C]
    return tiles.flatten(3, 4).flatten(1, 2)


def resize_grid(values: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """One vector per place of a grid of `old` rows and columns, [L, C], interpolated bicubically to `new` ones."""
    grid = values.detach().float().T.unflatten(1, old)[None]  # [1, C, rows, columns]
    resized = F.interpolate(grid, new, mode="bicubic", antialias=True)  # [1, C, new rows, new columns]
    return resized[0].flatten(1).T.to(values.dtype).contiguous()


def resize_position_embedding(
    embedding: Tensor, old: tuple[int, int], new: tuple[int, int], *, prefix: int = 0
) -> nn.Parameter:
    """The embedding [1, prefix + L, C] of `old` rows and columns of patches for `new` ones.

    The first `prefix` tokens belong to no patch and stay.
    """
    patches = resize_grid(embedding[0, prefix:], old, new)
    return nn.Parameter(torch.cat((embedding.detach()[0, :prefix], patches))[None])
