"""Res2Net: Gao et al., "Res2Net: A New Multi-scale Backbone Architecture", arXiv 1904.01169.

`_26w_4s` has 4 groups of 26 channels in the first stage. `_vd` has ResNet-D's stem and shortcuts (arXiv 1812.01187).
Departure of the published graphs from the paper's code: the first block, whose stride is 1, is like all others of that
stride, where the original averages its last group and keeps its groups apart.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from torchclas.layers.conv import ConvNormAct
from torchclas.layers.initialisation import Initialisation, uniform
from torchclas.layers.network import Network, Renames, Variants, pyramid
from torchclas.layers.residual import projection
from torchclas.layers.resnet import bottleneck, residual_stages, resnet_rows, resnet_stem

# Blocks per stage, channels of the first one: those of ResNet (arXiv 1512.03385, table 1; 1603.05027).
DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 200: (3, 12, 48, 3)}
CHANNELS = 256


class MultiScaleConv(nn.Module):
    """3×3 convolutions over all but the last of `scales` groups of channels.

    At stride 1 each also sees what the one before made of its group, so the receptive field grows from group to
    group. The last group is passed on, or averaged where the map shrinks.
    """

    def __init__(self, channels: int, scales: int, stride: int) -> None:
        super().__init__()
        width = channels // scales
        self.scales = scales
        self.cascade = stride == 1
        self.convs = nn.ModuleList(ConvNormAct(width, width, 3, stride) for _ in range(scales - 1))
        self.last = nn.Identity() if stride == 1 else nn.AvgPool2d(3, stride, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, C, H / stride, W / stride]."""
        *groups, last = x.chunk(self.scales, dim=1)
        outputs: list[Tensor] = []
        for conv, group in zip(self.convs, groups, strict=True):
            outputs.append(conv(group + outputs[-1] if self.cascade and outputs else group))
        return torch.cat([*outputs, self.last(last)], dim=1)


class Res2Net(Network):
    """ResNet whose 3×3 convolutions are split into `scales` groups of `width` channels, doubled every stage."""

    initial = Initialisation(classifier=uniform)

    def __init__(
        self,
        *,
        layers: int,
        scales: int,
        width: int,
        vd: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        rows = resnet_rows(DEPTHS[layers], CHANNELS)

        def branch(channels: int, out_channels: int, stride: int) -> nn.Module:
            hidden = scales * width * out_channels // CHANNELS
            middle = MultiScaleConv(hidden, scales, stride)
            return nn.Sequential(*bottleneck(channels, hidden, out_channels, middle=middle))

        super().__init__(
            stem=resnet_stem(in_channels, (32, 32, 64) if vd else ()),
            stages=residual_stages(64, rows, branch, shortcut=partial(projection, pooled=vd)),
            scales=pyramid(4, [row.channels for row in rows]),
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "Res2Net50_26w_4s": (Res2Net, dict(layers=50, width=26, scales=4)),
    "Res2Net50_14w_8s": (Res2Net, dict(layers=50, width=14, scales=8)),
    "Res2Net50_vd_26w_4s": (Res2Net, dict(layers=50, width=26, scales=4, vd=True)),
    "Res2Net101_vd_26w_4s": (Res2Net, dict(layers=101, width=26, scales=4, vd=True)),
    "Res2Net200_vd_26w_4s": (Res2Net, dict(layers=200, width=26, scales=4, vd=True)),
}

_PARTS = (
    ("conv", "_conv"),
    ("bn", "_batch_norm"),
    ("branch.0", "conv0"),
    ("branch.2", "conv2"),
    ("shortcut.1", "short"),
    ("classifier", "out"),
)
_BLOCKS = (
    ("stages.{s}.{b}.branch.1.convs.{i}", "bb_{s}_{b}.res{s+2}{b:letter}_branch2b_{i+1}"),
    ("stages.{s}.{b}", "bb_{s}_{b}"),
)
# Deep networks count the blocks of the third stage where others use letters.
_DEEP_BLOCKS = (
    ("stages.2.0.branch.1.convs.{i}", "bb_2_0.res4a_branch2b_{i+1}"),
    ("stages.2.{b}.branch.1.convs.{i}", "bb_2_{b}.res4b{b}_branch2b_{i+1}"),
    *_BLOCKS,
)
RENAMES: Renames = {
    "current: Res2Net101_vd_* Res2Net200_vd_*": (*_PARTS, ("stem.{i}", "conv1_{i+1}"), *_DEEP_BLOCKS),
    "current: *_vd_*": (*_PARTS, ("stem.{i}", "conv1_{i+1}"), *_BLOCKS),
    "current": (*_PARTS, ("stem.0", "conv1"), *_BLOCKS),
}
