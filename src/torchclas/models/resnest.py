"""ResNeSt: Zhang et al., "ResNeSt: Split-Attention Networks", arXiv 2004.08955.

`fast` averages before the 3×3 convolution of a block that shrinks the map, not after it; `1s1x64d` stands for one
split, one group and 64 channels in the first stage. Departures of the published graphs from the paper's code: the
attention's two layers have no biases; there is no DropBlock.
"""

from __future__ import annotations

from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn

from torchclas.layers.conv import ConvNormAct
from torchclas.layers.initialisation import Initialisation, uniform
from torchclas.layers.network import Network, Renames, Variants, pyramid
from torchclas.layers.residual import projection
from torchclas.layers.resnet import bottleneck, residual_stages, resnet_rows, resnet_stem

# Blocks per stage, channels of the first one: ResNet-50's (arXiv 1512.03385, table 1).
DEPTHS, CHANNELS = (3, 4, 6, 3), 256
ATTENTION_REDUCTION, ATTENTION_WIDTH = 4, 32


class SplitAttention(nn.Module):
    """3×3 convolution to `splits` maps, summed with weights per channel that depend on the mean of them all.

    The weights of the splits are a softmax; a single split has a sigmoid gate.
    """

    def __init__(self, channels: int, splits: int) -> None:
        super().__init__()
        self.splits = splits
        hidden = max(channels * splits // ATTENTION_REDUCTION, ATTENTION_WIDTH)
        self.split = ConvNormAct(channels, channels * splits, 3, groups=splits)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = ConvNormAct(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels * splits, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → the same shape."""
        maps = self.split(x).unflatten(1, (self.splits, -1))  # [N, splits, C, H, W]
        weights = self.expand(self.reduce(self.pool(maps.sum(1))))
        weights = weights.unflatten(1, (self.splits, -1))  # [N, splits, C, 1, 1]
        weights = weights.softmax(1) if self.splits > 1 else torch.sigmoid(weights)
        return (maps * weights).sum(1)


class ResNeSt(Network):
    """ResNet-D with split attention for the 3×3 convolutions; maps shrink by averaging 3×3 pixels."""

    initial = Initialisation(classifier=uniform)

    def __init__(
        self, *, splits: int = 2, average_first: bool = False, num_classes: int = 1000, in_channels: int = 3
    ) -> None:
        rows = resnet_rows(DEPTHS, CHANNELS)

        def branch(channels: int, out_channels: int, stride: int) -> nn.Module:
            width = out_channels // 4
            pool = nn.AvgPool2d(3, stride, padding=1, count_include_pad=False) if stride > 1 else nn.Identity()
            parts = [("attention", SplitAttention(width, splits)), ("pool", pool)]
            middle = nn.Sequential(OrderedDict(reversed(parts) if average_first else parts))
            return nn.Sequential(*bottleneck(channels, width, out_channels, middle=middle))

        super().__init__(
            stem=resnet_stem(in_channels, (32, 32, 64)),
            stages=residual_stages(64, rows, branch, shortcut=partial(projection, pooled=True)),
            scales=pyramid(4, [row.channels for row in rows]),
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "ResNeSt50_fast_1s1x64d": (ResNeSt, dict(splits=1, average_first=True)),
    "ResNeSt50": (ResNeSt, dict()),
}

RENAMES: Renames = {
    "current": (
        ("shortcut.1.conv", "conv4"),
        ("shortcut.1.bn", "_batch_norm"),
        ("conv", "_conv"),
        ("bn", "_batch_norm"),
        ("branch.1.attention.split", "conv2.conv1"),
        ("branch.1.attention.reduce", "conv2.conv2"),
        ("branch.1.attention.expand", "conv2.conv3"),
        ("branch.{i}", "conv{i+1}"),
        ("stages.{s}.{b}", "layer{s+1}.layer{s+1}_bottleneck_{b}"),
        ("stem.{i}", "stem.conv{i+1}"),
        ("classifier", "out"),
    ),
    "timm": (
        ("stem.0.conv", "conv1.0"),
        ("stem.0.bn", "conv1.1"),
        ("stem.1.conv", "conv1.3"),
        ("stem.1.bn", "conv1.4"),
        ("stem.2.conv", "conv1.6"),
        ("stem.2.bn", "bn1"),
        ("branch.1.attention.split.conv", "conv2.conv"),
        ("branch.1.attention.split.bn", "conv2.bn0"),
        ("branch.1.attention.reduce.conv", "conv2.fc1"),
        ("branch.1.attention.reduce.bn", "conv2.bn1"),
        ("branch.1.attention.expand", "conv2.fc2"),
        ("branch.{i}.conv", "conv{i+1}"),
        ("branch.{i}.bn", "bn{i+1}"),
        ("shortcut.1.conv", "downsample.1"),
        ("shortcut.1.bn", "downsample.2"),
        ("stages.{s}.{b}", "layer{s+1}.{b}"),
        ("classifier", "fc"),
    ),
}
