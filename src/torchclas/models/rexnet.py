"""ReXNet: Han et al., "Rethinking Channel Dimensions for Efficient Model Design", arXiv 2007.00992.

Departures of the published graphs from the paper: a block that widens adds its input to its first channels.
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from torchclas.layers.conv import ConvNormAct, relu, relu6, swish
from torchclas.layers.initialisation import Initialisation, he_normal
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid
from torchclas.layers.residual import Residual
from torchclas.layers.squeeze_excite import SqueezeExcite

# Section 4: blocks per stage, the first one's stride. The first stage does not expand, the first two have no
# squeeze-and-excitation. From block to block the channels grow by the same number.
DEPTHS, STRIDES = (1, 2, 2, 3, 3, 5), (1, 2, 2, 2, 1, 2)
STEM, FIRST, GROWTH, EXPANSION = 32, 16, 180, 6
SE_REDUCTION = 12


def squeeze_excite(channels: int) -> SqueezeExcite:
    """Squeeze-and-excitation with a batch norm in its bottleneck."""
    hidden = channels // SE_REDUCTION
    return SqueezeExcite(channels, hidden, act=lambda: nn.Sequential(nn.BatchNorm2d(hidden), relu()))


def linear_bottleneck(in_channels: int, out_channels: int, expansion: int, stride: int, *, se: bool) -> nn.Module:
    """Inverted residual; where the map keeps its size, the input is added to the first channels of the output."""
    hidden = in_channels * expansion
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        expand=ConvNormAct(in_channels, hidden, 1, act=swish) if expansion > 1 else nn.Identity(),
        depthwise=ConvNormAct(hidden, hidden, 3, stride, groups=hidden, act=None),
        se=squeeze_excite(hidden) if se else nn.Identity(),
        act=relu6(),
        project=ConvNormAct(hidden, out_channels, 1, act=None),
    )
    branch = nn.Sequential(parts)
    if stride > 1 or in_channels > out_channels:
        return branch
    return Residual(branch, nn.ZeroPad3d((0, 0, 0, 0, 0, out_channels - in_channels)), act=None)


class ReXNet(Network):
    """Inverted residuals whose channels grow linearly with depth; `width` scales them."""

    initial = Initialisation(classifier=he_normal)  # a convolution, as published

    def __init__(self, *, width: float = 1.0, num_classes: int = 1000, in_channels: int = 3) -> None:
        first = channels = round(STEM * width)
        total = sum(DEPTHS)
        outs = (round((FIRST + GROWTH * i / total) * width) for i in range(total))
        stages: list[Stage] = []
        widths: list[int] = []
        for i, (depth, stride) in enumerate(zip(DEPTHS, STRIDES, strict=True)):
            blocks: list[nn.Module] = []
            for j in range(depth):
                before, channels = channels, next(outs)
                expansion, block_stride = 1 if i == 0 else EXPANSION, stride if j == 0 else 1
                blocks.append(linear_bottleneck(before, channels, expansion, block_stride, se=i >= 2))
            stages.append(Stage(*blocks))
            widths.append(channels)
        features = int(1280 * width)
        super().__init__(
            stem=ConvNormAct(in_channels, first, 3, 2, act=swish),
            stages=stages,
            scales=pyramid(2, widths, STRIDES[1:]),
            neck=ConvNormAct(channels, features, 1, act=swish),
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2)),
            num_features=features,
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "ReXNet_1_0": (ReXNet, dict()),
    "ReXNet_1_3": (ReXNet, dict(width=1.3)),
    "ReXNet_1_5": (ReXNet, dict(width=1.5)),
    "ReXNet_2_0": (ReXNet, dict(width=2.0)),
    "ReXNet_3_0": (ReXNet, dict(width=3.0)),
}

RENAMES: Renames = {
    "current": (
        # Published layers are numbered in a row; the first block does not expand, the next two lack an SE.
        ("stages.{s}.{b}.branch", "features.{n+3}"),
        ("stages.{s}.{b}", "features.{n+3}"),
        ("features.3.depthwise.conv", "features.3.out.0"),
        ("features.3.depthwise.bn", "features.3.out.1"),
        ("features.3.project.conv", "features.3.out.3"),
        ("features.3.project.bn", "features.3.out.4"),
        ("features.4.project.conv", "features.4.out.6"),
        ("features.4.project.bn", "features.4.out.7"),
        ("features.5.project.conv", "features.5.out.6"),
        ("features.5.project.bn", "features.5.out.7"),
        ("expand.conv", "out.0"),
        ("expand.bn", "out.1"),
        ("depthwise.conv", "out.3"),
        ("depthwise.bn", "out.4"),
        ("se.reduce", "out.5.fc.0"),
        ("se.act.0", "out.5.fc.1"),
        ("se.expand", "out.5.fc.3"),
        ("project.conv", "out.7"),
        ("project.bn", "out.8"),
        ("stem.conv", "features.0"),
        ("stem.bn", "features.1"),
        ("neck.conv", "features.{n+3}"),
        ("neck.bn", "features.{n+4}"),
        ("classifier", "output.1", "conv"),
    ),
    "timm": (
        ("stages.{s}.{b}.branch", "features.{n}"),
        ("stages.{s}.{b}", "features.{n}"),
        ("se.reduce", "se.fc1"),
        ("se.act.0", "se.bn"),
        ("se.expand", "se.fc2"),
        ("expand", "conv_exp"),
        ("depthwise", "conv_dw"),
        ("project", "conv_pwl"),
        ("neck", "features.{n}"),
        ("classifier", "head.fc"),
    ),
}
