"""PP-LCNet: Cui et al., "PP-LCNet: A Lightweight CPU Convolutional Neural Network", arXiv 2109.15099.

Departure of the published graph from the paper: in evaluation its dropout scales the features by 0.8.
"""

from __future__ import annotations

from torch import Tensor, nn

from torchclas.layers.conv import ConvNormAct, hardswish, round_channels
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.initialisation import Initialisation, he_normal_of_group
from torchclas.layers.network import FeatureInfo, Network, Renames, Stage, Variants
from torchclas.layers.squeeze_excite import SqueezeExcite

# Table 1, one tuple per stage: kernel, output channels, stride, squeeze-and-excitation.
STAGES = (
    ((3, 32, 1, False),),
    ((3, 64, 2, False), (3, 64, 1, False)),
    ((3, 128, 2, False), (3, 128, 1, False)),
    ((3, 256, 2, False), *((5, 256, 1, False),) * 5),
    ((5, 512, 2, True), (5, 512, 1, True)),
)


class DepthwiseSeparable(nn.Module):
    """Depthwise k×k convolution, squeeze-and-excitation, 1×1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, *, se: bool) -> None:
        super().__init__()
        self.depthwise = ConvNormAct(in_channels, in_channels, kernel_size, stride, groups=in_channels, act=hardswish)
        self.se = SqueezeExcite(in_channels, in_channels // 4, gate=nn.Hardsigmoid) if se else nn.Identity()
        self.pointwise = ConvNormAct(in_channels, out_channels, 1, act=hardswish)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / stride, W / stride]."""
        return self.pointwise(self.se(self.depthwise(x)))


class PPLCNet(Network):
    """Depthwise separable convolutions with large kernels and squeeze-and-excitation only in the last blocks."""

    initial = Initialisation(conv=he_normal_of_group)

    def __init__(self, *, width: float = 1.0, num_classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        self.in_channels = in_channels
        channels = round_channels(16 * width)
        self.stem = ConvNormAct(in_channels, channels, 3, 2, act=hardswish)
        stages: list[Stage] = []
        for rows in STAGES:
            blocks: list[nn.Module] = []
            for kernel_size, out, stride, se in rows:
                out_channels = round_channels(out * width)
                blocks.append(DepthwiseSeparable(channels, out_channels, kernel_size, stride, se=se))
                channels = out_channels
            stages.append(Stage(*blocks))
        self.stages = nn.Sequential(*stages)
        self.neck = nn.Identity()
        self.num_features = 1280
        self.head = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, self.num_features, 1, bias=False),
            hardswish(),
            DownscalingDropout(0.2),
            nn.Flatten(),
        )
        self.feature_info = tuple(
            FeatureInfo(i, 2 << i, round_channels(rows[-1][1] * width)) for i, rows in enumerate(STAGES)
        )
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()


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
}
