"""DLA: Yu et al., "Deep Layer Aggregation", arXiv 1707.06484.

Departure from the published graphs: poolings round up, as strided convolutions do, so that images of all sizes will do,
not just of multiples of 32 px.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from torchclas.layers.conv import ConvNormAct, global_pool, relu
from torchclas.layers.initialisation import Initialisation, he_normal_of_outputs
from torchclas.layers.network import FeatureInfo, Network, Renames, Stage, Variants
from torchclas.layers.residual import Residual
from torchclas.layers.resnet import MakeModule, basic, bottleneck

# Table 1, stages 3 to 6: depth of the tree, channels.
Levels = tuple[tuple[int, int], ...]
LEVELS_34: Levels = ((1, 64), (2, 128), (2, 256), (1, 512))
LEVELS_46_C: Levels = ((1, 64), (2, 64), (2, 128), (1, 256))
LEVELS_60_C: Levels = ((1, 64), (2, 64), (3, 128), (1, 256))
LEVELS_60: Levels = ((1, 128), (2, 256), (3, 512), (1, 1024))
LEVELS_102: Levels = ((1, 128), (3, 256), (4, 512), (1, 1024))
LEVELS_169: Levels = ((2, 128), (3, 256), (5, 512), (1, 1024))


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
        super().__init__()
        self.in_channels = in_channels
        self.stem = nn.Sequential(ConvNormAct(in_channels, 16, 7), ConvNormAct(16, 16, 3), ConvNormAct(16, 32, 3, 2))

        def branch(channels: int, out_channels: int, stride: int) -> nn.Module:
            if plain:
                return nn.Sequential(*basic(channels, out_channels, out_channels, stride))
            hidden = out_channels * width // 64 * groups // 2
            return nn.Sequential(*bottleneck(channels, hidden, out_channels, stride, groups=groups))

        def tree(depth: int, channels: int, out_channels: int, stride: int, passed: int) -> nn.Module:
            if depth == 1:
                return Node(branch, channels, out_channels, stride, passed, residual=residual)
            first = tree(depth - 1, channels, out_channels, stride, 0)
            return Tree(first, tree(depth - 1, out_channels, out_channels, 1, passed + out_channels))

        channels = 32
        stages: list[nn.Module] = []
        info: list[FeatureInfo] = []
        for i, (depth, out_channels) in enumerate(levels):
            if i == 0:
                stages.append(tree(depth, channels, out_channels, 2, 0))
            else:
                stages.append(Level(tree(depth, channels, out_channels, 2, channels)))
            channels = out_channels
            info.append(FeatureInfo(i, 4 << i, channels))
        self.stages = nn.Sequential(*stages)
        self.neck = nn.Identity()
        self.head = global_pool()
        self.feature_info = tuple(info)
        self.num_features = channels
        self.classifier = self.make_classifier(num_classes)
        self.init_weights()


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

RENAMES: Renames = {
    "current": (
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
    ),
}
