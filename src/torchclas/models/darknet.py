"""DarkNet-53: Redmon and Farhadi, "YOLOv3: An Incremental Improvement", arXiv 1804.02767.

Departure of the published graph from the paper: ReLU stands for leaky ReLU.
"""

from __future__ import annotations

from torch import nn

from torchclas.layers.conv import ConvNormAct
from torchclas.layers.initialisation import Initialisation, uniform
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid
from torchclas.layers.residual import Residual

# Table 1: channels of each stage, and its residual blocks; a 3×3 convolution of stride 2 comes before them.
CHANNELS = (64, 128, 256, 512, 1024)
DEPTHS = (1, 2, 8, 8, 4)
STEM = 32


class DarkNet53(Network):
    """Residual blocks that halve the channels by 1×1 and restore them by 3×3 convolutions."""

    initial = Initialisation(classifier=uniform)

    def __init__(self, *, num_classes: int = 1000, in_channels: int = 3) -> None:
        stages: list[Stage] = []
        for before, channels, depth in zip((STEM, *CHANNELS), CHANNELS, DEPTHS, strict=False):
            blocks = (
                Residual(
                    nn.Sequential(ConvNormAct(channels, channels // 2, 1), ConvNormAct(channels // 2, channels, 3)),
                    act=None,
                )
                for _ in range(depth)
            )
            stages.append(Stage(ConvNormAct(before, channels, 3, 2), *blocks))
        super().__init__(
            stem=ConvNormAct(in_channels, STEM, 3),
            stages=stages,
            scales=pyramid(2, CHANNELS),
            num_classes=num_classes,
        )


VARIANTS: Variants = {"DarkNet53": (DarkNet53, dict())}

RENAMES: Renames = {
    "current": (
        ("conv", "_conv"),
        ("bn", "_bn"),
        ("branch.{i}", "_conv{i+1}"),
        ("stages.0.0", "_conv2"),
        ("stages.{s}.0", "_downsample_{s-1}"),
        ("stages.{s}.{b}", "_basic_block_{s}{b}"),
        ("stem", "_conv1"),
        ("classifier", "_out"),
    ),
    "timm": (
        ("stem", "stem.conv1"),
        ("stages.{s}.0", "stages.{s}.conv_down"),
        ("stages.{s}.{b}.branch.{i}", "stages.{s}.blocks.{b-1}.conv{i+1}"),
        ("classifier", "head.fc"),
    ),
}
