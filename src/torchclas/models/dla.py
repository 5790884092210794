"""DLA: Yu et al., "Deep Layer Aggregation", arXiv 1707.06484.

Departure from the published graphs: poolings round up, as strided convolutions do, so that images of all sizes will do,
not just of multiples of 32 px.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from torchclas.layers.conv import ConvNormAct, relu
from torchclas.layers.initialisation import Initialisation, he_normal_of_outputs
from torchclas.layers.network import Network, Renames, Stage, Variants, pyramid
from torchclas.layers.residual import Residual
from torchclas.layers.resnet import MakeModule, basic, bottleneck


class LevelRow(NamedTuple):
    """A stage: the depth of its tree, its channels."""

    depth: int
    channels: int


STEM = (16, 16, 32)
# Table 1, stages 3 to 6.
Levels = tuple[LevelRow, ...]
LEVELS_34: Levels = (LevelRow(1, 64), LevelRow(2, 128), LevelRow(2, 256), LevelRow(1, 512))
LEVELS_46_C: Levels = (LevelRow(1, 64), LevelRow(2, 64), LevelRow(2, 128), LevelRow(1, 256))
LEVELS_60_C: Levels = (LevelRow(1, 64), LevelRow(2, 64), LevelRow(3, 128), LevelRow(1, 256))
LEVELS_60: Levels = (LevelRow(1, 128), LevelRow(2, 256), LevelRow(3, 512), LevelRow(1, 1024))
LEVELS_102: Levels = (LevelRow(1, 128), LevelRow(3, 256), LevelRow(4, 512), LevelRow(1, 1024))
LEVELS_169: Levels = (LevelRow(2, 128), LevelRow(3, 256), LevelRow(5, 512), LevelRow(1, 1024))


class Node(nn.Module):
    """Two residual blocks; a 1×1 convolution aggregates their outputs and `passed` channels from elsewhere.

    With `residual` the second block's output is added to the aggregate.
    """

    def __init__(
        self, branch: MakeModule, in_channels: int, out_channels: int, stride: int, passed: int, *, residual: bool
    ) -> None:
        super().__init__()
        shortcut = nn.Sequential(
            nn.MaxPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity(),
            ConvNormAct(in_channels, out_channels, act=None) if in_channels != out_channels else nn.Identity(),
        )
        self.first = Stage(Residual(branch(in_channels, out_channels, stride), shortcut))
        self.second = Stage(Residual(branch(out_channels, out_channels, 1)))
        self.root = ConvNormAct(2 * out_channels + passed, out_channels, act=None)
        self.residual = residual
        self.act = relu()

    def forward(self, x: Tensor, passed: tuple[Tensor, ...] = ()) -> Tensor:
        """[N, in, H, W] → [N, out, H / stride, W / stride]; `passed` are of the output's height and width."""
        first = self.first(x)
        second = self.second(first)
        x = self.root(torch.cat([second, first, *passed], 1))
        return self.act(x + second if self.residual else x)


class Tree(nn.Module):
    """Two trees one after the other; the last node of the second one also sees what the first one returned."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first = first
        self.second = second

    def forward(self, x: Tensor, passed: tuple[Tensor, ...] = ()) -> Tensor:
        """As of a node."""
        first = self.first(x)
        return self.second(first, (*passed, first))


class Level(nn.Module):
    """A tree that halves the map and whose last node also sees the halved input."""

    def __init__(self, tree: nn.Module) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.tree = tree

    def forward(self, x: Tensor) -> Tensor:
        """[N, in, H, W] → [N, out, H / 2, W / 2]."""
        return self.tree(x, (self.pool(x),))


class DLA(Network):
    """Three convolutions, then `levels` of trees; every level but the first one aggregates its input too.

    Blocks are bottlenecks, half as wide as their output times `groups` × `width` / 64, or with `plain` two 3×3
    convolutions; `residual` is that of all nodes.
    """

    initial = Initialisation(conv=he_normal_of_outputs, classifier=he_normal_of_outputs)

    def __init__(
        self,
        *,
        levels: Levels,
        plain: bool = False,
        groups: int = 1,
        width: int = 64,
        residual: bool = False,
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        def branch(channels: int, out_channels: int, stride: int) -> nn.Module:
            if plain:
                return nn.Sequential(*basic(channels, out_channels, out_channels, stride))
            hidden = out_channels * groups * width // 128
            return nn.Sequential(*bottleneck(channels, hidden, out_channels, stride, groups=groups))

        def tree(depth: int, channels: int, out_channels: int, stride: int, passed: int) -> nn.Module:
            if depth == 1:
                return Node(branch, channels, out_channels, stride, passed, residual=residual)
            first = tree(depth - 1, channels, out_channels, stride, 0)
            return Tree(first, tree(depth - 1, out_channels, out_channels, 1, passed + out_channels))

        stages: list[nn.Module] = []
        channels = STEM[-1]
        for i, row in enumerate(levels):
            passed = channels if i > 0 else 0
            level = tree(row.depth, channels, row.channels, 2, passed)
            stages.append(Level(level) if i > 0 else level)
            channels = row.channels
        super().__init__(
            stem=nn.Sequential(
                ConvNormAct(in_channels, STEM[0], 7),
                ConvNormAct(STEM[0], STEM[1], 3),
                ConvNormAct(STEM[1], STEM[2], 3, 2),
            ),
            stages=stages,
            scales=pyramid(4, [row.channels for row in levels]),
            num_classes=num_classes,
        )


VARIANTS: Variants = {
    "DLA34": (DLA, dict(levels=LEVELS_34, plain=True)),
    "DLA46_c": (DLA, dict(levels=LEVELS_46_C)),
    "DLA60": (DLA, dict(levels=LEVELS_60)),
    "DLA60x": (DLA, dict(levels=LEVELS_60, groups=32, width=4)),
    "DLA60x_c": (DLA, dict(levels=LEVELS_60_C, groups=32, width=4)),
    "DLA102": (DLA, dict(levels=LEVELS_102, residual=True)),
    "DLA102x": (DLA, dict(levels=LEVELS_102, residual=True, groups=32, width=4)),
    "DLA102x2": (DLA, dict(levels=LEVELS_102, residual=True, groups=64, width=4)),
    "DLA169": (DLA, dict(levels=LEVELS_169, residual=True)),
}

_NAMES = (
    ("first.0.shortcut.1.conv", "project.0"),
    ("first.0.shortcut.1.bn", "project.1"),
    ("0.branch.{i}.conv", "conv{i+1}"),
    ("0.branch.{i}.bn", "bn{i+1}"),
    ("first", "tree1"),
    ("second", "tree2"),
    ("stem.0.conv", "base_layer.0"),
    ("stem.0.bn", "base_layer.1"),
    ("stem.{i}.conv", "level{i-1}.0"),
    ("stem.{i}.bn", "level{i-1}.1"),
    ("stages.{s}.tree", "level{s+2}"),
    ("stages.{s}", "level{s+2}"),
    ("classifier", "fc", "conv"),
)
RENAMES: Renames = {"current": _NAMES, "timm": _NAMES}
