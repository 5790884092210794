"""GhostNet: Han et al., "More Features from Cheap Operations", arXiv 1911.11907.

Departures of the published graphs from the paper: the gate of squeeze-and-excitation clips to [0, 1]; a shortcut
that changes shape starts with a depthwise convolution, as in the authors' code.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from torchclas.layers.conv import Activation, ConvNormAct, relu, round_channels
from torchclas.layers.initialisation import Initialisation, he_normal_of_group, uniform
from torchclas.layers.inverted_residual import BlockRow
from torchclas.layers.network import Network, Renames, Variants, pyramid, stages_of_rows
from torchclas.layers.residual import Residual
from torchclas.layers.squeeze_excite import SqueezeExcite

# Table 1, one tuple per stage.
STAGES = (
    (BlockRow(3, 16, 16),),
    (BlockRow(3, 48, 24, 2), BlockRow(3, 72, 24)),
    (BlockRow(5, 72, 40, 2, se=True), BlockRow(5, 120, 40, se=True)),
    (
        BlockRow(3, 240, 80, 2),
        BlockRow(3, 200, 80),
        BlockRow(3, 184, 80),
        BlockRow(3, 184, 80),
        BlockRow(3, 480, 112, se=True),
        BlockRow(3, 672, 112, se=True),
    ),
    (
        BlockRow(5, 672, 160, 2, se=True),
        BlockRow(5, 960, 160),
        BlockRow(5, 960, 160, se=True),
        BlockRow(5, 960, 160),
        BlockRow(5, 960, 160, se=True),
    ),
)
FEATURES = 1280
DIVISOR = 4


class GhostModule(nn.Module):
    """Half of the channels by a 1×1 convolution, the other half by a depthwise 3×3 convolution of the first."""

    def __init__(self, in_channels: int, out_channels: int, *, act: Activation | None = relu) -> None:
        super().__init__()
        half = out_channels // 2
        self.primary = ConvNormAct(in_channels, half, 1, act=act)
        self.cheap = ConvNormAct(half, half, 3, groups=half, act=act)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H, W]."""
        x = self.primary(x)
        return torch.cat([x, self.cheap(x)], 1)


def bottleneck(in_channels: int, row: BlockRow) -> Residual:
    """Two ghost modules; between them a depthwise convolution (stride 2 only) and squeeze-and-excitation."""
    hidden, out_channels, stride = row.hidden, row.channels, row.stride

    def depthwise(channels: int) -> nn.Module:
        return ConvNormAct(channels, channels, row.kernel_size, stride, groups=channels, act=None)

    branch = nn.Sequential(
        GhostModule(in_channels, hidden),
        depthwise(hidden) if stride > 1 else nn.Identity(),
        SqueezeExcite(hidden, hidden // 4, gate=partial(nn.Hardtanh, 0.0, 1.0)) if row.se else nn.Identity(),
        GhostModule(hidden, out_channels, act=None),
    )
    if stride == 1 and in_channels == out_channels:
        return Residual(branch, act=None)
    shortcut = nn.Sequential(depthwise(in_channels), ConvNormAct(in_channels, out_channels, 1, act=None))
    return Residual(branch, shortcut, act=None)


class GhostNet(Network):
    """Inverted residuals of ghost modules; `width` scales all channels but the last 1,280."""

    initial = Initialisation(conv=he_normal_of_group, gate=uniform, classifier=uniform)

    def __init__(self, *, width: float = 1.0, num_classes: int = 1000, in_channels: int = 3) -> None:
        def scaled(channels: int) -> int:
            return round_channels(channels * width, DIVISOR)

        first = scaled(16)
        table = [[row.scaled(scaled) for row in rows] for rows in STAGES]
        widths, hidden = [rows[-1].channels for rows in table], table[-1][-1].hidden
        super().__init__(
            stem=ConvNormAct(in_channels, first, 3, 2),
            stages=stages_of_rows(first, table, bottleneck),
            scales=pyramid(2, widths),
            neck=ConvNormAct(widths[-1], hidden, 1),
            head=nn.Sequential(
                nn.AdaptiveAvgPool2d(1), ConvNormAct(hidden, FEATURES, 1), nn.Dropout(0.2), nn.Flatten()
            ),
            num_features=FEATURES,
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "GhostNet_x0_5": (GhostNet, dict(width=0.5)),
    "GhostNet_x1_0": (GhostNet, dict()),
    "GhostNet_x1_3": (GhostNet, dict(width=1.3)),
}

RENAMES: Renames = {
    "current": (
        ("conv", "_conv"),
        ("bn", "_batch_norm"),
        ("primary", "primary_conv"),
        ("cheap", "cheap_operation"),
        ("branch.0", "ghost_module_1"),
        ("branch.1", "depthwise_conv"),
        ("branch.2.reduce", "se_block.squeeze", "linear"),
        ("branch.2.expand", "se_block.excitation", "linear"),
        ("branch.3", "ghost_module_2"),
        ("shortcut.0", "shortcut_depthwise"),
        ("shortcut.1", "shortcut_conv"),
        ("stages.{s}.{b}", "_ghostbottleneck_{n}"),
        ("stem", "conv1"),
        ("neck", "conv_last"),
        ("head.1", "fc_0"),
        ("classifier", "fc_1"),
    ),
}
