"""RepVGG: Ding et al., "Making VGG-style ConvNets Great Again", arXiv 2101.03697.

The published weights are those of training, with three branches per block; `fuse` folds them into one convolution.
"""

from __future__ import annotations

from torch import nn
from typing_extensions import Self

from torchclas.layers.conv import global_pool, relu
from torchclas.layers.network import FeatureInfo, Network, Renames, Stage, Variants
from torchclas.layers.parallel_convs import ParallelConvs, fold_parallel_convs

# Table 2: blocks per stage.
A = (2, 4, 14, 1)
B = (4, 6, 16, 1)


def block(in_channels: int, out_channels: int, stride: int, groups: int = 1) -> nn.Sequential:
    """3×3 and 1×1 convolution and the input itself, each batch-normed, summed."""
    return nn.Sequential(
        ParallelConvs(in_channels, out_channels, (3, 1), stride, groups=groups, identity=True),
        relu(),
    )


class RepVGG(Network):
    """Plain stacks of 3×3 convolutions that train with two more branches each.

    `widths` multiply the first three stages' channels and the last one's; `groups` is that of every other block.
    """

    def __init__(
        self,
        *,
        depths: tuple[int, ...],
        widths: tuple[float, float],
        groups: int = 1,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        width, last_width = widths
        channels = min(64, int(64 * width))
        self.stem = block(in_channels, channels, 2)
        stages: list[Stage] = []
        info: list[FeatureInfo] = []
        number = 1
        for i, depth in enumerate(depths):
            blocks: list[nn.Module] = []
            out_channels = int((64 << i) * (last_width if i == len(depths) - 1 else width))
            for j in range(depth):
                blocks.append(block(channels, out_channels, 2 if j == 0 else 1, groups if number % 2 == 0 else 1))
                channels, number = out_channels, number + 1
            stages.append(Stage(*blocks))
            info.append(FeatureInfo(i, 4 << i, channels))
        self.stages = nn.Sequential(*stages)
        self.neck = nn.Identity()
        self.head = global_pool()
        self.num_features = channels
        self.feature_info = tuple(info)
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()

    def fuse(self) -> Self:
        """One 3×3 convolution per block, for inference."""
        fold_parallel_convs(self)
        return self


# Tables 2 and 3: width multipliers, groups.
VARIANTS: Variants = {
    "RepVGG_A0": (RepVGG, dict(depths=A, widths=(0.75, 2.5))),
    "RepVGG_A1": (RepVGG, dict(depths=A, widths=(1, 2.5))),
    "RepVGG_A2": (RepVGG, dict(depths=A, widths=(1.5, 2.75))),
    "RepVGG_B0": (RepVGG, dict(depths=B, widths=(1, 2.5))),
    "RepVGG_B1": (RepVGG, dict(depths=B, widths=(2, 4))),
    "RepVGG_B2": (RepVGG, dict(depths=B, widths=(2.5, 5))),
    "RepVGG_B1g2": (RepVGG, dict(depths=B, widths=(2, 4), groups=2)),
    "RepVGG_B1g4": (RepVGG, dict(depths=B, widths=(2, 4), groups=4)),
    "RepVGG_B2g4": (RepVGG, dict(depths=B, widths=(2.5, 5), groups=4)),
    "RepVGG_B3g4": (RepVGG, dict(depths=B, widths=(3, 5), groups=4)),
}

RENAMES: Renames = {
    "current": (
        ("stem.0", "stage0"),
        ("stages.{s}.{b}.0", "stage{s+1}.{b}"),
        ("branches.0", "rbr_dense"),
        ("branches.1", "rbr_1x1"),
        ("identity", "rbr_identity"),
        ("classifier", "linear"),
    ),
}
