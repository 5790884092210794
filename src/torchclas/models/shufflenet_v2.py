"""ShuffleNetV2: Ma et al., "Practical Guidelines for Efficient CNN Architecture Design", arXiv 1807.11164.

Departures of the published graphs from the paper: the first stage of ×2.0 has 224 channels, not 244; the widths
×0.25 and ×0.33 and the variant with swish are not in the paper.
"""

from __future__ import annotations

from torch import Tensor, nn

from torchclas.layers.channel_shuffle import interleave
from torchclas.layers.conv import Activation, ConvNormAct, relu, swish
from torchclas.layers.initialisation import Initialisation, he_normal_of_group
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid

# Table 5: blocks per stage.
DEPTHS = (4, 8, 4)
STEM = 24


class ShuffleUnit(nn.Module):
    """Convolutions on one half of the channels beside the other half; stride 2 convolves all channels on both sides."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, act: Activation) -> None:
        super().__init__()
        half = out_channels // 2
        self.split = stride == 1
        downsample = [
            ConvNormAct(in_channels, in_channels, 3, stride, groups=in_channels, act=None),
            ConvNormAct(in_channels, half, 1, act=act),
        ]
        self.shortcut = nn.Sequential(*([] if self.split else downsample))
        self.branch = nn.Sequential(
            ConvNormAct(half if self.split else in_channels, half, 1, act=act),
            ConvNormAct(half, half, 3, stride, groups=half, act=None),
            ConvNormAct(half, half, 1, act=act),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / stride, W / stride]."""
        left, right = x.chunk(2, 1) if self.split else (x, x)
        return interleave(self.shortcut(left), self.branch(right))


class ShuffleNetV2(Network):
    """Units that shuffle channels; `widths` are the stages' channels, `features` the last convolution's."""

    initial = Initialisation(conv=he_normal_of_group)

    def __init__(
        self,
        *,
        widths: tuple[int, int, int],
        features: int = 1024,
        act: Activation = relu,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        stages = [
            Stage(ShuffleUnit(before, width, 2, act), *(ShuffleUnit(width, width, 1, act) for _ in range(depth - 1)))
            for before, width, depth in zip((STEM, *widths), widths, DEPTHS, strict=False)
        ]
        super().__init__(
            stem=nn.Sequential(ConvNormAct(in_channels, STEM, 3, 2, act=act), nn.MaxPool2d(3, 2, padding=1)),
            stages=stages,
            scales=pyramid(8, widths),
            neck=ConvNormAct(widths[-1], features, 1, act=act),
            num_features=features,
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "ShuffleNetV2_x0_25": (ShuffleNetV2, dict(widths=(24, 48, 96), features=512)),
    "ShuffleNetV2_x0_33": (ShuffleNetV2, dict(widths=(32, 64, 128), features=512)),
    "ShuffleNetV2_x0_5": (ShuffleNetV2, dict(widths=(48, 96, 192))),
    "ShuffleNetV2_x1_0": (ShuffleNetV2, dict(widths=(116, 232, 464))),
    "ShuffleNetV2_x1_5": (ShuffleNetV2, dict(widths=(176, 352, 704))),
    "ShuffleNetV2_x2_0": (ShuffleNetV2, dict(widths=(224, 488, 976), features=2048)),
    "ShuffleNetV2_swish": (ShuffleNetV2, dict(widths=(116, 232, 464), act=swish)),
}

RENAMES: Renames = {
    "current": (
        ("conv", "_conv"),
        ("bn", "_batch_norm"),
        ("stages.{s}.0.shortcut.0", "{s+2}_1._conv_dw_1"),
        ("stages.{s}.0.shortcut.1", "{s+2}_1._conv_linear_1"),
        ("stages.{s}.0.branch.0", "{s+2}_1._conv_pw_2"),
        ("stages.{s}.0.branch.1", "{s+2}_1._conv_dw_2"),
        ("stages.{s}.0.branch.2", "{s+2}_1._conv_linear_2"),
        ("stages.{s}.{b}.branch.0", "{s+2}_{b+1}._conv_pw"),
        ("stages.{s}.{b}.branch.1", "{s+2}_{b+1}._conv_dw"),
        ("stages.{s}.{b}.branch.2", "{s+2}_{b+1}._conv_linear"),
        ("stem.0", "_conv1"),
        ("neck", "_last_conv"),
        ("classifier", "_fc"),
    ),
    "torchvision": (
        ("stem.0.conv", "conv1.0"),
        ("stem.0.bn", "conv1.1"),
        ("shortcut.0.conv", "branch1.0"),
        ("shortcut.0.bn", "branch1.1"),
        ("shortcut.1.conv", "branch1.2"),
        ("shortcut.1.bn", "branch1.3"),
        ("branch.0.conv", "branch2.0"),
        ("branch.0.bn", "branch2.1"),
        ("branch.1.conv", "branch2.3"),
        ("branch.1.bn", "branch2.4"),
        ("branch.2.conv", "branch2.5"),
        ("branch.2.bn", "branch2.6"),
        ("stages.{s}", "stage{s+2}"),
        ("neck.conv", "conv5.0"),
        ("neck.bn", "conv5.1"),
        ("classifier", "fc"),
    ),
}
