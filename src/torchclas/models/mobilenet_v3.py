"""MobileNetV3: Howard et al., "Searching for MobileNetV3", arXiv 1905.02244.

Departures of the published graph from the paper: the gate of squeeze-and-excitation is a hard sigmoid of slope 0.2
(1/6 in the paper); the bottleneck inside it is a quarter of the channels without rounding; in evaluation the dropout
before the classifier scales the features by 0.8; both sizes end in 1,280 features.
"""

from __future__ import annotations

from torch import nn

from torchclas.layers.conv import ConvNormAct, hardswish, relu, round_channels
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.inverted_residual import InvertedResidual
from torchclas.layers.network import FeatureInfo, Network, Renames, Stage, Variants
from torchclas.layers.squeeze_excite import HardSigmoid, SqueezeExcite

Row = tuple[int, int, int, bool, str, int]

# Tables 1 and 2: kernel, hidden channels, output channels, squeeze-and-excitation, activation, stride.
LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hardswish", 2),
    (3, 200, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 480, 112, True, "hardswish", 1),
    (3, 672, 112, True, "hardswish", 1),
    (5, 672, 160, True, "hardswish", 2),
    (5, 960, 160, True, "hardswish", 1),
    (5, 960, 160, True, "hardswish", 1),
)
SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, "relu", 2),
    (3, 72, 24, False, "relu", 2),
    (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hardswish", 2),
    (5, 240, 40, True, "hardswish", 1),
    (5, 240, 40, True, "hardswish", 1),
    (5, 120, 48, True, "hardswish", 1),
    (5, 144, 48, True, "hardswish", 1),
    (5, 288, 96, True, "hardswish", 2),
    (5, 576, 96, True, "hardswish", 1),
    (5, 576, 96, True, "hardswish", 1),
)


class MobileNetV3(Network):
    """Inverted residuals found by search; `width` scales all channels but the last 1,280."""

    def __init__(
        self, *, rows: tuple[Row, ...], width: float = 1.0, num_classes: int = 1000, in_channels: int = 3
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        channels = round_channels(16 * width)
        self.stem = ConvNormAct(in_channels, channels, 3, 2, act=hardswish)
        stages: list[list[nn.Module]] = []
        info: list[FeatureInfo] = []
        scale = 2
        for kernel_size, hidden, out, se, act, stride in rows:
            hidden, out_channels = round_channels(hidden * width), round_channels(out * width)
            if stride > 1 or not stages:
                stages.append([])
                scale *= stride
            stages[-1].append(
                InvertedResidual(
                    channels,
                    hidden,
                    out_channels,
                    kernel_size,
                    stride,
                    act=hardswish if act == "hardswish" else relu,
                    se=SqueezeExcite(hidden, hidden // 4, gate=HardSigmoid) if se else None,
                )
            )
            channels = out_channels
            info[len(stages) - 1 :] = [FeatureInfo(len(stages) - 1, scale, channels)]
        self.stages = nn.Sequential(*(Stage(*blocks) for blocks in stages))
        wide = round_channels(rows[-1][1] * width)
        self.neck = ConvNormAct(channels, wide, 1, act=hardswish)
        self.num_features = 1280
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(wide, self.num_features, 1, bias=False),
            hardswish(),
            DownscalingDropout(0.2),
            nn.Flatten(),
        )
        self.feature_info = tuple(info)
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()


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
