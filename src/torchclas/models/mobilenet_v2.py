"""MobileNetV2: Sandler et al., "Inverted Residuals and Linear Bottlenecks", arXiv 1801.04381.

Departures of the published graph from the paper: the first block keeps its 1×1 convolution although it expands by 1;
scaled widths are cut, not rounded to multiples of 8; there is no dropout.
"""

from __future__ import annotations

from torch import nn

from torchclas.layers.conv import ConvNormAct, global_pool, relu6
from torchclas.layers.inverted_residual import InvertedResidual
from torchclas.layers.network import FeatureInfo, Network, Renames, Stage, Variants

# Table 2: expansion, output channels, blocks, stride of the first one.
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class MobileNetV2(Network):
    """Inverted residuals without an activation at their narrow ends; `width` scales all channels."""

    def __init__(self, *, width: float = 1.0, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        channels = int(32 * width)
        self.stem = ConvNormAct(in_channels, channels, 3, 2, act=relu6)
        stages: list[Stage] = []
        scales: dict[int, FeatureInfo] = {}
        stride = 2
        for i, (expansion, out, depth, first_stride) in enumerate(STAGES):
            blocks: list[nn.Module] = []
            out_channels = int(out * width)
            for j in range(depth):
                block_stride = first_stride if j == 0 else 1
                hidden = channels * expansion
                blocks.append(InvertedResidual(channels, hidden, out_channels, 3, block_stride, act=relu6))
                channels = out_channels
            stages.append(Stage(*blocks))
            stride *= first_stride
            scales[stride] = FeatureInfo(i, stride, channels)
        self.stages = nn.Sequential(*stages)
        self.num_features = int(1280 * max(width, 1.0))
        self.neck = ConvNormAct(channels, self.num_features, 1, act=relu6)
        self.head = global_pool()
        self.feature_info = tuple(scales.values())
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()


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
}
