"""EfficientNet: Tan and Le, "Rethinking Model Scaling for Convolutional Neural Networks", arXiv 1905.11946.

Departures of the published graphs from the paper: TensorFlow's "SAME" padding is fixed at each model's own input
size; `EfficientNetB0_small` drops squeeze-and-excitation and pads both sides alike. `EfficientNet_lite0` is
TensorFlow's mobile variant: no squeeze-and-excitation, ReLU6 for swish, stem and ends of unscaled width.
"""

from __future__ import annotations

from math import ceil
from typing import Any

from torch import nn

from torchclas.layers.conv import Activation, ConvNormAct, relu6, round_channels, same_padding, swish
from torchclas.layers.inverted_residual import InvertedResidual, StageRow
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid
from torchclas.layers.squeeze_excite import SqueezeExcite

# Table 1.
STAGES = (
    StageRow(1, 16, 1, 1),
    StageRow(6, 24, 2, 2),
    StageRow(6, 40, 2, 2, kernel_size=5),
    StageRow(6, 80, 3, 2),
    StageRow(6, 112, 3, 1, kernel_size=5),
    StageRow(6, 192, 4, 2, kernel_size=5),
    StageRow(6, 320, 1, 1),
)
DROP_PATH = 0.2
EPS, MOMENTUM = 1e-3, 0.01


class EfficientNet(Network):
    """Inverted residuals with squeeze-and-excitation, scaled together in width, depth and input `size`.

    `same=False` pads half the kernel on both sides instead of TensorFlow's "SAME" for `size`.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        size: int = 224,
        dropout: float = 0.2,
        se: bool = True,
        same: bool = True,
        act: Activation = swish,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        def padding(size: int, kernel_size: int, stride: int) -> tuple[int, int] | None:
            if not same:
                return None
            before, after = same_padding(size, kernel_size, stride)
            # Uneven padding goes one stride beyond "SAME" at the end, which tells only at other image sizes.
            return before, after if before == after else before + stride

        norm: dict[str, Any] = {"eps": EPS, "momentum": MOMENTUM}
        channels = round_channels(32 * width)
        stem = ConvNormAct(in_channels, channels, 3, 2, padding=padding(size, 3, 2), act=act, **norm)
        size = ceil(size / 2)
        widths = [round_channels(row.channels * width) for row in STAGES]
        depths = [ceil(row.depth * depth) for row in STAGES]
        drop_path = (DROP_PATH * i / sum(depths) for i in range(sum(depths)))
        stages: list[Stage] = []
        for row, out_channels, blocks_of_stage in zip(STAGES, widths, depths, strict=True):
            blocks: list[nn.Module] = []
            for j in range(blocks_of_stage):
                stride = row.stride if j == 0 else 1
                hidden = channels * row.expansion
                blocks.append(
                    InvertedResidual(
                        channels,
                        hidden,
                        out_channels,
                        row.kernel_size,
                        stride,
                        act=act,
                        se=SqueezeExcite(hidden, max(1, channels // 4), act=swish) if se else None,
                        expand=row.expansion > 1,
                        padding=padding(size, row.kernel_size, stride),
                        drop_path=next(drop_path),
                        **norm,
                    )
                )
                size, channels = ceil(size / stride), out_channels
            stages.append(Stage(*blocks))
        features = round_channels(1280 * width)
        super().__init__(
            stem=stem,
            stages=stages,
            scales=pyramid(2, widths, [row.stride for row in STAGES[1:]]),
            neck=ConvNormAct(channels, features, 1, act=act, **norm),
            head=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout)),
            num_features=features,
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "EfficientNetB0_small": (EfficientNet, dict(se=False, same=False)),
    "EfficientNetB0": (EfficientNet, dict()),
    "EfficientNetB1": (EfficientNet, dict(depth=1.1, size=240)),
    "EfficientNetB2": (EfficientNet, dict(width=1.1, depth=1.2, size=260, dropout=0.3)),
    "EfficientNetB3": (EfficientNet, dict(width=1.2, depth=1.4, size=300, dropout=0.3)),
    "EfficientNetB4": (EfficientNet, dict(width=1.4, depth=1.8, size=380, dropout=0.4)),
    "EfficientNetB5": (EfficientNet, dict(width=1.6, depth=2.2, size=456, dropout=0.4)),
    "EfficientNetB6": (EfficientNet, dict(width=1.8, depth=2.6, size=528, dropout=0.5)),
    "EfficientNetB7": (EfficientNet, dict(width=2.0, depth=3.1, size=600, dropout=0.5)),
    "EfficientNet_lite0": (EfficientNet, dict(se=False, act=relu6)),
}

RENAMES: Renames = {
    "current": (
        ("expand.conv", "_ecn._conv._conv._conv"),
        ("expand.bn", "_ecn._conv._bn"),
        ("depthwise.conv", "_dcn._conv._conv._conv"),
        ("depthwise.bn", "_dcn._conv._bn"),
        ("project.conv", "_pcn._conv._conv._conv"),
        ("project.bn", "_pcn._conv._bn"),
        ("se.reduce", "_se._conv1._conv"),
        ("se.expand", "_se._conv2._conv"),
        ("stages.{s}.0", "_ef._blocks.{n}."),
        ("stages.{s}.{b}", "_ef.block.{n}."),
        ("stem.conv", "_ef._conv_stem._conv._conv._conv"),
        ("stem.bn", "_ef._conv_stem._conv._bn"),
        ("neck.conv", "_conv._conv._conv"),
        ("neck.bn", "_conv._bn"),
        ("classifier", "_fc"),
    ),
    # The first batch norm of a block that does not expand is its second in the others' count.
    "lukemelas: EfficientNet_lite0": (
        ("expand.conv", "_expand_conv"),
        ("expand.bn", "_bn0"),
        ("depthwise.conv", "_depthwise_conv"),
        ("depthwise.bn", "_bn1"),
        ("project.conv", "_project_conv"),
        ("project.bn", "_bn2"),
        ("stages.{s}.{b}", "_blocks.{n}"),
        ("stem.conv", "_conv_stem"),
        ("stem.bn", "_bn0"),
        ("neck.conv", "_conv_head"),
        ("neck.bn", "_bn1"),
        ("classifier", "_fc"),
    ),
    "timm": (
        ("stages.0.{b}.depthwise.bn", "stages.0.{b}.bn1"),
        ("stages.0.{b}.project.conv", "stages.0.{b}.conv_pw"),
        ("stages.0.{b}.project.bn", "stages.0.{b}.bn2"),
        ("expand.conv", "conv_pw"),
        ("expand.bn", "bn1"),
        ("depthwise.conv", "conv_dw"),
        ("depthwise.bn", "bn2"),
        ("project.conv", "conv_pwl"),
        ("project.bn", "bn3"),
        ("se.reduce", "se.conv_reduce"),
        ("se.expand", "se.conv_expand"),
        ("stages", "blocks"),
        ("stem.conv", "conv_stem"),
        ("stem.bn", "bn1"),
        ("neck.conv", "conv_head"),
        ("neck.bn", "bn2"),
    ),
}
