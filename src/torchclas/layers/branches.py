"""Layers side by side, as the Inception networks have them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchclas.layers.conv import ConvNormAct

# Output channels, kernel, stride (1 where it is left out).
Row = tuple[int, int | tuple[int, int]] | tuple[int, int | tuple[int, int], int]


class Branches(nn.Sequential):
    """Every branch sees the same input; their outputs are concatenated along the channels."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """[N, in, H, W] → [N, sum of the branches' channels, H', W']."""
        return torch.cat([branch(x) for branch in self], 1)


def convs(in_channels: int, *rows: Row) -> nn.Sequential:
    """Convolutions in a row. As in the Inception papers, those with a stride are not padded."""
    layers = nn.Sequential()
    for out_channels, kernel_size, *strides in rows:
        padding = 0 if strides else None
        layers.append(ConvNormAct(in_channels, out_channels, kernel_size, *strides, padding=padding))
        in_channels = out_channels
    return layers
