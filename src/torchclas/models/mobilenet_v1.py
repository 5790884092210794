"""MobileNetV1: Howard et al., "MobileNets: Efficient Convolutional Neural Networks", arXiv 1704.04861."""

from __future__ import annotations

from torch import nn

from torchclas.layers.conv import ConvNormAct
from torchclas.layers.initialisation import Initialisation, he_normal_of_group
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid

# Table 1: channels, blocks and the first one's stride of each resolution.
STEM = 32
CHANNELS, DEPTHS, STRIDES = (64, 128, 256, 512, 1024), (1, 2, 2, 6, 2), (1, 2, 2, 2, 2)


class DepthwiseSeparable(nn.Sequential):
    """Depthwise 3×3 convolution, then 1×1."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = ConvNormAct(in_channels, in_channels, 3, stride, groups=in_channels)
        self.pointwise = ConvNormAct(in_channels, out_channels, 1)


class MobileNetV1(Network):
    """A stack of depthwise separable convolutions; `width` scales all channels."""

    initial = Initialisation(conv=he_normal_of_group, classifier=he_normal_of_group)

    def __init__(self, *, width: float = 1.0, num_classes: int = 1000, in_channels: int = 3) -> None:
        widths = [int(channels * width) for channels in (STEM, *CHANNELS)]
        stages = [
            Stage(DepthwiseSeparable(before, out, stride), *(DepthwiseSeparable(out, out, 1) for _ in range(depth - 1)))
            for before, out, depth, stride in zip(widths, widths[1:], DEPTHS, STRIDES, strict=False)
        ]
        super().__init__(
            stem=ConvNormAct(in_channels, widths[0], 3, 2),
            stages=stages,
            scales=pyramid(2, widths[1:]),
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "MobileNetV1_x0_25": (MobileNetV1, dict(width=0.25)),
    "MobileNetV1_x0_5": (MobileNetV1, dict(width=0.5)),
    "MobileNetV1_x0_75": (MobileNetV1, dict(width=0.75)),
    "MobileNetV1": (MobileNetV1, dict()),
}

RENAMES: Renames = {
    "current": (
        ("stem", "conv"),
        ("stages.{s}.{b}", "blocks.{n}"),
        ("depthwise", "depthwise_conv"),
        ("pointwise", "pointwise_conv"),
        ("classifier", "fc"),
    ),
    # Numbered by the channels a block takes in, not by the resolution it works at.
    "original": (
        ("conv", "_conv"),
        ("bn", "_batch_norm"),
        ("depthwise", "_depthwise_conv"),
        ("pointwise", "_pointwise_conv"),
        ("stem", "conv1"),
        ("stages.0.0", "conv2_1"),
        ("stages.4.0", "conv5_6"),
        ("stages.4.1", "conv6"),
        ("stages.{s}.0", "conv{s+1}_2"),
        ("stages.{s}.{b}", "conv{s+2}_{b}"),
        ("classifier", "out"),
    ),
    "timm": (
        ("stem.conv", "conv_stem"),
        ("stem.bn", "bn1"),
        ("depthwise.conv", "conv_dw"),
        ("depthwise.bn", "bn1"),
        ("pointwise.conv", "conv_pw"),
        ("pointwise.bn", "bn2"),
        ("stages", "blocks"),
    ),
}
