"""RegNet: Radosavovic et al., "Designing Network Design Spaces", arXiv 2003.13678.

Departure of the published graph from the paper: its convolutions have biases, although a batch norm follows each.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from torchclas.layers.conv import ConvNormAct, global_pool
from torchclas.layers.initialisation import Initialisation, uniform
from torchclas.layers.network import FeatureInfo, Network, Renames, Variants
from torchclas.layers.residual import projection
from torchclas.layers.resnet import bottleneck, residual_stages


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
        super().__init__()
        self.in_channels = in_channels
        self.stem = ConvNormAct(in_channels, 32, 3, 2, bias=True)

        def branch(channels: int, width: int, stride: int) -> nn.Module:
            groups = width // group_width
            return nn.Sequential(*bottleneck(channels, width, width, stride, groups=groups, bias=True))

        rows = [(depth, width, 2) for depth, width in zip(depths, widths, strict=True)]
        self.stages = residual_stages(32, rows, branch, shortcut=partial(projection, bias=True))
        self.neck = nn.Identity()
        self.head = global_pool()
        self.feature_info = tuple(FeatureInfo(i, 4 << i, width) for i, width in enumerate(widths))
        self.num_features = widths[-1]
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()


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
}
