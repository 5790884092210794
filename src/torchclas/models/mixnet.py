"""MixNet: Tan and Le, "MixConv: Mixed Depthwise Convolutional Kernels", arXiv 1907.09595.

Departures of the published graphs from the paper: none of them has dropout; the last convolution ends in ReLU.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
from torch import Tensor, nn

from torchclas.layers.conv import Activation, ConvNormAct, relu, round_channels, swish
from torchclas.layers.inverted_residual import InvertedResidual
from torchclas.layers.network import Network, Renames, Variants, pyramid, stages_of_rows
from torchclas.layers.residual import Residual
from torchclas.layers.squeeze_excite import SqueezeExcite


class Row(NamedTuple):
    """A block. Where layers are mixed, each number of kernels or groups is one per share of the channels."""

    channels: int
    stride: int
    expansion: int
    se: int  # divides the input channels to squeeze-and-excitation's hidden ones; 0: none
    expand_groups: int  # of the expanding 1×1 convolution
    kernels: int  # depthwise ones: 3, 5, 7 …
    project_groups: int  # of the projecting 1×1 convolution
    act: Activation = swish


# MixNet-S and MixNet-M, one tuple per stage.
Stages = tuple[tuple[Row, ...], ...]
SMALL: Stages = (
    (Row(24, 2, 6, 0, 2, 1, 2, relu), Row(24, 1, 3, 0, 2, 1, 2, relu)),
    (Row(40, 2, 6, 2, 1, 3, 1), *[Row(40, 1, 6, 2, 2, 2, 2)] * 3),
    (Row(80, 2, 6, 4, 1, 3, 2), *[Row(80, 1, 6, 4, 1, 2, 2)] * 2),
    (
        Row(120, 1, 6, 2, 2, 3, 2),
        *[Row(120, 1, 3, 2, 2, 4, 2)] * 2,
        Row(200, 2, 6, 2, 1, 5, 1),
        *[Row(200, 1, 6, 2, 1, 4, 2)] * 2,
    ),
)
MEDIUM: Stages = (
    (Row(32, 2, 6, 0, 2, 3, 2, relu), Row(32, 1, 3, 0, 2, 1, 2, relu)),
    (Row(40, 2, 6, 2, 1, 4, 1), *[Row(40, 1, 6, 2, 2, 2, 2)] * 3),
    (Row(80, 2, 6, 4, 1, 3, 1), *[Row(80, 1, 6, 4, 2, 4, 2)] * 3),
    (
        Row(120, 1, 6, 2, 1, 1, 1),
        *[Row(120, 1, 3, 2, 2, 4, 2)] * 3,
        Row(200, 2, 6, 2, 1, 4, 1),
        *[Row(200, 1, 6, 2, 1, 4, 2)] * 3,
    ),
)
FEATURES = 1536


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


def inverted_residual(in_channels: int, row: Row) -> nn.Module:
    """The block of the mobile networks with mixed kernels; the input is added where it has the output's shape."""
    hidden, out_channels, act = in_channels * row.expansion, row.channels, row.act
    kernel_sizes = [3 + 2 * i for i in range(row.kernels)]
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        expand=mixed(in_channels, hidden, [1] * row.expand_groups, act=act),
        depthwise=mixed(hidden, hidden, kernel_sizes, row.stride, depthwise=True, act=act),
        se=SqueezeExcite(hidden, in_channels // row.se, act=act) if row.se else nn.Identity(),
        project=mixed(hidden, out_channels, [1] * row.project_groups, act=None),
    )
    branch = nn.Sequential(parts)
    return Residual(branch, act=None) if row.stride == 1 and in_channels == out_channels else branch


class MixNet(Network):
    """Inverted residuals that mix kernel sizes; `width` scales the channels of all stages."""

    def __init__(
        self,
        *,
        table: Stages,
        stem: int,
        width: float = 1.0,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        first = round_channels(stem * width)
        scaled = [[row._replace(channels=round_channels(row.channels * width)) for row in rows] for rows in table]
        widths = [rows[-1].channels for rows in scaled]
        super().__init__(
            stem=nn.Sequential(
                ConvNormAct(in_channels, first, 3, 2), InvertedResidual(first, first, first, 3, 1, expand=False)
            ),
            stages=stages_of_rows(first, scaled, inverted_residual),
            scales=pyramid(4, widths),
            neck=ConvNormAct(widths[-1], FEATURES, 1),
            num_features=FEATURES,
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "MixNet_S": (MixNet, dict(table=SMALL, stem=16)),
    "MixNet_M": (MixNet, dict(table=MEDIUM, stem=24)),
    "MixNet_L": (MixNet, dict(table=MEDIUM, stem=24, width=1.3)),
}

_TIMM = (
    ("stem.1.depthwise.bn", "blocks.0.0.bn1"),
    ("stem.1.project.conv", "blocks.0.0.conv_pw"),
    ("stem.1.project.bn", "blocks.0.0.bn2"),
    ("stem.1", "blocks.0.0"),
    ("stem.0.conv", "conv_stem"),
    ("stem.0.bn", "bn1"),
    ("stages.{s}.{b}", "blocks.{s+1}.{b}"),
    ("blocks.{s}.{b}.branch", "blocks.{s}.{b}"),
    ("expand.conv", "conv_pw"),
    ("expand.bn", "bn1"),
    ("depthwise.conv", "conv_dw"),
    ("depthwise.bn", "bn2"),
    ("project.conv", "conv_pwl"),
    ("project.bn", "bn3"),
    ("se.reduce", "se.conv_reduce"),
    ("se.expand", "se.conv_expand"),
    ("neck.conv", "conv_head"),
    ("neck.bn", "bn2"),
)
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
    "timm: MixNet_M MixNet_L": (*((f"stages.3.{4 + i}", f"blocks.5.{i}") for i in range(4)), *_TIMM),
    "timm": (*((f"stages.3.{3 + i}", f"blocks.5.{i}") for i in range(3)), *_TIMM),
}
