"""MobileNetV2: Sandler et al., "Inverted Residuals and Linear Bottlenecks", arXiv 1801.04381.

Departures of the published graph from the paper: the first block keeps its 1×1 convolution although it expands by 1;
scaled widths are cut, not rounded to multiples of 8; there is no dropout.
"""

from __future__ import annotations

from torch import nn

from torchclas.layers.conv import ConvNormAct, relu6
from torchclas.layers.inverted_residual import InvertedResidual, StageRow
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid

# Table 2.
STAGES = (
    StageRow(1, 16, 1, 1),
    StageRow(6, 24, 2, 2),
    StageRow(6, 32, 3, 2),
    StageRow(6, 64, 4, 2),
    StageRow(6, 96, 3, 1),
    StageRow(6, 160, 3, 2),
    StageRow(6, 320, 1, 1),
)


class MobileNetV2(Network):
    """Inverted residuals without an activation at their narrow ends; `width` scales all channels."""

    def __init__(self, *, width: float = 1.0, num_classes: int = 1000, in_channels: int = 3) -> None:
        first = channels = int(32 * width)
        widths = [int(row.channels * width) for row in STAGES]
        stages: list[Stage] = []
        for row, out_channels in zip(STAGES, widths, strict=True):
            blocks: list[nn.Module] = []
            for j in range(row.depth):
                hidden = channels * row.expansion
                stride = row.stride if j == 0 else 1
                blocks.append(InvertedResidual(channels, hidden, out_channels, 3, stride, act=relu6))
                channels = out_channels
            stages.append(Stage(*blocks))
        features = int(1280 * max(width, 1.0))
        super().__init__(
            stem=ConvNormAct(in_channels, first, 3, 2, act=relu6),
            stages=stages,
            scales=pyramid(2, widths, [row.stride for row in STAGES[1:]]),
            neck=ConvNormAct(channels, features, 1, act=relu6),
            num_features=features,
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "MobileNetV2_x0_25": (MobileNetV2, dict(width=0.25)),
    "MobileNetV2_x0_5": (MobileNetV2, dict(width=0.5)),
    "MobileNetV2_x0_75": (MobileNetV2, dict(width=0.75)),
    "MobileNetV2": (MobileNetV2, dict()),
    "MobileNetV2_x1_5": (MobileNetV2, dict(width=1.5)),
    "MobileNetV2_x2_0": (MobileNetV2, dict(width=2.0)),
}

RENAMES: Renames = {
    "current": (
        ("conv", "_conv"),
        ("bn", "_batch_norm"),
        ("expand", "_expand_conv"),
        ("depthwise", "_bottleneck_conv"),
        ("project", "_linear_conv"),
        ("stem", "conv1"),
        ("stages.{s}.0", "conv{s+2}._first_block"),
        ("stages.{s}.{b}", "conv{s+2}.conv{s+2}_{b+1}"),
        ("neck", "conv9"),
        ("classifier", "out"),
    ),
    # The first block expands to as many channels as it has here alone, behind a ReLU6 that changes nothing.
    "timm": (
        ("stages.0.0.expand", "unexpanded", "identity"),
        ("stages.0.0.depthwise.bn", "stages.0.0.bn1"),
        ("stages.0.0.project.conv", "stages.0.0.conv_pw"),
        ("stages.0.0.project.bn", "stages.0.0.bn2"),
        ("expand.conv", "conv_pw"),
        ("expand.bn", "bn1"),
        ("depthwise.conv", "conv_dw"),
        ("depthwise.bn", "bn2"),
        ("project.conv", "conv_pwl"),
        ("project.bn", "bn3"),
        ("stages", "blocks"),
        ("stem.conv", "conv_stem"),
        ("stem.bn", "bn1"),
        ("neck.conv", "conv_head"),
        ("neck.bn", "bn2"),
    ),
    "torchvision": (
        ("stages.0.0.expand", "unexpanded", "identity"),
        ("stages.0.0.depthwise.conv", "features.1.conv.0.0"),
        ("stages.0.0.depthwise.bn", "features.1.conv.0.1"),
        ("stages.0.0.project.conv", "features.1.conv.1"),
        ("stages.0.0.project.bn", "features.1.conv.2"),
        ("expand.conv", "conv.0.0"),
        ("expand.bn", "conv.0.1"),
        ("depthwise.conv", "conv.1.0"),
        ("depthwise.bn", "conv.1.1"),
        ("project.conv", "conv.2"),
        ("project.bn", "conv.3"),
        ("stages.{s}.{b}", "features.{n+1}"),
        ("stem.conv", "features.0.0"),
        ("stem.bn", "features.0.1"),
        ("neck.conv", "features.{n+1}.0"),
        ("neck.bn", "features.{n+1}.1"),
        ("classifier", "classifier.1"),
    ),
}
