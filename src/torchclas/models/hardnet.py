"""HarDNet: Chao et al., "HarDNet: A Low Memory Traffic Network", arXiv 1909.00948.

Departures of the published graphs from the paper: ReLU6 for ReLU. The `_ds` variants are depthwise-separable.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from torchclas.layers.conv import ConvNormAct, global_pool, relu6
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid


class Row(NamedTuple):
    """A harmonic dense block and the 1×1 convolution after it, to `channels`."""

    depth: int
    growth: int
    channels: int


class Layout(NamedTuple):
    """One of the paper's networks; `stages` holds the blocks of each stage."""

    stem: tuple[int, int]
    multiplier: float
    stages: tuple[tuple[Row, ...], ...]
    dropout: float
    last_dropout: float = 0.0


LAYOUTS = {
    39: Layout(
        stem=(24, 48),
        multiplier=1.6,
        stages=((Row(4, 16, 96),), (Row(16, 20, 320),), (Row(8, 64, 640),), (Row(4, 160, 1024),)),
        dropout=0.1,
    ),
    68: Layout(
        stem=(32, 64),
        multiplier=1.7,
        stages=((Row(8, 14, 128),), (Row(16, 16, 256), Row(16, 20, 320)), (Row(16, 40, 640),), (Row(4, 160, 1024),)),
        dropout=0.1,
    ),
    85: Layout(
        stem=(48, 96),
        multiplier=1.7,
        stages=(
            (Row(8, 24, 192),),
            (Row(16, 24, 256), Row(16, 28, 320)),
            (Row(16, 36, 480), Row(16, 48, 720)),
            (Row(4, 256, 1280),),
        ),
        dropout=0.2,
        last_dropout=0.1,
    ),
}


class HarmonicDenseBlock(nn.Module):
    """Layer i reads those 1, 2, 4 … layers before it whose distance divides i; wider where more of them do.

    The output is that of all odd layers and the last one.
    """

    def __init__(self, in_channels: int, growth: int, multiplier: float, depth: int, *, separable: bool) -> None:
        super().__init__()
        self.sources = [[i - 2**k for k in range(i.bit_length()) if i % 2**k == 0] for i in range(1, depth + 1)]
        widths = [in_channels]
        layers: list[nn.Module] = []
        for sources in self.sources:
            # to the nearest even number, as the paper's code rounds
            width = int(growth * multiplier ** (len(sources) - 1) + 1) // 2 * 2
            layers.append(dense_layer(sum(widths[source] for source in sources), width, separable=separable))
            widths.append(width)
        self.layers = nn.ModuleList(layers)
        self.outputs = [i for i in range(1, depth + 1) if i % 2 == 1 or i == depth]
        self.out_channels = sum(widths[i] for i in self.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out_channels, H, W]."""
        maps = [x]
        for layer, sources in zip(self.layers, self.sources, strict=True):
            maps.append(layer(torch.cat([maps[source] for source in sources], 1)))
        return torch.cat([maps[i] for i in self.outputs], 1)


def dense_layer(in_channels: int, out_channels: int, *, separable: bool) -> nn.Module:
    """3×3 convolution, or a 1×1 and a depthwise 3×3 one."""
    if not separable:
        return ConvNormAct(in_channels, out_channels, 3, act=relu6)
    return nn.Sequential(ConvNormAct(in_channels, out_channels, 1, act=relu6), depthwise(out_channels))


def depthwise(channels: int, stride: int = 1) -> ConvNormAct:
    """Depthwise 3×3 convolution without activation."""
    return ConvNormAct(channels, channels, 3, stride, groups=channels, act=None)


class HarDNet(Network):
    """Harmonic dense blocks, each followed by a 1×1 convolution; `separable` also halves maps by convolutions."""

    def __init__(self, *, layers: int, separable: bool = False, num_classes: int = 1000, in_channels: int = 3) -> None:
        layout = LAYOUTS[layers]
        first, channels = layout.stem
        stem = nn.Sequential(
            ConvNormAct(in_channels, first, 3, 2, act=relu6),
            ConvNormAct(first, channels, 1 if separable else 3, act=relu6),
            depthwise(channels, 2) if separable else nn.MaxPool2d(3, 2, padding=1),
        )
        stages: list[Stage] = []
        for i, rows in enumerate(layout.stages):
            blocks: list[nn.Module] = []
            if i > 0:
                blocks.append(depthwise(channels, 2) if separable else nn.MaxPool2d(2, 2))
            for row in rows:
                block = HarmonicDenseBlock(channels, row.growth, layout.multiplier, row.depth, separable=separable)
                blocks += [block, ConvNormAct(block.out_channels, row.channels, 1, act=relu6)]
                channels = row.channels
            stages.append(Stage(*blocks))
        if layout.last_dropout:
            stages[-1].insert(-1, nn.Dropout(layout.last_dropout))
        super().__init__(
            stem=stem,
            stages=stages,
            scales=pyramid(4, [rows[-1].channels for rows in layout.stages]),
            head=nn.Sequential(global_pool(), nn.Dropout(0.05 if separable else layout.dropout)),
            num_classes=num_classes,
        )
        self.min_size = 1 if separable else 29  # poolings without padding


VARIANTS: Variants = {
    "HarDNet39_ds": (HarDNet, dict(layers=39, separable=True)),
    "HarDNet68_ds": (HarDNet, dict(layers=68, separable=True)),
    "HarDNet68": (HarDNet, dict(layers=68)),
    "HarDNet85": (HarDNet, dict(layers=85)),
}

RENAMES: Renames = {
    "current": (
        ("bn", "norm"),
        ("stem.2.conv", "base.2.dwconv"),
        ("stages.{s}.0.conv", "base.{n+3}.dwconv"),
        ("stem", "base"),
        ("stages.{s}.{b}", "base.{n+3}"),
        ("layers.{i}.0", "layers.{i}.layer1"),
        ("layers.{i}.1.conv", "layers.{i}.layer2.dwconv"),
        ("layers.{i}.1", "layers.{i}.layer2"),
        ("classifier", "base.{n+3}.3"),
    ),
}
