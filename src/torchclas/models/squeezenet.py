"""SqueezeNet: Iandola et al., "AlexNet-level accuracy with 50x fewer parameters", arXiv 1602.07360.

Departures of the published graphs from the paper: in evaluation the dropout scales the features by 0.5.
`SqueezeNet1_1` is the authors' later version with a smaller stem and earlier poolings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchclas.layers.conv import relu
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.initialisation import initialise
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid

# Table 1, fire2 to fire9: channels that squeeze; each of the two expansions has four times as many.
SQUEEZE = (16, 16, 32, 32, 48, 48, 64, 64)


class Fire(nn.Module):
    """1×1 convolution that squeezes, then 1×1 and 3×3 convolutions side by side; `pool` halves the map first."""

    def __init__(self, in_channels: int, squeeze: int, expand: int, *, pool: bool) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(3, 2) if pool else nn.Identity()
        self.squeeze = nn.Conv2d(in_channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)
        self.act = relu()

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, 2 · expand, H, W], or half of H and W."""
        x = self.act(self.squeeze(self.pool(x)))
        return self.act(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


class SqueezeNet(Network):
    """Fire modules between max poolings; logits are pooled last.

    `stem` is the first convolution's channels; `depths` counts the modules between poolings.
    """

    def __init__(
        self,
        *,
        stem: int,
        kernel_size: int,
        padding: int,
        depths: tuple[int, ...],
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        channels = stem
        squeezes = iter(SQUEEZE)
        stages: list[Stage] = []
        widths: list[int] = []
        for i, depth in enumerate(depths):
            blocks: list[nn.Module] = []
            for j in range(depth):
                squeeze = next(squeezes)
                blocks.append(Fire(channels, squeeze, 4 * squeeze, pool=i > 0 and j == 0))
                channels = 8 * squeeze
            stages.append(Stage(*blocks))
            widths.append(channels)
        super().__init__(
            stem=nn.Sequential(
                nn.Conv2d(in_channels, stem, kernel_size, stride=2, padding=padding),
                relu(),
                nn.MaxPool2d(3, 2),
            ),
            stages=stages,
            scales=pyramid(4, widths),
            head=DownscalingDropout(0.5),
            num_classes=num_classes,
        )
        self.min_size = 29 if padding else 35

    def make_classifier(self, num_classes: int) -> nn.Module:
        """1×1 convolution and ReLU: a map of logits."""
        self.num_classes = num_classes
        if num_classes == 0:
            return nn.Identity()
        conv = nn.Conv2d(self.num_features, num_classes, 1)
        initialise(conv, self.initial.conv)
        return nn.Sequential(conv, relu())

    def head_outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Last map → logits [N, num_classes], and the vector [N, num_features] of the map's means."""
        x = self.head(x)
        return self.classifier(x).mean((2, 3)), x.mean((2, 3))


VARIANTS: Variants = {
    "SqueezeNet1_0": (SqueezeNet, dict(stem=96, kernel_size=7, padding=0, depths=(3, 4, 1))),
    "SqueezeNet1_1": (SqueezeNet, dict(stem=64, kernel_size=3, padding=1, depths=(2, 2, 4))),
}

RENAMES: Renames = {
    "current": (
        ("squeeze", "_conv._conv"),
        ("expand1x1", "_conv_path1._conv"),
        ("expand3x3", "_conv_path2._conv"),
        ("stem.0", "_conv"),
        ("stages.{s}.{b}", "_conv{n+1}"),
        ("classifier.0", "_conv9"),
    ),
}
