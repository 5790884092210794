"""Xception: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", arXiv 1610.02357.

Departures of the published graphs from the paper: 1×1 convolutions come before the depthwise ones, and shortcuts have
no batch norm. Xception65 and 71 have the depths of DeepLab's variants (arXiv 1802.02611) with the paper's poolings.
"""

from __future__ import annotations

from torch import Tensor, nn

from torchclas.layers.conv import ConvNormAct
from torchclas.layers.initialisation import Initialisation, uniform
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid
from torchclas.layers.residual import Residual

# Figure 5, the stages of the entry flow: output channels of the blocks; the first of each halves the map.
ENTRY = ((128,), (256,), (728,))
DEEP_ENTRY = ((128, 256), (256, 728), (728,))
# The exit flow's convolutions.
EXIT = (1024, 1536, 2048)


class Separable(nn.Module):
    """1×1 convolution, then depthwise 3×3; `act` puts ReLU before both."""

    def __init__(self, in_channels: int, out_channels: int, *, act: bool = True) -> None:
        super().__init__()
        self.act = nn.ReLU() if act else nn.Identity()  # not in place: the shortcut sees the same input
        self.pointwise = ConvNormAct(in_channels, out_channels, act=None)
        self.depthwise = ConvNormAct(out_channels, out_channels, 3, groups=out_channels, act=None)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H, W]."""
        return self.depthwise(self.pointwise(self.act(x)))


def shrinking(in_channels: int, hidden: int, out_channels: int, stride: int) -> Residual:
    """Two separable convolutions and max pooling around a 1×1 convolution."""
    branch = nn.Sequential(
        Separable(in_channels, hidden), Separable(hidden, out_channels), nn.MaxPool2d(3, stride, padding=1)
    )
    return Residual(branch, nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), act=None)


class Xception(Network):
    """Entry flow, `middle` equal blocks, exit flow."""

    initial = Initialisation(classifier=uniform)

    def __init__(
        self, *, middle: int, entry: tuple[tuple[int, ...], ...] = ENTRY, num_classes: int = 1000, in_channels: int = 3
    ) -> None:
        channels = 64
        stages: list[Stage] = []
        for widths in entry:
            blocks: list[nn.Module] = []
            for j, width in enumerate(widths):
                blocks.append(shrinking(channels, width, width, 2 if j == 0 else 1))
                channels = width
            stages.append(Stage(*blocks))
        for _ in range(middle):
            stages[-1].append(Residual(nn.Sequential(*(Separable(channels, channels) for _ in range(3))), act=None))
        stages.append(
            Stage(
                shrinking(channels, channels, EXIT[0], 2),
                Separable(EXIT[0], EXIT[1], act=False),
                Separable(EXIT[1], EXIT[2]),
            )
        )
        super().__init__(
            stem=nn.Sequential(ConvNormAct(in_channels, 32, 3, 2), ConvNormAct(32, 64, 3)),
            stages=stages,
            scales=pyramid(4, [*(widths[-1] for widths in entry), EXIT[-1]]),
            neck=nn.ReLU(),
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "Xception41": (Xception, dict(middle=8)),
    "Xception65": (Xception, dict(middle=16)),
    "Xception71": (Xception, dict(middle=16, entry=DEEP_ENTRY)),
}

RENAMES: Renames = {
    "current": (
        ("conv", "_conv"),
        ("bn", "_batch_norm"),
        ("pointwise", "_pointwise_conv"),
        ("depthwise", "_depthwise_conv"),
        ("shortcut", "_short"),
        ("stem.{i}", "_entry_flow._conv{i+1}"),
        ("stages.3.0.branch.{i}", "_exit_flow._conv_0._conv_{i+1}"),
        ("stages.3.{b}", "_exit_flow._conv_{b}"),
        ("stages.2.0.branch.{i}", "_entry_flow._conv_{n}._conv{i+1}"),
        ("stages.2.0", "_entry_flow._conv_{n}"),
        ("stages.2.{b}.branch.{i}", "_middle_flow._conv_{b-1}._conv_{i}"),
        ("stages.{s}.{b}.branch.{i}", "_entry_flow._conv_{n}._conv{i+1}"),
        ("stages.{s}.{b}", "_entry_flow._conv_{n}"),
        ("classifier", "_exit_flow._out"),
    ),
}
