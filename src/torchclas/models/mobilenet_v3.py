"""MobileNetV3: Howard et al., "Searching for MobileNetV3", arXiv 1905.02244.

Departures of the published graph from the paper: the gate of squeeze-and-excitation is a hard sigmoid of slope 0.2
(1/6 in the paper); the bottleneck inside it is a quarter of the channels without rounding; in evaluation the dropout
before the classifier scales the features by 0.8; both sizes end in 1,280 features.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from torchclas.layers.conv import Activation, ConvNormAct, hardswish, relu, round_channels
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.inverted_residual import InvertedResidual
from torchclas.layers.network import Network, Renames, Stage, Variants
from torchclas.layers.squeeze_excite import HardSigmoid, SqueezeExcite


class Row(NamedTuple):
    """A block of tables 1 and 2."""

    kernel_size: int
    hidden: int
    channels: int
    act: Activation
    stride: int
    se: bool = False


LARGE = (
    Row(3, 16, 16, relu, 1),
    Row(3, 64, 24, relu, 2),
    Row(3, 72, 24, relu, 1),
    Row(5, 72, 40, relu, 2, se=True),
    Row(5, 120, 40, relu, 1, se=True),
    Row(5, 120, 40, relu, 1, se=True),
    Row(3, 240, 80, hardswish, 2),
    Row(3, 200, 80, hardswish, 1),
    Row(3, 184, 80, hardswish, 1),
    Row(3, 184, 80, hardswish, 1),
    Row(3, 480, 112, hardswish, 1, se=True),
    Row(3, 672, 112, hardswish, 1, se=True),
    Row(5, 672, 160, hardswish, 2, se=True),
    Row(5, 960, 160, hardswish, 1, se=True),
    Row(5, 960, 160, hardswish, 1, se=True),
)
SMALL = (
    Row(3, 16, 16, relu, 2, se=True),
    Row(3, 72, 24, relu, 2),
    Row(3, 88, 24, relu, 1),
    Row(5, 96, 40, hardswish, 2, se=True),
    Row(5, 240, 40, hardswish, 1, se=True),
    Row(5, 240, 40, hardswish, 1, se=True),
    Row(5, 120, 48, hardswish, 1, se=True),
    Row(5, 144, 48, hardswish, 1, se=True),
    Row(5, 288, 96, hardswish, 2, se=True),
    Row(5, 576, 96, hardswish, 1, se=True),
    Row(5, 576, 96, hardswish, 1, se=True),
)
FEATURES = 1280


class MobileNetV3(Network):
    """Inverted residuals found by search; `width` scales all channels but the last 1,280."""

    def __init__(
        self, *, rows: tuple[Row, ...], width: float = 1.0, num_classes: int = 1000, in_channels: int = 3
    ) -> None:
        first = channels = round_channels(16 * width)
        scale = 2
        stages: list[Stage] = []
        scales: list[tuple[int, int]] = []
        for row in rows:
            hidden, out_channels = round_channels(row.hidden * width), round_channels(row.channels * width)
            if row.stride > 1 or not stages:
                stages.append(Stage())
                scale *= row.stride
                scales.append((scale, out_channels))
            stages[-1].append(
                InvertedResidual(
                    channels,
                    hidden,
                    out_channels,
                    row.kernel_size,
                    row.stride,
                    act=row.act,
                    se=SqueezeExcite(hidden, hidden // 4, gate=HardSigmoid) if row.se else None,
                )
            )
            channels = out_channels
            scales[-1] = (scale, channels)
        wide = round_channels(rows[-1].hidden * width)
        super().__init__(
            stem=ConvNormAct(in_channels, first, 3, 2, act=hardswish),
            stages=stages,
            scales=scales,
            neck=ConvNormAct(channels, wide, 1, act=hardswish),
            head=nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(wide, FEATURES, 1, bias=False),
                hardswish(),
                DownscalingDropout(0.2),
                nn.Flatten(),
            ),
            num_features=FEATURES,
            num_classes=num_classes,
            in_channels=in_channels,
        )


VARIANTS: Variants = {
    "MobileNetV3_small_x0_35": (MobileNetV3, dict(rows=SMALL, width=0.35)),
    "MobileNetV3_small_x0_5": (MobileNetV3, dict(rows=SMALL, width=0.5)),
    "MobileNetV3_small_x0_75": (MobileNetV3, dict(rows=SMALL, width=0.75)),
    "MobileNetV3_small_x1_0": (MobileNetV3, dict(rows=SMALL)),
    "MobileNetV3_small_x1_25": (MobileNetV3, dict(rows=SMALL, width=1.25)),
    "MobileNetV3_large_x0_35": (MobileNetV3, dict(rows=LARGE, width=0.35)),
    "MobileNetV3_large_x0_5": (MobileNetV3, dict(rows=LARGE, width=0.5)),
    "MobileNetV3_large_x0_75": (MobileNetV3, dict(rows=LARGE, width=0.75)),
    "MobileNetV3_large_x1_0": (MobileNetV3, dict(rows=LARGE)),
    "MobileNetV3_large_x1_25": (MobileNetV3, dict(rows=LARGE, width=1.25)),
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
