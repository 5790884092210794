"""DenseNet: Huang et al., "Densely Connected Convolutional Networks", arXiv 1608.06993."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchclas.layers.conv import ConvNormAct, NormActConv, relu
from torchclas.layers.initialisation import Initialisation, uniform
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid

# Section 3: a layer's first convolution has four times the channels that its second one adds.
BOTTLENECK = 4


class DenseLayer(nn.Module):
    """Two convolutions, 1×1 and 3×3, whose output is appended to their input."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            NormActConv(in_channels, BOTTLENECK * growth), NormActConv(BOTTLENECK * growth, growth, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C + growth, H, W]."""
        return torch.cat([x, self.branch(x)], 1)


class DenseNet(Network):
    """Four dense blocks; between them a transition halves the channels and the map.

    `growth` is the number of channels that each of a block's `depths` layers adds.
    """

    initial = Initialisation(classifier=uniform)

    min_size = 29

    def __init__(
        self, *, depths: tuple[int, ...], growth: int = 32, num_classes: int = 1000, in_channels: int = 3
    ) -> None:
        first = channels = 2 * growth
        stages: list[Stage] = []
        widths: list[int] = []
        for i, depth in enumerate(depths):
            layers: list[nn.Module] = []
            if i > 0:
                layers.append(nn.Sequential(NormActConv(channels, channels // 2), nn.AvgPool2d(2)))
                channels //= 2
            for _ in range(depth):
                layers.append(DenseLayer(channels, growth))
                channels += growth
            stages.append(Stage(*layers))
            widths.append(channels)
        super().__init__(
            stem=nn.Sequential(ConvNormAct(in_channels, first, 7, 2), nn.MaxPool2d(3, 2, padding=1)),
            stages=stages,
            scales=pyramid(4, widths),
            neck=nn.Sequential(nn.BatchNorm2d(channels), relu()),
            num_classes=num_classes,
        )


# Table 1.
VARIANTS: Variants = {
    "DenseNet121": (DenseNet, dict(depths=(6, 12, 24, 16))),
    "DenseNet161": (DenseNet, dict(depths=(6, 12, 36, 24), growth=48)),
    "DenseNet169": (DenseNet, dict(depths=(6, 12, 32, 32))),
    "DenseNet201": (DenseNet, dict(depths=(6, 12, 48, 32))),
    "DenseNet264": (DenseNet, dict(depths=(6, 12, 64, 48))),
}

RENAMES: Renames = {
    "current": (
        ("conv", "_conv"),
        ("bn", "_batch_norm"),
        ("branch.{i}", "bn_ac_func{i+1}"),
        ("stem.0", "conv1_func"),
        ("stages.0.{b}", "db_conv_2.conv2_{b+1}"),
        ("stages.{s}.0.0", "tr_conv{s+1}_blk.conv_ac_func"),
        ("stages.{s}.{b}", "db_conv_{s+2}.conv{s+2}_{b}"),
        ("neck.0", "batch_norm"),
        ("classifier", "out"),
    ),
    "timm": (
        ("branch.{i}.bn", "norm{i+1}"),
        ("branch.{i}.conv", "conv{i+1}"),
        ("stem.0.conv", "features.conv0"),
        ("stem.0.bn", "features.norm0"),
        ("stages.0.{b}", "features.denseblock1.denselayer{b+1}"),
        ("stages.{s}.0.0.bn", "features.transition{s}.norm"),
        ("stages.{s}.0.0", "features.transition{s}"),
        ("stages.{s}.{b}", "features.denseblock{s+1}.denselayer{b}"),
        ("neck.0", "features.norm5"),
    ),
}
