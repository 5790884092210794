"""MobileNetV3: Howard et al., "Searching for MobileNetV3", arXiv 1905.02244.

Departures of the published graph from the paper: the gate of squeeze-and-excitation is a hard sigmoid of slope 0.2
(1/6 in the paper); the bottleneck inside it is a quarter of the channels without rounding; in evaluation the dropout
before the classifier scales the features by 0.8; both sizes end in 1,280 features.
"""

from __future__ import annotations

from torch import nn

from torchclas.layers.conv import ConvNormAct, hardswish, round_channels
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.inverted_residual import BlockRow, InvertedResidual
from torchclas.layers.network import Network, Renames, Variants, pyramid, stages_of_rows
from torchclas.layers.squeeze_excite import HardSigmoid, SqueezeExcite

# Tables 1 and 2, one tuple per stage.
Stages = tuple[tuple[BlockRow, ...], ...]
LARGE: Stages = (
    (BlockRow(3, 16, 16),),
    (
        BlockRow(3, 64, 24, 2),
        BlockRow(3, 72, 24),
    ),
    (
        BlockRow(5, 72, 40, 2, se=True),
        BlockRow(5, 120, 40, se=True),
        BlockRow(5, 120, 40, se=True),
    ),
    (
        BlockRow(3, 240, 80, 2, act=hardswish),
        BlockRow(3, 200, 80, act=hardswish),
        BlockRow(3, 184, 80, act=hardswish),
        BlockRow(3, 184, 80, act=hardswish),
        BlockRow(3, 480, 112, se=True, act=hardswish),
        BlockRow(3, 672, 112, se=True, act=hardswish),
    ),
    (
        BlockRow(5, 672, 160, 2, se=True, act=hardswish),
        BlockRow(5, 960, 160, se=True, act=hardswish),
        BlockRow(5, 960, 160, se=True, act=hardswish),
    ),
)
SMALL: Stages = (
    (BlockRow(3, 16, 16, 2, se=True),),
    (
        BlockRow(3, 72, 24, 2),
        BlockRow(3, 88, 24),
    ),
    (
        BlockRow(5, 96, 40, 2, se=True, act=hardswish),
        BlockRow(5, 240, 40, se=True, act=hardswish),
        BlockRow(5, 240, 40, se=True, act=hardswish),
        BlockRow(5, 120, 48, se=True, act=hardswish),
        BlockRow(5, 144, 48, se=True, act=hardswish),
    ),
    (
        BlockRow(5, 288, 96, 2, se=True, act=hardswish),
        BlockRow(5, 576, 96, se=True, act=hardswish),
        BlockRow(5, 576, 96, se=True, act=hardswish),
    ),
)
FEATURES = 1280


class MobileNetV3(Network):
    """Inverted residuals found by search; `width` scales all channels but the last 1,280."""

    def __init__(self, *, table: Stages, width: float = 1.0, num_classes: int = 1000, in_channels: int = 3) -> None:
        def scaled(channels: int) -> int:
            return round_channels(channels * width)

        def block(channels: int, row: BlockRow) -> nn.Module:
            hidden, out_channels, kernel_size = row.hidden, row.channels, row.kernel_size
            se = SqueezeExcite(hidden, hidden // 4, gate=HardSigmoid) if row.se else None
            return InvertedResidual(channels, hidden, out_channels, kernel_size, row.stride, act=row.act, se=se)

        first = scaled(16)
        table = tuple(tuple(row.scaled(scaled) for row in rows) for rows in table)
        widths, wide = [rows[-1].channels for rows in table], table[-1][-1].hidden
        super().__init__(
            stem=ConvNormAct(in_channels, first, 3, 2, act=hardswish),
            stages=stages_of_rows(first, table, block),
            scales=pyramid(2 * table[0][0].stride, widths),
            neck=ConvNormAct(widths[-1], wide, 1, act=hardswish),
            head=nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(wide, FEATURES, 1, bias=False),
                hardswish(),
                DownscalingDropout(0.2),
                nn.Flatten(),
            ),
            num_features=FEATURES,
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "MobileNetV3_small_x0_35": (MobileNetV3, dict(table=SMALL, width=0.35)),
    "MobileNetV3_small_x0_5": (MobileNetV3, dict(table=SMALL, width=0.5)),
    "MobileNetV3_small_x0_75": (MobileNetV3, dict(table=SMALL, width=0.75)),
    "MobileNetV3_small_x1_0": (MobileNetV3, dict(table=SMALL)),
    "MobileNetV3_small_x1_25": (MobileNetV3, dict(table=SMALL, width=1.25)),
    "MobileNetV3_large_x0_35": (MobileNetV3, dict(table=LARGE, width=0.35)),
    "MobileNetV3_large_x0_5": (MobileNetV3, dict(table=LARGE, width=0.5)),
    "MobileNetV3_large_x0_75": (MobileNetV3, dict(table=LARGE, width=0.75)),
    "MobileNetV3_large_x1_0": (MobileNetV3, dict(table=LARGE)),
    "MobileNetV3_large_x1_25": (MobileNetV3, dict(table=LARGE, width=1.25)),
}

_PARTS = (
    ("expand", "expand_conv"),
    ("se.reduce", "mid_se.conv1"),
    ("depthwise", "bottleneck_conv"),
    ("project", "linear_conv"),
    ("neck", "last_second_conv"),
    ("head.1", "last_conv"),
)
RENAMES: Renames = {
    "current": (
        ("se.expand", "mid_se.conv2"),
        *_PARTS,
        ("stem", "conv"),
        ("stages.{s}.{b}", "blocks.{n}"),
        ("classifier", "fc"),
    ),
    "original": (
        ("se.expand", "mid_se.conv2"),
        *_PARTS,
        ("stem", "conv1"),
        ("stages.{s}.{b}", "conv{n+2}"),
        ("classifier", "out"),
    ),
}
