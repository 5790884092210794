"""DarkNet-53: Redmon and Farhadi, "YOLOv3: An Incremental Improvement", arXiv 1804.02767.

Departure of the published graph from the paper: ReLU stands for leaky ReLU.
"""

from __future__ import annotations

from torch import nn

from torchclas.layers.conv import ConvNormAct, global_pool
from torchclas.layers.initialisation import Initialisation, uniform
from torchclas.layers.network import FeatureInfo, Network, Renames, Stage, Variants
from torchclas.layers.residual import Residual

# Table 1: output channels and residual blocks of each stage; a 3×3 convolution of stride 2 comes before them.
STAGES = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))


class DarkNet53(Network):
    """Residual blocks that halve the channels by 1×1 and restore them by 3×3 convolutions."""

    initial = Initialisation(classifier=uniform)

    def __init__(self, *, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        channels = 32
        self.stem = ConvNormAct(in_channels, channels, 3)
        stages: list[Stage] = []
        for out_channels, depth in STAGES:
            blocks: list[nn.Module] = [ConvNormAct(channels, out_channels, 3, 2)]
            channels = out_channels
            for _ in range(depth):
                branch = nn.Sequential(ConvNormAct(channels, channels // 2, 1), ConvNormAct(channels // 2, channels, 3))
                blocks.append(Residual(branch, act=None))
            stages.append(Stage(*blocks))
        self.stages = nn.Sequential(*stages)
        self.neck = nn.Identity()
        self.head = global_pool()
        self.feature_info = tuple(FeatureInfo(i, 2 << i, out) for i, (out, _) in enumerate(STAGES))
        self.num_features = channels
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()


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
}
