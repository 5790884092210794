"""PP-LCNet: Cui et al., "PP-LCNet: A Lightweight CPU Convolutional Neural Network", arXiv 2109.15099.

Departure of the published graph from the paper: in evaluation its dropout scales the features by 0.8.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from torchclas.layers.conv import ConvNormAct, hardswish, round_channels
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.initialisation import Initialisation, he_normal_of_group
from torchclas.layers.network import Network, Renames, Variants, pyramid, stages_of_rows
from torchclas.layers.squeeze_excite import SqueezeExcite


class Row(NamedTuple):
    """A block of table 1."""

    kernel_size: int
    channels: int
    stride: int = 1
    se: bool = False


# Table 1, one tuple per stage.
STAGES = (
    (Row(3, 32),),
    (Row(3, 64, 2), Row(3, 64)),
    (Row(3, 128, 2), Row(3, 128)),
    (Row(3, 256, 2), *[Row(5, 256)] * 5),
    (Row(5, 512, 2, se=True), Row(5, 512, se=True)),
)
FEATURES = 1280


class DepthwiseSeparable(nn.Module):
    """Depthwise k×k convolution, squeeze-and-excitation, 1×1 convolution."""

    def __init__(self, in_channels: int, row: Row) -> None:
        super().__init__()
        self.depthwise = ConvNormAct(
            in_channels, in_channels, row.kernel_size, row.stride, groups=in_channels, act=hardswish
        )
        self.se = SqueezeExcite(in_channels, in_channels // 4, gate=nn.Hardsigmoid) if row.se else nn.Identity()
        self.pointwise = ConvNormAct(in_channels, row.channels, 1, act=hardswish)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / stride, W / stride]."""
        return self.pointwise(self.se(self.depthwise(x)))


class PPLCNet(Network):
    """Depthwise separable convolutions with large kernels and squeeze-and-excitation only in the last blocks."""

    initial = Initialisation(conv=he_normal_of_group)

    def __init__(self, *, width: float = 1.0, num_classes: int = 1000, in_channels: int = 3) -> None:
        first = round_channels(16 * width)
        table = [[row._replace(channels=round_channels(row.channels * width)) for row in rows] for rows in STAGES]
        widths = [rows[-1].channels for rows in table]
        super().__init__(
            stem=ConvNormAct(in_channels, first, 3, 2, act=hardswish),
            stages=stages_of_rows(first, table, DepthwiseSeparable),
            scales=pyramid(2, widths),
            head=nn.Sequential(
                nn.AdaptiveAvgPool2d(1),
                nn.Conv2d(widths[-1], FEATURES, 1, bias=False),
                hardswish(),
                DownscalingDropout(0.2),
                nn.Flatten(),
            ),
            num_features=FEATURES,
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "PPLCNet_x0_25": (PPLCNet, dict(width=0.25)),
    "PPLCNet_x0_35": (PPLCNet, dict(width=0.35)),
    "PPLCNet_x0_5": (PPLCNet, dict(width=0.5)),
    "PPLCNet_x0_75": (PPLCNet, dict(width=0.75)),
    "PPLCNet_x1_0": (PPLCNet, dict()),
    "PPLCNet_x1_5": (PPLCNet, dict(width=1.5)),
    "PPLCNet_x2_0": (PPLCNet, dict(width=2.0)),
    "PPLCNet_x2_5": (PPLCNet, dict(width=2.5)),
}

RENAMES: Renames = {
    "current": (
        ("stem", "conv1"),
        ("stages.{s}", "blocks{s+2}"),
        ("depthwise", "dw_conv"),
        ("pointwise", "pw_conv"),
        ("se.reduce", "se.conv1"),
        ("se.expand", "se.conv2"),
        ("head.1", "last_conv"),
        ("classifier", "fc"),
    ),
    "timm": (
        ("stem.conv", "conv_stem"),
        ("stem.bn", "bn1"),
        ("depthwise.conv", "conv_dw"),
        ("depthwise.bn", "bn1"),
        ("pointwise.conv", "conv_pw"),
        ("pointwise.bn", "bn2"),
        ("se.reduce", "se.conv_reduce"),
        ("se.expand", "se.conv_expand"),
        ("stages.3.2", "blocks.4.0"),
        ("stages.3.3", "blocks.4.1"),
        ("stages.3.4", "blocks.4.2"),
        ("stages.3.5", "blocks.4.3"),
        ("stages.4", "blocks.5"),
        ("stages", "blocks"),
        ("head.1", "conv_head"),
        ("classifier.weight", "classifier.weight", "×0.8"),  # its dropout leaves features as they are
    ),
}
