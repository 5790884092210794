"""What ResNet and its relatives are built of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from torch import nn

from torchclas.layers.conv import ConvNormAct
from torchclas.layers.network import Stage
from torchclas.layers.residual import Residual, projection

# Input channels, output channels, stride → module.
MakeModule = Callable[[int, int, int], nn.Module]


class StageRow(NamedTuple):
    """A stage of residual blocks."""

    depth: int
    channels: int
    stride: int


def resnet_rows(depths: Iterable[int], channels: int) -> list[StageRow]:
    """ResNet's stages: `channels` in the first, which keeps the map; the others halve it and have twice as many."""
    return [StageRow(depth, channels * 2**i, stride=1 if i == 0 else 2) for i, depth in enumerate(depths)]


def resnet_stem(in_channels: int, widths: Sequence[int] = ()) -> nn.Sequential:
    """3×3 convolutions of these `widths`, or a 7×7 one to 64 channels, then max pooling: a quarter of the size."""
    if not widths:
        return nn.Sequential(ConvNormAct(in_channels, 64, 7, 2), nn.MaxPool2d(3, 2, padding=1))
    channels = (in_channels, *widths)
    convs = [ConvNormAct(channels[i], width, 3, 2 if i == 0 else 1) for i, width in enumerate(widths)]
    return nn.Sequential(*convs, nn.MaxPool2d(3, 2, padding=1))


def basic(in_channels: int, width: int, out_channels: int, stride: int = 1, *, groups: int = 1) -> list[nn.Module]:
    """Two 3×3 convolutions: the branch of the shallower networks."""
    return [
        ConvNormAct(in_channels, width, 3, stride, groups=groups),
        ConvNormAct(width, out_channels, 3, act=None),
    ]


def bottleneck(
    in_channels: int,
    width: int,
    out_channels: int,
    stride: int = 1,
    *,
    groups: int = 1,
    bias: bool = False,
    middle: nn.Module | None = None,
) -> list[nn.Module]:
    """1×1, 3×3 (grouped in ResNeXt), 1×1 convolution: the branch of the deeper networks.

    A `middle` of `width` channels takes the place of the 3×3 convolution.
    """
    return [
        ConvNormAct(in_channels, width, 1, bias=bias),
        ConvNormAct(width, width, 3, stride, groups=groups, bias=bias) if middle is None else middle,
        ConvNormAct(width, out_channels, 1, bias=bias, act=None),
    ]


def residual_stages(
    in_channels: int, rows: Iterable[StageRow], branch: MakeModule, *, shortcut: MakeModule = projection
) -> list[Stage]:
    """Stages of residual blocks.

    The first block of every stage has its stride and a `shortcut`; the others add their input as it is.
    """
    stages: list[Stage] = []
    for depth, channels, stride in rows:
        first = Residual(branch(in_channels, channels, stride), shortcut(in_channels, channels, stride))
        others = [Residual(branch(channels, channels, 1)) for _ in range(depth - 1)]
        stages.append(Stage(first, *others))
        in_channels = channels
    return stages
