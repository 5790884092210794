"""Xception as DeepLab's encoder: Chen et al., "Encoder-Decoder with Atrous Separable Convolution", arXiv 1802.02611.

Departures of the published graphs from the paper: only in the last three separable convolutions does ReLU follow the
depthwise one; in evaluation the dropout before pooling scales the features by 0.5.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from torchclas.layers.conv import Activation, ConvNormAct, relu
from torchclas.layers.dropout import DownscalingDropout
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid
from torchclas.layers.residual import Residual

# Figure 4: output channels of the entry flow's blocks, each of which halves the map; of the exit flow's convolutions.
ENTRY = (128, 256, 728)
EXIT_BLOCK, EXIT = (728, 1024, 1024), (1536, 1536, 2048)

conv = partial(ConvNormAct, act=None, eps=1e-3, momentum=0.01)


class Separable(nn.Sequential):
    """Depthwise 3×3 convolution, then 1×1; `act` stands behind both, without it ReLU stands before them."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1, *, dilation: int = 1, act: Activation | None = None
    ) -> None:
        super().__init__()
        self.act = nn.ReLU() if act is None else nn.Identity()  # not in place: the shortcut sees the same input
        self.depthwise = conv(in_channels, in_channels, 3, stride, dilation=dilation, groups=in_channels, act=act)
        self.pointwise = conv(in_channels, out_channels, act=act)


def block(in_channels: int, widths: tuple[int, int, int], stride: int) -> Residual:
    """Three separable convolutions, the last of which has the `stride`, around a shortcut."""
    first, second, last = widths
    branch = nn.Sequential(Separable(in_channels, first), Separable(first, second), Separable(second, last, stride))
    return Residual(branch, conv(in_channels, last, 1, stride) if stride > 1 else None, act=None)


class XceptionDeepLab(Network):
    """Entry flow, `middle` equal blocks, exit flow, all of depthwise separable convolutions."""

    def __init__(self, *, middle: int, num_classes: int = 1000, in_channels: int = 3) -> None:
        channels = 64
        stages: list[Stage] = []
        for width in ENTRY:
            stages.append(Stage(block(channels, (width, width, width), 2)))
            channels = width
        stages[-1].extend([block(channels, (channels, channels, channels), 1) for _ in range(middle)])
        stages.append(Stage(block(channels, EXIT_BLOCK, 2)))
        channels = EXIT_BLOCK[-1]
        for width in EXIT:
            stages[-1].append(Separable(channels, width, dilation=2, act=relu))
            channels = width
        super().__init__(
            stem=nn.Sequential(conv(in_channels, 32, 3, 2, act=relu), conv(32, 64, 3, act=relu)),
            stages=stages,
            scales=pyramid(4, (*ENTRY, EXIT[-1])),
            head=nn.Sequential(DownscalingDropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "Xception41_deeplab": (XceptionDeepLab, dict(middle=8)),
    "Xception65_deeplab": (XceptionDeepLab, dict(middle=16)),
}


def _rules(backbone: str) -> tuple[tuple[str, ...], ...]:
    return (
        ("depthwise.conv", "_conv1"),
        ("depthwise.bn", "_bn1"),
        ("pointwise.conv", "_conv2"),
        ("pointwise.bn", "_bn2"),
        ("conv", "_conv"),
        ("bn", "_bn"),
        ("branch.{i}", "_conv{i+1}"),
        ("shortcut", "_short"),
        ("stem.{i}", "_conv{i+1}"),
        ("stages.2.0", f"{backbone}/entry_flow/block3"),
        ("stages.2.{b}", f"{backbone}/middle_flow/block{{b}}"),
        ("stages.3.0", "_exit_flow_1"),
        ("stages.3.{b}", "_exit_flow_2._conv{b}"),
        ("stages.{s}.0", f"{backbone}/entry_flow/block{{s+1}}"),
        ("classifier", "_fc"),
    )


# The published names tell the depth.
RENAMES: Renames = {"current: *41*": _rules("xception_41"), "current: *65*": _rules("xception_65")}
