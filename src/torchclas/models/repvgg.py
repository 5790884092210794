"""RepVGG: Ding et al., "Making VGG-style ConvNets Great Again", arXiv 2101.03697.

The published weights are those of training, with three branches per block; `fuse` folds them into one convolution.
"""

from __future__ import annotations

from torch import nn
from typing_extensions import Self

from torchclas.layers.conv import relu
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid
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
        width, last_width = widths
        factors = [*[width] * (len(depths) - 1), last_width]
        outs = [int(64 * 2**i * factor) for i, factor in enumerate(factors)]
        first = channels = min(64, int(64 * width))
        number = 1
        stages: list[Stage] = []
        for depth, out_channels in zip(depths, outs, strict=True):
            blocks: list[nn.Module] = []
            for j in range(depth):
                blocks.append(block(channels, out_channels, 2 if j == 0 else 1, groups if number % 2 == 0 else 1))
                channels, number = out_channels, number + 1
            stages.append(Stage(*blocks))
        super().__init__(
            stem=block(in_channels, first, 2),
            stages=stages,
            scales=pyramid(4, outs),
            num_classes=num_classes,
        )

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
    "timm": (
        ("stem.0", "stem"),
        ("stages.{s}.{b}.0", "stages.{s}.{b}"),
        ("branches.0", "conv_kxk"),
        ("branches.1", "conv_1x1"),
        ("classifier", "head.fc"),
    ),
}
