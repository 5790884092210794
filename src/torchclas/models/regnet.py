"""RegNet: Radosavovic et al., "Designing Network Design Spaces", arXiv 2003.13678.

Departure of the published graph from the paper: its convolutions have biases, although a batch norm follows each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from torchclas.layers.conv import ConvNormAct
from torchclas.layers.initialisation import Initialisation, uniform
from torchclas.layers.network import Network, Renames, Variants, pyramid
from torchclas.layers.residual import projection
from torchclas.layers.resnet import StageRow, bottleneck, residual_stages

STEM = 32


class RegNet(Network):
    """Bottlenecks as wide inside as outside, their 3×3 convolutions in groups of `group_width` channels."""

    initial = Initialisation(classifier=uniform)

    def __init__(
        self,
        *,
        depths: Sequence[int],
        widths: Sequence[int],
        group_width: int,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        def branch(channels: int, width: int, stride: int) -> nn.Module:
            groups = width // group_width
            return nn.Sequential(*bottleneck(channels, width, width, stride, groups=groups, bias=True))

        rows = [StageRow(depth, width, stride=2) for depth, width in zip(depths, widths, strict=True)]
        super().__init__(
            stem=ConvNormAct(in_channels, STEM, 3, 2, bias=True),
            stages=residual_stages(STEM, rows, branch, shortcut=partial(projection, bias=True)),
            scales=pyramid(4, widths),
            num_classes=num_classes,
        )


# Depths, widths and group width as the paper lists them beside each network's accuracy.
VARIANTS: Variants = {
    "RegNetX_4GF": (RegNet, dict(depths=(2, 5, 14, 2), widths=(80, 240, 560, 1360), group_width=40)),
}

RENAMES: Renames = {
    "current": (
        ("conv", "_conv"),
        ("bn", "_batch_norm"),
        ("branch.{i}", "conv{i}"),
        ("shortcut.1", "short"),
        ("stages.{s}.{b}", "s{s+1}_b{b+1}"),
        ("stem", "conv"),
        ("classifier", "out"),
    ),
    "timm": (
        ("branch.{i}", "conv{i+1}"),
        ("shortcut.1", "downsample"),
        ("stages.{s}.{b}", "s{s+1}.b{b+1}"),
        ("classifier", "head.fc"),
    ),
}
