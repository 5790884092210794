"""MixNet: Tan and Le, "MixConv: Mixed Depthwise Convolutional Kernels", arXiv 1907.09595.

Departures of the published graphs from the paper: none of them has dropout; the last convolution ends in ReLU.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from torchclas.layers.conv import Activation, ConvNormAct, global_pool, relu, round_channels, swish
from torchclas.layers.inverted_residual import InvertedResidual
from torchclas.layers.network import FeatureInfo, Network, Renames, Stage, Variants
from torchclas.layers.residual import Residual
from torchclas.layers.squeeze_excite import SqueezeExcite

Row = tuple[int, int, int, int, int, int, int]

# MixNet-S and MixNet-M, one tuple per stage: output channels, stride, expansion, squeeze-and-excitation's divisor
# (0: none), groups of the expanding 1×1 convolution, number of depthwise kernels (3, 5, 7 …), groups of the projecting
# 1×1 convolution.
SMALL: tuple[tuple[Row, ...], ...] = (
    ((24, 2, 6, 0, 2, 1, 2), (24, 1, 3, 0, 2, 1, 2)),
    ((40, 2, 6, 2, 1, 3, 1), *((40, 1, 6, 2, 2, 2, 2),) * 3),
    ((80, 2, 6, 4, 1, 3, 2), *((80, 1, 6, 4, 1, 2, 2),) * 2),
    (
        (120, 1, 6, 2, 2, 3, 2),
        *((120, 1, 3, 2, 2, 4, 2),) * 2,
        (200, 2, 6, 2, 1, 5, 1),
        *((200, 1, 6, 2, 1, 4, 2),) * 2,
    ),
)
MEDIUM: tuple[tuple[Row, ...], ...] = (
    ((32, 2, 6, 0, 2, 3, 2), (32, 1, 3, 0, 2, 1, 2)),
    ((40, 2, 6, 2, 1, 4, 1), *((40, 1, 6, 2, 2, 2, 2),) * 3),
    ((80, 2, 6, 4, 1, 3, 1), *((80, 1, 6, 4, 2, 4, 2),) * 3),
    (
        (120, 1, 6, 2, 1, 1, 1),
        *((120, 1, 3, 2, 2, 4, 2),) * 3,
        (200, 2, 6, 2, 1, 4, 1),
        *((200, 1, 6, 2, 1, 4, 2),) * 3,
    ),
)


def shares(channels: int, parts: int) -> list[int]:
    """Equal shares, of which the first takes the rest."""
    share = channels // parts
    return [channels - share * (parts - 1)] + [share] * (parts - 1)


class MixConv(nn.ModuleList):
    """One convolution per kernel size, each on its share of the channels."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_sizes: list[int], stride: int, *, depthwise: bool
    ) -> None:
        super().__init__()
        self.shares = shares(in_channels, len(kernel_sizes))
        outs = shares(out_channels, len(kernel_sizes))
        for share, out, size in zip(self.shares, outs, kernel_sizes, strict=True):
            groups = share if depthwise else 1
            self.append(nn.Conv2d(share, out, size, stride, padding=size // 2, groups=groups, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / stride, W / stride]."""
        parts = x.split(self.shares, 1)
        return torch.cat([conv(part) for conv, part in zip(self, parts, strict=True)], 1)


def mixed(
    in_channels: int,
    out_channels: int,
    kernel_sizes: list[int],
    stride: int = 1,
    *,
    depthwise: bool = False,
    act: Activation | None = relu,
) -> nn.Module:
    """`ConvNormAct` with several kernel sizes."""
    if len(kernel_sizes) == 1:
        groups = in_channels if depthwise else 1
        return ConvNormAct(in_channels, out_channels, kernel_sizes[0], stride, groups=groups, act=act)
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        conv=MixConv(in_channels, out_channels, kernel_sizes, stride, depthwise=depthwise),
        bn=nn.BatchNorm2d(out_channels),
        act=nn.Identity() if act is None else act(),
    )
    return nn.Sequential(parts)


def inverted_residual(in_channels: int, out_channels: int, row: Row, act: Activation) -> nn.Module:
    """The block of the mobile networks with mixed kernels; the input is added where it has the output's shape."""
    _, stride, expansion, se, expand_groups, kernels, project_groups = row
    hidden = in_channels * expansion
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        expand=mixed(in_channels, hidden, [1] * expand_groups, act=act),
        depthwise=mixed(hidden, hidden, [3 + 2 * i for i in range(kernels)], stride, depthwise=True, act=act),
        se=SqueezeExcite(hidden, in_channels // se, act=act) if se else nn.Identity(),
        project=mixed(hidden, out_channels, [1] * project_groups, act=None),
    )
    branch = nn.Sequential(parts)
    return Residual(branch, act=None) if stride == 1 and in_channels == out_channels else branch


class MixNet(Network):
    """Inverted residuals that mix kernel sizes; `width` scales the channels of all stages."""

    def __init__(
        self,
        *,
        stages: tuple[tuple[Row, ...], ...],
        stem: int,
        width: float = 1.0,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        channels = round_channels(stem * width)
        self.stem = nn.Sequential(
            ConvNormAct(in_channels, channels, 3, 2),
            InvertedResidual(channels, channels, channels, 3, 1, expand=False),
        )
        groups: list[Stage] = []
        info: list[FeatureInfo] = []
        for i, rows in enumerate(stages):
            blocks: list[nn.Module] = []
            for row in rows:
                out_channels = round_channels(row[0] * width)
                blocks.append(inverted_residual(channels, out_channels, row, relu if i == 0 else swish))
                channels = out_channels
            groups.append(Stage(*blocks))
            info.append(FeatureInfo(i, 4 << i, channels))
        self.stages = nn.Sequential(*groups)
        self.num_features = 1536
        self.neck = ConvNormAct(channels, self.num_features, 1)
        self.head = global_pool()
        self.feature_info = tuple(info)
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()


VARIANTS: Variants = {
    "MixNet_S": (MixNet, dict(stages=SMALL, stem=16)),
    "MixNet_M": (MixNet, dict(stages=MEDIUM, stem=24)),
    "MixNet_L": (MixNet, dict(stages=MEDIUM, stem=24, width=1.3)),
}

RENAMES: Renames = {
    "current": (
        ("stem.0", "features.init_block.conv1"),
        ("stem.1.depthwise", "features.init_block.conv2.conv1"),
        ("stem.1.project", "features.init_block.conv2.conv2"),
        ("se.reduce", "se.conv1"),
        ("se.expand", "se.conv2"),
        ("expand", "exp_conv"),
        ("depthwise", "conv1"),
        ("project", "conv2"),
        ("stages.{s}.{b}.branch", "features.stage{s+1}.unit{b+1}"),
        ("stages.{s}.{b}", "features.stage{s+1}.unit{b+1}"),
        ("neck", "features.final_block"),
        ("classifier", "output"),
    ),
}
